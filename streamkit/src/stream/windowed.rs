//! Windowed streams: what can be computed in windows and sessions.

use std::panic::Location;
use std::sync::Arc;

use super::key_of::Computed;
use super::keyed::{Attach, behind_is_late};
use super::late::LateOutput;
use super::{Aggregated, KeyedStream, Step};
use crate::data::{Data, Key};
use crate::operator::{Combine, DistinctKeys, Partial, Sessions, WindowAggregate};
use crate::window::{Aggregator, Panes, Session, SessionResult, Sliding, Tumbling, Windowed};

/// A way to group the records of a key: [`Tumbling`], [`Sliding`] or [`Session`].
pub trait Windowing<K: Key + ?Sized, T: Data> {
    /// What the records are then.
    type Stream;

    /// Groups the records of each key.
    fn over(self, keyed: &KeyedStream<K, T>) -> Self::Stream;
}

impl<K: Key + ?Sized + 'static, T: Data> Windowing<K, T> for Tumbling {
    type Stream = WindowedStream<K, T>;
    fn over(self, keyed: &KeyedStream<K, T>) -> Self::Stream {
        keyed.windows(&self)
    }
}

impl<K: Key + ?Sized + 'static, T: Data> Windowing<K, T> for Sliding {
    type Stream = WindowedStream<K, T>;
    fn over(self, keyed: &KeyedStream<K, T>) -> Self::Stream {
        keyed.windows(&self)
    }
}

impl<K: Key + ?Sized + 'static, T: Data> Windowing<K, T> for Session<T> {
    type Stream = SessionStream<K, T>;
    fn over(self, keyed: &KeyedStream<K, T>) -> Self::Stream {
        SessionStream { keyed: keyed.clone(), rule: self }
    }
}

/// A keyed stream whose records are grouped into windows.
#[derive(Debug)]
pub struct WindowedStream<K: ?Sized, T> {
    pub(crate) keyed: KeyedStream<K, T>,
    /// `None` after a mistake, which is reported when the job starts.
    pub(crate) panes: Option<Panes>,
}

/// A keyed stream whose records are grouped into sessions.
#[derive(Debug)]
pub struct SessionStream<K: ?Sized, T> {
    keyed: KeyedStream<K, T>,
    rule: Session<T>,
}

/// Windows over all keys of a keyed stream.
#[derive(Debug)]
pub struct KeyedWindowAll<K: ?Sized, T> {
    pub(crate) keyed: KeyedStream<K, T>,
    pub(crate) panes: Option<Panes>,
}

fn step(
    kind: &'static str,
    name: &str,
    parameters: String,
    at: &'static Location<'static>,
) -> Step {
    Step { name: Some(name.into()), kind, parameters, location: at }
}

/// Stands in for impossible windows until the job is refused at its start.
fn checked(panes: Option<Panes>) -> Panes {
    panes
        .or_else(|| Panes::new(&Tumbling::of(crate::time::days(1))).ok())
        .unwrap_or_else(|| unreachable!("a day is a possible window"))
}

impl<K: Key + ?Sized + 'static, T: Data> WindowedStream<K, T> {
    /// The aggregate of each key and window, under a name that is unique in the job: what is stored
    /// in checkpoints goes by it.
    ///
    /// A result is final when the watermark reaches the window's end (plus the allowed lateness).
    /// Before that there may be running values, see [`Kind`](crate::Kind).
    #[track_caller]
    pub fn aggregate<A: Aggregator<T>>(
        &self,
        name: &str,
        aggregator: A,
    ) -> Aggregated<T, Windowed<K::Owned, A::Output>> {
        let panes = checked(self.panes);
        let (name, late): (Arc<str>, _) = (name.into(), LateOutput::default());
        let attach = Attach {
            step: step("aggregate", &name, panes.describe(), Location::caller()),
            name: Arc::clone(&name),
            lateness: Some(Arc::new(move |time, mark| panes.lateness(time, mark))),
            late: late.clone(),
            counts: true,
            running: false,
        };
        let aggregator = Arc::new(aggregator);
        let results = self.keyed.attach(attach, move |acks, _, next| {
            Box::new(WindowAggregate::<K, T, A>::new(panes, Arc::clone(&aggregator), acks, next))
        });
        Aggregated { results, name, input: self.keyed.node, late }
    }
}

impl<K: Key + ?Sized + 'static, T: Data> SessionStream<K, T> {
    /// The aggregate of each finished session, under a name that is unique in the job.
    #[track_caller]
    pub fn aggregate<A: Aggregator<T>>(
        &self,
        name: &str,
        aggregator: A,
    ) -> Aggregated<T, SessionResult<K::Owned, A::Output>> {
        let (name, late): (Arc<str>, _) = (name.into(), LateOutput::default());
        let parameters = format!("gap {:?}, at most {:?}", self.rule.gap, self.rule.max);
        if self.rule.gap.is_zero() || self.rule.max.is_zero() {
            let mistake = format!("sessions {name}: gap and maximum length must be more than zero");
            self.keyed.plan.lock().mistakes.push(mistake);
        }
        let attach = Attach {
            step: step("sessions", &name, parameters, Location::caller()),
            name: Arc::clone(&name),
            lateness: Some(Arc::new(behind_is_late)),
            late: late.clone(),
            counts: true,
            running: false,
        };
        let (rule, aggregator) = (self.rule.clone(), Arc::new(aggregator));
        let results = self.keyed.attach(attach, move |acks, _, next| {
            let (rule, aggregator) = (rule.clone(), Arc::clone(&aggregator));
            Box::new(Sessions::<K, T, A>::new(rule, aggregator, acks, next))
        });
        Aggregated { results, name, input: self.keyed.node, late }
    }
}

impl<K: Key + ?Sized + 'static, T: Data> KeyedWindowAll<K, T> {
    /// The exact number of distinct keys of each window; no result for a window without records.
    ///
    /// Each worker counts its own keys with one bit per key and pane, and the counts are added: so
    /// no set of keys is ever merged or sent.
    #[track_caller]
    pub fn count_keys(&self, name: &str) -> Aggregated<T, Windowed<(), u64>> {
        let panes = checked(self.panes);
        let (name, late): (Arc<str>, _) = (name.into(), LateOutput::default());
        let location = Location::caller();
        let attach = Attach {
            step: step("distinct keys", &name, panes.describe(), location),
            name: Arc::clone(&name),
            lateness: Some(Arc::new(move |time, mark| panes.lateness(time, mark))),
            late: late.clone(),
            counts: true,
            running: false,
        };
        let partials = self.keyed.attach(attach, move |_, deploy, next| {
            Box::new(DistinctKeys::new(panes, deploy.worker, next))
        });
        let together = KeyedStream::<(), _>::new(&partials, Computed(|_: &Partial| ()), location);
        let sum: Arc<str> = format!("{name}.sum").into();
        let attach = Attach {
            step: step("sum", &sum, panes.describe(), location),
            name: sum,
            lateness: None,
            late: LateOutput::default(),
            counts: false,
            running: true,
        };
        let results =
            together.attach(attach, move |acks, _, next| Box::new(Combine::new(panes, acks, next)));
        Aggregated { results, name, input: self.keyed.node, late }
    }
}
