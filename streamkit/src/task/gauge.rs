//! Room in queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::reach::Attachment;
use crate::record::{Place, Position};

/// Whether a bounded queue has room for what one step may send. One step sends at most a batch and
/// a few controls; queues are used up to this distance from their capacity.
pub(crate) const SLACK: usize = 16;

/// Tells whether an outgoing queue has room for one more step.
pub(crate) type Gauge = Arc<dyn Fn() -> bool + Send + Sync>;

/// The outgoing queues of one input of a worker: room in those that a step may send to is required
/// before it begins, so that no step ever blocks (rule D4).
#[derive(Clone, Default)]
pub(crate) struct Gauges {
    /// Into other workers, and whatever else holds every step back.
    inner: Vec<Gauge>,
    /// Into sinks behind windows.
    results: Vec<Gauge>,
    /// Into sinks behind stateless steps.
    positions: Vec<PositionEdge>,
}

/// The edge into a sink behind stateless steps.
#[derive(Clone)]
struct PositionEdge {
    room: Gauge,
    sink: Arc<Attachment>,
}

impl Gauges {
    pub(crate) fn add(&mut self, gauge: Gauge) {
        self.inner.push(gauge);
    }

    pub(crate) fn add_results(&mut self, gauge: Gauge) {
        self.results.push(gauge);
    }

    pub(crate) fn add_positions(&mut self, room: Gauge, sink: Arc<Attachment>) {
        self.positions.push(PositionEdge { room, sink });
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.inner.extend(others.inner.iter().map(Arc::clone));
        self.results.extend(others.results.iter().map(Arc::clone));
        self.positions.extend(others.positions.iter().cloned());
    }

    /// Whether there is room between the workers.
    pub(crate) fn have_room(&self) -> bool {
        self.inner.iter().all(|gauge| gauge())
    }

    /// Whether every sink behind windows has room.
    pub(crate) fn results_have_room(&self) -> bool {
        self.results.iter().all(|gauge| gauge())
    }

    /// Whether every sink behind stateless steps has room, detached or not.
    pub(crate) fn positions_have_room(&self) -> bool {
        self.positions.iter().all(|edge| (edge.room)())
    }

    /// Detaches sinks that have been stuck for long and are full, and takes them back (rule D5). To be
    /// called between two portions.
    pub(crate) fn look(&self, now: Duration) {
        self.positions.iter().for_each(|edge| edge.sink.look((edge.room)(), now));
    }

    /// Whether every sink that would take what begins at this position of the split has room for it.
    pub(crate) fn have_room_at(&self, split: u32, begin: Place) -> bool {
        self.positions.iter().all(|edge| (edge.room)() || !edge.sink.takes(split, begin))
    }

    /// The lowest position of a split that a sink has been sent, among those that lack something
    /// before `here`. `detached`: those that take nothing now are asked too.
    pub(crate) fn behind(&self, split: u32, here: Place, detached: bool) -> Option<Position> {
        let edges = self.positions.iter().filter(|edge| detached || !edge.sink.is_detached());
        let at = edges.filter_map(|edge| edge.sink.reach.position(split));
        at.filter(|at| at.place() < here).min_by_key(Position::place)
    }

    /// Every position of a split that a sink has been sent: no portion may straddle one of them.
    pub(crate) fn reached(&self, split: u32) -> Vec<u64> {
        let at = self.positions.iter().filter_map(|edge| edge.sink.reach.position(split));
        at.map(|at| at.next).collect()
    }

    /// A split that the job has not had before begins here.
    pub(crate) fn begin(&self, split: u32, at: Position) {
        self.positions.iter().for_each(|edge| edge.sink.reach.begin(split, at));
    }
}

/// Lets barriers pass keyed inputs whose sinks take nothing: a worker that waits for a sink serves
/// checkpoints all the same (rule D4).
#[derive(Debug, Default)]
pub(crate) struct Passage {
    wanted: AtomicBool,
    held: AtomicUsize,
}

impl Passage {
    /// A barrier is on its way that needs no room in the queue of a sink, or it has passed everywhere.
    pub(crate) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Release);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// A keyed input takes in, for the sake of a barrier, what it has no room to fire for; or it has
    /// room again.
    pub(crate) fn hold(&self, held: bool) {
        match held {
            true => self.held.fetch_add(1, Ordering::AcqRel),
            false => self.held.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// Whether any does: then nothing more should come its way, since its state would grow.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
    }
}
