//! A worker: one thread that runs a copy of the whole job.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

use super::given_up::Accusation;
use super::tracker::Tracker;
use crate::checkpoint::SplitEntry;
use crate::error::{Error, ErrorKind, Result, panic_text};
use crate::flow::{Control, Cx, Signal};
use crate::operator::OperatorStatus;
use crate::state::Entries;
use crate::time::Timestamp;

/// What a poll of an input found. Of two polls the lesser one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Poll {
    /// Something was done; there may be more.
    Progress,
    /// An outgoing queue is full.
    NoRoom,
    /// Nothing to be done now, and nobody will ring.
    Later,
    /// Nothing at hand; the signal will ring.
    Nothing,
    /// Nothing will ever come again.
    Ended,
}

/// Something that a worker polls: a source or a keyed stream.
pub(crate) trait Input: Send {
    fn poll(&mut self, cx: &mut Cx) -> Result<Poll>;

    /// Whether a control can be sent down now. Only sources are asked.
    fn has_room(&self) -> bool {
        true
    }

    /// Whether the end can be sent down now. Only sources are asked.
    fn may_end(&self) -> bool {
        true
    }

    /// Sends a control down. Only sources are told; the others get it through their channels.
    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        let _ = (control, cx);
        Ok(())
    }

    /// Takes what its keys have of the state of each operator, by name.
    fn restore(&mut self, state: &BTreeMap<String, Entries>) -> Result<()>;

    /// Tells operators, by name, from when on they have results.
    fn begin(&mut self, begins: &BTreeMap<String, Timestamp>) {
        let _ = begins;
    }

    fn totals(&self, into: &mut Vec<SplitEntry>) {
        let _ = into;
    }

    fn status(&self, into: &mut Vec<(Arc<str>, OperatorStatus, u64)>);
}

/// What a worker shows to the outside, now and then.
#[derive(Debug, Default)]
pub(crate) struct WorkerStatus {
    pub(crate) splits: Vec<SplitEntry>,
    pub(crate) operators: Vec<(Arc<str>, OperatorStatus, u64)>,
    /// Whether the last round found an outgoing queue full.
    pub(crate) back_pressured: bool,
}

/// What the workers and the coordinator share.
#[derive(Debug)]
pub(crate) struct WorkerShared {
    pub(crate) signal: Arc<Signal>,
    /// Set when the job has failed: stop where you are.
    pub(crate) abort: Arc<AtomicBool>,
    pub(crate) status: Mutex<WorkerStatus>,
    /// Why the worker has failed, if that may be the fault of one record behind an exchange.
    pub(crate) accusation: Mutex<Option<Accusation>>,
}

/// One worker's part of the job.
pub(crate) struct Worker {
    /// In the order in which records meet them: sources first.
    pub(crate) sources: Vec<Box<dyn Input>>,
    pub(crate) keyed: Vec<Box<dyn Input>>,
    pub(crate) commands: Receiver<Control>,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) cx: Cx,
}

/// How many rounds pass between two reports of a busy worker.
const ROUNDS_PER_REPORT: u32 = 64;

impl Worker {
    /// How many inputs it has.
    pub(crate) fn inputs(&self) -> usize {
        self.sources.len() + self.keyed.len()
    }

    /// Takes what its keys have of the state, and tells operators from when on they have results.
    pub(crate) fn restore(
        &mut self,
        state: &BTreeMap<String, Entries>,
        begins: &BTreeMap<String, Timestamp>,
    ) -> Result<()> {
        self.keyed.iter_mut().try_for_each(|input| {
            input.restore(state)?;
            input.begin(begins);
            Ok(())
        })
    }

    /// Runs until every input has ended.
    pub(crate) fn run(&mut self) -> Result<()> {
        self.shared.signal.register();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run_loop()));
        let taking = self.cx.taking.take();
        let result = caught.unwrap_or_else(|panic| {
            let error = panic_error(panic.as_ref());
            Err(if taking.is_some() { Error::record(error.message()) } else { error })
        });
        result.map_err(|e| {
            let e = e.at_step(&self.cx.step);
            if let Some((operator, run)) = taking.filter(|_| e.kind() == ErrorKind::Record) {
                let accusation = Accusation { operator, run, error: e.to_string() };
                let mut shared =
                    self.shared.accusation.lock().unwrap_or_else(PoisonError::into_inner);
                *shared = Some(accusation);
            }
            match self.cx.origin_text() {
                Some(origin) => e.on_record(origin),
                None => e,
            }
        })
    }

    fn run_loop(&mut self) -> Result<()> {
        let mut sent = Timestamp::MIN;
        let mut command: Option<Control> = None;
        let mut rounds = 0u32;
        loop {
            if self.shared.abort.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (mut progress, mut later, mut no_room) = (false, false, false);
            let mut ended = HashSet::new();
            let mut note = |poll: Poll, i: usize, ended: &mut HashSet<usize>| match poll {
                Poll::Progress => progress = true,
                Poll::Later => later = true,
                Poll::NoRoom => no_room = true,
                Poll::Ended => {
                    ended.insert(i);
                }
                Poll::Nothing => {}
            };
            // Downstream first: what is under way leaves before more comes in.
            for (i, input) in self.keyed.iter_mut().enumerate().rev() {
                for _ in 0..16 {
                    let poll = input.poll(&mut self.cx)?;
                    note(poll, i, &mut ended);
                    if poll != Poll::Progress {
                        break;
                    }
                }
            }
            let room = self.sources.iter().all(|source| source.has_room());
            if room {
                let watermark = self.tracker.watermark();
                if watermark > sent {
                    sent = watermark;
                    self.send_to_sources(&Control::Watermark(watermark))?;
                    note(Poll::Progress, 0, &mut ended);
                }
                if command.is_none() {
                    command = match self.commands.try_recv() {
                        Ok(control) => Some(control),
                        Err(TryRecvError::Empty) => None,
                        // The coordinator has given the job up.
                        Err(TryRecvError::Disconnected) => return Ok(()),
                    };
                }
                let sources = &self.sources;
                if let Some(control) = command.take_if(|control| {
                    !matches!(control, Control::End) || sources.iter().all(|s| s.may_end())
                }) {
                    self.send_to_sources(&control)?;
                    note(Poll::Progress, 0, &mut ended);
                }
            }
            for (i, input) in self.sources.iter_mut().enumerate() {
                let poll = input.poll(&mut self.cx)?;
                note(poll, self.keyed.len() + i, &mut ended);
            }
            if ended.len() == self.keyed.len() + self.sources.len() {
                self.report(false);
                return Ok(());
            }
            rounds += 1;
            if !progress || rounds >= ROUNDS_PER_REPORT {
                rounds = 0;
                self.report(no_room);
            }
            if !progress {
                // Room in a queue is not announced; everything else is, so the rest is a safety net.
                let wait = if no_room || later { 1 } else { 20 };
                self.shared.signal.wait(Duration::from_millis(wait));
            }
        }
    }

    fn send_to_sources(&mut self, control: &Control) -> Result<()> {
        self.sources.iter_mut().try_for_each(|source| source.control(control, &mut self.cx))
    }

    fn report(&self, back_pressured: bool) {
        let mut status = WorkerStatus { back_pressured, ..WorkerStatus::default() };
        self.sources.iter().for_each(|source| source.totals(&mut status.splits));
        self.keyed.iter().for_each(|keyed| keyed.status(&mut status.operators));
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// A panic in user code, as an error.
pub(crate) fn panic_error(panic: &(dyn std::any::Any + Send)) -> Error {
    Error::user(panic_text(panic))
}
