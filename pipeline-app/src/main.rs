//! The program. See the library for its parts.

use std::process::ExitCode;

use clap::Parser as _;
use pipeline_app::cli::Cli;
use pipeline_app::commands::{execute, explain};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match execute(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}
