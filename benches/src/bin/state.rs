//! What state costs pipeline-app: see dev/state-bench.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::Value;
use streamkit::time::{Clock as _, SystemClock, millis, seconds};
use streamkit_benches::load::app::{App, command};
use streamkit_benches::load::figures::{number, print_table};
use streamkit_benches::load::people::People;

/// How long the program may take for an input.
const LIMIT: Duration = seconds(600);
/// An interval in which no checkpoint is made.
const NEVER: &str = "10h";
/// The part of the users that come while a checkpoint is made or missing.
const TENTH: u64 = 10;
/// Events per second while checkpoints are looked at.
const PACE: u64 = 50_000;

/// See dev/state-bench --help.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, value_delimiter = ',', default_value = "memory,checkpoints,loss,recovery,workers")]
    only: Vec<Part>,
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
    memory: Vec<u64>,
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000,4000000")]
    recovery: Vec<u64>,
    #[arg(long, default_value_t = 1_000_000)]
    users: u64,
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Memory,
    Checkpoints,
    Loss,
    Recovery,
    Workers,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let work = PathBuf::from("target/state-bench");
    let mut failures = vec![];
    for part in &options.only {
        let folder = work.join(format!("{part:?}").to_lowercase());
        // What an earlier one has kept, or left.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let done = match part {
            Part::Memory => memory(&options, &folder),
            Part::Checkpoints => checkpoints(&options, &folder),
            Part::Loss => compare(
                &options,
                &folder,
                "The same input with and without checkpoints",
                [
                    ("a checkpoint every 10 s", "--checkpoint-interval", "10s"),
                    ("none", "--checkpoint-interval", NEVER),
                ],
            ),
            Part::Recovery => recovery(&options, &folder),
            Part::Workers => compare(
                &options,
                &folder,
                "The same input with one worker and with two",
                [("1 worker", "--workers", "1"), ("2 workers", "--workers", "2")],
            ),
        };
        match done {
            Ok(()) if options.keep => {}
            Ok(()) => std::fs::remove_dir_all(&folder)?,
            Err(error) => {
                eprintln!("FAILED: {part:?}: {error:#}; see {}", folder.display());
                failures.push(part);
            }
        }
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(people: &People, folder: &Path, flags: &[&str]) -> Result<App> {
    let mut all = people.flags()?;
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    App::start(folder, &all)
}

fn count(job: &Value, pointer: &str) -> u64 {
    job.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn rows(job: &Value, sink: &str) -> u64 {
    let sinks = job["sinks"].as_array().into_iter().flatten();
    let of = sinks.filter(|one| one["name"] == sink).map(|one| count(one, "/rows"));
    of.sum()
}

/// All events have been taken in, by every aggregate that wants them.
fn has_counted(job: &Value, people: &People) -> bool {
    let counted = |name: &str| count(&job["counted"], name);
    count(job, "/read") == people.events
        && counted("/page_view_counts") == people.views
        && counted("/active_users") == people.events
        && counted("/user_sessions") == people.events
}

fn wait_until_counted(app: &mut App, people: &People) -> Result<Value> {
    let job = app.wait_for("all events counted", LIMIT, |job| has_counted(job, people))?;
    let dead: u64 = job["dead_letters"].as_object().map_or(0, |dead| dead.len() as u64);
    ensure!(dead == 0, "there are dead letters: {}", job["dead_letters"]);
    Ok(job)
}

/// Resident memory with so many users, at rest; twice each, so that tables have seen all of them.
fn resident(folder: &Path, users: u64) -> Result<(u64, u64)> {
    let folder = folder.join(users.to_string());
    std::fs::create_dir_all(&folder)?;
    let mut people = People::new(&folder, users)?;
    people.append(2 * users)?;
    let mut app =
        start(&people, &folder, &["--outputs", "tables", "--checkpoint-interval", NEVER])?;
    wait_until_counted(&mut app, &people)?;
    // The allocator gives back what it no longer needs a moment later.
    std::thread::sleep(seconds(2));
    let memory = app.memory()?;
    app.kill()?;
    std::fs::remove_dir_all(folder)?;
    Ok(memory)
}

fn memory(options: &Options, folder: &Path) -> Result<()> {
    const FEW: u64 = 10_000;
    eprintln!("memory");
    let (few, _) = resident(folder, FEW)?;
    let mut table = vec![];
    for &users in &options.memory {
        let (now, most) = resident(folder, users)?;
        let per_user = now.saturating_sub(few) as f64 / users.saturating_sub(FEW).max(1) as f64;
        table.push(vec![
            number(users),
            number(now / 1_000_000),
            number(most / 1_000_000),
            format!("{per_user:.0}"),
        ]);
    }
    print_table(
        &format!(
            "Resident memory at rest. Each user has an open session, is in one or two of the panes of \
             active_users at any time, and one in ten has an event that the watermark has not passed. \
             Bytes per user: what it is more than with {} users ({} MB).",
            number(FEW),
            number(few / 1_000_000)
        ),
        &["users", "MB", "most MB", "bytes per user"],
        &table,
    );
    Ok(())
}

fn checkpoints(options: &Options, folder: &Path) -> Result<()> {
    eprintln!("checkpoints");
    let mut people = People::new(folder, options.users)?;
    people.append(options.users)?;
    let flags = ["--outputs", "tables", "--checkpoint-interval", "4s"];
    let mut app = start(&people, folder, &flags)?;
    wait_until_counted(&mut app, &people)?;
    let mut seen: Vec<Value> = vec![];
    let clock = SystemClock::new();
    let (mut sent, first) = (0, clock.elapsed());
    // The program keeps ten.
    while seen.len() < 8 {
        let due = (clock.elapsed() - first).as_millis() as u64 * PACE / 1_000;
        people.append(due - sent)?;
        sent = due;
        let job = app.progress().context("no answer")?;
        let newest = &job["checkpoint"];
        if count(newest, "/number") > seen.last().map_or(0, |last| count(last, "/number")) {
            seen.push(newest.clone());
        }
        std::thread::sleep(millis(20));
        ensure!(clock.elapsed() < LIMIT, "{} checkpoints within {LIMIT:?}", seen.len());
    }
    wait_until_counted(&mut app, &people)?;
    let (_, most) = app.memory()?;
    let bases = bases(folder)?;
    let mut table = vec![];
    for one in &seen {
        let number_of = count(one, "/number");
        let ms = |name: &str| format!("{:.1}", one[name].as_f64().unwrap_or_default() * 1e3);
        table.push(vec![
            number(number_of),
            if bases.contains(&number_of) { "base" } else { "increment" }.to_owned(),
            format!("{:.1}", count(one, "/bytes") as f64 / 1e6),
            ms("pause_seconds"),
            ms("duration_seconds"),
        ]);
    }
    app.stop()?;
    print_table(
        &format!(
            "Checkpoints every 4 s of {} users with an open session each, while {} events come per \
             second, each of another user. Pause: the longest time that a worker took for its state. \
             Most memory: {} MB.",
            number(options.users),
            number(PACE),
            number(most / 1_000_000)
        ),
        &["number", "kind", "MB", "pause ms", "until durable ms"],
        &table,
    );
    Ok(())
}

/// The kept checkpoints that are bases, by their numbers.
fn bases(folder: &Path) -> Result<Vec<u64>> {
    let ask = ["--data-dir", "data", "checkpoint", "ls"].map(str::to_owned);
    let listed = command(&ask)?.current_dir(folder).output()?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout)?;
    // Number, time, and then `base` or `on 7`.
    let base = |line: &str| {
        let mut words = line.split_whitespace();
        let number = words.next()?.parse().ok()?;
        (words.nth(1) == Some("base")).then_some(number)
    };
    Ok(text.lines().filter_map(base).collect())
}

/// Runs the same input to its end with one flag and with another, in turn.
fn compare(
    options: &Options,
    folder: &Path,
    title: &str,
    contenders: [(&str, &str, &str); 2],
) -> Result<()> {
    eprintln!("{title}");
    let mut people = People::new(folder, options.users)?;
    people.append(options.events)?;
    let mut walls = [vec![], vec![]];
    for round in 0..options.rounds {
        for (which, (_, flag, value)) in contenders.iter().enumerate() {
            let folder = folder.join(format!("{round}-{which}"));
            std::fs::create_dir_all(&folder)?;
            let common = ["--outputs", "tables", "--until-end", "--summary-json", "summary.json"];
            let flags = [&common[..], &[*flag, *value]].concat();
            start(&people, &folder, &flags)?.end()?;
            walls[which].push(check_tables(&folder, &people, options.users)?);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    let mut ratios: Vec<f64> = walls[0].iter().zip(&walls[1]).map(|(a, b)| a / b).collect();
    let ratio = median(&mut ratios);
    let [first, second] = &mut walls;
    let row = |name: &str, wall: &mut Vec<f64>| {
        let middle = median(wall);
        let per_second = (people.events as f64 / middle) as u64;
        vec![name.to_owned(), format!("{middle:.1}"), number(per_second)]
    };
    let table = [row(contenders[0].0, first), row(contenders[1].0, second)];
    print_table(
        &format!(
            "{title}: {} events of {} users from files into three tables (SQLite), until all windows \
             are closed; medians of {} in turn. The first takes {ratio:.2} times as long as the second \
             (median of the ratios; {:.2} to {:.2}).",
            number(people.events),
            number(options.users),
            options.rounds,
            ratios.first().copied().unwrap_or_default(),
            ratios.last().copied().unwrap_or_default()
        ),
        &["", "seconds", "events/s"],
        &table,
    );
    Ok(())
}

/// Sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Whether a run to the end has written what it must; returns how long it took.
fn check_tables(folder: &Path, people: &People, users: u64) -> Result<f64> {
    let summary: Value = serde_json::from_slice(&std::fs::read(folder.join("summary.json"))?)?;
    ensure!(count(&summary, "/accepted") == people.events, "accepted: {}", summary["accepted"]);
    let tables = rusqlite::Connection::open(folder.join("data/stream_data.db"))?;
    let of = |sql: &str| -> Result<u64> {
        let found: i64 = tables.query_row(sql, [], |row| row.get(0))?;
        Ok(u64::try_from(found)?)
    };
    let views = of("SELECT sum(view_count) FROM page_view_counts")?;
    ensure!(views == people.views, "{views} page views counted, not {}", people.views);
    let sessions = of("SELECT count(*) FROM user_sessions")?;
    ensure!(sessions == users.min(people.events), "{sessions} sessions of {users} users");
    // A quarter of the users come within five minutes.
    let most = of("SELECT max(active_user_count) FROM active_users")?;
    ensure!(most.abs_diff(users / 4) <= 1, "{most} active users of {users}");
    summary["wall_seconds"].as_f64().context("no wall_seconds")
}

fn recovery(options: &Options, folder: &Path) -> Result<()> {
    eprintln!("recovery");
    let mut table = vec![];
    for &users in &options.recovery {
        let folder = folder.join(users.to_string());
        std::fs::create_dir_all(&folder)?;
        table.extend(recover(&folder, users)?);
        std::fs::remove_dir_all(&folder)?;
    }
    print_table(
        "From exec on, in seconds. Fresh: no state, and an event of each user to read. After kill -9: \
         state of all users; a tenth of them came after the last checkpoint, and another tenth while the \
         program was down. Files as input, tables (SQLite) and enriched records (a file) as outputs.",
        &[
            "users",
            "start",
            "running",
            "first record",
            "first new output",
            "caught up",
            "restored MB",
        ],
        &table,
    );
    Ok(())
}

fn recover(folder: &Path, users: u64) -> Result<[Vec<String>; 2]> {
    const ENRICHED: &str = "enriched";
    let flags = ["--outputs", "tables,enriched", "--checkpoint-interval", NEVER];
    let mut people = People::new(folder, users)?;
    people.append(users)?;
    let app = start(&people, folder, &flags)?;
    let (fresh, app) = milestones(app, &people, 0)?;
    // A graceful stop ends with a checkpoint; the next run makes none.
    app.stop()?;
    let mut app = start(&people, folder, &flags)?;
    app.wait_until_running()?;
    people.append(users / TENTH)?;
    wait_until_counted(&mut app, &people)?;
    let job = app.wait_for("all enriched", LIMIT, |job| rows(job, ENRICHED) == people.events)?;
    let before = rows(&job, ENRICHED);
    app.kill()?;
    people.append(users / TENTH)?;
    let restored = bytes_of_checkpoints(folder)?;
    let app = start(&people, folder, &flags)?;
    let (again, app) = milestones(app, &people, before)?;
    app.stop()?;
    let written = std::fs::read(folder.join("data/topics/enriched_activity.jsonl"))?;
    let lines = written.iter().filter(|byte| **byte == b'\n').count() as u64;
    ensure!(lines == people.events, "{lines} enriched records of {} events", people.events);
    let row = |start: &str, times: [Duration; 4], restored: u64| {
        let mut row = vec![number(users), start.to_owned()];
        row.extend(times.map(|time| format!("{:.2}", time.as_secs_f64())));
        row.push(format!("{:.1}", restored as f64 / 1e6));
        row
    };
    Ok([row("fresh", fresh, 0), row("after kill -9", again, restored)])
}

/// When the program's threads run, when it has processed a record, when its first new row is out, and
/// when it has got through its input.
fn milestones(mut app: App, people: &People, before: u64) -> Result<([Duration; 4], App)> {
    let job = app.wait_until_running()?;
    let running = app.age();
    let at_first = if before == 0 { 0 } else { count(&job, "/read") };
    app.wait_for("a record", LIMIT, |job| count(job, "/read") > at_first)?;
    let record = app.age();
    app.wait_for("a new row", LIMIT, |job| rows(job, "enriched") > before)?;
    let row = app.age();
    wait_until_counted(&mut app, people)?;
    app.wait_for("all rows", LIMIT, |job| rows(job, "enriched") == people.events)?;
    let caught_up = app.age();
    Ok(([running, record, row, caught_up], app))
}

/// The bytes of a job's checkpoints.
fn bytes_of_checkpoints(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(folder.join("data/checkpoints/user-activity"))? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}
