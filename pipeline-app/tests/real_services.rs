//! The job through real Kafka, PostgreSQL and Parquet, against the same batch computation.
//!
//! Needs `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL` (see `dev/services`); skipped without them.

mod oracle;
mod support;

use std::path::Path;

use oracle::generate::{heavy_disorder, meaningless_keys, round_robin, stamp};
use oracle::malformed::malformed_lines;
use oracle::{Expected, InputRecord, InputSplit, Settings, expect};
use pipeline_app::config::{Config, Environment, Machine, resolve};
use pipeline_app::status::LastMinute;
use support::kafka::{self, Topic};
use support::program::{program, text};
use support::services::{Database, check, connect, services};

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
        check(&expected, &kafka, &name, &database.url(), &config.lake_path).await;
        // Started again on the same input there is nothing to do, and nothing changes.
        run_to_end(&config).await;
        check(&expected, &kafka, &name, &database.url(), &config.lake_path).await;
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
    check(&expected, &kafka, name, &database.url(), &config.lake_path).await;
    kafka::delete(&kafka, name).await;
    database.drop().await;
}

/// Rows that a table refuses are counted where people look, and can be too many (F59).
#[tokio::test(flavor = "multi_thread")]
async fn f59_refused_rows_are_counted_and_can_be_too_many() {
    let Some((_, admin)) = services() else { return };
    let database = Database::create(&admin, "e2e_rejects").await;
    let client = connect(&database.url()).await;
    client.batch_execute(pipeline_app::outputs::INIT_DB).await.unwrap();
    let refuse = "ALTER TABLE page_view_counts ADD CHECK (view_count <> 1)";
    client.batch_execute(refuse).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/web_activity.jsonl.gz");
    let run = |more: &[&str]| {
        let job = ["--input", input, "--until-end", "--ui-bind", "off", "--summary-json", "s.json"];
        let all = [&job[..], more].concat();
        let variables = [("DATABASE_URL", &*database.url())];
        let ended = program(folder.path(), &all, &variables).output().unwrap();
        (ended.status.success(), text(&ended))
    };
    let (good, said) = tokio::task::block_in_place(|| run(&["--max-rejects", "1"]));
    assert!(!good && said.contains("max_rejects = 1"), "{said}");
    let (good, said) = tokio::task::block_in_place(|| run(&["--on-reject", "stop"]));
    assert!(!good && said.contains("23514"), "{said}");
    let (good, said) = tokio::task::block_in_place(|| run(&[]));
    assert!(good && said.contains("(page_view_counts "), "{said}");
    let summary = std::fs::read_to_string(folder.path().join("s.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let count = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    let refused = count("SELECT count(*) FROM streamkit_rejects").await;
    assert!(refused > 1);
    assert_eq!(summary["rejected"]["page_view_counts"], refused);
    let written = count("SELECT count(*) FROM page_view_counts").await;
    assert_eq!(summary["rows"]["page_view_counts"], written + refused);
    database.drop().await;
}
