//! Disks that are full, gone or broken.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use streamkit::ErrorKind;
use streamkit::connector::Commit;

use super::disk::Disk;
use super::support::*;

/// Commits that must fail for a passing reason that says `text`, until `help` has been given.
fn commit_after(writer: &mut Writer, next: u64, text: &str, help: impl FnOnce()) {
    for _ in 0..3 {
        let error = not_done(writer.commit(&progress(next))).expect("it must fail");
        assert!(error.is_retriable() && error.to_string().contains(text), "{text}: {error}");
    }
    help();
    assert_eq!(writer.commit(&progress(next)).unwrap(), Commit::Done);
}

/// Row `n` with a text that does not compress.
fn large(n: u64) -> Row {
    let mut x = n + 1;
    let mut user = String::new();
    for _ in 0..16 {
        x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (x >> 29);
        user.push_str(&format!("{x:016x}"));
    }
    Row { user, ..row(n) }
}

#[test]
fn f69_a_full_disk_while_files_are_written() {
    let Some(disk) = Disk::mount("size=8m") else { return };
    let root = disk.path().join("lake");
    let mut writer = open(sink(&root));
    writer.recover(&claim("L")).unwrap();
    let filler = disk.fill();
    // More than one row group's worth of pages: the encoder writes in the middle, not only at the end.
    let rows: Vec<Row> = (0..20_000).map(large).collect();
    for rows in rows.chunks(1_000) {
        writer.write(&batch(rows.to_vec())).unwrap();
    }
    commit_after(&mut writer, 20_000, "os error 28", || fs::remove_file(filler).unwrap());
    let mut rows = rows;
    rows.sort();
    assert!(read(&root) == rows);
    // And it goes on.
    writer.write(&super::support::rows(20_000..20_010)).unwrap();
    assert_eq!(writer.commit(&progress(20_010)).unwrap(), Commit::Done);
    assert_eq!(read(&root).len(), 20_010);
}

#[test]
fn f69_a_full_disk_while_a_row_group_is_written_asks_for_a_commit() {
    let Some(disk) = Disk::mount("size=4m") else { return };
    let root = disk.path().join("lake");
    let mut writer = open(sink(&root).row_group_rows(1_000));
    writer.recover(&claim("L")).unwrap();
    let filler = disk.fill();
    let mut next = 0;
    // Without an end: far below the 128 MiB of an ordinary roll.
    while !writer.is_full() {
        writer.write(&batch((next..next + 1_000).map(large).collect())).unwrap();
        next += 1_000;
        assert!(next < 100_000, "it is never said that the disk is full");
    }
    commit_after(&mut writer, next, "os error 28", || fs::remove_file(filler).unwrap());
    assert!(!writer.is_full());
    assert_eq!(read(&root).len() as u64, next);
}

#[test]
fn f69_a_disk_without_room_for_another_name_at_the_manifest_and_at_the_date_folders() {
    // A commit makes three staged files, a manifest with two names, a lock, three folders by date.
    for left in 0..12 {
        let Some(disk) = Disk::mount("size=8m,nr_inodes=64") else { return };
        let root = disk.path().join("lake");
        let mut writer = open(sink(&root));
        writer.recover(&claim("L")).unwrap();
        writer.write(&rows(0..10)).unwrap();
        let fillers = disk.fill_with_files();
        fillers[..left].iter().for_each(|path| fs::remove_file(path).unwrap());
        let mut rest = Some(&fillers[left..]);
        let mut failures = 0;
        while let Some(error) = not_done(writer.commit(&progress(10))) {
            let text = error.to_string();
            assert!(error.is_retriable(), "{text}");
            assert!(text.contains("os error 28") || text == "unknown", "{text}");
            files(&root).iter().for_each(|path| drop(read_file(path)));
            failures += 1;
            if failures == 3 {
                let help = rest.take().expect("it goes on failing with room");
                help.iter().for_each(|path| fs::remove_file(path).unwrap());
            }
        }
        println!("{left} files left: {failures} failures");
        assert_eq!(failures == 0, left >= 8, "{left} files left");
        assert_eq!(read(&root), expected(10));
    }
}

#[test]
fn f69_a_killed_process_on_a_full_disk_starts_again_exactly() {
    let Some(disk) = Disk::mount("size=8m") else { return };
    let root = disk.path().join("lake");
    let mut writer = open(sink(&root));
    go_on(&mut writer, 10).unwrap();
    let filler = disk.fill();
    writer.write(&rows(10..20)).unwrap();
    not_done(writer.commit(&progress(20))).expect("no room");
    drop(writer);
    // Not even a claim can be made; the message says why, and it is tried again.
    let mut writer = match try_open(sink(&root)) {
        Ok(mut writer) => {
            let error = writer.recover(&claim("L")).unwrap_err();
            assert!(error.is_retriable() && error.to_string().contains("os error 28"), "{error}");
            fs::remove_file(&filler).unwrap();
            writer
        }
        Err(error) => {
            assert!(error.to_string().contains("os error 28"), "{error}");
            fs::remove_file(&filler).unwrap();
            open(sink(&root))
        }
    };
    go_on(&mut writer, 20).unwrap();
    assert_eq!(read(&root), expected(20));
}

#[test]
fn f69_a_folder_that_is_gone_for_a_while() {
    let Lake { root, staging, _folder } = lake();
    let away = staging.with_extension("away");
    let mut writer = open(sink(&root));
    writer.recover(&claim("L")).unwrap();
    // The whole staging folder: a file that is open goes on, its folder cannot be synced.
    fs::rename(&staging, &away).unwrap();
    writer.write(&rows(0..10)).unwrap();
    commit_after(&mut writer, 10, "os error 2", || fs::rename(&away, &staging).unwrap());
    // The lake itself: committed, and moved into it when it is back. It is not made anew meanwhile,
    // as it may be on a disk that is not mounted.
    fs::rename(&root, &away).unwrap();
    writer.write(&rows(10..20)).unwrap();
    commit_after(&mut writer, 20, "lake", || {
        assert!(!root.exists());
        fs::rename(&away, &root).unwrap();
    });
    assert_eq!(read(&root), expected(20));
}

#[test]
fn f71_a_failed_sync_stops_the_job_and_the_next_start_is_exact() {
    for (step, nth) in [
        ("lake.sync", 0),
        ("lake.sync", 2),
        ("lake.sync_folder", 0),
        ("lake.sync_manifests", 0),
        ("lake.sync_lake", 0),
        ("lake.sync_lake", 3),
    ] {
        let Lake { root, _folder, .. } = lake();
        go_on(&mut open(sink(&root)), 10).unwrap();
        let (armed, left) = (Arc::new(AtomicBool::new(false)), std::sync::Mutex::new(nth));
        let on = Arc::clone(&armed);
        let mut writer = open(sink(&root).failpoints(move |at| {
            let mut left = left.lock().unwrap();
            if at != step || !on.load(Ordering::SeqCst) {
                return Ok(());
            }
            if *left == 0 {
                return Err(io::Error::from_raw_os_error(5));
            }
            *left -= 1;
            Ok(())
        }));
        writer.recover(&claim("L")).unwrap();
        armed.store(true, Ordering::SeqCst);
        writer.write(&rows(10..20)).unwrap();
        let error = writer.commit(&progress(20)).unwrap_err();
        // Nobody asks again and is told that all is well.
        assert!(!error.is_retriable(), "{step}: {error}");
        assert_eq!(error.kind(), ErrorKind::External);
        assert!(error.to_string().contains("the next start reads it again"), "{error}");
        drop(writer);
        go_on(&mut open(sink(&root)), 30).unwrap();
        assert_eq!(read(&root), expected(30), "{step} {nth}");
    }
}

#[test]
fn a_staged_file_that_somebody_removes_is_not_committed() {
    let Lake { root, staging, _folder } = lake();
    let (armed, at) = (Arc::new(AtomicBool::new(true)), "lake.after_stage");
    let on = Arc::clone(&armed);
    let mut writer = open(sink(&root).failpoints(move |step| match step {
        step if step == at && on.load(Ordering::SeqCst) => Err(io::ErrorKind::Other.into()),
        _ => Ok(()),
    }));
    writer.recover(&claim("L")).unwrap();
    writer.write(&rows(0..10)).unwrap();
    not_done(writer.commit(&progress(10))).expect("the failpoint");
    armed.store(false, Ordering::SeqCst);
    fs::remove_file(&files(&staging.join("parts"))[0]).unwrap();
    let error = writer.commit(&progress(10)).unwrap_err();
    assert!(error.to_string().contains("somebody has removed it"), "{error}");
    drop(writer);
    go_on(&mut open(sink(&root)), 10).unwrap();
    assert_eq!(read(&root), expected(10));
}

#[test]
fn f70_f76_a_lake_that_cannot_be_written_is_an_error_at_start() {
    let refused = |root: &Path, text: &str| {
        let error = try_open(sink(root)).err().expect("it cannot be used");
        assert!(!error.is_retriable() && error.to_string().contains(text), "{error}");
    };
    // Staging on another file system: the lake's folder is a mount point.
    let Some(disk) = Disk::mount("size=1m") else { return };
    refused(disk.path(), "both must be on one file system");

    // A read-only file system. (Modes say nothing to root.)
    let Some(disk) = Disk::mount("size=1m") else { return };
    let root = disk.path().join("lake");
    drop(open(sink(&root)));
    let mut mount = Command::new("mount");
    assert!(mount.args(["-o", "remount,ro"]).arg(disk.path()).status().unwrap().success());
    refused(&root, "a right to write");
    refused(&disk.path().join("another"), "cannot create the lake's folder");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

#[test]
fn f23_no_name_in_a_row_becomes_a_path() {
    let Lake { root, staging, _folder } = lake();
    let nasty = ["../../etc/x", "%2e%2e/x", "/etc/x", "a\0b", "event_date=1\u{1b}[2J", ""];
    let row = |user: &str| Row { user: user.to_owned(), page: Some(user.to_owned()), ..row(0) };
    let mut writer = open(sink(&root));
    writer.recover(&claim("../L")).unwrap();
    writer.write(&batch(nasty.map(row).to_vec())).unwrap();
    writer.commit(&progress(6)).unwrap();
    let mut all = nasty.map(row).to_vec();
    all.sort();
    assert_eq!(read(&root), all);
    let above = fs::read_dir(root.parent().unwrap()).unwrap();
    let above: Vec<_> = above.map(|entry| entry.unwrap().path()).collect();
    assert!(above.iter().all(|path| *path == root || *path == staging), "{above:?}");
}

#[test]
fn what_is_created_nobody_else_may_write() {
    use std::os::unix::fs::PermissionsExt;
    let Lake { root, staging, _folder } = lake();
    go_on(&mut open(sink(&root)), 10).unwrap();
    let mut all = files(&root);
    all.extend(files(&staging));
    all.extend([root.clone(), staging.join("parts"), staging.join("manifests")]);
    for path in all {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{path:?}: {mode:o}");
    }
}
