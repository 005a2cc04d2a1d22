//! Two observers, each on a thread of its own: when an enriched record can be read by whom transactions
//! matter to, and when a window's final row can be read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use streamkit::time::{Clock as _, SystemClock, millis};

use super::figures::{Times, micros};
use super::schedule::{Expected, Schedule};
use super::services::{PATIENCE, Services, connect};

/// Between two looks at PostgreSQL: often enough, and no load on it.
const LOOK: Duration = millis(2);
/// The sinks that are watched there: those behind windows.
pub const TABLES: [&str; 2] = ["page_view_counts table", "active_users table"];

/// Reads the enriched topic until every record has been there once or `patience` after the last one
/// was due has passed, and returns how long each took from when it was due; those before `from` are
/// left out.
///
/// # Errors
/// If one is missing, there twice, or not one of those sent.
pub fn enriched(
    services: &Services,
    topic: &str,
    schedule: &Schedule,
    (clock, start): (&SystemClock, Duration),
    from: u64,
) -> Result<Times> {
    let consumer: BaseConsumer = services
        .client()
        .set("group.id", format!("{topic}.rig"))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().first().context("the enriched topic is not there")?;
    let mut all = TopicPartitionList::new();
    for partition in found.partitions() {
        all.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&all)?;

    let mut took: Vec<Option<u32>> = vec![None; usize::try_from(schedule.count)?];
    let deadline = start + Duration::from_micros(schedule.due(schedule.count)) + PATIENCE;
    let mut left = schedule.count;
    while left > 0 {
        let now = clock.elapsed();
        ensure!(now < deadline, "{left} enriched records are missing after {PATIENCE:?}");
        let Some(record) = consumer.poll(millis(100)) else { continue };
        let record = record.context("the enriched topic cannot be read")?;
        let visible = clock.elapsed().saturating_sub(start);
        let millis = record.timestamp().to_millis();
        let number = millis.and_then(|millis| schedule.with_timestamp(millis));
        let number = number.context("an enriched record that was not sent")?;
        let place = &mut took[usize::try_from(number)?];
        ensure!(place.is_none(), "record {number} is there twice");
        let due = Duration::from_micros(schedule.due(number));
        *place = Some(micros(visible.saturating_sub(due)));
        left -= 1;
    }
    Ok(Times::new(took.into_iter().skip(usize::try_from(from)?).flatten().collect()))
}

/// Looks at the progress that is stored in PostgreSQL, in the same transactions as the rows, until it
/// has got past the last window that closes, and returns for each table how long each window took from
/// when the record was due that closed it; those closed before record `from` are left out.
///
/// # Errors
/// If the server does not answer, or windows are missing `PATIENCE` after the last record was due.
pub fn windows(
    url: &str,
    schedule: &Schedule,
    expected: &Expected,
    (clock, start): (&SystemClock, Duration),
    from: u64,
    give_up: &AtomicBool,
) -> Result<BTreeMap<String, Times>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = start + Duration::from_micros(schedule.due(schedule.count)) + PATIENCE;
    runtime.block_on(async {
        let client = connect(url).await?;
        let sql = "SELECT sink, (progress -> 'point' -> 'watermark' ->> 'w')::bigint
                   FROM streamkit_progress WHERE progress IS NOT NULL AND sink = ANY($1)";
        let query = client.prepare(sql).await?;
        let mut took = TABLES.map(|_| vec![]);
        // How many windows have been seen in each table.
        let mut seen = [0; TABLES.len()];
        while seen.iter().any(|seen| *seen < expected.closing.len()) {
            ensure!(clock.elapsed() < deadline, "windows are missing: {seen:?}");
            if give_up.load(Ordering::Relaxed) {
                break;
            }
            let rows = client.query(&query, &[&TABLES.as_slice()]).await?;
            let visible = clock.elapsed().saturating_sub(start);
            for row in rows {
                let (sink, w): (&str, i64) = (row.get(0), row.get(1));
                let Some(table) = TABLES.iter().position(|name| *name == sink) else { continue };
                while let Some((_, closer)) =
                    expected.closing.get(seen[table]).filter(|(end, _)| *end <= w)
                {
                    seen[table] += 1;
                    if *closer >= from {
                        let due = Duration::from_micros(schedule.due(*closer));
                        took[table].push(micros(visible.saturating_sub(due)));
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(TABLES.map(str::to_owned).into_iter().zip(took.map(Times::new)).collect())
    })
}
