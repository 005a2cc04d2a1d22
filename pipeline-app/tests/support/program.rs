//! The program itself, as a process.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program in a folder of its own, with nothing in its environment but `variables`.
pub fn program(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline-app"));
    command.current_dir(folder).args(args).env_clear().stdin(Stdio::null());
    for (name, value) in variables {
        command.env(name, value);
    }
    command
}

/// What it has printed, to both outputs.
pub fn text(output: &Output) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    part(&output.stdout) + &part(&output.stderr)
}
