//! From a configuration to a job that runs, and from its end to a summary.

use anyhow::{Context, Result};
use streamkit::connector::SourceExt;
use streamkit::connector::file::FileSource;
use streamkit::connector::kafka::{KafkaSource, KafkaTarget};
use streamkit::{Checkpoints, InputEnd, Job, JobHandle, PlanFormat, RunConfig};

use crate::config::{Config, Input, KafkaConfig};
use crate::job::{Times, user_activity};
use crate::outputs::outputs;
use crate::source::{ActivityDecoder, GeneratorSource};
use crate::status::LastMinute;

/// The job of a configuration, not started.
///
/// # Errors
/// If a target is not to be had, or the input cannot be opened.
pub async fn job(config: &Config, last_minute: &LastMinute) -> Result<Job> {
    let outputs = outputs(config).await?;
    let times = Times {
        watermark_delay: config.watermark_delay,
        session_gap: config.session_gap,
        session_max: config.session_max,
        max_future: config.max_future,
        idle_timeout: config.idle_timeout,
    };
    let bounded = config.end != InputEnd::Wait;
    Ok(match &config.input {
        Input::Generator(options) => {
            let source = GeneratorSource::new(options.clone()).decode(ActivityDecoder);
            user_activity(source, outputs, times, last_minute)
        }
        Input::Files(files) => {
            let source = FileSource::new(files).bounded(bounded).decode(ActivityDecoder);
            user_activity(source, outputs, times, last_minute)
        }
        Input::Kafka => {
            let kafka = config.kafka.as_ref().context("KAFKA_BOOTSTRAP_SERVERS is not set")?;
            let source = topic(config, kafka).decode(ActivityDecoder);
            user_activity(source, outputs, times, last_minute)
        }
    })
}

fn topic(config: &Config, kafka: &KafkaConfig) -> KafkaSource {
    let mut source = KafkaSource::new(&kafka.bootstrap, config.topics.input.as_str())
        .group(&config.topics.group);
    for (property, value) in &kafka.properties {
        source = source.set(property, value);
    }
    source
}

/// How the job is run.
pub fn run_config(config: &Config) -> RunConfig {
    let mut run = RunConfig::new()
        .workers(config.workers)
        .checkpoints(Checkpoints::Directory(config.checkpoint_path.clone()))
        .checkpoint_interval(config.checkpoint_interval)
        .running_values(config.running_values)
        .max_dead_letters(config.max_dead_letters)
        .detach_after(config.detach_after)
        .catch_up_beyond(config.catch_up_beyond)
        .at_end(config.end)
        .reopen(config.reopen)
        .take_over(config.take_over)
        .rebuild(config.rebuild)
        .instance(&config.instance);
    for sink in &config.accept_gap {
        run = run.accept_gap(sink);
    }
    for sink in &config.backfill {
        run = run.backfill(sink);
    }
    for operator in &config.allow_dropped_state {
        run = run.allow_dropped_state(operator);
    }
    run
}

/// Starts the job. It stops by its handle, or by itself where its input ends.
///
/// # Errors
/// As [`job`]; what goes wrong later comes from [`JobHandle::wait`].
pub async fn start(config: &Config, last_minute: &LastMinute) -> Result<JobHandle> {
    let job = job(config, last_minute).await?;
    tracing::debug!("{}", job.describe(PlanFormat::Text));
    Ok(job.start(run_config(config))?)
}

/// The cluster that outputs go to.
pub fn target(config: &Config, kafka: &KafkaConfig) -> KafkaTarget {
    let mut target = KafkaTarget::new(&kafka.bootstrap, &config.topics.group);
    if matches!(config.input, Input::Kafka) {
        target = target.topics_like(&config.topics.input);
    }
    for (property, value) in &kafka.properties {
        target = target.set(property, value);
    }
    target
}
