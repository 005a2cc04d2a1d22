//! Places at which the crash test stops the process, and rules that it takes away.
//!
//! Both need the feature `failpoints`, and both are asked for with environment variables. Without
//! the feature every call compiles to nothing.
//!
//! | variable | what it does |
//! |---|---|
//! | `STREAMKIT_FAILPOINT=NAME:N` | the N-th passing of that place ends the process at once, as `kill -9` does: nothing is flushed, nothing is dropped |
//! | `STREAMKIT_SLOW=NAME:MILLIS` | every passing of that place takes so long: races become likely |
//! | `STREAMKIT_BREAK=NAME` | takes a rule of delivery away, to show that a test notices |
//! | `STREAMKIT_SMALL=1` | what needs a hundred thousand rows otherwise (several statements in one transaction, a commit of the lake before its time) happens with a few |

/// Ends the process here if that was asked for.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn failpoint(_name: &str) {}

/// Whether this rule was taken away.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn broken(_name: &str) -> bool {
    false
}

/// A bound, or a small one if that was asked for.
#[cfg(all(any(feature = "postgres", feature = "parquet"), not(feature = "failpoints")))]
#[inline(always)]
pub(crate) fn bound(usual: usize, _small: usize) -> usize {
    usual
}

#[cfg(all(feature = "failpoints", any(feature = "postgres", feature = "parquet")))]
pub(crate) use armed::bound;
#[cfg(feature = "failpoints")]
pub use armed::{FAILPOINTS, RULES};
#[cfg(feature = "failpoints")]
pub(crate) use armed::{broken, failpoint};

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// Every place, in the order of a job's life.
    pub const FAILPOINTS: &[&str] = &[
        // A start.
        "recovery.lineage_made",
        "postgres.connected",
        "postgres.locked",
        "postgres.claimed",
        "sqlite.claimed",
        "kafka.initialised",
        "kafka.progress_read",
        "kafka.claimed",
        "lake.before_redo",
        "lake.redone",
        "lake.claimed",
        "lake.swept",
        "lines.truncated",
        "lines.claimed",
        "recovery.sink_claimed",
        "recovery.sinks_claimed",
        "recovery.state_read",
        "recovery.facts_appended",
        "recovery.workers_started",
        "recovery.sinks_started",
        // A record.
        "source.batch_sent",
        "catch_up.opened",
        "catch_up.sent",
        "keyed.fired",
        // A checkpoint, a fact.
        "coordinator.barrier_sent",
        "coordinator.barrier_passed",
        "log.before_fact",
        "log.after_fact",
        "log.before_checkpoint",
        "log.after_checkpoint",
        "log.listed",
        "coordinator.checkpointed",
        "log.before_garbage",
        "log.deleted",
        "log.before_sweep",
        // The end of the input.
        "coordinator.closed",
        "coordinator.end_reached",
        "coordinator.end_sent",
        // A sink's thread.
        "sink.before_commit",
        "sink.after_commit",
        "sink.recovering",
        // A commit, by system.
        "postgres.before_begin",
        "postgres.begun",
        "postgres.rows_written",
        "postgres.before_commit",
        "postgres.committed",
        "sqlite.before_begin",
        "sqlite.begun",
        "sqlite.rows_written",
        "sqlite.before_commit",
        "sqlite.committed",
        "kafka.sent",
        "kafka.before_progress",
        "kafka.progress_sent",
        "kafka.flushed",
        "kafka.committed",
        "lake.file_created",
        "lake.file_closed",
        "lake.sync_folder",
        "lake.after_stage",
        "lake.after_manifest_tmp",
        "lake.sync_manifests",
        "lake.after_manifest",
        "lake.before_rename",
        "lake.after_rename",
        "lake.sync_lake",
        "lake.published",
        "lake.finished",
        // A compaction of the lake, which is a process of its own.
        "compact.after_merge",
        "compact.after_note",
        "compact.after_links",
        "compact.after_exchange",
        // A commit of files as topics.
        "lines.after_append",
        "lines.after_sync",
        "lines.after_stage",
        "lines.after_rename",
    ];

    /// Every rule that can be taken away, and what the program does without it.
    pub const RULES: &[(&str, &str)] = &[
        ("postgres.one_transaction", "PostgreSQL: the progress is committed before the rows"),
        ("sqlite.one_transaction", "SQLite: the progress is committed before the rows"),
        ("kafka.one_transaction", "Kafka: the progress has a transaction of its own"),
        ("lake.redo", "the lake: a restart does not move the files of the last commit"),
        ("lake.waits_for_room", "the lake: what a full disk refuses is left out of the commit"),
        (
            "compact.one_step",
            "the lake: a compaction removes a date's folder, and then puts another one there",
        ),
        ("lines.truncate", "files as topics: a restart leaves the uncommitted tail"),
        ("edge.w", "results up to a sink's W are sent to it again after a restart"),
        ("edge.positions", "records below a sink's position are sent to it again after a restart"),
        ("sink.holds_back", "a sink's transaction may hold rows above the W that it writes"),
        ("results.in_checkpoint", "checkpoints leave out results that were not delivered yet"),
        ("state.positions", "keyed state takes records below the checkpoint once more"),
        ("lateness.own_mark", "lateness is decided by the job's watermark"),
        ("floors.durable", "a split that is back from idleness has a floor that is not a fact"),
        ("ticks.withheld", "running values are written before a restart has caught up"),
    ];

    struct Armed {
        stop: Option<(String, u64)>,
        slow: Option<(String, Duration)>,
        rule: Option<String>,
        small: bool,
    }

    /// Nobody notices a test of a misspelt place; so that is an error, and the process ends.
    #[expect(clippy::print_stderr, reason = "a switch for tests, and the process ends")]
    fn read(variable: &str, known: impl Fn(&str) -> bool) -> Option<(String, u64)> {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
        let (name, number) = value.split_once(':').unwrap_or((&value, "1"));
        match number.parse() {
            Ok(number) if known(name) => Some((name.to_owned(), number)),
            _ => {
                eprintln!("{variable}={value} names nothing that there is");
                std::process::exit(2)
            }
        }
    }

    fn settings() -> &'static Armed {
        static ARMED: OnceLock<Armed> = OnceLock::new();
        ARMED.get_or_init(|| {
            let place = |name: &str| FAILPOINTS.contains(&name);
            let rule = |name: &str| RULES.iter().any(|(rule, _)| *rule == name);
            let slow = read("STREAMKIT_SLOW", place);
            Armed {
                stop: read("STREAMKIT_FAILPOINT", place),
                slow: slow.map(|(name, n)| (name, Duration::from_millis(n))),
                rule: read("STREAMKIT_BREAK", rule).map(|(name, _)| name),
                small: std::env::var_os("STREAMKIT_SMALL").is_some(),
            }
        })
    }

    /// Ends the process here if that was asked for.
    #[expect(clippy::print_stderr, reason = "the last words of a process that a test ends")]
    pub(crate) fn failpoint(name: &str) {
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let armed = settings();
        if let Some((at, time)) = &armed.slow
            && at == name
        {
            std::thread::sleep(*time);
        }
        if let Some((at, nth)) = &armed.stop
            && at == name
            && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
        {
            eprintln!("failpoint {name}");
            std::process::abort();
        }
    }

    /// Whether this rule was taken away.
    pub(crate) fn broken(name: &str) -> bool {
        settings().rule.as_deref() == Some(name)
    }

    /// A bound, or a small one if that was asked for.
    #[cfg(any(feature = "postgres", feature = "parquet"))]
    pub(crate) fn bound(usual: usize, small: usize) -> usize {
        if settings().small { usual.min(small) } else { usual }
    }
}
