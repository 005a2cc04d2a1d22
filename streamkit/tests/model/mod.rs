//! A batch model of windows and sessions: plain loops over all records, nothing incremental.
//!
//! It is written from the rules (marks per split, half-open windows, sessions in time order) and
//! shares no code with the engine.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use streamkit::LateRecord;
use streamkit::connector::memory::Collect;
use streamkit::prelude::*;
use streamkit::testing::{Fault, FlakySink};

/// One record of the tests. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    pub time: i64,
    pub user: String,
    pub role: Role,
    /// Unique among all records of a test.
    pub id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    Start,
    Other,
    End,
}

pub const SECOND: i64 = 1_000_000;
/// The bound on disorder of the tests.
pub const DELAY: i64 = 10;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * SECOND)
}

pub fn second(time: Timestamp) -> i64 {
    assert_eq!(time.as_micros() % SECOND, 0, "{time} is not a whole second");
    time.as_micros() / SECOND
}

pub fn strategy() -> WatermarkStrategy<Event> {
    WatermarkStrategy::bounded_out_of_orderness(seconds(DELAY as u64), |e: &Event| at(e.time))
}

/// An event that neither starts nor ends a session.
pub fn event(time: i64, user: &str, id: u64) -> Event {
    Event { time, user: user.to_owned(), role: Role::Other, id }
}

/// Four of them a second, of five users.
pub fn many(n: u64, first_id: u64) -> Vec<Event> {
    (0..n).map(|i| event(i as i64 / 4, &format!("user {}", i % 5), first_id + i)).collect()
}

/// The ids of events, sorted.
pub fn ids(rows: &[Event]) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.iter().map(|e| e.id).collect();
    ids.sort_unstable();
    ids
}

/// A run to the end of the input.
pub fn closing(workers: usize) -> RunConfig {
    RunConfig::new().workers(workers).at_end(InputEnd::Close)
}

/// An event with the mark that its split gives it: how far the split had got, if that was further.
#[derive(Debug, Clone)]
pub struct Marked {
    pub event: Event,
    pub mark: Option<i64>,
}

/// The marks of a split's records, read in order. `floors`: from this record on at least this.
pub fn marks(split: &[Event], floors: &[(usize, i64)]) -> Vec<Marked> {
    let mut all = vec![];
    for (i, event) in split.iter().enumerate() {
        let highest = split[..i].iter().map(|e| e.time).max();
        let own = highest.map(|high| high - DELAY);
        let floor = floors.iter().filter(|(from, _)| *from <= i).map(|(_, floor)| *floor).max();
        let own = own.max(floor);
        let mark = own.filter(|own| event.time < *own);
        all.push(Marked { event: event.clone(), mark });
    }
    all
}

pub fn all_marks(splits: &[Vec<Event>]) -> Vec<Marked> {
    splits.iter().flat_map(|split| marks(split, &[])).collect()
}

/// The windows [start, end) of this size and slide that contain `time`.
pub fn windows(time: i64, size: i64, slide: i64) -> Vec<(i64, i64)> {
    let mut all = vec![];
    let mut start = time.div_euclid(slide) * slide;
    while start + size > time {
        all.push((start, start + size));
        start -= slide;
    }
    all
}

/// Results by (window, key), and the ids of late records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome<K: Ord, V> {
    pub results: BTreeMap<(i64, i64, K), V>,
    pub late: BTreeSet<u64>,
}

/// The sorted ids of each user's window.
pub fn windowed(
    events: &[Marked],
    size: i64,
    slide: i64,
    lateness: i64,
) -> Outcome<String, Vec<u64>> {
    let (mut results, mut late) = (BTreeMap::new(), BTreeSet::new());
    for Marked { event, mark } in events {
        let all = windows(event.time, size, slide);
        let open: Vec<_> =
            all.iter().filter(|(_, end)| mark.is_none_or(|mark| end + lateness > mark)).collect();
        if open.is_empty() {
            late.insert(event.id);
        }
        for (start, end) in open {
            let ids: &mut Vec<u64> = results.entry((*start, *end, event.user.clone())).or_default();
            ids.push(event.id);
            ids.sort_unstable();
        }
    }
    Outcome { results, late }
}

/// The number of users of each window.
pub fn users(events: &[Marked], size: i64, slide: i64, lateness: i64) -> Outcome<(), u64> {
    let by_user = windowed(events, size, slide, lateness);
    let mut results = BTreeMap::new();
    for (start, end, _) in by_user.results.keys() {
        *results.entry((*start, *end, ())).or_default() += 1;
    }
    Outcome { results, late: by_user.late }
}

/// The sorted ids of each session, by (start, end, user).
pub fn sessions(events: &[Marked], gap: i64, max: i64) -> Outcome<String, Vec<u64>> {
    let late = |m: &Marked| m.mark.is_some_and(|mark| m.event.time < mark);
    let ids = |m: &Marked| m.event.id;
    let mut outcome = Outcome::default();
    outcome.late.extend(events.iter().filter(|m| late(m)).map(ids));
    let mut by_user: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for m in events.iter().filter(|m| !late(m)) {
        by_user.entry(m.event.user.clone()).or_default().push(m.event.clone());
    }
    for (user, mut events) in by_user {
        events.sort_by_key(|e| (e.time, e.role));
        let mut open: Option<Vec<Event>> = None;
        let mut close = |open: &mut Option<Vec<Event>>| {
            if let Some(events) = open.take() {
                let mut ids: Vec<u64> = events.iter().map(|e| e.id).collect();
                ids.sort_unstable();
                let key = (events[0].time, events[events.len() - 1].time, user.clone());
                assert!(outcome.results.insert(key, ids).is_none(), "two sessions share a start");
            }
        };
        let mut i = 0;
        while i < events.len() {
            let event = &events[i];
            // Several starts, or several ends, of one instant count as one event.
            let same = |e: &&Event| {
                e.time == event.time && e.role == event.role && event.role != Role::Other
            };
            let n = events[i..].iter().take_while(same).count().max(1);
            let group = events[i..i + n].to_vec();
            let begins_new = open.as_ref().is_none_or(|session| {
                let (first, last) = (session[0].time, session[session.len() - 1].time);
                event.role == Role::Start || event.time >= last + gap || event.time >= first + max
            });
            if begins_new {
                close(&mut open);
            }
            open.get_or_insert_default().extend(group);
            if event.role == Role::End {
                close(&mut open);
            }
            i += n;
        }
        close(&mut open);
    }
    outcome
}

/// The rows of a windowed aggregate, as the model has them. Fails on a row that comes twice.
pub fn of_windows<K: Ord + Clone + std::fmt::Debug, V: Clone>(
    rows: &[Windowed<K, V>],
) -> BTreeMap<(i64, i64, K), V> {
    let mut all = BTreeMap::new();
    for row in rows {
        let key = (second(row.window.start), second(row.window.end), row.key.clone());
        assert!(all.insert(key.clone(), row.value.clone()).is_none(), "{key:?} came twice");
    }
    all
}

/// The rows of sessions, as the model has them. Fails on a row that comes twice.
pub fn of_sessions<V: Clone>(rows: &[SessionResult<String, V>]) -> BTreeMap<(i64, i64, String), V> {
    let mut all = BTreeMap::new();
    for row in rows {
        let key = (second(row.start), second(row.end), row.key.clone());
        assert!(all.insert(key.clone(), row.value.clone()).is_none(), "{key:?} came twice");
    }
    all
}

/// The ids of late records. Fails on one that comes twice.
pub fn of_late(rows: &[LateRecord<Event>]) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for row in rows {
        assert!(all.insert(row.record.id), "{row:?} came twice");
    }
    all
}

/// The sorted ids of all records.
pub struct Ids;

impl Aggregator<Event> for Ids {
    type Accumulator = Vec<u64>;
    type Output = Vec<u64>;
    fn create(&self) -> Vec<u64> {
        vec![]
    }
    fn add(&self, ids: &mut Vec<u64>, event: &Event) {
        ids.push(event.id);
    }
    fn merge(&self, into: &mut Vec<u64>, from: &Vec<u64>) {
        into.extend(from);
    }
    fn finish(&self, ids: &Vec<u64>) -> Vec<u64> {
        let mut ids = ids.clone();
        ids.sort_unstable();
        ids
    }
}

type Rows<K, V> = Collect<Windowed<K, V>>;

/// A job with one of everything, and what it writes to.
#[derive(Clone)]
pub struct Everything {
    pub tumbling: Rows<String, Vec<u64>>,
    pub tumbling_late: Collect<LateRecord<Event>>,
    pub sliding: Rows<String, Vec<u64>>,
    pub sliding_late: Collect<LateRecord<Event>>,
    pub users: Rows<(), u64>,
    pub users_late: Collect<LateRecord<Event>>,
    pub sessions: Collect<SessionResult<String, Vec<u64>>>,
    pub sessions_late: Collect<LateRecord<Event>>,
    pub raw: Collect<Event>,
    /// What goes wrong, by sink.
    pub faults: Vec<(&'static str, Fault)>,
    /// Processing this record panics.
    pub poison: Option<u64>,
}

pub const TUMBLING: i64 = 20;
pub const SLIDING: (i64, i64) = (40, 10);
pub const USERS: (i64, i64) = (30, 10);
pub const GAP: i64 = 15;
pub const LONGEST: i64 = 60;

impl Everything {
    pub fn new() -> Self {
        Self {
            tumbling: Collect::new(),
            tumbling_late: Collect::new(),
            sliding: Collect::new(),
            sliding_late: Collect::new(),
            users: Collect::new(),
            users_late: Collect::new(),
            sessions: Collect::new(),
            sessions_late: Collect::new(),
            raw: Collect::new(),
            faults: vec![],
            poison: None,
        }
    }

    fn sink<S>(&self, name: &str, sink: &S) -> FlakySink<S>
    where
        S: Clone,
    {
        let faults = self.faults.iter().filter(|(of, _)| *of == name);
        FlakySink::new(sink.clone(), faults.map(|(_, fault)| fault.clone()))
    }

    /// Hangs the whole job on a stream.
    pub fn build(&self, events: &Stream<Event>) {
        let s = |n: i64| seconds(n as u64);
        let poison = self.poison;
        let events = &events.map(move |e: &Event| {
            assert_ne!(Some(e.id), poison, "the test has poisoned this record");
            e.clone()
        });
        events.sink("raw", self.sink("raw", &self.raw));
        let by_user = events.key_by(|e: &Event| e.user.as_str());
        let tumbling = by_user.window(Tumbling::of(s(TUMBLING))).aggregate("tumbling", Ids);
        tumbling.sink("tumbling rows", self.sink("tumbling rows", &self.tumbling));
        tumbling.late().sink("tumbling late", self.sink("tumbling late", &self.tumbling_late));
        let sliding =
            by_user.window(Sliding::of(s(SLIDING.0), s(SLIDING.1))).aggregate("sliding", Ids);
        sliding.sink("sliding rows", self.sink("sliding rows", &self.sliding));
        sliding.late().sink("sliding late", self.sink("sliding late", &self.sliding_late));
        let users = by_user.window_all(Sliding::of(s(USERS.0), s(USERS.1))).count_keys("users");
        users.sink("users rows", self.sink("users rows", &self.users));
        users.late().sink("users late", self.sink("users late", &self.users_late));
        let rule = Session::with_gap(s(GAP))
            .max_length(s(LONGEST))
            .starts_at(|e: &Event| e.role == Role::Start)
            .ends_at(|e: &Event| e.role == Role::End);
        let sessions = by_user.window(rule).aggregate("sessions", Ids);
        sessions.sink("sessions rows", self.sink("sessions rows", &self.sessions));
        sessions.late().sink("sessions late", self.sink("sessions late", &self.sessions_late));
    }

    /// Compares everything that was written with the model.
    pub fn check(&self, events: &[Marked]) {
        let model = windowed(events, TUMBLING, TUMBLING, 0);
        assert_eq!(of_windows(&self.tumbling.rows()), model.results, "tumbling");
        assert_eq!(of_late(&self.tumbling_late.rows()), model.late, "tumbling, late");
        let model = windowed(events, SLIDING.0, SLIDING.1, 0);
        assert_eq!(of_windows(&self.sliding.rows()), model.results, "sliding");
        assert_eq!(of_late(&self.sliding_late.rows()), model.late, "sliding, late");
        let model = users(events, USERS.0, USERS.1, 0);
        assert_eq!(of_windows(&self.users.rows()), model.results, "users");
        assert_eq!(of_late(&self.users_late.rows()), model.late, "users, late");
        let model = sessions(events, GAP, LONGEST);
        assert_eq!(of_sessions(&self.sessions.rows()), model.results, "sessions");
        assert_eq!(of_late(&self.sessions_late.rows()), model.late, "sessions, late");
        let mut raw: Vec<u64> = self.raw.rows().iter().map(|e| e.id).collect();
        let mut all: Vec<u64> = events.iter().map(|m| m.event.id).collect();
        raw.sort_unstable();
        all.sort_unstable();
        assert_eq!(raw, all, "raw");
    }
}

/// Wanted = counted + late for each aggregate, at the end of a job.
pub fn check_conservation(progress: &streamkit::JobProgress) {
    for (name, wanted) in &progress.wanted {
        let late = progress.late.get(name).copied().unwrap_or(0);
        let counted = progress.counted.get(name).copied().unwrap_or(0);
        assert_eq!(*wanted, counted + late, "{name}: wanted = counted + late ({late})");
    }
}
