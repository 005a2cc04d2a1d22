//! Reads the splits of one source that one worker has: stamps times and marks, counts, cuts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::branches::Branches;
use super::gauge::{Gauges, Passage};
use super::given_up::{GivenUp, GivenUps};
use super::portion::Portion;
use super::split::{OpenSplit, SplitPlan};
use super::tracker::Tracker;
use super::worker::{Input, Poll};
use crate::checkpoint::SplitEntry;
use crate::connector::{ReadStatus, Source, Wake};
use crate::data::Data;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::{broken, failpoint};
use crate::flow::{Control, Cx};
use crate::operator::OperatorStatus;
use crate::state::Entries;
use crate::time::{Clock, WatermarkStrategy};

/// The most records of one read.
pub(super) const READ_ROWS: usize = 1_024;

/// What is common to all splits of a source.
pub(crate) struct StampRule<T> {
    pub(crate) strategy: WatermarkStrategy<T>,
    /// The names of the job's aggregates, for the totals.
    pub(crate) aggregates: Arc<[Arc<str>]>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) step: Arc<str>,
}

/// The splits of one source on one worker.
pub(crate) struct SourceInput<T> {
    pub(super) source: Arc<dyn Source<Item = T>>,
    pub(super) rule: StampRule<T>,
    pub(super) tracker: Arc<Tracker>,
    pub(super) wake: Wake,
    plans: Receiver<SplitPlan>,
    pub(super) splits: Vec<OpenSplit<T>>,
    turn: usize,
    branches: Branches<T>,
    pub(super) given_ups: Arc<GivenUps>,
    pub(super) gauges: Gauges,
    passage: Arc<Passage>,
    ended: bool,
}

/// Which of the two readers of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The one that everything but sinks that are behind is fed by.
    Main,
    /// The one that feeds sinks that are behind.
    CatchUp,
}

impl<T: Data> SourceInput<T> {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from parts made beside it")]
    pub(crate) fn new(
        source: Arc<dyn Source<Item = T>>,
        rule: StampRule<T>,
        tracker: Arc<Tracker>,
        wake: Wake,
        plans: Receiver<SplitPlan>,
        branches: Branches<T>,
        given_ups: Arc<GivenUps>,
        gauges: Gauges,
        passage: Arc<Passage>,
    ) -> Self {
        Self {
            source,
            rule,
            tracker,
            wake,
            plans,
            splits: vec![],
            turn: 0,
            branches,
            given_ups,
            gauges,
            passage,
            ended: false,
        }
    }

    fn open_new_splits(&mut self) -> Result<()> {
        while let Ok(plan) = self.plans.try_recv() {
            let reader = self.source.open(&plan.split, plan.from.next, self.wake.clone())?;
            let split = OpenSplit::new(plan, reader, self.rule.strategy.out_of_orderness);
            let (index, next) = (split.plan.index, split.position.next);
            self.gauges.begin(index, split.plan.from);
            self.tracker.advance(index, split.time.own(), next, split.reader.lag());
            self.splits.push(split);
            let at = self.splits.len() - 1;
            if self.splits[at].ended {
                self.end(at);
            }
        }
        Ok(())
    }

    /// Reads from the next split that has something.
    fn read_one(&mut self, cx: &mut Cx) -> Result<Poll> {
        let mut waiting = Poll::Nothing;
        for _ in 0..self.splits.len() {
            self.turn = (self.turn + 1) % self.splits.len();
            let split = &mut self.splits[self.turn];
            if split.ended {
                continue;
            }
            if !self.gauges.have_room_at(split.plan.index, split.position.place()) {
                self.tracker.paused(split.plan.index);
                waiting = Poll::NoRoom;
                continue;
            }
            if let Some(mut portion) = split.asked.take() {
                if self.given_ups.is_granted((split.plan.index, false)) {
                    split.settled(&mut portion);
                    let at = self.turn;
                    self.send(at, Of::Main, portion, cx)?;
                    return Ok(Poll::Progress);
                }
                split.asked = Some(portion);
                waiting = Poll::Later;
                continue;
            }
            if split.has_letter() {
                if let Some(letter) = split.next_letter(&*self.source, &self.wake) {
                    let at = self.turn;
                    self.send(at, Of::Main, letter, cx)?;
                    return Ok(Poll::Progress);
                }
                waiting = Poll::Later;
                continue;
            }
            if split.catch_up.as_ref().is_some_and(|c| !c.lets_ahead(split.position.next)) {
                self.tracker.paused(split.plan.index);
                waiting = Poll::Later;
                continue;
            }
            if !split.held {
                if self.tracker.too_far_ahead(split.plan.index) {
                    self.tracker.paused(split.plan.index);
                    waiting = Poll::Later;
                    continue;
                }
                split.batch.restart(split.position.next);
                let read = split.reader.read(&mut split.batch, READ_ROWS);
                split.status = read.map_err(|e| {
                    let at = format!("{}@{}", split.plan.split.id, split.position.next);
                    e.at_step(&self.rule.step).on_record(at)
                })?;
            }
            if split.batch.is_empty() && split.batch.next == split.position.next {
                let caught_up = split.status == ReadStatus::CaughtUp;
                self.tracker.nothing(split.plan.index, caught_up, self.rule.clock.elapsed());
                if split.status == ReadStatus::Ended {
                    let at = self.turn;
                    self.end(at);
                    return Ok(Poll::Progress);
                }
                if split.status == ReadStatus::More {
                    waiting = Poll::Later;
                }
                continue;
            }
            // A gap without a record (control records) is not a sign of life.
            if !split.batch.is_empty() {
                match self.tracker.may_stamp(split.plan.index) {
                    Some(Some(floor)) => split.set_floor(floor),
                    Some(None) => {}
                    None => {
                        split.held = true;
                        waiting = Poll::Later;
                        continue;
                    }
                }
            }
            let at = self.turn;
            self.process(at, cx)?;
            return Ok(Poll::Progress);
        }
        Ok(waiting)
    }

    /// Sends what has been read on its way, or its part up to the next position at which it must be
    /// cut; the rest is held.
    fn process(&mut self, at: usize, cx: &mut Cx) -> Result<()> {
        let split = &mut self.splits[at];
        match split.next_portion(&self.rule.strategy) {
            Some(portion) if broken("lateness.own_mark") => {
                self.send(at, Of::Main, portion.marked_by(self.tracker.watermark()), cx)
            }
            Some(portion) => self.send(at, Of::Main, portion, cx),
            // Nothing of it is before the end.
            None => self.settle(at),
        }
    }

    /// Sends a portion down every branch, or finds out which of its records cannot be processed and
    /// asks for them to be given up. It goes on then without them.
    pub(super) fn send(
        &mut self,
        at: usize,
        of: Of,
        portion: Portion<T>,
        cx: &mut Cx,
    ) -> Result<()> {
        let split = &self.splits[at];
        if !portion.unsettled.is_empty() {
            return self.ask(at, of, portion);
        }
        cx.origin = Some((split.plan.split.id.clone(), portion.first(), portion.end.next));
        cx.step = Arc::clone(&self.rule.step);
        if let Err(error) = self.branches.attempt(&portion, cx) {
            if error.kind() != ErrorKind::Record {
                return Err(error);
            }
            let culprits = self.branches.culprits(&portion, cx)?;
            if !culprits.is_empty() {
                cx.origin = None;
                return self.give_up(at, of, portion, culprits);
            }
            // None of them fails alone: it may have passed.
            self.branches.attempt(&portion, cx)?;
        }
        cx.origin = None;
        if of == Of::CatchUp {
            self.caught_up_to(at, &portion);
            return Ok(());
        }
        failpoint("source.batch_sent");
        let split = &mut self.splits[at];
        split.went(&portion);
        for (i, name) in self.rule.aggregates.iter().enumerate() {
            let totals = &mut split.plan.totals;
            for (counts, total) in
                [(&mut cx.wanted, &mut totals.wanted), (&mut cx.late, &mut totals.late)]
            {
                let n = std::mem::take(&mut counts[i]);
                if n > 0 {
                    *total.entry(name.to_string()).or_default() += n;
                }
            }
        }
        self.settle(at)
    }

    /// Gives rows up. Where nobody takes dead letters, that would be a loss that nobody sees: the job
    /// stops, and names the first of them.
    fn give_up(
        &mut self,
        at: usize,
        of: Of,
        portion: Portion<T>,
        mut culprits: BTreeMap<u32, Error>,
    ) -> Result<()> {
        let split = &self.splits[at].plan.split;
        if self.branches.dead.is_none()
            && let Some((row, error)) = culprits.pop_first()
        {
            return Err(error.on_record(format!("{}@{}", split.id, portion.offset(row))));
        }
        let why = culprits.iter().map(|(row, error)| (*row, error.to_string())).collect();
        let portion = portion.without(&why, split);
        self.ask(at, of, portion)
    }

    /// Rule D1: the reader waits until what is given up is a fact.
    fn ask(&mut self, at: usize, of: Of, portion: Portion<T>) -> Result<()> {
        let split = &mut self.splits[at];
        let letters = portion.letters.iter().filter(|(at, _)| portion.unsettled.contains(at));
        let given_up: Vec<GivenUp> = letters
            .map(|(at, letter)| GivenUp {
                split: split.plan.split.id.clone(),
                at: *at,
                error: letter.error.clone(),
            })
            .collect();
        if let (None, Some(first)) = (&self.branches.dead, given_up.first()) {
            let at = format!("{}@{}", first.split, first.at);
            return Err(Error::record(first.error.clone()).at_step(&self.rule.step).on_record(at));
        }
        self.given_ups.ask((split.plan.index, of == Of::CatchUp), given_up);
        self.tracker.call();
        match (of, &mut split.catch_up) {
            (Of::CatchUp, Some(catch_up)) => catch_up.open.asked = Some(portion),
            _ => split.asked = Some(portion),
        }
        Ok(())
    }

    /// What the position of a split says about its end.
    fn settle(&mut self, at: usize) -> Result<()> {
        let split = &mut self.splits[at];
        let (index, lag) = (split.plan.index, split.reader.lag());
        self.tracker.advance(index, split.time.own(), split.position.next, lag);
        if split.is_at_its_end() {
            split.held = false;
            self.end(at);
        }
        Ok(())
    }

    /// The split has been read to its end; the job is not at its own before every sink has all of it.
    fn end(&mut self, at: usize) {
        self.see_who_is_behind(at);
        self.splits[at].ended = true;
        self.tracker.end(self.splits[at].plan.index);
    }
}

impl<T: Data> Input for SourceInput<T> {
    fn poll(&mut self, cx: &mut Cx) -> Result<Poll> {
        if self.ended {
            return Ok(Poll::Ended);
        }
        self.open_new_splits().map_err(|e| e.at_step(&self.rule.step))?;
        self.gauges.look(self.rule.clock.elapsed());
        let caught_up = self.catch_up(cx)?;
        if !self.gauges.have_room() || self.passage.is_held() {
            self.splits.iter().for_each(|split| self.tracker.paused(split.plan.index));
            return Ok(Poll::NoRoom.min(caught_up));
        }
        Ok(self.read_one(cx)?.min(caught_up))
    }

    fn has_room(&self) -> bool {
        self.gauges.have_room()
    }

    fn may_end(&self) -> bool {
        self.gauges.positions_have_room()
    }

    fn control(&mut self, control: &Control, cx: &mut Cx) -> Result<()> {
        if let Control::Barrier(barrier) = control {
            self.open_new_splits()?;
            barrier.pass(|all| {
                for split in &self.splits {
                    all.splits.insert(split.plan.split.id.clone(), split.checkpointed());
                }
            });
        }
        self.branches.control(control, cx)?;
        if matches!(control, Control::End) {
            self.ended = true;
        }
        Ok(())
    }

    fn restore(&mut self, _: &BTreeMap<String, Entries>) -> Result<()> {
        Ok(())
    }

    fn totals(&self, into: &mut Vec<SplitEntry>) {
        into.extend(self.splits.iter().map(|split| split.entry(split.position)));
    }

    fn status(&self, _: &mut Vec<(Arc<str>, OperatorStatus, u64)>) {}
}
