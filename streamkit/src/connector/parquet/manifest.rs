//! The commits of a lake: numbered files that are created once and never change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::random;
use crate::connector::Progress;
use crate::connector::file::{
    Failpoints, failed, lost, passing, read_sealed, seal, sync_folder, write_synced,
};
use crate::error::{Error, Result};

const ROLE: &str = "the lake's manifest";

/// How many manifests without files (claims, progress alone) are kept, the newest ones, and how many
/// marks. Those with files are kept for good: they say what belongs into the lake. Only the newest is
/// ever read by a job. A process so old that its number is free again finds the newer ones beside
/// it, and stops.
const KEEP: u64 = 16;

/// One commit, or one claim (which has no files).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) job: String,
    pub(super) sink: String,
    pub(super) lineage: String,
    /// The process that made it, a random name.
    pub(super) owner: String,
    /// `None`: claimed, and nothing committed yet.
    pub(super) progress: Option<Progress>,
    /// The progress of the manifest before it: what this one goes on from. Missing in manifests
    /// of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Progress>,
    pub(super) files: Vec<Entry>,
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its name in the staging folder.
    pub(super) staged: String,
    /// Its path under the root.
    pub(super) path: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Of the content: the name of the function, a colon, hexadecimal digits. Missing in manifests
    /// of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<String>,
}

/// How an attempt to create a manifest went.
#[derive(Debug)]
pub(super) enum Created {
    /// It is there and durable, and it is the newest.
    Done,
    /// Another process has made a manifest of this number, or a later one.
    Lost,
    /// It may be there or not. Creating the same one again finds out.
    Unknown(io::Error),
}

/// The folder of a sink's manifests.
#[derive(Debug, Clone)]
pub(super) struct Manifests {
    folder: PathBuf,
    failpoints: Failpoints,
}

impl Manifests {
    pub(super) fn new(folder: &Path, failpoints: Failpoints) -> Self {
        Self { folder: folder.to_owned(), failpoints }
    }

    fn path(&self, number: u64, ending: &str) -> PathBuf {
        self.folder.join(format!("{number:020}.{ending}"))
    }

    /// The newest manifest and its number.
    pub(super) fn newest(&self) -> Result<Option<(u64, Manifest)>> {
        let Some(number) = self.newest_number()? else { return Ok(None) };
        Ok(Some((number, self.read(number)?)))
    }

    fn read(&self, number: u64) -> Result<Manifest> {
        let path = self.path(number, "json");
        let manifest: Manifest = read_sealed(ROLE, &path)?.ok_or_else(|| {
            Error::external(format!("{} went away at start", path.display())).retriable()
        })?;
        if manifest.format != 1 {
            return Err(Error::corrupt(format!(
                "{} is of format {}, and this version reads format 1",
                path.display(),
                manifest.format
            )));
        }
        Ok(manifest)
    }

    /// All that are left, in order, damaged ones as errors: for people's commands. A job needs the
    /// newest only.
    pub(super) fn all(&self) -> Result<Vec<(u64, Result<Manifest>)>> {
        let error = |e| failed("list", "the lake's manifests", &self.folder, e);
        let mut numbers = vec![];
        for entry in fs::read_dir(&self.folder).map_err(error)? {
            numbers.extend(number(&entry.map_err(error)?.path(), "json"));
        }
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(|number| (number, self.read(number))).collect())
    }

    /// Makes what was created before durable, and not only seen by this process. To be done before
    /// anything is decided by it.
    pub(super) fn sync(&self) -> Result<()> {
        sync_folder(&self.folder).map_err(|e| lost("the lake's manifests", &self.folder, e))
    }

    fn newest_number(&self) -> Result<Option<u64>> {
        let error = |e| failed("list", "the lake's manifests", &self.folder, e);
        let mut newest = None;
        for entry in fs::read_dir(&self.folder).map_err(error)? {
            newest = newest.max(number(&entry.map_err(error)?.path(), "json"));
        }
        Ok(newest)
    }

    /// Creates manifest `number`, unless there is one: this is the commit. Doing it again with the
    /// same manifest changes nothing.
    ///
    /// # Errors
    /// If it was certainly not created, a retriable one. If it may be there and may go away again,
    /// since a sync failed, another one.
    pub(super) fn create(&self, number: u64, manifest: &Manifest) -> Result<Created> {
        let path = self.path(number, "json");
        // Another name each time: a file whose sync has failed is never used again.
        let temporary = self.folder.join(format!(".{number}-{}", random()));
        let failpoint = |step| self.failpoints.pass(step);
        let written = write_synced(&temporary, &seal(manifest))
            .and_then(|()| failpoint("lake.after_manifest_tmp"));
        if let Err(e) = written {
            let _ = fs::remove_file(&temporary);
            return Err(passing("write", ROLE, &temporary, e));
        }
        let linked = fs::hard_link(&temporary, &path);
        // If this fails, the next claim removes it.
        let _ = fs::remove_file(&temporary);
        match linked {
            Ok(()) => {}
            // On a network file system the first answer may have been lost, and this is ours.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                match read_sealed::<Manifest>(ROLE, &path)? {
                    Some(found) if found == *manifest => {}
                    _ => return Ok(Created::Lost),
                }
            }
            Err(e) => return Ok(Created::Unknown(e)),
        }
        if let Err(e) = failpoint("lake.after_manifest") {
            return Ok(Created::Unknown(e));
        }
        failpoint("lake.sync_manifests").map_err(|e| lost(ROLE, &path, e))?;
        self.sync()?;
        Ok(if self.newest_number()? == Some(number) { Created::Done } else { Created::Lost })
    }

    /// Whether all files of a manifest are known to be in place.
    pub(super) fn is_done(&self, number: u64, manifest: &Manifest) -> Result<bool> {
        let path = self.path(number, "done");
        Ok(manifest.files.is_empty()
            || path.try_exists().map_err(|e| failed("read", ROLE, &path, e))?)
    }

    /// Notes that all files of the newest manifest are in place, so that people may compact or
    /// remove them later without a restart missing them; and removes what is too old to matter.
    ///
    /// Nothing is lost if this fails: the next one does it again.
    pub(super) fn finish(&self, number: u64, manifest: &Manifest) {
        let done = || {
            if !manifest.files.is_empty() {
                write_synced(&self.path(number, "done"), "")?;
                sync_folder(&self.folder)?;
            }
            self.prune(number)
        };
        if let Err(error) = done() {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "cannot tidy up the lake's manifests");
        }
    }

    /// Removes old manifests, and what crashes have left of attempts to create one.
    fn prune(&self, newest: u64) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let too_old = |number: u64| number + KEEP <= newest;
            let old = match (attempt(&path), number(&path, "done"), number(&path, "json")) {
                (Some(number), ..) => number <= newest,
                (_, Some(number), _) => too_old(number),
                // What cannot be read is for people to look at.
                // Older ones were looked at by commits before this one.
                (.., Some(number)) if too_old(number) && number + 3 * KEEP > newest => {
                    self.read(number).is_ok_and(|manifest| manifest.files.is_empty())
                }
                _ => false,
            };
            if old {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// The number of an attempt: `.7-5d1c20ab`.
fn attempt(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix('.')?.split_once('-')?.0.parse().ok()
}

/// The number of a manifest, or of its mark.
fn number(path: &Path, ending: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(ending)?.strip_suffix('.')?;
    (name.len() == 20).then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(owner: &str) -> Manifest {
        Manifest {
            format: 1,
            job: "j".to_owned(),
            sink: "s".to_owned(),
            lineage: "L".to_owned(),
            owner: owner.to_owned(),
            progress: None,
            after: None,
            files: vec![],
        }
    }

    fn manifests(folder: &tempfile::TempDir) -> Manifests {
        Manifests::new(folder.path(), Failpoints::default())
    }

    #[test]
    fn d8_a_number_is_given_once_and_the_newest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = manifests(&folder);
        assert_eq!(manifests.newest().unwrap(), None);
        assert!(matches!(manifests.create(1, &manifest("a")).unwrap(), Created::Done));
        assert!(matches!(manifests.create(1, &manifest("b")).unwrap(), Created::Lost));
        // The same attempt, seen twice by a network file system.
        assert!(matches!(manifests.create(1, &manifest("a")).unwrap(), Created::Done));
        assert_eq!(manifests.newest().unwrap(), Some((1, manifest("a"))));
    }

    #[test]
    fn d8_a_process_so_old_that_its_number_is_free_again_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = manifests(&folder);
        let claim = manifest("new");
        fs::write(folder.path().join(".9-0000beef"), "").unwrap();
        for n in 1..=40 {
            assert!(matches!(manifests.create(n, &claim).unwrap(), Created::Done));
            manifests.finish(n, &claim);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEEP as usize);
        assert!(matches!(manifests.create(3, &manifest("old")).unwrap(), Created::Lost));
        // What it leaves is never read, and goes away with the next commit.
        assert_eq!(manifests.newest().unwrap(), Some((40, claim.clone())));
        fs::write(folder.path().join(".9-0000beef"), "").unwrap();
        manifests.finish(40, &claim);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEEP as usize);
    }

    #[test]
    fn manifests_with_files_are_kept_and_their_marks_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = manifests(&folder);
        let (staged, path) = ("a".to_owned(), "d/a".to_owned());
        let entry = Entry { staged, path, rows: 1, bytes: 2, hash: None };
        let with_file = Manifest { files: vec![entry], ..manifest("a") };
        for n in 1..=40 {
            let manifest = if n % 2 == 0 { &with_file } else { &manifest("a") };
            assert!(matches!(manifests.create(n, manifest).unwrap(), Created::Done));
            manifests.finish(n, manifest);
        }
        let numbers: Vec<u64> = manifests.all().unwrap().iter().map(|(n, _)| *n).collect();
        let expected: Vec<u64> = (1..=40).filter(|n| n % 2 == 0 || *n > 24).collect();
        assert_eq!(numbers, expected);
        let marks = (1..=40).filter(|n| manifests.path(*n, "done").exists()).count();
        assert_eq!(marks, KEEP as usize / 2);
    }

    #[test]
    fn a_damaged_manifest_stops_the_job_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = manifests(&folder);
        manifests.create(7, &manifest("a")).unwrap();
        let path = folder.path().join("00000000000000000007.json");
        let text = fs::read_to_string(&path).unwrap().replace("\"s\"", "\"t\"");
        fs::write(&path, text).unwrap();
        let error = manifests.newest().unwrap_err().to_string();
        assert!(error.contains("00000000000000000007.json is damaged"), "{error}");
    }

    #[test]
    fn f81_a_manifest_is_written_as_version_1_has_written_it() {
        let text = include_str!(
            "../../../tests/golden/1-lake/lake.staging/manifests/lake/00000000000000000003.json"
        );
        let (line, _) = text.split_once('\n').unwrap();
        let read: Manifest = serde_json::from_str(line).unwrap();
        assert_eq!((read.files.len(), read.progress.as_ref().map(|p| p.rows)), (3, Some(20)));
        assert_eq!(seal(&read), text);
    }

    #[test]
    fn fuzz_lake_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = manifests(&folder);
        let path = manifests.path(7, "json");
        let entry = Entry {
            staged: "a".to_owned(),
            path: "d=1/a".to_owned(),
            rows: 1,
            bytes: 2,
            hash: None,
        };
        let corpus =
            [seal(&manifest("a")), seal(&Manifest { files: vec![entry], ..manifest("b") })];
        let corpus = corpus.map(String::into_bytes);
        crate::testing::fuzz("lake_manifest", &corpus, |bytes| {
            fs::write(&path, bytes).unwrap();
            if manifests.newest().is_ok() {
                let line = |of: &[u8]| of.split(|b| *b == b'\n').next().unwrap().to_vec();
                assert!(corpus.iter().any(|seed| line(seed) == line(bytes)));
            }
            // Sealed as if it had been written.
            let json = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            let Ok(read) = serde_json::from_slice::<Manifest>(json) else { return };
            fs::write(&path, seal(&read)).unwrap();
            let again = manifests.newest();
            assert!(read.format != 1 || again.unwrap() == Some((7, read)));
        });
    }
}
