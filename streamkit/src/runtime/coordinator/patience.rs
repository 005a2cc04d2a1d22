//! What may pass is tried again: a target or a source that is out of reach, a disk that is full. A job
//! that has run before waits for as long as it takes, since it did work. Of a new one the settings are
//! probably wrong, and somebody is there to put them right: it gives up.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::runtime::handle::Outside;
use crate::time::{Clock, SystemClock, millis, seconds};

/// How often a new job tries, and for how long: an attempt may take some time by itself.
const NEW_JOB_ATTEMPTS: u32 = 5;
const NEW_JOB_TRIES_FOR: Duration = seconds(10);
const FIRST_PAUSE: Duration = millis(200);
const LONGEST_PAUSE: Duration = seconds(5);
/// How often it looks whether waiting is still of use.
const LOOK: Duration = millis(20);

/// Attempts at one thing, with longer and longer pauses.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    outside: &'a Outside,
    has_run: bool,
    attempt: u32,
    pause: Duration,
    clock: SystemClock,
}

impl<'a> Patience<'a> {
    pub(super) fn new(outside: &'a Outside, has_run: bool) -> Self {
        Self { outside, has_run, attempt: 1, pause: FIRST_PAUSE, clock: SystemClock::new() }
    }

    /// Whether it makes sense to try again after this error.
    pub(super) fn allows(&self, error: &Error) -> bool {
        let elapsed = self.clock.elapsed();
        error.is_retriable() && (self.has_run || may_try_again(self.attempt, elapsed))
    }

    /// Waits before the next attempt; false, if the job is asked to stop or `in_vain` says so
    /// meanwhile.
    pub(super) fn pause(&mut self, in_vain: impl Fn() -> bool) -> bool {
        let in_vain = || self.outside.stop.load(Ordering::SeqCst) || in_vain();
        let mut left = self.pause;
        while !in_vain() && !left.is_zero() {
            std::thread::sleep(left.min(LOOK));
            left = left.saturating_sub(LOOK);
        }
        self.attempt += 1;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        !in_vain()
    }

    /// Tries until it works, or waiting makes no sense any more; meanwhile the job shows why it does
    /// not get on.
    pub(super) fn until_done<R>(
        mut self,
        in_vain: impl Fn() -> bool,
        mut attempt: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        let mut waited = false;
        loop {
            let result = attempt();
            match &result {
                Err(error) if self.allows(error) => {
                    tracing::warn!(%error, "the job waits for this; trying again");
                    self.show(Some(error.to_string()));
                    waited = true;
                    if self.pause(&in_vain) {
                        continue;
                    }
                }
                _ if waited => self.show(None),
                _ => {}
            }
            return result;
        }
    }

    fn show(&self, trouble: Option<String>) {
        self.outside.progress.lock().unwrap_or_else(PoisonError::into_inner).trouble = trouble;
    }
}

/// Whether a new job goes on trying.
fn may_try_again(attempts: u32, elapsed: Duration) -> bool {
    attempts < NEW_JOB_ATTEMPTS && elapsed < NEW_JOB_TRIES_FOR
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::flow::Signal;

    fn tries(has_run: bool, error: impl Fn() -> Error, works_at: u32) -> (u32, Option<Error>) {
        let outside =
            Outside { stop: false.into(), bell: Signal::new(), progress: Default::default() };
        let mut patience = Patience::new(&outside, has_run);
        patience.pause = Duration::ZERO;
        let tries = Cell::new(0);
        let result = patience.until_done(
            || false,
            || {
                tries.set(tries.get() + 1);
                if tries.get() < works_at { Err(error()) } else { Ok(()) }
            },
        );
        assert!(result.is_err() || outside.progress.lock().unwrap().trouble.is_none());
        (tries.get(), result.err())
    }

    #[test]
    fn f54_a_new_job_gives_up_after_five_attempts_and_one_that_has_run_never_does() {
        let down = || Error::external("down").retriable();
        assert!(matches!(tries(false, down, 100), (5, Some(_))));
        assert!(matches!(tries(false, down, 5), (5, None)));
        assert!(matches!(tries(true, down, 100), (100, None)));
    }

    #[test]
    fn f54_a_new_job_whose_attempts_take_long_says_so_soon() {
        assert!(may_try_again(4, seconds(9)));
        assert!(!may_try_again(5, seconds(1)));
        assert!(!may_try_again(1, seconds(15)), "one attempt that took fifteen seconds is enough");
    }

    #[test]
    fn what_does_not_pass_by_itself_ends_it_at_once() {
        assert!(matches!(tries(true, || Error::user("no such topic"), 2), (1, Some(_))));
        assert!(matches!(tries(true, || Error::external("denied"), 2), (1, Some(_))));
    }

    #[test]
    fn nothing_is_tried_again_when_the_job_is_to_stop_or_waiting_is_in_vain() {
        for stop in [true, false] {
            let outside =
                Outside { stop: stop.into(), bell: Signal::new(), progress: Default::default() };
            let down = || Err::<(), _>(Error::external("down").retriable());
            let error = Patience::new(&outside, true).until_done(|| !stop, down).unwrap_err();
            assert_eq!(error.message(), "down");
        }
    }
}
