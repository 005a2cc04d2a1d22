//! The life of one job: runs that end before their time, the drain, and the comparison.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::app::{self, App, Ended};
use super::fate::{self, Ending, Fate, Fates, Mode};
use super::input;
use super::place::Place;
use super::tables::finals_problem;
use super::tally::Tally;
use super::watch::Watch;
use crate::oracle::generate::Random;

/// Without a record for so long, a split is idle, where any is.
fn idle_timeout(mode: Mode) -> &'static str {
    if mode == Mode::Embedded { "100ms" } else { "200ms" }
}

/// How often a run is to reach a step that it has to reach: it may have had to wait for something
/// else.
const TRIES: u32 = 3;

/// What a job is like.
#[derive(Debug, Clone)]
pub struct Plan {
    pub mode: Mode,
    pub seed: u64,
    pub events: usize,
    pub fates: Fates,
    /// The time between checkpoints; at random if it is not said.
    pub checkpoints: Option<String>,
    /// Whether splits go idle and come back. Then the floors say what is late, and so what there
    /// has to be is known only at the end.
    pub idle: bool,
    /// Whether a step that a run has not reached is aimed at once more: that run may have had to
    /// wait for something else.
    pub insists: bool,
    /// Other settings, as `--name=value`.
    pub settings: &'static [&'static str],
    /// More of the environment: a rule that is taken away, a step that is slow.
    pub env: Vec<(String, String)>,
}

/// Lives it. An error says what was wrong; `Ok(false)`: there are no services.
pub fn live(plan: &Plan, tally: &mut Tally) -> Result<bool, String> {
    let splits = input::splits(plan.mode, plan.events, plan.seed);
    let disk = plan.fates.any(|fate| matches!(fate, Fate::DiskFull(..)));
    let Some(place) = Place::new(plan.mode, splits, plan.seed, disk) else { return Ok(false) };
    let watch = Watch::start(place.reader(), (!plan.idle).then(|| place.expected.clone()));
    let mut life = Life { plan, place, random: Random::new(!plan.seed), run: 0 };
    let lived = catch_unwind(AssertUnwindSafe(|| life.run_all(tally)));
    let seen = watch.finish();
    tally.looks += seen.times;
    let problem = seen.problem.or_else(|| match &lived {
        Ok(Ok(())) => finals_problem(&seen.finals, &life.place.expected),
        _ => None,
    });
    let lived = match (lived, problem) {
        (Ok(Ok(())), None) => Ok(()),
        (_, Some(problem)) => Err(format!("while it was running: {problem}")),
        (Ok(Err(problem)), None) => Err(problem),
        (Err(panic), None) => Err(words_of(&*panic)),
    };
    let expected = &life.place.expected;
    let tables = expected.page_view_counts.len()
        + expected.active_users.len()
        + expected.user_sessions.len();
    let rows =
        tables + 2 * expected.accepted_rows.len() + expected.late.len() + expected.dead.len();
    let read = expected.read;
    lived.map_err(|problem| {
        let run = life.run;
        let folder = match plan.env.is_empty() {
            true => format!("; its files: {}", life.place.keep().display()),
            false => String::new(),
        };
        format!("seed {} after run {run}: {problem}{folder}", plan.seed)
    })?;
    tally.jobs += 1;
    tally.records += read;
    tally.compared += rows as u64;
    Ok(true)
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    let text = owned.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

/// A job that is being lived.
pub struct Life<'a> {
    pub plan: &'a Plan,
    pub place: Place,
    random: Random,
    /// The number of the newest run.
    pub run: usize,
}

impl Life<'_> {
    fn run_all(&mut self, tally: &mut Tally) -> Result<(), String> {
        let Fates { running, draining } = &self.plan.fates;
        let step = 1.0 / (running.len() as f64 + 1.0);
        for (i, fate) in running.iter().enumerate() {
            self.meet(fate, false, [i as f64 * step, (i + 1) as f64 * step], tally)?;
        }
        self.place.quieten_none();
        self.place.feed(1.0);
        for fate in draining {
            self.meet(fate, true, [1.0, 1.0], tally)?;
        }
        self.drain(tally)
    }

    /// A run that ends before its time; with the run that has to be before it, and again if it was
    /// to reach a step and has not. Each of them gets a part of the input: many a step is only passed
    /// if there is something to commit.
    fn meet(
        &mut self,
        fate: &Fate,
        draining: bool,
        [from, to]: [f64; 2],
        tally: &mut Tally,
    ) -> Result<(), String> {
        let (before, again) = match *fate {
            Fate::Failpoint(name, _) => (fate::before(name), Fate::Failpoint(name, 1)),
            Fate::Compaction(_, Ending::At(_)) => (None, fate.clone()),
            _ => return self.suffer(fate, draining, [from, to], tally),
        };
        let tries = if self.plan.insists { TRIES } else { 1 };
        let runs = tries * if before.is_some() { 2 } else { 1 };
        let mut parts = (0..runs)
            .map(|i| [i, i + 1].map(|i| from + (to - from) * f64::from(i) / f64::from(runs)));
        let mut part = || parts.next().unwrap_or([to; 2]);
        for attempt in 0..tries {
            if let Some(before) = before {
                self.suffer(before, draining, part(), tally)?;
            }
            let reached = tally.at_failpoints();
            let fate = if attempt == 0 { fate } else { &again };
            self.suffer(fate, draining, part(), tally)?;
            if tally.at_failpoints() > reached {
                break;
            }
        }
        Ok(())
    }

    /// For something that draws as often as it likes.
    pub fn another_random(&mut self) -> Random {
        Random::new(self.random.next_u64())
    }

    /// Whether a run of this job is to end while a sink is caught up with: that takes checkpoints
    /// ahead of a sink in the runs before.
    fn catches_up(&self) -> bool {
        let aims =
            |fate: &Fate| matches!(fate, Fate::Failpoint(at, _) if at.starts_with("catch_up."));
        self.plan.fates.any(aims)
    }

    /// Starts a run.
    pub fn start(&mut self, draining: bool, fate: Option<&Fate>, more: &[&str]) -> App {
        self.run += 1;
        let mut args = self.place.args();
        let mut env = self.plan.env.clone();
        let mut checkpoints = self.random.pick(&["20ms", "200ms", "10m"]);
        if let Some(Fate::Failpoint(name, nth)) = fate {
            env.push(("STREAMKIT_FAILPOINT".to_owned(), format!("{name}:{nth}")));
            if name.starts_with("log.") || name.starts_with("coordinator.") {
                checkpoints = "20ms";
            }
        }
        if self.catches_up() {
            checkpoints = "20ms";
        }
        let checkpoints = self.plan.checkpoints.as_deref().unwrap_or(checkpoints);
        // Without it some steps need a hundred thousand rows, or five minutes.
        let needed = match fate {
            Some(Fate::Failpoint(name, _)) => {
                ["lake.", "postgres."].iter().any(|area| name.starts_with(area))
            }
            Some(Fate::DiskFull(..) | Fate::Compaction(..)) => true,
            _ => false,
        };
        if needed || (self.random.below(2) == 0 && !self.catches_up()) {
            env.push(("STREAMKIT_SMALL".to_owned(), "1".to_owned()));
        }
        let running = self.random.pick(&["20ms", "200ms", "2s", "off"]);
        let workers = self.random.pick(&["1", "2", "3"]);
        let mut catch_up = self.random.pick(&["0", "300", "100000"]);
        if self.catches_up() {
            catch_up = "0";
        }
        let detach = self.random.pick(&["1ms", "10s"]);
        let settings = [
            ("--checkpoint-interval", checkpoints),
            ("--running-values", running),
            ("--workers", workers),
            ("--catch-up-beyond", catch_up),
            ("--detach-after", detach),
            // Whether a split was idle is not in the data, so results depend on it.
            ("--idle-timeout", if self.plan.idle { idle_timeout(self.plan.mode) } else { "off" }),
        ];
        let is_set = |name: &str| self.plan.settings.iter().any(|set| set.starts_with(name));
        let settings = settings.iter().filter(|(name, _)| !is_set(name));
        args.extend(settings.map(|(name, value)| format!("{name}={value}")));
        args.extend(self.plan.settings.iter().map(|set| (*set).to_owned()));
        args.extend(draining.then(|| "--until-end".to_owned()));
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        App::start(self.place.folder(), &format!("run-{}.log", self.run), &args, &env)
    }

    /// The run to the end that nothing befalls, and what it has to leave.
    fn drain(&mut self, tally: &mut Tally) -> Result<(), String> {
        let mut app = self.start(true, None, &["--summary-json", "summary.json"]);
        let ended = app.wait()?;
        tally.runs += 1;
        if ended != Ended::Code(0) {
            return Err(format!("the last run ended with {ended:?}: {}", app.last_words()));
        }
        self.check_lake()?;
        if self.plan.idle {
            tally.floors += self.take_floors()?;
        }
        self.place.check();
        self.check_summary()
    }

    /// What the lake says of itself, after a compaction that nothing befalls if others were killed.
    fn check_lake(&self) -> Result<(), String> {
        if self.plan.fates.any(|fate| matches!(fate, Fate::Compaction(..))) {
            self.tool(&["lake", "compact"])?;
        }
        self.tool(&["lake", "verify"]).map(drop)
    }

    /// The oracle cannot know which splits were idle when; the program tells which floors that has
    /// led to (rule T9).
    fn take_floors(&mut self) -> Result<u64, String> {
        let shown = self.tool(&["checkpoint", "show", "--json"])?;
        let shown: serde_json::Value = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
        self.place.take_floors(&shown["floors"])
    }

    /// What a command of the program says.
    fn tool(&self, command: &[&str]) -> Result<String, String> {
        app::tool(self.place.folder(), &self.place.tool(command))
    }

    /// What the program itself says of the whole job (rule D13). A last run that found nothing
    /// left to do has counted nothing.
    fn check_summary(&self) -> Result<(), String> {
        let text = std::fs::read_to_string(self.place.folder().join("summary.json"));
        let text = text.map_err(|e| format!("summary.json: {e}"))?;
        let found: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        if found["read"] == 0 {
            return Ok(());
        }
        let expected = &self.place.expected;
        let late = expected.late_by_aggregate();
        let late = |table: &str| late.get(table).copied().unwrap_or(0);
        let wanted = serde_json::json!({
            "read": expected.read,
            "accepted": expected.accepted,
            "dead_letters": expected.dead_by_reason(),
            "late": {
                "page_view_counts": late("page_view_counts"),
                "active_users": late("active_users"),
                "user_sessions": late("user_sessions"),
            },
            "rows": {
                "page_view_counts": expected.page_view_counts.len(),
                "active_users": expected.active_users.len(),
                "user_sessions": expected.user_sessions.len(),
                "lake": expected.accepted,
                "enriched": expected.accepted,
            },
        });
        for (name, wanted) in wanted.as_object().into_iter().flatten() {
            if found[name] != *wanted {
                return Err(format!("summary: {name} is {}, and should be {wanted}", found[name]));
            }
        }
        Ok(())
    }
}
