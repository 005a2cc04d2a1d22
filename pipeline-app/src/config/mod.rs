//! What the program has been told, validated once into a type that cannot be wrong.
//!
//! Each setting can be said in five places (`layers`), is known by one name in each
//! (`settings`), and two of them decide the mode (`mode`). A message about a setting says its
//! name as it is called where it was set, that place, the value, and what to do.

pub mod duration;
mod generator;
mod layers;
mod mode;
mod secret;
mod settings;
mod show;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use streamkit::InputEnd;
use streamkit::connector::postgres::OnReject;
use streamkit::time::{Clock as _, SystemClock, Timestamp};

use crate::cli::Cli;
use crate::generate::GeneratorOptions;

pub use generator::generator_options;
pub use layers::{Environment, Given, Layers, Origin};
pub use mode::{Mode, ModeKind};
pub use secret::Secret;
pub use settings::{SETTINGS, Setting};
pub use show::show;
pub use validate::resolve;

/// Everything that a run depends on.
#[derive(Debug, Clone)]
pub struct Config {
    /// The mode, and the line that says why.
    pub mode: Mode,
    /// What is read.
    pub input: Input,
    /// The cluster, if one is used.
    pub kafka: Option<KafkaConfig>,
    /// The topics' names; those of files are made of them.
    pub topics: Topics,
    /// PostgreSQL, if it is used; else tables are in SQLite.
    pub database_url: Option<Secret>,
    /// The folder for all that is kept on this machine.
    pub data_dir: PathBuf,
    /// The lake's folder.
    pub lake_path: PathBuf,
    /// The checkpoints' folder.
    pub checkpoint_path: PathBuf,
    /// Which outputs are written.
    pub outputs: OutputSet,
    /// Worker threads, 1 to 256.
    pub workers: usize,
    /// Which copy of the program this is.
    pub instance: String,
    /// How far out of order events may be.
    pub watermark_delay: Duration,
    /// The pause that ends a session.
    pub session_gap: Duration,
    /// The longest session.
    pub session_max: Duration,
    /// How far after its record's own timestamp an event may be.
    pub max_future: Duration,
    /// When a silent split no longer holds the watermark; never, if `None`.
    pub idle_timeout: Option<Duration>,
    /// The part of the records that may be dead letters; all of them, if `None`.
    pub max_dead_letters: Option<f64>,
    /// What happens to a row that PostgreSQL refuses.
    pub on_reject: OnReject,
    /// How many rows of each table PostgreSQL may refuse; any number, if `None`.
    pub max_rejects: Option<u64>,
    /// How often running values are written; never, if `None`.
    pub running_values: Option<Duration>,
    /// The time between checkpoints.
    pub checkpoint_interval: Duration,
    /// How long an output may be stuck before the job goes on without it.
    pub detach_after: Duration,
    /// How many records of a partition an output may be behind the checkpoint without a reader of its
    /// own.
    pub catch_up_beyond: u64,
    /// Where HTTP is served; nowhere, if `None`.
    pub ui_bind: Option<SocketAddr>,
    /// What happens where the input ends.
    pub end: InputEnd,
    /// Whether a closed job goes on.
    pub reopen: bool,
    /// Whether sinks are taken from another copy that holds them.
    pub take_over: bool,
    /// Whether the state is computed anew.
    pub rebuild: bool,
    /// The sinks that go on with a gap.
    pub accept_gap: Vec<String>,
    /// The sinks that are filled from the first record on.
    pub backfill: Vec<String>,
    /// The operators whose state may go.
    pub allow_dropped_state: Vec<String>,
    /// Where the final figures are written.
    pub summary_json: Option<PathBuf>,
}

/// What is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The input topic.
    Kafka,
    /// These files.
    Files(Vec<PathBuf>),
    /// Generated events. Their start time is that of a first start: a job that goes on must keep
    /// the one that it began with.
    Generator(GeneratorOptions),
}

/// A Kafka cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// The brokers, as `host:port,host:port`.
    pub bootstrap: String,
    /// Properties for the client, such as `sasl.username`. Not shown: they may be secret.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap", &self.bootstrap)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// The names of topics, all different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// What is read.
    pub input: String,
    /// Enriched records.
    pub output: String,
    /// Records that cannot be used.
    pub dlq: String,
    /// Late records.
    pub late: String,
    /// The consumer group.
    pub group: String,
}

impl Topics {
    /// The file that stands for a topic when there is no Kafka.
    pub fn file(data_dir: &Path, topic: &str) -> PathBuf {
        data_dir.join("topics").join(format!("{topic}.jsonl"))
    }
}

/// The outputs that are written; dead letters and late records always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputSet {
    /// The three tables.
    pub tables: bool,
    /// The lake.
    pub lake: bool,
    /// The enriched topic.
    pub enriched: bool,
}

impl Config {
    /// The file with the tables when there is no PostgreSQL.
    pub fn sqlite_path(&self) -> PathBuf {
        self.data_dir.join("stream_data.db")
    }
}

/// What a resolution depends on besides the settings.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// The time.
    pub now: Timestamp,
    /// The number of cores.
    pub cores: usize,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { now: SystemClock::new().now(), cores }
    }
}

/// Reads all places and validates what they say: what a command works with.
///
/// # Errors
/// A setting that cannot be used or is missing: its name, where it was set, what to do.
pub fn load(cli: &Cli) -> Result<Config> {
    resolve(&read(cli, &Environment::read()?)?, cli, Machine::here())
}

/// Reads all places: `pipeline.toml` (or what `--config` says), the environment, the flags.
///
/// # Errors
/// If the file cannot be read, or has a key that means nothing.
pub fn read(cli: &Cli, environment: &Environment) -> Result<Layers> {
    let mut layers = Layers::default();
    let default = Path::new("pipeline.toml");
    let file = cli.places.config.as_deref();
    if let Some(path) = file.or_else(|| default.is_file().then_some(default)) {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the settings file {} cannot be read", path.display()))?;
        layers.add_toml(path, &text)?;
    }
    layers.add_env(&environment.dot_env, &Origin::DotEnv);
    layers.add_env(&environment.process, &Origin::Environment);
    layers.add_flags(cli.settings());
    Ok(layers)
}
