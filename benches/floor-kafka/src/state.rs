//! The three aggregates, laid out for the cache: all that is known of a user is one line of it.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

const MINUTE: i64 = 60_000;
const GAP: i64 = 30 * MINUTE;
const MINUTES_BACK: i64 = 5;
const LONGEST_KEY: usize = 31;

#[derive(Clone)]
#[repr(align(64))]
struct User {
    key: [u8; LONGEST_KEY],
    length: u8,
    start: i64,
    end: i64,
    /// The newest minute the user was seen in, and a bit for each of the 32 up to it.
    minute: i32,
    seen: u32,
}

pub struct State {
    hasher: FixedState,
    users: HashTable<User>,
    pages: HashTable<(Box<str>, u32)>,
    /// Views per minute and page.
    views: Vec<Vec<u32>>,
    /// Distinct users per window, by its last minute.
    active: Vec<u64>,
    first_minute: Option<i64>,
    pub sessions: u64,
}

impl State {
    pub fn new() -> Self {
        Self {
            hasher: FixedState::with_seed(7),
            users: HashTable::with_capacity(1 << 18),
            pages: HashTable::with_capacity(1 << 13),
            views: Vec::new(),
            active: Vec::new(),
            first_minute: None,
            sessions: 0,
        }
    }

    pub fn views(&self) -> u64 {
        self.views.iter().flatten().map(|&count| u64::from(count)).sum()
    }

    pub fn active(&self) -> u64 {
        self.active.iter().sum()
    }

    pub fn apply(&mut self, event: &crate::event::Event<'_>) {
        let minute = event.time.div_euclid(MINUTE);
        // The first event read need not be the oldest: an hour is left before it.
        let first = *self.first_minute.get_or_insert(minute - 60);
        let minute =
            usize::try_from(minute - first).expect("an event an hour older than the first one");
        if event.kind == "page_view" {
            self.view(event.page, minute);
        }
        self.user(event.user, event.time, minute);
    }

    fn view(&mut self, page: &str, minute: usize) {
        let hash = hash(&self.hasher, page);
        let next = self.pages.len() as u32;
        let hasher = &self.hasher;
        let id = self
            .pages
            .entry(hash, |(name, _)| **name == *page, |(name, _)| self::hash(hasher, name))
            .or_insert_with(|| (page.into(), next))
            .get()
            .1 as usize;
        if self.views.len() <= minute {
            self.views.resize_with(minute + 1, Vec::new);
        }
        let counts = &mut self.views[minute];
        if counts.len() <= id {
            counts.resize(id + 1, 0);
        }
        counts[id] += 1;
    }

    fn user(&mut self, name: &str, time: i64, minute: usize) {
        let hash = hash(&self.hasher, name);
        let hasher = &self.hasher;
        let user = self
            .users
            .entry(
                hash,
                |user| user.name() == name.as_bytes(),
                |user| hash_bytes(hasher, user.name()),
            )
            .or_insert_with(|| {
                self.sessions += 1;
                User::new(name.as_bytes(), time, minute as i32)
            })
            .into_mut();
        if time - user.end >= GAP {
            self.sessions += 1;
            (user.start, user.end) = (time, time);
        }
        user.start = user.start.min(time);
        user.end = user.end.max(time);

        let ahead = minute as i32 - user.minute;
        if ahead > 0 {
            user.seen = user.seen.checked_shl(ahead as u32).unwrap_or(0);
            user.minute = minute as i32;
        }
        let back = (user.minute - minute as i32) as u32;
        if back >= 32 || user.seen & (1 << back) != 0 {
            return;
        }
        // A window counts the user if none of its other minutes has.
        let windows = minute + MINUTES_BACK as usize;
        if self.active.len() < windows {
            self.active.resize(windows, 0);
        }
        for (last, count) in self.active[..windows].iter_mut().enumerate().skip(minute) {
            let shift = i64::from(user.minute) - last as i64;
            let mask = if shift >= 0 { 0x1f_u64 << shift } else { 0x1f >> -shift };
            *count += u64::from(u64::from(user.seen) & mask == 0);
        }
        user.seen |= 1 << back;
    }
}

impl User {
    fn new(name: &[u8], time: i64, minute: i32) -> Self {
        let mut key = [0; LONGEST_KEY];
        key[..name.len()].copy_from_slice(name);
        Self { key, length: name.len() as u8, start: time, end: time, minute, seen: 0 }
    }

    fn name(&self) -> &[u8] {
        &self.key[..usize::from(self.length)]
    }
}

fn hash(hasher: &FixedState, key: &str) -> u64 {
    hash_bytes(hasher, key.as_bytes())
}

fn hash_bytes(hasher: &FixedState, key: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(key);
    state.finish()
}
