//! What the program answers over HTTP: to containers, to Prometheus, and to whoever wants figures.
//!
//! ```text
//! /healthz          the process lives and the job has not failed
//! /readyz           the job does what it is for; else 503, and every part that is not ready
//! /metrics          Prometheus
//! /api/v1/progress  the same figures as JSON
//! ```

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use streamkit::JobState;
use streamkit::time::{Clock as _, SystemClock};

use crate::config::{Config, Input};
use crate::http_limit::Limited;
use crate::live::Live;
use crate::metrics_text::{self, Around};
use crate::snapshot::{Snapshot, word};
use crate::summary::memory_now;
use crate::text::about;

/// Checkpoints may be late by this factor before the job does not count as ready.
const PATIENCE: u32 = 3;

/// An address that is taken, and not served yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Takes the address: before the job starts, so that a program that cannot be seen does not run.
///
/// # Errors
/// If the address cannot be had: the setting, and what to do.
pub fn bind(address: SocketAddr) -> Result<Listener> {
    let bound = TcpListener::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    });
    bound.with_context(|| {
        format!(
            "UI_BIND {address} cannot be used. If another program, or another copy of this one, \
             has the port, choose another with --ui-bind 127.0.0.1:{}, or --ui-bind off",
            address.port().saturating_add(1)
        )
    })
}

impl Listener {
    /// The address; its port is the real one if any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the job, on tasks of this runtime, until the process ends.
    ///
    /// # Errors
    /// If the socket cannot be used with the runtime.
    pub fn serve(self, live: Live, config: &Config) -> Result<()> {
        let seen = Seen {
            live,
            interval: config.checkpoint_interval,
            kafka: config.input == Input::Kafka,
            clock: SystemClock::new(),
        };
        let socket = tokio::net::TcpListener::from_std(self.socket)
            .with_context(|| format!("{} cannot be served", self.address))?;
        tokio::spawn(async move {
            if let Err(error) = axum::serve(Limited::new(socket), router(seen)).await {
                tracing::error!(%error, "HTTP is not served any more");
            }
        });
        Ok(())
    }
}

/// What the answers are made of.
#[derive(Debug, Clone)]
struct Seen {
    live: Live,
    interval: Duration,
    kafka: bool,
    clock: SystemClock,
}

impl Seen {
    fn job(&self) -> Snapshot {
        self.live.progress().into()
    }
}

fn router(seen: Seen) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/progress", get(progress))
        .with_state(seen)
}

async fn index() -> &'static str {
    "pipeline-app\n\n/healthz\n/readyz\n/metrics\n/api/v1/progress\n"
}

async fn healthz(State(seen): State<Seen>) -> Response {
    match seen.job().state {
        JobState::Failed => (StatusCode::SERVICE_UNAVAILABLE, "failed\n").into_response(),
        state => format!("{}\n", word(state)).into_response(),
    }
}

async fn readyz(State(seen): State<Seen>) -> Response {
    let missing = not_ready(&seen.job(), seen.interval);
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
}

async fn metrics(State(seen): State<Seen>) -> Response {
    let around = Around { now: seen.clock.now(), memory: memory_now(), kafka: seen.kafka };
    let text = metrics_text::render(&seen.job(), around);
    ([(header::CONTENT_TYPE, metrics_text::CONTENT_TYPE)], text).into_response()
}

async fn progress(State(seen): State<Seen>) -> Json<Snapshot> {
    Json(seen.job())
}

/// What is not ready, and why; nothing, if the job does what it is for. `interval` is the time
/// between checkpoints.
pub fn not_ready(job: &Snapshot, interval: Duration) -> Vec<String> {
    let mut missing = vec![];
    if job.state != JobState::Running {
        missing.push(format!("job: it is {}", word(job.state)));
    }
    if let Some(trouble) = &job.trouble {
        missing.push(format!("job: {trouble}"));
    }
    for sink in &job.sinks {
        if let Some(trouble) = &sink.trouble {
            missing.push(format!("sink {}: {trouble}", sink.name));
        }
    }
    let limit = interval.saturating_mul(PATIENCE);
    // Before the first one there is the time since the start.
    let age = job.checkpoint.map_or(job.uptime, |checkpoint| checkpoint.age);
    if age > limit {
        let (age, limit) = (about(age), about(limit));
        missing.push(format!("checkpoint: none for {age}, and there should be one every {limit}"));
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::snapshot::{Checkpoint, Sink};

    #[test]
    fn readiness_names_every_part_that_is_missing() {
        let interval = Duration::from_secs(10);
        let mut job = Snapshot { state: JobState::Running, ..Snapshot::default() };
        assert!(not_ready(&job, interval).is_empty(), "a young job has no checkpoint yet");
        job.checkpoint = Some(Checkpoint { age: Duration::from_secs(31), ..Default::default() });
        job.sinks = vec![
            Sink { name: "lake".into(), trouble: Some("disk full".into()), ..Sink::default() },
            Sink { name: "enriched".into(), ..Sink::default() },
        ];
        job.state = JobState::Starting;
        job.trouble = Some("no answer from Kafka".into());
        let expected = [
            "job: it is starting",
            "job: no answer from Kafka",
            "sink lake: disk full",
            "checkpoint: none for 31 s, and there should be one every 30 s",
        ];
        assert_eq!(not_ready(&job, interval), expected);
    }

    #[test]
    fn a_port_in_use_is_an_error_that_says_what_to_do() {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = first.address();
        assert_ne!(address.port(), 0);
        let error = format!("{:#}", bind(address).unwrap_err());
        assert!(error.contains("UI_BIND") && error.contains("--ui-bind off"), "{error}");
    }
}
