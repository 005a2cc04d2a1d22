//! What a job is written with: streams, and what can be done with them.

mod key_of;
mod keyed;
mod late;
mod windowed;

use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

pub use keyed::KeyedStream;
pub use late::Aggregated;
pub use windowed::{KeyedWindowAll, SessionStream, WindowedStream, Windowing};

use self::key_of::{Borrowed, Computed};
use crate::connector::{DeadLetter, Sink};
use crate::data::{Data, Key};
use crate::error::Result;
use crate::flow::Link;
use crate::graph::{Consumers, Deploy, Node, PlanRef, link};
use crate::operator::{Acks, Expand, Filter, FlatMap, Inspect, Map, OnError, Operator, TryMap};
use crate::runtime::SinkNode;
use crate::task::{Gauges, Union, UnionInput};
use crate::window::WindowAssigner;

/// A stream of records of one type. A handle, cheap to clone; using it twice is a fork, and both
/// branches get the same batches without a copy.
#[derive(Clone)]
pub struct Stream<T> {
    pub(crate) plan: PlanRef,
    pub(crate) node: usize,
    pub(crate) consumers: Consumers<T>,
    pub(crate) dead: Option<(usize, Consumers<DeadLetter>)>,
}

impl<T> std::fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A union on one worker, with what every input of it needs to know of what comes behind.
struct United<T> {
    union: Arc<Mutex<Union<T>>>,
    gauges: Gauges,
    acks: Acks,
}

/// What adds a step to the plan.
pub(crate) struct Step {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) kind: &'static str,
    pub(crate) parameters: String,
    pub(crate) location: &'static Location<'static>,
}

impl Step {
    pub(crate) fn plain(kind: &'static str, location: &'static Location<'static>) -> Self {
        Self { name: None, kind, parameters: String::new(), location }
    }
}

impl<T: Data> Stream<T> {
    pub(crate) fn new(plan: &PlanRef, step: Step, inputs: Vec<usize>, fired: bool) -> Self {
        let Step { name, kind, parameters, location } = step;
        let node = plan.add(Node { name, kind, parameters, inputs, location, fired });
        Self { plan: plan.clone(), node, consumers: Consumers::default(), dead: None }
    }

    pub(crate) fn is_fired(&self) -> bool {
        self.plan.lock().nodes[self.node].fired
    }

    pub(crate) fn consume(
        &self,
        make: impl FnMut(&mut Deploy) -> Result<Box<dyn Link<T>>> + Send + 'static,
    ) {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(make));
    }

    /// A step that is chained to this one: it runs on the same worker, without a queue.
    fn chain<U: Data>(
        &self,
        step: Step,
        mut make: impl FnMut(Arc<str>, Box<dyn Link<U>>) -> Box<dyn Link<T>> + Send + 'static,
    ) -> Stream<U> {
        let out = Stream::new(&self.plan, step, vec![self.node], self.is_fired());
        let (consumers, name) =
            (Arc::clone(&out.consumers), self.plan.lock().nodes[out.node].step());
        self.consume(move |deploy| Ok(make(Arc::clone(&name), link(&consumers, deploy)?)));
        out
    }

    /// One record in, one out.
    #[track_caller]
    pub fn map<U: Data>(&self, f: impl Fn(&T) -> U + Send + Sync + 'static) -> Stream<U> {
        let f = Arc::new(f);
        self.chain(Step::plain("map", Location::caller()), move |step, next| {
            Box::new(Map { f: Arc::clone(&f), step, next })
        })
    }

    /// One record in, one out, by a function that can fail; see [`OnError`] for what happens then.
    ///
    /// A panic in a function that works on records of a source is an error about a record as well: the
    /// record is tried once more, alone, and if that fails it becomes a dead letter, where dead
    /// letters go somewhere. So a function may see a record more than once.
    #[track_caller]
    pub fn try_map<U: Data, E: std::fmt::Display + 'static>(
        &self,
        f: impl Fn(&T) -> std::result::Result<U, E> + Send + Sync + 'static,
        on_error: OnError,
    ) -> Stream<U> {
        let f = Arc::new(f);
        self.chain(Step::plain("try_map", Location::caller()), move |step, next| {
            Box::new(TryMap { f: Arc::clone(&f), on_error, step, next, skipped: 0 })
        })
    }

    /// Lets the records pass for which `f` is true.
    #[must_use]
    #[track_caller]
    pub fn filter(&self, f: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        let f = Arc::new(f);
        self.chain(Step::plain("filter", Location::caller()), move |step, next| {
            Box::new(Filter { f: Arc::clone(&f), step, next })
        })
    }

    /// One record in, any number out, all with its event time.
    #[track_caller]
    pub fn flat_map<U: Data, I: IntoIterator<Item = U> + 'static>(
        &self,
        f: impl Fn(&T) -> I + Send + Sync + 'static,
    ) -> Stream<U> {
        self.applied("flat_map", Expand(f), Location::caller())
    }

    /// Calls `f` with each record, for a look, and passes the records on.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "looking is a use")]
    pub fn inspect(&self, f: impl Fn(&T) + Send + Sync + 'static) -> Self {
        let f = Arc::new(f);
        self.chain(Step::plain("inspect", Location::caller()), move |step, next| {
            Box::new(Inspect { f: Arc::clone(&f), step, next })
        })
    }

    /// A stateless operator of your own.
    #[track_caller]
    pub fn apply<O: Operator<T>>(&self, operator: O) -> Stream<O::Out>
    where
        O::Out: Data,
    {
        self.applied("apply", operator, Location::caller())
    }

    fn applied<O: Operator<T>>(
        &self,
        kind: &'static str,
        operator: O,
        location: &'static Location<'static>,
    ) -> Stream<O::Out>
    where
        O::Out: Data,
    {
        let operator = Arc::new(operator);
        self.chain(Step::plain(kind, location), move |step, next| {
            Box::new(FlatMap { operator: Arc::clone(&operator), step, next })
        })
    }

    /// Two streams: the records for which `f` is true, and the others.
    #[track_caller]
    pub fn split(&self, f: impl Fn(&T) -> bool + Send + Sync + 'static) -> (Self, Self) {
        let f = Arc::new(f);
        let not = Arc::clone(&f);
        (self.filter(move |record| f(record)), self.filter(move |record| !not(record)))
    }

    /// All records of both streams, in no order between the two. Both must come from sources by
    /// stateless steps, or both from windows, sessions or timers.
    #[must_use]
    #[track_caller]
    pub fn union(&self, other: &Self) -> Self {
        let step = Step::plain("union", Location::caller());
        let out = Self::new(&self.plan, step, vec![self.node, other.node], self.is_fired());
        if self.is_fired() != other.is_fired() {
            let mut plan = self.plan.lock();
            let step = plan.nodes[out.node].step();
            plan.mistakes.push(format!(
                "{step}: a stream of events and a stream of results cannot be united: they leave by different progress. Give each a sink of its own"
            ));
        }
        let shared: Arc<Mutex<Vec<Option<United<T>>>>> = Arc::default();
        for (input, stream) in [self, other].into_iter().enumerate() {
            let (consumers, shared) = (Arc::clone(&out.consumers), Arc::clone(&shared));
            stream.consume(move |deploy| {
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if shared.len() <= deploy.worker {
                    shared.resize_with(deploy.worker + 1, || None);
                }
                // The first input of a worker builds what comes next, for both; each of them needs
                // room in the queues behind, and acknowledgements from the sinks.
                let united = match &mut shared[deploy.worker] {
                    Some(united) => united,
                    empty => {
                        let gauges = std::mem::take(&mut deploy.gauges);
                        let acks = std::mem::take(&mut deploy.acks);
                        let union = Arc::new(Mutex::new(Union::new(2, link(&consumers, deploy)?)));
                        empty.insert(United {
                            union,
                            gauges: std::mem::replace(&mut deploy.gauges, gauges),
                            acks: std::mem::replace(&mut deploy.acks, acks),
                        })
                    }
                };
                deploy.gauges.extend(&united.gauges);
                deploy.acks.extend(&united.acks);
                let union = Arc::clone(&united.union);
                union
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .watch(input, &mut deploy.gauges);
                Ok(Box::new(UnionInput { union, input }))
            });
        }
        out
    }

    /// Partitions the stream by a key that the record holds: `events.key_by(|e| &e.user)`.
    ///
    /// Everything that hangs on one keyed stream shares one exchange and one look-up per record, so
    /// keep the handle: `let by_user = events.key_by(..);`.
    #[track_caller]
    pub fn key_by<K: Key + ?Sized + 'static>(
        &self,
        key: impl for<'a> Fn(&'a T) -> &'a K + Send + Sync + 'static,
    ) -> KeyedStream<K, T> {
        KeyedStream::new(self, Borrowed::new(key), Location::caller())
    }

    /// Partitions the stream by a key that is computed: `events.key_by_value(|e| e.id % 10)`.
    #[track_caller]
    pub fn key_by_value<K: Key + 'static>(
        &self,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> KeyedStream<K, T> {
        KeyedStream::new(self, Computed(key), Location::caller())
    }

    /// Windows over all records, without a key. All records go to one worker; to count distinct
    /// values over all records, see [`KeyedStream::window_all`].
    #[track_caller]
    pub fn window_all<W: WindowAssigner>(&self, assigner: W) -> WindowedStream<(), T> {
        KeyedStream::new(self, Computed(|_: &T| ()), Location::caller()).windows(&assigner)
    }

    /// Writes every record to a sink, under a name that is unique in the job.
    ///
    /// The sink's progress is stored under this name; renaming it is a new sink.
    #[track_caller]
    pub fn sink<S: Sink<T>>(&self, name: &str, sink: S) {
        let step = Step {
            name: Some(name.into()),
            kind: "sink",
            parameters: sink.describe(),
            location: Location::caller(),
        };
        let fired = self.is_fired();
        let out: Self = Self::new(&self.plan, step, vec![self.node], fired);
        let step = self.plan.lock().nodes[out.node].step();
        let node = SinkNode::new(name, step, fired, Box::new(sink));
        let edges = node.edges();
        self.plan.lock().sinks.push(Box::new(node));
        self.consume(move |deploy| edges.edge(deploy));
    }

    /// The records of the source that could not be used. Only on the stream that
    /// [`Job::source`](crate::Job::source) returned; there they are lost if nobody asks for them.
    #[track_caller]
    pub fn dead_letters(&self) -> Stream<DeadLetter> {
        let step = Step::plain("dead_letters", Location::caller());
        let mut out = Stream::new(&self.plan, step, vec![self.node], false);
        match &self.dead {
            Some((_, consumers)) => out.consumers = Arc::clone(consumers),
            None => {
                let mut plan = self.plan.lock();
                let step = plan.nodes[out.node].step();
                plan.mistakes.push(format!(
                    "{step}: only the stream that job.source(..) returned has dead letters"
                ));
            }
        }
        out
    }
}

/// Pins the shapes of the public API.
#[cfg(test)]
#[expect(dead_code, reason = "pins that the shapes of the public API compile")]
fn shapes(events: &Stream<String>) {
    use crate::time::minutes;
    use crate::window::{Sliding, Tumbling, count};
    let by_word = events.key_by(|word: &String| word.as_str());
    let counts = by_word.window(Tumbling::of(minutes(1))).aggregate("counts", count());
    let _late: Stream<crate::record::LateRecord<String>> = counts.late();
    let _ = by_word.window_all(Sliding::of(minutes(5), minutes(1))).count_keys("words");
}
