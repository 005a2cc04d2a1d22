//! Log lines: to the standard error, above the status if there is one.
//!
//! | variable | |
//! |---|---|
//! | `RUST_LOG` | which lines, as in `info,streamkit=debug` |
//! | `LOG_LEVEL` | the same for everything: `error`, `warn`, `info` (default), `debug`, `trace` |
//! | `LOG_FORMAT` | `pretty`, `json`, or `auto`: JSON unless a person reads it in a terminal |

use anyhow::{Result, anyhow, bail};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Environment;
use crate::status::screen::{self, LogWriter};
use crate::text::escape;

/// The forms of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Pretty,
    Json,
}

/// Begins to log.
///
/// # Errors
/// If a variable has a value that means nothing, or this has been called before.
pub fn init(environment: &Environment) -> Result<()> {
    let filter = filter(environment)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(|| LogWriter);
    let registry = tracing_subscriber::registry().with(filter);
    match format(environment, screen::is_terminal())? {
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Format::Pretty => {
            let colours = screen::is_terminal() && environment.get("NO_COLOR").is_none();
            let lines = lines.fmt_fields(debug_fn(field));
            registry.with(lines.with_target(false).with_ansi(colours)).try_init()
        }
    }
    .map_err(|e| anyhow!("logging cannot be set up: {e}"))
}

/// A field of a line for people. Errors repeat texts from records: what would begin a new line or move
/// the cursor is escaped.
fn field(line: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug) -> std::fmt::Result {
    let value = escape(&format!("{value:?}"));
    match field.name() {
        // It comes first.
        "message" => line.write_str(&value),
        // Where in a library that uses the crate log.
        name if name.starts_with("log.") => Ok(()),
        name => write!(line, " {name}={value}"),
    }
}

fn filter(environment: &Environment) -> Result<EnvFilter> {
    let (name, value) = match (environment.get("RUST_LOG"), environment.get("LOG_LEVEL")) {
        (Some(filter), _) => ("RUST_LOG", filter),
        (None, Some(level)) => ("LOG_LEVEL", level),
        (None, None) => ("LOG_LEVEL", "info"),
    };
    EnvFilter::try_new(value).map_err(|e| {
        anyhow!("{name} is {value:?}, which cannot be used: {e}. Write error, warn, info or debug")
    })
}

fn format(environment: &Environment, terminal: bool) -> Result<Format> {
    match environment.get("LOG_FORMAT") {
        None | Some("auto") if terminal => Ok(Format::Pretty),
        None | Some("auto" | "json") => Ok(Format::Json),
        Some("pretty") => Ok(Format::Pretty),
        Some(other) => bail!("LOG_FORMAT is {other:?}, and must be auto, pretty or json"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::text::is_active;

    fn environment(name: &str, value: &str) -> Environment {
        Environment { dot_env: [(name.to_owned(), value.to_owned())].into(), ..Default::default() }
    }

    #[test]
    fn the_format_depends_on_who_reads() {
        let nothing = Environment::default();
        assert_eq!(format(&nothing, true).unwrap(), Format::Pretty);
        assert_eq!(format(&nothing, false).unwrap(), Format::Json);
        assert_eq!(format(&environment("LOG_FORMAT", "pretty"), false).unwrap(), Format::Pretty);
        assert_eq!(format(&environment("LOG_FORMAT", "json"), true).unwrap(), Format::Json);
        assert!(format(&environment("LOG_FORMAT", "xml"), true).is_err());
    }

    /// Writes into a buffer.
    #[derive(Debug, Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn f24_a_text_makes_no_line_of_the_log_and_moves_no_cursor() {
        let text = "boom \u{1b}[2J\u{9b}1A\r\n\u{202e}2026 INFO all is well";
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let lines = lines.fmt_fields(debug_fn(field)).with_target(false).with_ansi(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::error!(error = %text, quoted = text, n = 7, "a record is given up");
            tracing::warn!("{text}");
        });
        let log = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.lines().count(), 2, "{log:?}");
        assert!(!log.lines().any(|line| line.chars().any(is_active)), "{log:?}");
        assert!(log.contains(" a record is given up error=boom \\u{1b}[2J"), "{log:?}");
        assert!(log.contains(" n=7\n") && log.contains("\\r\\n\\u{202e}2026"), "{log:?}");
    }

    #[test]
    fn the_level_can_be_said_in_two_ways() {
        assert_eq!(filter(&Environment::default()).unwrap().to_string(), "info");
        assert_eq!(filter(&environment("LOG_LEVEL", "warn")).unwrap().to_string(), "warn");
        let error = filter(&environment("RUST_LOG", "a=b=c")).unwrap_err().to_string();
        assert!(error.starts_with("RUST_LOG"), "{error}");
    }
}
