//! How soon a window is in PostgreSQL after the event that closes it is in Kafka, although there is
//! no checkpoint for ten minutes: results wait for the watermark, and for nothing else.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use streamkit::time::{Clock, SystemClock};

use super::app::{self, App};
use crate::support::kafka::{self, Topic};
use crate::support::services::{self, Database};

const MINUTE: i64 = 60;
/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;
/// The first ones wait for the start of the program.
const WARM_UP: i64 = 10;
const WINDOWS: i64 = 100;
const PATIENCE: Duration = Duration::from_secs(60);

/// With the watermark two minutes behind, each event closes the window of the minute that ended two
/// minutes before it.
fn event(minute: i64) -> String {
    let time = START + minute * MINUTE;
    format!(
        r#"{{"event_time":{time},"user_id":"u{minute}","page_url":"/p","event_type":"page_view"}}"#
    )
}

fn append(producer: &BaseProducer, topic: &str, minute: i64) {
    let value = event(minute);
    producer.send(BaseRecord::<(), _>::to(topic).payload(&value)).map_err(|(e, _)| e).unwrap();
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
}

/// Waits for the row of this window.
async fn wait_for(client: &tokio_postgres::Client, minute: i64) {
    let clock = SystemClock::new();
    let start = (START + minute * MINUTE) as f64;
    let sql = "SELECT 1 FROM page_view_counts WHERE window_start = to_timestamp($1)";
    let query = client.prepare(sql).await.unwrap();
    while client.query(&query, &[&start]).await.unwrap().is_empty() {
        assert!(clock.elapsed() < PATIENCE, "no row of the window of minute {minute}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_in_postgres_when_they_close_though_checkpoints_are_minutes_apart() {
    let Some((bootstrap, admin)) = services::services() else { return };
    let name = "crash-latency";
    let _topic = Topic::create(&bootstrap, name, 1).await;
    let database = Database::create(&admin, "crash_latency").await;
    let folder = tempfile::tempdir().unwrap();
    let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let (url, output, group) = (database.url(), format!("{name}-out"), format!("{name}-group"));
    let settings = [
        "--data-dir",
        "data",
        "--ui-bind",
        "off",
        "--kafka-bootstrap-servers",
        &bootstrap,
        "--database-url",
        &url,
        "--kafka-input-topic",
        name,
        "--kafka-output-topic",
        &output,
        "--kafka-group-id",
        &group,
        "--checkpoint-interval",
        "10m",
        "--running-values",
        "off",
    ];
    let checkpoints =
        || app::tool(folder.path(), &args(&["--data-dir", "data", "checkpoint", "ls"])).unwrap();
    let mut app = App::start(folder.path(), "run.log", &args(&settings), &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("linger.ms", "0")
        .create()
        .unwrap();
    (0..WARM_UP).for_each(|minute| append(&producer, name, minute));
    // What the program has made of the tables is there once it runs.
    let client = loop {
        let client = services::connect(&url).await;
        if client.query("SELECT 1 FROM page_view_counts", &[]).await.is_ok_and(|r| !r.is_empty()) {
            break client;
        }
        assert_eq!(app.ended(), None, "{}", app.last_words());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    wait_for(&client, WARM_UP - 4).await;
    let at_first = checkpoints();
    let clock = SystemClock::new();
    let mut latencies = vec![];
    for minute in WARM_UP..WARM_UP + WINDOWS {
        let closed = minute - 3;
        let began = clock.elapsed();
        append(&producer, name, minute);
        wait_for(&client, closed).await;
        latencies.push(clock.elapsed() - began);
    }
    assert_eq!(checkpoints(), at_first, "a checkpoint was made meanwhile: this shows nothing");
    assert!(at_first.contains("(1 row)"), "there is more than that of the start: {at_first}");
    drop(app);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{WINDOWS} windows, from the append of the event that closes one until its row can be read: \
         median {:?}, 95th percentile {:?}, longest {:?}",
        at(0.5),
        at(0.95),
        at(1.0)
    );
    kafka::delete(&bootstrap, name).await;
    database.drop().await;
}
