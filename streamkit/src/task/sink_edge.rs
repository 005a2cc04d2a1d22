//! The edge into a sink: a bounded queue, and what the sink has already is dropped.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::gauge::{Gauge, Gauges, SLACK};
use super::reach::Attachment;
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::broken;
use crate::flow::{BarrierKind, Control, Cx, Link};
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
    /// Whether rows here are results of windows, sessions or timers.
    pub(crate) fired: bool,
    /// Results with a fire time up to this one are in the target (rule D3).
    pub(crate) has_w: Timestamp,
    /// How far each split has been sent, and whether the sink takes anything.
    pub(crate) sink: Arc<Attachment>,
    pub(crate) upserts: bool,
}

impl<T: Data> SinkEdge<T> {
    /// Watches the queue. All workers share it, so each leaves room for a step of every other.
    pub(crate) fn watch(&self, workers: usize, gauges: &mut Gauges) {
        let sender = self.sender.clone();
        let capacity = sender.capacity().unwrap_or(usize::MAX);
        let room: Gauge = Arc::new(move || sender.len() + SLACK * workers <= capacity);
        match self.fired {
            true => gauges.add_results(room),
            false => gauges.add_positions(room, Arc::clone(&self.sink)),
        }
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
        if let Some(run) = batch.run() {
            // Portions are cut at the position of every sink, so a sink never has a part of one.
            if !self.sink.takes(run.split, run.begin()) && !broken("edge.positions") {
                return Ok(());
            }
        } else if batch.kind() == Kind::Running && !self.upserts {
            return Ok(());
        } else if batch.iter().any(|(_, time)| time < self.has_w) && !broken("edge.w") {
            let rows = batch.indices().filter(|&row| batch.time(row) >= self.has_w);
            let batch = batch.select(rows.collect());
            if batch.is_empty() {
                return Ok(());
            }
            return self.send(SinkMessage::Batch(batch), cx);
        }
        self.send(SinkMessage::Batch(batch), cx)
    }

    /// A sink is told only what its kind goes by: another one's controls would fill its queue.
    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        match control {
            Control::Read(run) => {
                if !self.sink.takes(run.split, run.begin()) {
                    return Ok(());
                }
                self.send(SinkMessage::Control(control.clone()), cx)?;
                // With the message: the step may fail on another branch, and be tried again.
                let (reach, split, end) = (Arc::clone(&self.sink.reach), run.split, run.end);
                cx.send(move || {
                    reach.sent(split, end);
                    Ok(())
                })
            }
            Control::Watermark(_) if !self.fired => Ok(()),
            Control::Barrier(barrier)
                if !self.fired
                    || cx.held
                    || !matches!(barrier.kind, BarrierKind::Tick | BarrierKind::Deliver) =>
            {
                Ok(())
            }
            _ => self.send(SinkMessage::Control(control.clone()), cx),
        }
    }
}
