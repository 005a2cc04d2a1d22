//! Notices that followed files have changed.
//!
//! One small thread for each source, while a reader waits at the end of a file: it looks at the
//! length a few times a second. That works on every file system, network mounts included, where
//! change notifications do not; and a reader at the end costs the runtime nothing.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::connector::Wake;
use crate::error::{Error, Result};
use crate::time::millis;

/// How long a change may stay unnoticed.
const PERIOD: Duration = millis(100);

/// What a file looks like from outside: if this is equal, nothing has happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) length: u64,
    modified: Option<SystemTime>,
    file: (u64, u64),
}

impl Stamp {
    pub(super) fn new(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            file: file_number(metadata),
        }
    }

    /// Whether both are of one file, however it has grown.
    pub(super) fn same_file(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

#[cfg(unix)]
fn file_number(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere a replaced file is noticed by its head only.
#[cfg(not(unix))]
fn file_number(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// A reader that follows a file.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    wake: Wake,
    /// What the file looked like when the reader came to its end; `None` while it is not there.
    end: Mutex<Option<Stamp>>,
    changed: AtomicBool,
}

impl Follower {
    /// The reader has come to the end of a file that looks like this.
    pub(super) fn wait(&self, end: Stamp) {
        *lock(&self.end) = Some(end);
    }

    /// Whether something has happened since then.
    pub(super) fn changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    fn look(&self) {
        let Some(end) = *lock(&self.end) else { return };
        let now = fs::metadata(&self.path).ok().map(|m| Stamp::new(&m));
        if now != Some(end) {
            self.changed.store(true, Ordering::Release);
            self.wake.wake();
        }
    }
}

/// The followers of a source, and the thread that looks after them.
#[derive(Debug, Default)]
pub(super) struct Watcher(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    followers: Vec<Weak<Follower>>,
    running: bool,
}

impl Watcher {
    /// Watches a file until the follower is dropped.
    pub(super) fn follow(&self, path: &Path, wake: Wake) -> Result<Arc<Follower>> {
        let follower = Arc::new(Follower {
            path: path.to_owned(),
            wake,
            end: Mutex::new(None),
            changed: AtomicBool::new(false),
        });
        let mut watched = lock(&self.0);
        watched.followers.push(Arc::downgrade(&follower));
        if !watched.running {
            let shared = Arc::clone(&self.0);
            thread::Builder::new()
                .name("file-watch".to_owned())
                .spawn(move || watch(&shared))
                .map_err(|e| Error::external("cannot start the file watcher").because(e))?;
            watched.running = true;
        }
        Ok(follower)
    }
}

/// Ends with the last follower.
fn watch(shared: &Mutex<Watched>) {
    loop {
        thread::sleep(PERIOD);
        let followers: Vec<_> = {
            let mut watched = lock(shared);
            watched.followers.retain(|f| f.strong_count() > 0);
            watched.running = !watched.followers.is_empty();
            if !watched.running {
                return;
            }
            watched.followers.iter().filter_map(Weak::upgrade).collect()
        };
        for follower in followers {
            follower.look();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_follower_at_the_end_is_woken_by_growth_and_the_thread_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "x").unwrap();
        let (woken, wakes) = mpsc::sync_channel(8);
        let watcher = Watcher::default();
        let wake = Wake::new(move || {
            let _ = woken.try_send(());
        });
        let follower = watcher.follow(&path, wake).unwrap();
        follower.wait(Stamp::new(&fs::metadata(&path).unwrap()));
        assert!(wakes.recv_timeout(PERIOD * 3).is_err(), "nothing has happened");
        assert!(!follower.changed());
        fs::write(&path, "xy").unwrap();
        wakes.recv_timeout(PERIOD * 50).unwrap();
        assert!(follower.changed());
        drop(follower);
        for _ in 0..50 {
            thread::sleep(PERIOD);
            if !lock(&watcher.0).running {
                return;
            }
        }
        panic!("the watcher goes on without followers");
    }
}
