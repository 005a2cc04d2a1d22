//! The handle to a job that runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::flow::Signal;
use crate::graph::SinkShared;
use crate::progress::{JobProgress, JobState};

/// What the handle and the coordinator share.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) stop: AtomicBool,
    /// Wakes the coordinator.
    pub(crate) bell: Arc<Signal>,
    pub(crate) progress: Mutex<JobProgress>,
}

impl Outside {
    /// Shows one sink while the job is not running yet.
    pub(crate) fn show_sink(&self, sink: &SinkShared) {
        let status = sink.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.sinks.retain(|other| other.name != status.name);
        progress.sinks.push(status);
    }

    pub(crate) fn finish(&self, well: bool) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.state = if well { JobState::Ended } else { JobState::Failed };
    }
}

/// A job that runs. Dropping the handle does not stop it.
#[derive(Debug, Clone)]
pub struct JobHandle {
    pub(crate) outside: Arc<Outside>,
    pub(crate) done: watch::Receiver<Option<Result<(), Arc<Error>>>>,
}

impl JobHandle {
    /// Asks the job to stop: it stops reading, makes a last checkpoint, commits every sink and ends.
    /// Open windows stay open and go on at the next start. Returns at once; see [`wait`](Self::wait).
    pub fn stop(&self) {
        self.outside.stop.store(true, Ordering::SeqCst);
        self.outside.bell.ring();
    }

    /// Waits until the job has ended.
    ///
    /// # Errors
    /// Why it has failed, if it has: the step, the record, the cause.
    pub async fn wait(&self) -> Result<(), Arc<Error>> {
        let mut done = self.done.clone();
        match done.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err(Arc::new(Error::internal("the coordinator has vanished"))),
        }
    }

    /// The job at this moment; cheap, and a few tens of milliseconds old at most.
    pub fn progress(&self) -> JobProgress {
        self.outside.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
