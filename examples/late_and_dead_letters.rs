//! What becomes of records that cannot be used, and of records that come too late. Neither stops
//! the job and neither is dropped in silence: each kind has an output of its own.
//!
//! `cargo run -p streamkit --example late_and_dead_letters` prints
//!
//! ```text
//! dead letter 2: bad_json, EOF while parsing an object at line 1 column 13
//! dead letter 4: bad_json, missing field `second` at line 1 column 12
//! late for minute 0: 99
//! paid in minute 0: 30
//! paid in minute 5: 7
//! ```

use std::error::Error;

use serde::Deserialize;
use streamkit::connector::memory::{Collect, Memory};
use streamkit::connector::{Decode, RawRecord, Reject};
use streamkit::prelude::*;

#[derive(Clone, Deserialize)]
struct Order {
    second: i64,
    paid: u64,
}

/// From the bytes of a topic or a file to a record, or to the reason why not.
struct Json;

impl Decode for Json {
    type Item = Order;

    fn decode(&self, record: &RawRecord) -> Result<Order, Reject> {
        let value = record.value.as_deref().unwrap_or_default();
        let reject = |error: String| Reject { reason: "bad_json", field: None, error };
        serde_json::from_slice(value).map_err(|e| reject(e.to_string()))
    }
}

/// The lines of a file or the records of a topic.
pub fn lines() -> Vec<RawRecord> {
    raw(&[
        r#"{"second": 10, "paid": 20}"#,
        r#"{"second": 50, "paid": 10}"#,
        r#"{"second": 51"#,
        r#"{"second": 300, "paid": 7}"#,
        r#"{"paid": 3 }"#,
        r#"{"second": 20, "paid": 99}"#, // behind the watermark, which is at 300 - 60
    ])
}

/// The job, from any source of lines into three sinks.
pub fn job(
    lines: impl Source<Item = RawRecord>,
    results: impl Sink<String>,
    late_orders: impl Sink<String>,
    dead_letters: impl Sink<String>,
) -> Job {
    let job = Job::new("orders");
    let time = WatermarkStrategy::bounded_out_of_orderness(minutes(1), |order: &Order| {
        Timestamp::from_micros(order.second * 1_000_000)
    });
    let orders = job.source("orders", lines.decode(Json), time);
    let paid = orders
        .window_all(Tumbling::of(minutes(1)))
        .aggregate("paid per minute", sum(|order: &Order| order.paid));
    paid.map(|row| format!("paid in {}: {}\n", minute(row.window.start), row.value))
        .sink("results", results);
    paid.late()
        .map(|late| format!("late for {}: {}\n", minute(late.event_time), late.record.paid))
        .sink("late orders", late_orders);
    let dead = orders.dead_letters();
    dead.map(|dead| format!("dead letter {}: {}, {}\n", dead.offset, dead.reason, dead.error))
        .sink("dead letters", dead_letters);
    job
}

/// What `main` prints.
pub async fn run() -> Result<String, Box<dyn Error>> {
    let out = Collect::new();
    let job = job(Memory::new(lines()), out.clone(), out.clone(), out.clone());
    job.run(RunConfig::new().at_end(InputEnd::Close)).await?;

    // Three sinks wrote to one target, each when it had something.
    let mut lines = out.rows();
    lines.sort();
    Ok(lines.concat())
}

fn minute(time: Timestamp) -> String {
    format!("minute {}", time.as_micros() / 60_000_000)
}

/// The lines as a file or a topic would give them.
fn raw(lines: &[&'static str]) -> Vec<RawRecord> {
    let values = (0..).zip(lines).map(|(offset, line)| (offset, Some((*line).into())));
    values.map(|(offset, value)| RawRecord { offset, value, ..RawRecord::default() }).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", run().await?);
    Ok(())
}
