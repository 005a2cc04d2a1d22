//! The smallest job: a vector of records, a filter, a map, and the results printed.
//!
//! `cargo run -p streamkit --example hello_stream` prints
//!
//! ```text
//! kitchen: 86.0 °F
//! attic: 95.0 °F
//! ```

use std::error::Error;

use streamkit::connector::memory::{Collect, Memory};
use streamkit::prelude::*;

/// A record is any type that is `Send + Sync + 'static`.
#[derive(Clone)]
pub struct Reading {
    room: &'static str,
    celsius: f64,
    seconds: i64,
}

/// In the order in which they arrive.
pub fn readings() -> Vec<Reading> {
    vec![
        Reading { room: "kitchen", celsius: 30.0, seconds: 1 },
        Reading { room: "cellar", celsius: 12.5, seconds: 2 },
        Reading { room: "attic", celsius: 35.0, seconds: 3 },
    ]
}

/// The job, wherever its records come from and go to.
pub fn job(readings: impl Source<Item = Reading>, printed: impl Sink<String>) -> Job {
    let job = Job::new("hello");
    // Every source says what time means for its records. These are in order.
    let time =
        WatermarkStrategy::monotonous(|r: &Reading| Timestamp::from_micros(r.seconds * 1_000_000));
    job.source("readings", readings, time)
        .filter(|r| r.celsius >= 25.0)
        .map(|r| format!("{}: {:.1} °F", r.room, r.celsius * 1.8 + 32.0))
        .sink("printed", printed);
    job
}

/// What `main` prints.
pub async fn run() -> Result<String, Box<dyn Error>> {
    let printed = Collect::new();
    let job = job(Memory::new(readings()), printed.clone());
    // Without `at_end` a job waits for more input.
    job.run(RunConfig::new().at_end(InputEnd::Close)).await?;

    Ok(printed.rows().iter().map(|line| format!("{line}\n")).collect())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", run().await?);
    Ok(())
}
