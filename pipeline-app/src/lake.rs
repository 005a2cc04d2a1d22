//! `lake verify` and `lake compact`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use streamkit::connector::parquet::{Compaction, Lake};
use streamkit::time::{Clock as _, SystemClock};

use crate::cli::{CompactArgs, LakeCommand};
use crate::config::Config;

/// Does what was asked for.
///
/// # Errors
/// If there is no lake, it cannot be read, or something is wrong with it.
pub fn execute(config: &Config, command: &LakeCommand) -> Result<()> {
    match command {
        LakeCommand::Verify => verify(&config.lake_path),
        LakeCommand::Compact(args) => compact(&config.lake_path, args),
    }
}

fn open(root: &Path) -> Result<Lake> {
    Lake::open(root).context("the lake cannot be opened (--lake-path, --data-dir)")
}

fn verify(root: &Path) -> Result<()> {
    let found = open(root)?.verify()?;
    found.problems.iter().for_each(|problem| println!("{problem}"));
    println!(
        "{} files with {} rows and {} bytes are as {} manifests say",
        found.files, found.rows, found.bytes, found.manifests
    );
    match found.problems.len() {
        0 => Ok(()),
        n => bail!("{n} problems in the lake {}", root.display()),
    }
}

fn compact(root: &Path, args: &CompactArgs) -> Result<()> {
    let mut what = Compaction::closed_dates(SystemClock::new().now())?;
    if let Some(date) = &args.date {
        what = what.date(date).context("--date cannot be used")?;
    }
    let done = open(root)?.compact(&what.target_bytes(args.target_mib << 20))?;
    match done.dates {
        0 => println!("nothing to merge"),
        _ => println!(
            "{} files of {} dates, with {} rows, have become {}",
            done.replaced, done.dates, done.rows, done.by
        ),
    }
    Ok(())
}
