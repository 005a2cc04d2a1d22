//! A question before something that cannot be taken back.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Result, bail};

/// Whether a person agrees. `not_done` says what was left undone, for where nobody can be asked.
///
/// # Errors
/// If nobody can be asked.
pub(crate) fn confirmed(question: &str, not_done: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("{not_done}: nobody can be asked here; say --yes");
    }
    print!("{question} [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
