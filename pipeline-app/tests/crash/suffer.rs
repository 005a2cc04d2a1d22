//! One run that ends before its time.

use std::time::Duration;

use streamkit::time::{Clock, SystemClock};

use super::app::{App, Ended};
use super::fate::{Ending, FACTS, Fate, Leaving, Mode, Server};
use super::feeder::Feeder;
use super::life::Life;
use super::tally::Tally;

/// How long a run may take to reach its failpoint.
fn reach(mode: Mode) -> Duration {
    Duration::from_secs(if mode == Mode::Embedded { 6 } else { 12 })
}

/// How long no record comes for a split that is to be idle.
fn pause(mode: Mode) -> Duration {
    Duration::from_millis(if mode == Mode::Embedded { 150 } else { 500 })
}

impl Fate {
    /// For people.
    fn name(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill -9 at random",
            Self::Failpoint(..) => "failpoint aimed at",
            Self::Stop(_) => "SIGTERM",
            Self::Pause(..) => "SIGSTOP and SIGCONT",
            Self::TakenOver(_) => "take-over",
            Self::Network(Server::Kafka, .., Leaving::Stopped) => "network to Kafka fails",
            Self::Network(Server::Kafka, .., Leaving::Killed) => {
                "kill -9 while that to Kafka fails"
            }
            Self::Network(Server::Postgres, .., Leaving::Stopped) => "network to PostgreSQL fails",
            Self::Network(Server::Postgres, .., Leaving::Killed) => {
                "kill -9 while that to PostgreSQL fails"
            }
            Self::Outage(Server::Kafka, _) => "outage of Kafka",
            Self::Outage(Server::Postgres, _) => "outage of PostgreSQL",
            Self::DiskFull(..) => "disk full",
            Self::Compaction(..) => "compaction of the lake",
        }
    }
}

/// A fact of idleness or of a floor is written at the same step as those of a first start.
fn fact_of_idleness(step: &'static str) -> &'static str {
    match step {
        "log.before_fact" => "log.before_fact (idleness)",
        _ => "log.after_fact (idleness)",
    }
}

/// The steps that only jobs with idle splits reach.
pub fn facts_of_idleness() -> [&'static str; 2] {
    [FACTS[0], FACTS[1]].map(fact_of_idleness)
}

impl Life<'_> {
    /// One run that ends before its time, while the input grows from one share to another.
    pub fn suffer(
        &mut self,
        fate: &Fate,
        draining: bool,
        shares: [f64; 2],
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.place.feed(shares[0]);
        let mut app = self.start(draining, Some(fate), &[]);
        let idle = self.plan.idle && !draining;
        let idle = idle.then(|| (pause(self.plan.mode), self.another_random()));
        let mut feed = Feeder::new(shares, idle);
        let second = Duration::from_secs(1);
        // Whether the program may end by itself, with an error.
        let mut gives_up = false;
        let ended = match *fate {
            Fate::Kill(after) => {
                feed.until(after, &mut self.place, &mut app);
                app.kill()
            }
            Fate::Failpoint(name, _) => self.wait_for_step(name, &mut feed, &mut app, tally)?,
            Fate::Stop(after) => {
                feed.until(after, &mut self.place, &mut app);
                app.signal("-TERM");
                app.wait()?
            }
            Fate::Pause(after, long) => {
                feed.until(after, &mut self.place, &mut app);
                app.signal("-STOP");
                std::thread::sleep(long);
                app.signal("-CONT");
                feed.until(after + long + after, &mut self.place, &mut app);
                app.kill()
            }
            Fate::TakenOver(after) => {
                feed.until(after, &mut self.place, &mut app);
                app.signal("-STOP");
                let mut other = self.start(draining, Some(fate), &["--take-over"]);
                feed.until(2 * after + 4 * second, &mut self.place, &mut other);
                app.signal("-CONT");
                feed.until(2 * after + 5 * second, &mut self.place, &mut other);
                // Who was shut out ends by itself; which of them that is depends on how far the
                // first one had got with its start.
                gives_up = true;
                app.kill();
                other.kill()
            }
            Fate::Network(server, after, long, leaving) => {
                feed.until(after, &mut self.place, &mut app);
                let cuts = self.place.network(server, true);
                feed.until(after + long, &mut self.place, &mut app);
                gives_up = true;
                let killed = (leaving == Leaving::Killed).then(|| app.kill());
                let cuts = self.place.network(server, false) - cuts;
                tally.fate("all connections cut", cuts);
                match killed {
                    Some(ended) => ended,
                    None => {
                        feed.until(after + long + 2 * second, &mut self.place, &mut app);
                        app.signal("-TERM");
                        app.wait()?
                    }
                }
            }
            Fate::Outage(server, after) => {
                feed.until(after, &mut self.place, &mut app);
                self.place.outage(server, second / 2);
                gives_up = true;
                feed.until(after * 2 + 5 * second, &mut self.place, &mut app);
                app.kill()
            }
            Fate::DiskFull(after, long) => {
                feed.until(after, &mut self.place, &mut app);
                let full = self.place.fill_disk();
                feed.until(after + long, &mut self.place, &mut app);
                full.free();
                // A fact that cannot be written ends the program.
                gives_up = true;
                feed.until(after + long + second, &mut self.place, &mut app);
                app.kill()
            }
            Fate::Compaction(after, ending) => {
                feed.until(after, &mut self.place, &mut app);
                // One that is to reach a step needs small files of one date.
                let patience = match ending {
                    Ending::At(_) => reach(self.plan.mode),
                    Ending::Killed(_) => after + second,
                };
                let mut done = false;
                while !done && app.ended().is_none() && feed.elapsed() < patience {
                    feed.until(feed.elapsed() + second / 20, &mut self.place, &mut app);
                    done = self.place.has_files_to_merge() && self.compact(ending, tally)?;
                }
                if let Ending::At(name) = ending {
                    tally.aimed_at(name, done);
                }
                feed.until(feed.elapsed() + second / 5, &mut self.place, &mut app);
                app.kill()
            }
        };
        tally.runs += 1;
        let name = match fate {
            Fate::DiskFull(..) if !self.place.has_disk() => "disk full (there was none: a kill)",
            fate => fate.name(),
        };
        tally.fate(name, 1);
        match ended {
            Ended::Signal(9) => tally.kills += 1,
            Ended::Signal(6) if matches!(fate, Fate::Failpoint(..)) => {}
            Ended::Code(0) if draining => {}
            // SIGTERM before there is anybody to hear it.
            Ended::Signal(15) if matches!(fate, Fate::Stop(_) | Fate::Network(..)) => {
                tally.stops += 1
            }
            Ended::Code(0)
                if matches!(fate, Fate::Stop(_) | Fate::Failpoint(..) | Fate::Network(..)) =>
            {
                tally.stops += 1;
            }
            // What a service or a disk could not do may end the program, though not with a panic; the
            // next run goes on.
            Ended::Code(code) if gives_up && code != 101 => {
                let said = app.last_words();
                println!("{fate:?}: given up: {}", said.lines().last().unwrap_or_default());
                tally.fate("given up by the program itself", 1);
            }
            ended => {
                let said = app.last_words();
                return Err(format!("{fate:?}: it ended with {ended:?}: {said}"));
            }
        }
        Ok(())
    }

    /// Until the run ends at its step, or so much time is over that it is asked to stop: the step
    /// may be passed on the way out.
    fn wait_for_step(
        &mut self,
        name: &'static str,
        feed: &mut Feeder,
        app: &mut App,
        tally: &mut Tally,
    ) -> Result<Ended, String> {
        // A sink has to have the time to come back.
        let loses_its_sink = name == "sink.recovering";
        let look = Duration::from_millis(if loses_its_sink { 4_000 } else { 200 });
        while app.ended().is_none() && feed.elapsed() < reach(self.plan.mode) {
            feed.until(feed.elapsed() + look, &mut self.place, app);
            if loses_its_sink {
                self.place.end_sessions();
            }
        }
        let ended = match app.ended() {
            Some(ended) => ended,
            None => {
                app.signal("-TERM");
                app.wait()?
            }
        };
        let idle = self.plan.idle && self.run > 1 && FACTS.contains(&name);
        let step = if idle { fact_of_idleness(name) } else { name };
        tally.aimed_at(step, ended.at_failpoint());
        Ok(ended)
    }

    /// A compaction beside the program, which is killed, or gets to its end. Whether it came to what
    /// was to end it.
    fn compact(&mut self, ending: Ending, tally: &mut Tally) -> Result<bool, String> {
        let mut env = self.plan.env.clone();
        if let Ending::At(name) = ending {
            env.push(("STREAMKIT_FAILPOINT".to_owned(), format!("{name}:1")));
        }
        let args = self.place.tool(&["lake", "compact"]);
        let log = format!("compact-{}.log", self.run);
        let mut tool = App::start(self.place.folder(), &log, &args, &env);
        let ended = match ending {
            Ending::At(_) => tool.wait()?,
            Ending::Killed(after) => {
                let clock = SystemClock::new();
                while tool.ended().is_none() && clock.elapsed() < after {
                    std::thread::sleep(Duration::from_millis(1));
                }
                tool.ended().unwrap_or_else(|| tool.kill())
            }
        };
        match (ending, ended) {
            (Ending::At(_), Ended::Signal(6)) => {}
            // There was nothing to merge.
            (Ending::At(_), Ended::Code(0)) => return Ok(false),
            (Ending::Killed(_), Ended::Signal(9)) => tally.fate("compaction killed at random", 1),
            (Ending::Killed(_), Ended::Code(0)) => tally.fate("compaction that was done", 1),
            (_, ended) => {
                return Err(format!("compaction: {ended:?}: {}", tool.last_words()));
            }
        }
        Ok(true)
    }
}
