//! A value that must not be printed.

use std::fmt;

/// A text that no log line, error message or `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who connects with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What stands in place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("postgres://user:password@db/stream_data");
        assert!(!format!("{secret} {secret:?} {:#?}", Some(&secret)).contains("password"));
        assert!(secret.expose().contains("password"));
    }
}
