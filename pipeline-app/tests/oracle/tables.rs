//! The two tables made of windows.

use std::collections::{BTreeMap, BTreeSet};

use super::MINUTE;
use super::decode::Event;

/// An event with this mark misses a window that ends at `end`: the watermark had reached its end.
pub fn misses(end: i64, mark: Option<i64>) -> bool {
    mark.is_some_and(|mark| end <= mark)
}

/// The windows `[start, end)` of this size, one beginning every `step` since the epoch, that
/// contain `time`, in ascending order.
pub fn windows(time: i64, size: i64, step: i64) -> Vec<(i64, i64)> {
    let mut windows = Vec::new();
    let mut start = time.div_euclid(step) * step;
    while start + size > time {
        windows.push((start, start + size));
        start -= step;
    }
    windows.reverse();
    windows
}

/// `page_view_counts`: tumbling windows of one minute, `page_view` events per page.
#[derive(Debug, Default)]
pub struct PageViewCounts {
    views: BTreeMap<(i64, String), (i64, u64)>,
}

impl PageViewCounts {
    /// Counts a `page_view` event; `false` if it is late for its only window.
    pub fn add(&mut self, event: &Event, mark: Option<i64>) -> bool {
        let mut on_time = false;
        for (start, end) in windows(event.event_time, MINUTE, MINUTE) {
            if misses(end, mark) {
                continue;
            }
            on_time = true;
            let page = event.page_url.clone().expect("a page view has a page");
            self.views.entry((start, page)).or_insert((end, 0)).1 += 1;
        }
        on_time
    }

    /// The rows: (window start, page) -> (window end, views).
    pub fn rows(self) -> BTreeMap<(i64, String), (i64, u64)> {
        self.views
    }
}

/// `active_users`: sliding windows of five minutes every minute, distinct users over all events.
#[derive(Debug, Default)]
pub struct ActiveUsers {
    users: BTreeMap<(i64, i64), BTreeSet<String>>,
}

impl ActiveUsers {
    /// Counts an event in every window it does not miss; `false` if it misses all five.
    pub fn add(&mut self, event: &Event, mark: Option<i64>) -> bool {
        let mut on_time = false;
        for (start, end) in windows(event.event_time, 5 * MINUTE, MINUTE) {
            if misses(end, mark) {
                continue;
            }
            on_time = true;
            self.users.entry((start, end)).or_default().insert(event.user_id.clone());
        }
        on_time
    }

    /// The rows: window start -> (window end, distinct users).
    pub fn rows(self) -> BTreeMap<i64, (i64, u64)> {
        let mut rows = BTreeMap::new();
        for ((start, end), users) in self.users {
            rows.insert(start, (end, users.len() as u64));
        }
        rows
    }
}
