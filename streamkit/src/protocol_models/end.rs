//! Rule D10: the end of an input, closing, reopening, and runs that are kept open.
//!
//! Two splits that grow while nobody reads, one tumbling window, a table, a late output. Each run
//! either closes the input at its end or keeps it open; any of them may be cut short after any fact.
//! What the facts say is decided by the library's own functions.

use super::{HIGH, LOW, Model, Steps, holds, is_caught, known, large, real, small};
use crate::checkpoint::Fact;
use crate::record::{Split, SplitId};
use crate::runtime::recovery::{Facts, closes_at, reopening};
use crate::time::{SplitTime, micros};
use crate::window::{Lateness, Panes, Tumbling};

const WINDOWS: usize = 3;
const SIZE: i8 = 4;
const DELAY: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The ends are facts, and a restart reuses them.
    Ends,
    /// `closed(C)` is durable before a watermark of C leaves.
    ClosedFirst,
    /// A reopened job has floors at C.
    Floors,
    /// They hold from the end at which it was closed, not from where it restarts.
    FloorsAtEnd,
    /// They are durable before the job counts as reopened.
    FloorsFirst,
    /// In a run that is kept open, splits that have ended stay in the minimum.
    StayInMinimum,
    /// Such a run puts floors where an earlier one may have let the watermark pass a split.
    FloorsOfOtherRuns,
    /// An input is not closed before what had fired and was not delivered.
    Undelivered,
}

#[derive(Clone)]
struct Input {
    splits: [&'static [i8]; 2],
    /// How much is there when the job first starts.
    first: [u8; 2],
    crashes: u8,
    /// Records from this time on move the watermark, and a filter keeps them from the window.
    filtered_from: i8,
    without: Option<Rule>,
}

type PerWindow = [u8; WINDOWS];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct At {
    next: u8,
    high: i8,
    floor: i8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SmallFact {
    End(usize, u8),
    EndReached,
    Closed(i8),
    Reopened(i8),
    Floor(usize, u8, i8),
}

impl SmallFact {
    fn of(fact: &Fact) -> Self {
        let split = |id: &SplitId| usize::from(id.as_str() == "b");
        match fact {
            Fact::End { split: id, end } => Self::End(split(id), *end as u8),
            Fact::Floor { split: id, from, floor } => {
                Self::Floor(split(id), *from as u8, small(*floor))
            }
            Fact::Reopened { c } => Self::Reopened(small(*c)),
            other => panic!("no fact of reopening: {other:?}"),
        }
    }
}

fn name(split: usize) -> SplitId {
    Split::new(["a", "b"][split], "t", 0).id
}

fn facts(all: &[SmallFact]) -> Facts {
    let fact = |fact: &SmallFact| match *fact {
        SmallFact::End(split, end) => Fact::End { split: name(split), end: u64::from(end) },
        SmallFact::EndReached => Fact::EndReached,
        SmallFact::Closed(c) => Fact::Closed { c: real(c) },
        SmallFact::Reopened(c) => Fact::Reopened { c: real(c) },
        SmallFact::Floor(split, from, floor) => {
            Fact::Floor { split: name(split), from: u64::from(from), floor: real(floor) }
        }
    };
    Facts::of(&all.iter().map(fact).collect::<Vec<_>>())
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Run {
    keep_open: bool,
    ends: [u8; 2],
    read: [At; 2],
    watermark: i8,
    open: PerWindow,
    undelivered: PerWindow,
    fired: i8,
    late: [u8; 2],
    /// The last checkpoint has been made.
    ending: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Checkpoint {
    read: [At; 2],
    open: PerWindow,
    undelivered: PerWindow,
    fired: i8,
    watermark: i8,
    late: [u8; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    run: Option<Run>,
    checkpoint: Checkpoint,
    facts: Vec<SmallFact>,
    rows: PerWindow,
    finals: [bool; WINDOWS],
    w: i8,
    late: [u8; 2],
    late_next: [u8; 2],
    there: [u8; 2],
    crashes: u8,
    /// Runs that may still be kept open; without a bound there would be ever more facts.
    kept_open: u8,
    fault: Option<&'static str>,
}

impl Input {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// A start: the facts that it appends, and the run. `None`: there is nothing to do.
    fn start_run(&self, state: &State, mut keep_open: bool) -> Option<(Vec<SmallFact>, Run)> {
        let known = facts(&state.facts);
        let old_end = |i: usize| known.ends.get(&name(i)).map(|end| *end as u8);
        let (mut new, mut ends) = (vec![], state.there);
        if let Some(closed) = known.closed.map(small) {
            let more = (0..2).any(|i| old_end(i) != Some(state.there[i]));
            let read = (0..2)
                .all(|i| state.checkpoint.read[i].next >= ends[i] && state.late_next[i] >= ends[i]);
            if !more && read && state.w >= closed {
                return None;
            }
            if more {
                let from = |i: usize| match old_end(i).filter(|_| self.has(Rule::FloorsAtEnd)) {
                    Some(end) => end,
                    None => state.checkpoint.read[i].next,
                };
                let splits =
                    [0, 1].map(|i| (name(i), u64::from(from(i)), Some(u64::from(state.there[i]))));
                new = reopening(real(closed), &splits).iter().map(SmallFact::of).collect();
                if !self.has(Rule::Floors) {
                    new.retain(|fact| !matches!(fact, SmallFact::Floor(..)));
                }
                if !self.has(Rule::FloorsFirst) {
                    new.sort_by_key(|fact| !matches!(fact, SmallFact::Reopened(_)));
                }
            } else {
                // It was interrupted between closing and the end.
                keep_open = false;
            }
        } else {
            for (i, end) in ends.iter_mut().enumerate() {
                match old_end(i).filter(|_| !known.end_reached && self.has(Rule::Ends)) {
                    Some(old) => {
                        *end = old;
                        if keep_open && self.has(Rule::FloorsOfOtherRuns) {
                            let floor = state.checkpoint.watermark.max(state.w);
                            new.push(SmallFact::Floor(i, old, floor));
                        }
                    }
                    None => new.push(SmallFact::End(i, *end)),
                }
            }
        }
        let Checkpoint { mut read, open, mut undelivered, fired, late, .. } =
            state.checkpoint.clone();
        for (w, value) in undelivered.iter_mut().enumerate() {
            if fire_time(w) <= state.w {
                *value = 0;
            }
        }
        let all: Vec<_> = state.facts.iter().chain(&new).copied().collect();
        let floors = facts(&all).floors;
        for (i, at) in read.iter_mut().enumerate() {
            let in_force = floors.get(&name(i)).into_iter().flatten();
            let in_force = in_force.filter(|(from, _)| *from <= u64::from(at.next));
            at.floor = in_force.map(|(_, floor)| small(*floor)).fold(at.floor, i8::max);
        }
        let (watermark, ending) = (LOW, false);
        let run = Run { keep_open, ends, read, watermark, open, undelivered, fired, late, ending };
        Some((new, run))
    }

    /// `read`: the split that was just read from, which has not ended before this counts.
    fn advance(&self, run: &mut Run, w: i8, read: Option<usize>) {
        let ended = |i: usize| run.read[i].next >= run.ends[i] && read != Some(i);
        let own = |i: usize| small(split_time(run.read[i]).own());
        let stay = run.keep_open && self.has(Rule::StayInMinimum);
        let low = (0..2).filter(|&i| stay || !ended(i)).map(own).min();
        run.watermark = run.watermark.max(low.unwrap_or(LOW));
        fire(run, w);
    }

    fn read(&self, state: &State, i: usize) -> State {
        let mut next = state.clone();
        let Some(run) = &mut next.run else { return next };
        let at = run.read[i];
        let time = self.splits[i][at.next as usize];
        let mut split = split_time(at);
        for &(from, floor) in facts(&state.facts).floors.get(&name(i)).into_iter().flatten() {
            if from <= u64::from(at.next) {
                split.set_floor(floor);
            }
        }
        let panes = Panes::new(&Tumbling::of(micros(4))).unwrap();
        let mark = split.accept(real(time));
        if time >= self.filtered_from {
            // Neither counted nor late.
        } else if mark.is_some_and(|mark| panes.lateness(real(time), mark) != Lateness::OnTime) {
            run.late[i] |= 1 << at.next;
        } else {
            let window = (panes.last_end(i64::from(time)) as i8 / SIZE - 1) as usize;
            if fire_time(window) <= run.fired && self.without.is_none() {
                next.fault = Some("a record came for a window that had fired");
            }
            run.open[window] += 1;
        }
        run.read[i] = At {
            next: at.next + 1,
            high: split.high().map_or(LOW, small),
            floor: split.floor().map_or(LOW, small),
        };
        self.advance(run, state.w, Some(i));
        next
    }
}

fn fire_time(window: usize) -> i8 {
    SIZE * (window as i8 + 1)
}

fn split_time(at: At) -> SplitTime {
    SplitTime::new(known(at.high), known(at.floor), micros(DELAY))
}

fn fire(run: &mut Run, w: i8) {
    for window in (0..WINDOWS).filter(|&window| fire_time(window) <= run.watermark) {
        let value = std::mem::take(&mut run.open[window]);
        if value > 0 && fire_time(window) > w {
            run.undelivered[window] = value;
        }
    }
    run.fired = run.fired.max(run.watermark);
}

impl Model for Input {
    type State = State;

    fn start(&self) -> State {
        State {
            run: None,
            checkpoint: Checkpoint {
                read: [At { next: 0, high: LOW, floor: LOW }; 2],
                open: [0; WINDOWS],
                undelivered: [0; WINDOWS],
                fired: LOW,
                watermark: LOW,
                late: [0; 2],
            },
            facts: vec![],
            rows: [0; WINDOWS],
            finals: [false; WINDOWS],
            w: LOW,
            late: [0; 2],
            late_next: [0; 2],
            there: self.first,
            crashes: self.crashes,
            kept_open: 2,
            fault: None,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        let Some(run) = &state.run else {
            let all = [0, 1].map(|i| self.splits[i].len() as u8);
            if state.there != all {
                steps.push(("more input", 0, State { there: all, ..state.clone() }));
            }
            for keep_open in [false, true] {
                let Some((facts, run)) = self.start_run(state, keep_open) else { continue };
                if keep_open && state.kept_open == 0 {
                    continue;
                }
                let mut next = state.clone();
                for (n, fact) in facts.into_iter().enumerate() {
                    if state.crashes > 0 && n > 0 {
                        let crashes = state.crashes - 1;
                        steps.push(("start and crash", n, State { crashes, ..next.clone() }));
                    }
                    next.facts.push(fact);
                }
                next.run = Some(run);
                next.kept_open -= u8::from(keep_open);
                if let Some(run) = &mut next.run {
                    self.advance(run, state.w, None);
                }
                steps.push((if keep_open { "start, keep open" } else { "start" }, 0, next));
            }
            return;
        };
        if !run.ending {
            for i in (0..2).filter(|&i| run.read[i].next < run.ends[i]) {
                steps.push(("read", i, self.read(state, i)));
            }
        }
        let all_read = (0..2).all(|i| run.read[i].next >= run.ends[i]);
        let pending = (0..WINDOWS).rev().find(|&window| run.open[window] > 0).map(fire_time);
        let closed = facts(&state.facts).closed.map(small);
        let checkpoint = Checkpoint {
            read: run.read,
            open: run.open,
            undelivered: run.undelivered,
            fired: run.fired,
            watermark: run.watermark,
            late: run.late,
        };
        if all_read && !run.ending {
            let mut next = state.clone();
            let now = next.run.as_mut().unwrap();
            let fired = (0..WINDOWS).rev().find(|&window| run.undelivered[window] > 0);
            let fired = fired.map(fire_time).filter(|fire_time| *fire_time > run.watermark);
            let pending = pending.max(fired.filter(|_| self.has(Rule::Undelivered)));
            let at = closes_at(pending.map(real), closed.map(real), real(run.watermark));
            match at.map(small).filter(|_| !run.keep_open) {
                None => {
                    now.ending = true;
                    if closed.is_none() && !run.keep_open {
                        next.facts.push(SmallFact::Closed(run.watermark));
                    }
                    next.facts.push(SmallFact::EndReached);
                    next.checkpoint = checkpoint.clone();
                    steps.push(("last checkpoint", 0, next));
                }
                Some(c) => {
                    now.watermark = c;
                    fire(now, state.w);
                    if closed.is_none_or(|closed| c > closed) && self.has(Rule::ClosedFirst) {
                        next.facts.push(SmallFact::Closed(c));
                    }
                    steps.push(("close", 0, next));
                }
            }
        }
        if !run.ending && state.checkpoint != checkpoint {
            steps.push(("checkpoint", 0, State { checkpoint, ..state.clone() }));
        }
        let mut next = state.clone();
        let now = next.run.as_mut().unwrap();
        let mut delivered = run.watermark <= state.w;
        if run.watermark > state.w {
            for window in (0..WINDOWS).filter(|&window| fire_time(window) <= run.watermark) {
                let value = std::mem::take(&mut now.undelivered[window]);
                if value > 0 {
                    if next.finals[window] {
                        next.fault = Some("a final row was written twice");
                    }
                    next.rows[window] = value;
                    next.finals[window] = true;
                }
            }
            next.w = run.watermark;
            steps.push(("deliver", 0, next));
        }
        for i in 0..2 {
            if run.read[i].next > state.late_next[i] {
                let mut next = state.clone();
                let now = next.run.as_mut().unwrap();
                let known = (1 << state.late_next[i]) - 1;
                next.late[i] |= std::mem::take(&mut now.late[i]) & !known;
                next.late_next[i] = run.read[i].next;
                steps.push(("late", i, next));
                delivered = false;
            }
        }
        if run.ending && delivered {
            steps.push(("exit", 0, State { run: None, ..state.clone() }));
        }
        if state.crashes > 0 {
            let crashes = state.crashes - 1;
            steps.push(("crash", 0, State { run: None, crashes, ..state.clone() }));
        }
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        if state.fault.is_some() || !self.is_end(state) {
            return state.fault;
        }
        let counted: u32 = state.rows.iter().map(|&n| u32::from(n)).sum();
        let late: u32 = state.late.iter().map(|bits| bits.count_ones()).sum();
        let wanted = self.splits.iter().flat_map(|split| split.iter());
        let wanted = wanted.filter(|time| **time < self.filtered_from).count();
        (counted + late != wanted as u32).then_some("records read are not records counted and late")
    }

    fn is_end(&self, state: &State) -> bool {
        let all = (0..2).all(|i| usize::from(state.there[i]) == self.splits[i].len());
        state.run.is_none() && all && self.start_run(state, false).is_none()
    }
}

fn models() -> [Input; 4] {
    let model = |splits, first| {
        let crashes = if large() { 2 } else { 1 };
        Input { splits, first, crashes, filtered_from: HIGH, without: None }
    };
    [
        model([&[1, 9, 2], &[2, 3]], [2, 1]),
        model([&[9, 10], &[2, 3, 9]], [2, 1]),
        model([&[5, 6], &[1, 10, 2]], [1, 2]),
        Input { filtered_from: 9, ..model([&[1, 9], &[2]], [2, 1]) },
    ]
}

#[test]
fn d10_ends_closing_and_reopening_lose_nothing() {
    for (n, model) in models().into_iter().enumerate() {
        holds(&format!("end of input, {n}"), &model);
    }
}

#[test]
fn d10_every_rule_of_ends_is_needed() {
    use Rule::*;
    for rule in [
        Ends,
        ClosedFirst,
        Floors,
        FloorsAtEnd,
        FloorsFirst,
        StayInMinimum,
        FloorsOfOtherRuns,
        Undelivered,
    ] {
        // The last is the smallest.
        let models = models().into_iter().rev();
        is_caught(&format!("{rule:?}"), models.map(|m| Input { without: Some(rule), ..m }));
    }
}
