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
mod fate;
mod input;
mod life;
mod place;
mod tables;
mod watch;

use fate::{Fates, Mode, all_failpoints, failpoints, random_fates};
use life::{Plan, Tally, live};
use oracle::generate::Random;
use streamkit::time::{Clock, SystemClock};

fn plan(mode: Mode, seed: u64, fates: Fates) -> Plan {
    Plan { mode, seed, events: 2_000, fates, checkpoints: None, env: vec![] }
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

#[test]
#[ignore = "long: dev/crash-test runs it"]
fn f82_as_long_as_asked_for() {
    let number = |name: &str| asked(name).map(|text| text.parse::<u64>().unwrap());
    let modes: &[Mode] = match asked("CRASH_MODE").as_deref() {
        Some("embedded") => &[Mode::Embedded],
        Some("services") => &[Mode::Services],
        Some("both") | None => &[Mode::Embedded, Mode::Services],
        Some(other) => panic!("--mode {other}: embedded, services or both"),
    };
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
