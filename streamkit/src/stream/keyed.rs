//! A stream partitioned by key: one exchange, one look-up, any number of operators.

use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::key_of::{KeyOf, hashes_by, look_up_by};
use super::late::LateOutput;
use super::{Aggregated, KeyedWindowAll, Step, Stream, WindowedStream, Windowing};
use crate::data::{Data, Key, State};
use crate::error::Result;
use crate::flow::{Link, Signal};
use crate::graph::{Deploy, PlanRef, link};
use crate::operator::{Acks, KeyedOperator, Process, ProcessResult, Processor};
use crate::task::{
    Channel, Exchange, Gauges, HashesOf, Input, KeyedInput, LateRule, Lookup, NamedOperator,
    Packet, watch,
};
use crate::time::Timestamp;
use crate::window::{Lateness, Panes, WindowAssigner};

/// A stream partitioned by key: one worker sees all records of a key. A handle, cheap to clone.
pub struct KeyedStream<K: ?Sized, T> {
    pub(crate) plan: PlanRef,
    pub(crate) node: usize,
    pub(crate) shared: Arc<Shared<T>>,
    key: std::marker::PhantomData<fn() -> Box<K>>,
}

impl<K: ?Sized, T> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        Self {
            plan: self.plan.clone(),
            node: self.node,
            shared: Arc::clone(&self.shared),
            key: self.key,
        }
    }
}

impl<K: ?Sized, T> std::fmt::Debug for KeyedStream<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedStream").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What the exchange and the operators behind it share.
pub(crate) struct Shared<T> {
    operators: Mutex<Vec<Attached<T>>>,
    queues: Mutex<Queues<T>>,
}

type MakeOperator<T> =
    Box<dyn FnMut(Acks, &mut Deploy) -> Result<Box<dyn KeyedOperator<T>>> + Send>;
type LatenessRule = Arc<dyn Fn(Timestamp, Timestamp) -> Lateness + Send + Sync>;

/// One operator on the keyed stream.
struct Attached<T> {
    name: Arc<str>,
    step: Arc<str>,
    make: MakeOperator<T>,
    lateness: Option<LatenessRule>,
    late: LateOutput<T>,
    aggregate: Option<usize>,
    running: bool,
}

/// The queues between the workers: from → to.
struct Queues<T> {
    to: Vec<Vec<Sender<Packet<T>>>>,
    from: Vec<Vec<Option<Receiver<Packet<T>>>>>,
}

impl<T> Queues<T> {
    fn ensure(&mut self, workers: usize, capacity: usize) {
        if self.to.is_empty() {
            for _ in 0..workers {
                let (to, from) = (0..workers)
                    .map(|_| {
                        let (sender, receiver) = bounded(capacity);
                        (sender, Some(receiver))
                    })
                    .unzip();
                self.to.push(to);
                self.from.push(from);
            }
        }
    }
}

/// How an operator is attached.
pub(crate) struct Attach<T> {
    pub(crate) step: Step,
    pub(crate) name: Arc<str>,
    pub(crate) lateness: Option<LatenessRule>,
    pub(crate) late: LateOutput<T>,
    /// Whether it counts records for the law of conservation.
    pub(crate) counts: bool,
    /// Whether it takes running values.
    pub(crate) running: bool,
}

impl<K: Key + ?Sized + 'static, T: Data> KeyedStream<K, T> {
    pub(crate) fn new(
        stream: &Stream<T>,
        key: impl KeyOf<T>,
        location: &'static Location<'static>,
    ) -> Self {
        let step = Step::plain("key_by", location);
        let out: Stream<T> = Stream::new(&stream.plan, step, vec![stream.node], stream.is_fired());
        let queues = Mutex::new(Queues { to: vec![], from: vec![] });
        let shared = Arc::new(Shared { operators: Mutex::default(), queues });
        let key = Arc::new(key);
        let (hashes, sending) = (hashes_by(&key), Arc::clone(&shared));
        stream.consume(move |deploy| sending.exchange(Arc::clone(&hashes), deploy));
        let receiving = Arc::clone(&shared);
        let make = move |deploy: &mut Deploy| receiving.input(look_up_by(&key), deploy);
        stream.plan.lock().keyed.push(Box::new(make));
        Self { plan: stream.plan.clone(), node: out.node, shared, key: std::marker::PhantomData }
    }

    /// Hangs an operator on the stream.
    pub(crate) fn attach<R: Data>(
        &self,
        attach: Attach<T>,
        mut make: impl FnMut(Acks, &Deploy, Box<dyn Link<R>>) -> Box<dyn KeyedOperator<T>>
        + Send
        + 'static,
    ) -> Stream<R> {
        let Attach { step, name, lateness, late, counts, running } = attach;
        let out = Stream::new(&self.plan, step, vec![self.node], true);
        let consumers = Arc::clone(&out.consumers);
        let mut plan = self.plan.lock();
        let aggregate = counts.then(|| {
            plan.aggregates.push(Arc::clone(&name));
            plan.aggregates.len() - 1
        });
        let step = plan.nodes[out.node].step();
        let make: MakeOperator<T> = Box::new(move |_, deploy| {
            let outer = std::mem::take(&mut deploy.acks);
            let next = link(&consumers, deploy)?;
            let acks = std::mem::replace(&mut deploy.acks, outer);
            Ok(make(acks, deploy, next))
        });
        let attached = Attached { name, step, make, lateness, late, aggregate, running };
        self.shared.operators.lock().unwrap_or_else(PoisonError::into_inner).push(attached);
        out
    }

    /// Groups the records of each key into windows or sessions.
    pub fn window<W: Windowing<K, T>>(&self, windows: W) -> W::Stream {
        windows.over(self)
    }

    pub(crate) fn windows(&self, assigner: &impl WindowAssigner) -> WindowedStream<K, T> {
        WindowedStream { keyed: self.clone(), panes: self.panes(assigner) }
    }

    fn panes(&self, assigner: &impl WindowAssigner) -> Option<Panes> {
        match Panes::new(assigner) {
            Ok(panes) => Some(panes),
            Err(mistake) => {
                self.plan.lock().mistakes.push(mistake);
                None
            }
        }
    }

    /// Windows over all keys: for questions about the keys themselves, such as how many there are.
    pub fn window_all<W: WindowAssigner>(&self, assigner: W) -> KeyedWindowAll<K, T> {
        KeyedWindowAll { keyed: self.clone(), panes: self.panes(&assigner) }
    }

    /// The general keyed operator, with state and timers. Records are handed over in the order of
    /// their event times as the watermark passes them; a record behind its split's watermark is
    /// late.
    #[track_caller]
    pub fn process<P: Process<T>>(
        &self,
        name: &str,
        process: P,
    ) -> Aggregated<T, ProcessResult<K::Owned, P::Out>>
    where
        T: State + Clone,
    {
        let name: Arc<str> = name.into();
        let step = Step {
            name: Some(Arc::clone(&name)),
            kind: "process",
            parameters: String::new(),
            location: Location::caller(),
        };
        let (process, late) = (Arc::new(process), LateOutput::default());
        let attach = Attach {
            step,
            name: Arc::clone(&name),
            lateness: Some(Arc::new(behind_is_late)),
            late: late.clone(),
            counts: true,
            running: false,
        };
        let results = self.attach(attach, move |acks, _, next| {
            Box::new(Processor::<K, T, P>::new(Arc::clone(&process), acks, next))
        });
        Aggregated { results, name, input: self.node, late }
    }
}

/// Rule T3 for sessions and processes: an event is late if it is behind its mark.
pub(crate) fn behind_is_late(time: Timestamp, mark: Timestamp) -> Lateness {
    if time < mark { Lateness::Late } else { Lateness::OnTime }
}

impl<T: Data> Shared<T> {
    /// The sending side on one worker.
    fn exchange(&self, hashes: HashesOf<T>, deploy: &mut Deploy) -> Result<Box<dyn Link<T>>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.ensure(deploy.workers(), deploy.queue);
        let signals = deploy.signals.iter().map(Arc::clone);
        let senders: Vec<(Sender<Packet<T>>, Arc<Signal>)> =
            queues.to[deploy.worker].drain(..).zip(signals).collect();
        watch(&senders, &mut deploy.gauges);
        let mut operators = self.operators.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rules, mut running) = (vec![], false);
        for (operator, attached) in (0u16..).zip(operators.iter_mut()) {
            running |= attached.running;
            let Some(aggregate) = attached.aggregate else { continue };
            let make = attached.late.make.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let output = match &make {
                Some(_) => Some(link(&attached.late.consumers, deploy)?),
                None => None,
            };
            let lateness = attached.lateness.clone();
            let given_up = deploy.given_up.get(&*attached.name).cloned().unwrap_or_default();
            rules.push(LateRule { operator, lateness, output, make, aggregate, given_up });
        }
        let wanted = !operators.is_empty();
        let restored_to = Arc::clone(&deploy.restored_to);
        let splits = deploy.splits.clone();
        Ok(Box::new(Exchange { hashes, senders, rules, restored_to, splits, wanted, running }))
    }

    /// The receiving side on one worker.
    fn input(&self, lookup: Lookup<T>, deploy: &mut Deploy) -> Result<Box<dyn Input>> {
        let channels = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.ensure(deploy.workers(), deploy.queue);
            let to_me = queues.from.iter_mut().filter_map(|from| from[deploy.worker].take());
            to_me.map(Channel::new).collect()
        };
        deploy.gauges = Gauges::default();
        let mut attached = self.operators.lock().unwrap_or_else(PoisonError::into_inner);
        let mut operators = vec![];
        for one in attached.iter_mut() {
            let operator = (one.make)(Acks::default(), deploy)?;
            let (name, step) = (Arc::clone(&one.name), Arc::clone(&one.step));
            operators.push(NamedOperator { name, step, operator });
        }
        let gauges = std::mem::take(&mut deploy.gauges);
        let shared = (Arc::clone(&deploy.passage), Arc::clone(&deploy.clock), deploy.portion);
        let groups = deploy.groups();
        Ok(Box::new(KeyedInput::new(channels, lookup, operators, gauges, shared, groups)))
    }
}
