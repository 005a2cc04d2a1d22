//! How long a sink waits: for a commit, for a message, before it tries again.

use std::time::Duration;

use crate::connector::SinkOptions;
use crate::time::{micros, millis, seconds};

pub(super) const FIRST_PAUSE: Duration = millis(100);
pub(super) const LONGEST_PAUSE: Duration = seconds(5);
/// A shorter nap would cost more than it saves.
pub(super) const SHORTEST_NAP: Duration = micros(50);

/// Between half and all of a pause, so that the sinks of many jobs, which one server's restart has
/// stopped at one moment, do not all come back at one moment (F61).
pub(super) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library seeds these from the system's random numbers.
    let random = RandomState::new().build_hasher().finish() >> 32;
    pause / 2 + (pause / 2).mul_f64(random as f64 / f64::from(u32::MAX))
}

/// How long a sink naps at most: too short to matter beside the time that its rows may wait for a
/// commit.
pub(super) fn longest_nap(within: Duration) -> Duration {
    (within / 10).clamp(millis(2), millis(5))
}

/// How long the next nap of a sink is, in whose queue so many messages have come during the last one:
/// it must not fill up, or the workers would wait.
pub(super) fn next_nap(last: Duration, came: usize, capacity: Option<usize>) -> Duration {
    let capacity = capacity.unwrap_or(usize::MAX);
    if came >= capacity / 8 {
        (last / 2).max(SHORTEST_NAP)
    } else if came < capacity / 32 {
        last * 2
    } else {
        last
    }
}

/// How long rows wait for a commit where nothing presses: as long as the last one took, if the sink
/// says so, but within its bounds.
pub(super) fn usual_wait(options: SinkOptions, last_commit: Duration) -> Duration {
    match options.commit_soonest {
        Some(soonest) => last_commit.max(soonest).min(options.commit_within),
        None => options.commit_within,
    }
}

/// Whether a sink cannot follow. A few batches come while any commit is made, but not so many.
pub(super) fn is_behind(waiting: usize, capacity: Option<usize>) -> bool {
    capacity.is_some_and(|capacity| waiting >= capacity / 4)
}

/// How long rows wait for a commit. While the sink is behind, a commit waits until it is a fifth of the
/// work at most, so that a backlog is not spent on waiting for commits; but not much longer than a
/// second.
pub(super) fn longest_wait(within: Duration, last_commit: Duration, behind: bool) -> Duration {
    if behind { within.max((last_commit * 4).min(seconds(1))) } else { within }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_wait_longer_only_while_the_sink_is_behind_and_commits_are_slow() {
        let (within, slow) = (millis(50), millis(100));
        assert_eq!(longest_wait(within, slow, false), within);
        assert_eq!(longest_wait(within, slow, true), millis(400));
        assert_eq!(longest_wait(within, millis(5), true), within);
        assert_eq!(longest_wait(within, seconds(9), true), seconds(1));
        assert_eq!(longest_wait(seconds(300), slow, true), seconds(300));
    }

    #[test]
    fn rows_wait_as_long_as_the_last_commit_took_within_the_bounds_of_the_sink() {
        let eager = SinkOptions::default().commit_within(millis(200)).commit_soonest(millis(10));
        assert_eq!(usual_wait(eager, millis(3)), millis(10));
        assert_eq!(usual_wait(eager, millis(35)), millis(35));
        assert_eq!(usual_wait(eager, seconds(9)), millis(200));
        let fixed = SinkOptions::default().commit_within(millis(200));
        assert_eq!(usual_wait(fixed, millis(3)), millis(200));
        let low = SinkOptions::default().commit_within(millis(5)).commit_soonest(millis(10));
        assert_eq!(usual_wait(low, millis(3)), millis(5), "the bound that was promised");
    }

    #[test]
    fn a_sink_is_behind_when_a_quarter_of_its_queue_waits() {
        assert!(!is_behind(31, Some(128)) && is_behind(32, Some(128)));
        assert!(!is_behind(1_000, None));
    }

    #[test]
    fn naps_are_shorter_while_the_queue_fills_and_longer_while_it_does_not() {
        assert_eq!(next_nap(millis(4), 16, Some(128)), millis(2));
        assert_eq!(next_nap(millis(4), 15, Some(128)), millis(4));
        assert_eq!(next_nap(millis(4), 3, Some(128)), millis(8));
        assert_eq!(next_nap(SHORTEST_NAP, 128, Some(128)), SHORTEST_NAP);
    }

    #[test]
    fn f61_pauses_differ_and_are_never_longer_than_said() {
        let pauses: Vec<_> = (0..100).map(|_| jittered(LONGEST_PAUSE)).collect();
        assert!(pauses.iter().all(|p| (LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(p)));
        assert!(pauses.iter().any(|p| *p != pauses[0]));
    }
}
