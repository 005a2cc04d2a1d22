//! The delivery protocol as explicit-state models: every interleaving of reading, firing,
//! checkpoints, commits, crashes and lost replies, up to small bounds, looked at one by one.
//!
//! | model | rules |
//! |---|---|
//! | [`results`] | results that leave at once: T2–T6, D1–D4, two aggregates, running values |
//! | [`restart`] | restarts below the checkpoint, restored databases: T1, T2, T9, D1, D3, D5, D7 |
//! | [`catch_up`] | sinks that are far behind or stuck: D5 |
//! | [`producers`] | two transactional producers in turn: D9 |
//! | [`processes`] | two processes on one checkpoint log and one table: D8 |
//! | [`end`] | the end of an input, and what comes after it: D10 |
//!
//! Each model must hold over its whole state space, and each rule can be switched off: then the
//! explorer must find a run that loses, doubles or changes something. A rule whose absence is not
//! found would prove nothing about its presence. Where a decision of the library is a pure function,
//! the model calls it: what is proven is then the function itself, not a copy.
//!
//! `MODEL_TRACE=1` prints the shortest run to each violation, `MODEL_BOUNDS=large` takes larger
//! bounds (minutes, and some gigabytes).
//!
//! The explorer is our own: breadth-first over hashed states is sixty lines. The crate for this,
//! stateright, brings an HTTP server and an actor runtime, of which nothing would be used.

mod catch_up;
mod end;
mod processes;
mod producers;
mod restart;
mod results;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::rc::Rc;

use crate::time::Timestamp;

/// A protocol: its states and what can happen in each.
trait Model {
    type State: Clone + Eq + Hash + Debug;

    fn start(&self) -> Self::State;

    /// Everything that can happen next.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self::State>);

    /// What must never be.
    fn wrong(&self, state: &Self::State) -> Option<&'static str>;

    /// What must never happen between two states.
    fn wrong_step(&self, _before: &Self::State, _after: &Self::State) -> Option<&'static str> {
        None
    }

    /// Whether a run may end here. Where nothing more can happen it must.
    fn is_end(&self, state: &Self::State) -> bool;
}

/// A step's name, what it is about (a split, a process, a sink), and the state after it.
type Steps<S> = Vec<(&'static str, usize, S)>;

#[derive(Debug)]
enum Outcome {
    Holds { states: usize, ends: usize },
    Violated { why: &'static str, run: String },
}

/// Looks at every state that can be reached, nearest first.
fn explore<M: Model>(model: &M) -> Outcome {
    let start = Rc::new(model.start());
    let mut seen = HashMap::from([(Rc::clone(&start), 0)]);
    // Every state, where it was reached from, and by what.
    let mut all = vec![(start, 0, "start", 0)];
    let (mut at, mut ends, mut steps) = (0, 0, vec![]);
    while at < all.len() {
        let state = Rc::clone(&all[at].0);
        let violated = |why, last: String| {
            let (mut run, mut at) = (vec![last], at);
            while at > 0 {
                let (_, before, name, which) = &all[at];
                run.push(format!("{name} {which}"));
                at = *before;
            }
            run.reverse();
            Outcome::Violated { why, run: run.join(", ") }
        };
        if let Some(why) = model.wrong(&state) {
            return violated(why, format!("now {state:?}"));
        }
        model.steps(&state, &mut steps);
        let is_end = model.is_end(&state);
        ends += usize::from(is_end);
        if steps.is_empty() && !is_end {
            return violated("nothing more can happen", format!("now {state:?}"));
        }
        for (name, which, next) in &steps {
            if let Some(why) = model.wrong_step(&state, next) {
                return violated(why, format!("{name} {which}, now {next:?}"));
            }
        }
        for (name, which, next) in steps.drain(..) {
            if !seen.contains_key(&next) {
                let next = Rc::new(next);
                seen.insert(Rc::clone(&next), all.len());
                all.push((next, at, name, which));
            }
        }
        at += 1;
    }
    Outcome::Holds { states: all.len(), ends }
}

/// The model holds, over all of its states.
fn holds<M: Model>(name: &str, model: &M) {
    match explore(model) {
        Outcome::Holds { states, ends } => {
            println!("{name}: holds, {states} states, {ends} of them ends");
            assert!(ends > 0, "{name}: no run comes to an end");
        }
        Outcome::Violated { why, run } => panic!("{name}: {why}: {run}"),
    }
}

/// With a rule switched off one of these is violated.
fn is_caught<M: Model>(without: &str, models: impl IntoIterator<Item = M>) {
    for model in models {
        if let Outcome::Violated { why, run } = explore(&model) {
            println!("without {without}: {why}");
            if std::env::var_os("MODEL_TRACE").is_some() {
                println!("  {run}");
            }
            return;
        }
    }
    panic!("without {without}: nothing was found, so the model does not show that it is needed");
}

/// Whether larger bounds are asked for.
fn large() -> bool {
    std::env::var("MODEL_BOUNDS").is_ok_and(|bounds| bounds == "large")
}

/// Times of a model are small numbers, so that a state is small: this is "before everything".
const LOW: i8 = i8::MIN;
/// And this "after everything".
const HIGH: i8 = i8::MAX;

/// As the library's functions take it.
fn real(time: i8) -> Timestamp {
    match time {
        LOW => Timestamp::MIN,
        HIGH => Timestamp::MAX,
        time => Timestamp::from_micros(i64::from(time)),
    }
}

/// Back again.
fn small(time: Timestamp) -> i8 {
    match time.as_micros() {
        ..=-100 => LOW,
        time => i8::try_from(time).unwrap_or(HIGH),
    }
}

/// `None` for [`LOW`].
fn known(time: i8) -> Option<Timestamp> {
    (time > LOW).then(|| real(time))
}

#[test]
fn the_explorer_finds_the_shortest_run_and_what_cannot_go_on() {
    /// Counts to a number in ones and twos; three is wrong, if that is said.
    struct Count(bool, u8);
    impl Model for Count {
        type State = u8;
        fn start(&self) -> u8 {
            0
        }
        fn steps(&self, state: &u8, steps: &mut Steps<u8>) {
            let next = [("one", 1, state + 1), ("two", 2, state + 2)];
            steps.extend(next.into_iter().filter(|(.., next)| *next <= self.1));
        }
        fn wrong(&self, state: &u8) -> Option<&'static str> {
            (self.0 && *state == 3).then_some("three")
        }
        fn is_end(&self, state: &u8) -> bool {
            *state >= 5
        }
    }
    assert!(matches!(explore(&Count(false, 6)), Outcome::Holds { states: 7, ends: 2 }));
    let Outcome::Violated { why, run } = explore(&Count(true, 6)) else { panic!("not found") };
    assert_eq!((why, run.as_str()), ("three", "one 1, two 2, now 3"));
    let Outcome::Violated { why, .. } = explore(&Count(false, 4)) else { panic!("not found") };
    assert_eq!(why, "nothing more can happen");
}
