//! A gate that a test opens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::connector::Wake;

/// Something that a script or a sink waits for, until the test opens it. Cloning it gives another
/// handle to the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: AtomicBool,
    waiting: Mutex<Vec<Wake>>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the gate, and wakes whoever waits for it.
    pub fn open(&self) {
        self.0.open.store(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.iter().for_each(Wake::wake);
    }

    /// Closes the gate again, for whoever has not passed it yet.
    pub fn close(&self) {
        self.0.open.store(false, Ordering::SeqCst);
    }

    /// Whether the gate is open.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::SeqCst)
    }

    /// Whether the gate is open; if it is not, `wake` is called once it is.
    pub(super) fn is_open_or_wakes(&self, wake: &Wake) -> bool {
        if !self.is_open() {
            self.waiting().push(wake.clone());
        }
        self.is_open()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Wake>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
