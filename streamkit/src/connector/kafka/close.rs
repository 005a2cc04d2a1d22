//! Closing a client without ever waiting for it for ever.
//!
//! The client's destructor talks to the broker and joins threads, and there are known ways in which
//! that never ends. So it runs on a thread of its own, and whoever waits for it gives up after a
//! while: a job that cannot stop is worse than a thread that is left behind.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::time::seconds;

/// How long closing a client may take.
const DEADLINE: Duration = seconds(5);

/// A client that is closed, when it is dropped, within a deadline.
pub(super) struct Closing<C: Send + 'static> {
    client: Option<C>,
    deadline: Duration,
}

impl<C: Send + 'static> Closing<C> {
    pub(super) fn new(client: C) -> Self {
        Self { client: Some(client), deadline: DEADLINE }
    }

    /// For a client that has only asked and leaves nothing open: nobody waits for it to close, which
    /// takes a tenth of a second even where all is well.
    pub(super) fn unawaited(client: C) -> Self {
        Self { client: Some(client), deadline: Duration::ZERO }
    }

    /// Closes now; `before` runs first, on the thread that may hang.
    pub(super) fn close_after(mut self, before: impl FnOnce(&C) + Send + 'static) {
        if let Some(client) = self.client.take() {
            within(self.deadline, move || {
                before(&client);
                drop(client);
            });
        }
    }
}

impl<C: Send + 'static> Deref for Closing<C> {
    type Target = C;

    fn deref(&self) -> &C {
        match &self.client {
            Some(client) => client,
            None => unreachable!("a client is there until it is closed"),
        }
    }
}

impl<C: Send + 'static> fmt::Debug for Closing<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl<C: Send + 'static> Drop for Closing<C> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            within(self.deadline, move || drop(client));
        }
    }
}

/// Runs `f` on a thread of its own and waits for it, but not longer than `deadline`; not at all, if
/// that is zero. Says whether it was done by then, or nobody wants to know.
pub(super) fn within(deadline: Duration, f: impl FnOnce() + Send + 'static) -> bool {
    let (done, wait) = bounded::<()>(1);
    let thread = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || {
        f();
        let _ = done.send(());
    });
    if thread.is_ok() && deadline.is_zero() {
        return true;
    }
    // A disconnect is a panic in `f`: over as well.
    let late = Err(RecvTimeoutError::Timeout);
    let over = thread.is_ok() && wait.recv_timeout(deadline) != late;
    if !over {
        tracing::warn!("a kafka client could not be closed within {deadline:?}; left behind");
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::millis;

    #[test]
    fn waits_for_what_ends_and_leaves_what_does_not() {
        assert!(within(seconds(5), || ()));
        let (_forever, wait) = bounded::<()>(1);
        assert!(!within(millis(10), move || wait.recv().unwrap_or_default()));
    }

    #[test]
    fn what_nobody_waits_for_is_no_failure_though_it_goes_on() {
        let (_forever, wait) = bounded::<()>(1);
        assert!(within(Duration::ZERO, move || wait.recv().unwrap_or_default()));
    }
}
