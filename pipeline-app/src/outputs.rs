//! The sinks of the job, for each kind of target.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use streamkit::Checkpoints;
use streamkit::connector::file::LinesSink;
use streamkit::connector::kafka::{KafkaSink, ProducerRecord};
use streamkit::connector::parquet::LakeSink;
use streamkit::connector::postgres::{PostgresConfig, PostgresSink};
use streamkit::connector::sqlite::{SqliteDatabase, SqliteSink};
use streamkit::connector::{DeadLetter, Sink, TableRow};
use streamkit::prelude::LateRecord;
use streamkit::time::{Timestamp, minutes, seconds};

use crate::config::{Config, KafkaConfig, ModeKind};
use crate::job::{JOB, Outputs, Processed, time_of};
use crate::model::{self, Activity, Reason, Reject, enriched};

/// The tables' definitions, as the database's own tools read them too.
pub const INIT_DB: &str = include_str!("../../init-db.sql");

/// The three tables of `init-db.sql`.
pub const TABLES: [&str; 3] = ["page_view_counts", "active_users", "user_sessions"];

/// What dead letters name as the program that could not use the record.
pub const APP: &str = "pipeline-app";

/// Opens every target that the configuration asks for.
///
/// # Errors
/// If a target is not to be had: the error names the setting, the value and what to do.
pub async fn outputs(config: &Config) -> Result<Outputs> {
    let mut outputs = match &config.kafka {
        Some(kafka) => topics(config, kafka),
        None => files(config)?,
    };
    if config.outputs.tables {
        match &config.database_url {
            Some(url) => postgres(url.expose(), config, &mut outputs).await?,
            None => sqlite(&config.data_dir.join("stream_data.db"), &mut outputs)?,
        }
    }
    if config.outputs.lake {
        let roll = if config.mode.kind == ModeKind::Real { minutes(5) } else { seconds(30) };
        outputs.lake = Some(Box::new(lake(&config.lake_path, roll)));
    }
    if !config.outputs.enriched {
        outputs.enriched = None;
    }
    Ok(outputs)
}

/// Whether there is a checkpoint of the job other than the one that it begins with.
async fn has_run(config: &Config) -> bool {
    let folder = Checkpoints::Directory(config.checkpoint_path.clone());
    let newest = tokio::task::spawn_blocking(move || folder.inspect(JOB)?.show(None));
    let newest = newest.await.ok().and_then(Result::ok).flatten();
    newest.is_some_and(|newest| newest.manifest.number > 0)
}

async fn postgres(url: &str, config: &Config, outputs: &mut Outputs) -> Result<()> {
    let database = PostgresConfig::new(url).context("DATABASE_URL cannot be used")?;
    let made = database.ensure_schema(&TABLES, INIT_DB).await;
    match made {
        // The tables are there, and the job waits for them as it would later.
        Err(error) if error.is_retriable() && has_run(config).await => {
            tracing::warn!("DATABASE_URL: {error}");
        }
        made => {
            made.context("the tables of init-db.sql cannot be made in DATABASE_URL")?;
        }
    }
    outputs.page_view_counts = Some(Box::new(table(&database, config)));
    outputs.active_users = Some(Box::new(table(&database, config)));
    outputs.user_sessions = Some(Box::new(table(&database, config)));
    Ok(())
}

fn table<T: TableRow>(database: &PostgresConfig, config: &Config) -> PostgresSink<T> {
    PostgresSink::new(database).on_reject(config.on_reject).max_rejects(config.max_rejects)
}

fn sqlite(path: &Path, outputs: &mut Outputs) -> Result<()> {
    let database = SqliteDatabase::open(path)
        .with_context(|| format!("the database {} cannot be used", path.display()))?;
    outputs.page_view_counts = Some(Box::new(SqliteSink::new(&database)));
    outputs.active_users = Some(Box::new(SqliteSink::new(&database)));
    outputs.user_sessions = Some(Box::new(SqliteSink::new(&database)));
    Ok(())
}

fn lake(path: &Path, roll: Duration) -> LakeSink<Processed> {
    LakeSink::new(path, |row: &Processed| time_of(&row.activity))
        .timestamp("event_time", |row| time_of(&row.activity))
        .text("user_id", |row| row.activity.user_id())
        .text_or_null("page_url", |row| row.activity.page_url())
        .text("event_type", |row| row.activity.event_type())
        .timestamp("processing_time", |row| row.processing_time)
        .int32("source_partition", |row| row.activity.partition())
        .int64("source_offset", |row| row.activity.offset())
        .roll_every(roll)
        .first_roll_within(seconds(5))
}

fn topics(config: &Config, kafka: &KafkaConfig) -> Outputs {
    let target = crate::run::target(config, kafka);
    let name = config.topics.clone();
    let enriched_record = |row: &Processed, _: Timestamp, record: &mut ProducerRecord| {
        if let Some(key) = row.activity.key() {
            record.set_key(key);
        }
        let time = row.processing_time.as_micros();
        record.write_value(|out| enriched::render(&row.activity, time, out));
        stamp(record, row.activity.timestamp_micros());
    };
    let late_record = |late: &LateRecord<Activity>, _: Timestamp, record: &mut ProducerRecord| {
        let activity = &late.record;
        if let Some(key) = activity.key() {
            record.set_key(key);
        }
        record.set_value(activity.body());
        for (header, value) in late_of(late).headers() {
            record.add_header(header, Some(&value));
        }
        stamp(record, activity.timestamp_micros());
    };
    let dead_letter = |letter: &DeadLetter, _: Timestamp, record: &mut ProducerRecord| {
        if let Some(key) = &letter.key {
            record.set_key(key);
        }
        if let Some(value) = &letter.value {
            record.set_value(value);
        }
        with_dead_letter(letter, |dead| {
            for (header, value) in dead.headers() {
                record.add_header(header, Some(&value));
            }
        });
        stamp(record, letter.timestamp.map(Timestamp::as_micros));
    };
    Outputs {
        page_view_counts: None,
        active_users: None,
        user_sessions: None,
        lake: None,
        enriched: Some(Box::new(KafkaSink::new(target.clone(), name.output, enriched_record))),
        dead_letters: Box::new(KafkaSink::new(target.clone(), name.dlq, dead_letter)),
        late: Box::new(KafkaSink::new(target, name.late, late_record)),
    }
}

fn stamp(record: &mut ProducerRecord, micros: Option<i64>) {
    if let Some(micros) = micros {
        record.set_timestamp(Timestamp::from_micros(micros));
    }
}

fn files(config: &Config) -> Result<Outputs> {
    let folder = config.data_dir.join("topics");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    let file = |topic: &str| folder.join(format!("{topic}.jsonl"));
    let enriched_line = |row: &Processed, out: &mut Vec<u8>| {
        enriched::render(&row.activity, row.processing_time.as_micros(), out);
    };
    let late_line = |late: &LateRecord<Activity>, out: &mut Vec<u8>| {
        late_of(late).write_line(out);
    };
    let dead_line = |letter: &DeadLetter, out: &mut Vec<u8>| {
        with_dead_letter(letter, |dead| dead.write_line(out))
    };
    let late: Box<dyn Sink<LateRecord<Activity>>> =
        Box::new(LinesSink::new(file(&config.topics.late), late_line));
    Ok(Outputs {
        page_view_counts: None,
        active_users: None,
        user_sessions: None,
        lake: None,
        enriched: Some(Box::new(LinesSink::new(file(&config.topics.output), enriched_line))),
        dead_letters: Box::new(LinesSink::new(file(&config.topics.dlq), dead_line)),
        late,
    })
}

fn late_of(late: &LateRecord<Activity>) -> model::LateRecord<'_> {
    model::LateRecord {
        aggregate: &late.aggregate,
        watermark: late.watermark.as_micros(),
        topic: late.split.as_ref().map_or("", |split| &*split.topic),
        activity: &late.record,
    }
}

fn with_dead_letter<R>(letter: &DeadLetter, f: impl FnOnce(&model::DeadLetter<'_>) -> R) -> R {
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == letter.reason);
    let field = letter.field.as_deref().and_then(|name| {
        model::Field::ALL.into_iter().map(|field| field.name()).find(|known| *known == name)
    });
    let reject = Reject {
        reason: reason.unwrap_or(Reason::ProcessingError),
        field,
        error: letter.error.clone(),
    };
    let origin = model::Origin {
        key: letter.key.clone(),
        partition: letter.partition,
        offset: i64::try_from(letter.offset).unwrap_or(i64::MAX),
        timestamp_micros: letter.timestamp.map(Timestamp::as_micros),
    };
    f(&model::DeadLetter {
        reject: &reject,
        operator: letter.operator.as_deref(),
        topic: &letter.topic,
        origin: &origin,
        value: letter.value.as_deref(),
        app: APP,
    })
}
