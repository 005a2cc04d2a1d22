//! The lake's writer: files by date, and commits.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::PathBuf;

use chrono::{Datelike, NaiveDate};

use super::columns::Columns;
use super::config::Config;
use super::layout::{Layout, file_name, random};
use super::manifest::{Created, Entry, Manifest, Manifests};
use super::part::{Finished, Format, Part};
use crate::connector::file::{failed, lock, passing};
use crate::connector::{Claim, Commit, Progress, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::failpoint::{bound, broken, failpoint};
use crate::record::Batch;
use crate::time::Timestamp;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// A commit with more files than this is made early: late events of many dates.
const MAX_FILES: usize = 256;

/// Writes a lake.
pub(super) struct LakeWriter<T> {
    layout: Layout,
    manifests: Manifests,
    config: Config<T>,
    columns: Columns<T>,
    instance: String,
    lock: Option<File>,
    /// `None` before `recover`, and after any failure until the next one.
    open: Option<Transaction<T>>,
}

/// What is written since the last commit.
struct Transaction<T> {
    /// The number of the manifest that will commit it.
    number: u64,
    /// The newest manifest: who we are.
    claimed: Manifest,
    format: Format,
    /// Open files by date.
    parts: BTreeMap<i32, Open<T>>,
    /// Encoded to the last byte, and not durable yet.
    finished: Vec<Staging>,
    /// Durable.
    closed: Vec<Entry>,
    closed_bytes: usize,
    /// Grows with each batch, so that the file that has waited longest is known.
    turn: u64,
    /// Where the files are.
    folder: PathBuf,
    /// Whether a manifest may exist that names them: from then on only a claim may remove one.
    decided: bool,
}

struct Staging {
    file: Finished,
    staged: String,
    path: String,
}

struct Open<T> {
    part: Part<T>,
    staged: String,
    path: String,
    turn: u64,
}

impl<T: Data> LakeWriter<T> {
    pub(super) fn new(
        layout: Layout,
        config: Config<T>,
        columns: Columns<T>,
        instance: &str,
    ) -> Self {
        let manifests = Manifests::new(&layout.manifests, config.failpoints.clone());
        let instance = file_name(instance);
        Self { layout, manifests, config, columns, instance, lock: None, open: None }
    }

    /// Makes this process the only one that can commit: it creates the next manifest, with no
    /// files. An older process that is still alive will want that number, and stop.
    fn claim(&mut self, claim: &Claim) -> Result<(u64, Manifest)> {
        if self.lock.is_none() {
            self.lock = lock("the lake's lock file", &self.layout.lock)?;
        }
        if self.lock.is_none() && !claim.take_over {
            return Err(Error::fenced(format!(
                "another process writes to the lake {} (sink {}); stop it first, or take over",
                self.layout.root.display(),
                claim.sink
            )));
        }
        self.manifests.sync()?;
        loop {
            let newest = self.manifests.newest()?;
            let number = newest.as_ref().map_or(1, |(number, _)| number + 1);
            let mut progress = None;
            if let Some((number, manifest)) = newest {
                if manifest.progress.is_some() && manifest.lineage != claim.lineage {
                    return Err(Error::fenced(format!(
                        "the lake {} is of lineage {} (job {}), and this job is of lineage {}",
                        self.layout.root.display(),
                        manifest.lineage,
                        manifest.job,
                        claim.lineage
                    ))
                    .of_lineage(&manifest.lineage));
                }
                // Before the claim: so only the newest manifest can have files left to move.
                if !self.manifests.is_done(number, &manifest)? && !broken("lake.redo") {
                    failpoint("lake.before_redo");
                    self.layout.publish(&manifest.files, &self.config.failpoints)?;
                    self.manifests.finish(number, &manifest);
                    failpoint("lake.redone");
                }
                progress = manifest.progress;
            }
            let manifest = Manifest {
                format: 1,
                job: claim.job.clone(),
                sink: claim.sink.clone(),
                lineage: claim.lineage.clone(),
                owner: random(),
                after: progress.clone(),
                progress,
                files: Vec::new(),
            };
            match self.manifests.create(number, &manifest)? {
                Created::Done => {
                    failpoint("lake.claimed");
                    return Ok((number, manifest));
                }
                // Somebody was faster: begin with what they have committed.
                Created::Lost => {}
                Created::Unknown(e) => {
                    return Err(failed("claim", "the lake", &self.layout.root, e));
                }
            }
        }
    }

    fn append(&self, open: &mut Transaction<T>, batch: &Batch<T>) -> Result<()> {
        // Nearly always all rows of a batch are of one or two dates.
        let mut groups: Vec<(i32, Vec<&T>)> = Vec::new();
        let mut by_date = HashMap::new();
        let mut last = None;
        for row in batch.values() {
            let time = (self.config.date)(row);
            let days = days(time).ok_or_else(|| {
                Error::user(format!("a row of the year 0 or before, or 10000 or after: {time}"))
            })?;
            let group = match last {
                Some((known, group)) if known == days => group,
                _ => *by_date.entry(days).or_insert_with(|| {
                    groups.push((days, Vec::with_capacity(batch.len())));
                    groups.len() - 1
                }),
            };
            last = Some((days, group));
            groups[group].1.push(row);
        }
        for (days, rows) in groups {
            self.part(open, days)?.append(&rows)?;
        }
        open.turn += 1;
        Ok(())
    }

    /// The open file of a date.
    fn part<'a>(&self, open: &'a mut Transaction<T>, days: i32) -> Result<&'a mut Part<T>> {
        if !open.parts.contains_key(&days) {
            if open.parts.len() >= self.config.open_dates {
                let oldest = open.parts.iter().min_by_key(|(_, part)| part.turn);
                if let Some(days) = oldest.map(|(days, _)| *days) {
                    open.finish(days)?;
                    // What the disk refuses is asked for again by the commit.
                    open.seal().or_else(|e| if e.is_retriable() { Ok(()) } else { Err(e) })?;
                }
            }
            let new = self.create(open, days)?;
            open.parts.insert(days, new);
        }
        let turn = open.turn;
        let part = open.parts.get_mut(&days).ok_or_else(|| Error::internal("a lost file"))?;
        part.turn = turn;
        Ok(&mut part.part)
    }

    fn create(&self, open: &Transaction<T>, days: i32) -> Result<Open<T>> {
        let date = NaiveDate::from_epoch_days(days).unwrap_or_default();
        let folder = format!("{}={date}", self.config.folder);
        let paths = open.closed.iter().map(|entry| &entry.path);
        let paths = paths.chain(open.finished.iter().map(|staging| &staging.path));
        let before = paths.filter(|path| path.starts_with(&folder)).count();
        let name = format!(
            "part-{:05}-{}-{}.c{before:03}.zstd.parquet",
            open.number, self.instance, open.claimed.owner
        );
        let staged = format!("{date}-{name}");
        let path = self.layout.parts.join(&staged);
        let part = Part::new(path, &self.columns, &open.format, &self.config.failpoints)?;
        failpoint("lake.file_created");
        Ok(Open { part, staged, path: format!("{folder}/{name}"), turn: open.turn })
    }

    /// Every step can be repeated, so that a commit that failed is simply made again.
    fn try_commit(&self, open: &mut Transaction<T>, progress: &Progress) -> Result<Commit> {
        let dates: Vec<_> = open.parts.keys().copied().collect();
        for days in dates {
            open.finish(days)?;
        }
        open.seal()?;
        let failpoints = &self.config.failpoints;
        let role = "the lake's staging folder";
        let number = open.number;
        if !open.decided {
            self.layout.keep(&open.closed, failpoints)?;
            failpoints
                .pass("lake.after_stage")
                .map_err(|e| passing("sync", role, &self.layout.parts, e))?;
        }
        let manifest = Manifest {
            progress: Some(progress.clone()),
            after: open.claimed.progress.clone(),
            files: open.closed.clone(),
            ..open.claimed.clone()
        };
        open.decided = true;
        match self.manifests.create(number, &manifest) {
            Ok(Created::Done) => {}
            Ok(Created::Unknown(error)) => {
                let root = self.layout.root.display();
                tracing::warn!(%root, number, %error, "a commit of the lake has to be made again");
                return Ok(Commit::Unknown);
            }
            // If both exist, the other process publishes what ours names: its files must stay.
            Ok(Created::Lost) => {
                return Err(Error::fenced(format!(
                    "another process has committed to the lake {} (sink {})",
                    self.layout.root.display(),
                    manifest.sink
                )));
            }
            Err(error) => return Err(error),
        }
        self.layout.publish(&manifest.files, failpoints)?;
        failpoint("lake.published");
        self.manifests.finish(number, &manifest);
        failpoint("lake.finished");
        open.number += 1;
        open.claimed.progress = manifest.progress;
        open.closed.clear();
        open.closed_bytes = 0;
        open.decided = false;
        Ok(Commit::Done)
    }
}

impl<T: Data> Transaction<T> {
    /// Encodes the end of a date's file.
    fn finish(&mut self, days: i32) -> Result<()> {
        let Some(Open { part, staged, path, .. }) = self.parts.remove(&days) else { return Ok(()) };
        self.finished.push(Staging { file: part.finish()?, staged, path });
        Ok(())
    }

    /// Makes finished files durable, up to the first that the disk refuses.
    fn seal(&mut self) -> Result<()> {
        while let Some(staging) = self.finished.first_mut() {
            let sealed = match staging.file.seal() {
                Err(e) if e.is_retriable() && broken("lake.waits_for_room") => {
                    self.finished.remove(0);
                    continue;
                }
                sealed => sealed?,
            };
            let Staging { staged, path, .. } = self.finished.remove(0);
            failpoint("lake.file_closed");
            self.closed_bytes += usize::try_from(sealed.bytes).unwrap_or(usize::MAX);
            let (rows, bytes, hash) = (sealed.rows, sealed.bytes, Some(sealed.hash));
            self.closed.push(Entry { staged, path, rows, bytes, hash });
        }
        Ok(())
    }

    /// Removes the files, unless they may be committed: a full disk must not be kept full by them.
    fn discard(self) {
        if self.decided {
            return;
        }
        let staged = self.parts.values().map(|open| &open.staged);
        let staged = staged.chain(self.finished.iter().map(|staging| &staging.staged));
        for staged in staged.chain(self.closed.iter().map(|entry| &entry.staged)) {
            // If this fails, the next claim does it.
            let _ = fs::remove_file(self.folder.join(staged));
        }
    }
}

impl<T: Data> SinkWriter<T> for LakeWriter<T> {
    fn recover(&mut self, claim: &Claim) -> Result<Option<Progress>> {
        self.open = None;
        let config = &self.config;
        let format = Format::new(&self.columns, config.schema_version, config.group_rows)?;
        let (number, claimed) = self.claim(claim)?;
        self.layout.sweep()?;
        failpoint("lake.swept");
        let progress = claimed.progress.clone();
        self.open = Some(Transaction {
            number: number + 1,
            claimed,
            format,
            parts: BTreeMap::new(),
            finished: Vec::new(),
            closed: Vec::new(),
            closed_bytes: 0,
            turn: 0,
            folder: self.layout.parts.clone(),
            decided: false,
        });
        Ok(progress)
    }

    fn write(&mut self, batch: &Batch<T>) -> Result<()> {
        let mut open = self.open.take().ok_or_else(unclaimed)?;
        let written = self.append(&mut open, batch);
        match written {
            Ok(()) => self.open = Some(open),
            Err(_) => open.discard(),
        }
        written
    }

    fn commit(&mut self, progress: &Progress) -> Result<Commit> {
        let mut open = self.open.take().ok_or_else(unclaimed)?;
        let commit = self.try_commit(&mut open, progress);
        match &commit {
            Ok(_) => self.open = Some(open),
            // The runtime does not keep the rows, and makes the same commit again.
            Err(error) if error.is_retriable() => self.open = Some(open),
            Err(_) => open.discard(),
        }
        commit
    }

    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let bytes: usize = open.parts.values().map(|open| open.part.bytes()).sum();
            // What the disk has refused is made known, and stops the queue, by a commit.
            let behind = open.parts.values().any(|open| open.part.is_behind());
            behind
                || !open.finished.is_empty()
                || bytes + open.closed_bytes >= bound(self.config.roll_bytes, 1 << 9)
                || open.parts.len() + open.closed.len() >= MAX_FILES
        })
    }
}

/// Days since the epoch, of the dates that have four digits for the year.
fn days(time: Timestamp) -> Option<i32> {
    let days = i32::try_from(time.as_micros().div_euclid(MICROS_PER_DAY)).ok()?;
    NaiveDate::from_epoch_days(days).filter(|date| (1..=9_999).contains(&date.year())).map(|_| days)
}

fn unclaimed() -> Error {
    Error::internal("a lake was written to before `recover`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc_and_have_four_digits_for_the_year() {
        let date = |micros| days(Timestamp::from_micros(micros));
        assert_eq!(date(0), Some(0));
        assert_eq!(date(MICROS_PER_DAY - 1), Some(0));
        assert_eq!(date(MICROS_PER_DAY), Some(1));
        assert_eq!(date(-1), Some(-1));
        let year_10_000 = 2_932_897 * MICROS_PER_DAY;
        assert_eq!(date(year_10_000 - 1), Some(2_932_896));
        assert_eq!(date(year_10_000), None);
        assert_eq!(days(Timestamp::MIN), None);
        assert_eq!(days(Timestamp::MAX), None);
    }
}
