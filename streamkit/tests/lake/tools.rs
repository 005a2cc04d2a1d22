//! The commands for people: is the lake whole, and the merging of small files.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use streamkit::connector::Commit;
use streamkit::connector::parquet::{Compacted, Compaction, Lake as Tools, Verified};
use streamkit::time::Timestamp;

use super::support::*;

fn verify(root: &Path) -> Verified {
    Tools::open(root).unwrap().verify().unwrap()
}

fn whole(root: &Path, rows: u64) {
    let found = verify(root);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.rows, rows);
    assert_eq!(read(root), expected(rows));
}

/// All three dates are closed, two days later.
fn closed() -> Compaction {
    Compaction::closed_dates(Timestamp::from_micros(FIRST + 5 * DAY)).unwrap()
}

fn compact(root: &Path) -> Compacted {
    Tools::open(root).unwrap().compact(&closed()).unwrap()
}

#[test]
fn f74_f75_verify_names_everything_that_is_wrong() {
    let Lake { root, staging, _folder } = lake();
    assert!(Tools::open(&root).unwrap_err().to_string().contains("there is no lake"));
    for _ in 0..3 {
        let next = verify_rows(&root);
        go_on(&mut open(sink(&root)), next + 20).unwrap();
    }
    whole(&root, 60);
    let paths = files(&root);
    let problems = |text: &str| {
        let found = verify(&root);
        assert!(found.problems.iter().any(|p| p.contains(text)), "{text}: {:?}", found.problems);
        found.problems.len()
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();

    // A flipped bit, which no reader of Parquet need notice.
    let content = fs::read(&paths[0]).unwrap();
    for at in [4, content.len() / 2, content.len() - 1] {
        let mut flipped = content.clone();
        flipped[at] ^= 1;
        fs::write(&paths[0], &flipped).unwrap();
        assert_eq!(problems(&format!("{}: damaged", name(&paths[0]))), 1);
    }
    fs::write(&paths[0], &content[1..]).unwrap();
    assert_eq!(problems(&format!("bytes instead of {}", content.len())), 1);
    fs::remove_file(&paths[0]).unwrap();
    assert_eq!(problems(&format!("{}: missing, with ", name(&paths[0]))), 1);
    fs::write(&paths[0], &content).unwrap();

    let stray = paths[0].with_file_name("part-stray.c000.zstd.parquet");
    fs::copy(&paths[0], &stray).unwrap();
    assert_eq!(problems("part-stray.c000.zstd.parquet: no commit has made this file"), 1);
    fs::remove_file(&stray).unwrap();

    // A manifest in the middle: damaged, and gone.
    let manifests = files(&staging.join("manifests"));
    let manifests: Vec<_> =
        manifests.iter().filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    let middle = manifests[manifests.len() / 2];
    let text = fs::read_to_string(middle).unwrap();
    fs::write(middle, text.replace("\"rows\":", "\"rows\": ")).unwrap();
    problems("is damaged");
    fs::remove_file(middle).unwrap();
    problems("does not go on from manifest");
    fs::write(middle, text).unwrap();
    whole(&root, 60);
}

fn verify_rows(root: &Path) -> u64 {
    if root.exists() { verify(root).rows } else { 0 }
}

#[test]
fn verify_knows_the_files_that_a_killed_commit_has_still_to_move() {
    let Lake { root, _folder, .. } = lake();
    let mut writer = open(sink(&root).failpoints(|at| match at {
        "lake.after_rename" => Err(io::ErrorKind::Other.into()),
        _ => Ok(()),
    }));
    writer.recover(&claim("L")).unwrap();
    writer.write(&rows(0..10)).unwrap();
    not_done(writer.commit(&progress(10))).expect("the failpoint");
    drop(writer);
    assert_eq!(files(&root).len(), 1);
    let found = verify(&root);
    assert_eq!((found.problems, found.rows), (vec![], 10));
    // Their files are left alone by a compaction, and the next start finds them.
    assert_eq!(compact(&root), Compacted::default());
    go_on(&mut open(sink(&root)), 10).unwrap();
    whole(&root, 10);
}

#[test]
fn compaction_merges_small_files_and_changes_no_row() {
    let Lake { root, staging, _folder } = lake();
    go_on(&mut open(sink(&root).schema_version(1)), 100).unwrap();
    go_on(&mut open(sink(&root).schema_version(2)), 150).unwrap();
    assert_eq!(files(&root).len(), 45);
    // The first date only.
    let one = closed().date("2024-10-04").unwrap();
    let done = Tools::open(&root).unwrap().compact(&one).unwrap();
    assert_eq!((done.dates, done.replaced, done.by, done.rows), (1, 15, 2, 50));
    whole(&root, 150);
    // Versions of columns are not mixed.
    assert_eq!(files(&root).len(), 32);
    let done = compact(&root);
    assert_eq!((done.dates, done.replaced, done.by), (2, 30, 4));
    whole(&root, 150);
    // What can be merged has been.
    let before = files(&root);
    assert_eq!(compact(&root), Compacted::default());
    assert_eq!(files(&root), before);
    assert_eq!(files(&staging.join("parts")).len(), 0);

    // Later files of the same dates, another compaction of merged ones, and a job all along.
    let mut writer = open(sink(&root).schema_version(2));
    go_on(&mut writer, 200).unwrap();
    compact(&root);
    whole(&root, 200);
    go_on(&mut writer, 230).unwrap();
    compact(&root);
    whole(&root, 230);
}

#[test]
fn a_date_that_is_not_over_is_left_alone() {
    let Lake { root, _folder, .. } = lake();
    go_on(&mut open(sink(&root)), 40).unwrap();
    let before = files(&root);
    let today = Compaction::closed_dates(Timestamp::from_micros(FIRST + DAY / 2)).unwrap();
    let done = Tools::open(&root).unwrap().compact(&today).unwrap();
    assert_eq!(done, Compacted::default());
    assert_eq!(files(&root), before);
    assert!(today.date("2024-10-04").unwrap_err().to_string().contains("not over in UTC"));
}

#[test]
fn a_damaged_file_is_not_merged() {
    let Lake { root, _folder, .. } = lake();
    go_on(&mut open(sink(&root)), 40).unwrap();
    let path = files(&root)[1].clone();
    let mut content = fs::read(&path).unwrap();
    for at in 0..content.len() {
        content[at] ^= 1;
        fs::write(&path, &content).unwrap();
        let error = Tools::open(&root).unwrap().compact(&closed()).unwrap_err().to_string();
        assert!(error.contains("is not what its manifest says"), "byte {at}: {error}");
        content[at] ^= 1;
    }
    fs::write(&path, &content).unwrap();
    whole(&root, 40);
}

#[test]
fn f72_a_compaction_that_is_killed_at_any_step_changes_nothing_or_all() {
    for step in [
        "lake.write",
        "compact.after_merge",
        "compact.after_note",
        "compact.after_links",
        "compact.after_exchange",
    ] {
        for nth in 0..3 {
            let Lake { root, staging, _folder } = lake();
            go_on(&mut open(sink(&root)), 60).unwrap();
            let passed = AtomicUsize::new(0);
            let tools = Tools::open(&root).unwrap().failpoints(move |at| {
                if at == step && passed.fetch_add(1, Ordering::SeqCst) == nth {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Ok(())
            });
            tools.compact(&closed()).unwrap_err();
            drop(tools);
            whole(&root, 60);
            // The job goes on, and so does the next compaction; nothing is left behind.
            go_on(&mut open(sink(&root)), 80).unwrap();
            whole(&root, 80);
            compact(&root);
            whole(&root, 80);
            assert_eq!(files(&root).len(), 3, "{step} {nth}");
            let folders = fs::read_dir(staging.join("compaction")).unwrap();
            let folders = folders.filter(|entry| entry.as_ref().unwrap().path().is_dir());
            assert_eq!(folders.count(), 0);
        }
    }
}

#[test]
fn who_lists_a_folder_during_compactions_and_commits_sees_every_row_once() {
    let Lake { root, _folder, .. } = lake();
    let mut writer = open(sink(&root));
    go_on(&mut writer, 100).unwrap();
    let done = AtomicBool::new(false);
    let committed = AtomicUsize::new(100);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for next in (110..=600).step_by(10) {
                go_on_with(&mut writer, next);
                committed.store(next as usize, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                compact(&root);
            }
        });
        let mut seen = 0;
        while !done.load(Ordering::SeqCst) {
            // One date: what a reader sees of several is not of one moment.
            let folder = root.join("event_date=2024-10-04");
            let before = committed.load(Ordering::SeqCst) as u64;
            let Some(rows) = read_listed(&folder) else { continue };
            let after = committed.load(Ordering::SeqCst) as u64 + 10;
            let mut unique = rows.clone();
            unique.dedup();
            assert_eq!(unique, rows, "a row twice");
            let of = |n: u64| expected(n).iter().filter(|row| row.offset % 3 == 0).count();
            assert!((of(before)..=of(after)).contains(&rows.len()), "rows are missing");
            seen += 1;
        }
        println!("{seen} readings");
        assert!(seen > 0);
    });
    compact(&root);
    whole(&root, 600);
}

fn go_on_with(writer: &mut Writer, next: u64) {
    writer.write(&rows(next - 10..next)).unwrap();
    assert_eq!(writer.commit(&progress(next)).unwrap(), Commit::Done);
}

/// Lists the folder and reads what is listed; `None` if a file went away meanwhile.
fn read_listed(folder: &Path) -> Option<Vec<Row>> {
    let names: Vec<_> = fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path()).collect();
    let mut rows = vec![];
    for path in names {
        // As a reader does that has opened all before it reads any.
        rows.push((path.clone(), fs::read(&path).ok()?));
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("event_date=2024-10-04");
    fs::create_dir(&copy).unwrap();
    let mut all = vec![];
    for (path, content) in rows {
        let copied = copy.join(path.file_name().unwrap());
        fs::write(&copied, content).unwrap();
        all.extend(read_file(&copied));
    }
    all.sort();
    Some(all)
}

#[test]
fn two_compactions_do_not_meet_and_a_commit_waits_for_the_exchange() {
    let Lake { root, _folder, .. } = lake();
    let mut writer = open(sink(&root));
    go_on(&mut writer, 60).unwrap();
    let (reached, wait) = mpsc::channel();
    let (go_on, resume) = mpsc::channel::<()>();
    let resume = std::sync::Mutex::new(resume);
    let once = Arc::new(AtomicBool::new(false));
    let tools = Tools::open(&root).unwrap().failpoints(move |at| {
        if at == "compact.after_links" && !once.swap(true, Ordering::SeqCst) {
            reached.send(()).unwrap();
            resume.lock().unwrap().recv().unwrap();
        }
        Ok(())
    });
    assert!(Tools::open(&root).unwrap_err().to_string().contains("another process verifies"));
    let compaction = std::thread::spawn(move || tools.compact(&closed()).unwrap());
    wait.recv().unwrap();
    // The links are made: a file that came now would be left behind.
    let commit = std::thread::spawn(move || go_on_with(&mut writer, 70));
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!commit.is_finished(), "a commit has moved files meanwhile");
    go_on.send(()).unwrap();
    compaction.join().unwrap();
    commit.join().unwrap();
    whole(&root, 70);
}
