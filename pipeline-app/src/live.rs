//! The job as signals and HTTP see it: one after another, if the process has to start it again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use streamkit::{Error, ErrorKind, JobHandle, JobProgress};

/// So often in a row the process starts the job again by itself; then whoever watches over it must.
const STARTS: u32 = 3;
/// A job that ran for so long had not failed in a row.
const CALM: Duration = Duration::from_secs(600);

/// The job that runs now.
#[derive(Debug, Clone)]
pub struct Live {
    handle: Arc<Mutex<JobHandle>>,
    stop: Arc<AtomicBool>,
}

impl Live {
    /// It runs for the first time.
    pub fn new(handle: JobHandle) -> Self {
        Self { handle: Arc::new(Mutex::new(handle)), stop: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, JobHandle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job of this moment.
    pub fn handle(&self) -> JobHandle {
        self.lock().clone()
    }

    /// What it shows.
    pub fn progress(&self) -> JobProgress {
        self.lock().progress()
    }

    /// Stops the job, and any that is started after it.
    pub fn stop(&self) {
        let handle = self.lock();
        self.stop.store(true, Ordering::SeqCst);
        handle.stop();
    }

    /// Whether it has been stopped.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The job was started again.
    pub fn replace(&self, handle: JobHandle) {
        let mut now = self.lock();
        if self.is_stopped() {
            handle.stop();
        }
        *now = handle;
    }
}

/// Counts the starts after failures.
#[derive(Debug, Default)]
pub struct Starts(u32);

impl Starts {
    /// Whether to start the job again, which has failed after `ran`: only if the next start does
    /// something about the record that it has failed on.
    pub fn again(&mut self, error: &Error, ran: Duration) -> bool {
        if ran >= CALM {
            self.0 = 0;
        }
        let helps = error.kind() == ErrorKind::Record && error.is_retriable();
        self.0 += u32::from(helps);
        helps && self.0 <= STARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f85_a_job_is_started_again_three_times_in_a_row_where_that_helps() {
        let record = || Error::record("boom").retriable();
        let mut starts = Starts::default();
        for error in [Error::record("boom"), Error::external("down").retriable()] {
            assert!(!starts.again(&error, Duration::ZERO));
        }
        let short = Duration::from_secs(1);
        let tried: Vec<bool> = (0..4).map(|_| starts.again(&record(), short)).collect();
        assert_eq!(tried, [true, true, true, false]);
        assert!(starts.again(&record(), CALM), "that was not in a row");
    }
}
