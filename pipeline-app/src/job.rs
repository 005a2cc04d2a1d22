//! The user-activity job: what it computes, and nothing about where it reads, writes or runs.

use std::time::Duration;

use streamkit::Batch;
use streamkit::connector::DeadLetter;
use streamkit::operator::{Operator, Output};
use streamkit::prelude::*;
use streamkit::time::{Clock, SystemClock};

use crate::model::Activity;
use crate::rows::{ActiveUsers, PageViewCount, UserSession};
use crate::status::LastMinute;

/// The job's name, under which its checkpoints and its progress are stored.
pub const JOB: &str = "user-activity";

/// An event and the moment at which the job processed it.
#[derive(Debug, Clone)]
pub struct Processed {
    /// The event.
    pub activity: Activity,
    /// The wall-clock time.
    pub processing_time: Timestamp,
}

/// A sink of any kind, or none: that output is left out.
pub type Out<T> = Option<Box<dyn Sink<T>>>;

/// Where the results go. Dead letters and late events always go somewhere.
#[expect(missing_debug_implementations, reason = "sinks are opaque")]
pub struct Outputs {
    /// Table `page_view_counts`.
    pub page_view_counts: Out<PageViewCount>,
    /// Table `active_users`.
    pub active_users: Out<ActiveUsers>,
    /// Table `user_sessions`.
    pub user_sessions: Out<UserSession>,
    /// The Parquet lake.
    pub lake: Out<Processed>,
    /// The enriched topic.
    pub enriched: Out<Processed>,
    /// Unusable records.
    pub dead_letters: Box<dyn Sink<DeadLetter>>,
    /// Events too late for an aggregate.
    pub late: Box<dyn Sink<LateRecord<Activity>>>,
}

/// What people may choose about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How far behind the highest event time of its split an event may be.
    pub watermark_delay: Duration,
    /// A session ends when no event comes for this long.
    pub session_gap: Duration,
    /// A session is shorter than this.
    pub session_max: Duration,
    /// An event further past its record's timestamp is a dead letter.
    pub max_future: Duration,
    /// A split without events for this long no longer holds the watermark.
    pub idle_timeout: Option<Duration>,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            watermark_delay: minutes(2),
            session_gap: minutes(30),
            session_max: hours(24),
            max_future: hours(1),
            idle_timeout: Some(seconds(30)),
        }
    }
}

/// The job.
pub fn user_activity(
    events: impl Source<Item = Activity>,
    outputs: Outputs,
    times: Times,
    last_minute: &LastMinute,
) -> Job {
    let job = Job::new(JOB);
    let mut watermarks =
        WatermarkStrategy::bounded_out_of_orderness(times.watermark_delay, time_of)
            .max_future(times.max_future);
    if let Some(timeout) = times.idle_timeout {
        watermarks = watermarks.idle_after(timeout);
    }
    let events = job.source("activity", events, watermarks);
    events.dead_letters().sink("dead letters", outputs.dead_letters);

    let processed = events.apply(ProcessingTime(SystemClock::new()));
    write(&processed, "lake", outputs.lake);
    write(&processed, "enriched", outputs.enriched);

    let (pages, users) = (last_minute.clone(), last_minute.clone());
    let page_views = events
        .filter(Activity::is_page_view)
        .key_by(|event: &Activity| event.page_url_bytes().unwrap_or_default())
        .window(Tumbling::of(minutes(1)))
        .aggregate("page_view_counts", count());
    let rows = page_views
        .map(PageViewCount::of)
        .inspect(move |row| pages.page_views(row.window_start, &row.page_url, row.view_count));
    write(&rows, "page_view_counts table", outputs.page_view_counts);

    let by_user = events.key_by(Activity::user_id_bytes);
    let active_users =
        by_user.window_all(Sliding::of(minutes(5), minutes(1))).count_keys("active_users");
    let rows = active_users
        .map(ActiveUsers::of)
        .inspect(move |row| users.active_users(row.window_start, row.active_user_count));
    write(&rows, "active_users table", outputs.active_users);

    let sessions = by_user
        .window(
            Session::with_gap(times.session_gap)
                .max_length(times.session_max)
                .starts_at(Activity::is_session_start)
                .ends_at(Activity::is_session_end),
        )
        .aggregate("user_sessions", count());
    write(&sessions.map(UserSession::of), "user_sessions table", outputs.user_sessions);

    let late = page_views.late().union(&active_users.late()).union(&sessions.late());
    late.sink("late records", outputs.late);
    job
}

/// The event time, as the engine counts it.
pub fn time_of(activity: &Activity) -> Timestamp {
    Timestamp::from_micros(activity.event_time())
}

#[track_caller]
fn write<T: Send + Sync + 'static>(stream: &Stream<T>, name: &str, out: Out<T>) {
    if let Some(sink) = out {
        stream.sink(name, sink);
    }
}

/// Stamps events with the time at which they are processed: once for a batch.
struct ProcessingTime(SystemClock);

impl Operator<Activity> for ProcessingTime {
    type Out = Processed;

    fn on_batch(
        &self,
        input: &Batch<Activity>,
        out: &mut Output<'_, Processed>,
    ) -> streamkit::Result<()> {
        let processing_time = self.0.now();
        for (row, (activity, time)) in input.iter().enumerate() {
            out.push(row, time, Processed { activity: activity.clone(), processing_time });
        }
        Ok(())
    }
}
