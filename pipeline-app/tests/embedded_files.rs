//! The job with no service at all: files in, SQLite, lake and files out, against the batch
//! computation. Several files are several splits, one of them compressed.

mod oracle;
mod support;

use std::io::Write;
use std::path::{Path, PathBuf};

use oracle::compare::{assert_same_rows, assert_same_table};
use oracle::generate::{file_content, file_split, fits_a_line, heavy_disorder, random_split};
use oracle::malformed::malformed_lines;
use oracle::{Expected, InputRecord, InputSplit, Settings, expect};
use pipeline_app::config::{Config, Environment, Machine, resolve};
use pipeline_app::status::LastMinute;
use support::{lake, unique};

/// Writes the parts to files; the last one is compressed. Returns them as the oracle sees them.
fn write(folder: &Path, parts: &[Vec<InputRecord>]) -> (Vec<PathBuf>, Vec<InputSplit>) {
    let (mut paths, mut splits) = (vec![], vec![]);
    for (i, records) in parts.iter().enumerate() {
        let content = file_content(records);
        let packed = i + 1 == parts.len();
        let name = if packed { format!("part{i}.jsonl.gz") } else { format!("part{i}.jsonl") };
        let path = folder.join(&name);
        let mut file = std::fs::File::create(&path).unwrap();
        if packed {
            let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            packer.write_all(&content).unwrap();
            packer.finish().unwrap();
        } else {
            file.write_all(&content).unwrap();
        }
        // The limit of future times is later than every time in these files.
        splits.push(file_split(&name, i32::try_from(i).unwrap(), &content, None));
        paths.push(path);
    }
    (paths, splits)
}

fn config(folder: &Path, files: &[PathBuf], workers: &str) -> Config {
    let mut args = vec!["pipeline-app", "--until-end", "--ui-bind", "off", "--workers", workers];
    args.extend(["--data-dir", folder.to_str().unwrap()]);
    for file in files {
        args.extend(["--input", file.to_str().unwrap()]);
    }
    let cli = <pipeline_app::cli::Cli as clap::Parser>::try_parse_from(args).unwrap();
    let layers = pipeline_app::config::read(&cli, &Environment::default()).unwrap();
    resolve(&layers, &cli, Machine::here()).unwrap()
}

async fn check(name: &str, parts: &[Vec<InputRecord>]) {
    let inputs = tempfile::tempdir().unwrap();
    let (paths, splits) = write(inputs.path(), parts);
    let expected = expect(&splits, &Settings::default());
    println!("{name}: {}", expected.totals());
    for workers in ["1", "4"] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &paths, workers);
        // Twice: the second time there is nothing to do, and nothing changes.
        for _ in 0..2 {
            let handle = pipeline_app::run::start(&config, &LastMinute::default()).await.unwrap();
            handle.wait().await.unwrap();
            check_outputs(&expected, &config);
        }
    }
}

fn check_outputs(expected: &Expected, config: &Config) {
    check_tables(expected, &config.data_dir.join("stream_data.db"));
    let rows = lake::rows(&config.lake_path);
    let wanted: Vec<_> = expected
        .accepted_rows
        .iter()
        .map(|r| {
            let (at, user) = ((r.partition, r.offset), r.user_id.clone());
            let (page, kind) = (r.page_url.clone(), r.event_type.clone());
            (at, r.event_time, user, page, kind, r.event_date.clone())
        })
        .collect();
    assert_same_rows("lake", &wanted, &rows);

    let lines = |topic: &str| {
        let path = config.data_dir.join("topics").join(format!("{topic}.jsonl"));
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let enriched = lines("enriched_activity");
    assert_eq!(enriched.len(), expected.accepted_rows.len());
    support::check_enriched(expected, enriched.iter().map(|line| (None, line.as_str())));

    let value = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let text = |v: &serde_json::Value, name: &str| v[name].as_str().unwrap_or_default().to_owned();
    let late: Vec<_> = lines("user_activity.late")
        .iter()
        .map(|line| {
            let v = value(line);
            let at = (text(&v, "topic"), v["partition"].as_i64(), v["offset"].as_i64());
            (text(&v, "aggregate"), at, text(&v, "watermark"))
        })
        .collect();
    let wanted: Vec<_> = expected
        .late
        .iter()
        .map(|l| {
            let at = (l.topic.clone(), Some(i64::from(l.partition)), Some(l.offset));
            (l.aggregate.clone(), at, oracle::time::show(l.watermark))
        })
        .collect();
    assert_same_rows("late", &wanted, &late);
    let dead: Vec<_> = lines("user_activity.dlq")
        .iter()
        .map(|line| {
            let v = value(line);
            (text(&v, "topic"), v["offset"].as_i64(), text(&v, "reason"), text(&v, "field"))
        })
        .collect();
    let wanted: Vec<_> = expected
        .dead
        .iter()
        .map(|d| {
            let field = d.field.clone().unwrap_or_default();
            (d.topic.clone(), Some(d.offset), d.reason.clone(), field)
        })
        .collect();
    assert_same_rows("dead letters", &wanted, &dead);
}

fn check_tables(expected: &Expected, path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    let micros = |text: String| {
        let time = chrono::DateTime::parse_from_rfc3339(&text).unwrap();
        assert!(text.ends_with('Z'), "{text} is not marked as UTC");
        time.timestamp_micros()
    };
    let mut query = database
        .prepare("SELECT window_start, page_url, window_end, view_count FROM page_view_counts")
        .unwrap();
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, i64>(3)?)));
    let counts = unique(rows.unwrap().map(|row| {
        let (start, page, end, views): (String, String, String, i64) = row.unwrap();
        ((micros(start), page), (micros(end), views as u64))
    }));
    assert_same_table("page_view_counts", &expected.page_view_counts, &counts);
    let mut query = database
        .prepare("SELECT window_start, window_end, active_user_count FROM active_users")
        .unwrap();
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get::<_, i64>(2)?)));
    let users = unique(rows.unwrap().map(|row| {
        let (start, end, users): (String, String, i64) = row.unwrap();
        (micros(start), (micros(end), users as u64))
    }));
    assert_same_table("active_users", &expected.active_users, &users);
    let mut query = database
        .prepare("SELECT user_id, session_start_time, session_end_time, session_duration_seconds FROM user_sessions")
        .unwrap();
    let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get::<_, f64>(3)?)));
    let sessions = unique(rows.unwrap().map(|row| {
        let (user, start, end, seconds): (String, String, String, f64) = row.unwrap();
        ((user, micros(start)), (micros(end), seconds))
    }));
    assert_same_table("user_sessions", &expected.user_sessions, &sessions);
}

fn parts(splits: Vec<InputSplit>) -> Vec<Vec<InputRecord>> {
    splits.into_iter().map(|split| split.records).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_web_log_from_one_file_and_from_four() {
    let records = support::web_activity();
    check("one file", std::slice::from_ref(&records)).await;
    check("four files at random", &parts(random_split(&records, 4, 3))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_disorder_and_malformed_lines_in_three_files() {
    let mut records = heavy_disorder(&support::web_activity()[..4_000], 7);
    // Without a record timestamp of its own a line is only refused past the file's limit.
    let bad =
        malformed_lines(2).into_iter().filter(|r| fits_a_line(r) && r.timestamp_micros.is_none());
    for (i, bad) in bad.enumerate() {
        records.insert((i * 11).min(records.len()), bad);
    }
    check("heavy disorder", &parts(random_split(&records, 3, 5))).await;
}
