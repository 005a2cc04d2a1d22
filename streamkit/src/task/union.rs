//! Union: two or more streams of one worker become one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::gauge::Gauges;
use crate::data::Data;
use crate::error::Result;
use crate::flow::{Control, Cx, Link};
use crate::record::Batch;
use crate::time::Timestamp;

/// What the inputs of a union share.
pub(crate) struct Union<T> {
    next: Box<dyn Link<T>>,
    watermarks: Vec<Timestamp>,
    sent: Timestamp,
    /// Inputs that a barrier has passed, and not the others yet: they must bring nothing more.
    at_barrier: Arc<[AtomicBool]>,
    ends: usize,
}

impl<T: Data> Union<T> {
    pub(crate) fn new(inputs: usize, next: Box<dyn Link<T>>) -> Self {
        Self {
            next,
            watermarks: vec![Timestamp::MIN; inputs],
            sent: Timestamp::MIN,
            at_barrier: (0..inputs).map(|_| AtomicBool::new(false)).collect(),
            ends: 0,
        }
    }

    /// Holds an input back between its barrier and that of the others: what is behind the union
    /// must see exactly the records before the barrier when it sees the barrier.
    pub(crate) fn watch(&self, input: usize, gauges: &mut Gauges) {
        let at_barrier = Arc::clone(&self.at_barrier);
        gauges.add(Arc::new(move || !at_barrier[input].load(Ordering::Acquire)));
    }
}

/// One input of a union. All inputs are in one worker.
pub(crate) struct UnionInput<T> {
    pub(crate) union: Arc<Mutex<Union<T>>>,
    pub(crate) input: usize,
}

impl<T: Data> Link<T> for UnionInput<T> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        self.union.lock().unwrap_or_else(PoisonError::into_inner).next.batch(batch, cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        let mut guard = self.union.lock().unwrap_or_else(PoisonError::into_inner);
        let union = &mut *guard;
        let inputs = union.watermarks.len();
        match control {
            Control::Watermark(w) => {
                union.watermarks[self.input] = *w;
                let low = union.watermarks.iter().copied().min().unwrap_or(Timestamp::MIN);
                if low > union.sent {
                    union.sent = low;
                    union.next.control(&Control::Watermark(low), cx)?;
                }
            }
            // It comes after all branches have had their batches, so the first one is right.
            Control::Read(_) => union.next.control(control, cx)?,
            Control::Barrier(_) => {
                union.at_barrier[self.input].store(true, Ordering::Release);
                if union.at_barrier.iter().all(|at| at.load(Ordering::Acquire)) {
                    union.next.control(control, cx)?;
                    union.at_barrier.iter().for_each(|at| at.store(false, Ordering::Release));
                }
            }
            Control::End => {
                union.ends += 1;
                if union.ends == inputs {
                    union.next.control(control, cx)?;
                }
            }
        }
        Ok(())
    }
}
