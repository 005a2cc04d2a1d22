//! Where a lake's files are, and how a finished one gets into it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::Entry;
use crate::connector::file::{
    Failpoints, beside, create_folder, durable_options, failed, lost, passing, sync_folder,
};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;

/// The folders of one sink's lake.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// What readers see.
    pub(super) root: PathBuf,
    /// Files being written, and those that a commit has not moved yet.
    pub(super) parts: PathBuf,
    /// The commits.
    pub(super) manifests: PathBuf,
    /// What one process holds.
    pub(super) lock: PathBuf,
    /// What is held while files are moved; one for all sinks of a lake.
    pub(super) moves: PathBuf,
    /// Where compactions work.
    pub(super) compaction: PathBuf,
}

impl Layout {
    /// Creates what is missing, and finds out whether the file system can do what commits need.
    pub(super) fn create(root: &Path, sink: &str) -> Result<Self> {
        create_folder("the lake's folder", root)?;
        let root =
            fs::canonicalize(root).map_err(|e| failed("open", "the lake's folder", root, e))?;
        if root.file_name().is_none() {
            return Err(Error::user("a file system's root cannot be a lake"));
        }
        let layout = Self::of(root, &file_name(sink));
        let staging = layout.staging();
        for folder in [&layout.parts, &layout.manifests, &staging.join("locks")] {
            create_folder("the lake's staging folder", folder)?;
        }
        layout.probe()?;
        Ok(layout)
    }

    /// A lake that a sink has made; of no sink in particular.
    pub(super) fn existing(root: &Path) -> Result<Self> {
        let layout = fs::canonicalize(root).map(|root| Self::of(root, ""));
        match layout {
            Ok(layout) if layout.staging().join("manifests").is_dir() => Ok(layout),
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed("open", "the lake's folder", root, e))
            }
            _ => Err(Error::user(format!(
                "there is no lake in {}: a job makes one, with a folder {} beside it",
                root.display(),
                beside(root, ".staging").display()
            ))),
        }
    }

    /// The layouts of all sinks that write to the lake, and the names of their folders.
    pub(super) fn sinks(&self) -> Result<Vec<(String, Self)>> {
        let folder = self.staging().join("manifests");
        let error = |e| failed("list", "the lake's manifests", &folder, e);
        let mut sinks = vec![];
        for entry in fs::read_dir(&folder).map_err(error)? {
            let name = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
            sinks.push((name.clone(), Self::of(self.root.clone(), &name)));
        }
        sinks.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(sinks)
    }

    fn staging(&self) -> PathBuf {
        beside(&self.root, ".staging")
    }

    /// `sink` is the name of its folder.
    fn of(root: PathBuf, sink: &str) -> Self {
        let staging = beside(&root, ".staging");
        Self {
            parts: staging.join("parts").join(sink),
            manifests: staging.join("manifests").join(sink),
            lock: staging.join("locks").join(format!("{sink}.lock")),
            // No sink's lock is called so: a name has no dot.
            moves: staging.join("locks").join("moves.of.all"),
            compaction: staging.join("compaction"),
            root,
        }
    }

    fn probe(&self) -> Result<()> {
        let name = format!(".probe-{}", random());
        let (one, two) = (self.manifests.join(&name), self.manifests.join(format!("{name}-link")));
        let linked = fs::write(&one, "").and_then(|()| fs::hard_link(&one, &two));
        let _ = (fs::remove_file(&one), fs::remove_file(&two));
        linked.map_err(|e| {
            let hint =
                "the lake's commits need a file system with hard links, and a right to write";
            Error::external(format!("{hint} in {}", self.manifests.display())).because(e)
        })?;
        // An empty folder with a dot: no reader takes it for data.
        let (from, to) = (self.parts.join(&name), self.root.join(&name));
        let moved = fs::create_dir(&from).and_then(|()| fs::rename(&from, &to));
        let _ = (fs::remove_dir(&from), fs::remove_dir(&to));
        moved.map_err(|e| {
            Error::external(format!(
                "files cannot be moved from {} to {}: both must be on one file system. If the lake \
                 is a mount point, mount the folder above it instead",
                self.parts.display(),
                self.root.display()
            ))
            .because(e)
        })
    }

    /// Makes the names of staged files durable, before a manifest relies on them.
    ///
    /// # Errors
    /// A retriable one if the folder is not there at the moment. If it is there and a file is not,
    /// or if the sync fails, another one: that file is lost.
    pub(super) fn keep(&self, files: &[Entry], failpoints: &Failpoints) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let role = "the lake's staging folder";
        let folder = File::open(&self.parts).map_err(|e| passing("open", role, &self.parts, e))?;
        failpoints
            .pass("lake.sync_folder")
            .and_then(|()| folder.sync_all())
            .map_err(|e| lost(role, &self.parts, e))?;
        for file in files {
            let path = self.parts.join(&file.staged);
            let text = match size(&path) {
                Ok(Some(bytes)) if bytes == file.bytes => continue,
                Ok(Some(bytes)) => format!("it has {bytes} bytes instead of {}", file.bytes),
                Ok(None) if !self.parts.is_dir() => {
                    let gone = io::ErrorKind::NotFound.into();
                    return Err(passing("open", role, &self.parts, gone));
                }
                Ok(None) => "somebody has removed it".to_owned(),
                Err(e) => return Err(passing("look at", "the lake's file", &path, e)),
            };
            return Err(lost("the lake's file", &path, io::Error::other(text)));
        }
        Ok(())
    }

    /// Moves the files of a commit into the lake, all that are not there yet, and makes that
    /// durable. Doing it again changes nothing (rule R6).
    ///
    /// # Errors
    /// A retriable one of a step that has to be done again.
    pub(super) fn publish(&self, files: &[Entry], failpoints: &Failpoints) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        // While its files are exchanged, the lake keeps still.
        let _still = self.hold_still()?;
        if !self.root.is_dir() {
            // Not made again here: it may be on a disk that is not mounted at the moment.
            let gone = io::ErrorKind::NotFound.into();
            return Err(passing("open", "the lake's folder", &self.root, gone));
        }
        let mut folders = BTreeSet::new();
        for file in files {
            let to = self.root.join(&file.path);
            let Some(folder) = to.parent() else { continue };
            if folders.insert(folder.to_owned()) {
                create_folder("the lake's folder", folder).map_err(Error::retriable)?;
            }
            failpoint("lake.before_rename");
            self.publish_one(file, &to)?;
            failpoints
                .pass("lake.after_rename")
                .map_err(|e| passing("publish", "the lake's file", &to, e))?;
        }
        folders.insert(self.root.clone());
        for folder in &folders {
            let synced = failpoints.pass("lake.sync_lake").and_then(|()| sync_folder(folder));
            synced.map_err(|e| lost("the lake's folder", folder, e))?;
        }
        Ok(())
    }

    /// Keeps others from moving files within the lake: a commit and a compaction of one date must
    /// not meet. Held for moments only.
    pub(super) fn hold_still(&self) -> Result<File> {
        let error = |e| passing("lock", "the lake's lock file", &self.moves, e);
        let file = durable_options().create(true).append(true).open(&self.moves).map_err(error)?;
        file.lock().map_err(error)?;
        Ok(file)
    }

    fn publish_one(&self, file: &Entry, to: &Path) -> Result<()> {
        let from = self.parts.join(&file.staged);
        let error = |e| passing("publish", "the lake's file", to, e);
        let odd =
            |what: &str| Error::corrupt(format!("{} was committed, and {what}", to.display()));
        match (size(&from).map_err(error)?, size(to).map_err(error)?) {
            (Some(bytes), None) if bytes == file.bytes => match fs::rename(&from, to) {
                // A process that is being taken over may do the same at this moment.
                Err(e) if e.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
                renamed => renamed.map_err(error),
            },
            (None, Some(bytes)) if bytes == file.bytes => Ok(()),
            (None, None) => {
                Err(odd(&format!("neither it nor {} is there any more", from.display())))
            }
            (Some(_), Some(_)) if size(&from).map_err(error)?.is_none() => Ok(()),
            (Some(_), Some(_)) => {
                Err(odd(&format!("{} is there as well: which is the right one?", from.display())))
            }
            (Some(bytes), None) | (None, Some(bytes)) => {
                Err(odd(&format!("it has {bytes} bytes instead of {}", file.bytes)))
            }
        }
    }

    /// Removes what was being written and never committed. Only after a claim.
    pub(super) fn sweep(&self) -> Result<()> {
        let error = |e| failed("clear", "the lake's staging folder", &self.parts, e);
        for entry in fs::read_dir(&self.parts).map_err(error)? {
            let path = entry.map_err(error)?.path();
            fs::remove_file(&path)
                .map_err(|e| failed("remove", "the uncommitted file", &path, e))?;
        }
        Ok(())
    }
}

fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A name that no file has, nor gets from another process: eight hexadecimal digits.
pub(super) fn random() -> String {
    // The standard library keys its hash maps from the system's source of randomness.
    format!("{:08x}", RandomState::new().build_hasher().finish() >> 32)
}

/// A text as the name of a file; different texts have different names.
pub(super) fn file_name(text: &str) -> String {
    use std::fmt::Write;
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            name.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_folder_and_apart() {
        assert_eq!(file_name("lake"), "lake");
        assert_eq!(file_name("../a b"), "%2e%2e%2fa%20b");
        assert_ne!(random(), random());
    }

    #[test]
    fn the_staging_folder_is_beside_the_root_however_that_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap().join("lake");
        let layout = Layout::create(&folder.path().join("x/../lake/."), "s");
        // `x` does not exist, so the path is made, and resolved.
        let layout = layout.unwrap();
        assert_eq!(layout.root, root);
        assert_eq!(layout.parts, beside(&root, ".staging").join("parts/s"));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&layout.manifests).unwrap().count(), 0);
    }
}
