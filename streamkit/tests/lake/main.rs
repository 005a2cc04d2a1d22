//! The lake: what is in the files, and what a crash, a second process or a person may do to them.
#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../disk/mod.rs"]
mod disk;
mod faults;
mod golden;
mod jobs;
mod support;
mod tools;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use streamkit::ErrorKind;
use streamkit::connector::parquet::LakeSink;
use streamkit::connector::{Claim, Commit, Sink, SinkOptions};
use streamkit::time::Timestamp;
use support::*;

#[test]
fn the_types_are_those_that_every_reader_understands() {
    let Lake { root, staging, _folder } = lake();
    let mut writer = open(sink(&root).schema_version(3));
    assert_eq!(writer.recover(&claim("L")).unwrap(), None);
    writer.write(&rows(0..12)).unwrap();
    assert_eq!(files(&root), Vec::<PathBuf>::new(), "nothing is visible before the commit");
    assert_eq!(writer.commit(&progress(12)).unwrap(), Commit::Done);
    assert_eq!(read(&root), expected(12));
    assert_eq!(files(&staging.join("parts")), Vec::<PathBuf>::new());

    let paths = files(&root);
    let folders: Vec<_> = paths.iter().map(|p| p.parent().unwrap().file_name().unwrap()).collect();
    assert_eq!(
        folders,
        ["event_date=2024-10-04", "event_date=2024-10-05", "event_date=2024-10-06"]
    );
    let name = paths[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("part-00002-0-"), "{name}");

    let reader = SerializedFileReader::new(File::open(&paths[0]).unwrap()).unwrap();
    let file = reader.metadata().file_metadata();
    assert!(file.created_by().unwrap().starts_with("streamkit version "));
    let metadata: Vec<_> = file.key_value_metadata().unwrap().iter().collect();
    assert_eq!(metadata.len(), 1);
    assert_eq!(metadata[0].key, "streamkit.schema_version");
    assert_eq!(metadata[0].value.as_deref(), Some("3"));
    let schema = file.schema_descr();
    let columns: Vec<_> = schema
        .columns()
        .iter()
        .map(|c| (c.name(), c.physical_type(), c.self_type().get_basic_info().repetition()))
        .collect();
    let (required, optional) = (Repetition::REQUIRED, Repetition::OPTIONAL);
    assert_eq!(
        columns,
        [
            ("event_time", Type::INT64, required),
            ("user_id", Type::BYTE_ARRAY, required),
            ("page_url", Type::BYTE_ARRAY, optional),
            ("source_partition", Type::INT32, required),
            ("source_offset", Type::INT64, required),
        ]
    );
    let utc_micros = LogicalType::timestamp(true, TimeUnit::MICROS);
    assert_eq!(schema.column(0).logical_type_ref(), Some(&utc_micros));
    assert_eq!(schema.column(1).logical_type_ref(), Some(&LogicalType::String));
    for column in reader.metadata().row_group(0).columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)));
    }
}

#[test]
fn f69_f72_a_commit_that_fails_or_is_killed_at_any_step_loses_and_repeats_nothing() {
    for step in [
        "lake.write",
        "lake.after_stage",
        "lake.after_manifest_tmp",
        "lake.after_manifest",
        "lake.after_rename",
    ] {
        for kill in [false, true] {
            for nth in 0..3 {
                let Lake { root, staging, _folder } = lake();
                let passed = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&passed);
                let mut writer = open(sink(&root).failpoints(move |at| {
                    if at == step && count.fetch_add(1, Ordering::Relaxed) == nth {
                        return Err(io::Error::from(io::ErrorKind::StorageFull));
                    }
                    Ok(())
                }));
                let mut failures = 0;
                // The claim is a manifest, too.
                let mut recovered = writer.recover(&claim("L"));
                if let Err(error) = &recovered {
                    assert!(error.is_retriable(), "{step}: {error}");
                    failures += 1;
                    recovered = writer.recover(&claim("L"));
                }
                let mut next = recovered.unwrap().map_or(0, |p| p.rows);
                while next < 30 {
                    writer.write(&rows(next..next + 5)).unwrap();
                    writer.write(&rows(next + 5..next + 10)).unwrap();
                    next += 10;
                    // What a runtime does for a sink without kept rows: the same commit again.
                    while let Some(error) = not_done(writer.commit(&progress(next))) {
                        assert!(error.is_retriable(), "{step}: {error}");
                        failures += 1;
                        // What is visible is whole, whatever is missing.
                        files(&root).iter().for_each(|path| drop(read_file(path)));
                        if kill {
                            drop(writer);
                            writer = open(sink(&root));
                            next = writer.recover(&claim("L")).unwrap().map_or(0, |p| p.rows);
                            break;
                        }
                    }
                }
                assert_eq!(failures, 1, "{step} {kill} {nth}");
                assert_eq!(read(&root), expected(30), "{step} {kill} {nth}");
                assert_eq!(files(&staging.join("parts")), Vec::<PathBuf>::new());
            }
        }
    }
}

#[test]
fn rows_without_a_commit_are_swept_and_come_again() {
    let Lake { root, staging, _folder } = lake();
    // One open file, so that those of two dates are complete.
    go_on(&mut open(sink(&root)), 10).unwrap();
    let mut writer = open(sink(&root).open_dates(1));
    writer.recover(&claim("L")).unwrap();
    writer.write(&rows(10..10_000)).unwrap();
    drop(writer);
    assert_eq!(files(&staging.join("parts")).len(), 2);
    let mut writer = open(sink(&root));
    assert_eq!(writer.recover(&claim("L")).unwrap(), Some(progress(10)));
    assert_eq!(files(&staging.join("parts")).len(), 0);
    assert_eq!(read(&root), expected(10));
    // Progress alone: no file.
    assert_eq!(writer.commit(&progress(11)).unwrap(), Commit::Done);
    assert_eq!(writer.recover(&claim("L")).unwrap(), Some(progress(11)));
    assert_eq!(files(&root).len(), 3);
}

#[test]
fn d8_a_second_process_is_refused_or_takes_over_and_never_both_commit() {
    let Lake { root, staging, _folder } = lake();
    let mut first = open(sink(&root));
    go_on(&mut first, 10).unwrap();
    first.write(&rows(10..20)).unwrap();
    let mut second = open(sink(&root));
    let error = second.recover(&claim("L")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("another process writes to the lake"), "{error}");

    let take_over = Claim { take_over: true, ..claim("L") };
    assert_eq!(second.recover(&take_over).unwrap(), Some(progress(10)));
    let error = first.commit(&progress(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    second.write(&rows(10..30)).unwrap();
    assert_eq!(second.commit(&progress(30)).unwrap(), Commit::Done);
    assert_eq!(read(&root), expected(30));

    // Without working locks it is as if all took over, and the last one wins.
    fs::remove_file(staging.join("locks/lake.lock")).unwrap();
    let mut third = open(sink(&root));
    assert_eq!(third.recover(&claim("L")).unwrap(), Some(progress(30)));
    assert_eq!(second.commit(&progress(30)).unwrap_err().kind(), ErrorKind::Fenced);
}

#[test]
fn d6_a_lake_of_another_lineage_is_refused_naming_both() {
    let Lake { root, _folder, .. } = lake();
    // Claimed, and nothing committed: not theirs yet.
    open(sink(&root)).recover(&claim("earlier")).unwrap();
    let mut writer = open(sink(&root));
    assert_eq!(writer.recover(&claim("mine")).unwrap(), None);
    writer.commit(&progress(0)).unwrap();
    drop(writer);
    let error = open(sink(&root)).recover(&claim("other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("mine") && error.to_string().contains("other"), "{error}");
}

#[test]
fn r6_a_committed_file_that_is_nowhere_stops_the_job_unless_it_was_in_place_before() {
    let Lake { root, staging, _folder } = lake();
    let mut writer = open(sink(&root).failpoints(|at| match at {
        "lake.after_rename" => Err(io::ErrorKind::Other.into()),
        _ => Ok(()),
    }));
    go_on(&mut writer, 10).unwrap_err();
    drop(writer);
    let waiting = files(&staging.join("parts"));
    assert_eq!((files(&root).len(), waiting.len()), (1, 2));
    let content = fs::read(&waiting[0]).unwrap();
    let error = |text: &str| {
        let error = open(sink(&root)).recover(&claim("L")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(text), "{text}: {error}");
    };
    fs::remove_file(&waiting[0]).unwrap();
    error("was committed, and neither it nor");
    fs::write(&waiting[0], &content[1..]).unwrap();
    error("bytes instead of");
    fs::write(&waiting[0], &content).unwrap();
    let name = waiting[1].file_name().unwrap().to_str().unwrap();
    let target = root.join(format!("event_date={}", &name[..10])).join(&name[11..]);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(&target, "").unwrap();
    error("is there as well");
    fs::remove_file(&target).unwrap();
    go_on(&mut open(sink(&root)), 10).unwrap();
    assert_eq!(read(&root), expected(10));
    // From now on the files belong to people, who may compact or delete them.
    fs::remove_dir_all(&root).unwrap();
    go_on(&mut open(sink(&root)), 20).unwrap();
    assert_eq!(
        read(&root),
        expected(20)[..].iter().filter(|r| r.offset >= 10).cloned().collect::<Vec<_>>()
    );
}

#[test]
fn events_of_many_dates_keep_few_files_open_and_none_is_lost() {
    let Lake { root, staging, _folder } = lake();
    let mut writer = open(sink(&root).open_dates(3));
    writer.recover(&claim("L")).unwrap();
    let mut all = vec![];
    for round in 0..4 {
        let some: Vec<_> =
            (0..50).map(|n| Row { at: FIRST + n % 10 * DAY + round, ..row(n as u64) }).collect();
        all.extend(some.clone());
        writer.write(&batch(some)).unwrap();
        assert!(files(&staging.join("parts")).len() >= 7);
    }
    assert!(!writer.is_full());
    writer.commit(&progress(200)).unwrap();
    let paths = files(&root);
    assert!(paths.iter().any(|p| p.to_str().unwrap().ends_with(".c001.zstd.parquet")));
    let mut read: Vec<_> = paths.iter().flat_map(|p| read_file(p)).collect();
    read.sort();
    all.sort();
    assert!(read == all);
    // A bomb of dates asks for a commit.
    writer.write(&batch((0..300).map(|n| Row { at: n * DAY, ..row(0) }).collect())).unwrap();
    assert!(writer.is_full());
}

#[test]
fn a_file_is_rolled_by_size_or_by_time() {
    let Lake { root, _folder, .. } = lake();
    let options = Sink::<Row>::options(&sink(&root).roll_every(Duration::from_secs(30)));
    let time = Duration::from_secs(30);
    assert_eq!(
        options,
        SinkOptions::default().commit_within(time).note_within(time).without_kept_rows()
    );
    let mut writer = open(sink(&root).roll_at_bytes(100_000));
    writer.recover(&claim("L")).unwrap();
    // Hardly to be compressed.
    let row =
        |n: u64| Row { user: format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), ..row(n) };
    let mut next = 0;
    while !writer.is_full() {
        writer.write(&batch((next..next + 1_000).map(row).collect())).unwrap();
        next += 1_000;
        assert!(next < 100_000);
    }
    writer.commit(&progress(next)).unwrap();
    assert!(!writer.is_full());
    let bytes: u64 = files(&root).iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    assert!((20_000..300_000).contains(&bytes), "{bytes} bytes, {next} rows");
    let mut all: Vec<_> = (0..next).map(row).collect();
    all.sort();
    assert!(read(&root) == all);
}

#[test]
fn mistakes_are_found_at_start() {
    let Lake { root, _folder, .. } = lake();
    let check = |sink: LakeSink<Row>, text: &str| {
        let error = try_open(sink).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains(text), "{error}");
    };
    let bare = || LakeSink::new(&root, |row: &Row| Timestamp::from_micros(row.at));
    check(bare(), "at least one column");
    check(bare().int32("a", |_| 0).int64("a", |_| 0), "two columns named a");
    check(bare().int32("event_date", |_| 0), "is its partition column, too");
    check(bare().int32("a", |_| 0).partition_name("../x"), "cannot be a partition column");
    let mut writer = open(sink(&root));
    writer.recover(&claim("L")).unwrap();
    let error = writer.write(&batch(vec![Row { at: i64::MAX, ..row(0) }])).unwrap_err();
    assert!(error.to_string().contains("10000 or after"), "{error}");
    fs::write(root.join("file"), "").unwrap();
    assert_eq!(try_open(sink(&root.join("file"))).err().unwrap().kind(), ErrorKind::External);
}
