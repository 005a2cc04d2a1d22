//! The workloads on timely dataflow, its operators tuned by hand.
//!
//! timely brings workers, exchange and progress; windows, sessions and lateness are the user's. Here
//! they are the loop's own state, tables and prefetching included, in an operator behind an exchange
//! by page and one behind an exchange by user: nobody could do more by hand.
//!
//! ```text
//! a worker's splits ─┬─ views ─ exchange by page ─ counts per minute
//!                    └─ acts ── exchange by user ─ users, sessions ─ windows ─ to worker 0 ─ sums
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use streamkit_benches::Workload;
use streamkit_benches::events::{Event, Role};
use streamkit_benches::floor::{Borrowed, DELAY, Floor, Parts, TOGETHER};
use streamkit_benches::outcome::Outcome;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::{Capability, Operator, Probe};
use timely::dataflow::{InputHandle, ProbeHandle, StreamVec};
use xxhash_rust::xxh3::xxh3_64;

use crate::sent::{Act, View, both};

const MINUTE: i64 = 60_000_000;
const WINDOW: i64 = 5 * MINUTE;
/// Records between two steps of the watermark: a batch of streamkit has as many.
const BATCH: usize = 1_024;
/// So many batches may be under way.
const AHEAD: usize = 16;

type Input<T> = InputHandle<u64, CapacityContainerBuilder<Vec<T>>>;
type Sum = Arc<Mutex<Outcome>>;

/// Runs a workload; the splits are dealt out to the workers.
pub fn run(
    workload: Workload,
    splits: &Arc<Vec<Vec<Event>>>,
    users: u32,
    workers: usize,
) -> Outcome {
    let (splits, sum) = (Arc::clone(splits), Sum::default());
    let total = Arc::clone(&sum);
    let first = splits.iter().filter_map(|split| split.first()).map(|e| e.time.as_micros()).min();
    // timely's time begins with 0: no watermark is earlier than this.
    let origin = first.expect("there are events") - DELAY;
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (mut views, mut acts) = (Input::<View>::new(), Input::<Act>::new());
        let probe = ProbeHandle::new();
        let parts = Parts::of(workload);
        worker.dataflow::<u64, _, _>(|scope| {
            if parts.tumbling {
                count_views(views.to_stream(scope), origin, &total).probe_with(&probe);
            }
            if parts.sliding || parts.sessions {
                let parts = Parts { tumbling: false, ..parts };
                let windows = follow_users(acts.to_stream(scope), parts, users, origin, &total);
                add_up(windows, origin, &total).probe_with(&probe);
            }
        });

        let mine = splits.iter().skip(worker.index()).step_by(worker.peers());
        let mut readers: Vec<Reader<'_>> = mine.map(|split| Reader::new(split)).collect();
        let mut under_way = VecDeque::new();
        while let Some(watermark) = readers.iter().map(Reader::watermark).min() {
            let time = (watermark - origin) as u64;
            if time > *views.time() {
                views.advance_to(time);
                acts.advance_to(time);
            }
            for reader in &mut readers {
                reader.read(parts, &mut views, &mut acts);
            }
            views.flush();
            acts.flush();
            readers.retain(|reader| !reader.rest.is_empty());
            under_way.push_back(time);
            worker.step();
            if under_way.len() > AHEAD
                && let Some(oldest) = under_way.pop_front()
            {
                worker.step_while(|| probe.less_than(&oldest));
            }
        }
        drop((views, acts));
    });
    for worker in guards.expect("timely runs").join() {
        worker.expect("a worker has ended well");
    }
    *sum.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads one split, with its own watermark.
struct Reader<'a> {
    rest: &'a [Event],
    high: i64,
}

impl<'a> Reader<'a> {
    fn new(rest: &'a [Event]) -> Self {
        Self { rest, high: rest.first().map_or(i64::MAX, |event| event.time.as_micros()) }
    }

    fn watermark(&self) -> i64 {
        self.high - DELAY
    }

    fn read(&mut self, parts: Parts, views: &mut Input<View>, acts: &mut Input<Act>) {
        let (batch, rest) = self.rest.split_at(BATCH.min(self.rest.len()));
        self.rest = rest;
        for event in batch {
            let (view, act) = both(event, self.watermark());
            self.high = self.high.max(act.time);
            if let Some(view) = view.filter(|_| parts.tumbling) {
                views.send(view);
            }
            if parts.sliding || parts.sessions {
                acts.send(act);
            }
        }
    }
}

fn count_views<'scope>(
    views: StreamVec<'scope, u64, View>,
    origin: i64,
    sum: &Sum,
) -> StreamVec<'scope, u64, ()> {
    let parts = Parts { tumbling: true, sliding: false, sessions: false };
    let mut state = State::new(parts, 0, origin, sum);
    let by_page = Exchange::new(|view: &View| xxh3_64(view.page.0));
    views.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        by_page,
        "views",
        |cap, _| {
            let mut cap = Some(cap);
            move |(input, frontier), _| {
                input.for_each_stamp(|_, batches| {
                    for views in batches.flat_map(|batch| batch.chunks(TOGETHER)) {
                        state.take(views, |view| {
                            let View { time, mark, page } = *view;
                            let event =
                                Borrowed { time, user: &[], page: page.0, role: Role::View };
                            (event, mark)
                        });
                    }
                });
                let watermark = frontier.frontier().first().copied();
                state.fire(watermark);
                keep(&mut cap, watermark);
            }
        },
    )
}

/// Users of windows, as far as this worker has them, come out; sessions are added to the sum.
fn follow_users<'scope>(
    acts: StreamVec<'scope, u64, Act>,
    parts: Parts,
    users: u32,
    origin: i64,
    sum: &Sum,
) -> StreamVec<'scope, u64, (i64, u64)> {
    let mut state = State::new(parts, users, origin, sum);
    let by_user = Exchange::new(|act: &Act| xxh3_64(act.user.0));
    acts.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(by_user, "users", |cap, _| {
        let mut cap = Some(cap);
        move |(input, frontier), output| {
            input.for_each_stamp(|_, batches| {
                for acts in batches.flat_map(|batch| batch.chunks(TOGETHER)) {
                    state.take(acts, |&Act { time, mark, user, part }| {
                        let role = part.role();
                        (Borrowed { time, user: user.0, page: &[], role }, mark)
                    });
                }
            });
            let watermark = frontier.frontier().first().copied();
            state.fire(watermark);
            if let (Some(cap), Some(windows)) = (&cap, state.windows()) {
                output.session(cap).give_iterator(windows.drain(..));
            }
            keep(&mut cap, watermark);
        }
    })
}

/// Adds up what the workers have of each window.
fn add_up<'scope>(
    windows: StreamVec<'scope, u64, (i64, u64)>,
    origin: i64,
    sum: &Sum,
) -> StreamVec<'scope, u64, ()> {
    let sum = Arc::clone(sum);
    let to_one = Exchange::new(|_: &(i64, u64)| 0);
    windows.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        to_one,
        "sums",
        |cap, _| {
            let mut cap = Some(cap);
            let mut open: BTreeMap<i64, u64> = BTreeMap::new();
            move |(input, frontier), _| {
                input.for_each_stamp(|_, batches| {
                    for (start, users) in batches.flat_map(|batch| batch.drain(..)) {
                        *open.entry(start).or_default() += users;
                    }
                });
                let watermark = frontier.frontier().first().copied();
                let is_final =
                    |start| watermark.is_none_or(|time| start + WINDOW <= origin + time as i64);
                while let Some(window) = open.first_entry()
                    && is_final(*window.key())
                {
                    let (start, users) = window.remove_entry();
                    sum.lock().unwrap_or_else(PoisonError::into_inner).active_users(start, users);
                }
                keep(&mut cap, watermark);
            }
        },
    )
}

/// Holds the time back up to the watermark, and no longer.
fn keep(cap: &mut Option<Capability<u64>>, watermark: Option<u64>) {
    match (cap.as_mut(), watermark) {
        (Some(cap), Some(time)) => cap.downgrade(&time),
        _ => *cap = None,
    }
}

/// The loop's state on one worker.
struct State {
    floor: Floor,
    origin: i64,
    high: i64,
    ended: bool,
    sum: Sum,
}

impl State {
    fn new(parts: Parts, users: u32, origin: i64, sum: &Sum) -> Self {
        let mut floor = Floor::new(parts, users);
        floor.begin(origin + DELAY);
        floor.partial = Some(vec![]);
        Self { floor, origin, high: origin + DELAY, ended: false, sum: Arc::clone(sum) }
    }

    fn take<'a, T>(&mut self, records: &'a [T], read: impl Fn(&'a T) -> (Borrowed<'a>, i64)) {
        let mut marks = [0; TOGETHER];
        let nothing = Borrowed { time: 0, user: &[], page: &[], role: Role::Other };
        let mut events = [nothing; TOGETHER];
        for ((event, mark), record) in events.iter_mut().zip(&mut marks).zip(records) {
            (*event, *mark) = read(record);
            self.high = self.high.max(event.time);
        }
        self.floor.take(&events[..records.len()], &marks);
    }

    /// Without a watermark the input has ended.
    fn fire(&mut self, watermark: Option<u64>) {
        match watermark {
            Some(time) => self.floor.fire(self.origin + time as i64),
            None if !self.ended => {
                self.ended = true;
                self.floor.finish_partial(self.high);
                let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
                sum.add(&self.floor.outcome);
            }
            None => {}
        }
    }

    fn windows(&mut self) -> Option<&mut Vec<(i64, u64)>> {
        self.floor.partial.as_mut()
    }
}
