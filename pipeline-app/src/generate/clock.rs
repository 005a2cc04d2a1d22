//! Simulated time: when record n of a split arrives, and which record arrives at a given time.

/// The arrival times of all records of all splits.
///
/// The splits take turns: record n of split s is number `n · splits + s` of all, and number g
/// arrives `g / rate` seconds after the start, rounded down to a microsecond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) start: i64,
    pub(super) splits: u64,
    pub(super) rate: u64,
}

impl Clock {
    /// Arrival of record `n` of `split`, in microseconds since 1970; the largest number there is
    /// if it does not fit.
    pub(super) fn arrival(&self, split: u32, n: u64) -> i64 {
        let product = n
            .checked_mul(self.splits)
            .and_then(|g| g.checked_add(u64::from(split)))
            .and_then(|g| g.checked_mul(1_000_000));
        let offset = match product {
            Some(product) => u128::from(product / self.rate),
            None => {
                let g = u128::from(n) * u128::from(self.splits) + u128::from(split);
                g * 1_000_000 / u128::from(self.rate)
            }
        };
        self.start.saturating_add(i64::try_from(offset).unwrap_or(i64::MAX))
    }

    /// The first record of `split` that arrives at `micros` or later.
    pub(super) fn next_at_or_after(&self, split: u32, micros: i64) -> u64 {
        let Ok(offset) = u128::try_from(i128::from(micros) - i128::from(self.start)) else {
            return 0;
        };
        // floor(g · 10⁶ / rate) ≥ offset exactly if g · 10⁶ ≥ offset · rate.
        let g = (offset * u128::from(self.rate)).div_ceil(1_000_000);
        let n = g.saturating_sub(u128::from(split)).div_ceil(u128::from(self.splits));
        u64::try_from(n).unwrap_or(u64::MAX)
    }

    /// The least number of microseconds between two records of one split.
    pub(super) fn period(&self) -> i64 {
        (self.splits * 1_000_000 / self.rate) as i64
    }

    /// The clock as it reads at record `n` of `split`, ready to go on.
    pub(super) fn ticks(&self, split: u32, n: u64) -> Ticks {
        let g = u128::from(n) * u128::from(self.splits) + u128::from(split);
        let step = self.splits * 1_000_000;
        Ticks {
            now: self.arrival(split, n),
            rest: (g * 1_000_000 % u128::from(self.rate)) as u64,
            step: (step / self.rate) as i64,
            step_rest: step % self.rate,
            rate: self.rate,
        }
    }
}

/// The arrivals of one split in sequence, by addition only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    now: i64,
    rest: u64,
    step: i64,
    step_rest: u64,
    rate: u64,
}

impl Ticks {
    /// Arrival of the current record.
    #[inline]
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Goes on to the next record.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.now = self.now.saturating_add(self.step);
        self.rest += self.step_rest;
        if self.rest >= self.rate {
            self.rest -= self.rate;
            self.now = self.now.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCKS: [Clock; 5] = [
        Clock { start: 0, splits: 4, rate: 500 },
        Clock { start: 1_767_225_600_000_000, splits: 1, rate: 1 },
        Clock { start: -17, splits: 3, rate: 700_001 },
        Clock { start: 5, splits: 7, rate: 100_000_000 },
        Clock { start: 5, splits: 65_536, rate: 999 },
    ];

    #[test]
    fn splits_take_turns() {
        let clock = CLOCKS[0];
        assert_eq!(clock.arrival(0, 0), 0);
        assert_eq!(clock.arrival(3, 0), 6_000);
        assert_eq!(clock.arrival(0, 1), 8_000);
        assert_eq!(clock.arrival(1, 125), 1_002_000);
        assert_eq!(clock.period(), 8_000);
    }

    #[test]
    fn ticks_are_arrivals() {
        for clock in CLOCKS {
            for from in [0, 1, 1_000_003] {
                let split = (clock.splits - 1) as u32;
                let mut ticks = clock.ticks(split, from);
                for n in from..from + 2_000 {
                    assert_eq!(ticks.now(), clock.arrival(split, n));
                    ticks.advance();
                }
            }
        }
    }

    #[test]
    fn the_record_at_a_time_is_the_first_one_not_before_it() {
        for clock in CLOCKS {
            let split = (clock.splits / 2) as u32;
            for n in (0..2_000).chain([u64::from(u32::MAX) * 3]) {
                for micros in clock.arrival(split, n) - 1..=clock.arrival(split, n) + 1 {
                    let found = clock.next_at_or_after(split, micros);
                    assert!(clock.arrival(split, found) >= micros);
                    assert!(found == 0 || clock.arrival(split, found - 1) < micros);
                }
            }
            assert_eq!(clock.next_at_or_after(split, i64::MIN), 0);
        }
    }

    #[test]
    fn far_away_it_stops_at_the_largest_time() {
        assert_eq!(CLOCKS[1].arrival(0, u64::MAX), i64::MAX);
        let _ = CLOCKS[3].next_at_or_after(0, i64::MAX);
        let mut ticks = CLOCKS[1].ticks(0, u64::MAX);
        ticks.advance();
        assert_eq!(ticks.now(), i64::MAX);
    }
}
