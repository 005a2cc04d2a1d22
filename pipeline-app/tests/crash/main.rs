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
mod fate;
mod input;
mod life;
mod place;
mod proxy;
mod tables;
mod watch;

use fate::{Fates, Mode, all_failpoints, failpoints, random_fates, with_outages};
use life::{Plan, Tally, live};
use oracle::generate::Random;
use streamkit::time::{Clock, SystemClock};

fn plan(mode: Mode, seed: u64, fates: Fates) -> Plan {
    Plan { mode, seed, events: 2_000, fates, checkpoints: None, settings: &[], env: vec![] }
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

/// Reads a variable that `dev/crash-test` sets.
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn asked_modes() -> &'static [Mode] {
    match asked("CRASH_MODE").as_deref() {
        Some("embedded") => &[Mode::Embedded],
        Some("services") => &[Mode::Services],
        Some("both") | None => &[Mode::Embedded, Mode::Services],
        Some(other) => panic!("--mode {other}: embedded, services or both"),
    }
}

/// A few of the controls, which are sure to be fast.
#[test]
fn missing_rules_are_noticed() {
    for rule in ["sqlite.one_transaction", "lake.redo", "edge.positions", "lateness.own_mark"] {
        println!("{rule}: {}", controls::caught(rule, 1).unwrap().unwrap());
    }
}

#[test]
#[ignore = "long: dev/crash-test --negative runs it"]
fn every_missing_rule_is_noticed() {
    let seed = asked("CRASH_SEED").map_or(1, |seed| seed.parse().unwrap());
    let modes = asked_modes();
    let rules = modes.iter().flat_map(|&mode| controls::rules(mode));
    let rules = rules.filter(|rule| asked("CRASH_BREAK").is_none_or(|only| only == *rule));
    let mut unnoticed = vec![];
    let mut noticed = 0;
    for rule in rules {
        match controls::caught(rule, seed) {
            Ok(Some(problem)) => {
                noticed += 1;
                let first: Vec<&str> = problem.lines().take(3).collect();
                println!("{rule}: noticed. {}", first.join(" "));
            }
            Ok(None) => panic!("there are no services: run dev/services up"),
            Err(problem) => unnoticed.push(problem),
        }
    }
    assert!(noticed > 0 && unnoticed.is_empty(), "not noticed: {unnoticed:#?}");
    println!("every one of {noticed} missing rules was noticed");
}

#[test]
#[ignore = "long: dev/crash-test runs it"]
fn f82_as_long_as_asked_for() {
    let number = |name: &str| asked(name).map(|text| text.parse::<u64>().unwrap());
    let modes = asked_modes();
    let seed = number("CRASH_SEED").expect("CRASH_SEED");
    let (kills, minutes) = (number("CRASH_KILLS").unwrap_or(50), number("CRASH_MINUTES"));
    let visits = number("CRASH_FAILPOINTS").unwrap_or(0);
    let clock = SystemClock::new();
    let mut failed = false;
    for &mode in modes {
        let mut random = Random::new(seed);
        let mut tally = Tally::default();
        let mut jobs = all_failpoints(mode, visits, 20, &mut random).into_iter();
        for job in 0.. {
            let enough = match minutes {
                Some(minutes) => clock.elapsed().as_secs() >= minutes * 60,
                None => tally.deaths() >= kills,
            };
            let fates = match jobs.next() {
                Some(fates) => fates,
                None if enough => break,
                None => random_fates(mode, 20, &mut random),
            };
            let fates = match mode {
                Mode::Services if asked("CRASH_OUTAGES").is_some() => {
                    with_outages(fates, &mut random)
                }
                _ => fates,
            };
            let plan = plan(mode, seed.wrapping_mul(1_000).wrapping_add(job), fates);
            let n = plan.fates.len();
            match live(&plan, &mut tally) {
                Ok(true) => println!("{mode:?} job {job} ({n} ends): {}", tally.line()),
                Ok(false) => panic!("there are no services: run dev/services up"),
                Err(problem) => {
                    println!("FAILED {mode:?} job {job}: {problem}\nfates: {:?}", plan.fates);
                    failed = true;
                    break;
                }
            }
        }
        let never = |name: &&&str| tally.failpoints.get(**name).is_none_or(|(_, n)| *n == 0);
        let names = failpoints(mode);
        let missed: Vec<_> = names.iter().filter(never).collect();
        println!("{mode:?}, seed {seed}, {} s: {}", clock.elapsed().as_secs(), tally.line());
        println!("{mode:?}: failpoints reached {} of {}", names.len() - missed.len(), names.len());
        if visits > 0 && !missed.is_empty() {
            println!("{mode:?}: never reached: {missed:?}");
            failed = true;
        }
    }
    assert!(!failed, "see above");
    println!("nothing lost, nothing twice, nothing that went back");
}
