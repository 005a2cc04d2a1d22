//! Reading one split from any position on.

use std::ops::Range;
use std::sync::Arc;

use super::Inner;
use super::clock::Ticks;
use super::disorder::Swap;
use super::malformed::{self, Flaw};
use super::record::{Event, Extra};
use super::rng;
use super::time_text::{TimeForm, TimeWriter};
use super::visits::{EventType, Order, Step};

/// The arena is left alone when it could not take another record and still be addressed.
const ARENA_LIMIT: usize = u32::MAX as usize - 4_096;
/// Where the random numbers of a visit for its additional fields are.
const EXTRA_NUMBER: u64 = 1 << 33;

/// Where a generated record is in the arena, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedSpan {
    /// The record's value.
    pub value: Range<u32>,
    /// The record's key, the user's identifier: a part of the value. Empty if the record has none,
    /// which happens with malformed ones only.
    pub key: Range<u32>,
    /// The record's timestamp: its simulated arrival, in microseconds since 1970.
    pub timestamp: i64,
    /// The record's number in its split.
    pub n: u64,
    /// What was intended with it.
    pub kind: Kind,
}

/// What is to be expected of a generated record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its time is not before that of any record before it in its split.
    InOrder,
    /// Out of order, by no more than the options allow.
    OutOfOrder,
    /// Behind by as much as the options say for late records.
    Late,
    /// Without use.
    Malformed(Flaw),
}

/// The records of one split from a position on.
#[derive(Clone, Debug)]
pub struct SplitGenerator {
    inner: Arc<Inner>,
    split: u32,
    n: u64,
    ticks: Ticks,
    /// The record's round and its order, its place in it, and the lane at that place.
    round: u64,
    order: Order,
    place: u32,
    lane: u32,
    times: TimeWriter,
}

impl SplitGenerator {
    pub(super) fn new(inner: Arc<Inner>, split: u32, from: u64) -> Self {
        let lanes = &inner.splits[split as usize].lanes;
        let (round, place) =
            (from / u64::from(lanes.count), (from % u64::from(lanes.count)) as u32);
        let order = lanes.order(round);
        let lane = lanes.lane(order, place);
        let ticks = inner.clock.ticks(split, from);
        Self { inner, split, n: from, ticks, round, order, place, lane, times: TimeWriter::new() }
    }

    /// The number of the next record.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.n
    }

    /// Simulated arrival of the next record, in microseconds since 1970.
    #[must_use]
    pub fn next_arrival(&self) -> i64 {
        self.ticks.now()
    }

    /// Appends the next `max` records to `arena` and what there is to know about them to `spans`.
    ///
    /// There is no end of records; fewer are appended only if the arena would grow beyond 4 GiB.
    pub fn fill(&mut self, arena: &mut Vec<u8>, spans: &mut Vec<GeneratedSpan>, max: usize) {
        let inner = Arc::clone(&self.inner);
        spans.reserve(max);
        for _ in 0..max {
            if arena.len() > ARENA_LIMIT {
                break;
            }
            spans.push(self.append(&inner, arena));
            self.advance(&inner);
        }
    }

    /// Appends the record at the position.
    #[inline]
    fn append(&mut self, inner: &Inner, arena: &mut Vec<u8>) -> GeneratedSpan {
        let split = &inner.splits[self.split as usize];
        let (lanes, disorder) = (&split.lanes, &split.disorder);
        let record = rng::at(split.record_key, self.n);
        let arrival = self.ticks.now();

        // What happens and when.
        let mut step = lanes.step(self.lane, self.round);
        let slowness = disorder.slowness(self.lane, &step);
        let swap = if slowness == 0 { disorder.swap(&step) } else { Swap::No };
        let mut kind = if slowness == 0 { Kind::InOrder } else { Kind::OutOfOrder };
        let mut time = disorder.in_order(arrival, (record >> 48) as u16) - slowness;
        match swap {
            Swap::No => {}
            Swap::Early => {
                step.step += 1;
                time = disorder.in_order(arrival, 0);
            }
            Swap::Delayed { bits } => {
                step.step -= 1;
                kind = Kind::OutOfOrder;
                time = disorder.before_swap(
                    (&inner.clock, lanes),
                    (self.split, self.lane),
                    (self.round, arrival),
                    bits,
                );
            }
        }

        // Most records have nothing special about them.
        let mut form = TimeForm::Usual;
        let draw = rng::low(record);
        if inner.special.hits(draw) {
            let more = rng::at(record, 0);
            if inner.malformed.hits(draw) {
                kind = Kind::Malformed(choose(&Flaw::ALL, more));
            } else if inner.malformed_or_late.hits(draw) {
                kind = Kind::Late;
                time = disorder.in_order(arrival, 0) - disorder.lateness(rng::low(more));
            } else {
                form = choose(&TimeForm::OTHERS, more);
            }
        }
        let event = self.event(inner, &step, (record >> 32) as u32, time, form);
        let begin = arena.len() as u32;
        let key = match kind {
            Kind::Malformed(flaw) => {
                malformed::write(flaw, &event, arrival, (&inner.pages, &mut self.times), arena)
            }
            Kind::InOrder | Kind::OutOfOrder | Kind::Late => {
                event.write(&inner.pages, &mut self.times, arena)
            }
        };
        let value = begin..arena.len() as u32;
        GeneratedSpan { value, key, timestamp: arrival, n: self.n, kind }
    }

    /// The event of a step of a visit.
    #[inline]
    fn event(&self, inner: &Inner, step: &Step, bits: u32, time: i64, form: TimeForm) -> Event {
        let lanes = &inner.splits[self.split as usize].lanes;
        let event_type = lanes.event_type(step);
        let extra = rng::at(step.visit, EXTRA_NUMBER);
        Event {
            time: time.div_euclid(1_000),
            form,
            user: step.user,
            bare: bits & 1 == 1,
            // Who leaves is on no page in half of the cases.
            page: (event_type != EventType::SessionEnd || bits & 2 == 2)
                .then(|| lanes.page(step, &inner.pages)),
            event_type,
            extra: if inner.extra.hits(rng::high(extra)) {
                Extra::draw(rng::low(extra))
            } else {
                Extra::NONE
            },
        }
    }

    /// Goes on to the next record.
    #[inline]
    fn advance(&mut self, inner: &Inner) {
        let lanes = &inner.splits[self.split as usize].lanes;
        self.n += 1;
        self.ticks.advance();
        self.place += 1;
        if self.place == lanes.count {
            self.round += 1;
            self.place = 0;
            self.order = lanes.order(self.round);
            self.lane = self.order.first;
        } else {
            self.lane += self.order.step;
            if self.lane >= lanes.count {
                self.lane -= lanes.count;
            }
        }
    }
}

/// One of several, each with the same chance.
fn choose<T: Copy, const N: usize>(all: &[T; N], bits: u64) -> T {
    all[rng::below(rng::high(bits), N as u32) as usize]
}
