//! Contenders take turns, so that whatever else the machine does hits all of them.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

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
    /// What the processors worked for it in each round, on all threads of this process.
    pub cpu: Vec<Duration>,
}

impl Times {
    /// The middle one.
    #[must_use]
    pub fn median(&self) -> Duration {
        middle(&self.rounds)
    }

    /// The middle one of the processors' times.
    #[must_use]
    pub fn median_cpu(&self) -> Duration {
        middle(&self.cpu)
    }

    /// Prints a line: nanoseconds and processor time for each of `events`, and events per second.
    pub fn print(&self, events: usize, remark: &str) {
        let each = |time: Duration| time.as_secs_f64() * 1e9 / events as f64;
        let best = self.rounds.iter().min().copied().unwrap_or_default();
        let median = each(self.median());
        println!(
            "  {:<24} {median:>7.1} ns/event (best {:>6.1}, CPU {:>6.1}) {:>7.2} M events/s{}{remark}",
            self.name,
            each(best),
            each(self.median_cpu()),
            1e3 / median,
            if remark.is_empty() { "" } else { "   " },
        );
    }

    /// The median over the rounds of how many times as fast as `other` this is.
    #[must_use]
    pub fn speed_to(&self, other: &Self) -> f64 {
        middle_ratio(&other.rounds, &self.rounds)
    }

    /// The same by the processors' time: for contenders of one thread each it is the better measure,
    /// since it does not see who else wants the processor.
    #[must_use]
    pub fn cpu_speed_to(&self, other: &Self) -> f64 {
        middle_ratio(&other.cpu, &self.cpu)
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
    measured(contenders, rounds)
}

/// Runs every contender `rounds` times, in turn.
#[must_use]
pub fn measured(contenders: &mut [Contender<'_>], rounds: usize) -> Vec<Times> {
    let mut times: Vec<Times> =
        contenders.iter().map(|c| Times { name: c.name, rounds: vec![], cpu: vec![] }).collect();
    for _ in 0..rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let (wall, cpu) = timed(&mut contender.run);
            times.rounds.push(wall);
            times.cpu.push(cpu);
        }
    }
    times
}

/// Runs it once: how long it took, and what the processors worked for it.
#[expect(clippy::disallowed_methods, reason = "a bench is there to ask the time")]
fn timed(run: &mut dyn FnMut() -> Outcome) -> (Duration, Duration) {
    let (start, worked) = (Instant::now(), cpu());
    std::hint::black_box(run());
    (start.elapsed(), cpu().saturating_sub(worked))
}

/// What the processors have worked for this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn middle(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn middle_ratio(theirs: &[Duration], ours: &[Duration]) -> f64 {
    let pairs = theirs.iter().zip(ours);
    let mut ratios: Vec<f64> =
        pairs.map(|(theirs, ours)| theirs.as_secs_f64() / ours.as_secs_f64()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or_default()
}
