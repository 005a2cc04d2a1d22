//! Running a job in a test that is not async.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::job::Job;
use crate::progress::{JobProgress, JobState};
use crate::runtime::{JobHandle, RunConfig};
use crate::time::millis;

/// Runs a job to its end and returns what it showed last. A job that waits for more input never
/// ends: give the configuration an [`InputEnd`](crate::InputEnd).
///
/// # Errors
/// Why the job failed.
///
/// # Panics
/// If no runtime can be started.
pub fn run(job: Job, config: RunConfig) -> Result<JobProgress, Arc<Error>> {
    Running::start(job, config).wait()
}

/// A job that runs, with a runtime of its own.
#[derive(Debug)]
pub struct Running {
    runtime: tokio::runtime::Runtime,
    handle: Result<JobHandle, Arc<Error>>,
}

/// How often [`Running::until`] looks before it gives up: about half a minute.
const LOOKS: u32 = 15_000;

impl Running {
    /// Starts a job. An error of the start is returned by [`wait`](Self::wait).
    ///
    /// # Panics
    /// If no runtime can be started.
    pub fn start(job: Job, config: RunConfig) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = match runtime.worker_threads(1).enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => panic!("a test needs a tokio runtime, and there is none: {e}"),
        };
        let entered = runtime.enter();
        let handle = job.start(config).map_err(Arc::new);
        drop(entered);
        Self { runtime, handle }
    }

    /// What the job shows now.
    pub fn progress(&self) -> JobProgress {
        self.handle.as_ref().map(JobHandle::progress).unwrap_or_default()
    }

    /// Waits until the condition is true.
    ///
    /// # Panics
    /// If it is not true after half a minute, or the job has failed, saying what was waited for and what the job shows.
    pub fn until(&self, what: &str, mut condition: impl FnMut(&JobProgress) -> bool) {
        for _ in 0..LOOKS {
            let progress = self.progress();
            if condition(&progress) {
                return;
            }
            if progress.state == JobState::Failed {
                panic!("waited in vain for {what}; the job has failed: {}", self.error());
            }
            std::thread::sleep(millis(2));
        }
        panic!("waited in vain for {what}; the job shows {:#?}", self.progress());
    }

    fn error(&self) -> String {
        let end = match &self.handle {
            Ok(handle) => self.runtime.block_on(handle.wait()),
            Err(error) => Err(Arc::clone(error)),
        };
        end.map_or_else(|error| error.to_string(), |()| "without an error".to_owned())
    }

    /// Asks the job to stop and waits for its end.
    ///
    /// # Errors
    /// Why the job failed.
    pub fn stop(self) -> Result<JobProgress, Arc<Error>> {
        if let Ok(handle) = &self.handle {
            handle.stop();
        }
        self.wait()
    }

    /// Waits for the job's end.
    ///
    /// # Errors
    /// Why the job failed.
    pub fn wait(self) -> Result<JobProgress, Arc<Error>> {
        let handle = self.handle?;
        self.runtime.block_on(handle.wait())?;
        Ok(handle.progress())
    }
}
