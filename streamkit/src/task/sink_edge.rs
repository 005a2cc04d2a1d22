//! The edge into a sink: a bounded queue, and what the sink has already is dropped.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::gauge::{Gauges, SLACK};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::broken;
use crate::flow::{Control, Cx, Link};
use crate::record::{Batch, Kind};
use crate::time::Timestamp;

/// What a worker sends to a sink.
#[derive(Debug)]
pub(crate) enum SinkMessage<T> {
    Batch(Batch<T>),
    Control(Control),
}

/// The sending side, on one worker.
pub(crate) struct SinkEdge<T> {
    pub(crate) sender: Sender<(usize, SinkMessage<T>)>,
    /// Results with a fire time up to this one are in the target (rule D3).
    pub(crate) has_w: Timestamp,
    /// For each split: records before this position are in the target.
    pub(crate) has: Arc<[u64]>,
    pub(crate) upserts: bool,
}

impl<T: Data> SinkEdge<T> {
    /// Watches the queue. All workers share it, so each leaves room for a step of every other.
    pub(crate) fn watch(&self, workers: usize, gauges: &mut Gauges) {
        let sender = self.sender.clone();
        let capacity = sender.capacity().unwrap_or(usize::MAX);
        gauges.add(Arc::new(move || sender.len() + SLACK * workers <= capacity));
    }

    fn send(&self, message: SinkMessage<T>, cx: &mut Cx) -> Result<()> {
        let (sender, worker) = (self.sender.clone(), cx.worker);
        cx.send(move || {
            sender.send((worker, message)).map_err(|_| Error::internal("a sink has stopped"))
        })
    }
}

impl<T: Data> Link<T> for SinkEdge<T> {
    fn batch(&mut self, batch: Batch<T>, cx: &mut Cx) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        match batch.run() {
            // Batches are cut at the position of every sink, so a sink never has a part of one.
            Some(run)
                if self.has.get(run.split as usize).is_some_and(|&has| run.next() <= has)
                    && !broken("edge.positions") =>
            {
                return Ok(());
            }
            Some(_) => {}
            None => {
                if batch.kind() == Kind::Running && !self.upserts {
                    return Ok(());
                }
                if batch.iter().any(|(_, time)| time < self.has_w) && !broken("edge.w") {
                    let rows = batch.indices().filter(|&row| batch.time(row) >= self.has_w);
                    let batch = batch.select(rows.collect());
                    if batch.is_empty() {
                        return Ok(());
                    }
                    return self.send(SinkMessage::Batch(batch), cx);
                }
            }
        }
        self.send(SinkMessage::Batch(batch), cx)
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        if let Control::Read { split, end } = control
            && self.has.get(*split as usize).is_some_and(|&has| end.next <= has)
        {
            return Ok(());
        }
        self.send(SinkMessage::Control(control.clone()), cx)
    }
}
