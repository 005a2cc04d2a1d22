//! Back-pressure, decided in one place: when to stop fetching, for which partition.
//!
//! Pausing a partition throws away what the client has fetched of it ahead, so it is the last
//! resort. As long as every partition has enough at hand, the thread just waits, the client's own
//! queue fills up and it stops asking the broker. Only a partition that nobody reads while others
//! want more is paused.

/// What one partition's queue looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Bytes in the queue.
    pub(super) bytes: usize,
    pub(super) paused: bool,
    /// There is nothing more to fetch at the moment.
    pub(super) at_end: bool,
}

/// What to do about one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    Leave,
    Pause,
    Resume,
}

/// The bound of one partition's queue if all of them together may hold `total`.
pub(super) fn lane_limit(total: usize, lanes: usize) -> usize {
    (total / lanes.max(1)).clamp(256 << 10, 8 << 20)
}

/// Whether to pause or to resume a partition whose queue should not exceed `limit`.
pub(super) fn switch(load: Load, limit: usize) -> Switch {
    match load.paused {
        true if load.bytes <= limit / 2 => Switch::Resume,
        false if load.bytes >= limit.saturating_mul(2) => Switch::Pause,
        _ => Switch::Leave,
    }
}

/// Whether to wait for the readers before anything more is taken from the client: some queue is
/// full, and none that could get more is short of it.
pub(super) fn should_wait(loads: impl IntoIterator<Item = Load>, limit: usize) -> bool {
    let mut full = false;
    for load in loads {
        if load.paused {
            continue;
        }
        if !load.at_end && load.bytes < limit / 2 {
            return false;
        }
        full |= load.bytes >= limit;
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1_000;

    fn load(bytes: usize) -> Load {
        Load { bytes, paused: false, at_end: false }
    }

    #[test]
    fn waits_when_all_have_enough_and_one_is_full() {
        assert!(should_wait([load(1_000), load(600)], LIMIT));
        assert!(!should_wait([load(1_000), load(499)], LIMIT), "one is hungry");
        assert!(!should_wait([load(999), load(999)], LIMIT), "none is full");
        assert!(should_wait([load(1_000), Load { at_end: true, ..load(0) }], LIMIT));
        assert!(!should_wait([Load { paused: true, ..load(2_000) }], LIMIT), "paused already");
        assert!(!should_wait([], LIMIT));
    }

    #[test]
    fn pauses_late_and_resumes_only_when_there_is_room() {
        assert_eq!(switch(load(1_999), LIMIT), Switch::Leave);
        assert_eq!(switch(load(2_000), LIMIT), Switch::Pause);
        let paused = |bytes| Load { paused: true, ..load(bytes) };
        assert_eq!(switch(paused(501), LIMIT), Switch::Leave);
        assert_eq!(switch(paused(500), LIMIT), Switch::Resume);
    }

    #[test]
    fn many_partitions_share_the_total() {
        assert_eq!(lane_limit(64 << 20, 1), 8 << 20);
        assert_eq!(lane_limit(64 << 20, 64), 1 << 20);
        assert_eq!(lane_limit(64 << 20, 10_000), 256 << 10);
    }
}
