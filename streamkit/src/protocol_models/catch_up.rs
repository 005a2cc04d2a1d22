//! Sinks that are far behind or stuck: D5.
//!
//! One split, two sinks behind stateless steps, and two readers: one feeds whoever has everything
//! before it, the other fills gaps. A sink gets rows first and the position after them later, and
//! commits only when it has both. A process may die at any moment. Whether a sink takes a portion, and
//! where the first reader begins after a restart, is decided by the library's own functions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Model, Steps, holds, is_caught, large};
use crate::checkpoint::{SplitEntry, Totals};
use crate::record::{Position, Split};
use crate::runtime::recovery::{SplitFacts, plan_split};
use crate::task::{Attachment, Reach};

const SINKS: usize = 2;
/// More rows than these are not in a queue.
const ROOM: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A sink takes what follows on what it has, and nothing after a gap.
    Follows,
    /// Whether a sink is left out changes between portions only.
    ByPortion,
    /// A sink is behind until it has been sent what it lacks: the end waits for that.
    EndWaits,
}

#[derive(Clone)]
struct CatchUp {
    records: u8,
    crashes: u8,
    /// How far behind a sink may be without a reader of its own.
    near: u64,
    without: Option<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Sink {
    /// What has been sent: rows, one bit each, and the position.
    queued: u8,
    sent: u8,
    /// What the target has.
    rows: u8,
    committed: u8,
    stuck: bool,
    detached: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    main: u8,
    checkpoint: u8,
    sinks: [Sink; SINKS],
    /// Rows of this portion have been sent, and its position has not.
    half: Option<(u8, u8)>,
    crashes: u8,
    ended: bool,
    fault: Option<&'static str>,
}

fn at(next: u8) -> Position {
    Position { next: u64::from(next), ..Position::default() }
}

impl CatchUp {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn takes(&self, sink: &Sink, first: u8) -> bool {
        if !self.has(Rule::Follows) {
            return !sink.detached && first >= sink.sent;
        }
        let reach = Arc::new(Reach::new("sink"));
        reach.start(vec![at(sink.sent)], Duration::ZERO);
        let attachment = Attachment::new(Arc::clone(&reach));
        if sink.detached {
            reach.busy(Duration::ZERO);
            attachment.look(false, Duration::ZERO);
        }
        attachment.takes(0, at(first).place())
    }

    /// The rows of a portion go to whoever takes them.
    fn send_rows(&self, state: &State, first: u8, end: u8) -> State {
        let mut next = state.clone();
        for sink in &mut next.sinks {
            if self.takes(sink, first) {
                for record in first..end {
                    let row = 1 << record;
                    if (sink.queued | sink.rows) & row > 0 {
                        next.fault = Some("a sink got a record twice");
                    }
                    sink.queued |= row;
                }
            }
        }
        next.half = Some((first, end));
        next
    }

    /// And then its position.
    fn send_position(&self, state: &State, first: u8, end: u8) -> State {
        let mut next = state.clone();
        next.half = None;
        for sink in &mut next.sinks {
            if self.takes(sink, first) {
                sink.sent = end;
            }
        }
        next.main = next.main.max(end);
        next
    }

    fn has_room(&self, state: &State, first: u8) -> bool {
        let full = |sink: &Sink| sink.queued.count_ones() >= ROOM;
        !state.sinks.iter().any(|sink| full(sink) && self.takes(sink, first))
    }

    fn restart(&self, state: &State) -> State {
        let mut next = state.clone();
        let split = Split::new("a", "t", 0);
        let has: Vec<_> = state
            .sinks
            .iter()
            .map(|sink| BTreeMap::from([(split.id.clone(), at(sink.committed))]))
            .collect();
        let position = at(state.checkpoint);
        let entry =
            SplitEntry { split: split.clone(), position, start: 0, totals: Totals::default() };
        let facts = SplitFacts {
            split,
            start: 0,
            entry: Some(&entry),
            sinks: has.iter().map(Some).collect(),
            floors: vec![],
            given_up: BTreeMap::new(),
            given_up_by: vec![],
            suspects: &[],
            end: None,
            near: self.near,
        };
        next.main = plan_split(0, facts).from.next as u8;
        next.half = None;
        for sink in &mut next.sinks {
            let Sink { rows, committed, stuck, .. } = *sink;
            *sink = Sink { rows, committed, stuck, sent: committed, ..Sink::default() };
        }
        next
    }
}

impl Model for CatchUp {
    type State = State;

    fn start(&self) -> State {
        State {
            main: 0,
            checkpoint: 0,
            sinks: [Sink::default(); SINKS],
            half: None,
            crashes: self.crashes,
            ended: false,
            fault: None,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        if state.ended {
            return;
        }
        if let Some((first, end)) = state.half {
            steps.push(("sends the position", 0, self.send_position(state, first, end)));
        } else {
            if state.main < self.records && self.has_room(state, state.main) {
                let next = self.send_rows(state, state.main, state.main + 1);
                steps.push(("reads", 0, next));
            }
            let able = state.sinks.iter().filter(|sink| !sink.detached);
            let behind = able.map(|sink| sink.sent);
            if let Some(from) = behind.filter(|sent| *sent < state.main).min()
                && self.has_room(state, from)
            {
                steps.push(("reads again", 0, self.send_rows(state, from, from + 1)));
            }
            if state.checkpoint < state.main {
                let next = State { checkpoint: state.main, ..state.clone() };
                steps.push(("checkpoint", 0, next));
            }
            let lacks = state.sinks.iter().any(|sink| sink.sent < self.records);
            let queued = state.sinks.iter().any(|sink| sink.queued > 0);
            if state.main == self.records && !queued && (!lacks || !self.has(Rule::EndWaits)) {
                steps.push(("ends", 0, State { ended: true, ..state.clone() }));
            }
        }
        for (i, sink) in state.sinks.iter().enumerate() {
            let mut with = |name, change: &dyn Fn(&mut Sink)| {
                let mut next = state.clone();
                change(&mut next.sinks[i]);
                steps.push((name, i, next));
            };
            let full = sink.queued.count_ones() >= ROOM;
            if state.half.is_none() || !self.has(Rule::ByPortion) {
                if !sink.detached && sink.stuck && full {
                    with("is detached", &|sink| sink.detached = true);
                }
                if sink.detached && !sink.stuck && !full {
                    with("comes back", &|sink| sink.detached = false);
                }
            }
            with("is stuck or not", &|sink| sink.stuck = !sink.stuck);
            // Between rows and their position there is no commit.
            let between = state.half.is_some_and(|(first, _)| sink.sent == first);
            if !sink.stuck && !between && (sink.queued > 0 || sink.committed < sink.sent) {
                with("commits", &|sink| {
                    sink.rows |= std::mem::take(&mut sink.queued);
                    sink.committed = sink.sent;
                });
            }
        }
        if state.crashes > 0 {
            let next = State { crashes: state.crashes - 1, ..state.clone() };
            steps.push(("crash", 0, self.restart(&next)));
        }
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        if state.fault.is_some() {
            return state.fault;
        }
        let all_before = |n: u8| ((1u16 << n) - 1) as u8;
        if state.sinks.iter().any(|sink| sink.rows != all_before(sink.committed)) {
            return Some("a sink has other rows than its position says");
        }
        let lacks = state.sinks.iter().any(|sink| sink.committed < self.records);
        (state.ended && lacks).then_some("the job has ended, and a sink lacks something")
    }

    fn is_end(&self, state: &State) -> bool {
        state.ended
    }
}

fn model(near: u64, without: Option<Rule>) -> CatchUp {
    let (records, crashes) = if large() { (5, 2) } else { (4, 1) };
    CatchUp { records, crashes, near, without }
}

#[test]
fn d5_sinks_that_are_caught_up_with_have_everything_once() {
    holds("catching up, far", &model(0, None));
    holds("catching up, near", &model(2, None));
}

#[test]
fn d5_each_rule_of_catching_up_is_needed() {
    for rule in [Rule::Follows, Rule::ByPortion, Rule::EndWaits] {
        is_caught(&format!("{rule:?}"), [model(0, Some(rule)), model(2, Some(rule))]);
    }
}
