//! What commits on a file system rest on: the order of write, sync and rename.
//!
//! A rename is atomic but says nothing about the content: that is synced before. A name is an entry
//! of its folder: that is synced after. And a small file that decides what is committed carries a
//! checksum, so that a damaged one stops the job instead of misleading it.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::failpoint::failpoint;

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
    match fs::create_dir(path) {
        // Another process may be starting, too.
        Err(e) if e.kind() != Io::AlreadyExists || !path.is_dir() => Err(e),
        _ => sync_folder(above),
    }
    .map_err(|e| failed("create", role, path, e))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Writes a file whose content is durable when this returns; its name need not be.
pub(crate) fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
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

/// Takes an advisory lock that ends with the process, however that ends.
///
/// The lock file stays: removing it would let two processes lock two files of one name.
pub(crate) fn lock(role: &str, path: &Path) -> Result<Option<File>> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(|e| failed("open", role, path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(failed("lock", role, path, e)),
    }
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

    #[test]
    fn a_full_disk_may_work_again_and_a_missing_right_does_not() {
        let error = |kind| failed("write", "a thing", Path::new("x"), io::Error::from(kind));
        assert!(error(Io::StorageFull).is_retriable());
        assert!(error(Io::Other).is_retriable());
        assert!(!error(Io::PermissionDenied).is_retriable());
        assert!(error(Io::StorageFull).to_string().starts_with("cannot write a thing x: "));
    }
}
