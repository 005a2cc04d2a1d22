//! The terminal: a block of lines that is drawn over and over, with log lines above it.
//!
//! Both go to the standard error, so that the standard output can be piped. A log line that is
//! written while the block is there must not be drawn over, so there is one screen in the process,
//! and everything that writes goes through it.

use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

static SCREEN: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));

/// Adds a progress bar to the screen.
pub(crate) fn add(bar: ProgressBar) -> ProgressBar {
    SCREEN.add(bar)
}

/// Whether there is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr()) && !SCREEN.is_hidden()
}

/// Writes while no block is in the way.
pub(crate) fn write<R>(write: impl FnOnce() -> R) -> R {
    SCREEN.suspend(write)
}

/// The block of lines. It is removed when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Block {
    lines: Mutex<Vec<ProgressBar>>,
}

impl Block {
    /// Shows these lines in place of the last ones; what is too long for the terminal is cut.
    pub(crate) fn show(&self, texts: &[String]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        while lines.len() > texts.len() {
            if let Some(line) = lines.pop() {
                line.finish_and_clear();
                SCREEN.remove(&line);
            }
        }
        while lines.len() < texts.len() {
            let line = SCREEN.add(ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            lines.push(line);
        }
        for (line, text) in lines.iter().zip(texts) {
            // Each message is a drawing of the whole block.
            if line.message() != *text {
                line.set_message(text.clone());
            }
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.show(&[]);
    }
}

/// Where log lines are written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
