//! The long test, as `dev/crash-test` asks for it.

use std::collections::VecDeque;

use streamkit::time::{Clock, SystemClock};

use super::fate::{
    FACTS, Fate, Fates, Mode, all_failpoints, failpoints, idle_fates, random_fates, with_outages,
};
use super::life::{Plan, live};
use super::suffer::facts_of_idleness;
use super::tally::Tally;
use crate::oracle::generate::Random;

/// Reads a variable that `dev/crash-test` sets.
pub fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    asked(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// In which modes.
pub fn asked_modes() -> &'static [Mode] {
    match asked("CRASH_MODE").as_deref() {
        Some("embedded") => &[Mode::Embedded],
        Some("services") => &[Mode::Services],
        Some("both") | None => &[Mode::Embedded, Mode::Services],
        Some(other) => panic!("--mode {other}: embedded, services or both"),
    }
}

const RUNS: usize = 20;
/// How often a step that was not reached is aimed at again, in a job of its own: on a busy machine a
/// compaction may find nothing to merge in time, for instance.
const MORE_CHANCES: u32 = 3;

/// What was asked for.
struct Asked {
    seed: u64,
    kills: u64,
    minutes: Option<u64>,
    visits: u64,
    /// Only these steps; all if there is none.
    at: Vec<String>,
    checkpoints: Option<String>,
    outages: bool,
}

impl Asked {
    fn read() -> Self {
        let at = asked("CRASH_AT").unwrap_or_default();
        Self {
            seed: number("CRASH_SEED").expect("CRASH_SEED"),
            kills: number("CRASH_KILLS").unwrap_or(50),
            minutes: number("CRASH_MINUTES"),
            visits: number("CRASH_FAILPOINTS").unwrap_or(0),
            at: at.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            checkpoints: asked("CRASH_CHECKPOINT_INTERVAL"),
            outages: asked("CRASH_OUTAGES").is_some(),
        }
    }

    /// The steps of this mode that have to be reached.
    fn steps(&self, mode: Mode) -> Vec<&'static str> {
        let mut steps = failpoints(mode);
        steps.extend(facts_of_idleness());
        if !self.at.is_empty() {
            let mut known = [failpoints(Mode::Embedded), failpoints(Mode::Services)].concat();
            known.extend(facts_of_idleness());
            let unknown = self.at.iter().find(|name| !known.contains(&name.as_str()));
            assert!(unknown.is_none(), "--at {unknown:?} names no step");
            steps.retain(|step| self.at.iter().any(|name| name == step));
        }
        steps
    }
}

/// The jobs that take every one of these steps so often, and whether their splits go idle.
fn jobs_for(
    mode: Mode,
    steps: &[&'static str],
    visits: u64,
    random: &mut Random,
) -> VecDeque<(Fates, bool)> {
    let is_of_idleness = |step: &&str| facts_of_idleness().contains(step);
    let others: Vec<_> = steps.iter().copied().filter(|step| !is_of_idleness(step)).collect();
    let mut jobs = VecDeque::new();
    if !others.is_empty() {
        let of_others = all_failpoints(mode, &others, visits, RUNS, random);
        jobs.extend(of_others.into_iter().map(|fates| (fates, false)));
    }
    if steps.iter().any(is_of_idleness) {
        jobs.extend((0..visits).map(|_| {
            let mut fates = idle_fates(mode, RUNS / 2, random);
            fates.running.extend(FACTS.iter().map(|step| Fate::Failpoint(step, 1)));
            (fates, true)
        }));
    }
    jobs
}

/// Goes on for as long as asked for; says what has happened, and whether all was right.
pub fn run() -> bool {
    let asked = Asked::read();
    // All modes, whatever happens in one of them.
    let right: Vec<bool> = asked_modes().iter().map(|&mode| run_mode(&asked, mode)).collect();
    !right.contains(&false)
}

fn run_mode(asked: &Asked, mode: Mode) -> bool {
    let clock = SystemClock::new();
    let mut random = Random::new(asked.seed);
    let mut tally = Tally::default();
    let mut right = true;
    let steps = asked.steps(mode);
    let missed = |tally: &Tally| -> Vec<&'static str> {
        steps.iter().copied().filter(|step| tally.reached(step) == 0).collect()
    };
    let mut jobs = jobs_for(mode, &steps, asked.visits, &mut random);
    let mut chances = if asked.visits > 0 { MORE_CHANCES } else { 0 };
    for job in 0.. {
        let enough = match asked.minutes {
            Some(minutes) => clock.elapsed().as_secs() >= minutes * 60,
            None => tally.deaths() >= asked.kills,
        };
        if jobs.is_empty() && enough && chances > 0 {
            chances -= 1;
            jobs = jobs_for(mode, &missed(&tally), 1, &mut random);
        }
        let (fates, idle) = match jobs.pop_front() {
            Some(job) => job,
            None if enough => break,
            None if job % 3 == 2 => (idle_fates(mode, RUNS / 2, &mut random), true),
            None => (random_fates(mode, RUNS, &mut random), false),
        };
        let outages = asked.outages && mode == Mode::Services;
        let fates = if outages { with_outages(fates, &mut random) } else { fates };
        let plan = Plan {
            idle,
            insists: asked.visits > 0,
            checkpoints: asked.checkpoints.clone(),
            ..super::plan(mode, asked.seed.wrapping_mul(1_000).wrapping_add(job), fates)
        };
        let kind = if idle { ", idle splits" } else { "" };
        let n = plan.fates.len();
        match live(&plan, &mut tally) {
            Ok(true) => println!("{mode:?} job {job} ({n} ends{kind}): {}", tally.line()),
            Ok(false) => panic!("there are no services: run dev/services up"),
            Err(problem) => {
                println!("FAILED {mode:?} job {job}{kind}: {problem}\nfates: {:?}", plan.fates);
                right = false;
                break;
            }
        }
    }
    println!("{mode:?}, seed {}, {} s: {}", asked.seed, clock.elapsed().as_secs(), tally.line());
    println!("{mode:?}: what befell the runs: {}", tally.fates());
    println!("{mode:?}: steps reached, of how often they were aimed at: {}", tally.steps());
    let missed = missed(&tally);
    println!("{mode:?}: {} of {} steps reached", steps.len() - missed.len(), steps.len());
    if asked.visits > 0 && !missed.is_empty() {
        println!("{mode:?}: never reached: {missed:?}");
        right = false;
    }
    right
}
