//! The test's own test: a program with one rule taken away must not pass.

use std::time::Duration;

use super::fate::{Fate, Fates, Mode, random_fates};
use super::life::{Plan, Tally, live};
use crate::oracle::generate::Random;

/// How a missing rule is made to matter.
struct Control {
    rule: &'static str,
    mode: Mode,
    /// At which steps runs end, again and again; at random times if there is none.
    steps: &'static [&'static str],
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
    Control { steps: &["postgres.before_begin"], ..of("postgres.one_transaction", Mode::Services) },
    Control { steps: &["kafka.before_progress"], ..of("kafka.one_transaction", Mode::Services) },
];

const fn of(rule: &'static str, mode: Mode) -> Control {
    Control {
        rule,
        mode,
        steps: &[],
        checkpoints: "200ms",
        settings: &[],
        slow: None,
        kills_after: None,
    }
}

/// The rules that there is a control for.
pub fn rules(mode: Mode) -> Vec<&'static str> {
    CONTROLS.iter().filter(|c| c.mode == mode).map(|c| c.rule).collect()
}

/// How many jobs a missing rule may survive.
const JOBS: u64 = 12;

/// Runs jobs without the rule until one is wrong, and returns what was. `Ok(None)`: there are no
/// services. An error: nobody noticed.
pub fn caught(rule: &str, seed: u64) -> Result<Option<String>, String> {
    let control = CONTROLS.iter().find(|control| control.rule == rule);
    let control = control.ok_or_else(|| format!("there is no control for {rule}"))?;
    let mut tally = Tally::default();
    let mut random = Random::new(seed);
    for job in 0..JOBS {
        let mut fates = match control.steps {
            [] => Fates { draining: vec![], ..random_fates(control.mode, 6, &mut random) },
            steps => {
                let step = |_| Fate::Failpoint(random.pick(steps), 1 + random.below(4) as u64);
                Fates { running: (0..6).map(step).collect(), draining: vec![] }
            }
        };
        if let Some(millis) = control.kills_after {
            let mut kill = || Fate::Kill(Duration::from_millis(millis + random.below(600) as u64));
            fates.running.fill_with(&mut kill);
        }
        let mut env = vec![("STREAMKIT_BREAK".to_owned(), rule.to_owned())];
        env.extend(control.slow.map(|slow| ("STREAMKIT_SLOW".to_owned(), slow.to_owned())));
        let plan = Plan {
            mode: control.mode,
            seed: seed.wrapping_mul(1_000).wrapping_add(job),
            events: 2_000,
            fates,
            checkpoints: Some(control.checkpoints),
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
