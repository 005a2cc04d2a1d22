//! A real full disk: a small tmpfs, which only root may mount. Others skip the test, and say so.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, unmounted at the end.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, and a line that says so, where mounting is not allowed.
    pub(crate) fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: a tmpfs cannot be mounted here (that needs root)");
            return None;
        }
        Some(Self { folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all space that is left.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let block = [7; 4_096];
        let error = loop {
            if let Err(e) = io::Write::write_all(&mut file, &block) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        path
    }

    /// Takes all files (inodes) that are left.
    pub(crate) fn fill_with_files(&self) -> Vec<PathBuf> {
        let names = (0..).map(|n| self.path().join(format!("filler-{n}")));
        names.take_while(|path| fs::File::create(path).is_ok()).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
    }
}
