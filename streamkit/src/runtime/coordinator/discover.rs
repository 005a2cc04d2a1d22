//! Splits that appear while the job runs: new partitions of a topic. The same look finds that one
//! that is known is gone, or was replaced by another: then the job stops.
//!
//! A thread asks the sources now and then, since that may take long when a broker is away; the
//! coordinator takes in what it finds, between two other decisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::Coordinator;
use crate::checkpoint::Fact;
use crate::error::{Error, Result};
use crate::graph::FindSplits;
use crate::record::Split;
use crate::runtime::config::InputEnd;
use crate::runtime::recovery::{SplitFacts, plan_split};
use crate::task::{SplitState, Tracked};
use crate::time::{Clock, Timestamp, millis};

/// How often the thread looks whether the job has ended.
const LOOK: Duration = millis(20);

/// A split that nobody knew, of which source, and where its data begin.
#[derive(Debug)]
pub(super) struct Discovered {
    source: usize,
    split: Split,
    start: u64,
}

/// Looks for splits of one source, until the job has ended.
struct Scout {
    source: usize,
    find: FindSplits,
    known: Vec<Split>,
    every: Duration,
    clock: Arc<dyn Clock>,
    over: Arc<AtomicBool>,
    found: Sender<Result<Discovered>>,
}

impl Scout {
    fn run(mut self) {
        let mut last = self.clock.elapsed();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK.min(self.every));
            if self.clock.elapsed().saturating_sub(last) < self.every {
                continue;
            }
            match (self.find)(&self.known) {
                Ok(new) => {
                    for (split, start) in new {
                        self.known.push(split.clone());
                        let found = Discovered { source: self.source, split, start };
                        if self.found.send(Ok(found)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) if error.is_retriable() => {
                    tracing::debug!(%error, "cannot look for new splits; trying again");
                }
                // A split that is known is gone, or is another one (fault F42): the job must stop.
                Err(error) => {
                    let _ = self.found.send(Err(error));
                    return;
                }
            }
            last = self.clock.elapsed();
        }
    }
}

/// Starts a thread for each source, unless nothing can be found or taken in.
pub(super) fn start(
    sources: &[Box<dyn crate::graph::SourceCell>],
    known: &[Split],
    config: &crate::RunConfig,
    over: &Arc<AtomicBool>,
) -> Result<Receiver<Result<Discovered>>> {
    let (found, discovered) = bounded(1_024);
    let Some(every) = config.discover_every.filter(|_| config.end == InputEnd::Wait) else {
        return Ok(discovered);
    };
    for (source, cell) in sources.iter().enumerate() {
        let scout = Scout {
            source,
            find: cell.finder(),
            known: known.to_vec(),
            every,
            clock: Arc::clone(&config.clock),
            over: Arc::clone(over),
            found: found.clone(),
        };
        std::thread::Builder::new()
            .name(format!("discover {source}"))
            .spawn(move || scout.run())
            .map_err(|e| Error::external("a thread cannot be started").because(e))?;
    }
    Ok(discovered)
}

impl Coordinator {
    /// Takes in one split that was found. It gets a floor, as a fact (rule T9): the job's time has
    /// gone on without it.
    pub(super) fn take_in_split(&mut self) -> Result<()> {
        let found = match self.discovered.try_recv() {
            Ok(found) => found?,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
        };
        let Discovered { source, split, start } = found;
        if self.split_list.ids().contains(&split.id) {
            return Err(Error::user(format!(
                "two sources have a split called {}: give each its own data",
                split.id
            ))
            .at_step(self.sources[source].step()));
        }
        self.fact(Fact::Split { split: split.clone(), start })?;
        let tracked = Tracked {
            id: split.id.clone(),
            state: SplitState::Active,
            own: Timestamp::MIN,
            first_own: None,
            floor: None,
            caught_up_since: None,
            next: start,
            lag: None,
            idle_at: None,
            idle_after: self.sources[source].idle_after(),
            behind: false,
        };
        let at_least = self.highest_w().max(self.restored);
        let tracker = Arc::clone(&self.tracker);
        let id = split.id.clone();
        let (index, floor) = tracker.add_late(tracked, at_least, |floor| {
            self.fact(Fact::Floor { split: id, from: start, floor })
        })?;
        tracing::info!(split = %split.id, start, %floor, "a new split is read from here on");
        self.split_list.add(split.clone());
        self.source_of.push(source);
        let facts = SplitFacts {
            split,
            start,
            entry: None,
            sinks: vec![],
            floors: vec![(start, floor)],
            given_up: Default::default(),
            given_up_by: vec![],
            suspects: &[],
            end: None,
            near: 0,
        };
        let worker = &self.workers[index as usize % self.workers.len()];
        let full = |_| Error::user("too many splits for one worker");
        worker.plans[source].try_send(plan_split(index, facts)).map_err(full)?;
        worker.shared.signal.ring();
        Ok(())
    }
}
