//! One running job for each folder of checkpoints, and who that is.
//!
//! Sinks and the checkpoint log keep a second process out by themselves. This says so first, before
//! anything has been opened, and names the process that is there.

use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail};
use streamkit::time::{Clock as _, SystemClock};

use crate::config::Config;
use crate::job::JOB;

/// Held as long as the job runs; the system lets go of it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a configuration's checkpoint folder.
///
/// # Errors
/// If another process has it: which one. Not if its outputs are to be taken over.
pub fn take(config: &Config) -> Result<Lock> {
    let folder = &config.checkpoint_path;
    fs::create_dir_all(folder)
        .with_context(|| format!("the checkpoint folder {} cannot be made", folder.display()))?;
    let path = folder.join(format!("{JOB}.lock"));
    let failed = || format!("the lock {} cannot be taken", path.display());
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = file.with_context(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).with_context(failed)?;
            let now = SystemClock::new().now();
            writeln!(file, "process {}, since {now}", std::process::id()).with_context(failed)?;
        }
        Err(TryLockError::WouldBlock) if config.take_over => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // It may be writing this moment; then the folder alone must do.
            let _ = file.read_to_string(&mut holder);
            bail!(
                "the job runs already with the checkpoints in {}: {}. Stop it first, or give this \
                 one folders of its own (--data-dir DIR)",
                folder.display(),
                holder.trim()
            );
        }
        Err(TryLockError::Error(e)) => return Err(e).with_context(failed),
    }
    Ok(Lock { _file: file })
}
