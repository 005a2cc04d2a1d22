//! Running values on their way through a sink: a tick's are written when every worker has passed it.

use std::sync::Arc;

use crate::flow::Barrier;
use crate::record::Batch;

/// The running values of the tick that is under way (rule D3).
///
/// A worker that has no room leaves a tick out, so that one is never complete. What the others have
/// sent for it is thrown away when the next one begins: by the time that is complete, a window of the
/// old one may have its final row, and a running value must never come after that.
pub(crate) struct Ticks<T> {
    /// By worker: what has come since its last tick.
    arriving: Vec<Vec<Batch<T>>>,
    tick: Option<Arc<Barrier>>,
    passed: usize,
    rows: Vec<Batch<T>>,
}

impl<T> Ticks<T> {
    pub(crate) fn new(workers: usize) -> Self {
        let arriving = (0..workers).map(|_| vec![]).collect();
        Self { arriving, tick: None, passed: 0, rows: vec![] }
    }

    /// Running values of the tick that the worker passes next.
    pub(crate) fn add(&mut self, worker: usize, batch: Batch<T>) {
        self.arriving[worker].push(batch);
    }

    /// The worker has passed a tick. If it was the last one, the values are complete.
    pub(crate) fn pass(&mut self, worker: usize, tick: &Arc<Barrier>) -> Option<Vec<Batch<T>>> {
        if !self.tick.as_ref().is_some_and(|same| Arc::ptr_eq(same, tick)) {
            self.tick = Some(Arc::clone(tick));
            self.passed = 0;
            self.rows.clear();
        }
        self.rows.append(&mut self.arriving[worker]);
        self.passed += 1;
        if self.passed < self.arriving.len() {
            return None;
        }
        self.tick = None;
        Some(std::mem::take(&mut self.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{BarrierKind, Signal};
    use crate::time::Timestamp;

    fn a_tick() -> Arc<Barrier> {
        Barrier::new(BarrierKind::Tick, 2, &Signal::new())
    }

    fn row(value: u32) -> Batch<u32> {
        Batch::new(vec![value], vec![Timestamp::MIN])
    }

    fn values(batches: Option<Vec<Batch<u32>>>) -> Option<Vec<u32>> {
        batches.map(|all| all.iter().flat_map(|batch| batch.values().copied()).collect())
    }

    #[test]
    fn d3_a_tick_is_complete_when_all_workers_have_passed_it() {
        let (mut ticks, tick) = (Ticks::new(2), a_tick());
        ticks.add(0, row(1));
        assert_eq!(values(ticks.pass(0, &tick)), None);
        ticks.add(1, row(2));
        assert_eq!(values(ticks.pass(1, &tick)), Some(vec![1, 2]));
        let next = a_tick();
        assert_eq!(values(ticks.pass(1, &next)), None);
        assert_eq!(values(ticks.pass(0, &next)), Some(vec![]));
    }

    #[test]
    fn d3_values_of_a_tick_that_a_worker_left_out_do_not_come_with_the_next_one() {
        let mut ticks = Ticks::new(2);
        let [first, second] = [(); 2].map(|()| a_tick());
        ticks.add(0, row(1));
        assert_eq!(values(ticks.pass(0, &first)), None, "worker 1 had no room");
        // The next tick's values of worker 0 are there before worker 1 begins with it.
        ticks.add(0, row(10));
        ticks.add(1, row(20));
        assert_eq!(values(ticks.pass(1, &second)), None);
        assert_eq!(values(ticks.pass(0, &second)), Some(vec![20, 10]));
    }
}
