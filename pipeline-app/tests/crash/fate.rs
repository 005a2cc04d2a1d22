//! What befalls one run of the program.

use std::time::Duration;

use streamkit::failpoint::FAILPOINTS;

use crate::oracle::generate::Random;

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Kafka,
    Postgres,
}

/// The fate of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// `kill -9` after this time.
    Kill(Duration),
    /// The process ends at the n-th passing of a step.
    Failpoint(&'static str, u64),
    /// SIGTERM after this time: a graceful stop.
    Stop(Duration),
    /// Stands still after the first time for the second one (SIGSTOP, SIGCONT), and is killed
    /// after the first one again.
    Pause(Duration, Duration),
    /// Stands still after this time; a second process takes over, and then the first one goes on.
    TakenOver(Duration),
    /// After the first time the network to a service fails again and again for the second one.
    Network(Server, Duration, Duration, Leaving),
    /// A service is killed after this time, and started again.
    Outage(Server, Duration),
    /// After the first time there is no room for the lake and for checkpoints, for the second one.
    DiskFull(Duration, Duration),
    /// The lake is compacted beside the program, after this time at the earliest: killed at a step
    /// or at random, or to its end. Then the program is killed.
    Compaction(Duration, Ending),
}

/// How a run ends whose network fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// By SIGTERM, after a moment of peace: so all that is wrong then is the network's fault.
    Stopped,
    /// By `kill -9` while it fails: Kafka's client makes good what a cut does to it, and only a kill
    /// makes the program find out by itself what came of a commit.
    Killed,
}

/// How a compaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    At(&'static str),
    /// `kill -9` after this time, if it still runs.
    Killed(Duration),
}

/// Which outputs a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Files in; SQLite, a lake and files out.
    Embedded,
    /// Kafka in; PostgreSQL, a lake and Kafka out.
    Services,
}

/// Steps of a first start, and steps of the end of the input, in their order. (A job whose splits
/// are never idle has facts to write at these times only.)
const FIRST: &[&str] = &["recovery.lineage_made", "log.before_fact", "log.after_fact"];
const LAST: &[&str] = &[
    "log.before_fact",
    "log.after_fact",
    "coordinator.closed",
    "coordinator.end_reached",
    "coordinator.end_sent",
];
/// Steps that a job also passes in between if its splits go idle and come back.
pub const FACTS: &[&str] = &["log.before_fact", "log.after_fact"];

/// Steps that a run only passes if the one before ended at another, and which passing of that: a
/// claim of the lake is its first manifest, and has no files to move; the first checkpoints of a run
/// may be written before anything is read, and then they are not ahead of the lake.
const AFTER: &[(&str, Fate)] = &[
    ("lake.before_redo", Fate::Failpoint("lake.after_manifest", 2)),
    ("lake.redone", Fate::Failpoint("lake.after_manifest", 2)),
    ("lines.truncated", Fate::Failpoint("lines.after_append", 3)),
    ("catch_up.opened", Fate::Failpoint("coordinator.checkpointed", 20)),
    ("catch_up.sent", Fate::Failpoint("coordinator.checkpointed", 20)),
];

/// What has to befall the run before, if one is to pass this step.
pub fn before(step: &str) -> Option<&'static Fate> {
    AFTER.iter().find(|(of, _)| *of == step).map(|(_, fate)| fate)
}

/// The steps that a job of this mode passes.
pub fn failpoints(mode: Mode) -> Vec<&'static str> {
    let elsewhere: &[&str] = match mode {
        // Nothing fails there without ending the process, so no sink recovers.
        Mode::Embedded => &["postgres.", "kafka.", "sink.recovering"],
        Mode::Services => &["sqlite.", "lines."],
    };
    let passed = |name: &&str| !elsewhere.iter().any(|area| name.starts_with(area));
    FAILPOINTS.iter().copied().filter(passed).collect()
}

/// The fates of one job, in order: while its input grows, and while it is drained.
#[derive(Debug, Clone, Default)]
pub struct Fates {
    pub running: Vec<Fate>,
    pub draining: Vec<Fate>,
}

impl Fates {
    /// The number of runs that end before their time.
    pub fn len(&self) -> usize {
        self.running.len() + self.draining.len()
    }

    pub fn any(&self, is: impl Fn(&Fate) -> bool) -> bool {
        self.running.iter().chain(&self.draining).any(is)
    }
}

/// Steps of a mode `visits` times (the first passing, and later ones), among kills at random times;
/// as many jobs as that takes, of about `runs` runs each. All steps, or those in `only`.
pub fn all_failpoints(
    mode: Mode,
    only: &[&str],
    visits: u64,
    runs: usize,
    random: &mut Random,
) -> Vec<Fates> {
    let asked = |name: &&'static str| only.is_empty() || only.contains(name);
    let names: Vec<_> = failpoints(mode).into_iter().filter(asked).collect();
    let mut middle: Vec<Fate> = vec![];
    for visit in 0..visits {
        for &name in names.iter().filter(|name| !FIRST.contains(name) && !LAST.contains(name)) {
            let nth = match visit {
                0 => 1,
                // What happens once in a start happens once.
                _ if before(name).is_some() => 1,
                _ => 1 + random.below(5) as u64,
            };
            middle.push(at_step(name, nth));
        }
    }
    random.shuffle(&mut middle);
    let once = |steps: &[&'static str], all: bool| {
        let steps = steps.iter().filter(|step| all && names.contains(step));
        steps.map(|&name| Fate::Failpoint(name, 1)).collect::<Vec<_>>()
    };
    let mut jobs: Vec<Fates> = vec![];
    let mut middle = middle.into_iter().peekable();
    loop {
        let all = (jobs.len() as u64) < visits;
        let (mut running, draining) = (once(FIRST, all), once(LAST, all));
        if running.is_empty() && draining.is_empty() && middle.peek().is_none() {
            return jobs;
        }
        while running.len() < runs
            && let Some(fate) = middle.next()
        {
            running.push(fate);
            if random.below(3) == 0 {
                running.push(at_random(mode, random));
            }
        }
        jobs.push(Fates { running, draining });
    }
}

/// A compaction is a process of its own, so what ends at its steps is that one.
fn at_step(name: &'static str, nth: u64) -> Fate {
    match name.starts_with("compact.") {
        true => Fate::Compaction(Duration::from_millis(300), Ending::At(name)),
        false => Fate::Failpoint(name, nth),
    }
}

/// A job of `runs` runs that end at random.
pub fn random_fates(mode: Mode, runs: usize, random: &mut Random) -> Fates {
    let draining = runs / 5;
    let mut draw = |n: usize| (0..n).map(|_| at_random(mode, random)).collect();
    Fates { running: draw(runs - draining), draining: draw(draining) }
}

/// The same for a job whose splits go idle and come back: runs last long enough for that, and some
/// end at the facts that this makes.
pub fn idle_fates(mode: Mode, runs: usize, random: &mut Random) -> Fates {
    let mut fates = random_fates(mode, runs, random);
    for fate in &mut fates.running {
        match fate {
            Fate::Kill(after) | Fate::Stop(after) => *after = *after * 2 + Duration::from_secs(1),
            _ => {}
        }
        if random.below(3) == 0 {
            *fate = Fate::Failpoint(random.pick(FACTS), 1 + random.below(6) as u64);
        }
    }
    // The first run has other facts to write.
    fates.running.insert(0, Fate::Stop(Duration::from_secs(2)));
    fates
}

/// Among the fates of a job, outages of the services; not before steps of a first start, which would
/// then not be the first.
pub fn with_outages(mut fates: Fates, random: &mut Random) -> Fates {
    let is_first = |fate: &&Fate| matches!(fate, Fate::Failpoint(at, _) if FIRST.contains(at));
    let first = fates.running.iter().take_while(is_first).count();
    for server in [Server::Postgres, Server::Kafka] {
        let time = Duration::from_millis(3_000 + random.below(4_000) as u64);
        let at = first + random.below((fates.running.len() - first) as i64 + 1) as usize;
        fates.running.insert(at, Fate::Outage(server, time));
    }
    fates
}

fn at_random(mode: Mode, random: &mut Random) -> Fate {
    let longest = match mode {
        Mode::Embedded => 700,
        Mode::Services => 6_000,
    };
    let mut time = |most: i64| Duration::from_millis(random.below(most) as u64);
    let (after, long, short) = (time(longest), time(1_000), time(100));
    let services = mode == Mode::Services;
    match random.below(12) {
        0 if services && random.below(2) == 0 => Fate::TakenOver(after),
        0 => Fate::Stop(after),
        1 if services && random.below(3) > 0 => {
            let server = random.pick(&[Server::Kafka, Server::Postgres]);
            match random.below(2) {
                0 => Fate::Network(server, after, Duration::from_secs(6), Leaving::Stopped),
                _ => Fate::Network(server, after, 3 * long, Leaving::Killed),
            }
        }
        1 => Fate::Pause(after, long),
        2..4 => {
            let names = failpoints(mode);
            at_step(random.pick(&names), 1 + random.below(20) as u64)
        }
        4 => Fate::DiskFull(after, long),
        5 => Fate::Compaction(after, Ending::Killed(short)),
        _ => Fate::Kill(after),
    }
}
