//! Room in queues, and waking whoever waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// Whether a bounded queue has room for what one step may send. One step sends at most a batch and
/// a few controls; queues are used up to this distance from their capacity.
pub(crate) const SLACK: usize = 16;

/// Tells whether an outgoing queue has room for one more step.
pub(crate) type Gauge = Arc<dyn Fn() -> bool + Send + Sync>;

/// The outgoing queues of one input of a worker: room in all of them is required before a step
/// begins, so that no step ever blocks (rule D4).
#[derive(Clone, Default)]
pub(crate) struct Gauges(Vec<Gauge>);

impl Gauges {
    pub(crate) fn add(&mut self, gauge: Gauge) {
        self.0.push(gauge);
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().map(Arc::clone));
    }

    pub(crate) fn have_room(&self) -> bool {
        self.0.iter().all(|gauge| gauge())
    }
}

/// A worker's bell.
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

    /// Wakes the worker, or makes its next wait return at once.
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
