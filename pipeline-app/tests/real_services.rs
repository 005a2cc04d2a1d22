//! The job through real Kafka, PostgreSQL and Parquet, against the same batch computation.
//!
//! Needs `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL` (see `dev/services`); skipped without them.

mod oracle;
mod support;

use std::path::Path;

use oracle::compare::{assert_same_rows, assert_same_table};
use oracle::generate::{heavy_disorder, meaningless_keys, round_robin, stamp};
use oracle::malformed::malformed_lines;
use oracle::{Expected, InputRecord, InputSplit, Settings, expect};
use pipeline_app::config::{Config, Environment, Machine, resolve};
use pipeline_app::status::LastMinute;
use support::kafka::{self, Topic};
use support::{lake, unique};

/// The services' addresses, or `None` where the tests cannot run.
fn services() -> Option<(String, String)> {
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (get("KAFKA_BOOTSTRAP_SERVERS"), get("DATABASE_URL")) {
        (Some(kafka), Some(database)) => Some((kafka, database)),
        (None, None) => {
            println!("skipped: KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL are not set");
            None
        }
        _ => panic!("set both KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, or neither"),
    }
}

/// A database of its own for a test.
struct Database {
    admin: String,
    name: String,
}

impl Database {
    async fn create(admin: &str, name: &str) -> Self {
        let client = connect(admin).await;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { admin: admin.to_owned(), name: name.to_owned() }
    }

    fn url(&self) -> String {
        let (server, _) = self.admin.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    async fn drop(self) {
        let client = connect(&self.admin).await;
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        client.batch_execute(&sql).await.unwrap();
    }
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn config(kafka: &str, database: &str, name: &str, folder: &Path, args: &[&str]) -> Config {
    let folder = folder.to_str().unwrap();
    let mut all =
        vec!["pipeline-app", "--kafka-bootstrap-servers", kafka, "--database-url", database];
    let (input, output, group) = (name.to_owned(), format!("{name}-out"), format!("{name}-group"));
    all.extend(["--kafka-input-topic", &input, "--kafka-output-topic", &output]);
    all.extend(["--kafka-group-id", &group, "--data-dir", folder, "--ui-bind", "off"]);
    all.extend(args);
    let cli = <pipeline_app::cli::Cli as clap::Parser>::try_parse_from(all).unwrap();
    let nothing = Environment::default();
    let layers = pipeline_app::config::read(&cli, &nothing).unwrap();
    resolve(&layers, &cli, Machine::here()).unwrap()
}

async fn run_to_end(config: &Config) {
    let handle = pipeline_app::run::start(config, &LastMinute::default()).await.unwrap();
    handle.wait().await.unwrap();
}

/// Every output as the outside sees it, against the oracle.
async fn check(expected: &Expected, config: &Config, database: &str, kafka: &str) {
    check_tables(expected, database).await;
    let rows = lake::rows(&config.lake_path);
    let wanted: Vec<_> = expected
        .accepted_rows
        .iter()
        .map(|r| {
            let at = (r.partition, r.offset);
            (
                at,
                r.event_time,
                r.user_id.clone(),
                r.page_url.clone(),
                r.event_type.clone(),
                r.event_date.clone(),
            )
        })
        .collect();
    assert_same_rows("lake", &wanted, &rows);

    let enriched = kafka::read_all(kafka, &config.topics.output).await;
    assert_eq!(enriched.len(), expected.accepted_rows.len(), "enriched records");
    let texts = enriched.iter().map(|record| {
        let text = str::from_utf8(record.value.as_deref().unwrap()).unwrap();
        (Some(record.key.clone()), text)
    });
    support::check_enriched(expected, texts);
    let late: Vec<_> = kafka::read_all(kafka, &config.topics.late)
        .await
        .iter()
        .map(|r| {
            (
                r.header("late.aggregate"),
                r.header("late.partition"),
                r.header("late.offset"),
                r.header("late.watermark"),
            )
        })
        .collect();
    let wanted: Vec<_> = expected
        .late
        .iter()
        .map(|l| {
            let watermark = oracle::time::show(l.watermark);
            (l.aggregate.clone(), l.partition.to_string(), l.offset.to_string(), watermark)
        })
        .collect();
    assert_same_rows("late", &wanted, &late);
    let dead: Vec<_> = kafka::read_all(kafka, &config.topics.dlq)
        .await
        .iter()
        .map(|r| {
            assert_eq!(r.header("dlq.topic"), config.topics.input);
            assert_eq!(r.header("dlq.app"), "pipeline-app");
            (r.header("dlq.partition"), r.header("dlq.offset"), r.header("dlq.reason"))
        })
        .collect();
    let wanted: Vec<_> = expected
        .dead
        .iter()
        .map(|d| (d.partition.to_string(), d.offset.to_string(), d.reason.clone()))
        .collect();
    assert_same_rows("dead letters", &wanted, &dead);
}

async fn check_tables(expected: &Expected, url: &str) {
    let client = connect(url).await;
    let micros = |row: &tokio_postgres::Row, i: usize| {
        row.get::<_, chrono::DateTime<chrono::Utc>>(i).timestamp_micros()
    };
    let rows = client
        .query("SELECT window_start, page_url, window_end, view_count FROM page_view_counts", &[])
        .await
        .unwrap();
    let counts = unique(rows.iter().map(|r| {
        ((micros(r, 0), r.get::<_, String>(1)), (micros(r, 2), r.get::<_, i64>(3) as u64))
    }));
    assert_same_table("page_view_counts", &expected.page_view_counts, &counts);
    let rows = client
        .query("SELECT window_start, window_end, active_user_count FROM active_users", &[])
        .await
        .unwrap();
    let users =
        unique(rows.iter().map(|r| (micros(r, 0), (micros(r, 1), r.get::<_, i64>(2) as u64))));
    assert_same_table("active_users", &expected.active_users, &users);
    let rows = client
        .query(
            "SELECT user_id, session_start_time, session_end_time, session_duration_seconds FROM user_sessions",
            &[],
        )
        .await
        .unwrap();
    let sessions = unique(
        rows.iter()
            .map(|r| ((r.get::<_, String>(0), micros(r, 1)), (micros(r, 2), r.get::<_, f64>(3)))),
    );
    assert_same_table("user_sessions", &expected.user_sessions, &sessions);
}

/// A topic with these splits as its partitions, and what must come of them.
async fn fill(kafka: &str, name: &str, splits: &mut [InputSplit]) -> Expected {
    let topic = Topic::create(kafka, name, splits.len()).await;
    for split in splits.iter_mut() {
        split.topic = name.to_owned();
        stamp(&mut split.records);
        for record in &mut split.records {
            // Kafka keeps milliseconds.
            record.timestamp_micros = record.timestamp_micros.map(|t| t - t.rem_euclid(1_000));
        }
        topic.produce(split.partition, &split.records).await;
    }
    expect(splits, &Settings::default())
}

fn keyless(records: &[InputRecord]) -> Vec<InputRecord> {
    let mut records = records.to_vec();
    meaningless_keys(&mut records, 5);
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_web_log_through_kafka_into_postgres_lake_and_topic() {
    let Some((kafka, admin)) = services() else { return };
    for workers in ["1", "4"] {
        let name = format!("e2e-weblog-{workers}");
        let database = Database::create(&admin, &format!("e2e_weblog_{workers}")).await;
        let records = keyless(&support::web_activity());
        let mut splits = round_robin(&records, 4);
        let expected = fill(&kafka, &name, &mut splits).await;
        let folder = tempfile::tempdir().unwrap();
        let args = ["--until-end", "--workers", workers];
        let config = config(&kafka, &database.url(), &name, folder.path(), &args);
        run_to_end(&config).await;
        check(&expected, &config, &database.url(), &kafka).await;
        // Started again on the same input there is nothing to do, and nothing changes.
        run_to_end(&config).await;
        check(&expected, &config, &database.url(), &kafka).await;
        kafka::delete(&kafka, &name).await;
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_disorder_and_malformed_records_through_kafka_in_interrupted_runs() {
    let Some((kafka, admin)) = services() else { return };
    let name = "e2e-disorder";
    let database = Database::create(&admin, "e2e_disorder").await;
    let mut records = heavy_disorder(&support::web_activity()[..4_000], 7);
    for (i, bad) in malformed_lines(3).into_iter().enumerate() {
        records.insert((i * 15).min(records.len()), bad);
    }
    let mut splits = round_robin(&records, 3);
    let expected = fill(&kafka, name, &mut splits).await;
    let folder = tempfile::tempdir().unwrap();
    // Stopped in the middle, twice, and finished by another number of workers.
    for workers in ["1", "3"] {
        let args = ["--until-end", "--workers", workers, "--checkpoint-interval", "100ms"];
        let config = config(&kafka, &database.url(), name, folder.path(), &args);
        let handle = pipeline_app::run::start(&config, &LastMinute::default()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        handle.stop();
        handle.wait().await.unwrap();
    }
    let args = ["--until-end", "--workers", "2"];
    let config = config(&kafka, &database.url(), name, folder.path(), &args);
    run_to_end(&config).await;
    check(&expected, &config, &database.url(), &kafka).await;
    kafka::delete(&kafka, name).await;
    database.drop().await;
}
