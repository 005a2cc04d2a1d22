//! Files as sources: identity, positions, following (rule D14).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use streamkit::connector::file::FileSource;
use streamkit::connector::{RawRecord, ReadBatch, ReadStatus, Source, SplitReader, Wake};
use streamkit::{ErrorKind, Split};

type Reader = Box<dyn SplitReader<Item = RawRecord>>;

fn no_wake() -> Wake {
    Wake::new(|| {})
}

fn bounded(path: &Path) -> (FileSource, Split) {
    let source = FileSource::new([path]).bounded(true);
    let split = source.splits(&[]).unwrap().remove(0);
    (source, split)
}

/// Reads until there is nothing more at hand; checks what every read must hold to.
fn drain(reader: &mut Reader, from: u64, max: usize) -> (Vec<Vec<u8>>, ReadStatus) {
    let (mut lines, mut next) = (vec![], from);
    loop {
        let mut batch = ReadBatch::default();
        let status = reader.read(&mut batch, max).unwrap();
        assert!(batch.len() <= max);
        for (offset, raw) in batch.iter() {
            assert_eq!((offset, raw.offset), (next, next));
            assert_eq!(raw.key, None);
            lines.push(raw.value.as_ref().unwrap().to_vec());
            next += 1;
        }
        assert_eq!(batch.next(), if batch.is_empty() { 0 } else { next });
        if status != ReadStatus::More {
            return (lines, status);
        }
    }
}

fn read_to_end(source: &FileSource, split: &Split, from: u64, max: usize) -> Vec<Vec<u8>> {
    let mut reader = source.open(split, from, no_wake()).unwrap();
    let (lines, status) = drain(&mut reader, from, max);
    assert_eq!(status, ReadStatus::Ended);
    assert_eq!(reader.lag().unwrap_or(0), 0);
    lines
}

const CONTENTS: &[(&[u8], &[&[u8]])] = &[
    (b"", &[]),
    (b"\n", &[b""]),
    (b"\r\n", &[b""]),
    (b"a", &[b"a"]),
    (b"a\r", &[b"a\r"]),
    (b"a\n", &[b"a"]),
    (b"a\nb", &[b"a", b"b"]),
    (b"a\r\n\r\n\nb\rc\r\r\nd", &[b"a", b"", b"", b"b\rc\r", b"d"]),
    (b"\n\n\n", &[b"", b"", b""]),
    (b"\xff\x00\n\xe2\x82", &[b"\xff\x00", b"\xe2\x82"]),
];

#[test]
fn d14_lines_end_and_resume_at_each_position() {
    let folder = tempfile::tempdir().unwrap();
    for (i, (content, lines)) in CONTENTS.iter().enumerate() {
        let path = folder.path().join(format!("{i}.jsonl"));
        fs::write(&path, content).unwrap();
        let (source, split) = bounded(&path);
        assert_eq!(source.start(&split).unwrap(), 0);
        assert_eq!(source.end(&split).unwrap(), lines.len() as u64, "content {i}");
        for from in 0..=lines.len() {
            for max in [1, 2, 100] {
                let read = read_to_end(&source, &split, from as u64, max);
                assert_eq!(read, lines[from..], "content {i} from {from}");
            }
        }
        let error = source.open(&split, lines.len() as u64 + 1, no_wake()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains("it was truncated"), "{error}");
    }
}

#[test]
fn lines_longer_than_an_arena_and_many_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut lines: Vec<Vec<u8>> = (0..20_000).map(|i| format!("line {i}").into_bytes()).collect();
    lines.insert(7, vec![b'x'; 5 << 20]);
    lines.push(vec![b'y'; (3 << 20) + 1]);
    fs::write(&path, lines.join(&b'\n')).unwrap();
    let (source, split) = bounded(&path);
    assert_eq!(source.end(&split).unwrap(), lines.len() as u64);
    for from in [0, 7, 8, 15_000, lines.len() - 1, lines.len()] {
        assert!(read_to_end(&source, &split, from as u64, 4_096) == lines[from..], "from {from}");
    }
    let source = source.max_line_bytes(1 << 20);
    let mut reader = source.open(&split, 0, no_wake()).unwrap();
    let error = loop {
        match reader.read(&mut ReadBatch::default(), 100) {
            Ok(status) => assert_eq!(status, ReadStatus::More),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("line 7 (the first is 0)"), "{error}");
}

#[test]
fn d14_ids_memos_and_numbers_survive_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = ["b", "a", "c"].map(|n| folder.path().join(n)).to_vec();
    for path in &paths {
        fs::write(path, format!("{}\n", path.display())).unwrap();
    }
    let first = FileSource::new(&paths[..2]).splits(&[]).unwrap();
    assert_eq!(
        first.iter().map(|s| (&*s.topic, s.partition)).collect::<Vec<_>>(),
        [("b", 0), ("a", 1)]
    );
    File::options().append(true).open(&paths[0]).unwrap().write_all(b"more\n").unwrap();
    // Another order, and one more file.
    let order = [&paths[2], &paths[1], &paths[0]];
    let again = FileSource::new(order).splits(&first).unwrap();
    assert_eq!(again[1..], [first[1].clone(), first[0].clone()]);
    assert_eq!((&*again[0].topic, again[0].partition), ("c", 2));
    // A file that is not read any more keeps its number.
    fs::write(folder.path().join("d"), "").unwrap();
    let more = FileSource::new([folder.path().join("d")]).splits(&again).unwrap();
    assert_eq!(more[0].partition, 3);
}

#[test]
fn d14_a_changed_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "one\ntwo\n").unwrap();
    let (source, split) = bounded(&path);
    fs::write(&path, "0ne\ntwo\nthree\n").unwrap();
    let error = source.splits(std::slice::from_ref(&split)).unwrap_err();
    assert!(error.to_string().contains("is not the file that this job has read before"), "{error}");
    assert!(source.open(&split, 0, no_wake()).is_err());
    assert!(source.end(&split).is_err());
}

#[test]
fn inputs_that_cannot_be_read_are_named_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let check = |paths: Vec<&Path>, text: &str| {
        let error = FileSource::new(paths).splits(&[]).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    };
    check(vec![], "no input file");
    check(vec![&missing], "missing");
    check(vec![folder.path()], "not a regular file");
    fs::write(&missing, "").unwrap();
    check(vec![&missing, &folder.path().join(".").join("missing")], "given twice");
}

/// Waits until the source has called, as the runtime would.
struct Follow {
    reader: Reader,
    wakes: mpsc::Receiver<()>,
    next: u64,
}

impl Follow {
    fn new(source: &FileSource, split: &Split, next: u64) -> Self {
        let (woken, wakes) = mpsc::sync_channel(1);
        let wake = Wake::new(move || {
            let _ = woken.try_send(());
        });
        Self { reader: source.open(split, next, wake).unwrap(), wakes, next }
    }

    fn lines(&mut self) -> Vec<String> {
        let (lines, status) = drain(&mut self.reader, self.next, 3);
        assert_eq!(status, ReadStatus::CaughtUp);
        assert_eq!(self.reader.lag(), Some(0));
        self.next += lines.len() as u64;
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    fn woken(&mut self) {
        self.wakes.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    fn error(&mut self) -> String {
        self.woken();
        self.reader.read(&mut ReadBatch::default(), 9).unwrap_err().to_string()
    }
}

#[test]
fn d14_a_growing_file_is_followed_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "").unwrap();
    let source = FileSource::new([&path]);
    let split = source.splits(&[]).unwrap().remove(0);
    let mut file = File::options().append(true).open(&path).unwrap();
    let mut follow = Follow::new(&source, &split, 0);
    assert!(follow.lines().is_empty());
    for (piece, lines) in [
        ("a\nb", vec!["a"]),
        ("c", vec![]),
        ("d\r", vec![]),
        ("\n", vec!["bcd"]),
        ("1\n2\n3\n4\n5\n6\n7\ntail", vec!["1", "2", "3", "4", "5", "6", "7"]),
    ] {
        file.write_all(piece.as_bytes()).unwrap();
        follow.woken();
        assert_eq!(follow.lines(), lines);
        assert!(follow.lines().is_empty());
    }
    drop(follow);
    // A reader that comes later finds the same, and waits for the same line.
    let mut later = Follow::new(&source, &split, 8);
    assert_eq!(later.lines(), ["7"]);
    file.write_all(b" end\n").unwrap();
    later.woken();
    assert_eq!(later.lines(), ["tail end"]);
}

#[test]
fn d14_the_last_line_of_a_bounded_run_is_not_read_again_when_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "one\ntwo").unwrap();
    let (source, split) = bounded(&path);
    assert_eq!(read_to_end(&source, &split, 0, 9), [b"one", b"two"]);
    let mut follow = Follow::new(&source.bounded(false), &split, 2);
    assert!(follow.lines().is_empty());
    File::options().append(true).open(&path).unwrap().write_all(b"\nthree\n").unwrap();
    follow.woken();
    assert_eq!(follow.lines(), ["three"]);
}

#[test]
fn d14_a_followed_file_that_is_cut_replaced_or_removed_stops_the_job() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 4] = [
        (|path| File::options().write(true).open(path).unwrap().set_len(9).unwrap(), "truncated"),
        (|path| fs::write(path, "another file, and longer too\n").unwrap(), "is not the file"),
        (|path| fs::remove_file(path).unwrap(), "was removed"),
        (
            |path| {
                fs::copy(path, path.with_extension("new")).unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            "was replaced",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (i, (change, text)) in changes.into_iter().enumerate() {
        let path = folder.path().join(format!("{i}"));
        fs::write(&path, "head\n").unwrap();
        let source = FileSource::new([&path]);
        let split = source.splits(&[]).unwrap().remove(0);
        fs::write(&path, "head\nand more\n").unwrap();
        let mut follow = Follow::new(&source, &split, 1);
        assert_eq!(follow.lines(), ["and more"]);
        change(&path);
        let error = follow.error();
        assert!(error.contains(text), "{text}: {error}");
    }
}

#[cfg(feature = "gzip")]
mod packed {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn pack(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(vec![], Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn d14_a_packed_file_is_read_once_member_by_member() {
        let folder = tempfile::tempdir().unwrap();
        for (i, (content, lines)) in CONTENTS.iter().enumerate() {
            let path = folder.path().join(format!("{i}.jsonl.gz"));
            let (left, right) = content.split_at(content.len() / 2);
            fs::write(&path, [pack(left), pack(right)].concat()).unwrap();
            // Not bounded: a packed file ends all the same.
            let source = FileSource::new([&path]);
            let split = source.splits(&[]).unwrap().remove(0);
            assert_eq!(source.end(&split).unwrap(), lines.len() as u64);
            for from in 0..=lines.len() {
                assert_eq!(read_to_end(&source, &split, from as u64, 2), lines[from..]);
            }
        }
    }

    #[test]
    fn a_damaged_packed_file_gives_the_lines_before_the_damage_and_names_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        let content: String = (0..50_000).map(|i| format!("line {i} {}\n", i * 7_919)).collect();
        let packed = pack(content.as_bytes());
        fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        let source = FileSource::new([&path]);
        let split = source.splits(&[]).unwrap().remove(0);
        let mut reader = source.open(&split, 0, no_wake()).unwrap();
        let mut lines = 0;
        let error = loop {
            let mut batch = ReadBatch::default();
            match reader.read(&mut batch, 1_000) {
                Ok(_) => lines += batch.len(),
                Err(error) => break error,
            }
        };
        assert!(lines > 10_000, "{lines}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&format!("line {lines} (the first is 0)")), "{error}");
        assert!(source.end(&split).is_err());
    }
}
