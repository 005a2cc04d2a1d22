//! Rule D9: two transactional producers in turn, progress as a record in the same transaction.
//!
//! Records 0, 1, 2, one for each transaction. A producer begins, sends a record with its progress,
//! asks to commit, and learns the outcome or does not. The broker takes a request when it gets to
//! it, aborts what is open for too long, and a new initialisation of an id settles it: a request
//! that was taken is finished, what is on its way is fenced.

use super::{Model, Steps, holds, is_caught, large};

const RECORDS: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The second producer asks to commit only after the first is confirmed.
    Confirmed,
    /// Both ids are initialised after a crash or an unknown outcome, before progress is read.
    Both,
    /// After an unknown outcome progress is read again, instead of taken for aborted.
    Reread,
    /// The ids stay the same over restarts.
    Same,
}

struct Producers {
    crashes: u8,
    lost: u8,
    timeouts: u8,
    without: Option<Rule>,
}

/// A transaction at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Transaction {
    None,
    Open(u8),
    /// The request to commit is on its way.
    Asked(u8),
    /// The coordinator has decided.
    Taken(u8),
}

/// A transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    epoch: u8,
    transaction: Transaction,
}

/// What a producer believes: the record and its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Free,
    Open(u8, u8),
    Asked(u8, u8),
}

impl Slot {
    fn record(self) -> Option<u8> {
        match self {
            Slot::Free => None,
            Slot::Open(record, _) | Slot::Asked(record, _) => Some(record),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// How often each record is in the committed log.
    log: [u8; RECORDS as usize],
    ids: [Id; 2],
    /// Requests of ids that nobody will fence.
    ghosts: Vec<u8>,
    next: u8,
    slots: [Slot; 2],
    turn: usize,
    crashes: u8,
    lost: u8,
    timeouts: u8,
}

/// What the progress record says.
fn progress(log: &[u8; RECORDS as usize]) -> u8 {
    (0..RECORDS).rev().find(|&record| log[record as usize] > 0).map_or(0, |record| record + 1)
}

const NEW: Id = Id { epoch: 0, transaction: Transaction::None };

impl Producers {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// A crash (`only` is none) or an error at one producer: initialise, read progress, go on.
    fn start_over(&self, state: &State, only: Option<usize>) -> State {
        let mut next = state.clone();
        next.slots = [Slot::Free; 2];
        next.turn = 0;
        if only.is_none() && !self.has(Rule::Same) {
            for id in state.ids {
                if let Transaction::Asked(record) | Transaction::Taken(record) = id.transaction {
                    next.ghosts.push(record);
                }
            }
            next.ghosts.sort_unstable();
            next.ids = [NEW; 2];
            next.next = progress(&next.log);
            return next;
        }
        let initialised: &[usize] = match (self.has(Rule::Both), only) {
            (true, _) => &[0, 1],
            (false, None) => &[0],
            (false, Some(0)) => &[0],
            (false, Some(_)) => &[1],
        };
        for &i in initialised {
            if let Transaction::Taken(record) = next.ids[i].transaction {
                next.log[record as usize] += 1;
            }
            next.ids[i].epoch += 1;
            next.ids[i].transaction = Transaction::None;
        }
        // What is only open at the other id the application aborts by itself.
        for i in (0..2).filter(|i| !initialised.contains(i)) {
            if matches!(next.ids[i].transaction, Transaction::Open(_)) {
                next.ids[i].transaction = Transaction::None;
            }
        }
        let in_doubt = only.and_then(|i| state.slots[i].record());
        next.next = match in_doubt {
            Some(record) if !self.has(Rule::Reread) => record,
            _ => progress(&next.log),
        };
        next
    }
}

impl Model for Producers {
    type State = State;

    fn start(&self) -> State {
        State {
            log: [0; RECORDS as usize],
            ids: [NEW; 2],
            ghosts: vec![],
            next: 0,
            slots: [Slot::Free; 2],
            turn: 0,
            crashes: self.crashes,
            lost: self.lost,
            timeouts: self.timeouts,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for i in 0..2 {
            let mut next = state.clone();
            match state.ids[i].transaction {
                Transaction::None => {}
                Transaction::Open(_) => {
                    if state.timeouts > 0 {
                        next.timeouts -= 1;
                        next.ids[i].epoch += 1;
                        next.ids[i].transaction = Transaction::None;
                        steps.push(("time-out", i, next));
                    }
                }
                Transaction::Asked(record) => {
                    next.ids[i].transaction = Transaction::Taken(record);
                    steps.push(("take", i, next));
                }
                Transaction::Taken(record) => {
                    next.log[record as usize] += 1;
                    next.ids[i].transaction = Transaction::None;
                    steps.push(("apply", i, next));
                }
            }
        }
        for at in 0..state.ghosts.len() {
            let mut next = state.clone();
            let record = next.ghosts.remove(at);
            next.log[record as usize] += 1;
            steps.push(("late request", record as usize, next));
        }
        let i = state.turn;
        let free = state.ids[i].transaction == Transaction::None;
        if state.slots[i] == Slot::Free && state.next < RECORDS && free {
            let mut next = state.clone();
            next.ids[i].transaction = Transaction::Open(state.next);
            next.slots[i] = Slot::Open(state.next, state.ids[i].epoch);
            next.next += 1;
            next.turn = 1 - i;
            steps.push(("send", i, next));
        }
        for i in 0..2 {
            match state.slots[i] {
                Slot::Free => {}
                Slot::Open(_, epoch) if epoch != state.ids[i].epoch => {
                    steps.push(("error", i, self.start_over(state, Some(i))));
                }
                Slot::Open(record, epoch) => {
                    let is_first = state.slots[1 - i].record().is_none_or(|other| other > record);
                    if is_first || !self.has(Rule::Confirmed) {
                        let mut next = state.clone();
                        next.ids[i].transaction = Transaction::Asked(record);
                        next.slots[i] = Slot::Asked(record, epoch);
                        steps.push(("ask", i, next));
                    }
                }
                Slot::Asked(_, epoch) => {
                    if state.ids[i] == (Id { epoch, transaction: Transaction::None }) {
                        let mut next = state.clone();
                        next.slots[i] = Slot::Free;
                        steps.push(("confirmed", i, next));
                    }
                    if state.lost > 0 {
                        let mut next = self.start_over(state, Some(i));
                        next.lost -= 1;
                        steps.push(("reply lost", i, next));
                    }
                }
            }
        }
        if state.crashes > 0 {
            let mut next = self.start_over(state, None);
            next.crashes -= 1;
            steps.push(("crash", 0, next));
        }
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        if state.log.iter().any(|&times| times > 1) {
            return Some("a record was written twice");
        }
        let claimed = &state.log[..progress(&state.log) as usize];
        if claimed.contains(&0) {
            return Some("the progress claims a record that is not there");
        }
        (self.is_end(state) && state.log.contains(&0)).then_some("a record was lost")
    }

    fn is_end(&self, state: &State) -> bool {
        state.next >= RECORDS
            && state.slots == [Slot::Free; 2]
            && state.ghosts.is_empty()
            && state.ids.iter().all(|id| id.transaction == Transaction::None)
    }
}

#[test]
fn d9_two_producers_in_turn_write_every_record_once() {
    let bounds = if large() { 3 } else { 2 };
    for n in 1..=bounds {
        let model = Producers { crashes: n, lost: n, timeouts: n, without: None };
        holds(&format!("producers, {n} of each"), &model);
    }
}

#[test]
fn d9_every_rule_of_the_producers_is_needed() {
    for rule in [Rule::Confirmed, Rule::Both, Rule::Reread, Rule::Same] {
        let model = Producers { crashes: 1, lost: 1, timeouts: 1, without: Some(rule) };
        is_caught(&format!("{rule:?}"), [model]);
    }
}
