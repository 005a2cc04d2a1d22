//! The workloads on Renoir, as its users would write them.
//!
//! Its windows begin at the first event of a key and not with the minute, so events are stamped with
//! the start of their minute; it panics on late ones, so these are left out before. What it cannot
//! say then is printed as a difference: events that are late for some sliding windows only, and the
//! sliding windows that begin before the first event. Sessions in event time it has none; they are
//! written by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::{HashMap, HashSet};
use renoir::operator::window::EventTimeWindow;
use renoir::operator::{Operator, StreamElement};
use renoir::{BatchMode, RuntimeConfig, Stream, StreamContext};
use streamkit_benches::Workload;
use streamkit_benches::events::Event;
use streamkit_benches::floor::DELAY;
use streamkit_benches::outcome::Outcome;

use crate::sent::{Act, Part, Text, View, both};

const MINUTE: i64 = 60_000_000;
const GAP: i64 = 30 * MINUTE;
const DAY: i64 = 24 * 60 * MINUTE;
/// Its own benches use 256 to 8,192. Other sizes than this one were not tried here.
const BATCH: usize = 16_384;
const WATERMARK_EVERY: u32 = 4_096;

type Sum = Arc<Mutex<Outcome>>;
type Both = (Option<View>, Act);

/// Runs a workload on one thread for each part between two exchanges, which is its way.
pub fn run(workload: Workload, events: &Arc<Vec<Event>>) -> Outcome {
    let context = StreamContext::new(RuntimeConfig::local(1).expect("one host"));
    let sum = Sum::default();
    let events = Arc::clone(events);
    let mut high = events.first().map_or(0, |event| event.time.as_micros());
    let source = (0..events.len()).map(move |place| {
        let mark = high - DELAY;
        high = high.max(events[place].time.as_micros());
        both(&events[place], mark)
    });
    let source = context.stream_iter(source).batch_mode(BatchMode::fixed(BATCH));
    match workload {
        Workload::A1Tumbling => count_views(source, &sum),
        Workload::A2Sliding => count_users(source, &sum),
        Workload::A3Sessions => make_sessions(source, &sum),
        Workload::A4All => {
            let [views, users, sessions] =
                <[_; 3]>::try_from(source.split(3)).ok().expect("three of them");
            count_views(views, &sum);
            count_users(users, &sum);
            make_sessions(sessions, &sum);
        }
    }
    context.execute_blocking();
    *sum.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says how far the watermark is, now and then. An event of that very moment is not late here, and
/// for Renoir it would be.
#[derive(Clone, Default)]
struct Watermark {
    events: u32,
    last: i64,
}

impl Watermark {
    fn next(&mut self, watermark: i64) -> Option<i64> {
        self.events += 1;
        if self.events < WATERMARK_EVERY || watermark <= self.last {
            return None;
        }
        (self.events, self.last) = (0, watermark);
        Some(watermark - 1)
    }
}

fn minute(time: i64) -> i64 {
    time.div_euclid(MINUTE) * MINUTE
}

fn count_views(source: Stream<impl Operator<Out = Both> + 'static>, sum: &Sum) {
    let (sum, late, mut watermark) = (Arc::clone(sum), Arc::clone(sum), Watermark::default());
    source
        .filter_map(|(view, _)| view)
        .filter(move |view| keep(minute(view.time) >= minute(view.mark), &late))
        .add_timestamps(|view| minute(view.time), move |view, _| watermark.next(minute(view.mark)))
        .group_by(|view| view.page)
        .map(|(_, view)| minute(view.time))
        .reorder()
        .window(EventTimeWindow::tumbling(MINUTE))
        .fold((0_u64, 0_i64), |(views, start), minute| {
            *views += 1;
            *start = *minute;
        })
        .for_each(move |(page, (views, start))| lock(&sum).page_views(start, page.0, views));
}

fn count_users(source: Stream<impl Operator<Out = Both> + 'static>, sum: &Sum) {
    let (sum, late, mut watermark) = (Arc::clone(sum), Arc::clone(sum), Watermark::default());
    source
        .map(|(_, act)| act)
        .filter(move |act| keep(minute(act.time) >= minute(act.mark), &late))
        .add_timestamps(|act| minute(act.time), move |act, _| watermark.next(minute(act.mark)))
        .map(|act| act.user)
        .reorder()
        .window_all(EventTimeWindow::sliding(5 * MINUTE, MINUTE))
        .fold(HashSet::<Text>::default(), |users, user| {
            users.insert(*user);
        })
        .map(|(_, users)| users.len() as u64)
        .drop_key()
        .rich_map_custom(|mut before| match before.next() {
            StreamElement::Timestamped(users, end) => StreamElement::Item((end, users)),
            StreamElement::Item(users) => StreamElement::Item((0, users)),
            StreamElement::Watermark(time) => StreamElement::Watermark(time),
            StreamElement::FlushBatch => StreamElement::FlushBatch,
            StreamElement::FlushAndRestart => StreamElement::FlushAndRestart,
            StreamElement::Terminate => StreamElement::Terminate,
        })
        .for_each(move |(end, users)| lock(&sum).active_users(end - 5 * MINUTE, users));
}

fn make_sessions(source: Stream<impl Operator<Out = Both> + 'static>, sum: &Sum) {
    let (sum, late, mut watermark) = (Arc::clone(sum), Arc::clone(sum), Watermark::default());
    let mut state = Sessions::default();
    source
        .map(|(_, act)| act)
        .filter(move |act| keep(act.time >= act.mark, &late))
        // The order within an instant is a part of the time.
        .add_timestamps(
            |act| act.time * 4 + act.part as i64,
            move |act, _| watermark.next(act.mark * 4),
        )
        .group_by(|act| act.user)
        .map(|(_, act)| (act.time, act.part))
        .reorder()
        .rich_map_custom(move |mut before| {
            loop {
                if let Some(session) = state.done.pop() {
                    return StreamElement::Item(session);
                }
                if let Some(end) = state.end.take() {
                    return end;
                }
                match before.next() {
                    StreamElement::Timestamped((user, (time, part)), _)
                    | StreamElement::Item((user, (time, part))) => state.apply(user, time, part),
                    StreamElement::Watermark(time) => state.fire(time.div_euclid(4)),
                    StreamElement::FlushAndRestart => {
                        state.fire(i64::MAX);
                        state.end = Some(StreamElement::FlushAndRestart);
                    }
                    StreamElement::FlushBatch => return StreamElement::FlushBatch,
                    StreamElement::Terminate => return StreamElement::Terminate,
                }
            }
        })
        .for_each(move |Done { user, session }| {
            lock(&sum).session(user.0, session.start, session.last, session.events);
        });
}

#[derive(Clone, Copy)]
struct Session {
    start: i64,
    last: i64,
    events: u64,
}

impl Session {
    fn ends(&self) -> i64 {
        (self.last + GAP).min(self.start + DAY)
    }
}

#[derive(Clone, Copy)]
struct Done {
    user: Text,
    session: Session,
}

/// Open sessions, and whom to look at in which minute: each user once.
#[derive(Default)]
struct Sessions {
    open: HashMap<Text, Session>,
    due: BTreeMap<i64, Vec<Text>>,
    done: Vec<Done>,
    end: Option<StreamElement<Done>>,
}

/// Renoir clones operators to make replicas, before they have state.
impl Clone for Sessions {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Sessions {
    /// Events come in the order of their times.
    fn apply(&mut self, user: Text, time: i64, part: Part) {
        let fresh = Session { start: time, last: time, events: 0 };
        let session = match self.open.entry(user) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.due.entry(fresh.ends().div_euclid(MINUTE) + 1).or_default().push(user);
                entry.insert(fresh)
            }
        };
        let restarts = part == Part::Start && session.start < time;
        if session.events > 0 && (time >= session.ends() || restarts) {
            self.done.push(Done { user, session: *session });
            *session = fresh;
        }
        if session.events == 0 {
            session.start = time;
        }
        session.last = time;
        session.events += 1;
        if part == Part::End {
            self.done.push(Done { user, session: *session });
            session.events = 0;
        }
    }

    fn fire(&mut self, watermark: i64) {
        while let Some(entry) = self.due.first_entry()
            && *entry.key() <= watermark.div_euclid(MINUTE)
        {
            for user in entry.remove() {
                let Some(session) = self.open.get(&user).copied() else { continue };
                if session.events == 0 {
                    self.open.remove(&user);
                } else if session.ends() <= watermark {
                    self.done.push(Done { user, session });
                    self.open.remove(&user);
                } else {
                    let minute = session.ends().div_euclid(MINUTE) + 1;
                    self.due.entry(minute).or_default().push(user);
                }
            }
        }
    }
}

/// Counts what is left out.
fn keep(on_time: bool, late: &Sum) -> bool {
    if !on_time {
        lock(late).late += 1;
    }
    on_time
}

fn lock(sum: &Sum) -> std::sync::MutexGuard<'_, Outcome> {
    sum.lock().unwrap_or_else(PoisonError::into_inner)
}
