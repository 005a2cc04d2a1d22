//! Page views per page and minute, in event time: what counts is when a view happened, not when
//! it arrived. A window is final when the watermark passes its end; what comes after that is late.
//!
//! `cargo run -p streamkit --example tumbling_counts` prints
//!
//! ```text
//! 12:00:00 /cart 1
//! 12:00:00 /home 2
//! 12:01:00 /home 1
//! 12:03:00 /home 1
//! late: /cart at 12:00:59, when the watermark was at 12:03:00
//! ```

use std::error::Error;

use streamkit::connector::memory::{Collect, Memory};
use streamkit::prelude::*;

/// A page was looked at.
#[derive(Clone)]
pub struct View {
    time: Timestamp,
    page: &'static str,
}

/// In the order in which they arrive.
pub fn views() -> Vec<View> {
    vec![
        view(12, 0, 10, "/home"),
        view(12, 1, 5, "/home"),
        // Out of order, but less than the 30 seconds that the strategy below allows for.
        view(12, 0, 40, "/home"),
        view(12, 0, 50, "/cart"),
        // The watermark is now 12:03:30 less 30 seconds, so the first two windows are final,
        view(12, 3, 30, "/home"),
        // and this is too late.
        view(12, 0, 59, "/cart"),
    ]
}

/// The job, wherever its records come from and go to.
pub fn job(
    views: impl Source<Item = View>,
    counts: impl Sink<String>,
    late: impl Sink<String>,
) -> Job {
    let job = Job::new("views");
    let time = WatermarkStrategy::bounded_out_of_orderness(seconds(30), |view: &View| view.time);
    let per_minute = job
        .source("views", views, time)
        .key_by(|view| view.page)
        .window(Tumbling::of(minutes(1)))
        .aggregate("views per minute", count());
    per_minute
        .map(|row| format!("{} {} {}\n", clock(row.window.start), row.key, row.value))
        .sink("counts", counts);
    per_minute
        .late()
        .map(|late| {
            let (time, watermark) = (clock(late.event_time), clock(late.watermark));
            format!("late: {} at {time}, when the watermark was at {watermark}\n", late.record.page)
        })
        .sink("late views", late);
    job
}

/// What `main` prints.
pub async fn run() -> Result<String, Box<dyn Error>> {
    let (counts, late) = (Collect::new(), Collect::new());
    let job = job(Memory::new(views()), counts.clone(), late.clone());
    job.run(RunConfig::new().at_end(InputEnd::Close)).await?;

    // Windows of different keys come in no particular order.
    let mut lines = counts.rows();
    lines.sort();
    Ok(lines.concat() + &late.rows().concat())
}

fn view(hour: i64, minute: i64, second: i64, page: &'static str) -> View {
    let time = Timestamp::from_micros(((hour * 60 + minute) * 60 + second) * 1_000_000);
    View { time, page }
}

/// `12:00:59` of `1970-01-01T12:00:59.000000Z`.
fn clock(time: Timestamp) -> String {
    time.to_string()[11..19].to_owned()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", run().await?);
    Ok(())
}
