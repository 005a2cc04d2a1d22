//! Tumbling and sliding windows, cut into panes.
//!
//! Windows are half-open, `[start, end)`, and aligned to the epoch in UTC. A *pane* is as long as
//! the greatest common divisor of size and slide, so that each window is a whole number of panes:
//!
//! ```text
//! size 5 min, slide 1 min        panes   |10:00|10:01|10:02|10:03|10:04|10:05|
//!                                windows [-----------------------------)
//!                                              [-----------------------------)
//! ```
//!
//! A record is added to one pane however many windows it is in (*shared panes*, as in Li et al.,
//! "No pane, no gain", SIGMOD Record 2005); windows are merged from panes when they fire.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A window: from `start` inclusive to `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first instant in the window.
    pub start: Timestamp,
    /// The first instant after the window.
    pub end: Timestamp,
}

/// A result with its window and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windowed<K, V> {
    /// The window.
    pub window: Window,
    /// The key; `()` if there is none.
    pub key: K,
    /// The result.
    pub value: V,
}

/// Assigns times to windows of one size that begin at multiples of one slide.
pub trait WindowAssigner: Clone + Send + Sync + 'static {
    /// The length of a window.
    fn size(&self) -> Duration;
    /// The time from the start of a window to the start of the next one; at most the size.
    fn slide(&self) -> Duration;
    /// How long after its end a window still takes late events: its final result comes then, and
    /// what it is at its end and later is a running value.
    fn lateness(&self) -> Duration;
}

/// Windows of one size, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tumbling {
    size: Duration,
    lateness: Duration,
}

impl Tumbling {
    /// Windows of this size, aligned to the epoch.
    #[must_use]
    pub fn of(size: Duration) -> Self {
        Self { size, lateness: Duration::ZERO }
    }

    /// Takes late events until this long after the window's end. Zero: the default.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = lateness;
        self
    }
}

impl WindowAssigner for Tumbling {
    fn size(&self) -> Duration {
        self.size
    }
    fn slide(&self) -> Duration {
        self.size
    }
    fn lateness(&self) -> Duration {
        self.lateness
    }
}

/// Windows of one size that begin every `slide`, so that they overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sliding {
    size: Duration,
    slide: Duration,
    lateness: Duration,
}

impl Sliding {
    /// Windows of this size every `slide`, aligned to the epoch.
    #[must_use]
    pub fn of(size: Duration, slide: Duration) -> Self {
        Self { size, slide, lateness: Duration::ZERO }
    }

    /// Takes late events until this long after the window's end. Zero: the default.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = lateness;
        self
    }
}

impl WindowAssigner for Sliding {
    fn size(&self) -> Duration {
        self.size
    }
    fn slide(&self) -> Duration {
        self.slide
    }
    fn lateness(&self) -> Duration {
        self.lateness
    }
}

/// What lateness a record has for one aggregate (rule T3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lateness {
    /// In time for every window that it is in.
    OnTime,
    /// Too late for the windows that end before this one.
    From(Timestamp),
    /// Too late for all of them.
    Late,
}

/// The arithmetic of an assigner, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panes {
    size: i64,
    slide: i64,
    pane: i64,
    lateness: Duration,
}

impl Panes {
    /// The arithmetic of `assigner`, or what is wrong with it.
    pub(crate) fn new(assigner: &impl WindowAssigner) -> Result<Self, String> {
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        let (size, slide) = (micros(assigner.size()), micros(assigner.slide()));
        if slide < 1 || size < slide {
            return Err(format!(
                "a window of size {:?} and slide {:?} is not possible: the slide must be at least 1 µs and at most the size",
                assigner.size(),
                assigner.slide()
            ));
        }
        if size / gcd(size, slide) > 100_000 {
            return Err(format!(
                "a window of size {:?} and slide {:?} has more than 100,000 panes: choose a slide that divides the size",
                assigner.size(),
                assigner.slide()
            ));
        }
        Ok(Self { size, slide, pane: gcd(size, slide), lateness: assigner.lateness() })
    }

    /// The length of a pane.
    #[inline]
    pub(crate) fn pane(&self) -> i64 {
        self.pane
    }

    /// The end of the first window that ends after `time`: the first that contains it.
    #[inline]
    pub(crate) fn first_end(&self, time: i64) -> i64 {
        let x = time.saturating_sub(self.size);
        let start = x.saturating_sub(x.rem_euclid(self.slide)).saturating_add(self.slide);
        start.saturating_add(self.size)
    }

    /// The end of the last window that contains `time`.
    #[inline]
    pub(crate) fn last_end(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.slide)).saturating_add(self.size)
    }

    /// The ends of all windows that contain `time`, ascending.
    pub(crate) fn ends(&self, time: i64) -> impl Iterator<Item = i64> + use<> {
        let (mut end, last, slide) = (self.first_end(time), self.last_end(time), self.slide);
        std::iter::from_fn(move || {
            let this = end;
            end = end.saturating_add(slide);
            (this <= last).then_some(this)
        })
    }

    /// From the start of the first to the end of the last window that contains `time`.
    pub(crate) fn neighbours(&self, time: i64) -> (i64, i64) {
        (self.first_end(time).saturating_sub(self.size), self.last_end(time))
    }

    /// The window that ends at `end`.
    pub(crate) fn window(&self, end: i64) -> Window {
        Window {
            start: Timestamp::from_micros(end.saturating_sub(self.size)),
            end: Timestamp::from_micros(end),
        }
    }

    /// When the window that ends at `end` is final.
    pub(crate) fn fire_time(&self, end: i64) -> Timestamp {
        Timestamp::from_micros(end).saturating_add(self.lateness)
    }

    /// The fire time of the last window that starts before `from`.
    pub(crate) fn fired_before(&self, from: Timestamp) -> Timestamp {
        self.fire_time(self.last_end(from.previous().as_micros()))
    }

    pub(crate) fn is_tumbling(&self) -> bool {
        self.size == self.slide
    }

    pub(crate) fn allows_lateness(&self) -> bool {
        self.lateness > Duration::ZERO
    }

    /// Rule T3: a window is missed if its end (plus the allowed lateness) is not after the mark.
    pub(crate) fn lateness(&self, time: Timestamp, mark: Timestamp) -> Lateness {
        let t = time.as_micros();
        let reached = mark.saturating_sub(self.lateness).as_micros();
        if self.last_end(t) <= reached {
            Lateness::Late
        } else if self.first_end(t) <= reached {
            Lateness::From(Timestamp::from_micros(self.first_end(reached)))
        } else {
            Lateness::OnTime
        }
    }

    /// What a plan shows and a checkpoint compares.
    pub(crate) fn describe(&self) -> String {
        let size = Duration::from_micros(self.size.unsigned_abs());
        let mut text = format!("{size:?}");
        if !self.is_tumbling() {
            text += &format!(" every {:?}", Duration::from_micros(self.slide.unsigned_abs()));
        }
        if self.allows_lateness() {
            text += &format!(", late by up to {:?}", self.lateness);
        }
        text
    }
}

/// The start of the pane that `time` is in, where panes have this length.
#[inline]
pub(crate) fn pane_start(time: i64, length: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(length))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::{minutes, seconds};

    fn min(m: i64) -> i64 {
        m * 60_000_000
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn windows_are_half_open_and_aligned_to_the_epoch() {
        let panes = Panes::new(&Tumbling::of(minutes(1))).unwrap();
        assert_eq!(panes.ends(min(5)).collect::<Vec<_>>(), [min(6)]);
        assert_eq!(panes.ends(min(5) - 1).collect::<Vec<_>>(), [min(5)]);
        assert_eq!(panes.ends(-1).collect::<Vec<_>>(), [0]);
        let panes = Panes::new(&Sliding::of(minutes(5), minutes(1))).unwrap();
        assert_eq!(panes.ends(min(5)).collect::<Vec<_>>(), [6, 7, 8, 9, 10].map(min));
    }

    #[test]
    fn t3_a_window_is_missed_when_its_end_is_not_after_the_mark() {
        let panes = Panes::new(&Sliding::of(minutes(5), minutes(1))).unwrap();
        let time = at(min(5));
        assert_eq!(panes.lateness(time, at(min(6) - 1)), Lateness::OnTime);
        assert_eq!(panes.lateness(time, at(min(6))), Lateness::From(at(min(7))));
        assert_eq!(panes.lateness(time, at(min(10) - 1)), Lateness::From(at(min(10))));
        assert_eq!(panes.lateness(time, at(min(10))), Lateness::Late);
        let patient = Sliding::of(minutes(5), minutes(1)).allowed_lateness(minutes(1));
        let panes = Panes::new(&patient).unwrap();
        assert_eq!(panes.lateness(time, at(min(10))), Lateness::From(at(min(10))));
        assert_eq!(panes.lateness(time, at(min(11))), Lateness::Late);
    }

    #[test]
    fn an_impossible_window_says_why() {
        assert!(Panes::new(&Sliding::of(minutes(1), minutes(2))).unwrap_err().contains("slide"));
        assert!(Panes::new(&Tumbling::of(Duration::ZERO)).is_err());
        assert!(Panes::new(&Sliding::of(minutes(5), Duration::from_micros(7))).is_err());
    }

    proptest! {
        #[test]
        fn a_time_is_in_exactly_the_windows_that_it_is_assigned_to(
            t in -10_000_000_000i64..10_000_000_000, k in 1u64..8, slide in 1u64..100,
        ) {
            let panes = Panes::new(&Sliding::of(seconds(slide * k), seconds(slide))).unwrap();
            let ends: Vec<i64> = panes.ends(t).collect();
            prop_assert_eq!(ends.len() as u64, k);
            for end in ends {
                let window = panes.window(end);
                prop_assert!(window.start <= at(t) && at(t) < window.end);
                let pane = pane_start(t, panes.pane());
                prop_assert!(window.start.as_micros() <= pane && pane + panes.pane <= end);
            }
        }
    }
}
