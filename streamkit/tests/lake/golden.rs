//! A lake as version 1 of its format has made it (F81): today's code finds it whole, and goes on.

use std::fs;
use std::path::{Path, PathBuf};

use streamkit::connector::parquet::Lake as Tools;

use super::support::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1-lake")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Made the golden lake of version 1. It stays as it is: a later format gets a folder of its own.
#[test]
#[ignore = "it writes golden files"]
fn write_golden_lake() {
    go_on(&mut open(sink(&golden().join("lake"))), 20).unwrap();
}

#[test]
fn f81_a_lake_of_version_1_is_whole_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden(), folder.path());
    let root = folder.path().join("lake");
    let whole = |rows| {
        let found = Tools::open(&root).unwrap().verify().unwrap();
        assert_eq!((found.problems, found.rows), (vec![], rows));
        assert_eq!(read(&root), expected(rows));
    };
    whole(20);
    go_on(&mut open(sink(&root)), 50).unwrap();
    whole(50);
}
