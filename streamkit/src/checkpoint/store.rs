//! Moves the bytes of a log: the only place of it with I/O.
//!
//! Calls block, on the runtime that the log was opened with, so they must not come from one of its
//! workers. What the log relies on: a put is atomic and refused if the name is taken; what was put
//! is durable, and every later list and get sees it.
//!
//! A local directory has all of that: `object_store` writes a staging file beside the object
//! (`checkpoint-0000000007#1`), fsyncs it, links it to its name (which fails if the name is taken)
//! and fsyncs the directory. A crash can leave a staging file; nothing here takes it for an object,
//! and [`Store::sweep`] removes it later.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::runtime::Handle;

use super::protocol::{AfterFailedPut, Listing, Object, Ours, after_failed_put};
use crate::error::{Error, Result};
use crate::failpoint::failpoint;

/// Where the logs of jobs are.
#[derive(Debug, Clone)]
pub(crate) enum Location {
    /// A local directory; it is created if it is not there.
    Directory(PathBuf),
    /// The memory of this process: gone with it.
    Memory(Arc<InMemory>),
}

/// How a put went.
#[derive(Debug)]
pub(super) enum Put {
    Done,
    /// The name is taken.
    Taken,
    /// Nothing was written.
    Failed(Error),
    /// Something may have been written.
    Unknown(Error),
}

/// The objects of one job's log.
#[derive(Debug)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Handle,
    /// The folder, if it is a local one.
    folder: Option<PathBuf>,
    /// For messages.
    shown: String,
}

impl Store {
    /// Opens the objects of a job only to read them: a folder that is not there is an error, and is
    /// not made.
    pub(super) fn open_to_read(location: Location, job: &str, runtime: Handle) -> Result<Self> {
        if let Location::Directory(root) = &location
            && !root.is_dir()
        {
            return Err(Error::user(format!("there is no checkpoint folder {}", root.display())));
        }
        Self::open(location, job, runtime)
    }

    pub(super) fn open(location: Location, job: &str, runtime: Handle) -> Result<Self> {
        if job.is_empty() {
            return Err(Error::user("a job needs a name"));
        }
        let prefix = Path::default().join(PathPart::from(job));
        let (objects, folder): (Arc<dyn ObjectStore>, _) = match location {
            Location::Directory(root) => {
                let text = format!("cannot open the checkpoint folder {}", root.display());
                create_durably(&root).map_err(|e| Error::external(text.clone()).because(e))?;
                let store = LocalFileSystem::new_with_prefix(&root).and_then(|store| {
                    let folder = store.path_to_filesystem(&prefix)?;
                    Ok((Arc::new(store.with_fsync(true)), folder))
                });
                let (store, folder) = store.map_err(|e| Error::external(text).because(e))?;
                (store, Some(folder))
            }
            Location::Memory(store) => (store, None),
        };
        let shown = match &folder {
            Some(folder) => folder.display().to_string(),
            None => format!("memory:{prefix}"),
        };
        Ok(Self { objects, prefix, runtime, folder, shown })
    }

    /// The object's name, as a person finds it.
    pub(super) fn shown(&self, object: Object) -> String {
        format!("{}/{}", self.shown, name(object))
    }

    /// The folder, as a person finds it.
    pub(super) fn folder(&self) -> &str {
        &self.shown
    }

    pub(super) fn list(&self) -> Result<Listing> {
        let list = self.runtime.block_on(self.objects.list_with_delimiter(Some(&self.prefix)));
        let list = list.map_err(|e| {
            Error::external(format!("cannot list {}", self.shown)).because(e).retriable()
        })?;
        let mut listing = Listing::default();
        for meta in list.objects {
            match meta.location.filename().and_then(parse) {
                Some(Object::Checkpoint(n)) => drop(listing.checkpoints.insert(n, meta.size)),
                Some(Object::Fact(n)) => drop(listing.facts.insert(n)),
                None => {}
            }
        }
        Ok(listing)
    }

    pub(super) fn get(&self, object: Object) -> Result<Bytes> {
        let path = self.path(object);
        let bytes = self.runtime.block_on(async { self.objects.get(&path).await?.bytes().await });
        bytes.map_err(|e| self.unreadable(object, e))
    }

    /// The first bytes of an object of `size` bytes: `n` of them, or all.
    pub(super) fn get_start(&self, object: Object, size: u64, n: u64) -> Result<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let path = self.path(object);
        let bytes = self.runtime.block_on(self.objects.get_range(&path, 0..n.min(size)));
        bytes.map_err(|e| self.unreadable(object, e))
    }

    /// Writes an object, durably, unless its name is taken.
    pub(super) fn put(&self, object: Object, bytes: Vec<u8>) -> Put {
        let (path, bytes) = (self.path(object), Bytes::from(bytes));
        let (before, after) = match object {
            Object::Checkpoint(_) => ("log.before_checkpoint", "log.after_checkpoint"),
            Object::Fact(_) => ("log.before_fact", "log.after_fact"),
        };
        failpoint(before);
        let options = PutOptions::from(PutMode::Create);
        let put = self.objects.put_opts(&path, bytes.clone().into(), options);
        let error = match self.runtime.block_on(put) {
            Ok(_) => {
                failpoint(after);
                return Put::Done;
            }
            Err(object_store::Error::AlreadyExists { .. }) => return Put::Taken,
            Err(error) => error,
        };
        let found = self.runtime.block_on(async {
            match self.objects.get(&path).await {
                Ok(found) => found.bytes().await.ok().map(|found| Some(found == bytes)),
                Err(object_store::Error::NotFound { .. }) => Some(None),
                Err(_) => None,
            }
        });
        let hint = if self.folder.is_some() { hint(&error) } else { "" };
        let text = format!("cannot write {}{hint}", self.shown(object));
        let error = Error::external(text).because(error);
        match after_failed_put(found) {
            AfterFailedPut::TryAgain => Put::Failed(error.retriable()),
            AfterFailedPut::Unknown => Put::Unknown(error),
            AfterFailedPut::Fenced => Put::Taken,
        }
    }

    /// Removes an object; one that is gone already is fine.
    pub(super) fn delete(&self, object: Object) -> Result<()> {
        match self.runtime.block_on(self.objects.delete(&self.path(object))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                failpoint("log.deleted");
                Ok(())
            }
            Err(e) => {
                let text = format!("cannot delete {}", self.shown(object));
                Err(Error::external(text).because(e).retriable())
            }
        }
    }

    /// Removes staging files of objects that are in the log by now, or were: a crash left them. A
    /// process that still writes one is late and will be fenced.
    pub(super) fn sweep(&self, ours: &Ours) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        failpoint("log.before_sweep");
        let sweep = || -> std::io::Result<()> {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let is_over = match entry.file_name().to_str().and_then(parse_staged) {
                    Some(Object::Checkpoint(number)) => Some(number) <= ours.checkpoint,
                    Some(Object::Fact(number)) => number <= ours.fact,
                    None => false,
                };
                if is_over {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        match sweep() {
            // No folder yet, or somebody else removed the file.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => {
                let text = format!("cannot tidy up {}", self.shown);
                Err(Error::external(text).because(e).retriable())
            }
            Ok(()) => Ok(()),
        }
    }

    fn path(&self, object: Object) -> Path {
        self.prefix.clone().join(name(object))
    }

    fn unreadable(&self, object: Object, e: object_store::Error) -> Error {
        Error::external(format!("cannot read {}", self.shown(object))).because(e).retriable()
    }
}

/// The only place that forms a name. Ten digits keep a listing in order.
fn name(object: Object) -> String {
    match object {
        Object::Checkpoint(number) => format!("checkpoint-{number:010}"),
        Object::Fact(number) => format!("facts-{number:010}"),
    }
}

/// The inverse of [`name`], and of nothing else: staging files and strangers are not objects.
fn parse(text: &str) -> Option<Object> {
    let (kind, number) = text.split_once('-')?;
    let number = number.parse().ok()?;
    let object = match kind {
        "checkpoint" => Object::Checkpoint(number),
        "facts" => Object::Fact(number),
        _ => return None,
    };
    (name(object) == text).then_some(object)
}

/// The object that a staging file was to become: its name, `#` and a number.
fn parse_staged(text: &str) -> Option<Object> {
    let (object, suffix) = text.split_once('#')?;
    suffix.parse::<u64>().ok().and_then(|_| parse(object))
}

/// What may be wrong with a folder that does not take an object: one without hard links says no more
/// than that something is not permitted.
fn hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    use std::io::ErrorKind::{PermissionDenied, Unsupported};
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    let is_refused = |e: &std::io::Error| matches!(e.kind(), PermissionDenied | Unsupported);
    match chain.any(|e| e.downcast_ref().is_some_and(is_refused)) {
        true => ": checkpoints need a right to write there, and a file system with hard links",
        false => "",
    }
}

/// Creates a directory and makes the entries for it, and for those above it, durable.
fn create_durably(root: &std::path::Path) -> std::io::Result<()> {
    let root = std::path::absolute(root)?;
    let missing: Vec<_> = root.ancestors().take_while(|dir| !dir.exists()).collect();
    std::fs::create_dir_all(&root)?;
    for parent in missing.iter().rev().filter_map(|dir| dir.parent()) {
        #[cfg(unix)]
        std::fs::File::open(parent)?.sync_all()?;
        #[cfg(not(unix))]
        let _ = parent;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f77_a_folder_without_hard_links_is_an_error_that_says_so() {
        let error = |kind: std::io::ErrorKind| object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(std::io::Error::from(kind)),
        };
        // As exFAT answers, and others.
        for kind in [std::io::ErrorKind::PermissionDenied, std::io::ErrorKind::Unsupported] {
            assert!(hint(&error(kind)).contains("hard links"), "{kind}");
        }
        assert_eq!(hint(&error(std::io::ErrorKind::StorageFull)), "");
    }

    #[test]
    fn only_names_that_the_log_gives_are_objects() {
        for object in [Object::Checkpoint(7), Object::Fact(0), Object::Fact(12_345_678_901)] {
            assert_eq!(parse(&name(object)), Some(object));
        }
        assert_eq!(name(Object::Checkpoint(7)), "checkpoint-0000000007");
        assert_eq!(name(Object::Fact(12)), "facts-0000000012");
        for stranger in [
            "checkpoint-0000000007#1",
            "checkpoint-0000000007.tmp",
            "checkpoint-7",
            "checkpoint-+000000007",
            "Checkpoint-0000000007",
            "facts-",
            "facts",
            "",
        ] {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }
}
