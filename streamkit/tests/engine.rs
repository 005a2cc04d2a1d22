//! Whole jobs on in-memory connectors.

use std::collections::BTreeMap;

use streamkit::connector::memory::{Collect, Memory};
use streamkit::prelude::*;

#[derive(Debug, Clone)]
struct Event {
    time: i64,
    user: String,
    kind: u8,
}

fn event(time: i64, user: &str, kind: u8) -> Event {
    Event { time, user: user.to_owned(), kind }
}

fn strategy() -> WatermarkStrategy<Event> {
    WatermarkStrategy::bounded_out_of_orderness(seconds(10), |e: &Event| {
        Timestamp::from_micros(e.time * 1_000_000)
    })
}

#[tokio::test]
async fn counts_sessions_and_distinct_users_of_several_splits() {
    for workers in [1, 2, 4] {
        let mut splits = vec![vec![]; 3];
        for i in 0..10_000i64 {
            splits[(i % 3) as usize].push(event(i / 10, &format!("user {}", i % 7), 0));
        }
        let (counts, users, sessions) = (Collect::new(), Collect::new(), Collect::new());
        let job = Job::new("test");
        let events = job.source("events", Memory::splits(splits), strategy());
        let by_user = events.key_by(|e: &Event| e.user.as_str());
        by_user
            .window(Tumbling::of(minutes(1)))
            .aggregate("counts", count())
            .sink("counts table", counts.clone());
        by_user
            .window_all(Sliding::of(minutes(5), minutes(1)))
            .count_keys("users")
            .sink("users table", users.clone());
        by_user
            .window(Session::with_gap(minutes(30)).ends_at(|e: &Event| e.kind == 2))
            .aggregate("sessions", count())
            .sink("sessions table", sessions.clone());
        let config = RunConfig::new().workers(workers).at_end(InputEnd::Close);
        job.run(config).await.unwrap();

        let mut per_window: BTreeMap<(i64, String), u64> = BTreeMap::new();
        for row in counts.rows() {
            let key = (row.window.start.as_micros() / 1_000_000, row.key);
            assert!(per_window.insert(key, row.value).is_none());
        }
        assert_eq!(per_window.values().sum::<u64>(), 10_000);
        assert_eq!(per_window.len(), 17 * 7);
        assert_eq!(users.rows().len(), 21);
        assert!(users.rows().iter().all(|row| row.value == 7));
        assert_eq!(sessions.rows().len(), 7);
        assert_eq!(sessions.rows().iter().map(|s| s.value).sum::<u64>(), 10_000);
    }
}
