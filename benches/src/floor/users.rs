//! Users in an open-addressing table, a line of the cache each.

use super::PANES;

/// A user, in one line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line {
    hash: u64,
    len: u8,
    key: [u8; 23],
    pub(super) start: i64,
    pub(super) last: i64,
    /// Of the open session; 0 if there is none.
    pub(super) events: u32,
    /// Bit n: seen in minute `newest − n`.
    seen: u32,
    newest: i32,
    /// Somebody will look whether the session has ended.
    pub(super) reminded: bool,
}

impl Line {
    pub(super) fn user(&self) -> &[u8] {
        &self.key[..self.len as usize]
    }

    /// Calls `count` with the last minute of each window that has not seen the user before.
    #[inline]
    pub(super) fn appear(&mut self, minute: i64, mut count: impl FnMut(i64)) {
        let minute = minute as i32;
        let ahead = minute - self.newest;
        if ahead > 0 {
            self.seen = if ahead < 32 { self.seen << ahead } else { 0 };
            self.newest = minute;
        }
        let bit = 1u32 << (self.newest - minute).min(31);
        if self.seen & bit == 0 {
            for last in minute..minute + PANES as i32 {
                // The panes last − 4 ..= last, as bits below the newest.
                let low = self.newest - last;
                let panes = if low >= 0 { 0x1f_u32 << low.min(31) } else { 0x1f >> -low };
                if self.seen & panes == 0 {
                    count(i64::from(last));
                }
            }
            self.seen |= bit;
        }
    }
}

pub(super) struct Users {
    pub(super) lines: Vec<Line>,
    mask: usize,
}

impl Users {
    pub(super) fn new(users: u32) -> Self {
        let empty = Line {
            hash: 0,
            len: 0,
            key: [0; 23],
            start: 0,
            last: 0,
            events: 0,
            seen: 0,
            newest: 0,
            reminded: false,
        };
        let lines = (users as usize * 2).next_power_of_two();
        Self { lines: vec![empty; lines], mask: lines - 1 }
    }

    /// Begins to load the line where a user should be.
    #[inline]
    #[expect(unsafe_code, reason = "a prefetch reads nothing, and the address is in the table")]
    pub(super) fn fetch(&self, hash: u64) {
        #[cfg(target_arch = "x86_64")]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let line = &raw const self.lines[hash as usize & self.mask];
            _mm_prefetch(line.cast::<i8>(), _MM_HINT_T0);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    #[inline]
    pub(super) fn find(&mut self, hash: u64, user: &[u8]) -> usize {
        let mut at = hash as usize & self.mask;
        loop {
            let line = &mut self.lines[at];
            let len = line.len as usize;
            if len == 0 {
                line.hash = hash;
                line.len = user.len() as u8;
                line.key[..user.len()].copy_from_slice(user);
                return at;
            }
            if line.hash == hash && &line.key[..len] == user {
                return at;
            }
            at = (at + 1) & self.mask;
        }
    }
}
