//! What an error of the client or of the server means for the job.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::{DbError, Severity};

use crate::error::Error;

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the job is told.
    pub(super) error: Error,
    /// Whether the connection is of no use any more. If so, it is not certain that the last thing
    /// asked for was not done.
    pub(super) lost: bool,
    /// What the server refused.
    pub(super) refused: Option<Refusal>,
}

/// What of a statement the server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A value, or a row (SQLSTATE classes 22 and 23); others may be fine.
    Row,
    /// The table is not, or not any more, as the statement has it.
    Shape,
}

/// A commit that failed, and whether it failed at the statement that decides.
pub(super) enum Failed {
    Before(Failure),
    Deciding(Failure),
}

impl Failed {
    /// Whether it is a row that the server does not take.
    pub(super) fn refuses_rows(tried: &Result<(), Self>) -> bool {
        match tried {
            Ok(()) => false,
            Err(Self::Before(failure) | Self::Deciding(failure)) => {
                failure.refused == Some(Refusal::Row)
            }
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Before(error.into())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<Error> for Failure {
    /// A finding about what the server answered: the connection is fine.
    fn from(error: Error) -> Self {
        Self { error, lost: false, refused: None }
    }
}

impl Failure {
    /// Nothing came back, or the server ended the connection.
    pub(super) fn lost(error: Error) -> Self {
        Self { error: error.retriable(), lost: true, refused: None }
    }

    /// `doing` says what was attempted, on which object.
    pub(super) fn new(doing: &str, error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else { return Self::without_answer(doing, error) };
        // A FATAL answer may be to the statement or to the connection as a whole: an administrator
        // who ends it just after a commit leaves the same trace as one who prevents the commit.
        let severity = db.parsed_severity();
        let code = db.code().code();
        // A server that has become read-only stays so: another one must be found.
        let lost = !matches!(severity, Some(Severity::Error)) || code == "25006";
        let text = format!("{doing}: {}", describe(db));
        let error = match kind(code) {
            Kind::Passing => Error::external(text).retriable(),
            Kind::Refused => Error::user(text),
            Kind::Other => Error::external(text),
        };
        Self { error, lost, refused: if lost { None } else { refusal(code) } }
    }

    fn without_answer(doing: &str, error: tokio_postgres::Error) -> Self {
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let passing = match io {
            // A password that the server does not know is reported by the server itself; this is a
            // server that does not know its part of it.
            // Nor will a certificate become a trusted one.
            Some(io) => {
                !matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
            }
            None => error.is_closed(),
        };
        // Texts of this client never contain a password, only what was wrong with it.
        let error = Error::external(doing).because(error);
        let error = if passing { error.retriable() } else { error };
        Self { error, lost: true, refused: None }
    }
}

enum Kind {
    /// Tomorrow, or in a second, the same may work.
    Passing,
    /// A setting or a permission.
    Refused,
    Other,
}

fn kind(code: &str) -> Kind {
    match code {
        // A lock not granted in time, a statement that took too long, a server that cannot be
        // written to at the moment or that is starting, stopping or failing over, and a
        // transaction that waited too long.
        "55P03" | "57014" | "25006" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => {
            Kind::Passing
        }
        _ => match code.get(..2).unwrap_or_default() {
            // Connection, rollback (serialization, deadlock), resources (disk full, memory, too
            // many connections), and errors of the system below the server.
            "08" | "40" | "53" | "58" => Kind::Passing,
            // Authentication, no such database, and syntax, access and missing objects.
            "28" | "3D" | "3F" | "42" => Kind::Refused,
            _ => Kind::Other,
        },
    }
}

fn refusal(code: &str) -> Option<Refusal> {
    match code.get(..2).unwrap_or_default() {
        "22" | "23" => Some(Refusal::Row),
        "42" => Some(Refusal::Shape),
        // "cached plan must not change result type", among others.
        "0A" => Some(Refusal::Shape),
        _ => None,
    }
}

/// The server's words on one line.
fn describe(error: &DbError) -> String {
    let mut text = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more.trim_end_matches('.'));
    }
    if error.code().code() == "28000" && text.contains("no encryption") {
        text.push_str("; add sslmode=verify-full to the connection string, or sslmode=require");
    }
    format!("{} (SQLSTATE {})", text.replace('\n', " "), error.code().code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_work_later_is_tried_again_and_nothing_else() {
        for code in [
            "08006", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01",
            "57P03", "25006", "58030",
        ] {
            assert!(matches!(kind(code), Kind::Passing), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "42P01", "42703"] {
            assert!(matches!(kind(code), Kind::Refused), "{code}");
        }
        for code in ["22003", "22021", "23502", "23505", "23514", "0A000", "XX001", "", "2"] {
            assert!(matches!(kind(code), Kind::Other), "{code}");
        }
    }
}
