//! The thread of a sink: writes rows, decides when to commit, and tries again when it must.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::held::Held;
use super::pace::{
    FIRST_PAUSE, LONGEST_PAUSE, SHORTEST_NAP, is_behind, jittered, longest_nap, longest_wait,
    next_nap, usual_wait,
};
use super::ticks::Ticks;
use crate::connector::{Claim, Commit, Point, Progress, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::flow::{BarrierKind, Control, Signal};
use crate::graph::{SinkParts, SinkShared};
use crate::record::{Batch, Kind, Position, SplitId, SplitList};
use crate::task::SinkMessage;
use crate::time::{Clock, Timestamp, seconds};

/// One sink at work.
pub(crate) struct SinkTask<T> {
    writer: Box<dyn SinkWriter<T>>,
    receiver: Receiver<(usize, SinkMessage<T>)>,
    options: SinkOptions,
    fired: bool,
    shared: Arc<SinkShared>,
    claim: Claim,
    splits: SplitList,
    clock: Arc<dyn Clock>,
    abandon: Arc<AtomicBool>,
    bell: Arc<Signal>,
    /// Everything has been read: nothing is gained by waiting for more.
    hurry: bool,

    /// What the target has.
    committed: Progress,
    /// Written, or to be written, since: kept until the commit is certain.
    pending: Vec<Batch<T>>,
    pending_rows: u64,
    /// When the first row and the first progress without a row came after the last commit.
    rows_since: Option<Duration>,
    news_since: Option<Duration>,
    /// How long the last commit took.
    took: Duration,
    /// How long it naps when there is no message.
    nap: Duration,

    /// A transaction holds no result whose fire time W has not reached (rule D2).
    held: Held<T>,
    /// Running values that wait until every worker has passed the tick (rule D3).
    running: Ticks<T>,
    noted: BTreeMap<SplitId, u64>,
    /// By worker: whether rows have come whose position has not. Between them is no commit.
    between: Vec<bool>,
    /// By worker.
    watermarks: Vec<Timestamp>,
    w: Timestamp,
    positions: BTreeMap<u32, Position>,
    ends: usize,
}

impl<T: Data> SinkTask<T> {
    pub(crate) fn new(
        writer: Box<dyn SinkWriter<T>>,
        receiver: Receiver<(usize, SinkMessage<T>)>,
        options: SinkOptions,
        fired: bool,
        shared: Arc<SinkShared>,
        parts: SinkParts,
    ) -> Self {
        let SinkParts { claim, progress, splits, workers, clock, abandon, bell } = parts;
        let (mut w, mut noted, mut positions) = (Timestamp::MIN, BTreeMap::new(), BTreeMap::new());
        match &progress.point {
            Point::Watermark { w: has, noted: n, .. } => {
                w = *has;
                noted.clone_from(n);
            }
            Point::Positions(has) => {
                let indexed = (0u32..).zip(splits.ids());
                positions = indexed.filter_map(|(i, id)| Some((i, *has.get(&id)?))).collect();
            }
        }
        Self {
            writer,
            receiver,
            options,
            fired,
            shared,
            claim,
            splits,
            clock,
            abandon,
            bell,
            hurry: false,
            committed: progress,
            pending: vec![],
            pending_rows: 0,
            rows_since: None,
            news_since: None,
            took: Duration::ZERO,
            nap: SHORTEST_NAP,
            held: Held::new(),
            running: Ticks::new(workers),
            noted,
            between: vec![false; workers],
            watermarks: vec![Timestamp::MIN; workers],
            w,
            positions,
            ends: 0,
        }
    }

    pub(crate) fn run(mut self) -> Result<()> {
        self.report(None);
        while self.ends < self.watermarks.len() {
            self.shared.reach.free();
            let received = self.receive();
            self.shared.reach.busy(self.clock.elapsed());
            match received {
                Ok((worker, message)) => self.take(worker, message)?,
                Err(RecvTimeoutError::Timeout) => {}
                // The workers have failed; the coordinator knows why.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.abandon.load(Ordering::Relaxed) && self.ends == 0 {
                return Ok(());
            }
            if self.commit_is_due() {
                self.commit()?;
            }
        }
        if self.rows_since.is_some() || self.news_since.is_some() {
            self.commit()?;
        }
        Ok(())
    }

    /// The next message. With none at hand it naps before it waits for one: a worker that sends to a
    /// thread that waits has to wake it, and at a high rate that would be for every batch.
    fn receive(&mut self) -> std::result::Result<(usize, SinkMessage<T>), RecvTimeoutError> {
        match self.receiver.try_recv() {
            Ok(message) => return Ok(message),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => {}
        }
        let nap = self.nap.min(longest_nap(self.commit_within())).min(self.patience());
        std::thread::sleep(nap);
        self.nap = next_nap(nap, self.receiver.len(), self.receiver.capacity());
        self.receiver.recv_timeout(self.patience())
    }

    fn take(&mut self, worker: usize, message: SinkMessage<T>) -> Result<()> {
        match message {
            SinkMessage::Batch(batch) => {
                self.between[worker] |= batch.run().is_some();
                self.take_batch(worker, batch)
            }
            SinkMessage::Control(Control::Read(run)) => {
                self.between[worker] = false;
                self.positions.insert(run.split, run.end);
                self.news();
                Ok(())
            }
            SinkMessage::Control(Control::Watermark(w)) => {
                self.watermarks[worker] = self.watermarks[worker].max(w);
                let low = self.watermarks.iter().copied().min().unwrap_or(Timestamp::MIN);
                if self.fired && low > self.w {
                    self.w = low;
                    self.news();
                    self.held
                        .release(self.w)
                        .into_iter()
                        .try_for_each(|batch| self.write(batch))?;
                }
                Ok(())
            }
            SinkMessage::Control(Control::Barrier(barrier)) => {
                self.hurry |= barrier.kind == BarrierKind::Deliver;
                if barrier.kind == BarrierKind::Tick && self.options.upserts && self.fired {
                    let Some(complete) = self.running.pass(worker, &barrier) else {
                        return Ok(());
                    };
                    for (split, position) in barrier.positions() {
                        let noted = self.noted.entry(split).or_default();
                        *noted = position.max(*noted);
                    }
                    for batch in complete {
                        self.write(batch)?;
                    }
                }
                Ok(())
            }
            SinkMessage::Control(Control::End) => {
                self.ends += 1;
                Ok(())
            }
        }
    }

    fn take_batch(&mut self, worker: usize, batch: Batch<T>) -> Result<()> {
        if self.fired && batch.kind() == Kind::Running {
            self.running.add(worker, batch);
            return Ok(());
        }
        if !self.fired {
            return self.write(batch);
        }
        match self.held.sort_out(batch, self.w) {
            Some(due) => self.write(due),
            None => Ok(()),
        }
    }

    fn write(&mut self, batch: Batch<T>) -> Result<()> {
        if batch.kind() == Kind::Final {
            self.pending_rows += batch.len() as u64;
        }
        if self.options.keeps_rows {
            self.pending.push(batch.clone());
        }
        self.rows_since.get_or_insert(self.clock.elapsed());
        match self.writer.write(&batch) {
            Ok(()) => Ok(()),
            Err(error) if error.is_retriable() && self.options.keeps_rows => {
                self.recover(error, None).map(|_| ())
            }
            Err(error) if error.is_retriable() => Err(Error::external(
                "rows that were not committed cannot be written again; the next start reads them again",
            )
            .because(error)),
            Err(error) => Err(error),
        }
    }

    fn news(&mut self) {
        self.news_since.get_or_insert(self.clock.elapsed());
    }

    /// How long rows may wait for the commit that is next.
    fn commit_within(&self) -> Duration {
        let usual = usual_wait(self.options, self.took);
        match self.options.first_commit_within {
            Some(first) if self.committed.rows == 0 => first.min(usual),
            _ => usual,
        }
    }

    /// How long to wait for a message at most.
    fn patience(&self) -> Duration {
        let now = self.clock.elapsed();
        let left = |since: Option<Duration>, within: Duration| {
            since.map(|since| (since + within).saturating_sub(now))
        };
        let rows = left(self.rows_since, self.commit_within());
        let news = left(self.news_since, self.options.note_within);
        rows.into_iter().chain(news).min().unwrap_or(seconds(1))
    }

    fn commit_is_due(&self) -> bool {
        if self.between.contains(&true) {
            return false;
        }
        let now = self.clock.elapsed();
        let over =
            |since: Option<Duration>, within| since.is_some_and(|since| now >= since + within);
        if self.hurry && self.receiver.is_empty() {
            return self.rows_since.is_some() || self.news_since.is_some();
        }
        if self.rows_since.is_none() {
            return over(self.news_since, self.options.note_within);
        }
        if self.writer.is_full() {
            return true;
        }
        if self.options.commit_within.is_zero() {
            return self.receiver.is_empty();
        }
        let behind = is_behind(self.receiver.len(), self.receiver.capacity());
        over(self.rows_since, longest_wait(self.commit_within(), self.took, behind))
    }

    /// What the target has after the commit.
    fn progress(&self) -> Progress {
        let rows = self.committed.rows + self.pending_rows;
        let point = if self.fired {
            Point::Watermark { groups: (0, 255), w: self.w, noted: self.noted.clone() }
        } else {
            let mut positions = match &self.committed.point {
                Point::Positions(positions) => positions.clone(),
                Point::Watermark { .. } => BTreeMap::new(),
            };
            for (split, position) in &self.positions {
                if let Some(split) = self.splits.get(*split) {
                    positions.insert(split.id.clone(), *position);
                }
            }
            Point::Positions(positions)
        };
        Progress { point, rows }
    }

    fn commit(&mut self) -> Result<()> {
        let progress = self.progress();
        let start = self.clock.elapsed();
        failpoint("sink.before_commit");
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.writer.commit(&progress) {
                Ok(Commit::Done) => break,
                Ok(Commit::Unknown) => {
                    Error::external("the outcome of a commit is unknown").retriable()
                }
                Err(error) if error.is_retriable() => error,
                Err(error) => return Err(error),
            };
            if !self.options.keeps_rows {
                // The writer has all it needs: the same commit is made again.
                self.wait(error, &mut pause)?;
            } else if self.recover(error, Some(&progress))? {
                break;
            }
        }
        failpoint("sink.after_commit");
        if pause > FIRST_PAUSE {
            tracing::info!(sink = %self.claim.sink, "the sink gets on again");
        }
        self.committed = progress;
        self.pending.clear();
        self.pending_rows = 0;
        self.rows_since = None;
        self.news_since = None;
        self.shared.acked.store(self.w.as_micros(), Ordering::Release);
        self.bell.ring();
        self.took = self.clock.elapsed().saturating_sub(start);
        self.report(Some(self.took));
        Ok(())
    }

    /// Brings the writer back after an error: claims again, finds out what was committed, and
    /// writes again what was not. True if `attempted` had been committed after all.
    fn recover(&mut self, error: Error, attempted: Option<&Progress>) -> Result<bool> {
        let mut error = error;
        let mut pause = FIRST_PAUSE;
        loop {
            self.wait(error, &mut pause)?;
            match self.try_recover(attempted) {
                Ok(committed) => {
                    self.trouble(None);
                    tracing::info!(sink = %self.claim.sink, "the sink gets on again");
                    return Ok(committed);
                }
                Err(e) if e.is_retriable() => error = e,
                Err(e) => return Err(e),
            }
        }
    }

    /// Says what is wrong, and waits before the next attempt; a little longer each time.
    fn wait(&self, error: Error, pause: &mut Duration) -> Result<()> {
        tracing::warn!(sink = %self.claim.sink, %error, "a sink does not get on; trying again");
        self.trouble(Some(error.to_string()));
        if self.abandon.load(Ordering::SeqCst) {
            return Err(Error::external(
                "the sink could not commit before the deadline of the stop; nothing is lost, the next start goes on from here",
            )
            .because(error));
        }
        std::thread::sleep(jittered(*pause));
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn try_recover(&mut self, attempted: Option<&Progress>) -> Result<bool> {
        let found = self.writer.recover(&self.claim)?;
        failpoint("sink.recovering");
        if attempted.is_some() && found.as_ref() == attempted {
            return Ok(true);
        }
        let nothing_yet = found.is_none() && self.committed.rows == 0;
        if found.as_ref() != Some(&self.committed) && !nothing_yet {
            return Err(Error::fenced(format!(
                "the target has progress that this process did not write: {}",
                found.map_or_else(|| "none".to_owned(), |found| found.to_json())
            )));
        }
        for batch in &self.pending {
            self.writer.write(batch)?;
        }
        Ok(false)
    }

    fn trouble(&self, trouble: Option<String>) {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.pending_rows = self.pending_rows;
        status.trouble = trouble;
    }

    /// Shows what has been committed; `took` is `None` at the start.
    fn report(&self, took: Option<Duration>) {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.rows = self.committed.rows;
        status.rejected = self.writer.rejected();
        status.pending_rows = 0;
        status.trouble = None;
        if let Some(took) = took {
            status.commits += 1;
            status.last_commit = took;
        }
        match &self.committed.point {
            Point::Watermark { w, .. } => status.watermark = (*w > Timestamp::MIN).then_some(*w),
            Point::Positions(positions) => {
                let named = positions.iter().map(|(id, at)| (id.to_string(), *at));
                status.positions = named.collect();
            }
        }
        if self.fired && took.is_none() {
            self.shared.acked.store(self.w.as_micros(), Ordering::Release);
        }
    }
}
