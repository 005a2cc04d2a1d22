//! The commands, from what was typed to what is done.

use std::sync::Arc;

use anyhow::{Context as _, Error, Result};
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command, ConfigCommand};
use crate::config::{self, Config, Environment, Machine};
use crate::live::{Live, Starts};
use crate::status::{self, LastMinute, screen};
use crate::{
    checkpoint_command, dlq, generate_command, health, http, lake, lock, logging, reset, run, show,
    signals, summary,
};

/// Does what was asked for.
///
/// # Errors
/// What went wrong, and what to do about it.
pub fn execute(cli: &Cli) -> Result<()> {
    let environment = Environment::read()?;
    logging::init(&environment)?;
    let layers = config::read(cli, &environment)?;
    let config = config::resolve(&layers, cli, Machine::here())?;
    match &cli.command {
        None | Some(Command::Run(_)) => runtime()?.block_on(run_job(&config)),
        Some(Command::Show(args)) => runtime()?.block_on(show::show(&config, args)),
        Some(Command::Generate(args)) => {
            runtime()?.block_on(generate_command::generate(&config, &layers, args))
        }
        Some(Command::Reset(args)) => reset::reset(&config, args),
        Some(Command::Lake(command)) => lake::execute(&config, command),
        Some(Command::Health) => health::check(&config),
        Some(Command::Checkpoint(command)) => checkpoint_command::checkpoint(&config, command),
        Some(Command::Dlq(command)) => dlq::dlq(&config, command),
        Some(Command::Config(ConfigCommand::Show)) => {
            print!("{}", config::show(&config, &layers));
            Ok(())
        }
    }
}

fn runtime() -> Result<Runtime> {
    Runtime::new().context("the program's threads cannot be started")
}

/// Runs the job until its input ends or it is told to stop, and says how it went.
async fn run_job(config: &Config) -> Result<()> {
    screen::write(|| println!("{}", config.mode.why));
    let _lock = lock::take(config)?;
    let listener = config.ui_bind.map(http::bind).transpose()?;
    let last_minute = LastMinute::new();
    let run = summary::Run::prepare(config);
    let handle = run::start(config, &last_minute).await?;
    run.watch(&handle);
    let live = Live::new(handle);
    signals::stop_on_signals(live.clone())?;
    if let Some(listener) = listener {
        let address = listener.address();
        listener.serve(live.clone(), config)?;
        screen::write(|| println!("http://{address}: /readyz, /metrics, /api/v1/progress"));
    }
    let result = see_through(&live, &last_minute, config).await?;
    let summary = run.finish(&live.handle());
    if !summary.is_empty() {
        print!("{}", summary.text());
    }
    let written = config.summary_json.as_deref().map_or(Ok(()), |path| summary.write_json(path));
    result.map_err(|error| Error::msg(error.to_string()))?;
    written
}

/// Waits until the job has ended. A job that has failed on a record which its next start deals with
/// is started again here: everything of the failed one is gone by then, but for the process's lock.
async fn see_through(
    live: &Live,
    last_minute: &LastMinute,
    config: &Config,
) -> Result<Result<(), Arc<streamkit::Error>>> {
    let mut starts = Starts::default();
    // What a person has allowed once has been carried out by the first start.
    let again = Config { rebuild: false, reopen: false, ..config.clone() };
    loop {
        let handle = live.handle();
        status::run(handle.clone(), last_minute.clone(), config).await;
        match handle.wait().await {
            Err(error) if starts.again(&error, handle.progress().uptime) && !live.is_stopped() => {
                tracing::error!(%error, "the job has failed, and is started again");
                live.replace(run::start(&again, last_minute).await?);
            }
            result => return Ok(result),
        }
    }
}

/// An error as a person reads it: what was attempted, and the causes that it does not name itself.
pub fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let inner = streamkit::Error::external("cannot open x")
            .because(std::io::Error::other("disk on fire"));
        let error = Error::new(inner).context("the lake cannot be used");
        assert_eq!(explain(&error), "the lake cannot be used: cannot open x: disk on fire");
    }
}
