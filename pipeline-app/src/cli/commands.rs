//! The arguments of commands other than the job itself.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::GeneratorArgs;

/// What can be done with checkpoints.
#[derive(Debug, Clone, Subcommand)]
pub enum CheckpointCommand {
    /// List the kept checkpoints
    Ls,
    /// Show what a checkpoint says: positions, facts, plan, totals, sizes of states
    Show(CheckpointShowArgs),
    /// Read every checkpoint and check that it can be restored; exit code 0 or 1
    Verify,
}

/// Which checkpoint is shown, and how.
#[derive(Debug, Clone, Args)]
pub struct CheckpointShowArgs {
    /// Its number [the newest]
    #[arg(value_name = "N")]
    pub number: Option<u64>,
    /// As JSON, with all facts and all floors ever set; times are microseconds since 1970
    #[arg(long)]
    pub json: bool,
}

/// What can be done with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, the newest first
    List(DlqListArgs),
    /// Send dead letters back to the input topic, each once, however often it is said
    Redrive(DlqRedriveArgs),
}

/// Which dead letters.
#[derive(Debug, Clone, Default, Args)]
pub struct DlqArgs {
    /// Only those with this reason
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Only those in this partition of the dead letters' topic
    #[arg(long, value_name = "N")]
    pub partition: Option<i32>,
    /// Only those from this offset on, as `list` shows it
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<u64>,
    /// Only those up to this offset, which is included
    #[arg(long, value_name = "OFFSET")]
    pub to: Option<u64>,
}

/// What is listed.
#[derive(Debug, Clone, Args)]
pub struct DlqListArgs {
    /// Which dead letters.
    #[command(flatten)]
    pub which: DlqArgs,
    /// How many
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub limit: usize,
}

/// What is sent back.
#[derive(Debug, Clone, Args)]
pub struct DlqRedriveArgs {
    /// Which dead letters.
    #[command(flatten)]
    pub which: DlqArgs,
    /// Write the values as lines to this new file (- is the standard output), to be read with
    /// --input; nothing is sent, and nothing remembered
    #[arg(long = "output", value_name = "FILE")]
    pub to_file: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// What can be done with settings.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Show every setting, its value and where that comes from; secrets are not shown
    Show,
}

/// What can be done with the lake.
#[derive(Debug, Clone, Subcommand)]
pub enum LakeCommand {
    /// Read every file and compare it with what its commit wrote; exit code 1 if something is wrong
    Verify,
    /// Merge the small files of dates that are over; readers see each row once at any moment
    Compact(CompactArgs),
}

/// What is merged.
#[derive(Debug, Clone, Args)]
pub struct CompactArgs {
    /// Only this date, such as 2026-01-31 [all that are over in UTC]
    #[arg(long, value_name = "DATE")]
    pub date: Option<String>,
    /// How large a merged file gets; files of half of it stay as they are
    #[arg(long, default_value_t = 128, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub target_mib: u64,
}

/// What is shown.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Which results
    pub what: Shown,
    /// How many rows
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub limit: usize,
}

/// The results that can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Shown {
    /// Views per page and minute
    PageViewCounts,
    /// Users active in five minutes
    ActiveUsers,
    /// Finished sessions
    UserSessions,
    /// Every valid event, in Parquet files
    Lake,
    /// The enriched records
    Enriched,
    /// Events that came too late
    Late,
    /// Records that could not be used
    Dlq,
}

/// How events are generated, and where to.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// How many records; endless if it is not said
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// As fast as possible (the default for a file); --rate then only says how far apart the
    /// events are
    #[arg(long)]
    pub fast: bool,
    /// Write JSON lines to this file (- is the standard output) instead of Kafka
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Partitions of the topic, if it has to be created [as many as splits]
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// What is generated.
    #[command(flatten)]
    pub generator: GeneratorArgs,
}

/// What is deleted.
#[derive(Debug, Clone, Args)]
pub struct ResetArgs {
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}
