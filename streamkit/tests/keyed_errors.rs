//! Records that an operator behind an exchange fails on: after a restart that looks at them one by
//! one, that operator gives them up, and everything else has them (rule D1, fault F85).

mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{
    Event, Everything, Ids, Role, all_marks, check_conservation, of_late, of_sessions, of_windows,
    sessions, strategy, windowed,
};
use streamkit::JobProgress;
use streamkit::connector::DeadLetter;
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, ScriptedSource, run};

/// In every one of these, record 101 of split 0 and record 250 of split 1 are on time.
const BAD: [u64; 2] = [101, 1_250];
const LATE: u64 = 24;
const SIZE: i64 = 20;

/// Two splits with disorder; every 25th record is late.
fn splits() -> Vec<Vec<Event>> {
    let split = |s: u64| {
        let event = |i: u64| Event {
            time: i as i64 - (i % 3) as i64 * 4 - if i % 25 == LATE { 40 } else { 0 },
            user: format!("u{}", i % 7),
            role: Role::Other,
            id: s * 1_000 + i,
        };
        (0..400).map(event).collect()
    };
    vec![split(0), split(1)]
}

/// [`Ids`], with a function that may panic on a record.
struct Fragile<F>(F);

impl<F: Fn(&Event) + Send + Sync + 'static> Aggregator<Event> for Fragile<F> {
    type Accumulator = Vec<u64>;
    type Output = Vec<u64>;
    fn create(&self) -> Vec<u64> {
        vec![]
    }
    fn add(&self, ids: &mut Vec<u64>, event: &Event) {
        (self.0)(event);
        Ids.add(ids, event);
    }
    fn merge(&self, into: &mut Vec<u64>, from: &Vec<u64>) {
        Ids.merge(into, from);
    }
    fn finish(&self, ids: &Vec<u64>) -> Vec<u64> {
        Ids.finish(ids)
    }
}

/// One of everything, and beside it an aggregate that fails on some records.
#[derive(Clone)]
struct Outputs {
    all: Everything,
    fragile: Collect<Windowed<String, Vec<u64>>>,
    late: Collect<LateRecord<Event>>,
    dead: Collect<DeadLetter>,
    /// Of the sink of dead letters.
    faults: Vec<Fault>,
}

impl Outputs {
    fn new() -> Self {
        let (fragile, late, dead) = (Collect::new(), Collect::new(), Collect::new());
        Self { all: Everything::new(), fragile, late, dead, faults: vec![] }
    }

    fn job(
        &self,
        source: ScriptedSource<Event>,
        fails: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Job {
        let job = Job::new("keyed errors");
        let events = job.source("events", source, strategy());
        events
            .dead_letters()
            .sink("dead letters", FlakySink::new(self.dead.clone(), self.faults.iter().cloned()));
        self.all.build(&events);
        let windows = events.key_by(|e: &Event| e.user.as_str()).window(Tumbling::of(seconds(20)));
        let fragile = windows.aggregate("fragile", Fragile(fails));
        fragile.sink("fragile rows", self.fragile.clone());
        fragile.late().sink("fragile late", self.late.clone());
        job
    }

    /// Everything is as the model has it; the aggregate lacks these records, and nobody else does.
    fn check(&self, progress: &JobProgress, lacks: &[u64]) {
        let all = all_marks(&splits());
        self.all.check(&all);
        let is_left = |m: &&model::Marked| !lacks.contains(&m.event.id);
        let left: Vec<_> = all.iter().filter(is_left).cloned().collect();
        let model = windowed(&left, SIZE, SIZE, 0);
        assert_eq!(of_windows(&self.fragile.rows()), model.results);
        assert!(!model.late.is_empty());
        assert_eq!(of_late(&self.late.rows()), model.late);
        check_conservation(progress);
        assert_eq!((progress.read, progress.accepted), (800, 800));
        assert_eq!(progress.wanted["fragile"], 800 - lacks.len() as u64);
        assert_eq!(progress.wanted["tumbling"], 800);
        assert!(progress.dead_letters.is_empty());
        let given_up = progress.given_up.get("fragile").copied().unwrap_or(0);
        assert_eq!(given_up, lacks.len() as u64);
        let letters = self.dead.rows();
        let position = |letter: &DeadLetter| letter.partition as u64 * 1_000 + letter.offset;
        let about: BTreeSet<u64> = letters.iter().map(position).collect();
        assert_eq!(about, lacks.iter().copied().collect());
        assert_eq!(letters.len(), lacks.len(), "each once");
        for letter in letters {
            assert_eq!(letter.reason, "processing_error");
            assert_eq!(letter.operator.as_deref(), Some("fragile"), "the others have it");
            assert!(
                letter.error.contains("fragile") && letter.error.contains("boom"),
                "{letter:?}"
            );
        }
    }
}

fn fails_on(bad: &[u64]) -> impl Fn(&Event) + Send + Sync + 'static {
    let bad = bad.to_vec();
    move |e: &Event| assert!(!bad.contains(&e.id), "boom")
}

#[test]
fn f85_an_operator_gives_up_the_record_that_it_fails_on_and_nobody_else_does() {
    for workers in [1, 3] {
        for read_size in [usize::MAX, 30] {
            let outputs = Outputs::new();
            let checkpoints = Checkpoints::shared();
            let start = || {
                let source = ScriptedSource::splits(splits()).read_size(read_size);
                let config = RunConfig::new().workers(workers).checkpoints(checkpoints.clone());
                run(outputs.job(source, fails_on(&BAD[..1])), config.checkpoint_interval(millis(2)))
            };
            let first = start().unwrap_err();
            assert!(first.is_retriable() && first.kind() == streamkit::ErrorKind::Record);
            assert!(first.message().contains("boom"), "{first}");
            assert!(first.message().ends_with("looks at them one by one"), "{first}");
            assert!(first.step().unwrap().contains("fragile"), "{first}");
            let second = start().unwrap_err();
            assert_eq!(second.origin(), Some("script/0@101"), "{second}");
            let what = "record script/0@101 is given up for fragile from the next start on";
            assert!(second.is_retriable() && second.message().contains(what), "{second}");
            let progress = start().unwrap();
            outputs.check(&progress, &BAD[..1]);
        }
    }
}

/// Several records, sinks that break in between, and one that is always fed by a reader of its own.
#[test]
fn d1_what_an_operator_has_given_up_stays_so_whatever_happens_in_between() {
    for (workers, near) in [(1, u64::MAX), (3, u64::MAX), (2, 0)] {
        for fault in [Fault::BreakCommit(2), Fault::BreakAfterCommit(1), Fault::BreakAfterCommit(2)]
        {
            let mut outputs = Outputs::new();
            let checkpoints = Checkpoints::shared();
            let mut ended = None;
            let mut n = 0;
            while ended.is_none() {
                n += 1;
                assert!(n < 12, "it never ends");
                // The sinks break in every second run, dead letters and rows in turn.
                outputs.all.faults.clear();
                outputs.faults.clear();
                match n % 4 {
                    2 => outputs.faults = vec![fault.clone()],
                    0 => outputs.all.faults = vec![("tumbling rows", fault.clone())],
                    _ => {}
                }
                let source = ScriptedSource::splits(splits()).read_size(40);
                let config = RunConfig::new().workers(workers).checkpoints(checkpoints.clone());
                let config = config.checkpoint_interval(millis(1)).catch_up_beyond(near);
                ended = run(outputs.job(source, fails_on(&BAD)), config).ok();
            }
            outputs.check(&ended.unwrap(), &BAD);
        }
    }
}

#[test]
fn d1_a_record_stays_given_up_when_the_operator_has_been_mended() {
    let mut outputs = Outputs::new();
    let checkpoints = Checkpoints::shared();
    let bad: [&[u64]; 4] = [&BAD[..1], &BAD[..1], &[], &[]];
    let mut last = None;
    for (n, bad) in bad.into_iter().enumerate() {
        // What had the letter is broken when it has it.
        outputs.faults = if n == 2 { vec![Fault::BreakAfterCommit(1)] } else { vec![] };
        let source = ScriptedSource::splits(splits());
        let config = RunConfig::new().workers(2).checkpoints(checkpoints.clone());
        last = Some(run(outputs.job(source, fails_on(bad)), config));
    }
    outputs.check(&last.unwrap().unwrap(), &BAD[..1]);
}

#[test]
fn f85_a_failure_that_does_not_come_again_loses_nothing() {
    let outputs = Outputs::new();
    let checkpoints = Checkpoints::shared();
    let tries = Arc::new(AtomicU64::new(0));
    let start = || {
        let tries = Arc::clone(&tries);
        let once = move |e: &Event| {
            assert!(e.id != BAD[0] || tries.fetch_add(1, Ordering::SeqCst) > 0, "boom");
        };
        let config = RunConfig::new().workers(2).checkpoints(checkpoints.clone());
        run(outputs.job(ScriptedSource::splits(splits()), once), config)
    };
    assert!(start().unwrap_err().message().contains("one by one"));
    let facts = || {
        let inspector = checkpoints.inspect("keyed errors").unwrap();
        format!("{:?}", inspector.show(None).unwrap().unwrap().facts)
    };
    assert!(facts().contains("Suspect"));
    outputs.check(&start().unwrap(), &[]);
    assert!(!facts().contains("Suspect"), "the checkpoint has the records");
}

#[test]
fn without_dead_letters_nothing_is_given_up_and_the_record_is_named() {
    let rows = Collect::new();
    let checkpoints = Checkpoints::shared();
    for looks in 0..3 {
        let job = Job::new("no dead letters");
        let events = job.source("events", ScriptedSource::splits(splits()), strategy());
        let windows = events.key_by(|e: &Event| e.user.as_str()).window(Tumbling::of(seconds(20)));
        windows.aggregate("fragile", Fragile(fails_on(&BAD[..1]))).sink("rows", rows.clone());
        let error = run(job, RunConfig::new().checkpoints(checkpoints.clone())).unwrap_err();
        assert_eq!(error.is_retriable(), looks == 0, "{error}");
        if looks > 0 {
            assert_eq!(error.origin(), Some("script/0@101"));
            assert!(!error.message().contains("given up"), "{error}");
        }
    }
}

/// A record that an operator fails on without a panic, and sessions instead of windows.
#[test]
fn f85_sessions_give_a_record_up_as_well() {
    let (rows, dead) = (Collect::new(), Collect::new());
    let checkpoints = Checkpoints::shared();
    let mut ended = None;
    for _ in 0..3 {
        let job = Job::new("sessions");
        let events = job.source("events", ScriptedSource::splits(splits()), strategy());
        events.dead_letters().sink("dead letters", dead.clone());
        let by_user = events.key_by(|e: &Event| e.user.as_str());
        let rule = Session::with_gap(seconds(15)).max_length(seconds(60));
        let fragile = by_user.window(rule).aggregate("fragile", Fragile(fails_on(&BAD[..1])));
        fragile.sink("rows", rows.clone());
        ended = run(job, RunConfig::new().workers(2).checkpoints(checkpoints.clone())).ok();
    }
    check_conservation(&ended.unwrap());
    let left = all_marks(&splits()).into_iter().filter(|m| m.event.id != BAD[0]);
    let model = sessions(&left.collect::<Vec<_>>(), 15, 60);
    assert_eq!((of_sessions(&rows.rows()), dead.rows().len()), (model.results, 1));
}
