//! Records per second, over the last few seconds.

use std::collections::VecDeque;
use std::time::Duration;

/// What the rate is averaged over.
const SPAN: Duration = Duration::from_secs(3);

/// A count at several moments.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    seen: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Notes a count at a moment, and says how fast it has grown.
    pub fn update(&mut self, at: Duration, count: u64) -> f64 {
        // A count that has gone back is another job's, or not known yet.
        if self.seen.back().is_some_and(|&(last, n)| n > count || last > at) {
            self.seen.clear();
        }
        self.seen.push_back((at, count));
        // One that is older than the span stays, as the other end of it.
        while self.seen.get(1).is_some_and(|&(next, _)| at.saturating_sub(next) >= SPAN) {
            self.seen.pop_front();
        }
        let Some(&(first, n)) = self.seen.front() else { return 0.0 };
        let span = at.saturating_sub(first).as_secs_f64();
        if span > 0.0 { (count - n) as f64 / span } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_within_its_span() {
        let mut rate = Rate::default();
        let at = Duration::from_millis;
        assert_eq!(rate.update(at(0), 0), 0.0);
        assert_eq!(rate.update(at(1_000), 100), 100.0);
        assert_eq!(rate.update(at(2_000), 200), 100.0);
        for second in 3..10 {
            rate.update(at(second * 1_000), 200);
        }
        assert_eq!(rate.update(at(10_000), 200), 0.0);
        assert_eq!(rate.update(at(11_000), 100), 0.0, "a new start");
    }
}
