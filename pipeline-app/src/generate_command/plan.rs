//! What is to be generated, and where to: decided from what was asked for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use streamkit::time::{Timestamp, hours};

use crate::cli::GenerateArgs;
use crate::config::{Config, KafkaConfig, Layers, generator_options};
use crate::generate::GeneratorOptions;

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) options: GeneratorOptions,
    /// Endless, if there is none.
    pub(super) count: Option<u64>,
    /// Whether a record is written when it would arrive, and not at once.
    pub(super) paced: bool,
    /// The time at which the plan was made.
    pub(super) now: Timestamp,
    pub(super) to: To,
}

/// Where to.
#[derive(Debug, Clone)]
pub(super) enum To {
    /// A file; `-` is the standard output.
    File(PathBuf),
    /// A topic.
    Topic(Place),
}

/// A topic.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) kafka: KafkaConfig,
    pub(super) topic: String,
    /// Partitions, if it has to be created.
    pub(super) partitions: u32,
}

/// Decides.
pub(super) fn plan(
    config: &Config,
    layers: &Layers,
    args: &GenerateArgs,
    now: Timestamp,
) -> Result<Plan> {
    let options = generator_options(layers, now, now)?;
    let to = match (&args.output, &config.kafka) {
        (Some(path), _) => To::File(path.clone()),
        (None, Some(kafka)) => To::Topic(Place {
            kafka: kafka.clone(),
            topic: config.topics.input.clone(),
            partitions: args.partitions.unwrap_or(options.splits),
        }),
        (None, None) => bail!(
            "there is nowhere to write to: set KAFKA_BOOTSTRAP_SERVERS (host:port) for the topic \
             {}, or write a file with --output FILE (- is the standard output)",
            config.topics.input
        ),
    };
    let into_file = matches!(to, To::File(_));
    if let To::Topic(place) = &to
        && place.partitions < options.splits
    {
        bail!(
            "--partitions {} is less than --splits {}: each split has a partition of its own",
            place.partitions,
            options.splits
        );
    }
    // A file has nobody who would like to watch the records come.
    let rate_given = layers.get("generator.rate").is_some();
    let paced = !args.fast && (rate_given || !into_file);
    let start = match (into_file, paced, args.count) {
        // The same command gives the same file.
        (true, _, _) => Timestamp::from_micros(GeneratorOptions::default().start_time_micros),
        (false, true, _) => now,
        // The last one arrives now.
        (false, false, Some(count)) => {
            let seconds = count / options.events_per_second.max(1);
            now.saturating_sub(Duration::from_secs(seconds.saturating_add(1)))
        }
        (false, false, None) => now.saturating_sub(hours(2)),
    };
    let options = generator_options(layers, now, start)?;
    Ok(Plan { options, count: args.count, paced, now, to })
}

impl Plan {
    /// How many records of a split are made at a time.
    pub(super) fn per_round(&self) -> usize {
        if !self.paced {
            return 512;
        }
        // A tenth of a second's, so that little is made in advance.
        let tenth = self.options.events_per_second / 10 / u64::from(self.options.splits);
        usize::try_from(tenth).unwrap_or(512).clamp(1, 512)
    }

    /// The time at which the last record arrives; `None`, if there is no last one.
    pub(super) fn end(&self) -> Option<Timestamp> {
        let seconds = self.count? / self.options.events_per_second.max(1);
        let start = Timestamp::from_micros(self.options.start_time_micros);
        Some(start.saturating_add(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::{Machine, resolve};

    const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);

    fn planned(flags: &[&str]) -> Result<Plan> {
        let cli = Cli::try_parse_from(["pipeline-app", "generate"].iter().chain(flags)).unwrap();
        let mut layers = Layers::default();
        layers.add_flags(cli.settings());
        let config = resolve(&layers, &cli, Machine { now: NOW, cores: 1 })?;
        let Some(Command::Generate(args)) = &cli.command else { panic!("{cli:?}") };
        plan(&config, &layers, args, NOW)
    }

    #[test]
    fn pace_and_start_follow_from_what_is_asked_for() {
        let now = NOW.as_micros();
        let fixed = GeneratorOptions::default().start_time_micros;
        let kafka = "--kafka-bootstrap-servers=k:1";
        let cases: [(&[&str], bool, i64); 8] = [
            (&["--output", "x"], false, fixed),
            (&["--output", "x", "--rate", "100"], true, fixed),
            (&["--output", "x", "--rate", "100", "--fast"], false, fixed),
            (&[kafka], true, now),
            (&[kafka, "--rate", "100"], true, now),
            (&[kafka, "--fast"], false, now - 7_200_000_000),
            (&[kafka, "--fast", "--count", "5000"], false, now - 11_000_000),
            (&[kafka, "--start-time", "now-1h"], true, now - 3_600_000_000),
        ];
        for (flags, paced, start) in cases {
            let plan = planned(flags).unwrap();
            assert_eq!((plan.paced, plan.options.start_time_micros), (paced, start), "{flags:?}");
        }
        let plan = planned(&[kafka, "--fast", "--count", "5000"]).unwrap();
        assert!(plan.end().unwrap() <= NOW);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |flags: &[&str]| planned(flags).unwrap_err().to_string();
        assert!(error(&[]).contains("--output FILE"));
        let kafka = "--kafka-bootstrap-servers=k:1";
        assert!(error(&[kafka, "--partitions", "2"]).contains("--splits 4"));
        assert!(error(&[kafka, "--users", "1"]).starts_with("--users: "));
    }
}
