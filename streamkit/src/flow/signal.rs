//! Waking a thread that waits for something to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// A thread's bell.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    rung: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Signal {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Called once, by the thread that will wait.
    pub(crate) fn register(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// Wakes the thread, or makes its next wait return at once.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Waits until the bell is rung, or for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        if !self.rung.load(Ordering::SeqCst) {
            std::thread::park_timeout(timeout);
        }
        self.rung.store(false, Ordering::SeqCst);
    }
}
