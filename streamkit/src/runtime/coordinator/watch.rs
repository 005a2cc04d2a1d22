//! What the coordinator watches while the job runs: idle splits, sinks, and what it shows.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Coordinator;
use crate::checkpoint::{Confirmed, Fact};
use crate::error::{Error, Result};
use crate::failpoint::broken;
use crate::progress::{OperatorProgress, SplitProgress};
use crate::runtime::config::InputEnd;
use crate::runtime::recovery;
use crate::task::{GivenUp, SplitState, Tracked};
use crate::time::Timestamp;

/// So many records say enough about their input.
const ENOUGH: u64 = 1_000;

fn too_many(read: u64, dead: u64, limit: f64) -> bool {
    read >= ENOUGH && dead as f64 > read as f64 * limit
}

impl Coordinator {
    /// Splits that have brought a record after idleness get a floor (rule T9).
    pub(super) fn wake_splits(&mut self) -> Result<()> {
        for (index, split, from) in self.tracker.waking() {
            let at_least = self.highest_w().max(self.restored);
            let tracker = std::sync::Arc::clone(&self.tracker);
            tracker.wake(index, at_least, |floor| {
                tracing::info!(%split, %floor, "a split is back from idleness");
                if broken("floors.durable") {
                    return Ok(());
                }
                self.fact(Fact::Floor { split: split.clone(), from, floor })
            })?;
        }
        Ok(())
    }

    /// Records that no step can process: facts first, then the readers go on without them (rule D1).
    pub(super) fn give_up_records(&mut self) -> Result<()> {
        for (asker, records) in self.given_ups.asked() {
            for GivenUp { split, at, error } in records {
                tracing::error!(%split, at, %error, "a record is given up: it becomes a dead letter");
                let (operator, letter_at) = (None, None);
                self.fact(Fact::GivenUp { split, at, reason: error, operator, letter_at })?;
            }
            self.given_ups.grant(asker);
            self.tracker.ring();
        }
        Ok(())
    }

    /// Stops a job that can use too little of what it reads: that is rather a wrong input, or a new
    /// version of its format, than some bad records.
    pub(super) fn look_at_dead_letters(&mut self) -> Result<()> {
        let Some(limit) = self.config.max_dead_letters else { return Ok(()) };
        let progress = self.outside.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let read = progress.read.saturating_sub(self.at_start.0);
        let dead = read.saturating_sub(progress.accepted.saturating_sub(self.at_start.1));
        if !too_many(read, dead, limit) {
            return Ok(());
        }
        let reasons: Vec<String> =
            progress.dead_letters.iter().map(|(why, n)| format!("{why} {n}")).collect();
        Err(Error::user(format!(
            "{dead} of {read} records are dead letters (since the job began: {}), and the limit is {limit} of all. Look at the dead letters; if the input is the right one, raise the limit",
            reasons.join(", ")
        )))
    }

    /// Rule T8. Not in a bounded run, where every split comes to its end.
    pub(super) fn look_for_idle_splits(&mut self, now: Duration) -> Result<()> {
        if self.config.end != InputEnd::Wait {
            return Ok(());
        }
        for index in self.tracker.begin_idle(now) {
            let Some((split, at)) = self.tracker.position(index) else { continue };
            tracing::info!(%split, at, "a split is idle: it no longer holds the watermark");
            self.fact(Fact::Idle { split, at })?;
            self.tracker.set_idle(index);
        }
        Ok(())
    }

    /// The highest watermark that any sink has committed.
    pub(super) fn highest_w(&self) -> Timestamp {
        let fired = self.sinks.iter().filter(|sink| sink.fired);
        let w = fired.map(|sink| sink.shared.acked.load(Ordering::Acquire)).max();
        Timestamp::from_micros(w.unwrap_or(i64::MIN))
    }

    /// The watermark that every sink behind windows has committed.
    pub(super) fn lowest_w(&self) -> Timestamp {
        let fired = self.sinks.iter().filter(|sink| sink.fired);
        let w = fired.map(|sink| sink.shared.acked.load(Ordering::Acquire)).min();
        Timestamp::from_micros(w.unwrap_or(i64::MAX))
    }

    /// Rule D7.
    pub(super) fn confirmed(&self) -> BTreeMap<String, Confirmed> {
        let of = |sink: &super::RunningSink| {
            let w = Timestamp::from_micros(sink.shared.acked.load(Ordering::Acquire));
            let status = sink.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
            recovery::confirmed(sink.fired, sink.had_progress || status.commits > 0, w)
        };
        self.sinks.iter().map(|sink| (sink.name.clone(), of(sink))).collect()
    }

    /// Rule D3: a running value may be emitted only when everything that an earlier run had in its
    /// running values is in again.
    pub(super) fn may_tick(&mut self) -> bool {
        if self.noted.is_empty() || broken("ticks.withheld") {
            return true;
        }
        let splits = self.tracker.snapshot();
        let behind = |(id, noted): (&crate::record::SplitId, &u64)| {
            splits.iter().any(|split| split.id == *id && split.next < *noted)
        };
        if self.noted.iter().any(behind) {
            return false;
        }
        self.noted.clear();
        true
    }

    /// Puts together what the handle shows.
    pub(super) fn show(&self) {
        let tracked = self.tracker.snapshot();
        let now = self.config.clock.elapsed();
        let known = |t: Timestamp| (t > Timestamp::MIN).then_some(t);
        let mut progress = self.outside.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.watermark = known(self.tracker.watermark());
        progress.workers = self.workers.len();
        progress.uptime = now.saturating_sub(self.started);
        progress.checkpoint = self.checkpoint_progress();
        progress.back_pressured = 0;
        progress.read = 0;
        progress.accepted = 0;
        let (mut dead, mut wanted, mut late) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut given_up = BTreeMap::new();
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        let mut operators: BTreeMap<String, OperatorProgress> = BTreeMap::new();
        let (mut read, mut accepted) = (0, 0);
        let mut splits = vec![];
        let mut back_pressured = 0;
        for worker in &self.workers {
            let status = worker.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
            back_pressured += usize::from(status.back_pressured);
            for entry in &status.splits {
                read += entry.position.read;
                accepted += entry.position.accepted;
                for (from, into) in [
                    (&entry.totals.dead, &mut dead),
                    (&entry.totals.wanted, &mut wanted),
                    (&entry.totals.late, &mut late),
                    (&entry.totals.given_up, &mut given_up),
                ] {
                    for (name, n) in from {
                        *into.entry(name.clone()).or_default() += n;
                    }
                }
                let tracked = tracked.iter().find(|t| t.id == entry.split.id);
                splits.push(SplitProgress {
                    split: entry.split.id.to_string(),
                    position: entry.position,
                    watermark: tracked.and_then(|t| known(t.own)),
                    idle: tracked
                        .is_some_and(|t| matches!(t.state, SplitState::Idle | SplitState::Waking)),
                    ended: tracked.is_some_and(|t| t.state == SplitState::Ended),
                    quiet_for: tracked
                        .and_then(|t| t.caught_up_since)
                        .map(|since| now.saturating_sub(since)),
                    lag: tracked.and_then(|t| t.lag),
                });
            }
            for (name, status, n) in &status.operators {
                if !self.aggregates_count(name) {
                    continue;
                }
                *counted.entry(name.to_string()).or_default() += n;
                let operator = operators.entry(name.to_string()).or_insert(OperatorProgress {
                    name: name.to_string(),
                    open: 0,
                    next_fire: None,
                });
                operator.open = match self.is_windowed(name) {
                    // Every worker has the same windows.
                    true => operator.open.max(status.open),
                    false => operator.open + status.open,
                };
                operator.next_fire = operator.next_fire.into_iter().chain(status.next_fire).min();
            }
        }
        splits.sort_by(|a, b| a.split.cmp(&b.split));
        progress.read = read;
        progress.accepted = accepted;
        progress.dead_letters = dead;
        progress.wanted = wanted;
        progress.late = late;
        progress.given_up = given_up;
        progress.counted = counted;
        progress.splits = splits;
        progress.operators = operators.into_values().collect();
        progress.back_pressured = back_pressured;
        let of_sink = |sink: &super::RunningSink| {
            let status = sink.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
            let mut status = status.clone();
            if !sink.fired {
                let sent = |(i, t): (u32, &Tracked)| {
                    sink.shared.reach.position(i).map_or(0, |at| t.next.saturating_sub(at.next))
                };
                status.behind = (0u32..).zip(&tracked).map(sent).sum();
                status.detached = sink.shared.reach.is_detached();
            }
            status
        };
        progress.sinks = self.sinks.iter().map(of_sink).collect();
    }

    fn aggregates_count(&self, name: &str) -> bool {
        self.plan.iter().any(|step| step.name == name && step.kind != "sum")
    }

    fn is_windowed(&self, name: &str) -> bool {
        let windowed = |kind: &str| matches!(kind, "aggregate" | "distinct keys");
        self.plan.iter().any(|step| step.name == name && windowed(&step.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f19_dead_letters_are_too_many_above_the_limit_and_not_among_few_records() {
        assert!(!too_many(999, 999, 0.5));
        assert!(!too_many(1_000, 500, 0.5));
        assert!(too_many(1_000, 501, 0.5));
    }
}
