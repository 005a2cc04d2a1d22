//! What a person sees while the job runs: a block of lines that is refreshed, if there is a
//! terminal, and else a line in the log now and then.

mod last_minute;
pub mod lines;
mod rate;
pub(crate) mod screen;
pub mod why;

use std::time::Duration;

use streamkit::time::{Clock as _, SystemClock};
use streamkit::{JobHandle, JobState};
use tokio::time::MissedTickBehavior;

pub use last_minute::{Figures, LastMinute};
pub use rate::Rate;

use crate::config::Config;
use crate::snapshot::Snapshot;
use lines::Around;

/// How often a terminal is refreshed.
const REFRESH: Duration = Duration::from_millis(250);
/// After how many refreshes there is a line in the log: 10 s.
const LOG: u32 = 40;

/// Shows the job until it has ended. Draws on the standard error, and leaves nothing behind there:
/// the summary is printed after this has returned.
pub async fn run(handle: JobHandle, last_minute: LastMinute, config: &Config) {
    let screen = screen::is_terminal().then(screen::Block::default);
    let clock = SystemClock::new();
    let mut rate = Rate::default();
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0_u32.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = handle.wait() => return,
        }
        let job = Snapshot::from(handle.progress());
        if matches!(job.state, JobState::Ended | JobState::Failed) {
            return;
        }
        // Before it knows its splits it does not know what it had read, either.
        let rate = if job.splits.is_empty() { 0.0 } else { rate.update(job.uptime, job.read) };
        let around = Around {
            now: Some(clock.now()),
            rate,
            figures: last_minute.figures(job.watermark.map(|time| time.0)),
            standstill: why::standstill(&job, config.watermark_delay, config.idle_timeout),
        };
        match &screen {
            Some(screen) => screen.show(&lines::block(&job, &around)),
            None if n % LOG == LOG - 1 => log(&job, &around),
            None => {}
        }
    }
}

/// The same as one event of the log.
fn log(job: &Snapshot, around: &Around) {
    tracing::info!(
        state = crate::snapshot::word(job.state),
        read = job.read,
        per_second = around.rate.round() as u64,
        waiting = job.lag(),
        watermark = job.watermark.map(|time| time.0.to_string()),
        late = job.late.values().sum::<u64>(),
        dead_letters = job.dead_letters.values().sum::<u64>(),
        rejected = Some(job.rejected().values().sum::<u64>()).filter(|n| *n > 0),
        checkpoint = job.checkpoint.map(|checkpoint| checkpoint.number),
        standstill = around.standstill.as_deref(),
        "rows: {}",
        lines::rows(job)
    );
    if let Some(trouble) = &job.trouble {
        tracing::warn!("{trouble}");
    }
    for sink in &job.sinks {
        if let Some(trouble) = &sink.trouble {
            tracing::warn!(sink = %sink.name, "{trouble}");
        }
    }
}
