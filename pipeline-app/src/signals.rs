//! Ctrl-C and SIGTERM: the first asks the job to stop, the second does not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

use crate::live::Live;
use crate::status::screen;

/// The exit code after a second signal, as shells have it for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Stops the job at the first signal, and ends the process at the second: what has not been
/// committed by then is written by the next run.
///
/// # Errors
/// If signals cannot be received.
pub fn stop_on_signals(live: Live) -> Result<()> {
    let mut signals = Signals::new().context("signals cannot be received")?;
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(
            "{name}: the job stops, commits what it has, and goes on with its next start. A second \
             one ends the program at once"
        );
        live.stop();
        signals.next().await;
        screen::write(|| eprintln!("ended at once; the next start writes what is missing"));
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

/// Sets a flag at the first signal, and ends the process at the second.
///
/// # Errors
/// If signals cannot be received.
pub fn set_on_signal(flag: Arc<AtomicBool>) -> Result<()> {
    let mut signals = Signals::new().context("signals cannot be received")?;
    tokio::spawn(async move {
        signals.next().await;
        flag.store(true, Ordering::Relaxed);
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

/// The signals that ask a program to end.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "asked to end",
        }
    }
}

/// The signals that ask a program to end.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        // If Ctrl-C cannot be received, it is never received.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "interrupted"
    }
}
