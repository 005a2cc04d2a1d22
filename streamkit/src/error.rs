//! One error type: whose fault it is, at which step, on what, and what to do.

use std::fmt;
use std::panic::Location;

/// The result of everything in streamkit that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is; decides what a supervisor does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program or its settings: trying again changes nothing, a person must.
    User,
    /// One record, which a step cannot process. Where it is known which one it is, and dead letters
    /// go somewhere, that record becomes one; else the job stops. If such an error stops the job and is
    /// [retriable](Error::is_retriable), the next start does something about that record.
    Record,
    /// Another system (a broker, a database, a disk): it may work again later.
    External,
    /// Another process took over this job, or holds a part of it. This one must stop.
    Fenced,
    /// Stored data that cannot be what was written.
    Corrupt,
    /// A defect in streamkit or in a connector.
    Internal,
}

/// What went wrong.
///
/// The text says what was attempted, on which value, and what to do; the step (its name, and the
/// file and line where the job adds it) and the origin of the record are added on the way up.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    retriable: bool,
    message: String,
    step: Option<String>,
    origin: Option<String>,
    lineage: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retriable: false,
            message: message.into(),
            step: None,
            origin: None,
            lineage: None,
            source: None,
        }))
    }

    /// A mistake in the program or in its settings.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, message)
    }

    /// A record that cannot be processed: for steps of your own. The message says what is wrong
    /// with which value; it goes into the dead letter.
    pub fn record(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Record, message)
    }

    /// A failure of another system. Not retried unless it is marked [`retriable`](Self::retriable).
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::External, message)
    }

    /// Another process owns what this one needs.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// Stored bytes that are not what was written.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// A defect.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Says that the same attempt may succeed later without anybody's help.
    #[must_use]
    pub fn retriable(mut self) -> Self {
        self.0.retriable = true;
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what the next start does about it, so that trying again makes sense.
    pub(crate) fn with_outlook(mut self, outlook: &str) -> Self {
        self.0.message.push_str("; ");
        self.0.message.push_str(outlook);
        self.retriable()
    }

    /// Names the step of the job, unless an inner step is named already.
    #[must_use]
    pub fn at_step(mut self, step: &str) -> Self {
        self.0.step.get_or_insert_with(|| step.to_owned());
        self
    }

    /// Names the record (or the range of records) on which it happened, unless that is known.
    #[must_use]
    pub fn on_record(mut self, origin: impl Into<String>) -> Self {
        self.0.origin.get_or_insert_with(|| origin.into());
        self
    }

    /// Says that a target was refused because its progress is of this lineage: so a job that has
    /// lost its checkpoints can be rebuilt around it.
    #[must_use]
    pub fn of_lineage(mut self, lineage: &str) -> Self {
        self.0.lineage = Some(lineage.to_owned());
        self
    }

    /// The lineage of the progress that was refused, if that is why.
    pub fn lineage(&self) -> Option<&str> {
        self.0.lineage.as_deref()
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same attempt may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.0.retriable
    }

    /// The text without step, origin and causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The step at which it happened: name, file and line.
    pub fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// The record on which it happened, as `topic/partition@offset`.
    pub fn origin(&self) -> Option<&str> {
        self.0.origin.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.0.step {
            write!(f, "{step}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(origin) = &self.0.origin {
            write!(f, " (on {origin})")?;
        }
        // One line must be enough for an operator, so the chain of causes is part of the text.
        let mut cause = self.0.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The same as [`Display`](fmt::Display): it is what a `main` that returns the error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// A panic of user code, as a sentence that says what was thrown.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    format!("user code panicked: {text}")
}

/// Where a step was added to the job, for messages and for the printed plan.
pub(crate) fn place(location: &'static Location<'static>) -> String {
    format!("{}:{}", location.file(), location.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_step_and_origin_stay() {
        let error = Error::external("cannot write")
            .because(std::io::Error::other("disk full"))
            .at_step("sink lake")
            .at_step("job")
            .on_record("a/0@5");
        assert_eq!(error.to_string(), "sink lake: cannot write (on a/0@5): disk full");
        assert_eq!(error.kind(), ErrorKind::External);
        assert!(!error.is_retriable());
        assert!(error.retriable().is_retriable());
    }
}
