//! How many different users were active in the last five minutes, told every minute: exact, and
//! without keeping a set of users for each of the five windows that an event is in.
//!
//! `cargo run -p streamkit --example sliding_active_users` prints
//!
//! ```text
//! 12:01 ##
//! 12:02 ##
//! 12:03 ###
//! 12:04 ###
//! 12:05 ###
//! 12:06 ##
//! 12:07 ##
//! 12:08 #
//! 12:09 #
//! 12:10 #
//! 12:11 #
//! ```

use std::error::Error;

use streamkit::connector::memory::{Collect, Memory};
use streamkit::prelude::*;

/// A user did something.
#[derive(Clone)]
pub struct Event {
    minute: i64,
    user: String,
}

/// Minutes after noon. The two vectors are two splits, as partitions of a topic are: each is read
/// in order, and the job is as far as the slower of them.
pub fn events() -> [Vec<Event>; 2] {
    let first = vec![event(0, "ada"), event(0, "ada"), event(2, "cy"), event(6, "ada")];
    let second = vec![event(0, "bo"), event(1, "bo")];
    [first, second]
}

/// The job, wherever its records come from and go to.
pub fn job(events: impl Source<Item = Event>, active: impl Sink<String>) -> Job {
    let job = Job::new("activity");
    let noon = Timestamp::from_micros(12 * 3_600 * 1_000_000);
    let time = WatermarkStrategy::monotonous(move |event: &Event| {
        noon.saturating_add(minutes(1) * event.minute as u32)
    });
    job.source("events", events, time)
        .key_by(|event| event.user.as_str())
        // Windows over all users, about the users: how many keys are there?
        .window_all(Sliding::of(minutes(5), minutes(1)))
        .count_keys("active users")
        .map(|row| {
            let bar = "#".repeat(row.value as usize);
            format!("{} {bar}\n", &row.window.end.to_string()[11..16])
        })
        .sink("chart", active);
    job
}

/// What `main` prints.
pub async fn run() -> Result<String, Box<dyn Error>> {
    let active = Collect::new();
    let job = job(Memory::splits(events()), active.clone());
    job.run(RunConfig::new().at_end(InputEnd::Close)).await?;

    // One result per window, and windows are final in the order of their ends.
    Ok(active.rows().concat())
}

fn event(minute: i64, user: &str) -> Event {
    Event { minute, user: user.to_owned() }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", run().await?);
    Ok(())
}
