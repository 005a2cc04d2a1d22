//! Sessions: what begins one and what ends it.

use std::sync::Arc;
use std::time::Duration;

use crate::time::{Timestamp, days};

type Predicate<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// How the events of one key are cut into sessions.
///
/// Events are taken in the order of their times; at one instant those that start a session come
/// first and those that end one come last, and several of either count as one. An event opens a
/// new session if none is open, if it starts a session and the open one already has events, if it
/// comes `gap` or more after the last event, or `max` or more after the session's start. An event
/// that ends a session is its last.
pub struct Session<T> {
    pub(crate) gap: Duration,
    pub(crate) max: Duration,
    pub(crate) starts: Option<Predicate<T>>,
    pub(crate) ends: Option<Predicate<T>>,
}

impl<T> Session<T> {
    /// A session ends when no event comes for `gap`, counted from its last event: an event exactly
    /// `gap` after it opens the next session.
    #[must_use]
    pub fn with_gap(gap: Duration) -> Self {
        Self { gap, max: days(365_000), starts: None, ends: None }
    }

    /// A session is shorter than `max`: an event that comes `max` or more after the first one opens
    /// the next session. A thousand years: the default.
    #[must_use]
    pub fn max_length(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Events that open a new session, unless the open one has no events yet.
    #[must_use]
    pub fn starts_at(mut self, starts: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.starts = Some(Arc::new(starts));
        self
    }

    /// Events that close the session with themselves as the last event.
    #[must_use]
    pub fn ends_at(mut self, ends: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.ends = Some(Arc::new(ends));
        self
    }
}

impl<T> Clone for Session<T> {
    fn clone(&self) -> Self {
        Self { gap: self.gap, max: self.max, starts: self.starts.clone(), ends: self.ends.clone() }
    }
}

impl<T> std::fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("gap", &self.gap).field("max", &self.max).finish()
    }
}

/// A finished session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionResult<K, V> {
    /// The key.
    pub key: K,
    /// The time of the first event.
    pub start: Timestamp,
    /// The time of the last event, not of the end of the gap.
    pub end: Timestamp,
    /// The result of the aggregate over the session's events.
    pub value: V,
}
