//! A job that is changed between two runs: state is kept, dropped or new, and no result of an
//! operator that began in the middle is incomplete (rules D6, D12).

#[path = "model/generate.rs"]
mod generate;
mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Event, Ids, all_marks, of_sessions, of_windows, second, strategy};
use proptest::prelude::*;
use streamkit::checkpoint::Fact;
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink, Gate, Running, Script, ScriptedSource};
use streamkit::{ErrorKind, JobState};

type Rows<K, V> = Collect<Windowed<K, V>>;

/// What the two versions of the job write to.
#[derive(Clone, Default)]
struct Outputs {
    raw: Collect<Event>,
    copy: Collect<Event>,
    tumbling: Rows<String, Vec<u64>>,
    added: Rows<String, Vec<u64>>,
    users: Rows<(), u64>,
    sessions: Collect<SessionResult<String, Vec<u64>>>,
}

/// The two versions: the second has another window, two more aggregates and one more copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    First,
    Second,
}

const SIZES: [i64; 2] = [20, 40];

fn s(n: i64) -> Duration {
    seconds(n as u64)
}

impl Outputs {
    fn build(&self, version: Version, events: &Stream<Event>, poison: Option<u64>, fault: u64) {
        let events = &events.map(move |e: &Event| {
            assert_ne!(Some(e.id), poison, "the test has poisoned this record");
            e.clone()
        });
        events.sink("raw", self.raw.clone());
        let by_user = events.key_by(|e: &Event| e.user.as_str());
        let size = SIZES[version as usize];
        let tumbling = by_user.window(Tumbling::of(s(size))).aggregate("tumbling", Ids);
        let faults = (fault > 0).then_some(Fault::BreakAfterCommit(fault));
        tumbling.sink("tumbling rows", FlakySink::new(self.tumbling.clone(), faults));
        let rule = Session::with_gap(s(15))
            .max_length(s(60))
            .starts_at(|e: &Event| e.role == model::Role::Start)
            .ends_at(|e: &Event| e.role == model::Role::End);
        let sessions = by_user.window(rule).aggregate("sessions", Ids);
        sessions.sink("sessions rows", self.sessions.clone());
        if version == Version::Second {
            events.sink("copy", self.copy.clone());
            let added = by_user.window(Sliding::of(s(40), s(10))).aggregate("added", Ids);
            added.sink("added rows", self.added.clone());
            let users = by_user.window_all(Sliding::of(s(30), s(10))).count_keys("users");
            users.sink("users rows", self.users.clone());
        }
    }
}

/// How a run ends before its time: by a stop, a panic or a broken sink.
#[derive(Debug, Clone, Copy)]
enum Interruption {
    Stop(usize),
    Panic(usize),
    Break(u64),
    None,
}

fn interruption() -> impl Strategy<Value = Interruption> {
    prop_oneof![
        (0usize..=100).prop_map(Interruption::Stop),
        (0usize..=100).prop_map(Interruption::Panic),
        (1u64..5).prop_map(Interruption::Break),
    ]
}

fn config(checkpoints: &Checkpoints, workers: usize) -> RunConfig {
    RunConfig::new()
        .workers(workers)
        .at_end(InputEnd::Close)
        .checkpoint_interval(millis(1))
        .checkpoints(checkpoints.clone())
}

fn run(
    splits: &[Vec<Event>],
    outputs: &Outputs,
    version: Version,
    interruption: Interruption,
    config: RunConfig,
) -> Result<(), String> {
    let (mut poison, mut fault, mut stop_after, gate) = (None, 0, None, Gate::new());
    let part = |percent: usize, n: usize| n * percent / 100;
    let mut source = ScriptedSource::splits(splits.to_vec());
    match interruption {
        Interruption::Stop(percent) => {
            source = ScriptedSource::new(splits.iter().map(|split| {
                let (first, rest) = split.split_at(part(percent, split.len()));
                Script::new().emit(first.to_vec()).until(&gate).emit(rest.to_vec())
            }));
            stop_after = Some(splits.iter().map(|s| part(percent, s.len())).sum::<usize>() as u64);
        }
        Interruption::Panic(percent) => {
            let all: Vec<u64> = splits.iter().flatten().map(|e| e.id).collect();
            poison = all.get(part(percent, all.len())).copied();
        }
        Interruption::Break(n) => fault = n,
        Interruption::None => {}
    }
    let job = Job::new("changing");
    outputs.build(version, &job.source("events", source.read_size(3), strategy()), poison, fault);
    let running = Running::start(job, config);
    let end = match stop_after {
        Some(n) => {
            running.until("the records before the stop", |p| {
                p.state == JobState::Ended || (p.state != JobState::Starting && p.read >= n)
            });
            running.stop()
        }
        None => running.wait(),
    };
    end.map(drop).map_err(|error| error.to_string())
}

/// The first start of whole windows, as the log has it; from the beginning if nothing was decided.
fn begins(checkpoints: &Checkpoints, of: &str) -> i64 {
    let detail = checkpoints.inspect("changing").unwrap().show(None).unwrap().unwrap();
    let from = detail.facts.iter().rev().find_map(|fact| match fact {
        Fact::Begins { operator, from, .. } if operator == of => Some(from.as_micros()),
        _ => None,
    });
    from.unwrap_or(i64::MIN)
}

fn check_changed(splits: &[Vec<Event>], outputs: &Outputs, checkpoints: &Checkpoints) {
    let events = all_marks(splits);
    let model = model::sessions(&events, 15, 60);
    assert_eq!(of_sessions(&outputs.sessions.rows()), model.results, "what is kept is exact");
    let whole = |of: &str, start: i64| start * 1_000_000 >= begins(checkpoints, of);
    let rows = outputs.tumbling.rows();
    let size =
        |row: &&Windowed<String, Vec<u64>>| second(row.window.end) - second(row.window.start);
    let new: Vec<_> = rows.iter().filter(|row| size(row) == 40).cloned().collect();
    let mut model = model::windowed(&events, 40, 40, 0).results;
    model.retain(|(start, _, _), _| whole("tumbling", *start));
    assert_eq!(of_windows(&new), model, "the window of another size");
    let old: Vec<_> = rows.iter().filter(|row| size(row) == 20).cloned().collect();
    let model = model::windowed(&events, 20, 20, 0).results;
    for (window, ids) in of_windows(&old) {
        assert_eq!(model.get(&window), Some(&ids), "an old row is whole");
    }
    let mut model = model::windowed(&events, 40, 10, 0).results;
    model.retain(|(start, _, _), _| whole("added", *start));
    assert_eq!(of_windows(&outputs.added.rows()), model, "added");
    let mut model = model::users(&events, 30, 10, 0).results;
    model.retain(|(start, _, _), _| whole("users", *start));
    assert_eq!(of_windows(&outputs.users.rows()), model, "users");
}

fn ids(events: &Collect<Event>) -> BTreeSet<u64> {
    let rows = events.rows();
    let ids: BTreeSet<u64> = rows.iter().map(|e| e.id).collect();
    assert_eq!(ids.len(), rows.len(), "no record twice");
    ids
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, max_shrink_time: 20_000, ..Default::default() })]

    #[test]
    fn d12_no_window_of_a_changed_plan_is_incomplete(
        splits in generate::splits(3, 60),
        before in interruption(),
        after in interruption(),
        workers in 1usize..4,
    ) {
        let (outputs, checkpoints) = (Outputs::default(), Checkpoints::shared());
        let _ = run(&splits, &outputs, Version::First, before, config(&checkpoints, workers));
        let read_before = ids(&outputs.raw);
        let closed = read_before.len() == splits.iter().map(Vec::len).sum::<usize>();
        let changed = || config(&checkpoints, workers).allow_dropped_state("tumbling");
        let _ = run(&splits, &outputs, Version::Second, after, changed());
        run(&splits, &outputs, Version::Second, Interruption::None, changed()).unwrap();
        run(&splits, &outputs, Version::Second, Interruption::None, config(&checkpoints, 2)).unwrap();
        check_changed(&splits, &outputs, &checkpoints);
        let all: BTreeSet<u64> = splits.iter().flatten().map(|e| e.id).collect();
        prop_assert!(all.difference(&read_before).all(|id| ids(&outputs.copy).contains(id)));
        prop_assert!(closed || !all.is_empty());
    }
}

/// Two splits of a few minutes, three users.
fn some_splits() -> Vec<Vec<Event>> {
    let event = |split: u64, n: u64| Event {
        time: (n * 2) as i64,
        user: format!("u{}", n % 3),
        role: model::Role::Other,
        id: split * 1_000 + n,
    };
    (0..2).map(|split| (0..100).map(|n| event(split, n)).collect()).collect()
}

#[test]
fn d12_a_changed_plan_is_refused_with_a_list_and_nothing_is_touched() {
    let (splits, outputs, checkpoints) = (some_splits(), Outputs::default(), Checkpoints::shared());
    let first = |config| run(&splits, &outputs, Version::First, Interruption::None, config);
    run(&splits, &outputs, Version::First, Interruption::Stop(50), config(&checkpoints, 2))
        .unwrap();
    let before = checkpoints.inspect("changing").unwrap().list().unwrap();
    let refused = run(
        &splits,
        &outputs,
        Version::Second,
        Interruption::None,
        config(&checkpoints, 2).allow_dropped_state("sessions"),
    );
    let error = refused.unwrap_err();
    for part in [
        "aggregate tumbling (20s) is aggregate tumbling (40s) now; its state would be dropped",
        "aggregate added (40s every 10s) is new; it begins with its first whole window",
        "sink copy (memory) is new: it begins where the checkpoint is",
        "kept as they are: sessions",
        "--allow-dropped-state NAME",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(checkpoints.inspect("changing").unwrap().list().unwrap(), before);
    first(config(&checkpoints, 3)).unwrap();
    let model = model::windowed(&all_marks(&splits), 20, 20, 0).results;
    assert_eq!(of_windows(&outputs.tumbling.rows()), model);
}

#[test]
fn d6_a_lost_checkpoint_folder_is_refused_and_rebuilt() {
    let (splits, outputs, checkpoints) = (some_splits(), Outputs::default(), Checkpoints::shared());
    run(&splits, &outputs, Version::First, Interruption::Stop(50), config(&checkpoints, 2))
        .unwrap();
    let lineage = checkpoints.inspect("changing").unwrap().list().unwrap().pop().unwrap().lineage;
    let lost = Checkpoints::shared();
    let start = |config| run(&splits, &outputs, Version::First, Interruption::None, config);
    // However often it is started without the choice.
    for _ in 0..2 {
        let error = start(config(&lost, 2)).unwrap_err();
        for part in ["no checkpoint of job changing in memory:", "--rebuild", &lineage, "sink raw"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    start(config(&lost, 2).rebuild(true)).unwrap();
    let inspector = lost.inspect("changing").unwrap();
    // What the refused starts have left is not ours.
    let list = inspector.list().unwrap();
    let mut made = list.iter().filter(|summary| summary.number > 0).peekable();
    assert!(made.peek().is_some() && made.all(|summary| summary.lineage == lineage));
    let events = all_marks(&splits);
    let model = model::windowed(&events, 20, 20, 0).results;
    assert_eq!(of_windows(&outputs.tumbling.rows()), model);
    let model = model::sessions(&events, 15, 60).results;
    assert_eq!(of_sessions(&outputs.sessions.rows()), model);
    assert_eq!(ids(&outputs.raw).len(), 200);
}

#[test]
fn d6_a_job_is_rebuilt_within_its_log_with_the_same_rows() {
    let (splits, outputs, checkpoints) = (some_splits(), Outputs::default(), Checkpoints::shared());
    for percent in [30, 60] {
        let config = config(&checkpoints, 2).rebuild(percent == 60);
        run(&splits, &outputs, Version::First, Interruption::Stop(percent), config).unwrap();
    }
    let config = config(&checkpoints, 2).rebuild(true);
    run(&splits, &outputs, Version::First, Interruption::None, config).unwrap();
    let model = model::windowed(&all_marks(&splits), 20, 20, 0).results;
    assert_eq!(of_windows(&outputs.tumbling.rows()), model);
    assert_eq!(ids(&outputs.raw).len(), 200);
}

#[test]
fn d6_an_emptied_sink_is_refused_and_goes_on_with_a_gap() {
    let (splits, mut outputs, checkpoints) =
        (some_splits(), Outputs::default(), Checkpoints::shared());
    run(&splits, &outputs, Version::First, Interruption::Stop(50), config(&checkpoints, 2))
        .unwrap();
    let (raw, tumbling) = (ids(&outputs.raw), outputs.tumbling.rows());
    (outputs.raw, outputs.tumbling) = (Collect::new(), Collect::new());
    let start = |config| run(&splits, &outputs, Version::First, Interruption::None, config);
    let error = start(config(&checkpoints, 2)).unwrap_err();
    assert!(error.contains("--accept-gap \"raw\""), "{error}");
    let error = start(config(&checkpoints, 2).accept_gap("raw")).unwrap_err();
    assert!(error.contains("--accept-gap \"tumbling rows\""), "{error}");
    let error = start(config(&checkpoints, 2).accept_gap("war")).unwrap_err();
    assert!(error.contains("no such sink; its sinks are \"raw\", "), "{error}");
    // It crashes, perhaps before the sinks have committed anything: the gap stays accepted.
    let gaps = || config(&checkpoints, 2).accept_gap("raw").accept_gap("tumbling rows");
    let broken = run(&splits, &outputs, Version::First, Interruption::Panic(80), gaps());
    assert!(broken.unwrap_err().contains("poisoned"));
    start(config(&checkpoints, 2)).unwrap();
    let rest = ids(&outputs.raw);
    assert!(rest.is_disjoint(&raw) && rest.len() + raw.len() == 200, "{}", rest.len());
    let mut both = tumbling;
    both.extend(outputs.tumbling.rows());
    let model = model::windowed(&all_marks(&splits), 20, 20, 0).results;
    assert_eq!(of_windows(&both), model, "after a clean stop the gap is what was emptied");
}

#[test]
fn d12_a_sink_that_comes_back_lacks_what_fired_meanwhile() {
    let (splits, outputs, checkpoints) = (some_splits(), Outputs::default(), Checkpoints::shared());
    let second =
        |interruption, config| run(&splits, &outputs, Version::Second, interruption, config);
    second(Interruption::Stop(30), config(&checkpoints, 2)).unwrap();
    let without = |percent, config| {
        let outputs = Outputs { added: Collect::new(), ..outputs.clone() };
        run(&splits, &outputs, Version::First, Interruption::Stop(percent), config)
    };
    let dropping = ["tumbling", "added", "users"]
        .into_iter()
        .fold(config(&checkpoints, 2), RunConfig::allow_dropped_state);
    without(60, dropping).unwrap();
    let back = || config(&checkpoints, 2).allow_dropped_state("tumbling");
    let error = second(Interruption::None, back()).unwrap_err();
    assert!(error.contains("is back in job changing"), "{error}");
    assert!(error.contains("--accept-gap \"added rows\""), "{error}");
    second(Interruption::None, back().accept_gap("added rows").accept_gap("users rows")).unwrap();
    let all = model::windowed(&all_marks(&splits), 40, 10, 0).results;
    for (window, ids) in of_windows(&outputs.added.rows()) {
        assert_eq!(all.get(&window), Some(&ids), "what is there is whole");
    }
    assert_eq!(ids(&outputs.copy).len(), 200, "a copy catches up from the source");
}

#[test]
fn d6_a_start_that_the_source_has_cut_is_refused() {
    // A source that begins at record 7 now, as if the earlier ones had been deleted.
    struct Cut;
    impl streamkit::connector::Source for Cut {
        type Item = u64;
        fn describe(&self) -> String {
            "cut".into()
        }
        fn splits(&self, _: &[streamkit::Split]) -> streamkit::Result<Vec<streamkit::Split>> {
            Ok(vec![streamkit::Split::new("cut/0", "cut", 0)])
        }
        fn start(&self, _: &streamkit::Split) -> streamkit::Result<u64> {
            Ok(7)
        }
        fn end(&self, _: &streamkit::Split) -> streamkit::Result<u64> {
            Ok(9)
        }
        fn open(
            &self,
            _: &streamkit::Split,
            _: u64,
            _: streamkit::connector::Wake,
        ) -> streamkit::Result<Box<dyn streamkit::connector::SplitReader<Item = u64>>> {
            Err(streamkit::Error::internal("it is never opened"))
        }
    }
    let job = Job::new("cut");
    let time = WatermarkStrategy::bounded_out_of_orderness(s(1), |_: &u64| Timestamp::MIN);
    job.source("numbers", Cut, time).sink("rows", Collect::<u64>::new());
    let error = streamkit::testing::run(job, RunConfig::new().rebuild(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    let text = error.to_string();
    assert!(text.contains("cut/0 has to be read from record 0") && text.contains("is 7"), "{text}");
}

#[test]
fn d12_a_new_sink_is_filled_from_the_first_record_if_that_is_asked() {
    let (splits, outputs, checkpoints) = (some_splits(), Outputs::default(), Checkpoints::shared());
    run(&splits, &outputs, Version::First, Interruption::Stop(50), config(&checkpoints, 2))
        .unwrap();
    let second =
        |interruption, config| run(&splits, &outputs, Version::Second, interruption, config);
    let asked = |sink| {
        let config = config(&checkpoints, 2).allow_dropped_state("tumbling").catch_up_beyond(5);
        config.backfill(sink)
    };
    let error = second(Interruption::None, asked("added rows")).unwrap_err();
    assert!(error.contains("\"added rows\", which is behind windows"), "{error}");
    // Wherever it dies, what was asked stays asked.
    assert!(second(Interruption::Panic(70), asked("copy")).unwrap_err().contains("poisoned"));
    second(Interruption::None, config(&checkpoints, 3)).unwrap();
    assert_eq!((ids(&outputs.copy).len(), outputs.copy.rows().len()), (200, 200));
    assert_eq!((ids(&outputs.raw).len(), outputs.raw.rows().len()), (200, 200));
}

#[test]
fn d6_an_emptied_sink_is_filled_again_if_that_is_asked() {
    let (splits, mut outputs, checkpoints) =
        (some_splits(), Outputs::default(), Checkpoints::shared());
    run(&splits, &outputs, Version::First, Interruption::Stop(50), config(&checkpoints, 2))
        .unwrap();
    outputs.raw = Collect::new();
    let start = |config| run(&splits, &outputs, Version::First, Interruption::None, config);
    let error = start(config(&checkpoints, 2)).unwrap_err();
    assert!(error.contains("--backfill \"raw\""), "{error}");
    start(config(&checkpoints, 2).backfill("raw")).unwrap();
    assert_eq!((ids(&outputs.raw).len(), outputs.raw.rows().len()), (200, 200));
}
