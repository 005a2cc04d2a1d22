//! A point in time.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z; negative before.
///
/// All arithmetic either checks or saturates; none wraps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every time. The watermark of a stream of which nothing is known yet.
    pub const MIN: Self = Self(i64::MIN);
    /// After every time.
    pub const MAX: Self = Self(i64::MAX);

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From seconds since the epoch; [`MIN`](Self::MIN) or [`MAX`](Self::MAX) if out of range.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// From milliseconds since the epoch; `None` if microseconds cannot hold it.
    pub const fn from_millis(millis: i64) -> Option<Self> {
        match millis.checked_mul(1_000) {
            Some(micros) => Some(Self(micros)),
            None => None,
        }
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Later by `by`; [`MAX`](Self::MAX) if that is out of range.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(to_micros(by)))
    }

    /// Earlier by `by`; [`MIN`](Self::MIN) if that is out of range.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(to_micros(by)))
    }

    /// Later by `by`; `None` if that is out of range.
    pub fn checked_add(self, by: Duration) -> Option<Self> {
        self.0.checked_add(to_micros(by)).map(Self)
    }

    /// The microsecond after this one; [`MAX`](Self::MAX) stays.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The microsecond before this one; [`MIN`](Self::MIN) stays.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The time from `earlier` to this one; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The latest multiple of `period`, counted from the epoch, that is not after this time.
    ///
    /// Rounds down, not towards zero: −1 µs floors to −`period`. Saturates at [`MIN`](Self::MIN).
    #[must_use]
    pub fn floor_to(self, period: Duration) -> Self {
        let period = to_micros(period).max(1);
        Self(self.0.saturating_sub(self.0.rem_euclid(period)))
    }
}

impl fmt::Display for Timestamp {
    /// `2026-01-01T00:00:00.123456Z`; six digits, so that texts compare as times do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_micros(self.0) {
            Some(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S%.6fZ")),
            None if *self == Self::MIN => f.write_str("(no time yet)"),
            None => write!(f, "{} µs", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whole microseconds of a duration; a duration too long for them becomes the longest.
pub(crate) fn to_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// `n` microseconds.
pub const fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// `n` milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `n` seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// `n` hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3_600)
}

/// `n` days of 24 hours.
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floors_towards_the_past_on_both_sides_of_the_epoch() {
        let floor = |t| Timestamp::from_micros(t).floor_to(seconds(60)).as_micros();
        assert_eq!(floor(0), 0);
        assert_eq!(floor(59_999_999), 0);
        assert_eq!(floor(60_000_000), 60_000_000);
        assert_eq!(floor(-1), -60_000_000);
        assert_eq!(floor(-60_000_000), -60_000_000);
        assert_eq!(Timestamp::MIN.floor_to(seconds(60)), Timestamp::MIN);
    }

    #[test]
    fn prints_six_digits_and_zulu() {
        assert_eq!(
            Timestamp::from_micros(1_767_225_600_000_001).to_string(),
            "2026-01-01T00:00:00.000001Z"
        );
    }

    proptest! {
        #[test]
        fn a_time_is_in_the_period_that_it_floors_to(t in -9_000_000_000_000_000i64..9_000_000_000_000_000, p in 1u64..10_000_000_000) {
            let (t, period) = (Timestamp::from_micros(t), micros(p));
            let start = t.floor_to(period);
            prop_assert!(start <= t && t < start.saturating_add(period));
            prop_assert_eq!(start.floor_to(period), start);
        }
    }
}
