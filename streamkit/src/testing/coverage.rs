//! Which places of the code an input reaches, in a build for guided fuzzing (`dev/fuzz --guided`).
//!
//! There the compiler gives each edge of our crates' control flow a counter of one byte, and tells where
//! they are before `main`. In any other build nothing is known, and nothing costs anything.

/// What has been reached so far.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// By counter: the magnitudes that it has had, a bit each.
    #[cfg(guided)]
    seen: Vec<u8>,
    #[cfg(guided)]
    kept: usize,
}

#[cfg(not(guided))]
#[expect(clippy::unused_self, reason = "the same interface as with counters")]
impl Coverage {
    pub(super) fn forget(&mut self) {}

    pub(super) fn is_new(&mut self) -> bool {
        false
    }

    pub(super) fn summary(&self) -> String {
        String::new()
    }
}

#[cfg(guided)]
impl Coverage {
    /// Sets all counters to zero.
    pub(super) fn forget(&mut self) {
        counters::forget();
    }

    /// Whether any counter got to a magnitude that it never had.
    pub(super) fn is_new(&mut self) -> bool {
        let (seen, mut new) = (&mut self.seen, false);
        counters::each(|at, counter| {
            if seen.len() <= at {
                seen.resize(at + 1, 0);
            }
            // 1, 2, 4, 8 and so on, so that a loop is not new with each further turn.
            let magnitude = 1 << counter.ilog2();
            new |= seen[at] & magnitude == 0;
            seen[at] |= magnitude;
        });
        self.kept += usize::from(new);
        new
    }

    /// What to say at the end.
    pub(super) fn summary(&self) -> String {
        let reached = self.seen.iter().filter(|seen| **seen > 0).count();
        format!(", {reached} places reached, {} inputs kept", self.kept)
    }
}

#[cfg(guided)]
#[expect(unsafe_code, reason = "the counters are memory that the compiler has laid out")]
mod counters {
    use std::sync::{Mutex, PoisonError};

    /// Begin and end of the counters of each part of the program.
    static PARTS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

    /// Called before `main`, once for each part of the program.
    ///
    /// # Safety
    /// Only code that the compiler has made for this calls it: the bytes between the two are counters, and
    /// nobody else's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(begin: *mut u8, end: *mut u8) {
        let part = (begin as usize, end as usize);
        let mut parts = PARTS.lock().unwrap_or_else(PoisonError::into_inner);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }

    fn parts() -> Vec<(usize, usize)> {
        PARTS.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets every counter to zero.
    pub(super) fn forget() {
        for (begin, end) in parts() {
            // SAFETY: these are bytes that the compiler has announced, which live as long as the program.
            // The code that counts does so by itself; a count that is lost costs an input, at most.
            unsafe { std::ptr::write_bytes(begin as *mut u8, 0, end - begin) };
        }
    }

    /// Calls `f` with the number and the value of every counter that is not zero.
    pub(super) fn each(mut f: impl FnMut(usize, u8)) {
        let mut before = 0;
        for (begin, end) in parts() {
            // SAFETY: as above; they are copied at once, since they go on counting.
            let counters =
                unsafe { std::slice::from_raw_parts(begin as *const u8, end - begin) }.to_vec();
            for (n, some) in counters.chunks(64).enumerate() {
                // Most are zero, and there are hundreds of thousands.
                if some.iter().fold(0, |any, counter| any | counter) == 0 {
                    continue;
                }
                for (i, counter) in some.iter().enumerate().filter(|(_, counter)| **counter > 0) {
                    f(before + n * 64 + i, *counter);
                }
            }
            before += counters.len();
        }
    }
}
