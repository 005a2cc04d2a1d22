//! `pipeline-app reset`: deletes what the job has made in its data folder, and nothing else.
//!
//! What is deleted cannot be had back, so it is listed first, each thing must look like what the
//! job makes, and no job may be at work on it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::ask::confirmed;
use crate::cli::ResetArgs;
use crate::config::{Config, ModeKind};
use crate::text::bytes;

/// What every SQLite file begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Deletes, after having asked.
///
/// # Errors
/// If something does not look like the job's, or a job holds it, or nobody can be asked.
pub fn reset(config: &Config, args: &ResetArgs) -> Result<()> {
    let found = find(&config.data_dir)?;
    if found.is_empty() {
        println!("Nothing to delete in {}.", config.data_dir.display());
        return Ok(());
    }
    held(&found)?;
    println!("This will be deleted:");
    for path in &found {
        println!("  {:<40} {:>10}", path.display(), bytes(size(path)));
    }
    for path in [&config.lake_path, &config.checkpoint_path] {
        if !path.starts_with(&config.data_dir) && path.exists() {
            println!("{} is outside of the data folder, and stays.", path.display());
        }
    }
    if config.mode.kind != ModeKind::Embedded {
        println!(
            "Topics and PostgreSQL tables stay. They remember how far the job had got: without its \
             checkpoints it refuses to start, until they are cleared, too."
        );
    }
    if !args.yes && !confirmed("Delete?", "nothing was deleted")? {
        bail!("nothing was deleted");
    }
    for path in &found {
        remove(path).with_context(|| format!("{} cannot be deleted", path.display()))?;
    }
    println!("Deleted.");
    Ok(())
}

/// What the job has made in a folder.
fn find(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let at = |name: &str| data_dir.join(name);
    let mut found = vec![];
    for name in ["stream_data.db", "stream_data.db-wal", "stream_data.db-shm"] {
        let path = at(name);
        if let Some(file) = kind(&path)? {
            let ours = file.is_file() && (!name.ends_with(".db") || is_database(&path)?);
            push(&mut found, path, ours)?;
        }
    }
    type Test = fn(&str) -> bool;
    let folders: [(&str, Test); 4] = [
        ("lake", |name| name.starts_with("event_date=") || name == "_SUCCESS"),
        ("lake.staging", |name| matches!(name, "parts" | "manifests" | "locks")),
        ("topics", |name| name.contains(".jsonl")),
        ("checkpoints", |name| name.strip_suffix(".lock").unwrap_or(name) == crate::job::JOB),
    ];
    for (name, is_ours) in folders {
        let path = at(name);
        if let Some(file) = kind(&path)? {
            let ours = file.is_dir() && all(&path, is_ours)?;
            push(&mut found, path, ours)?;
        }
    }
    Ok(found)
}

fn push(found: &mut Vec<PathBuf>, path: PathBuf, ours: bool) -> Result<()> {
    if !ours {
        bail!(
            "nothing was deleted: {} does not look like what the job makes. Look at it, and move \
             away what is not the job's",
            path.display()
        );
    }
    found.push(path);
    Ok(())
}

/// What is at a path; a link is what it is, not what it points to.
fn kind(path: &Path) -> Result<Option<fs::FileType>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("{} cannot be read", path.display())),
    }
}

fn is_database(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(SQLITE.len() as u64).read_to_end(&mut start)?;
    // A file of no bytes is a database without content.
    Ok(start.is_empty() || start == SQLITE)
}

fn all(folder: &Path, is_ours: fn(&str) -> bool) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.to_str().is_some_and(is_ours) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An error if a job is at work: it holds the locks beside its outputs.
fn held(found: &[PathBuf]) -> Result<()> {
    let mut locks = vec![];
    for path in found {
        if path.is_dir() && !path.ends_with("lake") {
            files(path, &mut |file| {
                if file.extension().is_some_and(|extension| extension == "lock") {
                    locks.push(file.to_owned());
                }
            })?;
        }
    }
    for lock in locks {
        let file = File::open(&lock)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("nothing was deleted: a running job holds {}. Stop it first", lock.display())
            }
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Calls `visit` with every file below a folder; links are not followed.
fn files(folder: &Path, visit: &mut impl FnMut(&Path)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), visit)?;
        } else {
            visit(&entry.path());
        }
    }
    Ok(())
}

fn size(path: &Path) -> u64 {
    let mut sum = 0;
    let mut add = |file: &Path| sum += file.metadata().map_or(0, |metadata| metadata.len());
    if path.is_dir() {
        // It is only shown: what cannot be read counts nothing.
        let _ = files(path, &mut add);
    } else {
        add(path);
    }
    sum
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    const OURS: [(&str, &str); 9] = [
        ("stream_data.db", "SQLite format 3\0..."),
        ("stream_data.db-wal", "w"),
        ("lake/event_date=2026-01-01/a.parquet", "PAR1"),
        ("lake.staging/locks/lake.lock", ""),
        ("topics/enriched_activity.jsonl", "{}"),
        ("topics/enriched_activity.jsonl.lock", ""),
        ("checkpoints/user-activity/checkpoint-0000000001", "x"),
        ("checkpoints/user-activity.lock", "process 1"),
        ("notes.txt", "mine"),
    ];

    #[test]
    fn only_what_the_job_makes_is_found() {
        let folder = folder(&OURS);
        let found = find(folder.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        let expected = [
            "stream_data.db",
            "stream_data.db-wal",
            "lake",
            "lake.staging",
            "topics",
            "checkpoints",
        ];
        assert_eq!(names, expected);
        found.iter().for_each(|path| remove(path).unwrap());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(left.len(), 1);
        assert!(find(folder.path()).unwrap().is_empty());
        assert!(find(&folder.path().join("no such folder")).unwrap().is_empty());
    }

    #[test]
    fn what_looks_foreign_stops_everything() {
        for (name, content) in [
            ("stream_data.db", "not a database"),
            ("lake/my-table/a.parquet", ""),
            ("topics/notes.txt", ""),
            ("checkpoints/other-job/x", ""),
            ("lake.staging/holiday.jpg", ""),
        ] {
            let folder = folder(&OURS);
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            let error = find(folder.path()).unwrap_err().to_string();
            assert!(error.starts_with("nothing was deleted: "), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let (folder, other) = (folder(&[]), folder(&[("event_date=2026-01-01/a.parquet", "")]));
        std::os::unix::fs::symlink(other.path(), folder.path().join("lake")).unwrap();
        assert!(find(folder.path()).is_err());
    }

    #[test]
    fn a_running_job_is_noticed() {
        let folder = folder(&OURS);
        let found = find(folder.path()).unwrap();
        held(&found).unwrap();
        let lock = File::open(folder.path().join("lake.staging/locks/lake.lock")).unwrap();
        lock.lock().unwrap();
        let error = held(&found).unwrap_err().to_string();
        assert!(error.contains("a running job holds"), "{error}");
        drop(lock);
        held(&found).unwrap();
    }
}
