//! What people do with a lake, beside jobs: look whether it is whole, and merge small files.
//!
//! Both go by the manifests, which say of every file how long it is, how many rows it has, and its
//! hash, and by the notes of earlier compactions, which say what has replaced what.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::manifest::{Entry, Manifest, Manifests};
use super::staged::content_of;
use crate::connector::Point;
use crate::connector::file::{Failpoints, create_folder, failed, lock, read_sealed};
use crate::error::{Error, Result};

/// The folder of a lake that exists, for [`verify`](Self::verify) and [`compact`](Self::compact).
#[derive(Debug)]
pub struct Lake {
    pub(super) layout: Layout,
    pub(super) failpoints: Failpoints,
    /// Held for as long as this exists: one compaction or verification at a time.
    _lock: File,
}

/// What [`Lake::verify`] has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// How many manifests were read, of all sinks that write to the lake.
    pub manifests: u64,
    /// How many files are as they should be.
    pub files: u64,
    /// The rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong, a line each; nothing if the lake is whole.
    pub problems: Vec<String>,
}

/// What a compaction has replaced. It counts if its files are in the lake: they come into it in the
/// same step in which those that they replace go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replacement {
    pub(super) format: u32,
    pub(super) replaced: Vec<String>,
    pub(super) by: Vec<Entry>,
}

/// The manifests of all sinks, and what has been made of their files since.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// By sink.
    manifests: BTreeMap<String, Vec<(u64, Manifest)>>,
    /// What belongs into the lake, by path, and where it is if it has not been moved yet.
    pub(super) files: BTreeMap<String, Expected>,
    /// Notes of compactions that did not come to their end.
    pub(super) void: Vec<PathBuf>,
    problems: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) entry: Entry,
    /// The staged file, if the commit may still have to move it.
    pub(super) waiting: Option<PathBuf>,
}

impl Lake {
    /// The lake in the folder `root`, which a [`LakeSink`](super::LakeSink) has made. A job may go
    /// on writing to it meanwhile.
    ///
    /// # Errors
    /// If there is none, or another verification or compaction is at work on it.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let layout = Layout::existing(root)?;
        create_folder("the lake's staging folder", &layout.compaction)?;
        let path = layout.compaction.join("lock");
        let Some(lock) = lock("the lake's lock file", &path)? else {
            return Err(Error::fenced(format!(
                "another process verifies or compacts the lake {}; wait for its end",
                root.display()
            )));
        };
        Ok(Self { layout, failpoints: Failpoints::default(), _lock: lock })
    }

    /// Calls `hook` at each named step of a compaction; an error stops it there. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn failpoints(
        mut self,
        hook: impl Fn(&str) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.failpoints = Failpoints::new(hook);
        self
    }

    /// Reads every file, and compares everything with the manifests: files that are missing, of
    /// another length or content; files that no commit has made; a commit that is missing between
    /// two others; rows that a commit counts and its files do not have.
    ///
    /// # Errors
    /// If the lake cannot be read at all. What is wrong with it is in the result.
    pub fn verify(&self) -> Result<Verified> {
        // First the files and then the manifests: a commit makes its manifest before its files are
        // seen, so what a running job adds meanwhile is not taken for a file of nobody.
        let present = self.present()?;
        let inventory = self.inventory(&present)?;
        let mut found = Verified { problems: inventory.problems.clone(), ..Verified::default() };
        for (sink, manifests) in &inventory.manifests {
            found.manifests += manifests.len() as u64;
            found.problems.extend(check_chain(sink, manifests));
        }
        for (path, expected) in &inventory.files {
            match self.check(path, expected) {
                Ok(()) => {
                    found.files += 1;
                    found.rows += expected.entry.rows;
                    found.bytes += expected.entry.bytes;
                }
                Err(problem) => found.problems.push(problem),
            }
        }
        for path in present.iter().filter(|path| !inventory.files.contains_key(*path)) {
            found.problems.push(format!(
                "{path}: no commit has made this file (or a compaction has replaced it): readers \
                 see its rows as well"
            ));
        }
        Ok(found)
    }

    fn check(&self, path: &str, expected: &Expected) -> Result<(), String> {
        let mut content = content_of(&self.layout.root.join(path));
        if let (Err(e), Some(waiting)) = (&content, &expected.waiting)
            && e.kind() == std::io::ErrorKind::NotFound
        {
            content = content_of(waiting);
        }
        let entry = &expected.entry;
        match content {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(format!("{path}: missing, with {} rows", entry.rows))
            }
            Err(e) => Err(format!("{path}: cannot be read: {e}")),
            Ok((bytes, _)) if bytes != entry.bytes => {
                Err(format!("{path}: {bytes} bytes instead of {}", entry.bytes))
            }
            Ok((_, hash)) if entry.hash.as_ref().is_some_and(|wanted| *wanted != hash) => {
                Err(format!("{path}: damaged, its content is not what was written"))
            }
            Ok(_) => Ok(()),
        }
    }

    /// The Parquet files that a reader sees, as paths under the root.
    pub(super) fn present(&self) -> Result<BTreeSet<String>> {
        let root = &self.layout.root;
        let error = |path: &Path, e| failed("list", "the lake's folder", path, e);
        let mut present = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|e| error(&folder, e))? {
                let path = entry.map_err(|e| error(&folder, e))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "parquet") {
                    let path = path.strip_prefix(root).unwrap_or(&path);
                    present.insert(path.to_string_lossy().replace('\\', "/"));
                }
            }
        }
        Ok(present)
    }

    /// What belongs into the lake.
    pub(super) fn inventory(&self, present: &BTreeSet<String>) -> Result<Inventory> {
        let mut all = Inventory::default();
        for (sink, layout) in self.layout.sinks()? {
            let folder = Manifests::new(&layout.manifests, Failpoints::default());
            let mut manifests = vec![];
            for (number, manifest) in folder.all()? {
                match manifest {
                    Ok(manifest) => manifests.push((number, manifest)),
                    Err(error) => all.problems.push(error.to_string()),
                }
            }
            let newest = manifests.last().map(|(number, _)| *number);
            for (number, manifest) in &manifests {
                let done = Some(*number) != newest || folder.is_done(*number, manifest)?;
                for entry in &manifest.files {
                    let waiting = (!done).then(|| layout.parts.join(&entry.staged));
                    let expected = Expected { entry: entry.clone(), waiting };
                    if all.files.insert(entry.path.clone(), expected).is_some() {
                        all.problems.push(format!("{}: two commits name it", entry.path));
                    }
                }
            }
            all.manifests.insert(sink, manifests);
        }
        let notes = self.notes()?;
        for (path, note) in &notes {
            if !counts(note, present, &notes) {
                all.void.push(path.clone());
                continue;
            }
            for replaced in &note.replaced {
                all.files.remove(replaced);
            }
            for entry in &note.by {
                let expected = Expected { entry: entry.clone(), waiting: None };
                all.files.insert(entry.path.clone(), expected);
            }
        }
        Ok(all)
    }

    /// The notes of all compactions, in order.
    fn notes(&self) -> Result<Vec<(PathBuf, Replacement)>> {
        let role = "the lake's compaction note";
        let folder = &self.layout.compaction;
        let error = |e| failed("list", "the lake's compaction folder", folder, e);
        let mut paths = vec![];
        for entry in fs::read_dir(folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut notes = vec![];
        for path in paths {
            let note: Option<Replacement> = read_sealed(role, &path)?;
            match note {
                Some(note) if note.format == 1 => notes.push((path, note)),
                Some(note) => {
                    return Err(Error::corrupt(format!(
                        "{} is of format {}, and this version reads format 1",
                        path.display(),
                        note.format
                    )));
                }
                None => {}
            }
        }
        Ok(notes)
    }
}

/// Whether a compaction came to its end: what it made is there, or was itself replaced since.
fn counts(
    note: &Replacement,
    present: &BTreeSet<String>,
    notes: &[(PathBuf, Replacement)],
) -> bool {
    note.by.iter().any(|entry| {
        present.contains(&entry.path)
            || notes.iter().any(|(_, later)| {
                later.replaced.contains(&entry.path) && counts(later, present, notes)
            })
    })
}

/// Whether the manifests of a sink follow each other, and their files have the rows that they count.
fn check_chain(sink: &str, manifests: &[(u64, Manifest)]) -> Vec<String> {
    let mut problems = vec![];
    let mut before: Option<&(u64, Manifest)> = None;
    for this in manifests {
        let (number, manifest) = this;
        let rows_of = |m: &Manifest| m.progress.as_ref().map_or(0, |progress| progress.rows);
        let previous = before.and_then(|(_, manifest)| manifest.progress.as_ref());
        let rows_before = match &manifest.after {
            Some(after) => after.rows,
            None => previous.map_or(0, |progress| progress.rows),
        };
        if let Some((at, earlier)) = before {
            // Between two that are not neighbours there were only manifests without files.
            let gap = manifest.after.as_ref().is_some_and(|after| {
                if at + 1 == *number {
                    Some(after) != earlier.progress.as_ref()
                } else {
                    after.rows != rows_of(earlier)
                }
            });
            let back =
                match (previous.map(|p| &p.point), manifest.progress.as_ref().map(|p| &p.point)) {
                    (Some(Point::Positions(from)), Some(Point::Positions(to))) => from
                        .iter()
                        .any(|(split, at)| to.get(split).is_none_or(|now| now.next < at.next)),
                    _ => false,
                };
            if gap || back {
                problems.push(format!(
                    "sink {sink}: manifest {number} does not go on from manifest {at}: one between \
                     them is missing, or one of them is not of this lake"
                ));
            }
        }
        let rows: u64 = manifest.files.iter().map(|entry| entry.rows).sum();
        let counted = rows_of(manifest).saturating_sub(rows_before);
        if counted != rows {
            problems.push(format!(
                "sink {sink}: manifest {number} counts {counted} rows, and its files have {rows}"
            ));
        }
        before = Some(this);
    }
    problems
}
