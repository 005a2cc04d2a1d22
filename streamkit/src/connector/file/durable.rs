//! What commits on a file system rest on: the order of write, sync and rename.
//!
//! A rename is atomic but says nothing about the content: that is synced before. A name is an entry
//! of its folder: that is synced after. And a small file that decides what is committed carries a
//! checksum, so that a damaged one stops the job instead of misleading it.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::failpoint::failpoint;
use crate::time::millis;

/// The error of an attempt (`write`, `sync`) on something (`the lake's manifest`) at a path.
///
/// A full disk, or one that fails, may work again later, and all that is not committed is written
/// again then. A missing right, or a path that cannot be, needs a person.
pub(crate) fn failed(attempt: &str, role: &str, path: &Path, cause: io::Error) -> Error {
    let hopeless = matches!(
        cause.kind(),
        Io::NotFound
            | Io::PermissionDenied
            | Io::ReadOnlyFilesystem
            | Io::NotADirectory
            | Io::IsADirectory
            | Io::InvalidFilename
            | Io::InvalidInput
            | Io::CrossesDevices
            | Io::Unsupported
    );
    let error =
        Error::external(format!("cannot {attempt} {role} {}", path.display())).because(cause);
    if hopeless { error } else { error.retriable() }
}

/// The same, of an attempt that changed nothing and is made again as it is, in a job that runs: even
/// a missing folder or right may come back, and until it does nothing is lost.
#[cfg(feature = "parquet")]
pub(crate) fn passing(attempt: &str, role: &str, path: &Path, cause: io::Error) -> Error {
    failed(attempt, role, path, cause).retriable()
}

/// The error of a sync that failed. The kernel may have dropped what it could not write, and a
/// second sync would report success: so what was to be made durable counts as lost (F71).
#[cfg(feature = "parquet")]
pub(crate) fn lost(role: &str, path: &Path, cause: io::Error) -> Error {
    Error::external(format!(
        "cannot sync {role} {}: what is not committed of it counts as lost, so the job stops, and \
         the next start reads it again. Look after the disk first",
        path.display()
    ))
    .because(cause)
}

/// The path with something added to its last part: `a.jsonl` and `.lock` make `a.jsonl.lock`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The folder that a path is in; `.` for a bare name.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a folder and those above it, durably.
pub(crate) fn create_folder(role: &str, path: &Path) -> Result<()> {
    // Without a last `.`, which cannot be created.
    let path = &path.components().collect::<PathBuf>();
    let above = folder(path);
    if path.is_dir() {
        return Ok(());
    }
    if above != path && above != Path::new(".") {
        create_folder(role, above)?;
    }
    match new_folder(path) {
        // Another process may be starting, too.
        Err(e) if e.kind() != Io::AlreadyExists || !path.is_dir() => Err(e),
        _ => sync_folder(above),
    }
    .map_err(|e| failed("create", role, path, e))
}

/// Nobody but the owner may write, whatever the umask says; that may take away more.
fn new_folder(path: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no modes"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.create(path)
}

/// What a file of ours is created with: as for folders.
pub(crate) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no modes"))]
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o644);
    options
}

/// Creates a file that must not exist.
#[cfg(feature = "parquet")]
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    options().write(true).create_new(true).open(path)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Writes a file whose content is durable when this returns; its name need not be.
pub(crate) fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = options().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// One line of JSON and one with its checksum.
pub(crate) fn seal(value: &impl Serialize) -> String {
    // What is sealed has string keys and integers only: serializing it cannot fail.
    let json = serde_json::to_string(value).unwrap_or_default();
    format!("{json}\ncrc32c:{:08x}\n", crc32c::crc32c(json.as_bytes()))
}

/// Reads what [`seal`] made; `None` if there is no such file.
pub(crate) fn read_sealed<T: DeserializeOwned>(role: &str, path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == Io::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", role, path, e)),
    };
    let damaged = || {
        Error::corrupt(format!("{role} {} is damaged; restore it from a backup", path.display()))
    };
    let text = std::str::from_utf8(&bytes).map_err(|e| damaged().because(e))?;
    let (json, sum) = text.split_once('\n').ok_or_else(damaged)?;
    if sum.trim_end() != format!("crc32c:{:08x}", crc32c::crc32c(json.as_bytes())) {
        return Err(damaged());
    }
    serde_json::from_str(json).map(Some).map_err(|e| damaged().because(e))
}

/// A lock may outlive its owner by a moment: a process that is ending, or a child that it has just
/// forked and that has not become another program yet, still holds it.
const LOCK_ATTEMPTS: u32 = 25;

/// Takes an advisory lock that ends with the process, however that ends.
///
/// The lock file stays: removing it would let two processes lock two files of one name.
pub(crate) fn lock(role: &str, path: &Path) -> Result<Option<File>> {
    let file = options().create(true).append(true).open(path);
    let file = file.map_err(|e| failed("open", role, path, e))?;
    for attempt in 1..=LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                std::thread::sleep(millis(20))
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(failed("lock", role, path, e)),
        }
    }
    Ok(None)
}

type Hook = dyn Fn(&str) -> io::Result<()> + Send + Sync;

/// How tests make a step fail, or stop there for good.
#[derive(Clone, Default)]
pub(crate) struct Failpoints(Option<Arc<Hook>>);

impl Failpoints {
    pub(crate) fn new(hook: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(crate) fn pass(&self, step: &str) -> io::Result<()> {
        failpoint(step);
        self.0.as_ref().map_or(Ok(()), |hook| hook(step))
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Failpoints(set)" } else { "Failpoints" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_damaged_file_is_noticed_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealed");
        assert_eq!(read_sealed::<(u64, String)>("a thing", &path).unwrap(), None);
        let sealed = seal(&(7u64, "x"));
        fs::write(&path, &sealed).unwrap();
        let read = read_sealed::<(u64, String)>("a thing", &path);
        assert_eq!(read.unwrap(), Some((7, "x".to_owned())));
        for i in 0..sealed.len() - 1 {
            let mut bytes = sealed.clone().into_bytes();
            bytes[i] ^= 0x81;
            fs::write(&path, &bytes).unwrap();
            let error = read_sealed::<(u64, String)>("a thing", &path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {i}");
            fs::write(&path, &sealed[..i]).unwrap();
            assert!(read_sealed::<(u64, String)>("a thing", &path).is_err(), "cut at {i}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_write_what_is_created() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let inner = folder.path().join("a/b");
        create_folder("a folder", &inner).unwrap();
        write_synced(&inner.join("c"), "").unwrap();
        lock("a lock", &inner.join("d")).unwrap().unwrap();
        // The umask of whoever runs the test may take away more, never add.
        for (path, most) in [("a", 0o755), ("a/b", 0o755), ("a/b/c", 0o644), ("a/b/d", 0o644)] {
            let mode = mode(&folder.path().join(path));
            assert_eq!(mode & !most, 0, "{path}: {mode:o}");
        }
    }

    #[test]
    fn a_full_disk_may_work_again_and_a_missing_right_does_not() {
        let error = |kind| failed("write", "a thing", Path::new("x"), io::Error::from(kind));
        assert!(error(Io::StorageFull).is_retriable());
        assert!(error(Io::Other).is_retriable());
        assert!(!error(Io::PermissionDenied).is_retriable());
        assert!(error(Io::StorageFull).to_string().starts_with("cannot write a thing x: "));
    }
}
