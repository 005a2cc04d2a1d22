//! Reads again what some sinks lack of a split, beside the reader that feeds everything else (rule
//! D5): a sink that was far behind when the job started, or that was stuck for a while.
//!
//! It begins where the sink goes on and ends where the other reader is, at which point the sink takes
//! from that one: a sink takes whatever follows on what it has ([`Reach`](super::Reach)). No floor is
//! decided here: which one is in force, the other reader has found out before.

use super::portion::Portion;
use super::source_input::{Of, READ_ROWS, SourceInput};
use super::split::{OpenSplit, SplitPlan};
use super::worker::Poll;
use crate::connector::{ReadStatus, Source, Wake};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::flow::Cx;
use crate::record::Position;

/// Portions in a row, for one of the split's own reader: so it gets there while both have a lot to
/// read.
const PORTIONS: usize = 4;
/// Records that the split's own reader may be ahead in any case: they are its business until the
/// second reader is connected.
const AHEAD: u64 = 100_000;

/// The second reader of a split.
pub(crate) struct CatchUp<T> {
    pub(super) open: OpenSplit<T>,
    /// Where it began, and where the split's own reader was then.
    began: (u64, u64),
}

impl<T: Data> CatchUp<T> {
    fn open(
        source: &dyn Source<Item = T>,
        split: &OpenSplit<T>,
        from: Position,
        wake: Wake,
        delay: std::time::Duration,
    ) -> Result<Self> {
        let reader = source.open(&split.plan.split, from.next, wake)?;
        // All of it has been counted.
        let restored = Position { next: u64::MAX, ..Position::default() };
        let plan = SplitPlan { from, restored, cuts: vec![], end: None, ..split.plan.clone() };
        let open = OpenSplit::new(plan, reader, delay);
        Ok(Self { open, began: (from.next, split.position.next) })
    }

    /// Whether the split's own reader may read on from this position.
    pub(super) fn lets_ahead(&self, at: u64) -> bool {
        lets_ahead(self.began, self.open.position.next, at)
    }

    /// Takes over what was decided meanwhile, and where to stop.
    fn follow(&mut self, main: &SplitPlan, end: u64, cuts: Vec<u64>) {
        let plan = &mut self.open.plan;
        if plan.floors.len() != main.floors.len() {
            plan.floors.clone_from(&main.floors);
        }
        if plan.given_up.len() != main.given_up.len() {
            plan.given_up.clone_from(&main.given_up);
        }
        plan.cuts = cuts;
        plan.cuts.extend(main.given_up_by.iter().map(|by| by.letter_at));
        plan.end = Some(end);
    }
}

/// Whether a reader that was at `began.1` when the other one was at `began.0` may be at `main` when
/// that is at `other`: at most half as fast, so that the two meet.
fn lets_ahead(began: (u64, u64), other: u64, main: u64) -> bool {
    main.saturating_sub(began.1) <= AHEAD.saturating_add(other.saturating_sub(began.0) / 2)
}

impl<T: Data> SourceInput<T> {
    /// Feeds sinks that lack something.
    pub(super) fn catch_up(&mut self, cx: &mut Cx) -> Result<Poll> {
        let mut found = Poll::Nothing;
        for at in 0..self.splits.len() {
            for _ in 0..PORTIONS {
                let poll = self.catch_up_on(at, cx)?;
                found = found.min(poll);
                if poll != Poll::Progress {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// One portion for the sinks that are furthest behind on a split.
    fn catch_up_on(&mut self, at: usize, cx: &mut Cx) -> Result<Poll> {
        let behind = self.see_who_is_behind(at);
        let split = &mut self.splits[at];
        let (index, main) = (split.plan.index, split.position.next);
        let here = split.position.place();
        let able = if behind { self.gauges.behind(index, here, false) } else { None };
        let Some(from) = able else {
            split.catch_up = None;
            return Ok(Poll::Nothing);
        };
        let stands = |c: &CatchUp<T>| c.open.position.place() == from.place();
        if !split.catch_up.as_deref().is_some_and(stands) {
            let (name, lacks) = (&split.plan.split.id, main - from.next);
            tracing::info!(split = %name, from = from.next, lacks, "reading again what a sink lacks");
            let delay = self.rule.strategy.out_of_orderness;
            let opened = CatchUp::open(&*self.source, split, from, self.wake.clone(), delay);
            split.catch_up = Some(Box::new(opened.map_err(|e| e.at_step(&self.rule.step))?));
            failpoint("catch_up.opened");
        }
        let Some(catch_up) = &mut split.catch_up else { return Ok(Poll::Nothing) };
        if !self.gauges.have_room_at(index, from.place()) {
            return Ok(Poll::NoRoom);
        }
        let open = &mut catch_up.open;
        if let Some(mut portion) = open.asked.take() {
            if !self.given_ups.is_granted((index, true)) {
                open.asked = Some(portion);
                return Ok(Poll::Later);
            }
            split.settled(&mut portion);
            return self.send_again(at, portion, cx);
        }
        if open.has_letter() {
            return match open.next_letter(&*self.source, &self.wake) {
                Some(letter) => self.send_again(at, letter, cx),
                None => Ok(Poll::Later),
            };
        }
        if !open.held {
            open.batch.restart(from.next);
            let read = open.reader.read(&mut open.batch, READ_ROWS);
            open.status = read.map_err(|e| {
                let record = format!("{}@{}", open.plan.split.id, from.next);
                e.at_step(&self.rule.step).on_record(record)
            })?;
            if open.batch.is_empty() && open.batch.next == from.next {
                return match open.status {
                    ReadStatus::Ended => Err(Error::external(format!(
                        "{} ends at record {}, and has been read to record {main} before: a sink lacks what is between",
                        open.plan.split.id, from.next
                    ))
                    .at_step(&self.rule.step)),
                    ReadStatus::More => Ok(Poll::Later),
                    ReadStatus::Waiting | ReadStatus::CaughtUp => Ok(Poll::Nothing),
                };
            }
        }
        catch_up.follow(&split.plan, main, self.gauges.reached(index));
        match catch_up.open.next_portion(&self.rule.strategy) {
            Some(portion) => self.send_again(at, portion, cx),
            None => Ok(Poll::Nothing),
        }
    }

    fn send_again(&mut self, at: usize, portion: Portion<T>, cx: &mut Cx) -> Result<Poll> {
        cx.catching_up = true;
        let sent = self.send(at, Of::CatchUp, portion, cx);
        cx.catching_up = false;
        sent.map(|()| Poll::Progress)
    }

    /// A portion has gone to the sinks that lacked it.
    pub(super) fn caught_up_to(&mut self, at: usize, portion: &Portion<T>) {
        if let Some(catch_up) = &mut self.splits[at].catch_up {
            let open = &mut catch_up.open;
            open.went(portion);
            // What was read beyond the other reader waits for it.
            open.held = open.position.next < open.batch.next;
        }
        failpoint("catch_up.sent");
        self.see_who_is_behind(at);
    }

    /// Lets the tracker know whether some sink lacks records of a split.
    pub(super) fn see_who_is_behind(&mut self, at: usize) -> bool {
        let split = &mut self.splits[at];
        let behind = self.gauges.behind(split.plan.index, split.position.place(), true).is_some();
        if split.behind != behind {
            split.behind = behind;
            self.tracker.set_behind(split.plan.index, behind);
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d5_a_reader_is_at_most_half_as_fast_as_the_one_that_must_reach_it() {
        let began = (1_000, 500_000);
        assert!(lets_ahead(began, 1_000, 600_000));
        assert!(!lets_ahead(began, 1_000, 600_001));
        assert!(!lets_ahead(began, 1_001, 600_001));
        assert!(lets_ahead(began, 1_002, 600_001));
        // So they meet: at 1_199_000 + both have the same position at the latest.
        assert!(!lets_ahead(began, 1_199_000, 1_199_001));
    }
}
