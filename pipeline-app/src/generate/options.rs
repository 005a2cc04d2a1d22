//! What can be chosen about the generated events, and the one place where the choice is checked.

use std::fmt::Display;
use std::time::Duration;

use super::rng;

/// Raised whenever the same options produce other bytes than before. Part of
/// [`GeneratorOptions::fingerprint`].
pub const CONTENT_VERSION: u32 = 1;

/// The longest a record may be made to stay behind.
const LONGEST_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);
/// 2000-02-01T00:00:00Z: no event may fall before the year 2000, not even a late one.
const EARLIEST_START: i64 = 949_363_200_000_000;
/// 3000-01-01T00:00:00Z: a year has four digits for a long time to come.
const LATEST_START: i64 = 32_503_680_000_000_000;

/// The options of a [`Generator`](super::Generator). Everything it produces is a function of these
/// and of a record's split and number.
///
/// ```text
/// GeneratorOptions { events_per_second: 10_000, users: 1_000_000, ..Default::default() }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorOptions {
    /// Another seed, other events of the same kind. Default 1.
    pub seed: u64,
    /// Number of splits (partitions); a user's events are all in one of them. 1 to 4,096, default
    /// 4.
    pub splits: u32,
    /// Number of users, some more active than others. At least one per split, default 20,000.
    ///
    /// A user in a visit acts every ten seconds or so; if there are too few users for the rate,
    /// they act faster. 40 users per event per second are enough for unhurried visits.
    pub users: u32,
    /// Number of distinct page addresses. Their popularity follows Zipf's law: the second is seen
    /// half as often as the first, the third a third as often. 1 to 1,000,000, default 200.
    pub pages: u32,
    /// Records per second of *simulated* time, over all splits: it decides how far apart the
    /// records are stamped, not how fast they are produced. 1 to 100,000,000, default 500.
    pub events_per_second: u64,
    /// Share of records that arrive out of order, from 0 to 1; default 0.2. Most come from users
    /// whose records always arrive late by the same amount, the others are swapped within a visit.
    pub out_of_order: f64,
    /// How far behind an out-of-order record may be; default 60 s. As long as it is shorter than
    /// the job's watermark delay (2 minutes), none of them is late.
    pub max_disorder: Duration,
    /// Share of late records, from 0 to 1; default 0.001.
    pub late: f64,
    /// The least a late record is behind; default 3 minutes. Longer than `max_disorder`.
    pub late_min: Duration,
    /// The most a late record is behind; default 15 minutes, at most 7 days.
    pub late_max: Duration,
    /// Share of records that cannot be used, for all the reasons there are; from 0 to 1, default
    /// 0.001.
    pub malformed: f64,
    /// Share of records with one or two more fields than the four of the format (`referrer`,
    /// `device`); from 0 to 1, default 0.3.
    pub extra_fields: f64,
    /// Share of records whose time is written in one of the other accepted forms (a number, an
    /// offset from UTC, a space in place of the T); from 0 to 1, default 0.03.
    pub other_time_forms: f64,
    /// Simulated arrival of the first record, in microseconds since 1970-01-01T00:00:00Z. From the
    /// year 2000 (February) to 2999, default 2026-01-01T00:00:00Z.
    pub start_time_micros: i64,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            splits: 4,
            users: 20_000,
            pages: 200,
            events_per_second: 500,
            out_of_order: 0.2,
            max_disorder: Duration::from_secs(60),
            late: 0.001,
            late_min: Duration::from_secs(3 * 60),
            late_max: Duration::from_secs(15 * 60),
            malformed: 0.001,
            extra_fields: 0.3,
            other_time_forms: 0.03,
            start_time_micros: 1_767_225_600_000_000,
        }
    }
}

/// An option that cannot be used: which one, its value, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("generator option `{option}` is {value}, but {rule}")]
pub struct OptionsError {
    option: &'static str,
    value: String,
    rule: String,
}

impl OptionsError {
    /// The name of the option, as the field of [`GeneratorOptions`] is called.
    #[must_use]
    pub fn option(&self) -> &'static str {
        self.option
    }
}

/// An error unless `holds`.
fn check(
    holds: bool,
    option: &'static str,
    value: impl Display,
    rule: impl Display,
) -> Result<(), OptionsError> {
    if holds {
        return Ok(());
    }
    Err(OptionsError { option, value: value.to_string(), rule: rule.to_string() })
}

impl GeneratorOptions {
    /// Checks all options.
    ///
    /// # Errors
    ///
    /// The first option that cannot be used.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let splits = self.splits;
        check((1..=4_096).contains(&splits), "splits", splits, "must be from 1 to 4096")?;
        check(
            (splits..=1_000_000_000).contains(&self.users),
            "users",
            self.users,
            format_args!(
                "must be from {splits} (one for each of the {splits} splits) to 1000000000: \
                 choose more users or fewer splits"
            ),
        )?;
        let pages = self.pages;
        check((1..=1_000_000).contains(&pages), "pages", pages, "must be from 1 to 1000000")?;
        let rate = self.events_per_second;
        check(
            (1..=100_000_000).contains(&rate),
            "events_per_second",
            rate,
            "must be from 1 to 100000000: it is the rate in simulated time, not the pace",
        )?;
        for (option, share) in [
            ("out_of_order", self.out_of_order),
            ("late", self.late),
            ("malformed", self.malformed),
            ("extra_fields", self.extra_fields),
            ("other_time_forms", self.other_time_forms),
        ] {
            let rule = "must be a share from 0 to 1: write 0.2 for 20 %";
            check((0.0..=1.0).contains(&share), option, share, rule)?;
        }
        check(
            self.late + self.malformed <= 1.0,
            "late",
            self.late,
            format_args!("must be at most 1 together with `malformed` ({})", self.malformed),
        )?;
        let text = |duration: Duration| format!("{duration:?}");
        check(
            self.max_disorder <= LONGEST_DELAY,
            "max_disorder",
            text(self.max_disorder),
            "must be at most 7 days; keep it below the job's watermark delay",
        )?;
        check(
            self.max_disorder >= Duration::from_millis(1) || self.out_of_order == 0.0,
            "max_disorder",
            text(self.max_disorder),
            "must be at least 1 ms: for events in order choose `out_of_order` 0",
        )?;
        check(
            self.late_min > self.max_disorder || self.late == 0.0,
            "late_min",
            text(self.late_min),
            format_args!(
                "must be longer than `max_disorder` ({:?}), or late records are not late",
                self.max_disorder
            ),
        )?;
        check(
            self.late_max >= self.late_min && self.late_max <= LONGEST_DELAY,
            "late_max",
            text(self.late_max),
            format_args!("must be from `late_min` ({:?}) to 7 days", self.late_min),
        )?;
        check(
            (EARLIEST_START..LATEST_START).contains(&self.start_time_micros),
            "start_time_micros",
            self.start_time_micros,
            "must be from 2000-02-01T00:00:00Z (949363200000000) to before 3000-01-01T00:00:00Z, \
             in microseconds since 1970",
        )
    }

    /// A number that stands for everything these options produce: equal for equal options, and
    /// different after any change, of an option or of the generator ([`CONTENT_VERSION`]). Stored
    /// with a position, it shows whether the position still means the same records.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        // Taken apart, so that a new option cannot be forgotten.
        let Self {
            seed,
            splits,
            users,
            pages,
            events_per_second,
            out_of_order,
            max_disorder,
            late,
            late_min,
            late_max,
            malformed,
            extra_fields,
            other_time_forms,
            start_time_micros,
        } = self;
        let micros = |duration: &Duration| duration.as_micros() as u64;
        [
            u64::from(CONTENT_VERSION),
            *seed,
            u64::from(*splits),
            u64::from(*users),
            u64::from(*pages),
            *events_per_second,
            out_of_order.to_bits(),
            micros(max_disorder),
            late.to_bits(),
            micros(late_min),
            micros(late_max),
            malformed.to_bits(),
            extra_fields.to_bits(),
            other_time_forms.to_bits(),
            *start_time_micros as u64,
        ]
        .into_iter()
        .fold(0, rng::at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(GeneratorOptions::default().validate(), Ok(()));
    }

    #[test]
    fn every_unusable_value_is_refused_by_name() {
        type Change = fn(&mut GeneratorOptions);
        let cases: [(&str, Change); 19] = [
            ("splits", |o| o.splits = 0),
            ("splits", |o| o.splits = 4_097),
            ("users", |o| o.users = 3),
            ("users", |o| o.users = 1_000_000_001),
            ("pages", |o| o.pages = 0),
            ("pages", |o| o.pages = 1_000_001),
            ("events_per_second", |o| o.events_per_second = 0),
            ("events_per_second", |o| o.events_per_second = 100_000_001),
            ("out_of_order", |o| o.out_of_order = 1.01),
            ("out_of_order", |o| o.out_of_order = f64::NAN),
            ("late", |o| o.late = -0.1),
            ("late", |o| (o.late, o.malformed) = (0.6, 0.6)),
            ("malformed", |o| o.malformed = f64::INFINITY),
            ("extra_fields", |o| o.extra_fields = 30.0),
            ("other_time_forms", |o| o.other_time_forms = -1.0),
            ("max_disorder", |o| o.max_disorder = Duration::ZERO),
            ("late_min", |o| o.late_min = Duration::from_secs(60)),
            ("late_max", |o| o.late_max = Duration::from_secs(60)),
            ("start_time_micros", |o| o.start_time_micros = 0),
        ];
        for (option, change) in cases {
            let mut options = GeneratorOptions::default();
            change(&mut options);
            let error = options.validate().expect_err(option);
            assert_eq!(error.option(), option, "{error}");
            assert!(error.to_string().starts_with("generator option `"), "{error}");
            assert_ne!(options.fingerprint(), GeneratorOptions::default().fingerprint());
        }
    }

    #[test]
    fn errors_name_the_option_its_value_and_the_remedy() {
        let options = GeneratorOptions { users: 3, ..GeneratorOptions::default() };
        assert_eq!(
            options.validate().expect_err("too few").to_string(),
            "generator option `users` is 3, but must be from 4 (one for each of the 4 splits) to \
             1000000000: choose more users or fewer splits"
        );
    }

    #[test]
    fn nothing_needs_to_be_set_for_what_is_switched_off() {
        let options = GeneratorOptions {
            out_of_order: 0.0,
            max_disorder: Duration::ZERO,
            late: 0.0,
            late_min: Duration::ZERO,
            late_max: Duration::ZERO,
            ..GeneratorOptions::default()
        };
        assert_eq!(options.validate(), Ok(()));
    }

    #[test]
    fn the_fingerprint_is_stable() {
        assert_eq!(GeneratorOptions::default().fingerprint(), 3_449_789_120_641_121_268);
    }
}
