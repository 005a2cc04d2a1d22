//! The four workloads as a user of the library writes them.

use pipeline_app::model::Activity;
use pipeline_app::source::ActivityDecoder;
use streamkit::connector::RawRecord;
use streamkit::connector::memory::Memory;
use streamkit::prelude::*;
use streamkit::testing;

use crate::Workload;
use crate::events::{Event, Role, role};
use crate::outcome::Outcome;
use crate::sink::AddUp;

/// The delay of the watermark in all workloads.
pub const DELAY_MINUTES: u64 = 2;
/// The gap that ends a session.
pub const GAP_MINUTES: u64 = 30;

/// What the workloads need of an event.
trait Fields: Clone + Send + Sync + 'static {
    fn time(&self) -> Timestamp;
    fn user(&self) -> &[u8];
    fn page(&self) -> &[u8];
    fn role(&self) -> Role;
}

impl Fields for Event {
    fn time(&self) -> Timestamp {
        self.time
    }
    fn user(&self) -> &[u8] {
        self.user
    }
    fn page(&self) -> &[u8] {
        self.page
    }
    fn role(&self) -> Role {
        self.role
    }
}

impl Fields for Activity {
    fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.event_time())
    }
    fn user(&self) -> &[u8] {
        self.user_id_bytes()
    }
    fn page(&self) -> &[u8] {
        self.page_url_bytes().unwrap_or_default()
    }
    fn role(&self) -> Role {
        role(self)
    }
}

/// Runs a workload over structs.
#[must_use]
pub fn structs(workload: Workload, events: &Memory<Event>) -> Outcome {
    run(workload, events.clone(), 1)
}

/// Runs a workload over structs on several workers.
#[must_use]
pub fn on_workers(workload: Workload, events: &Memory<Event>, workers: usize) -> Outcome {
    run(workload, events.clone(), workers)
}

/// Runs a workload over JSON, decoding included.
#[must_use]
pub fn json(workload: Workload, records: &Memory<RawRecord>) -> Outcome {
    run(workload, records.clone().decode(ActivityDecoder), 1)
}

fn run<E: Fields>(workload: Workload, events: impl Source<Item = E>, workers: usize) -> Outcome {
    let job = Job::new("bench");
    let time = WatermarkStrategy::bounded_out_of_orderness(minutes(DELAY_MINUTES), E::time);
    let events = job.source("events", events, time);
    let (results, late) = (AddUp::default(), AddUp::default());
    if workload.tumbling() {
        let views = events
            .filter(|event: &E| event.role() == Role::View)
            .key_by(|event: &E| event.page())
            .window(Tumbling::of(minutes(1)))
            .aggregate("views", count());
        views.sink("all views", results.clone());
        views.late().sink("late views", late.clone());
    }
    let by_user = events.key_by(|event: &E| event.user());
    if workload.sliding() {
        let users = by_user.window_all(Sliding::of(minutes(5), minutes(1))).count_keys("users");
        users.sink("all users", results.clone());
        users.late().sink("late users", late.clone());
    }
    if workload.sessions() {
        let rule = Session::with_gap(minutes(GAP_MINUTES))
            .max_length(hours(24))
            .starts_at(|event: &E| event.role() == Role::Start)
            .ends_at(|event: &E| event.role() == Role::End);
        let sessions = by_user.window(rule).aggregate("sessions", count());
        sessions.sink("all sessions", results.clone());
        sessions.late().sink("late sessions", late.clone());
    }
    if let Err(error) = testing::run(job, RunConfig::new().workers(workers)) {
        panic!("{error}");
    }
    let mut outcome = results.outcome();
    outcome.late = late.outcome().late;
    outcome
}
