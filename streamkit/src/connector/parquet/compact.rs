//! Merging the small files of closed dates.
//!
//! ```text
//! <root>.staging/compaction/work-5d1c20ab/event_date=2026-01-31/   merged files, and links to the others
//!                          /00000000000000000001.json              what replaces what
//! ```
//!
//! For each date a complete new folder is made beside the lake, and then the two folders change
//! places **in one step** of the file system. A reader that lists the date's folder sees either all
//! old files or all new ones: no row twice, none missing, at no moment. (One that has listed it before
//! and opens a file afterwards is told that there is no such file, and must list again: the old files
//! are deleted.) Until that step nothing has happened, whatever is killed; after it everything has,
//! and what is left to be deleted is deleted by the next compaction.
//!
//! A job that writes to the lake meanwhile goes on: it keeps still only for the step itself, as the
//! compaction does while a commit moves its files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use chrono::NaiveDate;

use super::layout::random;
use super::manifest::Entry;
use super::part::{Finished, Format, GROUP_ROWS, SCHEMA_VERSION};
use super::staged::{Staged, content_of};
use super::tools::{Inventory, Lake, Replacement};
use crate::connector::file::{create_folder, failed, seal, sync_folder, write_synced};
use crate::error::{Error, Result};
use crate::failpoint::broken;
use crate::time::Timestamp;

/// What is to be compacted.
#[derive(Debug, Clone)]
pub struct Compaction {
    today: NaiveDate,
    date: Option<NaiveDate>,
    target_bytes: u64,
}

/// What [`Lake::compact`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// How many dates have changed.
    pub dates: u64,
    /// How many files were replaced.
    pub replaced: u64,
    /// By how many.
    pub by: u64,
    /// How many rows were written again.
    pub rows: u64,
}

impl Compaction {
    /// All closed dates: those before the date of `now`, in UTC. Files of 64 MiB and more stay as
    /// they are, and smaller ones are merged into files of up to 128 MiB.
    ///
    /// # Errors
    /// If `now` has no date.
    pub fn closed_dates(now: Timestamp) -> Result<Self> {
        let today = i32::try_from(now.as_micros().div_euclid(86_400_000_000)).ok();
        let today = today.and_then(NaiveDate::from_epoch_days);
        let today = today.ok_or_else(|| Error::user(format!("{now} is not on any date")))?;
        Ok(Self { today, date: None, target_bytes: 128 << 20 })
    }

    /// Only this date, as `2026-01-31`.
    ///
    /// # Errors
    /// If it is no date, or not closed yet.
    pub fn date(mut self, date: &str) -> Result<Self> {
        let parsed: NaiveDate = date
            .parse()
            .map_err(|_| Error::user(format!("{date:?} is no date such as 2026-01-31")))?;
        if parsed >= self.today {
            return Err(Error::user(format!(
                "{date} is not over in UTC: a job still makes files of it, so it can be compacted \
                 tomorrow"
            )));
        }
        self.date = Some(parsed);
        Ok(self)
    }

    /// How large a merged file gets; 128 MiB unless told. Files of half of it and more are left.
    #[must_use]
    pub fn target_bytes(mut self, bytes: u64) -> Self {
        self.target_bytes = bytes.max(1);
        self
    }

    fn takes(&self, folder: &str) -> bool {
        let date = folder.split_once('=').and_then(|(_, date)| date.parse::<NaiveDate>().ok());
        date.is_some_and(|date| date < self.today && self.date.is_none_or(|only| only == date))
    }
}

/// Files that become one, and what they have in common: columns, and their version.
struct Group<'a> {
    format: (SchemaRef, String),
    entries: Vec<&'a Entry>,
}

impl Lake {
    /// Merges small files of closed dates. A job may go on writing meanwhile, and a kill at any moment
    /// loses nothing.
    ///
    /// A date's folder and its merged copy change places in one step, so a reader that lists the
    /// folder sees either all old files or all new ones: no row twice and none missing, at no
    /// moment. One that has listed the folder before and opens a file afterwards finds that it is
    /// gone, and must list again. What a reader sees of several dates need not be of one moment.
    ///
    /// # Errors
    /// If a file is damaged (nothing is merged that is not what its manifest says), or the disk
    /// fails, or the file system cannot exchange two folders in one step. The dates that were done
    /// stay done, and the others are as they were.
    pub fn compact(&self, what: &Compaction) -> Result<Compacted> {
        let inventory = self.inventory(&self.present()?)?;
        self.tidy(&inventory)?;
        let mut by_folder: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for (path, expected) in &inventory.files {
            // What a commit may still have to move must be found where it looks.
            if expected.waiting.is_none()
                && let Some((folder, _)) = path.rsplit_once('/')
                && what.takes(folder)
            {
                by_folder.entry(folder).or_default().push(&expected.entry);
            }
        }
        let mut done = Compacted::default();
        for (folder, entries) in by_folder {
            let groups = self.groups(&entries, what.target_bytes)?;
            if groups.is_empty() {
                continue;
            }
            let by = self.compact_folder(folder, &groups)?;
            done.dates += 1;
            done.replaced += groups.iter().map(|group| group.entries.len() as u64).sum::<u64>();
            done.by += by.len() as u64;
            done.rows += by.iter().map(|entry| entry.rows).sum::<u64>();
        }
        Ok(done)
    }

    /// Removes what a compaction that was killed has left.
    fn tidy(&self, inventory: &Inventory) -> Result<()> {
        let folder = &self.layout.compaction;
        let error = |e| failed("clear", "the lake's compaction folder", folder, e);
        // Their notes first: without the work that they speak of they could only mislead.
        for note in &inventory.void {
            fs::remove_file(note).map_err(error)?;
        }
        for entry in fs::read_dir(folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(error)?;
            }
        }
        Ok(())
    }

    fn compact_folder(&self, folder: &str, groups: &[Group<'_>]) -> Result<Vec<Entry>> {
        let work = self.layout.compaction.join(format!("work-{}", random()));
        let made = work.join(folder);
        create_folder("the lake's compaction folder", &made)?;
        let mut by = vec![];
        for group in groups {
            by.push(self.merge(folder, &made, group)?);
        }
        let step = |name: &str| {
            let error = |e| failed("compact", "the lake's folder", &made, e);
            self.failpoints.pass(name).map_err(error)
        };
        step("compact.after_merge")?;
        let replaced = groups.iter().flat_map(|group| &group.entries);
        let replaced = replaced.map(|entry| entry.path.clone()).collect();
        let note = Replacement { format: 1, replaced, by };
        self.note(&note)?;
        step("compact.after_note")?;
        let still = self.layout.hold_still()?;
        self.link_the_others(folder, &made, &note)?;
        step("compact.after_links")?;
        let old = self.layout.root.join(folder);
        if broken("compact.one_step") {
            let error = |e| failed("replace", "the lake's folder", &old, e);
            fs::remove_dir_all(&old).map_err(error)?;
            step("compact.after_exchange")?;
            fs::rename(&made, &old).map_err(error)?;
        } else {
            exchange(&old, &made)?;
        }
        step("compact.after_exchange")?;
        for folder in [&self.layout.root, &work] {
            sync_folder(folder).map_err(|e| failed("sync", "the lake's folder", folder, e))?;
        }
        drop(still);
        fs::remove_dir_all(&work)
            .map_err(|e| failed("remove", "the lake's compaction folder", &work, e))?;
        Ok(note.by)
    }

    /// What becomes of a folder's small files: those of one version of the columns go together.
    fn groups<'a>(&self, entries: &[&'a Entry], target: u64) -> Result<Vec<Group<'a>>> {
        let mut by_format: Vec<((SchemaRef, String), Vec<&'a Entry>)> = vec![];
        let small = |entry: &&&Entry| entry.bytes < target.div_ceil(2);
        if entries.iter().filter(small).count() < 2 {
            return Ok(vec![]);
        }
        for entry in entries.iter().filter(small) {
            // Before anything in it is believed.
            let path = self.layout.root.join(&entry.path);
            let content = content_of(&path);
            let (bytes, hash) = content.map_err(|e| failed("read", "the lake's file", &path, e))?;
            if bytes != entry.bytes || entry.hash.as_ref().is_some_and(|wanted| *wanted != hash) {
                return Err(damaged(&path));
            }
            let format = guarded(&path, || format_of(&path))?;
            match by_format.iter_mut().find(|(known, _)| *known == format) {
                Some((_, entries)) => entries.push(entry),
                None => by_format.push((format, vec![entry])),
            }
        }
        let groups = by_format.into_iter().flat_map(|(format, entries)| {
            let divided = divide(&entries, target).into_iter();
            divided.map(move |entries| Group { format: format.clone(), entries })
        });
        Ok(groups.collect())
    }

    /// Merges files into a new one.
    fn merge(&self, folder: &str, made: &Path, group: &Group<'_>) -> Result<Entry> {
        let (schema, version) = group.format.clone();
        let name = format!("part-merged-{}.c000.zstd.parquet", random());
        let format = Format::of(Arc::clone(&schema), version, GROUP_ROWS)?;
        let mut writer = format.writer(Staged::new(made.join(&name), self.failpoints.clone()))?;
        let (mut rows, mut expected) = (0, 0);
        for entry in &group.entries {
            let path = self.layout.root.join(&entry.path);
            expected += entry.rows;
            guarded(&path, || {
                for batch in open(&path)?.build()? {
                    let batch = RecordBatch::try_new(schema.clone(), batch?.columns().to_vec())?;
                    rows += batch.num_rows() as u64;
                    writer.write(&batch)?;
                }
                Ok(())
            })?;
        }
        if rows != expected {
            return Err(Error::corrupt(format!(
                "the files to merge in {folder} have {rows} rows, and their manifests say {expected}"
            )));
        }
        let sealed = Finished::new(writer, rows)?.seal()?;
        let path = format!("{folder}/{name}");
        let (rows, bytes, hash) = (sealed.rows, sealed.bytes, Some(sealed.hash));
        Ok(Entry { path, staged: name, rows, bytes, hash })
    }

    /// Makes the note durable before the step that it is about.
    fn note(&self, note: &Replacement) -> Result<()> {
        let folder = &self.layout.compaction;
        let error = |e| failed("write", "the lake's compaction note", folder, e);
        let mut last = 0;
        for entry in fs::read_dir(folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            last = last.max(number.unwrap_or_default());
        }
        let path = folder.join(format!("{:020}.json", last + 1));
        let temporary = folder.join(format!(".{}", random()));
        write_synced(&temporary, &seal(note))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| sync_folder(folder))
            .map_err(error)
    }

    /// Gives every file of the lake's folder that is not replaced a name in the new one, too.
    fn link_the_others(&self, folder: &str, made: &Path, note: &Replacement) -> Result<()> {
        let old = self.layout.root.join(folder);
        let error = |path: &Path, e| failed("link", "the lake's file", path, e);
        let mut missing: Vec<&String> = note.replaced.iter().collect();
        for entry in fs::read_dir(&old).map_err(|e| error(&old, e))? {
            let path = entry.map_err(|e| error(&old, e))?.path();
            let Some(name) = path.file_name() else { continue };
            let known = format!("{folder}/{}", name.to_string_lossy());
            if let Some(at) = missing.iter().position(|replaced| **replaced == known) {
                missing.swap_remove(at);
                continue;
            }
            fs::hard_link(&path, made.join(name)).map_err(|e| error(&path, e))?;
        }
        if let Some(path) = missing.first() {
            return Err(Error::external(format!("{path} went away while it was being merged")));
        }
        sync_folder(made).map_err(|e| failed("sync", "the lake's compaction folder", made, e))
    }
}

/// Divides files into sets that make one of about the target's size each.
fn divide<'a>(entries: &[&'a Entry], target: u64) -> Vec<Vec<&'a Entry>> {
    let mut sets: Vec<Vec<&'a Entry>> = vec![];
    let mut bytes = 0;
    for entry in entries {
        match sets.last_mut() {
            Some(set) if bytes + entry.bytes <= target => set.push(entry),
            _ => {
                sets.push(vec![entry]);
                bytes = 0;
            }
        }
        bytes += entry.bytes;
    }
    sets.retain(|set| set.len() > 1);
    sets
}

type Reading<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn open(path: &Path) -> Reading<ParquetRecordBatchReaderBuilder<File>> {
    Ok(ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?)
}

/// The columns of a file, and their version.
fn format_of(path: &Path) -> Reading<(SchemaRef, String)> {
    let file = open(path)?;
    let schema = Arc::new(Schema::new(file.schema().fields().clone()));
    let metadata = file.metadata().file_metadata().key_value_metadata();
    let version = metadata.and_then(|all| all.iter().find(|pair| pair.key == SCHEMA_VERSION));
    Ok((schema, version.and_then(|pair| pair.value.clone()).unwrap_or_default()))
}

/// Readers of Parquet are known to panic on some damaged files.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Reading<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|e| {
            Error::external(format!("{} cannot be merged", path.display())).because(e)
        }),
        Err(_) => Err(damaged(path)),
    }
}

fn damaged(path: &Path) -> Error {
    Error::corrupt(format!(
        "{} is not what its manifest says; `lake verify` lists all that is wrong",
        path.display()
    ))
}

/// Two folders change places in one step.
fn exchange(one: &PathBuf, two: &PathBuf) -> Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let exchanged = {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).map_err(std::io::Error::from)
    };
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    let exchanged = {
        let _ = two;
        Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
    };
    exchanged.map_err(|e| {
        Error::external(format!(
            "{} cannot be exchanged with its merged copy: the file system must be able to exchange \
             two folders in one step (ext4, xfs, btrfs, tmpfs and APFS are), and nothing was changed",
            one.display()
        ))
        .because(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: u64) -> Entry {
        let (staged, path) = (bytes.to_string(), format!("d/{bytes}"));
        Entry { staged, path, rows: 1, bytes, hash: None }
    }

    #[test]
    fn files_are_merged_up_to_the_target() {
        let entries: Vec<Entry> = [10, 30, 45, 20, 49, 5, 30].map(entry).into();
        let entries: Vec<&Entry> = entries.iter().collect();
        let sizes: Vec<Vec<u64>> = divide(&entries, 100)
            .iter()
            .map(|set| set.iter().map(|entry| entry.bytes).collect())
            .collect();
        assert_eq!(sizes, [vec![10, 30, 45], vec![20, 49, 5]]);
        assert!(divide(&entries[..1], 100).is_empty(), "one file is not merged with itself");
    }

    #[test]
    fn only_closed_dates_are_taken() {
        let now = Timestamp::from_micros(20_000 * 86_400_000_000); // 2024-10-04
        let all = Compaction::closed_dates(now).unwrap();
        assert!(all.takes("event_date=2024-10-03") && !all.takes("event_date=2024-10-04"));
        assert!(!all.takes("event_date=x") && !all.takes("2024-10-03"));
        let one = all.clone().date("2024-10-02").unwrap();
        assert!(one.takes("event_date=2024-10-02") && !one.takes("event_date=2024-10-03"));
        assert!(all.clone().date("2024-10-04").is_err() && all.date("2024-13-04").is_err());
    }
}
