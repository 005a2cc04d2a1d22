//! Sessions: what a user does without a break. A session ends half an hour after its last event,
//! at a logout, or where a login starts the next one. The order of arrival plays no part.
//!
//! `cargo run -p streamkit --example sessions` prints
//!
//! ```text
//! ada 09:00-09:20: 3 events
//! ada 09:50-09:50: 1 events
//! bo 09:00-09:10: 2 events
//! bo 09:15-09:15: 1 events
//! cy 09:00-09:05: 2 events
//! cy 09:06-09:10: 2 events
//! ```

use std::error::Error;

use streamkit::connector::memory::{Collect, Memory};
use streamkit::prelude::*;

/// What a user did.
#[derive(Clone)]
pub struct Event {
    user: &'static str,
    time: Timestamp,
    action: &'static str,
}

/// In the order in which they arrive.
pub fn events() -> Vec<Event> {
    vec![
        // The gap: 30 minutes after 09:20 there is a new session, although only just.
        event("ada", 0, "click"),
        event("ada", 20, "click"),
        event("ada", 10, "click"), // belongs to the first session wherever it arrives
        event("ada", 50, "click"),
        // An event that ends: the click after the logout is on its own.
        event("bo", 0, "click"),
        event("bo", 10, "logout"),
        event("bo", 15, "click"),
        // An event that starts: a second login ends the session before it.
        event("cy", 0, "login"),
        event("cy", 5, "click"),
        event("cy", 6, "login"),
        event("cy", 10, "click"),
    ]
}

/// The job, wherever its records come from and go to.
pub fn job(events: impl Source<Item = Event>, sessions: impl Sink<String>) -> Job {
    let job = Job::new("visits");
    let time = WatermarkStrategy::bounded_out_of_orderness(hours(1), |event: &Event| event.time);
    let visits = Session::with_gap(minutes(30))
        .max_length(hours(24))
        .starts_at(|event: &Event| event.action == "login")
        .ends_at(|event| event.action == "logout");
    job.source("events", events, time)
        .key_by(|event| event.user)
        .window(visits)
        .aggregate("sessions", count())
        .map(|s| {
            let (start, end) = (s.start.to_string(), s.end.to_string());
            format!("{} {}-{}: {} events\n", s.key, &start[11..16], &end[11..16], s.value)
        })
        .sink("sessions list", sessions);
    job
}

/// What `main` prints.
pub async fn run() -> Result<String, Box<dyn Error>> {
    let sessions = Collect::new();
    let job = job(Memory::new(events()), sessions.clone());
    job.run(RunConfig::new().at_end(InputEnd::Close)).await?;

    let mut lines = sessions.rows();
    lines.sort();
    Ok(lines.concat())
}

/// An event so many minutes after nine o'clock.
fn event(user: &'static str, minute: i64, action: &'static str) -> Event {
    Event { user, time: Timestamp::from_micros((9 * 60 + minute) * 60_000_000), action }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", run().await?);
    Ok(())
}
