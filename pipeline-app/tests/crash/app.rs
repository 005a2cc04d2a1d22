//! The real program as a child process, and what can be done to one.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use streamkit::time::{Clock, SystemClock};

/// How long a program may take for what it does at its end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running program. It does not outlive the test.
pub struct App {
    child: Child,
    log: PathBuf,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By a signal: 9 is a kill, 6 a failpoint.
    Signal(i32),
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }

    /// Whether a failpoint ended it.
    pub fn at_failpoint(self) -> bool {
        self == Self::Signal(6)
    }
}

impl App {
    /// Starts the program in this folder, with these settings only.
    pub fn start(folder: &Path, log: &str, args: &[String], env: &[(String, String)]) -> Self {
        let log = folder.join(log);
        let out = File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pipeline-app"))
            .args(args)
            .env_clear()
            .env("RUST_LOG", "info")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        self.child.try_wait().unwrap().map(Ended::of)
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        // It may have ended just before.
        sent.unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Ended {
        self.child.kill().unwrap();
        Ended::of(self.child.wait().unwrap())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<Ended, String> {
        let clock = SystemClock::new();
        loop {
            match self.ended() {
                Some(ended) => return Ok(ended),
                None if clock.elapsed() > PATIENCE => {
                    self.kill();
                    return Err(format!("no end within {PATIENCE:?}: {}", self.last_words()));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The end of what it has said.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// What a command says that ends by itself; an error if it fails.
pub fn tool(folder: &Path, args: &[String]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline-app"));
    let out = command.args(args).env_clear().current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match out.status.success() {
        true => Ok(text(&out.stdout)),
        false => Err(format!("{args:?}: {}{}", text(&out.stdout), text(&out.stderr))),
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
