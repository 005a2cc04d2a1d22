//! The command line. What can be set in other places, too, is only collected here: `config` judges
//! it together with the rest, so that a message is the same wherever a value came from.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts show defaults in square brackets")]

use clap::{Parser, Subcommand};

mod commands;
mod settings;

pub use commands::*;
pub use settings::{GeneratorArgs, Places, RunArgs};

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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
