//! Rule D8: two processes run one job, on one checkpoint log and one table.
//!
//! A process that was stopped for long, or that another one has replaced, may still be alive. It is
//! harmless if every put into the log is followed by a look for newer objects, and every transaction
//! of the table ends with a conditional update of its owner. What the log decides is decided by the
//! library's own functions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Model, Steps, holds, is_caught, large};
use crate::checkpoint::protocol::{
    AfterFailedPut, Listing, Ours, after_failed_put, is_fenced, next_number,
};

const RECORDS: u8 = 3;
/// As many checkpoints are kept, so that the numbers of old ones are free again.
const KEPT: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A put fails if the object is there.
    PutIfAbsent,
    /// After a put the log is listed, and anything newer stops the process.
    LookAfterPut,
    /// A transaction of the table ends with an update that its owner and version must hit.
    Conditional,
    /// Starting claims the table, which makes older owners harmless.
    Claim,
}

struct Processes {
    starts: u8,
    lost: u8,
    without: Option<Rule>,
}

/// What a checkpoint says: how many records its state has counted, and by which start it was made.
type Checkpoint = (u8, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    /// 0 for the first start, 1 for the second, and so on.
    start: u8,
    /// Records read, and all of them are in its state.
    next: u8,
    /// What the table has, as far as it knows.
    has: u8,
    version: u8,
    ours: u64,
    /// It has put a checkpoint and has not looked yet.
    put: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    log: BTreeMap<u64, Checkpoint>,
    /// How often each record is in the table.
    rows: [u8; RECORDS as usize],
    /// The progress row: records before this are in the table; and the owner's version.
    has: u8,
    version: u8,
    processes: [Option<Process>; 2],
    starts: u8,
    lost: u8,
}

impl Processes {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Recovery: the newest checkpoint, and the table is claimed.
    fn recovered(&self, state: &State, i: usize) -> State {
        let mut next = state.clone();
        let newest = next.log.last_key_value();
        let (number, counted) = newest.map_or((0, 0), |(&number, &(counted, _))| (number, counted));
        if self.has(Rule::Claim) {
            next.version += 1;
        }
        next.starts += 1;
        next.processes[i] = Some(Process {
            start: next.starts,
            // Rule D5: the reader begins at the lower of the two.
            next: counted.min(next.has),
            has: next.has,
            version: next.version,
            ours: number,
            put: false,
        });
        next
    }

    /// Appends a checkpoint: the put alone.
    fn put(&self, state: &State, i: usize, process: Process, steps: &mut Steps<State>) {
        let number = next_number(Some(process.ours));
        let mut next = state.clone();
        if state.log.contains_key(&number) && self.has(Rule::PutIfAbsent) {
            next.processes[i] = None;
            steps.push(("fenced by a put", i, next));
            return;
        }
        next.log.insert(number, (process.next, process.start));
        let put = self.has(Rule::LookAfterPut);
        if !put {
            collect(&mut next.log);
        }
        next.processes[i] = Some(Process { ours: number, put, ..process });
        if state.lost > 0 {
            // The reply is lost: the object may be there or not, and a look decides.
            for arrived in [false, true] {
                let mut next = if arrived { next.clone() } else { state.clone() };
                next.lost -= 1;
                next.processes[i] = match after_failed_put(Some(arrived.then_some(true))) {
                    AfterFailedPut::TryAgain => Some(process),
                    AfterFailedPut::Unknown | AfterFailedPut::Fenced => None,
                };
                steps.push(("reply of a put lost", i, next));
            }
        }
        steps.push(("put", i, next));
    }

    fn look(&self, state: &State, i: usize, process: Process) -> State {
        let mut next = state.clone();
        let checkpoints = state.log.keys().map(|&number| (number, 1)).collect();
        let listing = Listing { checkpoints, facts: BTreeSet::new() };
        let ours = Ours { checkpoint: Some(process.ours), fact: 0 };
        if is_fenced(&listing, &ours).is_some() {
            next.processes[i] = None;
        } else {
            collect(&mut next.log);
            next.processes[i] = Some(Process { put: false, ..process });
        }
        next
    }

    /// One transaction: all records that were read and are not in the table.
    fn commit(&self, state: &State, i: usize, process: Process, steps: &mut Steps<State>) {
        let mut next = state.clone();
        if process.version != state.version && self.has(Rule::Conditional) {
            next.processes[i] = None;
            steps.push(("fenced by the table", i, next));
            return;
        }
        for record in process.has..process.next {
            next.rows[record as usize] += 1;
        }
        next.has = process.next;
        next.processes[i] = Some(Process { has: process.next, ..process });
        if state.lost > 0 {
            // The outcome is not known: claim again, and see.
            for arrived in [false, true] {
                let mut next = if arrived { next.clone() } else { state.clone() };
                next.lost -= 1;
                next.processes[i] = None;
                steps.push(("reply of a commit lost", i, next));
            }
        }
        steps.push(("commit", i, next));
    }
}

/// Old checkpoints are removed.
fn collect(log: &mut BTreeMap<u64, Checkpoint>) {
    while log.len() > KEPT {
        log.pop_first();
    }
}

impl Model for Processes {
    type State = State;

    fn start(&self) -> State {
        State {
            log: BTreeMap::from([(0, (0, 0))]),
            rows: [0; RECORDS as usize],
            has: 0,
            version: 0,
            processes: [None; 2],
            starts: 0,
            lost: self.lost,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..2 {
            let Some(process) = state.processes[i] else {
                if state.starts < self.starts {
                    steps.push(("start", i, self.recovered(state, i)));
                }
                continue;
            };
            if process.put {
                // It may be stopped here for as long as it likes.
                steps.push(("look", i, self.look(state, i, process)));
                continue;
            }
            if process.next < RECORDS {
                let mut next = state.clone();
                next.processes[i] = Some(Process { next: process.next + 1, ..process });
                steps.push(("read", i, next));
            }
            if process.has < process.next {
                self.commit(state, i, process, steps);
            }
            let newest = state.log.get(&process.ours);
            if newest.is_none_or(|(counted, _)| *counted != process.next) && process.ours < 4 {
                self.put(state, i, process, steps);
            }
            if state.starts < self.starts {
                let mut next = state.clone();
                next.processes[i] = None;
                steps.push(("crash", i, next));
            }
        }
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        if state.rows.iter().any(|&times| times > 1) {
            return Some("a row was written twice");
        }
        if state.rows[..state.has as usize].contains(&0) {
            return Some("the progress claims a row that is not there");
        }
        None
    }

    /// A process that goes on after another has replaced it would put its own line of checkpoints
    /// beside the other's.
    fn wrong_step(&self, before: &State, after: &State) -> Option<&'static str> {
        let replaced = before.log.iter().any(|(number, (_, start))| {
            after.log.get(number).is_some_and(|(_, other)| other != start)
        });
        let accepted = |i: usize| {
            let (Some(was), Some(is)) = (before.processes[i], after.processes[i]) else {
                return false;
            };
            let newest = after.log.last_key_value().map_or(0, |(&number, _)| number);
            let went_on = was.start == is.start && was.put && !is.put;
            let unseen =
                !self.has(Rule::LookAfterPut) && was.start == is.start && is.ours > was.ours;
            (went_on || unseen) && is.ours < newest
        };
        if replaced {
            return Some("a checkpoint was replaced by that of another process");
        }
        (0..2).any(accepted).then_some("a process goes on beside a newer one")
    }

    fn is_end(&self, state: &State) -> bool {
        // Every process may be gone for good; the next start goes on.
        state.processes.iter().flatten().all(|p| !p.put && p.has == RECORDS)
    }
}

#[test]
fn d8_of_two_processes_one_writes() {
    let starts = if large() { 4 } else { 3 };
    holds("processes", &Processes { starts, lost: 1, without: None });
}

#[test]
fn d8_every_rule_of_processes_is_needed() {
    for rule in [Rule::PutIfAbsent, Rule::LookAfterPut, Rule::Conditional, Rule::Claim] {
        let model = Processes { starts: 3, lost: 1, without: Some(rule) };
        is_caught(&format!("{rule:?}"), [model]);
    }
}
