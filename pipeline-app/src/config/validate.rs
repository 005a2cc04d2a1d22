//! From texts to a configuration.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use streamkit::InputEnd;
use streamkit::connector::postgres::{OnReject, PostgresConfig};

use super::duration;
use super::generator::generator_options;
use super::layers::{Layers, Origin};
use super::mode::{self, Facts};
use super::secret::{REDACTED, Secret};
use super::settings::{Setting, by_key, did_you_mean};
use super::{Config, Input, KafkaConfig, Machine, OutputSet, Topics};
use crate::cli::Cli;

/// How far back generated events begin: what the embedded mode shows at once.
const HEAD_START: Duration = Duration::from_secs(2 * 3600);
/// More workers than key groups would have nothing to do.
const MOST_WORKERS: usize = 256;

/// Validates everything.
///
/// # Errors
/// The first setting that cannot be used or is missing.
pub fn resolve(layers: &Layers, cli: &Cli, machine: Machine) -> Result<Config> {
    let run = cli.run_args();
    let values = Values(layers);
    let outputs = values.parse("outputs", outputs)?.unwrap_or(EVERYTHING);
    let database_url = values.parse("database_url", database_url)?;
    let kafka = kafka(&values)?;
    let data_dir = values.path("data_dir")?.unwrap_or_else(|| PathBuf::from("data"));
    let mode = mode::decide(&Facts {
        kafka: kafka.as_ref().and_then(|_| values.origin("kafka.bootstrap_servers")),
        database: database_url.as_ref().and_then(|_| values.origin("database_url")),
        files: !run.input.is_empty(),
        tables: outputs.tables,
        only_looking: !cli.runs(),
        data_dir: data_dir.display().to_string(),
    })?;
    let generator = generator_options(layers, machine.now, machine.now.saturating_sub(HEAD_START))?;
    let input = match (run.input.is_empty(), &kafka) {
        (false, _) => Input::Files(existing(&run.input)?),
        (true, Some(_)) => Input::Kafka,
        (true, None) => Input::Generator(generator),
    };
    let session_gap = values.duration("session_gap")?;
    Ok(Config {
        mode,
        input,
        kafka,
        topics: topics(&values)?,
        database_url,
        lake_path: values.path("lake_path")?.unwrap_or_else(|| data_dir.join("lake")),
        checkpoint_path: values
            .path("checkpoint_path")?
            .unwrap_or_else(|| data_dir.join("checkpoints")),
        data_dir,
        outputs,
        workers: values.parse("workers", workers)?.unwrap_or(machine.cores.min(MOST_WORKERS)),
        instance: values.name("instance")?,
        watermark_delay: values.needed("watermark_delay", duration::parse)?,
        session_gap,
        session_max: values.duration("session_max")?,
        max_future: values.needed("max_future", duration::parse)?,
        idle_timeout: values.duration_or_off("idle_timeout")?,
        max_dead_letters: values.needed("max_dead_letters", dead_letters)?,
        on_reject: values.needed("on_reject", on_reject)?,
        max_rejects: values.needed("max_rejects", max_rejects)?,
        running_values: values.duration_or_off("running_values")?,
        checkpoint_interval: values.duration("checkpoint_interval")?,
        detach_after: values.needed("detach_after", duration::parse)?,
        catch_up_beyond: values.needed("catch_up_beyond", number)?,
        ui_bind: values.needed("ui_bind", ui_bind)?,
        end: match (run.until_end, run.keep_open) {
            (_, true) => InputEnd::KeepOpen,
            (true, false) => InputEnd::Close,
            (false, false) => InputEnd::Wait,
        },
        reopen: run.reopen,
        take_over: run.take_over,
        rebuild: run.rebuild,
        accept_gap: run.accept_gap,
        backfill: run.backfill,
        allow_dropped_state: run.allow_dropped_state,
        summary_json: run.summary_json,
    })
}

const EVERYTHING: OutputSet = OutputSet { tables: true, lake: true, enriched: true };

/// Access to values, with messages that name them.
pub(super) struct Values<'a>(pub(super) &'a Layers);

impl Values<'_> {
    fn origin(&self, key: &str) -> Option<Origin> {
        self.0.get(key).map(|given| given.origin.clone())
    }

    /// Reads the value of a setting, or its default's.
    pub(super) fn parse<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        let setting = setting(key)?;
        let (text, origin) = match (self.0.get(key), setting.default) {
            (Some(given), _) => (given.text.trim(), &given.origin),
            (None, Some(default)) => (default, &Origin::Default),
            (None, None) => return Ok(None),
        };
        let value = if text.is_empty() {
            Err("it is empty: leave it out, or give it a value".to_owned())
        } else {
            read(text)
        };
        value.map(Some).map_err(|problem| {
            let shown = if setting.secret { REDACTED.to_owned() } else { format!("{text:?}") };
            let name = named(setting, origin);
            anyhow!("{name} ({origin}) is {shown}, which cannot be used: {problem}")
        })
    }

    /// [`parse`](Self::parse) for a setting that has a default.
    pub(super) fn needed<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T> {
        self.parse(key, read)?.ok_or_else(|| anyhow!("{key} has no value"))
    }

    fn duration(&self, key: &'static str) -> Result<Duration> {
        self.needed(key, |text| duration::parse(text).and_then(not_zero))
    }

    fn duration_or_off(&self, key: &'static str) -> Result<Option<Duration>> {
        self.needed(key, |text| match duration::parse_or_off(text)? {
            Some(time) => not_zero(time).map(Some).map_err(|problem| format!("{problem}; or off")),
            None => Ok(None),
        })
    }

    fn path(&self, key: &'static str) -> Result<Option<PathBuf>> {
        self.parse(key, |text| match text.split_once("://") {
            Some(_) => Err("it must be a folder of this machine".to_owned()),
            None => Ok(PathBuf::from(text)),
        })
    }

    /// A name made of the characters that Kafka takes.
    fn name(&self, key: &'static str) -> Result<String> {
        self.needed(key, legal_name)
    }
}

fn setting(key: &'static str) -> Result<&'static Setting> {
    by_key(key).ok_or_else(|| anyhow!("there is no setting {key}"))
}

/// A setting's name as it is called where it was set.
fn named(setting: &Setting, origin: &Origin) -> String {
    match (origin, setting.env) {
        (Origin::Flag, _) => setting.flag(),
        (Origin::DotEnv | Origin::Environment | Origin::Default, Some(env)) => env.to_owned(),
        _ => setting.key.to_owned(),
    }
}

/// Reads what has a standard form.
pub(super) fn number<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.replace('_', "").parse().map_err(|e| format!("{e}; write a number"))
}

fn not_zero(time: Duration) -> Result<Duration, String> {
    if time.is_zero() { Err("it must be longer than zero".to_owned()) } else { Ok(time) }
}

fn workers(text: &str) -> Result<usize, String> {
    match number(text)? {
        workers @ 1..=MOST_WORKERS => Ok(workers),
        _ => Err(format!("it must be from 1 to {MOST_WORKERS}; leave it out for one per core")),
    }
}

fn outputs(text: &str) -> Result<OutputSet, String> {
    const NAMES: [&str; 3] = ["tables", "lake", "enriched"];
    let mut set = OutputSet { tables: false, lake: false, enriched: false };
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "tables" => set.tables = true,
            "lake" => set.lake = true,
            "enriched" => set.enriched = true,
            other => {
                let hint = did_you_mean(other, NAMES.into_iter())
                    .map(|name| format!("did you mean {name}? "))
                    .unwrap_or_default();
                return Err(format!("there is no output {other:?}; {hint}outputs are {NAMES:?}"));
            }
        }
    }
    if set.tables || set.lake || set.enriched { Ok(set) } else { Err("it names none".to_owned()) }
}

/// A part of all records, as `5%` or as `0.05`.
fn dead_letters(text: &str) -> Result<Option<f64>, String> {
    if duration::is_off(text) {
        return Ok(None);
    }
    let part = match text.strip_suffix('%') {
        Some(percent) => number::<f64>(percent.trim_end()).map(|percent| percent / 100.0),
        None => number::<f64>(text),
    };
    match part {
        Ok(part) if part > 0.0 && part < 1.0 => Ok(Some(part)),
        _ => Err("write a part of all records, such as 5% or 0.05, or off".to_owned()),
    }
}

fn on_reject(text: &str) -> Result<OnReject, String> {
    match text {
        "reject" => Ok(OnReject::Reject),
        "stop" => Ok(OnReject::Stop),
        _ => Err("write reject (such a row goes into the table streamkit_rejects) or stop".into()),
    }
}

fn max_rejects(text: &str) -> Result<Option<u64>, String> {
    if duration::is_off(text) {
        return Ok(None);
    }
    match number(text) {
        Ok(rows @ 1..) => Ok(Some(rows)),
        _ => Err("write a number of rows from 1 on, or off; ON_REJECT=stop allows none".into()),
    }
}

fn database_url(text: &str) -> Result<Secret, String> {
    // Its messages never repeat the value.
    PostgresConfig::new(text).map_err(|error| error.message().to_owned())?;
    Ok(Secret::new(text))
}

fn ui_bind(text: &str) -> Result<Option<SocketAddr>, String> {
    if duration::is_off(text) {
        return Ok(None);
    }
    let numeric = text.replacen("localhost:", "127.0.0.1:", 1);
    numeric.parse().map(Some).map_err(|_| {
        "write an address and a port, such as 127.0.0.1:8088 (0.0.0.0:8088 for all interfaces), \
         or off"
            .to_owned()
    })
}

fn kafka(values: &Values<'_>) -> Result<Option<KafkaConfig>> {
    let bootstrap = values.parse("kafka.bootstrap_servers", |text| {
        match text.split(',').any(|part| part.trim().is_empty() || part.trim().contains(' ')) {
            true => Err("write host:port, several with commas between them".to_owned()),
            false => Ok(text.to_owned()),
        }
    })?;
    let properties =
        values.0.properties().map(|(name, given)| (name.to_owned(), given.text.clone()));
    Ok(bootstrap.map(|bootstrap| KafkaConfig { bootstrap, properties: properties.collect() }))
}

fn legal_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.len() <= 249 && text.chars().all(legal) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        Err("it can have letters, digits, dots, _ and -, and at most 249 of them".to_owned())
    }
}

fn topics(values: &Values<'_>) -> Result<Topics> {
    let input = values.name("kafka.input_topic")?;
    let derived = |key, suffix: &str| match values.parse(key, legal_name)? {
        Some(name) => anyhow::Ok(name),
        None => Ok(format!("{input}.{suffix}")),
    };
    let topics = Topics {
        output: values.name("kafka.output_topic")?,
        dlq: derived("kafka.dlq_topic", "dlq")?,
        late: derived("kafka.late_topic", "late")?,
        group: values.name("kafka.group_id")?,
        input,
    };
    let names = [
        ("KAFKA_INPUT_TOPIC", &topics.input),
        ("KAFKA_OUTPUT_TOPIC", &topics.output),
        ("KAFKA_DLQ_TOPIC", &topics.dlq),
        ("KAFKA_LATE_TOPIC", &topics.late),
    ];
    for (i, (setting, name)) in names.iter().enumerate() {
        if let Some((other, _)) = names[..i].iter().find(|(_, other)| other == name) {
            bail!("{other} and {setting} are both {name:?}: each needs a topic of its own");
        }
    }
    Ok(topics)
}

fn existing(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    for file in files {
        if !file.is_file() {
            let why = if file.is_dir() { "is a folder: name its files" } else { "does not exist" };
            bail!("--input {} {why}", file.display());
        }
    }
    Ok(files.to_vec())
}
