//! Any sink, with failures at chosen moments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Gate;
use crate::connector::{Claim, Commit, Progress, Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::record::Batch;
use crate::time::millis;

/// What goes wrong, and when. Writes and commits are counted from 1, over all openings of the sink.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The n-th write fails; trying again helps.
    Write(u64),
    /// The n-th write fails for good.
    BreakWrite(u64),
    /// The n-th commit fails, nothing was committed; trying again helps.
    Commit(u64),
    /// The n-th commit fails for good, nothing was committed.
    BreakCommit(u64),
    /// The n-th commit is lost on its way: nothing was committed, and the outcome is unknown.
    LoseRequest(u64),
    /// The reply to the n-th commit is lost: it was committed, and the outcome is unknown.
    LoseReply(u64),
    /// The n-th commit is done, and then the connection breaks for good: a crash after a commit.
    BreakAfterCommit(u64),
    /// The n-th write panics.
    Panic(u64),
    /// Every call fails until the gate is open; trying again helps then.
    DownUntil(Gate),
    /// Every write waits until the gate is open.
    SlowUntil(Gate),
}

/// A sink around another one. Clones share the counts and the faults that are left: each fault
/// happens once.
#[derive(Debug)]
pub struct FlakySink<S> {
    sink: S,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    left: Mutex<Vec<Fault>>,
    writes: AtomicU64,
    commits: AtomicU64,
    happened: AtomicU64,
}

impl<S: Clone> Clone for FlakySink<S> {
    fn clone(&self) -> Self {
        Self { sink: self.sink.clone(), faults: Arc::clone(&self.faults) }
    }
}

impl<S> FlakySink<S> {
    /// A sink with these faults.
    pub fn new(sink: S, faults: impl IntoIterator<Item = Fault>) -> Self {
        let left = Mutex::new(faults.into_iter().collect());
        Self { sink, faults: Arc::new(Faults { left, ..Faults::default() }) }
    }

    /// How many faults have happened so far, so that a test can tell that it tested something.
    pub fn happened(&self) -> u64 {
        self.faults.happened.load(Ordering::SeqCst)
    }
}

impl Faults {
    /// Takes the fault that is due, if there is one.
    fn take(&self, due: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let at = left.iter().position(due)?;
        self.happened.fetch_add(1, Ordering::SeqCst);
        Some(left.remove(at))
    }

    /// Fails if the sink is down.
    fn up(&self) -> Result<()> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.iter().any(|fault| matches!(fault, Fault::DownUntil(gate) if !gate.is_open())) {
            true => Err(Error::external("the test has taken the sink down").retriable()),
            false => Ok(()),
        }
    }

    /// Waits while the sink is slow.
    fn wait(&self) {
        loop {
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            let slow = |fault: &Fault| matches!(fault, Fault::SlowUntil(gate) if !gate.is_open());
            if !left.iter().any(slow) {
                return;
            }
            drop(left);
            std::thread::sleep(millis(1));
        }
    }
}

impl<T: Data, S: Sink<T>> Sink<T> for FlakySink<S> {
    fn describe(&self) -> String {
        self.sink.describe()
    }

    fn options(&self) -> SinkOptions {
        self.sink.options()
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        let writer = self.sink.open(context)?;
        Ok(Box::new(Writer { writer, faults: Arc::clone(&self.faults) }))
    }
}

struct Writer<T> {
    writer: Box<dyn SinkWriter<T>>,
    faults: Arc<Faults>,
}

fn broken(what: &str) -> Error {
    Error::external(format!("the test has broken {what}"))
}

impl<T: Data> SinkWriter<T> for Writer<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.faults.up()?;
        self.writer.recover(claim)
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        self.faults.up()?;
        self.faults.wait();
        let now = self.faults.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let due = |fault: &Fault| match fault {
            Fault::Write(n) | Fault::BreakWrite(n) | Fault::Panic(n) => *n == now,
            _ => false,
        };
        match self.faults.take(due) {
            Some(Fault::Write(_)) => Err(broken("this write").retriable()),
            Some(Fault::Panic(_)) => panic!("the test panics in this write"),
            Some(_) => Err(broken("this write for good")),
            None => self.writer.write(batch),
        }
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        self.faults.up()?;
        let now = self.faults.commits.fetch_add(1, Ordering::SeqCst) + 1;
        let due = |fault: &Fault| match fault {
            Fault::Commit(n)
            | Fault::BreakCommit(n)
            | Fault::LoseRequest(n)
            | Fault::LoseReply(n)
            | Fault::BreakAfterCommit(n) => *n == now,
            _ => false,
        };
        match self.faults.take(due) {
            None => self.writer.commit(progress),
            Some(Fault::Commit(_)) => Err(broken("this commit").retriable()),
            Some(Fault::LoseRequest(_)) => Ok(Commit::Unknown),
            Some(Fault::LoseReply(_)) => self.writer.commit(progress).map(|_| Commit::Unknown),
            Some(Fault::BreakAfterCommit(_)) => {
                self.writer.commit(progress)?;
                Err(broken("the connection after this commit"))
            }
            Some(_) => Err(broken("this commit for good")),
        }
    }

    fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    fn rejected(&self) -> u64 {
        self.writer.rejected()
    }
}
