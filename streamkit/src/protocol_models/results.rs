//! Results that leave at once, and restarts at the checkpoint: T2–T6, D1–D4.
//!
//! Two splits, aggregates over windows, a table behind each, the late records of all of them in one
//! output, a checkpoint log. Final rows leave with their watermark, whatever the checkpoint. What is
//! late is judged by the library's own [`SplitTime`] and [`Panes`].

use super::{HIGH, LOW, Model, Steps, holds, is_caught, known, large, real, small};
use crate::time::{SplitTime, micros};
use crate::window::{Lateness, Panes, Sliding, Tumbling};

/// Windows of an aggregate; they end at 4, 8, 12, …
const WINDOWS: usize = 4;
const SIZE: i8 = 4;
const DELAY: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// T2: lateness is judged by the record's own split, not by the job's watermark.
    Mark,
    /// D4: results that are not delivered are part of the checkpoint.
    Undelivered,
    /// D3: after a restart, results up to the table's W are dropped.
    Drop,
    /// D1: what is not in the data is durable before anything decided by it leaves.
    OutputCommit,
    /// T9: a floor is not below what the tables have.
    Floor,
    /// T9: not below what *any* table has.
    EveryTable,
    /// D3: running values are withheld until everything that earlier ones held is in again.
    CaughtUp,
    /// T5, D2: a table notes the watermark of the firing step, not the job's.
    StepWatermark,
    /// T6: a window that takes late records is final only after that time.
    FinalAfterLateness,
    /// T4: a record that is late for some windows only is not seen by those.
    Exceptions,
    /// T3: each aggregate judges by its own windows.
    OwnVerdict,
}

#[derive(Clone)]
struct Results<const A: usize> {
    splits: [&'static [i8]; 2],
    aggregates: [Panes; A],
    crashes: u8,
    /// How often a split becomes idle. Otherwise records are all there from the start.
    idles: u8,
    running: bool,
    /// One window at a time fires, and anything may happen in between.
    step_by_step: bool,
    without: Option<Rule>,
}

fn tumbling() -> Panes {
    Panes::new(&Tumbling::of(micros(4))).unwrap()
}

fn sliding() -> Panes {
    Panes::new(&Sliding::of(micros(8), micros(4))).unwrap()
}

type PerWindow = [u8; WINDOWS];

/// What a crash takes; a checkpoint is a copy of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Job<const A: usize> {
    next: [u8; 2],
    high: [i8; 2],
    floor: [i8; 2],
    idle: [bool; 2],
    ended: [bool; 2],
    watermark: i8,
    /// What has been passed on to the tables: behind `watermark` while windows fire.
    passed: i8,
    open: [PerWindow; A],
    undelivered: [PerWindow; A],
    /// There is a decision that is not in the data and not durable.
    undurable: bool,
    /// What the tables are known to have.
    has: [i8; A],
    late: [[u8; 2]; A],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State<const A: usize> {
    job: Job<A>,
    checkpoint: Job<A>,
    rows: [PerWindow; A],
    w: [i8; A],
    /// Which rows are final.
    finals: [[bool; WINDOWS]; A],
    noted: [u8; 2],
    /// The late output: records of each split, as bits, and how far it has got.
    late: [[u8; 2]; A],
    late_next: [u8; 2],
    there: [u8; 2],
    crashes: u8,
    idles: u8,
    fault: Option<&'static str>,
}

impl<const A: usize> Results<A> {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn split_time(job: &Job<A>, i: usize) -> SplitTime {
        SplitTime::new(known(job.high[i]), known(job.floor[i]), micros(DELAY))
    }

    fn advance(&self, job: &mut Job<A>) {
        let own = |i: usize| match job.ended[i] {
            true => HIGH,
            false => small(Self::split_time(job, i).own()),
        };
        let low = (0..2).filter(|&i| !job.idle[i]).map(own).min();
        job.watermark = job.watermark.max(low.unwrap_or(LOW));
        if !self.step_by_step {
            while self.fire_next(job) {}
        }
    }

    fn fire_time(&self, aggregate: usize, window: usize) -> i8 {
        let end = i64::from(SIZE) * (window as i64 + 1);
        if self.has(Rule::FinalAfterLateness) {
            small(self.aggregates[aggregate].fire_time(end))
        } else {
            end as i8
        }
    }

    /// T5: one firing step, the lowest fire time first. False if all have fired.
    fn fire_next(&self, job: &mut Job<A>) -> bool {
        if job.passed == job.watermark {
            return false;
        }
        let due = (0..A).flat_map(|a| (0..WINDOWS).map(move |w| (a, w)));
        let due = due.filter(|&(a, w)| job.open[a][w] > 0);
        let due = due.map(|(a, w)| (self.fire_time(a, w), a, w));
        let Some((fire_time, ..)) = due.clone().filter(|(f, ..)| *f <= job.watermark).min() else {
            job.passed = job.watermark;
            return true;
        };
        let now: Vec<_> = due.filter(|(f, ..)| *f == fire_time).collect();
        for (_, a, w) in now {
            let value = std::mem::take(&mut job.open[a][w]);
            if fire_time > job.has[a] || !self.has(Rule::Drop) {
                job.undelivered[a][w] = value;
            }
        }
        job.passed = fire_time;
        true
    }

    fn read(&self, state: &State<A>, i: usize) -> State<A> {
        let mut next = state.clone();
        let job = &mut next.job;
        let time = self.splits[i][job.next[i] as usize];
        let mut split = Self::split_time(job, i);
        if job.idle[i] {
            let tables = match (self.has(Rule::Floor), self.has(Rule::EveryTable)) {
                (true, true) => job.has.iter().copied().max().unwrap_or(LOW),
                (true, false) => job.has[0],
                (false, _) => LOW,
            };
            split.set_floor(real(job.watermark.max(tables)));
            job.idle[i] = false;
            job.undurable = true;
        }
        let mut mark = split.accept(real(time));
        if !self.has(Rule::Mark) {
            mark = (time < job.watermark).then(|| real(job.watermark));
        }
        let bit = 1 << job.next[i];
        let mut first_verdict = None;
        for (a, panes) in self.aggregates.iter().enumerate() {
            let own = mark.map_or(Lateness::OnTime, |mark| panes.lateness(real(time), mark));
            let first = *first_verdict.get_or_insert(own);
            let verdict = if self.has(Rule::OwnVerdict) { own } else { first };
            let from = match verdict {
                Lateness::OnTime => LOW,
                Lateness::From(_) if !self.has(Rule::Exceptions) => job.watermark + 1,
                Lateness::From(end) => small(end),
                Lateness::Late => {
                    job.late[a][i] |= bit;
                    continue;
                }
            };
            for end in panes.ends(i64::from(time)).map(|end| end as i8).filter(|end| *end >= from) {
                let window = (end / SIZE - 1) as usize;
                if self.fire_time(a, window) <= job.watermark && self.without.is_none() {
                    next.fault = Some("a record came for a window that had fired");
                }
                job.open[a][window] += 1;
            }
        }
        job.next[i] += 1;
        job.high[i] = split.high().map_or(LOW, small);
        job.floor[i] = split.floor().map_or(LOW, small);
        self.advance(job);
        next
    }

    /// One transaction of a table: its rows and its W.
    fn deliver(&self, state: &State<A>, a: usize) -> State<A> {
        let mut next = state.clone();
        for w in 0..WINDOWS {
            let value = std::mem::take(&mut next.job.undelivered[a][w]);
            if value > 0 {
                if next.finals[a][w] {
                    next.fault = Some("a final row was written twice");
                }
                next.rows[a][w] = value;
                next.finals[a][w] = true;
            }
        }
        let w = match self.has(Rule::StepWatermark) {
            true => next.job.passed,
            false => next.job.watermark,
        };
        next.w[a] = w;
        next.job.has[a] = w;
        next
    }

    fn tick(&self, state: &State<A>) -> State<A> {
        let mut next = state.clone();
        for a in 0..A {
            for w in 0..WINDOWS {
                let value = next.job.open[a][w];
                if value > 0 && (self.fire_time(a, w) > next.job.has[a] || !self.has(Rule::Drop)) {
                    if next.finals[a][w] {
                        next.fault = Some("a final row was overwritten by a running value");
                    }
                    next.rows[a][w] = value;
                }
            }
        }
        next.noted = next.job.next;
        next
    }

    fn crash(&self, state: &State<A>) -> State<A> {
        let mut next = state.clone();
        next.crashes -= 1;
        next.job = state.checkpoint.clone();
        for a in 0..A {
            next.job.has[a] = if self.has(Rule::Drop) { state.w[a] } else { LOW };
            for w in 0..WINDOWS {
                if self.fire_time(a, w) <= next.job.has[a] {
                    next.job.undelivered[a][w] = 0;
                }
            }
        }
        next
    }

    /// Records that the late output has not got yet, of those that were late.
    fn not_there(state: &State<A>, a: usize, i: usize) -> u8 {
        state.job.late[a][i] & !((1 << state.late_next[i]) - 1)
    }

    /// What a batch computation over all records finds: rows and late records.
    fn batch(&self) -> ([PerWindow; A], [[u8; 2]; A]) {
        let (mut rows, mut late) = ([[0; WINDOWS]; A], [[0; 2]; A]);
        for (a, panes) in self.aggregates.iter().enumerate() {
            let lateness = if panes.allows_lateness() { LATENESS } else { 0 };
            for (i, split) in self.splits.iter().enumerate() {
                let mut own = LOW;
                for (k, &time) in split.iter().enumerate() {
                    let ends = panes.ends(i64::from(time)).map(|end| end as i8);
                    let open: Vec<i8> = ends.filter(|end| end + lateness > own).collect();
                    open.iter().for_each(|end| rows[a][(end / SIZE - 1) as usize] += 1);
                    late[a][i] |= u8::from(open.is_empty()) << k;
                    own = own.max(time - DELAY as i8);
                }
            }
        }
        (rows, late)
    }
}

const LATENESS: i8 = 2;

impl<const A: usize> Model for Results<A> {
    type State = State<A>;

    fn start(&self) -> State<A> {
        let job = Job {
            next: [0; 2],
            high: [LOW; 2],
            floor: [LOW; 2],
            idle: [false; 2],
            ended: [false; 2],
            watermark: LOW,
            passed: LOW,
            open: [[0; WINDOWS]; A],
            undelivered: [[0; WINDOWS]; A],
            undurable: false,
            has: [LOW; A],
            late: [[0; 2]; A],
        };
        let all = self.splits.map(|split| split.len() as u8);
        State {
            checkpoint: job.clone(),
            job,
            rows: [[0; WINDOWS]; A],
            w: [LOW; A],
            finals: [[false; WINDOWS]; A],
            noted: [0; 2],
            late: [[0; 2]; A],
            late_next: [0; 2],
            there: if self.idles > 0 { [0; 2] } else { all },
            crashes: self.crashes,
            idles: self.idles,
            fault: None,
        }
    }

    fn steps(&self, state: &State<A>, steps: &mut Steps<State<A>>) {
        let job = &state.job;
        for (i, split) in self.splits.iter().enumerate() {
            let (read, there, all) = (job.next[i], state.there[i], split.len() as u8);
            if there < all {
                let mut next = state.clone();
                next.there[i] += 1;
                steps.push(("append", i, next));
            }
            if read < there {
                steps.push(("read", i, self.read(state, i)));
            } else if read == all && !job.ended[i] {
                let mut next = state.clone();
                next.job.ended[i] = true;
                next.job.idle[i] = false;
                self.advance(&mut next.job);
                steps.push(("end", i, next));
            } else if state.idles > 0 && !job.ended[i] && !job.idle.contains(&true) {
                let mut next = state.clone();
                next.idles -= 1;
                next.job.idle[i] = true;
                next.job.undurable = true;
                self.advance(&mut next.job);
                steps.push(("idle", i, next));
            }
        }
        if self.step_by_step {
            let mut next = state.clone();
            if self.fire_next(&mut next.job) {
                steps.push(("fire", 0, next));
            }
        }
        let mut next = state.clone();
        next.job.undurable = false;
        next.checkpoint = next.job.clone();
        if !self.has(Rule::Undelivered) {
            next.checkpoint.undelivered = [[0; WINDOWS]; A];
        }
        if next != *state {
            steps.push(("checkpoint", 0, next));
        }
        let may_leave = !job.undurable || !self.has(Rule::OutputCommit);
        if may_leave {
            let reached = if self.has(Rule::StepWatermark) { job.passed } else { job.watermark };
            for a in (0..A).filter(|&a| reached > job.has[a]) {
                steps.push(("deliver", a, self.deliver(state, a)));
            }
            let caught_up = (0..2).all(|i| job.next[i] >= state.noted[i]);
            if self.running && (caught_up || !self.has(Rule::CaughtUp)) {
                let next = self.tick(state);
                if next != *state {
                    steps.push(("tick", 0, next));
                }
            }
            let is_ahead = (0..2).all(|i| job.next[i] >= state.late_next[i]);
            if is_ahead && job.next != state.late_next {
                let mut next = state.clone();
                for a in 0..A {
                    for i in 0..2 {
                        let new = Self::not_there(state, a, i);
                        if next.late[a][i] & new > 0 {
                            next.fault = Some("a late record was written twice");
                        }
                        next.late[a][i] |= new;
                    }
                }
                next.job.late = [[0; 2]; A];
                next.late_next = job.next;
                steps.push(("late", 0, next));
            }
        }
        if state.crashes > 0 {
            steps.push(("crash", 0, self.crash(state)));
        }
    }

    fn wrong(&self, state: &State<A>) -> Option<&'static str> {
        if state.fault.is_some() || !self.is_end(state) {
            return state.fault;
        }
        let (rows, late) = self.batch();
        if self.idles == 0 && (state.rows != rows || state.late != late) {
            return Some("the tables or the late records are not those of the batch");
        }
        let read: usize = self.splits.iter().map(|split| split.len()).sum();
        for a in (0..A).filter(|&a| self.aggregates[a].is_tumbling()) {
            let counted: u8 = state.rows[a].iter().sum();
            let late: u32 = state.late[a].iter().map(|bits| bits.count_ones()).sum();
            if u32::from(counted) + late != read as u32 {
                return Some("records read are not records counted and late");
            }
        }
        None
    }

    fn wrong_step(&self, before: &State<A>, after: &State<A>) -> Option<&'static str> {
        let (before, after) = (before.rows.as_flattened(), after.rows.as_flattened());
        let sinks = before.iter().zip(after).any(|(before, after)| before > after);
        (self.running && sinks).then_some("a value went down")
    }

    fn is_end(&self, state: &State<A>) -> bool {
        let job = &state.job;
        job.ended == [true; 2]
            && job.passed == HIGH
            && state.w == [HIGH; A]
            && job.undelivered.as_flattened().iter().all(|value| *value == 0)
            && state.late_next == job.next
    }
}

/// The base of all: nothing but reading, with two crashes.
fn straight<const A: usize>(aggregates: [Panes; A]) -> Results<A> {
    Results {
        splits: [&[1, 6, 2, 9], &[2, 3, 7]],
        aggregates,
        crashes: if large() { 3 } else { 2 },
        idles: 0,
        running: false,
        step_by_step: false,
        without: None,
    }
}

fn idle<const A: usize>(aggregates: [Panes; A]) -> Results<A> {
    let splits: [&[i8]; 2] = [&[1, 6, 9], &[2, 3]];
    let crashes = if large() { 2 } else { 1 };
    Results { splits, idles: 1, crashes, ..straight(aggregates) }
}

fn running<const A: usize>(aggregates: [Panes; A]) -> Results<A> {
    let splits: [&[i8]; 2] = [&[1, 2, 6], &[2, 5]];
    let crashes = if large() { 2 } else { 1 };
    Results { splits, running: true, crashes, ..straight(aggregates) }
}

fn two_aggregates() -> Results<2> {
    let splits: [&[i8]; 2] = [&[1, 6, 2], &[2, 7]];
    let crashes = if large() { 2 } else { 1 };
    Results { splits, crashes, ..straight([tumbling(), sliding()]) }
}

/// Records that are late for the first of their windows only.
fn partly_late() -> Results<1> {
    Results { splits: [&[5, 9, 7], &[2, 6]], ..straight([sliding()]) }
}

fn allowed_lateness(running: bool) -> Results<1> {
    let panes = Tumbling::of(micros(4)).allowed_lateness(micros(LATENESS as u64));
    // Running values multiply the states.
    let all: [&[i8]; 2] = [&[1, 6, 2, 8, 3], &[2, 5]];
    let few: [&[i8]; 2] = [&[1, 6, 3], &[2]];
    let splits = if running && !large() { few } else { all };
    let crashes = if large() { 2 } else { 1 };
    Results { splits, running, crashes, ..straight([Panes::new(&panes).unwrap()]) }
}

fn step_by_step() -> Results<1> {
    let splits: [&[i8]; 2] = [&[1, 6, 2], &[2, 9]];
    let crashes = if large() { 2 } else { 1 };
    Results { splits, step_by_step: true, crashes, ..straight([tumbling()]) }
}

#[test]
fn d3_d4_results_that_leave_at_once_are_those_of_the_batch() {
    holds("results, straight", &straight([tumbling()]));
    holds("results, idle splits", &idle([tumbling()]));
    let splits: [&[i8]; 2] = [&[1, 9], &[2, 3]];
    let twice = Results { splits, idles: 2, ..idle([tumbling()]) };
    holds("results, idle twice", &twice);
}

#[test]
fn d3_running_values_never_go_down() {
    holds("results, running values", &running([tumbling()]));
}

#[test]
fn t3_t4_two_aggregates_judge_each_record_by_their_own_windows() {
    holds("results, two aggregates", &two_aggregates());
    holds("results, late for some windows", &partly_late());
    let splits: [&[i8]; 2] = [&[1, 9], &[2]];
    let two_tables = Results { splits, ..idle([tumbling(), tumbling()]) };
    holds("results, two tables and idle splits", &two_tables);
}

#[test]
fn t5_a_checkpoint_between_two_firing_steps_is_safe() {
    holds("results, step by step", &step_by_step());
}

#[test]
fn t6_a_window_that_takes_late_records_is_final_when_it_says_so() {
    holds("results, allowed lateness", &allowed_lateness(false));
    holds("results, allowed lateness and running values", &allowed_lateness(true));
}

/// The model in which the rule matters; with two aggregates if it takes two.
fn without(rule: Rule) {
    let caught = |model: Results<1>| {
        is_caught(&format!("{rule:?}"), [Results { without: Some(rule), ..model }]);
    };
    let caught_by_two = |model: Results<2>| {
        is_caught(&format!("{rule:?}"), [Results { without: Some(rule), ..model }]);
    };
    match rule {
        Rule::Mark | Rule::Undelivered => caught(straight([tumbling()])),
        Rule::Drop | Rule::OutputCommit | Rule::Floor => caught(idle([tumbling()])),
        Rule::EveryTable => {
            let splits: [&[i8]; 2] = [&[1, 9], &[2, 3]];
            caught_by_two(Results { splits, ..idle([tumbling(), tumbling()]) });
        }
        Rule::CaughtUp => caught(running([tumbling()])),
        Rule::StepWatermark => caught(step_by_step()),
        Rule::FinalAfterLateness => caught(allowed_lateness(false)),
        Rule::Exceptions => caught(partly_late()),
        Rule::OwnVerdict => caught_by_two(two_aggregates()),
    }
}

#[test]
fn every_rule_of_results_is_needed() {
    use Rule::*;
    for rule in [
        Mark,
        Undelivered,
        Drop,
        OutputCommit,
        Floor,
        EveryTable,
        CaughtUp,
        StepWatermark,
        FinalAfterLateness,
        Exceptions,
        OwnVerdict,
    ] {
        without(rule);
    }
}
