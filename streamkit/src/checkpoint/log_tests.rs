//! The log as a whole: two processes, damage, rollback, retention; in memory and in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::record::SplitId;
use crate::state::{Change, Changes, Entries};
use crate::time::{Timestamp, minutes};

/// A place for logs, and the runtime that they use.
struct World {
    runtime: Runtime,
    root: TempDir,
    location: Location,
}

impl World {
    fn memory() -> Self {
        Self { location: Location::Memory(Arc::new(InMemory::new())), ..Self::directory() }
    }

    fn directory() -> Self {
        let root = TempDir::new().unwrap();
        let location = Location::Directory(root.path().join("not/there/yet"));
        Self { runtime: Runtime::new().unwrap(), root, location }
    }

    fn open(&self) -> CheckpointLog {
        self.open_job("job")
    }

    fn open_job(&self, job: &str) -> CheckpointLog {
        CheckpointLog::open(self.location.clone(), job, self.runtime.handle().clone()).unwrap()
    }

    /// A process that has recovered, with what it found.
    fn start(&self) -> (CheckpointLog, Option<Recovered>) {
        let mut log = self.open();
        let recovered = log.recover(|_| true).unwrap();
        (log, recovered)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join("not/there/yet/job").join(name)
    }
}

fn at(minute: u64) -> Timestamp {
    Timestamp::from_micros(0).saturating_add(minutes(minute))
}

fn idle(n: u64) -> Fact {
    Fact::Idle { split: SplitId::new(format!("t/{n}")), at: n }
}

/// The checkpoint that the log wants next: entry `number` of operator "o", and every earlier one if
/// it is a base.
fn next(log: &CheckpointLog) -> Checkpoint {
    let number = log.next_number();
    let base = log.base().filter(|_| !log.next_is_base()).unwrap_or(number);
    let first = if base == number { 0 } else { number };
    Checkpoint {
        manifest: Manifest {
            format: FORMAT,
            job: "job".into(),
            lineage: "lineage".into(),
            number,
            base,
            created: at(number * 10),
            plan: vec![],
            splits: vec![],
            idle: vec![],
            facts: (1..=log.last_fact()).map(idle).collect(),
            facts_through: log.last_fact(),
            watermark: Timestamp::MIN,
            confirmed: BTreeMap::from([(
                "sink".into(),
                Confirmed { w: Some(at(number)), has_progress: true },
            )]),
            counted: BTreeMap::new(),
        },
        changes: vec![("o".into(), puts(first, number))],
    }
}

fn puts(first: u64, last: u64) -> Changes {
    let keys: Vec<[u8; 8]> = (first..=last).map(u64::to_be_bytes).collect();
    keys.iter().map(|key| Change::Put { group: 0, key, value: &[1] }).collect()
}

fn append(log: &mut CheckpointLog) -> Result<u64> {
    log.append_checkpoint(next(log))
}

fn append_many(log: &mut CheckpointLog, n: u64) {
    for _ in 0..n {
        append(log).unwrap();
    }
}

/// The state that [`next`] has built up to this checkpoint.
fn state_at(number: u64) -> BTreeMap<String, Entries> {
    let mut entries = Entries::default();
    entries.add_base(puts(0, number));
    BTreeMap::from([("o".into(), entries)])
}

#[test]
fn a_new_process_goes_on_where_the_last_one_was() {
    for world in [World::memory(), World::directory()] {
        for number in 0..30 {
            let (mut log, recovered) = world.start();
            assert_eq!(recovered.is_some(), number > 0);
            if let Some(recovered) = recovered {
                assert_eq!(recovered.newest, number - 1);
                assert_eq!(recovered.state, state_at(number - 1));
                assert_eq!(recovered.facts, (1..=number).map(idle).collect::<Vec<_>>());
            }
            assert!(append(&mut log).unwrap() > 0);
            assert_eq!(log.append_fact(&idle(number + 1)).unwrap(), number + 1);
        }
        let manifests = world.open().manifests().unwrap();
        assert!(manifests.iter().map(|m| m.number).eq(0..30));
        let bases = manifests.iter().filter(|m| m.is_base()).count();
        assert!((2..20).contains(&bases), "{bases}: neither never nor always a base");
    }
}

#[test]
fn d7_the_state_is_of_the_one_that_fits_and_the_facts_are_of_the_newest() {
    let world = World::memory();
    let (mut log, _) = world.start();
    for number in 0..6 {
        append(&mut log).unwrap();
        log.append_fact(&idle(number + 1)).unwrap();
    }
    assert!(!log.next_is_base());
    let restored_from_backup = |m: &Manifest| m.confirmed["sink"].w <= Some(at(3));
    let recovered = log.recover(restored_from_backup).unwrap().unwrap();
    assert_eq!((recovered.manifest.number, recovered.newest), (3, 5));
    assert_eq!(recovered.state, state_at(3));
    assert_eq!(recovered.facts, (1..=6).map(idle).collect::<Vec<_>>());
    assert!(log.next_is_base(), "an increment would build on 5, and the state is that of 3");
    assert_eq!((log.next_number(), log.base()), (6, None));
    append(&mut log).unwrap();
    let error = world.open().recover(|_| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.to_string().contains("sink: everything up to 1970"), "{error}");
}

#[test]
fn d8_of_two_processes_the_one_that_comes_second_stops() {
    for world in [World::memory(), World::directory()] {
        let ((mut one, _), (mut two, _)) = (world.start(), world.start());
        append(&mut one).unwrap();
        let error = append(&mut two).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.to_string().contains("another process runs job \"job\""), "{error}");
        assert_eq!(append(&mut two).unwrap_err().kind(), ErrorKind::Fenced, "and stays fenced");

        let (mut two, _) = world.start();
        one.append_fact(&idle(1)).unwrap();
        assert_eq!(two.append_fact(&idle(2)).unwrap_err().kind(), ErrorKind::Fenced);

        let (mut two, recovered) = world.start();
        assert_eq!(recovered.unwrap().facts, [idle(1)]);
        append(&mut two).unwrap();
        // Its own number is free, but the checkpoint is newer than what it knows.
        assert_eq!(one.append_fact(&idle(3)).unwrap_err().kind(), ErrorKind::Fenced);
    }
}

#[test]
fn d8_a_process_that_slept_until_its_number_was_collected_is_fenced() {
    let world = World::memory();
    let (mut asleep, _) = world.start();
    append(&mut asleep).unwrap();
    let (mut awake, _) = world.start();
    append_many(&mut awake, 400);
    awake.collect_garbage(at(400 * 10)).unwrap();
    assert!(world.open().manifests().unwrap()[0].number > 1, "number 1 is free");
    assert_eq!(append(&mut asleep).unwrap_err().kind(), ErrorKind::Fenced);
    let error = asleep.collect_garbage(at(400 * 10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "nor may it remove anything");
    append(&mut awake).unwrap();
    let recovered = world.start().1.unwrap();
    assert_eq!((recovered.newest, recovered.state), (401, state_at(401)));
}

#[test]
fn a_damaged_newest_checkpoint_is_named_and_never_passed_over() {
    let world = World::directory();
    let (mut log, _) = world.start();
    append_many(&mut log, 4);
    assert_eq!(log.base(), Some(2), "3 is an increment");
    let (newest, older) =
        (world.file("checkpoint-0000000003"), world.file("checkpoint-0000000002"));
    let whole = fs::read(&newest).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let another = fs::read(&older).unwrap();
    for damaged in [&whole[..0], &whole[..10], &whole[..whole.len() - 1], &flipped, &another] {
        fs::write(&newest, damaged).unwrap();
        let error = world.open().recover(|_| true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("checkpoint-0000000003"), "{error}");
    }
    fs::write(&newest, &whole).unwrap();
    fs::remove_file(&older).unwrap();
    let error = world.open().recover(|_| true).unwrap_err();
    assert!(error.to_string().contains("checkpoint-0000000002 is missing"), "{error}");
}

#[test]
fn damage_to_what_nobody_needs_does_no_harm() {
    let world = World::directory();
    let (mut log, _) = world.start();
    while log.base() != Some(2) {
        append(&mut log).unwrap();
    }
    fs::write(world.file("checkpoint-0000000000"), "damaged").unwrap();
    let (mut log, recovered) = world.start();
    assert_eq!(recovered.unwrap().newest, 2);
    // A job asks for these at its start, and would not start otherwise.
    let left: Vec<u64> = world.open().manifests().unwrap().iter().map(|m| m.number).collect();
    assert_eq!(left, [1, 2]);
    let newest = world.file("checkpoint-0000000002");
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, "damaged").unwrap();
    let error = world.open().manifests().unwrap_err().to_string();
    assert!(error.contains("checkpoint-0000000002 cannot be used"), "{error}");
    fs::write(&newest, whole).unwrap();
    append_many(&mut log, 40);
    log.collect_garbage(at(100_000)).unwrap();
    assert!(world.file("checkpoint-0000000000").exists(), "for a person to look at");
    assert!(!world.file("checkpoint-0000000002").exists());
}

#[test]
fn what_a_crash_leaves_is_never_taken_for_an_object() {
    let world = World::directory();
    let (mut log, _) = world.start();
    log.collect_garbage(at(0)).unwrap();
    append(&mut log).unwrap();
    let part = &fs::read(world.file("checkpoint-0000000000")).unwrap()[..50];
    for name in ["checkpoint-0000000001#1", "facts-0000000001#1", "checkpoint-0000000009.tmp", "x"]
    {
        fs::write(world.file(name), part).unwrap();
    }
    fs::create_dir(world.file("checkpoint-0000000007")).unwrap();
    let (mut log, recovered) = world.start();
    assert_eq!(recovered.unwrap().newest, 0);
    append(&mut log).unwrap();
    log.append_fact(&idle(1)).unwrap();
    assert_eq!(world.start().1.unwrap().newest, 1);
    fs::write(world.file("checkpoint-0000000002#1"), part).unwrap();
    log.collect_garbage(at(0)).unwrap();
    let is_there = |name| world.file(name).exists();
    assert!(!is_there("checkpoint-0000000001#1") && !is_there("facts-0000000001#1"));
    assert!(is_there("checkpoint-0000000002#1"), "perhaps somebody writes it just now");
    assert!(is_there("checkpoint-0000000009.tmp") && is_there("x"), "strangers are left alone");
}

#[test]
fn d1_facts_that_are_missing_or_damaged_stop_the_job() {
    let world = World::directory();
    let (mut log, _) = world.start();
    assert_eq!(log.append_fact(&idle(1)).unwrap_err().kind(), ErrorKind::Internal);
    append(&mut log).unwrap();
    for n in 1..=3 {
        log.append_fact(&idle(n)).unwrap();
    }
    fs::remove_file(world.file("facts-0000000002")).unwrap();
    let error = world.open().recover(|_| true).unwrap_err();
    assert!(error.to_string().contains("facts-0000000002 is missing"), "{error}");
    fs::copy(world.file("facts-0000000003"), world.file("facts-0000000002")).unwrap();
    let error = world.open().recover(|_| true).unwrap_err();
    assert!(error.to_string().contains("facts-0000000002 is number 3"), "{error}");
    fs::remove_file(world.file("checkpoint-0000000000")).unwrap();
    let error = world.open().recover(|_| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("checkpoints were removed"), "{error}");
}

#[test]
fn d7_collecting_keeps_a_day_and_everything_that_it_builds_on() {
    let world = World::memory();
    let (mut log, _) = world.start();
    log.collect_garbage(at(0)).unwrap();
    for number in 0..300 {
        append(&mut log).unwrap();
        log.append_fact(&idle(number + 1)).unwrap();
        log.collect_garbage(at(number * 10)).unwrap();
    }
    let manifests = world.open().manifests().unwrap();
    assert!(manifests.len() < 100, "{}", manifests.len());
    for hour in 0..24 {
        // A sink that was restored from a backup of that time.
        let minute = 2_990 - hour * 60;
        let (mut log, fits) = (world.open(), |m: &Manifest| m.created <= at(minute));
        let recovered = log.recover(fits).unwrap().unwrap();
        assert_eq!(recovered.state, state_at(recovered.manifest.number));
        assert!(recovered.manifest.created >= at(minute - 60));
        assert_eq!(recovered.facts.len(), 300);
    }
}

#[test]
fn a_checkpoint_that_cannot_be_the_next_is_refused() {
    let world = World::memory();
    let refused = |log: &mut CheckpointLog, change: fn(&mut Manifest)| {
        let mut checkpoint = next(log);
        change(&mut checkpoint.manifest);
        log.append_checkpoint(checkpoint).unwrap_err().kind() == ErrorKind::Internal
    };
    assert!(refused(&mut world.open(), |_| ()), "nothing was recovered yet");
    let (mut log, _) = world.start();
    append(&mut log).unwrap();
    assert!(refused(&mut log, |m| m.number += 1));
    assert!(refused(&mut log, |m| m.number -= 1));
    assert!(refused(&mut log, |m| m.base = 7));
    assert!(refused(&mut log, |m| m.job = "another".into()));
    assert!(refused(&mut log, |m| m.facts_through += 1));
    append(&mut log).unwrap();
}

#[test]
fn any_name_of_a_job_is_one_folder_below_the_root() {
    let world = World::directory();
    for job in ["..", "a/../../b", "a b", "ä#1", "%2E", "a"] {
        let mut log = world.open_job(job);
        assert!(log.recover(|_| true).unwrap().is_none(), "{job}");
        let mut checkpoint = next(&log);
        checkpoint.manifest.job = job.into();
        log.append_checkpoint(checkpoint).unwrap();
        assert_eq!(world.open_job(job).recover(|_| true).unwrap().unwrap().newest, 0, "{job}");
    }
    let folders = fs::read_dir(world.root.path().join("not/there/yet")).unwrap().count();
    assert_eq!(folders, 6);
    assert_eq!(fs::read_dir(world.root.path()).unwrap().count(), 1);
    let open =
        |job| CheckpointLog::open(world.location.clone(), job, world.runtime.handle().clone());
    assert_eq!(open("").unwrap_err().kind(), ErrorKind::User);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_of_the_disk() {
    let world = World::directory();
    let (mut log, _) = world.start();
    fs::write(world.root.path().join("not/there/yet/job"), "a file").unwrap();
    assert_eq!(append(&mut log).unwrap_err().kind(), ErrorKind::External);
}
