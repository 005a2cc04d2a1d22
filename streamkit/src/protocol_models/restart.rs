//! Restarts below the checkpoint, and of a table that was restored from a backup: T1, T2, T9, D1,
//! D3, D5, D7.
//!
//! Two splits that may become idle, one tumbling window, a table behind it, and a late output with
//! positions of its own. There is one reader for each split, which begins at the lower of the
//! checkpoint and the late output; so for a while it is behind the state. Which checkpoint a restart
//! takes, what the facts say and where a split is read from is decided by the library's own
//! functions.

use std::collections::BTreeMap;

use super::{HIGH, LOW, Model, Steps, holds, is_caught, known, large, real, small};
use crate::checkpoint::protocol::{Choice, choose};
use crate::checkpoint::{FORMAT, Fact, Manifest, SplitEntry, Totals};
use crate::connector::{Point, Progress};
use crate::record::{Split, SplitId};
use crate::runtime::recovery::{Facts, SplitFacts, confirmed, fits, plan_split, still_needed};
use crate::time::{SplitTime, micros};
use crate::window::{Lateness, Panes, Tumbling};

const WINDOWS: usize = 3;
const SIZE: i8 = 4;
const DELAY: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// T9: a floor holds from a position on, not for the whole replay.
    From,
    /// D3: keyed state ignores records below its position.
    Skip,
    /// D3: finals up to the table's W are dropped.
    Drop,
    /// T1: the late output's position carries the highest event time before it.
    High,
    /// D1: facts are durable before anything decided by them leaves.
    OutputCommit,
    /// T9: a floor is not below the table's W.
    Floor,
    /// T9: nor below what the restored state has fired.
    FloorOfState,
    /// D5: a checkpoint is where the state is, though the reader is behind it.
    AtState,
    /// T9: and its watermark is not below what the state has fired.
    WatermarkOfState,
    /// D7: a checkpoint is taken only if the table has what it left out.
    Fits,
    /// D7: the facts are those of the newest checkpoint, whichever is taken.
    NewestFacts,
}

#[derive(Clone)]
struct Restart {
    splits: [&'static [i8]; 2],
    crashes: u8,
    idles: u8,
    /// How often the table is restored from a backup.
    restores: u8,
    /// Checkpoints that are kept, the first one (of nothing) included.
    keep: usize,
    without: Option<Rule>,
}

type PerWindow = [u8; WINDOWS];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct At {
    next: u8,
    high: i8,
    floor: i8,
}

const ZERO: At = At { next: 0, high: LOW, floor: LOW };

impl At {
    fn real(self) -> crate::record::Position {
        crate::record::Position {
            next: u64::from(self.next),
            high: known(self.high),
            floor: known(self.floor),
            ..Default::default()
        }
    }

    fn of(position: crate::record::Position) -> Self {
        let small = |time: Option<_>| time.map_or(LOW, small);
        Self { next: position.next as u8, high: small(position.high), floor: small(position.floor) }
    }
}

/// Split, position, and the floor; without one it is an idleness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SmallFact(u8, u8, Option<i8>);

impl SmallFact {
    fn real(self) -> Fact {
        let Self(split, at, floor) = self;
        let (split, at) = (name(usize::from(split)), u64::from(at));
        match floor {
            None => Fact::Idle { split, at },
            Some(floor) => Fact::Floor { split, from: at, floor: real(floor) },
        }
    }
}

fn name(split: usize) -> SplitId {
    SplitId::new(["a", "b"][split])
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Checkpoint {
    at: [At; 2],
    open: PerWindow,
    undelivered: PerWindow,
    fired: i8,
    watermark: i8,
    confirmed: Option<i8>,
    facts: Vec<SmallFact>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Table {
    rows: PerWindow,
    finals: [bool; WINDOWS],
    w: i8,
}

/// What a crash takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Job {
    read: [At; 2],
    /// Where the restored state was.
    restored: [At; 2],
    restored_watermark: i8,
    idle: [bool; 2],
    /// It was idle here before the restart.
    idle_at: [Option<u8>; 2],
    watermark: i8,
    open: PerWindow,
    undelivered: PerWindow,
    fired: i8,
    /// What the table has.
    has: i8,
    facts: Vec<SmallFact>,
    late: [u8; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    job: Job,
    kept: Vec<Checkpoint>,
    facts: Vec<SmallFact>,
    table: Table,
    backup: Option<Table>,
    late: [u8; 2],
    late_at: [At; 2],
    there: [u8; 2],
    crashes: u8,
    idles: u8,
    restores: u8,
    fault: Option<&'static str>,
}

impl Restart {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn panes() -> Panes {
        Panes::new(&Tumbling::of(micros(4))).unwrap()
    }

    fn own(at: At) -> i8 {
        small(SplitTime::new(known(at.high), known(at.floor), micros(DELAY)).own())
    }

    /// As the tracker does it.
    fn advance(&self, job: &mut Job) {
        for i in 0..2 {
            if job.idle_at[i].is_some_and(|at| job.read[i].next >= at) {
                job.idle[i] = true;
                job.idle_at[i] = None;
            }
        }
        let low = (0..2).filter(|&i| !job.idle[i]).map(|i| Self::own(job.read[i])).min();
        job.watermark = job.watermark.max(low.unwrap_or(LOW));
        self.fire(job);
    }

    fn fire(&self, job: &mut Job) {
        for w in 0..WINDOWS {
            let fire_time = SIZE * (w as i8 + 1);
            if fire_time <= job.watermark && job.open[w] > 0 {
                job.undelivered[w] = std::mem::take(&mut job.open[w]);
                if fire_time <= job.has && self.has(Rule::Drop) {
                    job.undelivered[w] = 0;
                }
            }
        }
        job.fired = job.fired.max(job.watermark);
    }

    /// A fact: durable at once, unless that rule is off; then with the next checkpoint.
    fn fact(&self, state: &mut State, fact: SmallFact) {
        state.job.facts.push(fact);
        if self.has(Rule::OutputCommit) {
            state.facts.push(fact);
        }
    }

    fn read(&self, state: &State, i: usize) -> State {
        let mut next = state.clone();
        let at = state.job.read[i];
        let time = self.splits[i][at.next as usize];
        let mut split = SplitTime::new(known(at.high), known(at.floor), micros(DELAY));
        if state.job.idle[i] {
            let job = &state.job;
            let table = if self.has(Rule::Floor) { job.has } else { LOW };
            let restored = if self.has(Rule::FloorOfState) { job.restored_watermark } else { LOW };
            let floor = job.watermark.max(table).max(restored);
            next.job.idle[i] = false;
            self.fact(&mut next, SmallFact(i as u8, at.next, Some(floor)));
        }
        let job = &mut next.job;
        for &SmallFact(of, from, floor) in &job.facts {
            if let Some(floor) = floor
                && usize::from(of) == i
                && (from <= at.next || !self.has(Rule::From))
            {
                split.set_floor(real(floor));
            }
        }
        let mark = split.accept(real(time));
        let late =
            mark.is_some_and(|mark| Self::panes().lateness(real(time), mark) != Lateness::OnTime);
        if late && at.next >= state.late_at[i].next {
            job.late[i] |= 1 << at.next;
        }
        if !late && (at.next >= job.restored[i].next || !self.has(Rule::Skip)) {
            let window = (Self::panes().last_end(i64::from(time)) as i8 / SIZE - 1) as usize;
            if SIZE * (window as i8 + 1) <= job.fired && self.without.is_none() {
                next.fault = Some("a record came for a window that had fired");
            }
            job.open[window] += 1;
        }
        job.read[i] = At {
            next: at.next + 1,
            high: split.high().map_or(LOW, small),
            floor: split.floor().map_or(LOW, small),
        };
        self.advance(job);
        next
    }

    fn checkpoint(&self, state: &State) -> Checkpoint {
        let job = &state.job;
        let at = [0, 1].map(|i| {
            let (read, restored) = (job.read[i], job.restored[i]);
            if read.next < restored.next && self.has(Rule::AtState) { restored } else { read }
        });
        let restored = if self.has(Rule::WatermarkOfState) { job.restored_watermark } else { LOW };
        let real_facts: Vec<Fact> = job.facts.iter().map(|fact| fact.real()).collect();
        let needed = still_needed(&real_facts);
        let facts = job.facts.iter().filter(|fact| needed.contains(&fact.real()));
        let has = confirmed(true, state.table.w > LOW, real(job.has));
        Checkpoint {
            at,
            open: job.open,
            undelivered: job.undelivered,
            fired: job.fired,
            watermark: job.watermark.max(restored),
            confirmed: has.w.map(small),
            facts: facts.copied().collect(),
        }
    }

    /// Everything that a restart decides.
    fn restart(&self, state: &State) -> State {
        let mut next = state.clone();
        let w = state.table.w;
        let point = Point::Watermark { groups: (0, 255), w: real(w), noted: BTreeMap::new() };
        let progress = (w > LOW).then_some(Progress { point, rows: 0 });
        let recovered = BTreeMap::from([("table".to_owned(), progress)]);
        let seen = (0..).zip(&state.kept);
        let seen = seen.map(|(n, kept)| (n, Some(manifest(n, kept)))).collect();
        let Choice::Take(number) = choose(&seen, |m| !self.has(Rule::Fits) || fits(m, &recovered))
        else {
            next.fault = Some("no checkpoint fits");
            return next;
        };
        let taken = &state.kept[number as usize];
        let facts = if self.has(Rule::NewestFacts) { &state.facts } else { &taken.facts };
        let all: Vec<Fact> = facts.iter().map(|fact| fact.real()).collect();
        let known = Facts::of(&all);
        let late: BTreeMap<_, _> = (0..2).map(|i| (name(i), state.late_at[i].real())).collect();
        let plan = |i: usize| {
            let split = Split::new(["a", "b"][i], "t", i as i32);
            let position = taken.at[i].real();
            let entry =
                SplitEntry { split: split.clone(), position, start: 0, totals: Totals::default() };
            let floors = known.floors.get(&split.id).cloned().unwrap_or_default();
            let sinks = vec![Some(&late)];
            let facts = SplitFacts {
                split,
                start: 0,
                entry: Some(&entry),
                sinks,
                floors,
                given_up: BTreeMap::new(),
                given_up_by: vec![],
                suspects: &[],
                end: None,
                near: u64::MAX,
            };
            let plan = plan_split(i as u32, facts);
            let mut from = plan.from;
            if !self.has(Rule::High) && from.next < position.next {
                from.high = position.high;
            }
            // As `SourceInput` opens a split.
            let mut time = SplitTime::new(from.high, from.floor, micros(DELAY));
            let floors = plan.floors.iter().filter(|(at, _)| *at <= from.next);
            floors.for_each(|(_, floor)| time.set_floor(*floor));
            from.floor = time.floor();
            (At::of(from), At::of(plan.restored))
        };
        let plans = [plan(0), plan(1)];
        let job = &mut next.job;
        job.read = plans.map(|(from, _)| from);
        job.restored = plans.map(|(_, restored)| restored);
        job.restored_watermark = taken.watermark;
        job.idle = [false; 2];
        job.idle_at = [0, 1].map(|i| known.idle.get(&name(i)).map(|at| *at as u8));
        job.watermark = LOW;
        (job.open, job.undelivered, job.fired) = (taken.open, taken.undelivered, taken.fired);
        job.has = w;
        job.late = [0; 2];
        job.facts.clone_from(facts);
        for window in 0..WINDOWS {
            if SIZE * (window as i8 + 1) <= w && self.has(Rule::Drop) {
                job.undelivered[window] = 0;
            }
        }
        self.advance(job);
        next
    }

    /// The rows whose fire time the watermark has reached, and W.
    fn deliver(&self, state: &State) -> State {
        let mut next = state.clone();
        let w = state.job.watermark;
        for window in 0..WINDOWS {
            let fire_time = SIZE * (window as i8 + 1);
            if fire_time <= w && next.job.undelivered[window] > 0 {
                if next.table.finals[window] {
                    next.fault = Some("a final row was written twice");
                }
                next.table.rows[window] = std::mem::take(&mut next.job.undelivered[window]);
                next.table.finals[window] = true;
            }
        }
        next.table.w = w;
        next.job.has = w;
        next
    }

    /// The late records, and how far the late output is: of each split by itself.
    fn write_late(&self, state: &State) -> State {
        let mut next = state.clone();
        for i in 0..2 {
            let read = state.job.read[i];
            if read.next > state.late_at[i].next {
                if next.late[i] & state.job.late[i] > 0 {
                    next.fault = Some("a late record was written twice");
                }
                next.late[i] |= state.job.late[i];
                next.late_at[i] = read;
                next.job.late[i] = 0;
            }
        }
        next
    }
}

fn manifest(number: u64, kept: &Checkpoint) -> Manifest {
    let w = kept.confirmed.map_or(LOW, |w| w);
    Manifest {
        format: FORMAT,
        job: String::new(),
        lineage: String::new(),
        number,
        base: number,
        created: real(0),
        plan: vec![],
        splits: vec![],
        idle: vec![],
        facts: vec![],
        facts_through: 0,
        watermark: real(kept.watermark),
        confirmed: BTreeMap::from([("table".to_owned(), confirmed(true, w > LOW, real(w)))]),
        counted: BTreeMap::new(),
    }
}

impl Model for Restart {
    type State = State;

    fn start(&self) -> State {
        let job = Job {
            read: [ZERO; 2],
            restored: [ZERO; 2],
            restored_watermark: LOW,
            idle: [false; 2],
            idle_at: [None; 2],
            watermark: LOW,
            open: [0; WINDOWS],
            undelivered: [0; WINDOWS],
            fired: LOW,
            has: LOW,
            facts: vec![],
            late: [0; 2],
        };
        let table = Table { rows: [0; WINDOWS], finals: [false; WINDOWS], w: LOW };
        let mut state = State {
            job,
            kept: vec![],
            facts: vec![],
            table,
            backup: None,
            late: [0; 2],
            late_at: [ZERO; 2],
            there: [0; 2],
            crashes: self.crashes,
            idles: self.idles,
            restores: self.restores,
            fault: None,
        };
        state.kept.push(self.checkpoint(&state));
        state
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        let job = &state.job;
        let mut all_read = true;
        for (i, split) in self.splits.iter().enumerate() {
            let (read, there) = (job.read[i].next, state.there[i]);
            all_read &= usize::from(read) == split.len();
            if usize::from(there) < split.len() {
                let mut next = state.clone();
                next.there[i] += 1;
                steps.push(("append", i, next));
            }
            if read < there {
                steps.push(("read", i, self.read(state, i)));
            } else if state.idles > 0 && !job.idle.contains(&true) && job.watermark < HIGH {
                let mut next = state.clone();
                next.idles -= 1;
                self.fact(&mut next, SmallFact(i as u8, read, None));
                next.job.idle[i] = true;
                next.job.idle_at[i] = None;
                self.advance(&mut next.job);
                steps.push(("idle", i, next));
            }
        }
        if all_read && job.watermark < HIGH {
            let mut next = state.clone();
            next.job.watermark = HIGH;
            self.fire(&mut next.job);
            steps.push(("close", 0, next));
        }
        let checkpoint = self.checkpoint(state);
        let undurable = state.facts != job.facts;
        if (state.kept.last() != Some(&checkpoint) || undurable)
            && (state.kept.len() < self.keep || self.restores == 0)
        {
            let mut next = state.clone();
            next.facts.clone_from(&checkpoint.facts);
            next.job.facts.clone_from(&checkpoint.facts);
            next.kept.push(checkpoint);
            if next.kept.len() > self.keep {
                next.kept.remove(0);
            }
            steps.push(("checkpoint", 0, next));
        }
        if job.watermark > job.has {
            steps.push(("deliver", 0, self.deliver(state)));
        }
        if (0..2).any(|i| job.read[i].next > state.late_at[i].next) {
            steps.push(("late", 0, self.write_late(state)));
        }
        if state.restores > 0 && state.backup.is_none() && state.table.w > LOW {
            let backup = Some(state.table);
            steps.push(("backup", 0, State { backup, ..state.clone() }));
        }
        if state.crashes > 0 {
            let mut next = self.restart(state);
            next.crashes -= 1;
            steps.push(("crash", 0, next));
        }
        if let Some(table) = state.backup.filter(|table| *table != state.table) {
            let mut next = self.restart(&State { table, ..state.clone() });
            next.restores -= 1;
            next.backup = None;
            steps.push(("restore of the table", 0, next));
        }
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        if state.fault.is_some() || !self.is_end(state) {
            return state.fault;
        }
        let counted: u32 = state.table.rows.iter().map(|&n| u32::from(n)).sum();
        let late: u32 = state.late.iter().map(|bits| bits.count_ones()).sum();
        let read: usize = self.splits.iter().map(|split| split.len()).sum();
        (counted + late != read as u32).then_some("records read are not records counted and late")
    }

    fn is_end(&self, state: &State) -> bool {
        let all = |at: &[At; 2]| (0..2).all(|i| usize::from(at[i].next) == self.splits[i].len());
        all(&state.job.read)
            && state.table.w == HIGH
            && state.job.undelivered == [0; WINDOWS]
            && all(&state.late_at)
    }
}

const A: [&[i8]; 2] = [&[1, 9], &[2, 3]];
const B: [&[i8]; 2] = [&[9], &[2, 0, 3]];
const C: [&[i8]; 2] = [&[9], &[1, 2]];
const D: [&[i8]; 2] = [&[9], &[1, 2, 2]];
const E: [&[i8]; 2] = [&[9], &[5, 0, 3]];

fn model(splits: [&'static [i8]; 2]) -> Restart {
    Restart { splits, crashes: 1, idles: 1, restores: 0, keep: 1, without: None }
}

fn restored(splits: [&'static [i8]; 2]) -> Restart {
    Restart { crashes: 0, restores: 1, keep: 3, ..model(splits) }
}

#[test]
fn d5_a_restart_below_the_checkpoint_neither_loses_nor_doubles() {
    holds("restart, idle", &model(A));
    holds("restart, late in its split", &model(B));
    holds("restart, two crashes", &Restart { crashes: 2, ..model(C) });
    holds("restart, idle twice", &Restart { idles: 2, ..model(C) });
    if large() {
        holds("restart, large", &Restart { crashes: 3, idles: 2, ..model(A) });
        holds("restart, large, late in its split", &Restart { crashes: 2, idles: 2, ..model(D) });
    }
}

#[test]
fn d7_a_table_that_was_restored_from_a_backup_gets_everything_again() {
    holds("restart, table restored", &restored(C));
    if large() {
        holds("restart, table restored, and a crash", &Restart { crashes: 1, ..restored(A) });
    }
}

#[test]
fn every_rule_of_restarts_is_needed() {
    for rule in [
        Rule::From,
        Rule::Skip,
        Rule::Drop,
        Rule::High,
        Rule::OutputCommit,
        Rule::Floor,
        Rule::FloorOfState,
        Rule::AtState,
        Rule::WatermarkOfState,
        Rule::Fits,
        Rule::NewestFacts,
    ] {
        let models = [C, A, B, E, D].into_iter().flat_map(|splits| {
            let twice = Restart { crashes: 2, ..model(splits) };
            match rule {
                Rule::Fits | Rule::NewestFacts => vec![restored(splits)],
                Rule::AtState | Rule::WatermarkOfState => vec![twice],
                _ => vec![model(splits), twice],
            }
        });
        is_caught(&format!("{rule:?}"), models.map(|m| Restart { without: Some(rule), ..m }));
    }
}
