//! When an event happened, given when it arrives: most a moment before, some much earlier.
//!
//! Records get out of order in two ways, as they do on a real site. Some lanes are slow: what their
//! users send is always behind by the same amount, so that their visits stay whole but mix with
//! those of others. And in the other lanes neighbouring events of a visit may be swapped, as when
//! they take different ways. Late records are single ones that got stuck for minutes.

use std::time::Duration;

use super::clock::Clock;
use super::options::GeneratorOptions;
use super::rng::{self, Chance, Purpose};
use super::visits::{Lanes, Step};

/// The least a record takes from the user to its arrival, in microseconds.
pub(super) const TRANSPORT: i64 = 40_000;
/// With fewer lanes than this, visits are slow and not lanes, or the share could not be met.
const FEW_LANES: u32 = 20;
/// The most the events of one visit may differ in transport, in microseconds.
const MOST_JITTER: i64 = 1_000_000;
/// Where the random numbers of a visit for disorder begin, away from those for its steps.
const VISIT_NUMBERS: u64 = 1 << 32;

/// The disorder of one split.
#[derive(Debug)]
pub(super) struct Disorder {
    key: u64,
    slow: Chance,
    swapped: Chance,
    by_lane: bool,
    /// The greatest delay of a slow lane, in milliseconds, and the least.
    delay_max: u32,
    delay_min: u32,
    late_min: i64,
    late_spread: u32,
    /// The range of the transport time, never longer than the time between two records: so it puts
    /// nothing out of order.
    jitter: i64,
    /// The time a round takes, in microseconds.
    round: i64,
}

/// One of two events of a visit that arrive in each other's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swap {
    /// Arrives where it belongs.
    No,
    /// Arrives in place of the one before it.
    Early,
    /// Arrives in place of the one after it; `bits` say when it happened.
    Delayed { bits: u32 },
}

impl Disorder {
    /// The disorder of a split with these lanes; the options are valid ones.
    pub(super) fn new(options: &GeneratorOptions, lanes: &Lanes, clock: &Clock) -> Self {
        let millis = |duration: Duration| duration.as_millis() as u32;
        let period = clock.period();
        let round = i64::from(lanes.count) * period;
        let delay_max = millis(options.max_disorder);
        // A swapped event waits for less than three rounds.
        let swaps = 3 * round / 1_000 < i64::from(delay_max);
        let share = options.out_of_order;
        // The share that swaps put out of order among the events of lanes that are not slow.
        let by_swaps = if swaps { share / 4.0 } else { 0.0 };
        let slow = if share < 1.0 { (share - by_swaps) / (1.0 - by_swaps) } else { 1.0 };
        Self {
            key: rng::stream(options.seed, Purpose::Delay, lanes.split),
            slow: Chance::new(slow),
            swapped: Chance::new(2.0 * by_swaps),
            by_lane: lanes.count >= FEW_LANES,
            delay_max,
            delay_min: delay_max.min(1_000),
            late_min: i64::from(millis(options.late_min)) * 1_000,
            late_spread: millis(options.late_max - options.late_min) + 1,
            jitter: period.min(MOST_JITTER),
            round,
        }
    }

    /// By how many microseconds what happens at `at` is behind because it comes over a slow lane;
    /// zero if it does not.
    #[inline]
    pub(super) fn slowness(&self, lane: u32, at: &Step) -> i64 {
        let (draw, key) = if self.by_lane {
            // Multiples of the golden ratio: of any number of lanes the right share is hit.
            (lane.wrapping_mul(0x9E37_79B9).wrapping_add(rng::low(self.key)), u64::from(lane))
        } else {
            (rng::high(rng::at(at.visit, VISIT_NUMBERS)), at.visit)
        };
        if !self.slow.hits(draw) {
            return 0;
        }
        let spread = self.delay_max - self.delay_min + 1;
        let bits = rng::low(rng::at(self.key, key));
        i64::from(self.delay_min + rng::skewed_below(bits, spread)) * 1_000
    }

    /// Whether the event at `at` is swapped with its neighbour. Steps 0 and 1, 2 and 3 and so on
    /// are neighbours.
    #[inline]
    pub(super) fn swap(&self, at: &Step) -> Swap {
        if at.step | 1 >= at.length {
            return Swap::No;
        }
        let bits = rng::at(at.visit, VISIT_NUMBERS + 1 + u64::from(at.step / 2));
        match (self.swapped.hits(rng::high(bits)), at.step % 2) {
            (false, _) => Swap::No,
            (true, 0) => Swap::Early,
            (true, _) => Swap::Delayed { bits: rng::low(bits) },
        }
    }

    /// When a record that arrives at `arrival` left, in microseconds: in the order of the arrivals.
    #[inline]
    pub(super) fn in_order(&self, arrival: i64, bits: u16) -> i64 {
        arrival - TRANSPORT - ((i64::from(bits) * self.jitter) >> 16)
    }

    /// When a delayed event happened whose lane takes part in `round`: between the arrivals of its
    /// lane in the round before (the event it was swapped with) and in the one before that.
    pub(super) fn before_swap(
        &self,
        (clock, lanes): (&Clock, &Lanes),
        (split, lane): (u32, u32),
        (round, arrival): (u64, i64),
        bits: u32,
    ) -> i64 {
        let arrival_in = |back: u64| match round.checked_sub(back) {
            Some(round) => clock.arrival(split, lanes.record(round, lane)),
            // Before the beginning: as if the rounds had always gone on.
            None => arrival - self.round * back as i64,
        };
        let (after, before) = (arrival_in(1), arrival_in(2));
        let quarters = (after - before) / 4;
        after - TRANSPORT - quarters - ((i64::from(bits >> 16) * (quarters * 2)) >> 16)
    }

    /// By how many microseconds a late record is behind.
    pub(super) fn lateness(&self, bits: u32) -> i64 {
        self.late_min + i64::from(rng::below(bits, self.late_spread)) * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::super::visits::Divisions;
    use super::*;

    fn disorder(options: &GeneratorOptions) -> (Clock, Lanes, Disorder) {
        let clock = Clock {
            start: options.start_time_micros,
            splits: u64::from(options.splits),
            rate: options.events_per_second,
        };
        let lanes = Lanes::new(options, &Divisions::new(), 0);
        let disorder = Disorder::new(options, &lanes, &clock);
        (clock, lanes, disorder)
    }

    #[test]
    fn the_share_of_slow_and_swapped_events_is_the_one_asked_for() {
        for share in [0.0, 0.05, 0.2, 0.7, 1.0] {
            for (users, events_per_second) in [(2_000, 500), (100_000, 500), (30, 500), (30, 1)] {
                let options = GeneratorOptions {
                    out_of_order: share,
                    users,
                    events_per_second,
                    ..Default::default()
                };
                let (_, lanes, disorder) = disorder(&options);
                let (mut behind, mut all) = (0, 0);
                for lane in 0..lanes.count {
                    for round in 0..200_000 / u64::from(lanes.count) {
                        let step = lanes.step(lane, round);
                        let slowness = disorder.slowness(lane, &step);
                        assert!(slowness == 0 || (1_000_000..=60_000_000).contains(&slowness));
                        let swap = disorder.swap(&step);
                        if slowness > 0 || matches!(swap, Swap::Delayed { .. }) {
                            behind += 1;
                        }
                        all += 1;
                    }
                }
                let measured = f64::from(behind) / f64::from(all);
                assert!((measured - share).abs() < 0.02, "{measured} for {share}, {users} users");
            }
        }
    }

    #[test]
    fn the_delay_of_a_user_is_always_the_same() {
        let (_, lanes, disorder) = disorder(&GeneratorOptions::default());
        for lane in 0..lanes.count {
            let first = disorder.slowness(lane, &lanes.step(lane, 0));
            for round in 1..200 {
                assert_eq!(disorder.slowness(lane, &lanes.step(lane, round)), first);
            }
        }
    }

    #[test]
    fn swaps_come_in_pairs_within_a_visit() {
        let (_, lanes, disorder) = disorder(&GeneratorOptions::default());
        let mut swaps = 0;
        for lane in 0..lanes.count {
            for round in 0..1_000 {
                let (one, two) = (lanes.step(lane, round), lanes.step(lane, round + 1));
                if disorder.swap(&one) == Swap::Early {
                    assert_eq!(one.visit, two.visit);
                    assert!(matches!(disorder.swap(&two), Swap::Delayed { .. }));
                    swaps += 1;
                }
            }
        }
        assert!(swaps > 1_000, "{swaps}");
    }

    #[test]
    fn a_swapped_event_happened_between_its_neighbours_and_not_too_long_ago() {
        let options = GeneratorOptions::default();
        let (clock, lanes, disorder) = disorder(&options);
        for lane in 0..lanes.count {
            for round in 0..100 {
                let arrival = clock.arrival(0, lanes.record(round, lane));
                for bits in [0, 1 << 31, u32::MAX] {
                    let happened =
                        disorder.before_swap((&clock, &lanes), (0, lane), (round, arrival), bits);
                    assert!(arrival - happened < 60_000_000);
                    if round >= 2 {
                        let at = |round| clock.arrival(0, lanes.record(round, lane)) - TRANSPORT;
                        assert!((at(round - 2)..at(round - 1)).contains(&happened));
                    }
                }
            }
        }
    }

    #[test]
    fn late_records_are_as_late_as_asked_for() {
        let (_, _, disorder) = disorder(&GeneratorOptions::default());
        assert_eq!(disorder.lateness(0), 180_000_000);
        assert_eq!(disorder.lateness(u32::MAX), 900_000_000);
    }
}
