//! The event generator: the activity of imagined users on an imagined site, without end.
//!
//! Record n of split s is a pure function of the options (the seed and the start time among them),
//! s and n. There is no state that is carried from record to record: reading can begin at any
//! position at once, and always gives the same bytes. How fast records are taken makes no
//! difference to them; time is simulated, and record n arrives when it arrives.
//!
//! The events are made to resemble those of a real site:
//! - **Users** visit the site again and again, some more often than others. A visit begins with
//!   `session_start`, goes from page to page with clicks and other events on them, and in six of
//!   ten cases ends with `session_end`. All of a user's events are in one split, and no user is
//!   in two visits at once.
//! - **Pages** are as popular as Zipf's law has it.
//! - **Disorder**: some users are always behind, some events are swapped within a visit, few are
//!   late by minutes.
//! - **Malformed** records come in all the ways there are ([`Flaw`]).
//! - What the format permits occurs: identifiers that are numbers, other forms of time, additional
//!   fields, a page that is `null`.
//!
//! ```text
//! let generator = Generator::new(&GeneratorOptions::default())?;
//! let mut reader = generator.reader(0, position);
//! let (mut arena, mut spans) = (Vec::new(), Vec::new());
//! reader.fill(&mut arena, &mut spans, 1_000);
//! ```

mod clock;
mod disorder;
mod malformed;
mod options;
mod pages;
mod record;
mod rng;
mod split;
#[cfg(test)]
mod tests;
mod time_text;
mod visits;

use std::sync::Arc;

use clock::Clock;
use disorder::Disorder;
use pages::Pages;
use rng::{Chance, Purpose};
use visits::{Divisions, Lanes};

pub use malformed::Flaw;
pub use options::{CONTENT_VERSION, GeneratorOptions, OptionsError};
pub use split::{GeneratedSpan, Kind, SplitGenerator};

/// Everything that is computed once from the options. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Generator {
    inner: Arc<Inner>,
}

/// What the readers of all splits share.
#[derive(Debug)]
struct Inner {
    clock: Clock,
    pages: Pages,
    splits: Vec<Split>,
    malformed: Chance,
    malformed_or_late: Chance,
    /// The chance of anything that is decided for a record on its own.
    special: Chance,
    extra: Chance,
}

/// What is particular to a split.
#[derive(Debug)]
struct Split {
    lanes: Lanes,
    disorder: Disorder,
    record_key: u64,
}

impl Generator {
    /// Prepares the generator; takes a moment and some memory for very many pages or splits only.
    ///
    /// # Errors
    ///
    /// The first option that cannot be used.
    pub fn new(options: &GeneratorOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let clock = Clock {
            start: options.start_time_micros,
            splits: u64::from(options.splits),
            rate: options.events_per_second,
        };
        let divisions = Divisions::new();
        let splits = (0..options.splits).map(|split| {
            let lanes = Lanes::new(options, &divisions, split);
            let disorder = Disorder::new(options, &lanes, &clock);
            let record_key = rng::stream(options.seed, Purpose::Record, split);
            Split { lanes, disorder, record_key }
        });
        let malformed = Chance::new(options.malformed);
        let malformed_or_late = malformed.or(Chance::new(options.late));
        let plain = 1.0 - options.malformed - options.late;
        let other_forms = Chance::new(options.other_time_forms * plain.max(0.0));
        let inner = Inner {
            clock,
            pages: Pages::new(options.pages),
            splits: splits.collect(),
            malformed,
            malformed_or_late,
            special: malformed_or_late.or(other_forms),
            extra: Chance::new(options.extra_fields),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The number of splits.
    #[must_use]
    pub fn splits(&self) -> u32 {
        self.inner.splits.len() as u32
    }

    /// A reader of `split` whose first record is number `from`.
    ///
    /// # Panics
    ///
    /// If there is no such split.
    #[must_use]
    pub fn reader(&self, split: u32, from: u64) -> SplitGenerator {
        assert!(split < self.splits(), "split {split} of a generator with {}", self.splits());
        SplitGenerator::new(Arc::clone(&self.inner), split, from)
    }

    /// Simulated arrival of record `n` of `split`, in microseconds since 1970; it never decreases
    /// with n.
    #[must_use]
    pub fn arrival(&self, split: u32, n: u64) -> i64 {
        self.inner.clock.arrival(split, n)
    }

    /// The number of the first record of `split` that arrives at `arrival_micros` or later.
    #[must_use]
    pub fn next_at_or_after(&self, split: u32, arrival_micros: i64) -> u64 {
        self.inner.clock.next_at_or_after(split, arrival_micros)
    }
}
