//! The command line. What can be set in other places, too, is only collected here: `config` judges
//! it together with the rest, so that a message is the same wherever a value came from.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts show defaults in square brackets")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Real-time user-activity analytics: Kafka to PostgreSQL, a Parquet lake and an enriched topic.
///
/// With nothing set it runs the whole job on this machine, from generated events to a SQLite file,
/// a lake and files. KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL make it the real thing. Settings come
/// from flags, the environment, .env and pipeline.toml, the first that has one counts; what is in
/// square brackets is the variable's name and the default.
#[derive(Debug, Clone, Default, Parser)]
#[command(version, about, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Where things are; for every command.
    #[command(flatten)]
    pub places: Places,
    /// How the job runs.
    #[command(flatten)]
    pub run: RunArgs,
    /// What to do; `run` if it is not said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the job (the same as no command at all)
    Run(Box<RunArgs>),
    /// Show the newest results as a table
    Show(ShowArgs),
    /// Write generated events into the input topic or a file
    Generate(Box<GenerateArgs>),
    /// Delete what the job has made in the data folder
    Reset(ResetArgs),
    /// Look after the lake, while a job runs or not
    #[command(subcommand)]
    Lake(LakeCommand),
    /// Ask a running job whether it is ready; exit code 0 or 1 (for containers)
    Health,
    /// Look into the checkpoints, whether the job runs or not
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Look at dead letters, and send them back
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Settings
    #[command(subcommand)]
    Config(ConfigCommand),
}

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

/// Where things are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where things are")]
pub struct Places {
    /// Settings file [pipeline.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kafka brokers as host:port,host:port [KAFKA_BOOTSTRAP_SERVERS]
    #[arg(long, global = true, value_name = "HOSTS")]
    pub kafka_bootstrap_servers: Option<String>,
    /// PostgreSQL, as postgres://user:password@host/database [DATABASE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// Folder for all that is kept on this machine [DATA_DIR, data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The lake's folder [LAKE_PATH, DATA_DIR/lake]
    #[arg(long, global = true, value_name = "DIR")]
    pub lake_path: Option<String>,
    /// The checkpoints' folder [CHECKPOINT_PATH, DATA_DIR/checkpoints]
    #[arg(long, global = true, value_name = "DIR")]
    pub checkpoint_path: Option<String>,
    /// Topic to read [KAFKA_INPUT_TOPIC, user_activity]
    #[arg(long, global = true, value_name = "TOPIC")]
    pub kafka_input_topic: Option<String>,
    /// Topic for enriched records [KAFKA_OUTPUT_TOPIC, enriched_activity]
    #[arg(long, global = true, value_name = "TOPIC")]
    pub kafka_output_topic: Option<String>,
    /// Topic for unusable records [KAFKA_DLQ_TOPIC, INPUT.dlq]
    #[arg(long, global = true, value_name = "TOPIC")]
    pub kafka_dlq_topic: Option<String>,
    /// Topic for late records [KAFKA_LATE_TOPIC, INPUT.late]
    #[arg(long, global = true, value_name = "TOPIC")]
    pub kafka_late_topic: Option<String>,
    /// Consumer group [KAFKA_GROUP_ID, user-activity]
    #[arg(long, global = true, value_name = "GROUP")]
    pub kafka_group_id: Option<String>,
    /// Address of the web interface and the metrics, or off [UI_BIND, 127.0.0.1:8088]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub ui_bind: Option<String>,
}

/// How the job runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How the job runs")]
pub struct RunArgs {
    /// Read this file of JSON lines (or .gz) instead of Kafka; can be given several times
    #[arg(long, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// Which outputs to write: tables, lake, enriched
    #[arg(long, value_name = "LIST")]
    pub outputs: Option<String>,
    /// Read what is there, close all windows and end
    #[arg(long, conflicts_with = "keep_open")]
    pub until_end: bool,
    /// Read what is there and end; open windows go on with the next run
    #[arg(long)]
    pub keep_open: bool,
    /// Go on with a job that was ended with --until-end
    #[arg(long)]
    pub reopen: bool,
    /// Take the outputs over from a copy that still holds them
    #[arg(long)]
    pub take_over: bool,
    /// Compute all state anew, from the first record; outputs keep what they have
    #[arg(long)]
    pub rebuild: bool,
    /// Go on although this sink lacks results: its target was emptied, or it was left out for a
    /// while; can be given several times
    #[arg(long, value_name = "SINK")]
    pub accept_gap: Vec<String>,
    /// Fill this sink from the first record on, if it is new or its target was emptied; not for one
    /// behind windows; can be given several times
    #[arg(long, value_name = "SINK")]
    pub backfill: Vec<String>,
    /// Let the state of this operator go, which is gone or has changed; can be given several times
    #[arg(long, value_name = "NAME")]
    pub allow_dropped_state: Vec<String>,
    /// Write the final figures to this file
    #[arg(long, value_name = "FILE")]
    pub summary_json: Option<PathBuf>,
    /// Worker threads [WORKERS, number of cores]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// Which copy this is, if several run: stable, and different for each [INSTANCE, 0]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// How far out of order events may be [WATERMARK_DELAY, 2m]
    #[arg(long, value_name = "TIME")]
    pub watermark_delay: Option<String>,
    /// Pause that ends a session [SESSION_GAP, 30m]
    #[arg(long, value_name = "TIME")]
    pub session_gap: Option<String>,
    /// Longest session [SESSION_MAX, 24h]
    #[arg(long, value_name = "TIME")]
    pub session_max: Option<String>,
    /// How far after its record's own timestamp an event may be [MAX_FUTURE, 1h]
    #[arg(long, value_name = "TIME")]
    pub max_future: Option<String>,
    /// When a silent partition no longer holds up results, or off [IDLE_TIMEOUT, 30s]
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<String>,
    /// Part of the records that may be dead letters before the job stops, or off [MAX_DEAD_LETTERS, off]
    #[arg(long, value_name = "PART")]
    pub max_dead_letters: Option<String>,
    /// What to do with a row that PostgreSQL refuses: reject (into a table) or stop [ON_REJECT, reject]
    #[arg(long, value_name = "WHAT")]
    pub on_reject: Option<String>,
    /// Rows of a table that PostgreSQL may refuse before the job stops, or off [MAX_REJECTS, off]
    #[arg(long, value_name = "ROWS")]
    pub max_rejects: Option<String>,
    /// How often open windows are written, or off [RUNNING_VALUES, 2s]
    #[arg(long, value_name = "TIME")]
    pub running_values: Option<String>,
    /// Time between checkpoints [CHECKPOINT_INTERVAL, 10s]
    #[arg(long, value_name = "TIME")]
    pub checkpoint_interval: Option<String>,
    /// How long an output may be stuck before the job goes on without it [DETACH_AFTER, 10s]
    #[arg(long, value_name = "TIME")]
    pub detach_after: Option<String>,
    /// Records of a partition that an output may be behind at the start before it gets a reader of its
    /// own [100000]
    #[arg(long, value_name = "N")]
    pub catch_up_beyond: Option<String>,
    /// What is generated, if events are.
    #[command(flatten)]
    pub generator: GeneratorArgs,
}

/// What is generated.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Generated events")]
pub struct GeneratorArgs {
    /// Another seed, other events [1]
    #[arg(long, value_name = "N")]
    pub seed: Option<String>,
    /// Number of splits [4]
    #[arg(long, value_name = "N")]
    pub splits: Option<String>,
    /// Events per second [500]
    #[arg(long, value_name = "N")]
    pub rate: Option<String>,
    /// Number of users [20000]
    #[arg(long, value_name = "N")]
    pub users: Option<String>,
    /// Number of pages [200]
    #[arg(long, value_name = "N")]
    pub pages: Option<String>,
    /// Share of events out of order [0.2]
    #[arg(long, value_name = "SHARE")]
    pub out_of_order: Option<String>,
    /// How far out of order [60s]
    #[arg(long, value_name = "TIME")]
    pub max_disorder: Option<String>,
    /// Share of late events [0.001]
    #[arg(long, value_name = "SHARE")]
    pub late: Option<String>,
    /// Share of unusable records [0.001]
    #[arg(long, value_name = "SHARE")]
    pub malformed: Option<String>,
    /// Share of events with fields of their own [0.3]
    #[arg(long, value_name = "SHARE")]
    pub extra_fields: Option<String>,
    /// Time of the first event: 2026-01-31T12:00:00Z, now, or now-2h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub start_time: Option<String>,
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

type Flags = Vec<(&'static str, Option<String>)>;

impl Cli {
    /// Whether the job itself is to be run.
    pub fn runs(&self) -> bool {
        matches!(self.command, None | Some(Command::Run(_)))
    }

    /// How the job runs, wherever on the command line it was said.
    pub fn run_args(&self) -> RunArgs {
        let mut args = self.run.clone();
        if let Some(Command::Run(run)) = &self.command {
            args.input.extend(run.input.iter().cloned());
            args.until_end |= run.until_end;
            args.keep_open |= run.keep_open;
            args.reopen |= run.reopen;
            args.take_over |= run.take_over;
            args.rebuild |= run.rebuild;
            args.accept_gap.extend(run.accept_gap.iter().cloned());
            args.backfill.extend(run.backfill.iter().cloned());
            args.allow_dropped_state.extend(run.allow_dropped_state.iter().cloned());
            args.summary_json = run.summary_json.clone().or(args.summary_json);
        }
        args
    }

    /// The settings among the flags, by key.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut flags = self.places.settings();
        flags.extend(self.run.settings());
        match &self.command {
            Some(Command::Run(args)) => flags.extend(args.settings()),
            Some(Command::Generate(args)) => flags.extend(args.generator.settings()),
            _ => {}
        }
        flags.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl Places {
    fn settings(&self) -> Flags {
        vec![
            ("kafka.bootstrap_servers", self.kafka_bootstrap_servers.clone()),
            ("database_url", self.database_url.clone()),
            ("data_dir", self.data_dir.clone()),
            ("lake_path", self.lake_path.clone()),
            ("checkpoint_path", self.checkpoint_path.clone()),
            ("kafka.input_topic", self.kafka_input_topic.clone()),
            ("kafka.output_topic", self.kafka_output_topic.clone()),
            ("kafka.dlq_topic", self.kafka_dlq_topic.clone()),
            ("kafka.late_topic", self.kafka_late_topic.clone()),
            ("kafka.group_id", self.kafka_group_id.clone()),
            ("ui_bind", self.ui_bind.clone()),
        ]
    }
}

impl RunArgs {
    fn settings(&self) -> Flags {
        let mut flags = vec![
            ("outputs", self.outputs.clone()),
            ("workers", self.workers.clone()),
            ("instance", self.instance.clone()),
            ("watermark_delay", self.watermark_delay.clone()),
            ("session_gap", self.session_gap.clone()),
            ("session_max", self.session_max.clone()),
            ("max_future", self.max_future.clone()),
            ("idle_timeout", self.idle_timeout.clone()),
            ("max_dead_letters", self.max_dead_letters.clone()),
            ("on_reject", self.on_reject.clone()),
            ("max_rejects", self.max_rejects.clone()),
            ("running_values", self.running_values.clone()),
            ("checkpoint_interval", self.checkpoint_interval.clone()),
            ("detach_after", self.detach_after.clone()),
            ("catch_up_beyond", self.catch_up_beyond.clone()),
        ];
        flags.extend(self.generator.settings());
        flags
    }
}

impl GeneratorArgs {
    fn settings(&self) -> Flags {
        vec![
            ("generator.seed", self.seed.clone()),
            ("generator.splits", self.splits.clone()),
            ("generator.rate", self.rate.clone()),
            ("generator.users", self.users.clone()),
            ("generator.pages", self.pages.clone()),
            ("generator.out_of_order", self.out_of_order.clone()),
            ("generator.max_disorder", self.max_disorder.clone()),
            ("generator.late", self.late.clone()),
            ("generator.malformed", self.malformed.clone()),
            ("generator.extra_fields", self.extra_fields.clone()),
            ("generator.start_time", self.start_time.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn the_command_line_is_consistent_and_has_a_flag_for_every_setting() {
        let command = Cli::command();
        command.clone().debug_assert();
        for setting in SETTINGS {
            let flag = setting.flag();
            let known = command.get_arguments().any(|arg| Some(&flag[2..]) == arg.get_long());
            assert!(known, "{flag}");
        }
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        for setting in SETTINGS {
            let cli = Cli::try_parse_from(["pipeline-app", &setting.flag(), "7"]).expect("parses");
            assert_eq!(cli.settings(), [(setting.key, "7".to_owned())]);
        }
    }

    #[test]
    fn nothing_at_all_means_run() {
        assert!(Cli::try_parse_from(["pipeline-app"]).expect("parses").runs());
        let cli = ["pipeline-app", "run", "--input", "a", "--input", "b", "--until-end"];
        let cli = Cli::try_parse_from(cli).expect("parses");
        assert!(cli.runs() && cli.run_args().until_end);
        assert_eq!(cli.run_args().input, [PathBuf::from("a"), PathBuf::from("b")]);
        let cli = Cli::try_parse_from(["pipeline-app", "show", "dlq", "--data-dir", "x"]);
        let cli = cli.expect("parses");
        assert!(!cli.runs());
        assert_eq!(cli.settings(), [("data_dir", "x".to_owned())]);
    }
}
