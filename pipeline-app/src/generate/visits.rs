//! Who does what: users, their visits to the site, and the steps of a visit.
//!
//! The events of a split come from a number of *lanes*. In every *round* each lane sends exactly
//! one event, in an order that differs from round to round; so record n belongs to round `n /
//! lanes` and its lane follows from the order of that round. A lane is a succession of visits, one
//! after the other, by users that belong to this lane only: no user is ever in two visits at once.
//! How a *block* of 64 events of a lane is divided into visits is taken from a table. All this can
//! be computed for any n directly.

use std::sync::Arc;

use super::options::GeneratorOptions;
use super::pages::Pages;
use super::rng::{self, Chance, Purpose};

/// Events of a lane in one block; a visit never goes beyond its block.
const BLOCK: usize = 64;
/// Number of ways in which a block may be divided into visits.
const DIVISIONS: usize = 64;
/// The shortest visit: a start, a page, and an end or another event.
const SHORTEST: usize = 3;
/// How much longer the longest visit is.
const SPREAD: u32 = 46;
/// The time between two events of a visit if there are enough users for it.
const SECONDS_BETWEEN_EVENTS: u64 = 10;
/// The least number of users to a lane, so that they can take turns.
const USERS_PER_LANE: u32 = 3;
/// The number of orders a round is drawn from, at most.
const ORDERS: usize = 256;
/// Share of the visits that end with a `session_end`; the others just stop.
const ENDED: f64 = 0.6;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventType {
    PageView,
    Click,
    SessionStart,
    SessionEnd,
    Scroll,
    Search,
    AddToCart,
    Purchase,
}

impl EventType {
    /// The name in the record.
    #[inline]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PageView => "page_view",
            Self::Click => "click",
            Self::SessionStart => "session_start",
            Self::SessionEnd => "session_end",
            Self::Scroll => "scroll",
            Self::Search => "search",
            Self::AddToCart => "add_to_cart",
            Self::Purchase => "purchase",
        }
    }

    /// The kind of an event amid a visit: 75 % page views, 21 % clicks, 4 % anything else.
    #[inline]
    const fn draw(bits: u64) -> Self {
        match bits & 127 {
            0..96 => Self::PageView,
            96..123 => Self::Click,
            123..125 => Self::Scroll,
            125 => Self::Search,
            126 => Self::AddToCart,
            _ => Self::Purchase,
        }
    }
}

/// The ways in which a block may be divided into visits. The same for all, and shared.
#[derive(Clone, Debug)]
pub(super) struct Divisions(Arc<[[Cell; BLOCK]]>);

/// Where an event of a block stands: in which visit of the block, and where in it.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    visit: u8,
    step: u8,
    length: u8,
}

/// The lanes of one split, and all that can be said about them without a record number.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Number of lanes, which is the number of events in a round.
    pub(super) count: u32,
    pub(super) split: u32,
    splits: u32,
    /// Number of users in this split.
    users: u32,
    lane_key: u64,
    round_key: u64,
    /// Multipliers that are coprime to the number of lanes, each with its inverse.
    orders: Vec<(u32, u32)>,
    divisions: Divisions,
    ended: Chance,
}

/// The order in which the lanes send in one round: `lane = (first + i · step) mod lanes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) first: u32,
    pub(super) step: u32,
    inverse: u32,
}

/// One step of a visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Identifies the visit, and is the key of its random numbers.
    pub(super) visit: u64,
    /// The user's number, from 1.
    pub(super) user: u32,
    /// The step, from 0.
    pub(super) step: u32,
    /// The number of steps of the visit.
    pub(super) length: u32,
}

impl Lanes {
    /// The lanes of a split; the options are valid ones.
    pub(super) fn new(options: &GeneratorOptions, divisions: &Divisions, split: u32) -> Self {
        let users = (options.users - split).div_ceil(options.splits);
        let unhurried = options.events_per_second.saturating_mul(SECONDS_BETWEEN_EVENTS)
            / u64::from(options.splits);
        let count = unhurried.clamp(1, u64::from((users / USERS_PER_LANE).max(1))) as u32;
        Self {
            count,
            split,
            splits: options.splits,
            users,
            lane_key: rng::stream(options.seed, Purpose::Lane, split),
            round_key: rng::stream(options.seed, Purpose::Round, split),
            orders: orders(count, rng::stream(options.seed, Purpose::Multiplier, split)),
            divisions: Divisions::clone(divisions),
            ended: Chance::new(ENDED),
        }
    }

    /// The order of a round.
    #[inline]
    pub(super) fn order(&self, round: u64) -> Order {
        let bits = rng::at(self.round_key, round);
        let choice = rng::below(rng::high(bits), self.orders.len() as u32);
        let (step, inverse) = self.orders[choice as usize];
        Order { first: rng::below(rng::low(bits), self.count), step, inverse }
    }

    /// The lane that sends at place `i` of a round.
    pub(super) fn lane(&self, order: Order, i: u32) -> u32 {
        let (first, i, step) = (u64::from(order.first), u64::from(i), u64::from(order.step));
        ((first + i * step) % u64::from(self.count)) as u32
    }

    /// The number of the record with which `lane` takes part in `round`.
    pub(super) fn record(&self, round: u64, lane: u32) -> u64 {
        let order = self.order(round);
        let count = u64::from(self.count);
        let ahead = u64::from(lane) + count - u64::from(order.first);
        let i = ahead % count * u64::from(order.inverse) % count;
        round * count + i
    }

    /// What the lane does in a round.
    #[inline]
    pub(super) fn step(&self, lane: u32, round: u64) -> Step {
        let key = rng::at(self.lane_key, u64::from(lane));
        // Lanes begin their blocks at different times.
        let event = round + key % BLOCK as u64;
        let block = rng::at(key, event / BLOCK as u64);
        let division = &self.divisions.0[(block % DIVISIONS as u64) as usize];
        let cell = division[(event % BLOCK as u64) as usize];
        let visit = rng::at(block, u64::from(cell.visit));
        Step {
            visit,
            user: self.user(lane, cell.visit, rng::low(visit)),
            step: u32::from(cell.step),
            length: u32::from(cell.length),
        }
    }

    /// The user of a visit. The users of a lane are the ones whose place in the split is the lane's
    /// number modulo the number of lanes. Those with an even and an odd rank in the lane take
    /// turns, so that no user comes back at once; the first ones are the most active.
    #[inline]
    fn user(&self, lane: u32, visit: u8, bits: u32) -> u32 {
        let in_lane = (self.users - lane).div_ceil(self.count);
        let turn = u32::from(visit & 1).min(in_lane - 1);
        let rank = 2 * rng::skewed_below(bits, (in_lane - turn).div_ceil(2)) + turn;
        (rank * self.count + lane) * self.splits + self.split + 1
    }

    /// The kind of a step.
    #[inline]
    pub(super) fn event_type(&self, at: &Step) -> EventType {
        match at.step {
            0 => EventType::SessionStart,
            1 => EventType::PageView,
            step if step + 1 == at.length && self.ended.hits(rng::high(at.visit)) => {
                EventType::SessionEnd
            }
            step => EventType::draw(rng::at(at.visit, u64::from(step))),
        }
    }

    /// The page a step happens on: that of the last page view, and the first page at the start.
    #[inline]
    pub(super) fn page(&self, at: &Step, pages: &Pages) -> u32 {
        let mut view = Step { step: at.step.max(1), ..*at };
        while self.event_type(&view) != EventType::PageView {
            view.step -= 1;
        }
        pages.draw(rng::at(at.visit, BLOCK as u64 + u64::from(view.step)))
    }
}

/// Multipliers coprime to `count` with their inverses; never empty.
fn orders(count: u32, key: u64) -> Vec<(u32, u32)> {
    if count <= 2 {
        return vec![(1 % count, 1 % count)];
    }
    let mut orders = Vec::new();
    for i in 0..4 * ORDERS as u64 {
        let candidate = 1 + rng::below(rng::high(rng::at(key, i)), count - 1);
        if let Some(inverse) = inverse(candidate, count) {
            orders.push((candidate, inverse));
        }
        if orders.len() == ORDERS {
            break;
        }
    }
    // One is coprime to everything.
    orders.push((1, 1));
    orders
}

/// The inverse of `x` modulo `modulus`, if there is one (Euclid's algorithm, extended).
fn inverse(x: u32, modulus: u32) -> Option<u32> {
    let (mut rest, mut next_rest) = (i64::from(modulus), i64::from(x));
    let (mut factor, mut next_factor) = (0i64, 1i64);
    while next_rest != 0 {
        let quotient = rest / next_rest;
        (rest, next_rest) = (next_rest, rest - quotient * next_rest);
        (factor, next_factor) = (next_factor, factor - quotient * next_factor);
    }
    (rest == 1).then(|| factor.rem_euclid(i64::from(modulus)) as u32)
}

impl Divisions {
    pub(super) fn new() -> Self {
        Self((0..DIVISIONS as u64).map(division).collect())
    }
}

/// One way to divide a block into an even number of visits, each of at least three events.
fn division(way: u64) -> [Cell; BLOCK] {
    let key = rng::stream(way, Purpose::Lengths, 0);
    let mut lengths = Vec::new();
    let mut left = BLOCK;
    while left > 0 {
        let bits = rng::low(rng::at(key, lengths.len() as u64));
        let length = SHORTEST + rng::skewed_below(bits, SPREAD) as usize;
        let length = if length + SHORTEST > left { left } else { length };
        lengths.push(length);
        left -= length;
    }
    if lengths.len() % 2 == 1 {
        let longest = (0..lengths.len()).max_by_key(|&i| lengths[i]).unwrap_or_default();
        let half = lengths[longest] / 2;
        lengths[longest] -= half;
        lengths.push(half);
    }
    let mut cells = [Cell::default(); BLOCK];
    let steps = lengths.iter().enumerate().flat_map(|(visit, &length)| {
        (0..length as u8).map(move |step| Cell { visit: visit as u8, step, length: length as u8 })
    });
    for (cell, step) in cells.iter_mut().zip(steps) {
        *cell = step;
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn lanes(users: u32, rate: u64) -> Lanes {
        let options = GeneratorOptions { users, events_per_second: rate, ..Default::default() };
        Lanes::new(&options, &Divisions::new(), 1)
    }

    #[test]
    fn a_block_is_an_even_number_of_whole_visits() {
        let mut visits = 0;
        for cells in Divisions::new().0.iter() {
            let mut place = 0;
            while place < BLOCK {
                let length = usize::from(cells[place].length);
                assert!((SHORTEST..SHORTEST + SPREAD as usize + SHORTEST).contains(&length));
                for step in 0..length {
                    let cell = cells[place + step];
                    assert_eq!(usize::from(cell.step), step);
                    assert_eq!(cell.visit, cells[place].visit);
                }
                place += length;
            }
            assert_eq!(place, BLOCK);
            assert_eq!(cells[BLOCK - 1].visit % 2, 1);
            visits += usize::from(cells[BLOCK - 1].visit) + 1;
        }
        let mean = (BLOCK * DIVISIONS) as f64 / visits as f64;
        assert!((12.0..15.0).contains(&mean), "{mean} events per visit");
    }

    #[test]
    fn in_a_round_every_lane_sends_once() {
        for users in [4, 10, 30, 100, 1_000, 2_000] {
            let lanes = lanes(users, 500);
            for round in 0..50 {
                let order = lanes.order(round);
                let mut seen = vec![false; lanes.count as usize];
                let mut lane = order.first;
                for i in 0..lanes.count {
                    assert_eq!(lanes.lane(order, i), lane);
                    assert_eq!(
                        lanes.record(round, lane),
                        round * u64::from(lanes.count) + u64::from(i)
                    );
                    assert!(!std::mem::replace(&mut seen[lane as usize], true));
                    lane = (lane + order.step) % lanes.count;
                }
            }
        }
    }

    #[test]
    fn the_number_of_lanes_suits_the_rate_and_the_users() {
        assert_eq!(lanes(2_000, 500).count, 166);
        assert_eq!(lanes(1_000_000, 500).count, 1_250);
        assert_eq!(lanes(4, 500).count, 1);
        assert_eq!(lanes(1_000_000_000, 100_000_000).count, 83_333_333);
        assert_eq!(lanes(1_000, 1).count, 2);
    }

    #[test]
    fn users_belong_to_one_lane_of_one_split_and_do_not_come_back_at_once() {
        let lanes = lanes(2_000, 500);
        let mut lane_of = HashMap::new();
        for lane in 0..lanes.count {
            let mut previous = None;
            for round in 0..2_000 {
                let step = lanes.step(lane, round);
                assert!((1..=2_000).contains(&step.user));
                assert_eq!((step.user - 1) % 4, 1);
                assert_eq!(*lane_of.entry(step.user).or_insert(lane), lane);
                if step.step == 0 {
                    assert_ne!(previous, Some(step.user));
                }
                previous = Some(step.user);
            }
        }
        assert!(lane_of.len() > 490, "{} users seen", lane_of.len());
    }

    #[test]
    fn a_visit_begins_with_a_page_and_stays_on_it_until_the_next() {
        let (lanes, pages) = (lanes(2_000, 500), Pages::new(200));
        for lane in 0..lanes.count {
            let mut page = None;
            for round in 0..300 {
                let step = lanes.step(lane, round);
                let (kind, now) = (lanes.event_type(&step), lanes.page(&step, &pages));
                assert_eq!(kind == EventType::SessionStart, step.step == 0);
                assert!(kind != EventType::SessionEnd || step.step + 1 == step.length);
                if step.step == 0 || (kind == EventType::PageView && step.step > 1) {
                    page = Some(now);
                }
                assert!(page.is_none_or(|page| page == now));
            }
        }
    }

    #[test]
    fn inverses_are_inverses() {
        assert_eq!(inverse(2, 4), None);
        for (x, modulus) in [(3, 4), (1, 7), (5, 7), (1_000_003, u32::MAX)] {
            let inverse = inverse(x, modulus).expect("coprime");
            assert_eq!(u64::from(x) * u64::from(inverse) % u64::from(modulus), 1);
        }
    }
}
