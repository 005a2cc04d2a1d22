//! The life of one job: runs that end before their time, the drain, and the comparison.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use streamkit::time::{Clock, SystemClock};

use super::app::{App, Ended};
use super::fate::{Fate, Fates, Mode};
use super::input;
use super::place::Place;
use super::watch::Watch;
use crate::oracle::generate::Random;

/// How long a run may take to reach its failpoint.
fn reach(mode: Mode) -> Duration {
    Duration::from_secs(if mode == Mode::Embedded { 6 } else { 12 })
}
const LOOK: Duration = Duration::from_millis(5);

/// What a job is like.
#[derive(Debug, Clone)]
pub struct Plan {
    pub mode: Mode,
    pub seed: u64,
    pub events: usize,
    pub fates: Fates,
    /// The time between checkpoints; at random if it is not said.
    pub checkpoints: Option<&'static str>,
    /// Other settings, as `--name=value`.
    pub settings: &'static [&'static str],
    /// More of the environment: a rule that is taken away, a step that is slow.
    pub env: Vec<(String, String)>,
}

/// Counts what has happened.
#[derive(Debug, Default)]
pub struct Tally {
    pub jobs: u64,
    pub runs: u64,
    pub kills: u64,
    pub stops: u64,
    pub pauses: u64,
    pub outages: u64,
    /// How often the network to PostgreSQL was cut.
    pub cuts: u64,
    /// By failpoint: how often it was tried, and how often it was reached.
    pub failpoints: BTreeMap<&'static str, (u64, u64)>,
    /// Records of the input.
    pub records: u64,
    /// Rows of tables, lake and topics that were compared with the oracle.
    pub compared: u64,
    /// How often the tables were read meanwhile.
    pub looks: u64,
}

impl Tally {
    /// Runs that ended by a kill or at a failpoint.
    pub fn deaths(&self) -> u64 {
        self.kills + self.failpoints.values().map(|(_, reached)| reached).sum::<u64>()
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let reached = self.failpoints.values().filter(|(_, reached)| *reached > 0).count();
        format!(
            "{} jobs, {} runs: {} killed ({} at {} different failpoints), {} stopped, {} paused, \
             {} outages of a service, network cut {} times; {} records, {} rows compared, tables read {} times meanwhile",
            self.jobs,
            self.runs,
            self.deaths(),
            self.deaths() - self.kills,
            reached,
            self.stops,
            self.pauses,
            self.outages,
            self.cuts,
            self.records,
            self.compared,
            self.looks
        )
    }
}

/// Lives it. An error says what was wrong; `Ok(false)`: there are no services.
pub fn live(plan: &Plan, tally: &mut Tally) -> Result<bool, String> {
    let splits = input::splits(plan.mode, plan.events, plan.seed);
    let Some(place) = Place::new(plan.mode, splits, plan.seed) else { return Ok(false) };
    let watch = Watch::start(place.reader(), place.expected.clone());
    let mut life = Life { plan, place, random: Random::new(!plan.seed), run: 0 };
    let lived = catch_unwind(AssertUnwindSafe(|| life.run_all(tally)));
    let seen = watch.finish();
    tally.looks += seen.times;
    let lived = match (lived, seen.problem) {
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

struct Life<'a> {
    plan: &'a Plan,
    place: Place,
    random: Random,
    run: usize,
}

impl Life<'_> {
    fn run_all(&mut self, tally: &mut Tally) -> Result<(), String> {
        let Fates { running, draining } = &self.plan.fates;
        let step = 1.0 / (running.len() as f64 + 1.0);
        for (i, fate) in running.iter().enumerate() {
            self.suffer(fate, false, [i as f64 * step, (i + 1) as f64 * step], tally)?;
        }
        self.place.feed(1.0);
        for fate in draining {
            self.suffer(fate, true, [1.0, 1.0], tally)?;
        }
        self.drain(tally)
    }

    fn start(&mut self, draining: bool, fate: Option<&Fate>, more: &[&str]) -> App {
        self.run += 1;
        let mut args = self.place.args();
        let mut env = self.plan.env.clone();
        let mut checkpoints =
            self.plan.checkpoints.unwrap_or_else(|| self.random.pick(&["20ms", "200ms", "10m"]));
        if let Some(Fate::Failpoint(name, nth)) = fate {
            env.push(("STREAMKIT_FAILPOINT".to_owned(), format!("{name}:{nth}")));
            if name.starts_with("log.") || name.starts_with("coordinator.") {
                checkpoints = "20ms";
            }
        }
        // Without it some steps need a hundred thousand rows, or five minutes.
        let steps = ["lake.", "postgres."];
        let needed = matches!(fate, Some(Fate::Failpoint(name, _)) if steps.iter().any(|s| name.starts_with(s)));
        if needed || self.random.below(2) == 0 {
            env.push(("STREAMKIT_SMALL".to_owned(), "1".to_owned()));
        }
        let running = self.random.pick(&["20ms", "200ms", "2s", "off"]);
        let workers = self.random.pick(&["1", "2", "3"]);
        let settings = [
            ("--checkpoint-interval", checkpoints),
            ("--running-values", running),
            ("--workers", workers),
        ];
        let is_set = |name: &str| self.plan.settings.iter().any(|set| set.starts_with(name));
        let settings = settings.iter().filter(|(name, _)| !is_set(name));
        args.extend(settings.map(|(name, value)| format!("{name}={value}")));
        args.extend(self.plan.settings.iter().map(|set| (*set).to_owned()));
        args.extend(draining.then(|| "--until-end".to_owned()));
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        App::start(self.place.folder(), &format!("run-{}.log", self.run), &args, &env)
    }

    /// One run that ends before its time, while the input grows from one share to another.
    fn suffer(
        &mut self,
        fate: &Fate,
        draining: bool,
        [from, to]: [f64; 2],
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.place.feed(from);
        let mut app = self.start(draining, Some(fate), &[]);
        let clock = SystemClock::new();
        let mut share = from;
        let mut feed_until = |place: &mut Place, time: Duration, app: &mut App| loop {
            if app.ended().is_some() || clock.elapsed() >= time {
                return;
            }
            // A tenth at a time; the rest comes before the next run.
            if share < to && clock.elapsed() > Duration::from_millis(100) {
                share = to.min(share + (to - from) / 10.0);
                place.feed(share);
            }
            std::thread::sleep(LOOK);
        };
        let mut gives_up = false;
        let ended = match *fate {
            Fate::Kill(after) => {
                feed_until(&mut self.place, after, &mut app);
                app.kill()
            }
            Fate::Failpoint(name, _) => {
                let clock = SystemClock::new();
                // A sink has to have the time to come back.
                let loses_its_sink = name == "sink.recovering";
                let look = Duration::from_millis(if loses_its_sink { 4_000 } else { 200 });
                while app.ended().is_none() && clock.elapsed() < reach(self.plan.mode) {
                    let pause = clock.elapsed() + look;
                    feed_until(&mut self.place, pause, &mut app);
                    if loses_its_sink {
                        self.place.end_sessions();
                    }
                }
                let ended = match app.ended() {
                    Some(ended) => ended,
                    // It may be passed on the way out.
                    None => {
                        app.signal("-TERM");
                        app.wait()?
                    }
                };
                let count = tally.failpoints.entry(name).or_default();
                count.0 += 1;
                count.1 += u64::from(ended.at_failpoint());
                ended
            }
            Fate::Stop(after) => {
                feed_until(&mut self.place, after, &mut app);
                app.signal("-TERM");
                app.wait()?
            }
            Fate::Pause(after, long) => {
                feed_until(&mut self.place, after, &mut app);
                app.signal("-STOP");
                std::thread::sleep(long);
                app.signal("-CONT");
                tally.pauses += 1;
                feed_until(&mut self.place, after + long + after, &mut app);
                app.kill()
            }
            Fate::TakenOver(after) => {
                feed_until(&mut self.place, after, &mut app);
                app.signal("-STOP");
                let mut second = self.start(draining, Some(fate), &["--take-over"]);
                feed_until(&mut self.place, 2 * after + Duration::from_secs(4), &mut second);
                app.signal("-CONT");
                tally.pauses += 1;
                feed_until(&mut self.place, 2 * after + Duration::from_secs(5), &mut second);
                // Who was shut out ends by itself; which of them that is depends on how far the
                // first one had got with its start.
                gives_up = true;
                app.kill();
                second.kill()
            }
            Fate::Network(after, long) => {
                feed_until(&mut self.place, after, &mut app);
                let cuts = self.place.network(true);
                feed_until(&mut self.place, after + long, &mut app);
                tally.cuts += self.place.network(false) - cuts;
                gives_up = true;
                feed_until(&mut self.place, after + long + Duration::from_secs(2), &mut app);
                app.kill()
            }
            Fate::Database(after) | Fate::Broker(after) => {
                let name = if matches!(fate, Fate::Database(_)) { "postgres" } else { "kafka" };
                feed_until(&mut self.place, after, &mut app);
                self.place.outage(name, Duration::from_millis(500));
                tally.outages += 1;
                gives_up = true;
                feed_until(&mut self.place, after * 2 + Duration::from_secs(5), &mut app);
                app.kill()
            }
        };
        tally.runs += 1;
        match ended {
            Ended::Signal(9) => tally.kills += 1,
            Ended::Signal(6) if matches!(fate, Fate::Failpoint(..)) => {}
            Ended::Code(0) if draining => {}
            // SIGTERM before there is anybody to hear it.
            Ended::Signal(15) if matches!(fate, Fate::Stop(_)) => tally.stops += 1,
            Ended::Code(0) if matches!(fate, Fate::Stop(_) | Fate::Failpoint(..)) => {
                tally.stops += 1;
            }
            // It may give up while a service is away, or after another process took over, if the
            // next start goes on.
            Ended::Code(_) if gives_up => {}
            ended => {
                return Err(format!("{fate:?}: it ended with {ended:?}: {}", app.last_words()));
            }
        }
        Ok(())
    }

    /// The run to the end that nothing befalls, and what it has to leave.
    fn drain(&mut self, tally: &mut Tally) -> Result<(), String> {
        let mut app = self.start(true, None, &["--summary-json", "summary.json"]);
        let ended = app.wait()?;
        tally.runs += 1;
        if ended != Ended::Code(0) {
            return Err(format!("the last run ended with {ended:?}: {}", app.last_words()));
        }
        self.place.check();
        self.check_summary()
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
