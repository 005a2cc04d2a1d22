//! pipeline-app as a child process: what it shows of itself, what it costs, how it ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use streamkit::time::{Clock as _, SystemClock, millis, seconds};

/// How long a program may take to end.
const PATIENCE: Duration = seconds(120);
/// How long an answer may take: a program that is busy answers late, one that has ended never.
const ANSWER: Duration = seconds(5);
const LOOK: Duration = millis(2);
/// Of what /proc counts CPU time in; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program. It does not outlive the rig.
#[derive(Debug)]
pub struct App {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
    clock: SystemClock,
}

/// The program that was built beside the rig, with settings of its own only.
///
/// # Errors
/// If the rig does not know where it is itself.
pub fn command(args: &[String]) -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("pipeline-app");
    let mut command = Command::new(program);
    command.args(args).env_clear().stdin(Stdio::null());
    command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()));
    Ok(command)
}

impl App {
    /// Starts it in a folder; what it says is appended to `log`, and its data is below `data`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(folder: &Path, args: &[String]) -> Result<Self> {
        // Whoever asks for port 0 cannot say which one the program has got; so this one was free
        // a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = folder.join("log");
        let out = File::options().create(true).append(true).open(&log)?;
        let clock = SystemClock::new();
        let child = command(args)?
            .args(["--data-dir", "data", "--ui-bind", &address.to_string()])
            .current_dir(folder)
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("pipeline-app cannot be started")?;
        Ok(Self { child, log, address, clock })
    }

    /// The time since it was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The job as `/api/v1/progress` shows it; `None` if there is no answer yet.
    #[must_use]
    pub fn progress(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        let ask = "GET /api/v1/progress HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// Asks until the answer is as wanted, and returns it.
    ///
    /// # Errors
    /// If that takes too long, or the program ends.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = self.age() + limit;
        loop {
            if let Some(progress) = self.progress().filter(&mut wanted) {
                return Ok(progress);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("pipeline-app ended with {status} before {what}: {}", self.last_words());
            }
            ensure!(self.age() < deadline, "no {what} within {limit:?}: {}", self.last_words());
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until its threads run.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_until_running(&mut self) -> Result<Value> {
        self.wait_for("running", PATIENCE, |job| job["state"] == "running")
    }

    /// Its resident memory, and the most that it has had; bytes.
    ///
    /// # Errors
    /// If the system does not say so.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        };
        let (now, most) = (kib("VmRSS:"), kib("VmHWM:"));
        Ok((now.context("no VmRSS")? * 1024, most.context("no VmHWM")? * 1024))
    }

    /// The CPU time that it has taken, in seconds.
    ///
    /// # Errors
    /// If the system does not say so.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may have blanks; of what follows, utime and stime are 12th and 13th.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Ends it as Ctrl-C would.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        self.end()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn end(&mut self) -> Result<()> {
        let deadline = self.age() + PATIENCE;
        while self.age() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "pipeline-app: {status}: {}", self.last_words());
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        bail!("pipeline-app did not end within {PATIENCE:?}: {}", self.last_words())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It has ended already, or nobody needs to know how it ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
