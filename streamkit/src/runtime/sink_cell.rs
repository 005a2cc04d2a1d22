//! A sink in the plan, its row type erased, and the edges that lead to it.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::sink_task::SinkTask;
use crate::connector::{Claim, Point, Progress, Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::flow::Link;
use crate::graph::{Deploy, SinkCell, SinkParts, SinkShared};
use crate::progress::SinkProgress;
use crate::task::{Attachment, Reach, SinkEdge, SinkMessage};
use crate::time::Timestamp;

/// A sink in the plan.
pub(crate) struct SinkNode<T> {
    name: String,
    step: Arc<str>,
    fired: bool,
    options: SinkOptions,
    sink: Box<dyn Sink<T>>,
    writer: Option<Box<dyn SinkWriter<T>>>,
    receiver: Option<Receiver<(usize, SinkMessage<T>)>>,
    edges: Edges<T>,
    shared: Arc<SinkShared>,
}

/// Makes the edges of a sink, one for each worker.
pub(crate) struct Edges<T>(Arc<Mutex<Option<Edge<T>>>>, Arc<SinkShared>, bool);

struct Edge<T> {
    sender: Sender<(usize, SinkMessage<T>)>,
    has_w: Timestamp,
    upserts: bool,
}

impl<T> Clone for Edges<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), Arc::clone(&self.1), self.2)
    }
}

impl<T: Data> Edges<T> {
    pub(crate) fn edge(&self, deploy: &mut Deploy) -> Result<Box<dyn Link<T>>> {
        let edge = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Edge { sender, has_w, upserts }) = &*edge else {
            return Err(Error::internal("a sink is built before it is prepared"));
        };
        let link = SinkEdge {
            sender: sender.clone(),
            fired: self.2,
            has_w: *has_w,
            sink: Attachment::new(Arc::clone(&self.1.reach)),
            upserts: *upserts,
        };
        link.watch(deploy.workers(), &mut deploy.gauges);
        if self.2 {
            deploy.acks.add(Arc::clone(&self.1.acked));
        }
        Ok(Box::new(link))
    }

    /// The coordinator keeps no sender: a sink ends when its workers have.
    fn release(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<T: Data> SinkNode<T> {
    pub(crate) fn new(name: &str, step: Arc<str>, fired: bool, sink: Box<dyn Sink<T>>) -> Self {
        let status = SinkProgress {
            name: name.to_owned(),
            target: sink.describe(),
            ..SinkProgress::default()
        };
        let acked = Arc::new(AtomicI64::new(i64::MIN));
        let shared = Arc::new(SinkShared {
            acked,
            reach: Arc::new(Reach::new(name)),
            status: Mutex::new(status),
        });
        Self {
            name: name.to_owned(),
            step,
            fired,
            options: sink.options(),
            sink,
            writer: None,
            receiver: None,
            edges: Edges(Arc::default(), Arc::clone(&shared), fired),
            shared,
        }
    }

    pub(crate) fn edges(&self) -> Edges<T> {
        self.edges.clone()
    }
}

impl<T: Data> SinkCell for SinkNode<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_fired(&self) -> bool {
        self.fired
    }

    fn shared(&self) -> Arc<SinkShared> {
        Arc::clone(&self.shared)
    }

    fn open(&mut self, context: &SinkContext) -> Result<()> {
        if self.writer.is_none() {
            self.writer = Some(self.sink.open(context).map_err(|e| e.at_step(&self.step))?);
        }
        Ok(())
    }

    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        let Some(writer) = &mut self.writer else {
            return Err(Error::internal("a sink is claimed before it is open"));
        };
        let progress = writer.recover(claim).map_err(|e| e.at_step(&self.step))?;
        let fits = match &progress {
            None => true,
            Some(progress) => matches!(progress.point, Point::Watermark { .. }) == self.fired,
        };
        if !fits {
            return Err(Error::user(format!(
                "the sink {} was behind other steps when it stored its progress: give it another name",
                self.name
            ))
            .at_step(&self.step));
        }
        Ok(progress)
    }

    fn prepare(&mut self, has_w: Timestamp, workers: usize, queue: usize) {
        let (sender, receiver) = bounded(queue + workers * crate::task::SLACK);
        self.receiver = Some(receiver);
        let edge = Edge { sender, has_w, upserts: self.options.upserts };
        *self.edges.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(edge);
    }

    fn task(&mut self, parts: SinkParts) -> Result<Box<dyn FnOnce() -> Result<()> + Send>> {
        self.edges.release();
        let (Some(writer), Some(receiver)) = (self.writer.take(), self.receiver.take()) else {
            return Err(Error::internal("a sink is started before it is prepared"));
        };
        let (step, shared) = (Arc::clone(&self.step), Arc::clone(&self.shared));
        let task = SinkTask::new(writer, receiver, self.options, self.fired, shared, parts);
        Ok(Box::new(move || {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.run()));
            let result =
                caught.unwrap_or_else(|panic| Err(crate::task::panic_error(panic.as_ref())));
            result.map_err(|e| e.at_step(&step))
        }))
    }
}
