//! How the input grows while a run lasts.

use std::time::Duration;

use streamkit::time::{Clock, SystemClock};

use super::app::App;
use super::place::Place;
use crate::oracle::generate::Random;

const LOOK: Duration = Duration::from_millis(5);
/// Before this, a run reads what was there at its start.
const AT_FIRST: Duration = Duration::from_millis(100);

/// Feeds one run.
pub struct Feeder {
    clock: SystemClock,
    share: f64,
    step: f64,
    to: f64,
    next: Duration,
    /// If splits are to go idle and come back: how long one step lasts.
    idle: Option<(Duration, Random)>,
}

impl Feeder {
    /// From one share of the input to another; what is left then comes before the next run.
    pub fn new([from, to]: [f64; 2], idle: Option<(Duration, Random)>) -> Self {
        let step = (to - from) / 10.0;
        Self { clock: SystemClock::new(), share: from, step, to, next: AT_FIRST, idle }
    }

    /// How long the run has lasted.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Until this time of the run, or its end.
    pub fn until(&mut self, time: Duration, place: &mut Place, app: &mut App) {
        while app.ended().is_none() && self.elapsed() < time {
            if self.share < self.to && self.elapsed() >= self.next {
                self.share = self.to.min(self.share + self.step);
                if let Some((pause, random)) = &mut self.idle {
                    place.quieten(random);
                    self.next += *pause;
                }
                place.feed(self.share);
            }
            std::thread::sleep(LOOK);
        }
    }
}
