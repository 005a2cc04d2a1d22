//! Figures of the last minute, as the job's own results say them while they pass.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use streamkit::time::{Timestamp, minutes};

/// Windows that are kept: the open ones, which running values tell of, and some closed ones.
const WINDOWS: usize = 16;
/// Pages that are kept of a window. More make its sum a lower bound.
const PAGES: usize = 4_096;

/// A small memory of the newest windows, shared by the job, which fills it, and the status, which
/// shows it. Running values are replaced by later ones; nothing depends on it.
#[derive(Debug, Clone, Default)]
pub struct LastMinute {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    pages: BTreeMap<Timestamp, HashMap<Box<str>, u64>>,
    users: BTreeMap<Timestamp, u64>,
}

/// The figures of one minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// The end of the newest closed minute.
    pub end: Option<Timestamp>,
    /// Its page views.
    pub views: u64,
    /// Whether there were more, on pages too many to keep.
    pub more_views: bool,
    /// Its pages with most views, at most three.
    pub top: Vec<(String, u64)>,
    /// Users active in the newest closed five minutes.
    pub users: Option<u64>,
}

impl LastMinute {
    /// A memory of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A page was viewed `n` times in the minute that begins at `window_start`.
    pub fn page_views(&self, window_start: Timestamp, page: &str, n: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if is_old(&inner.pages, window_start) {
            return;
        }
        let pages = inner.pages.entry(window_start).or_default();
        if let Some(views) = pages.get_mut(page) {
            *views = n.max(*views);
        } else if pages.len() < PAGES {
            pages.insert(page.into(), n);
        }
        trim(&mut inner.pages);
    }

    /// So many users were active in the five minutes that begin at `window_start`.
    pub fn active_users(&self, window_start: Timestamp, n: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if is_old(&inner.users, window_start) {
            return;
        }
        let users = inner.users.entry(window_start).or_default();
        *users = n.max(*users);
        trim(&mut inner.users);
    }

    /// The figures of the newest windows that the watermark has closed.
    pub fn figures(&self, watermark: Option<Timestamp>) -> Figures {
        let Some(watermark) = watermark else { return Figures::default() };
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = |length| watermark.saturating_sub(length);
        let users = inner.users.range(..=closed(minutes(5))).next_back().map(|(_, n)| *n);
        let Some((start, pages)) = inner.pages.range(..=closed(minutes(1))).next_back() else {
            return Figures { users, ..Figures::default() };
        };
        let mut top: Vec<_> = pages.iter().map(|(page, n)| (page.to_string(), *n)).collect();
        top.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        top.truncate(3);
        Figures {
            end: Some(start.saturating_add(minutes(1))),
            views: pages.values().sum(),
            more_views: pages.len() == PAGES,
            top,
            users,
        }
    }
}

/// Whether there is no room for this window, as all that are kept are newer.
fn is_old<V>(windows: &BTreeMap<Timestamp, V>, start: Timestamp) -> bool {
    windows.len() >= WINDOWS && windows.first_key_value().is_some_and(|(first, _)| start < *first)
}

fn trim<V>(windows: &mut BTreeMap<Timestamp, V>) {
    while windows.len() > WINDOWS {
        windows.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_micros(minute * 60_000_000)
    }

    #[test]
    fn only_closed_windows_are_shown() {
        let memory = LastMinute::new();
        assert_eq!(memory.figures(Some(at(9))), Figures::default());
        memory.page_views(at(1), "/a", 3);
        memory.page_views(at(1), "/b", 5);
        memory.page_views(at(1), "/a", 4);
        memory.page_views(at(2), "/a", 1);
        memory.active_users(at(-3), 7);
        memory.active_users(at(-2), 9);
        assert_eq!(memory.figures(None), Figures::default());
        let figures = memory.figures(Some(at(2)));
        assert_eq!((figures.end, figures.views, figures.users), (Some(at(2)), 9, Some(7)));
        assert_eq!(figures.top, [("/b".to_owned(), 5), ("/a".to_owned(), 4)]);
        let figures = memory.figures(Some(at(3)));
        assert_eq!((figures.end, figures.views, figures.users), (Some(at(3)), 1, Some(9)));
    }

    #[test]
    fn it_stays_small() {
        let memory = LastMinute::new();
        for minute in 0..1_000 {
            memory.page_views(at(minute), "/a", 1);
            memory.active_users(at(minute), 1);
        }
        memory.page_views(at(5), "/old", 1);
        for page in 0..10_000 {
            memory.page_views(at(999), &format!("/{page}"), 1);
        }
        let inner = memory.inner.lock().unwrap();
        assert_eq!((inner.pages.len(), inner.users.len()), (WINDOWS, WINDOWS));
        assert_eq!(inner.pages[&at(999)].len(), PAGES);
    }
}
