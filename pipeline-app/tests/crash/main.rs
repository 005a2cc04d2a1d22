//! The crash test: the real program is killed again and again, at random times and at every step
//! of every commit and of recovery, and what it leaves is compared with the batch computation.
//!
//! ```text
//! seed ─▶ input ─▶ pipeline-app ─▶ tables, lake, topics ═▶ the oracle: nothing lost, nothing twice
//!                    ▲ kill -9, SIGTERM, SIGSTOP   │
//!                    └── start again ──────────────┴─▶ read every 100 ms: nothing ever goes back
//! ```
//!
//! The short tests run everywhere. The long one is `dev/crash-test`, which says what it can be told.

#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../support/mod.rs"]
mod support;

mod app;
mod controls;
#[path = "../../../streamkit/tests/disk/mod.rs"]
mod disk;
mod fate;
mod feeder;
mod input;
mod latency;
mod life;
mod long;
mod place;
mod proxy;
mod reader;
mod suffer;
mod tables;
mod tally;
mod watch;

use fate::{Fates, Mode, idle_fates, random_fates};
use life::{Plan, live};
use long::{asked, asked_modes};
use oracle::generate::Random;
use tally::Tally;

fn plan(mode: Mode, seed: u64, fates: Fates) -> Plan {
    Plan {
        mode,
        seed,
        events: 2_000,
        fates,
        checkpoints: None,
        idle: false,
        settings: &[],
        env: vec![],
    }
}

/// Otherwise a difference would say nothing about crashes.
#[test]
fn a_job_that_nothing_befalls_is_exact() {
    for mode in [Mode::Embedded, Mode::Services] {
        live(&plan(mode, 3, Fates::default()), &mut Tally::default()).unwrap();
    }
}

#[test]
fn f82_a_dozen_kills_without_services() {
    let mut tally = Tally::default();
    for seed in [1, 2] {
        let fates = random_fates(Mode::Embedded, 6, &mut Random::new(seed));
        live(&plan(Mode::Embedded, seed, fates), &mut tally).unwrap();
    }
    println!("{}", tally.line());
    assert!(tally.deaths() > 0 && tally.looks > 0);
}

#[test]
fn f82_a_few_kills_on_real_services() {
    let mut tally = Tally::default();
    let fates = random_fates(Mode::Services, 6, &mut Random::new(3));
    if live(&plan(Mode::Services, 3, fates), &mut tally).unwrap() {
        println!("{}", tally.line());
        assert!(tally.deaths() > 0 && tally.looks > 0);
    }
}

#[test]
fn t9_splits_that_go_idle_and_come_back_among_kills() {
    let mut tally = Tally::default();
    for seed in [1, 2] {
        let fates = idle_fates(Mode::Embedded, 6, &mut Random::new(seed));
        let plan = Plan { idle: true, ..plan(Mode::Embedded, seed, fates) };
        live(&plan, &mut tally).unwrap();
    }
    println!("{}", tally.line());
    assert!(tally.floors > 0 && tally.deaths() > 0);
}

/// A few of the controls, which are sure to be fast.
#[test]
fn missing_rules_are_noticed() {
    let fast = [
        "sqlite.one_transaction",
        "lake.redo",
        "edge.positions",
        "lateness.own_mark",
        "floors.durable",
        "compact.one_step",
    ];
    for control in controls::controls(Mode::Embedded).filter(|c| fast.contains(&c.rule)) {
        println!("{}: {}", control.rule, controls::caught(control, 1).unwrap().unwrap());
    }
}

#[test]
#[ignore = "long: dev/crash-test --negative runs it"]
fn every_missing_rule_is_noticed() {
    let seed = asked("CRASH_SEED").map_or(1, |seed| seed.parse().unwrap());
    let controls = asked_modes().iter().flat_map(|&mode| controls::controls(mode));
    let only = asked("CRASH_BREAK");
    let (mut noticed, mut unnoticed) = (0, vec![]);
    for control in controls.filter(|c| only.as_ref().is_none_or(|only| *only == c.rule)) {
        if !control.can_be_tried() {
            continue;
        }
        match controls::caught(control, seed) {
            Ok(Some(problem)) => {
                noticed += 1;
                let first: Vec<&str> = problem.lines().take(3).collect();
                println!("{}: noticed. {}", control.rule, first.join(" "));
            }
            Ok(None) => panic!("there are no services: run dev/services up"),
            Err(problem) => {
                println!("NOT noticed: {problem}");
                unnoticed.push(control.rule);
            }
        }
    }
    assert!(noticed > 0 && unnoticed.is_empty(), "not noticed: {unnoticed:?}");
    println!("every one of {noticed} controls was noticed");
}

#[test]
#[ignore = "long: dev/crash-test runs it"]
fn f82_as_long_as_asked_for() {
    assert!(long::run(), "see above");
    println!("nothing lost, nothing twice, nothing that went back");
}
