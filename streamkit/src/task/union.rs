//! Union: two or more streams of one worker become one.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Control, Cx, Link};
use crate::data::Data;
use crate::error::Result;
use crate::record::Batch;
use crate::time::Timestamp;

/// What the inputs of a union share.
pub(crate) struct Union<T> {
    next: Box<dyn Link<T>>,
    watermarks: Vec<Timestamp>,
    sent: Timestamp,
    barriers: usize,
    ends: usize,
}

impl<T: Data> Union<T> {
    pub(crate) fn new(inputs: usize, next: Box<dyn Link<T>>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            next,
            watermarks: vec![Timestamp::MIN; inputs],
            sent: Timestamp::MIN,
            barriers: 0,
            ends: 0,
        }))
    }
}

/// One input of a union.
///
/// All inputs are in one worker, which injects a barrier into each of its sources in one step, and
/// only streams of the same kind can be united; so a barrier has passed the union when it has come
/// from every input.
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
            Control::Read { .. } => union.next.control(control, cx)?,
            Control::Barrier(_) => {
                union.barriers += 1;
                if union.barriers == inputs {
                    union.barriers = 0;
                    union.next.control(control, cx)?;
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
