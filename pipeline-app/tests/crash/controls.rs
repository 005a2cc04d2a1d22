//! The test's own test: a program with one rule taken away must not pass.

use std::time::Duration;

use super::disk::Disk;
use super::fate::{Ending, Fate, Fates, Leaving, Mode, Server, idle_fates, random_fates};
use super::life::{Plan, live};
use super::tally::Tally;
use crate::oracle::generate::Random;

/// How a missing rule is made to matter.
pub struct Control {
    pub rule: &'static str,
    pub mode: Mode,
    /// At which steps runs end, again and again; at random times if there is none.
    steps: &'static [&'static str],
    /// Or what befalls every run, after a time that is drawn.
    fate: Option<fn(Duration) -> Fate>,
    /// Whether splits go idle and come back.
    idle: bool,
    checkpoints: &'static str,
    /// Other settings, as `--name=value`.
    settings: &'static [&'static str],
    /// A step that takes long.
    slow: Option<&'static str>,
    /// Runs are killed not before so many milliseconds.
    kills_after: Option<u64>,
}

const CONTROLS: &[Control] = &[
    Control { steps: &["sqlite.before_begin"], ..of("sqlite.one_transaction", Mode::Embedded) },
    Control { steps: &["lake.after_manifest"], ..of("lake.redo", Mode::Embedded) },
    Control { steps: &["lines.after_append"], ..of("lines.truncate", Mode::Embedded) },
    Control { checkpoints: "10m", ..of("edge.w", Mode::Embedded) },
    Control { checkpoints: "10m", ..of("edge.positions", Mode::Embedded) },
    Control {
        checkpoints: "10m",
        settings: &["--workers=3"],
        slow: Some("keyed.fired:10"),
        ..of("sink.holds_back", Mode::Embedded)
    },
    Control {
        checkpoints: "10ms",
        slow: Some("sqlite.before_begin:100"),
        ..of("results.in_checkpoint", Mode::Embedded)
    },
    Control { checkpoints: "20ms", ..of("state.positions", Mode::Embedded) },
    Control { ..of("lateness.own_mark", Mode::Embedded) },
    Control {
        checkpoints: "10m",
        settings: &["--running-values=1ms"],
        // What went back stays visible for longer than the tables are not looked at.
        slow: Some("source.batch_sent:150"),
        kills_after: Some(1_200),
        ..of("ticks.withheld", Mode::Embedded)
    },
    Control {
        // A checkpoint that cannot be written would end the program.
        checkpoints: "10m",
        fate: Some(|after| Fate::DiskFull(after, Duration::from_secs(1))),
        ..of("lake.waits_for_room", Mode::Embedded)
    },
    Control {
        fate: Some(|after| Fate::Compaction(after, Ending::At("compact.after_exchange"))),
        ..of("compact.one_step", Mode::Embedded)
    },
    Control { idle: true, ..of("floors.durable", Mode::Embedded) },
    Control {
        // From a file, a sink has what it lacks before anything else is read.
        checkpoints: "20ms",
        settings: &["--catch-up-beyond=0"],
        ..of("edge.gap", Mode::Services)
    },
    Control { steps: &["postgres.before_begin"], ..of("postgres.one_transaction", Mode::Services) },
    Control {
        // So that some kills are between the two transactions that there are then.
        slow: Some("kafka.before_progress:1000"),
        fate: Some(|after| {
            let long = Duration::from_secs(1) + 3 * after;
            Fate::Network(Server::Kafka, after, long, Leaving::Killed)
        }),
        ..of("kafka.one_transaction", Mode::Services)
    },
    Control { steps: &["kafka.before_progress"], ..of("kafka.one_transaction", Mode::Services) },
    Control {
        fate: Some(|after| {
            Fate::Network(Server::Postgres, after, Duration::from_secs(6), Leaving::Stopped)
        }),
        ..of("postgres.one_transaction", Mode::Services)
    },
];

const fn of(rule: &'static str, mode: Mode) -> Control {
    Control {
        rule,
        mode,
        steps: &[],
        fate: None,
        idle: false,
        checkpoints: "200ms",
        settings: &[],
        slow: None,
        kills_after: None,
    }
}

/// The controls of a mode.
pub fn controls(mode: Mode) -> impl Iterator<Item = &'static Control> {
    CONTROLS.iter().filter(move |control| control.mode == mode)
}

impl Control {
    /// Whether it can be tried here: not without a disk that it needs.
    pub fn can_be_tried(&self) -> bool {
        let fate = self.fate.map(|fate| fate(Duration::ZERO));
        !matches!(fate, Some(Fate::DiskFull(..))) || Disk::mount("size=1m").is_some()
    }

    fn fates(&self, random: &mut Random) -> Fates {
        const RUNS: usize = 6;
        let millis =
            |random: &mut Random, most: i64| Duration::from_millis(random.below(most) as u64);
        let mut draw = |fate: &dyn Fn(&mut Random) -> Fate| Fates {
            running: (0..RUNS).map(|_| fate(random)).collect(),
            draining: vec![],
        };
        if let Some(fate) = self.fate {
            return draw(&|random| fate(millis(random, 1_000)));
        }
        if let Some(after) = self.kills_after {
            let after = Duration::from_millis(after);
            return draw(&|random| Fate::Kill(after + millis(random, 600)));
        }
        if !self.steps.is_empty() {
            let nth = |random: &mut Random| 1 + random.below(4) as u64;
            return draw(&|random| Fate::Failpoint(random.pick(self.steps), nth(random)));
        }
        let draw = if self.idle { idle_fates } else { random_fates };
        Fates { draining: vec![], ..draw(self.mode, RUNS, random) }
    }
}

/// How many jobs a missing rule may survive.
const JOBS: u64 = 12;

/// Runs jobs without the rule until one is wrong, and returns what was. `Ok(None)`: there are no
/// services. An error: nobody noticed.
pub fn caught(control: &Control, seed: u64) -> Result<Option<String>, String> {
    let rule = control.rule;
    let mut tally = Tally::default();
    let mut random = Random::new(seed);
    for job in 0..JOBS {
        let mut env = vec![("STREAMKIT_BREAK".to_owned(), rule.to_owned())];
        env.extend(control.slow.map(|slow| ("STREAMKIT_SLOW".to_owned(), slow.to_owned())));
        let plan = Plan {
            mode: control.mode,
            seed: seed.wrapping_mul(1_000).wrapping_add(job),
            events: 2_000,
            fates: control.fates(&mut random),
            checkpoints: Some(control.checkpoints.to_owned()),
            idle: control.idle,
            insists: false,
            settings: control.settings,
            env,
        };
        match live(&plan, &mut tally) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(problem) => return Ok(Some(format!("job {job}: {problem}"))),
        }
    }
    Err(format!("{rule}: {JOBS} jobs without it were right: {}", tally.line()))
}
