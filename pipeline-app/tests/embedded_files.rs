//! The job with no service at all: files in, SQLite, lake and files out, against the batch
//! computation. Several files are several splits, one of them compressed.

mod oracle;
mod support;

use std::io::Write;
use std::path::{Path, PathBuf};

use oracle::generate::{file_content, file_split, fits_a_line, heavy_disorder, random_split};
use oracle::malformed::malformed_lines;
use oracle::{InputRecord, InputSplit, Settings, expect};
use pipeline_app::config::{Config, Environment, Machine, resolve};
use pipeline_app::status::LastMinute;
use support::embedded;

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
            embedded::check(&expected, &config.data_dir, &config.lake_path);
        }
    }
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
