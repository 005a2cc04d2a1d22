//! How far every split has been sent to a sink behind stateless steps, and whether the sink takes
//! anything (rule D5).
//!
//! A sink takes a portion of a split if it begins where the one before ended, whichever reader sends
//! it. So it is enough to know this one position: what is before it the sink has, and what comes
//! after a gap it will get from the reader that fills the gap.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::failpoint::broken;
use crate::record::{Place, Position};

/// The sink is not stuck.
const NOT: i64 = i64::MIN;

/// One sink's part, shared by its thread and all workers.
#[derive(Debug)]
pub(crate) struct Reach {
    sink: String,
    /// By the split's index.
    positions: Mutex<Vec<Option<Position>>>,
    /// Since when the sink has been busy with one batch or commit, in microseconds of the clock.
    stuck_since: AtomicI64,
    /// How long it may be, until it is detached if its queue is full.
    patience: OnceLock<Duration>,
    /// How many workers go on without it.
    detached: AtomicUsize,
}

/// What one worker has to do with a sink. It changes its mind between two portions only: a sink that
/// was left out of the first half of one must not be told that it has all of it.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) reach: Arc<Reach>,
    detached: AtomicBool,
}

impl Reach {
    /// Of the sink with this name.
    pub(crate) fn new(sink: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            positions: Mutex::default(),
            stuck_since: AtomicI64::new(NOT),
            patience: OnceLock::new(),
            detached: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Position>>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the target has of each split, and after how long the sink may be detached.
    pub(crate) fn start(&self, positions: Vec<Position>, patience: Duration) {
        *self.lock() = positions.into_iter().map(Some).collect();
        let _ = self.patience.set(patience);
    }

    /// A split that the job has not had before begins here.
    pub(crate) fn begin(&self, split: u32, at: Position) {
        let mut all = self.lock();
        let split = split as usize;
        if all.len() <= split {
            all.resize(split + 1, None);
        }
        all[split].get_or_insert(at);
    }

    /// Where the sink goes on.
    pub(crate) fn position(&self, split: u32) -> Option<Position> {
        self.lock().get(split as usize).copied().flatten()
    }

    /// Everything before this position has been sent.
    pub(crate) fn sent(&self, split: u32, end: Position) {
        if let Some(at) = self.lock().get_mut(split as usize) {
            *at = Some(end);
        }
    }

    /// The sink's thread begins something.
    pub(crate) fn busy(&self, now: Duration) {
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        self.stuck_since.store(now, Ordering::Release);
    }

    /// It is done.
    pub(crate) fn free(&self) {
        self.stuck_since.store(NOT, Ordering::Release);
    }

    fn is_stuck(&self, now: Duration) -> bool {
        let since = u64::try_from(self.stuck_since.load(Ordering::Acquire));
        let patience = self.patience.get().copied().unwrap_or(Duration::MAX);
        since.is_ok_and(|since| now.saturating_sub(Duration::from_micros(since)) >= patience)
    }

    /// Whether some worker goes on without the sink.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed) > 0
    }
}

impl Attachment {
    pub(crate) fn new(reach: Arc<Reach>) -> Arc<Self> {
        Arc::new(Self { reach, detached: AtomicBool::new(false) })
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// Whether the sink takes what begins at this position.
    pub(crate) fn takes(&self, split: u32, begin: Place) -> bool {
        let follows =
            |at: Position| at.place() == begin || (at.place() < begin && broken("edge.gap"));
        !self.is_detached() && self.reach.position(split).is_none_or(follows)
    }

    /// Detaches the sink, or takes it back, as [`detached`] says. Between two portions.
    pub(crate) fn look(&self, room: bool, now: Duration) {
        let (before, reach) = (self.is_detached(), &self.reach);
        let after = detached(before, room, reach.is_stuck(now));
        if before == after {
            return;
        }
        self.detached.store(after, Ordering::Relaxed);
        let sink = &reach.sink;
        match after {
            true if reach.detached.fetch_add(1, Ordering::Relaxed) == 0 => {
                tracing::warn!(%sink, "the sink is stuck and its queue is full: the job goes on without it, and it gets what it lacks from the source when it is back")
            }
            false if reach.detached.fetch_sub(1, Ordering::Relaxed) == 1 => {
                tracing::info!(%sink, "the sink is back, and gets what it lacks from the source")
            }
            _ => {}
        }
    }
}

/// Whether a sink is detached: it has been stuck for long, and its queue got full. It comes back when
/// it gets on again and there is room.
fn detached(before: bool, room: bool, stuck: bool) -> bool {
    match before {
        true => stuck || !room,
        false => stuck && !room,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    fn at(next: u64) -> Position {
        Position { next, ..Position::default() }
    }

    fn attached(at: Position) -> Arc<Attachment> {
        let reach = Arc::new(Reach::new("lake"));
        reach.start(vec![at], seconds(10));
        Attachment::new(reach)
    }

    #[test]
    fn d5_a_sink_takes_what_follows_on_what_it_has() {
        let sink = attached(at(7));
        assert!(sink.takes(0, (7, 0)) && !sink.takes(0, (6, 0)) && !sink.takes(0, (8, 0)));
        assert!(!sink.takes(0, (7, 1)), "it lacks a letter");
        sink.reach.sent(0, at(12));
        assert!(sink.takes(0, (12, 0)) && !sink.takes(0, (7, 0)));
        sink.reach.begin(1, at(3));
        sink.reach.begin(1, at(4));
        assert!(sink.takes(1, (3, 0)) && !sink.takes(1, (4, 0)), "where it began the first time");
    }

    #[test]
    fn d5_a_sink_is_detached_when_it_is_stuck_and_its_queue_is_full() {
        let sink = attached(at(0));
        let detached = |room, at| {
            sink.look(room, seconds(at));
            assert_eq!(sink.takes(0, (0, 0)), !sink.is_detached());
            assert_eq!(sink.reach.is_detached(), sink.is_detached());
            sink.is_detached()
        };
        assert!(!detached(false, 100), "slow, and not stuck");
        sink.reach.busy(seconds(100));
        assert!(!detached(false, 109), "not for long");
        assert!(!detached(true, 110), "nobody waits for it");
        assert!(detached(false, 110));
        assert!(detached(true, 111), "it is still stuck");
        sink.reach.free();
        assert!(detached(false, 112), "there is no room yet");
        assert!(!detached(true, 112));
    }
}
