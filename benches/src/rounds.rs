//! Contenders take turns, so that whatever else the machine does hits all of them.

use std::time::{Duration, Instant};

use crate::outcome::Outcome;

/// One of those that are compared.
#[expect(missing_debug_implementations, reason = "it is a closure")]
pub struct Contender<'a> {
    /// Its name in the table.
    pub name: &'static str,
    /// Does the work once.
    pub run: Box<dyn FnMut() -> Outcome + 'a>,
}

/// How long a contender took in each round.
#[derive(Debug, Clone)]
pub struct Times {
    /// Its name.
    pub name: &'static str,
    /// In order of the rounds.
    pub rounds: Vec<Duration>,
}

impl Times {
    /// The middle one.
    #[must_use]
    pub fn median(&self) -> Duration {
        let mut sorted = self.rounds.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The median over the rounds of how many times as fast as `other` this is.
    #[must_use]
    pub fn speed_to(&self, other: &Self) -> f64 {
        let pairs = other.rounds.iter().zip(&self.rounds);
        let mut ratios: Vec<f64> =
            pairs.map(|(theirs, ours)| theirs.as_secs_f64() / ours.as_secs_f64()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or_default()
    }
}

/// Runs every contender once for its result, which must be that of the first, and then `rounds`
/// times for its time, in turn.
///
/// # Panics
/// If two of them come to different results: then no time means anything.
#[must_use]
pub fn interleaved(contenders: &mut [Contender<'_>], rounds: usize) -> Vec<Times> {
    let mut expected: Option<(&str, Outcome)> = None;
    for contender in &mut *contenders {
        let outcome = (contender.run)();
        match &expected {
            None => expected = Some((contender.name, outcome)),
            Some((name, first)) => {
                assert_eq!(&outcome, first, "{} is not of one mind with {name}", contender.name);
            }
        }
    }
    let mut times: Vec<Times> =
        contenders.iter().map(|c| Times { name: c.name, rounds: vec![] }).collect();
    for _ in 0..rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            times.rounds.push(timed(&mut contender.run));
        }
    }
    times
}

#[expect(clippy::disallowed_methods, reason = "a bench is there to ask the time")]
fn timed(run: &mut dyn FnMut() -> Outcome) -> Duration {
    let start = Instant::now();
    std::hint::black_box(run());
    start.elapsed()
}
