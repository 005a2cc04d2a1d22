//! Flags that are settings: where things are, how the job runs, what is generated.

use std::path::PathBuf;

use clap::Args;

/// Settings by key.
pub(super) type Flags = Vec<(&'static str, Option<String>)>;

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

impl Places {
    pub(super) fn settings(&self) -> Flags {
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
    pub(super) fn settings(&self) -> Flags {
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
    pub(super) fn settings(&self) -> Flags {
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
