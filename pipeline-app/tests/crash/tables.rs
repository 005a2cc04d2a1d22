//! The three tables while they are being written: what nobody may ever see.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::oracle::Expected;

/// The tables at one moment, read in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// By table: how far its sink has got. A window that ends by then is final.
    pub w: BTreeMap<String, i64>,
    /// (window start, page) -> (window end, views).
    pub page_view_counts: BTreeMap<(i64, String), (i64, u64)>,
    /// Window start -> (window end, distinct users).
    pub active_users: BTreeMap<i64, (i64, u64)>,
    /// (user, session start) -> (session end, duration in seconds).
    pub user_sessions: BTreeMap<(String, i64), (i64, f64)>,
}

impl Tables {
    /// Notes a sink's progress, as its target stores it.
    pub fn note(&mut self, sink: &str, progress: &str) {
        let json: serde_json::Value = serde_json::from_str(progress).unwrap();
        if let Some(w) = json["point"]["watermark"]["w"].as_i64() {
            let table = sink.strip_suffix(" table").unwrap_or(sink);
            self.w.insert(table.to_owned(), w);
        }
    }

    fn w(&self, table: &str) -> i64 {
        self.w.get(table).copied().unwrap_or(i64::MIN)
    }

    /// What is wrong with this moment, given an earlier one and, if that is known already, what
    /// there will be in the end.
    pub fn problem(&self, before: &Self, expected: Option<&Expected>) -> Option<String> {
        for (table, w) in &before.w {
            if self.w(table) < *w {
                return Some(format!("{table}: the progress went from {w} to {}", self.w(table)));
            }
        }
        let ws = |table: &str| (before.w(table), self.w(table));
        check(
            "page_view_counts",
            ws("page_view_counts"),
            [&before.page_view_counts, &self.page_view_counts],
            expected.map(|expected| &expected.page_view_counts),
        )
        .or_else(|| {
            check(
                "active_users",
                ws("active_users"),
                [&before.active_users, &self.active_users],
                expected.map(|expected| &expected.active_users),
            )
        })
        .or_else(|| sessions(before, self, expected))
    }

    /// How many windows are final by now.
    pub fn finals(&self) -> [Finals; 2] {
        let (views, users) = (self.w("page_view_counts"), self.w("active_users"));
        [
            ("page_view_counts", views, count(&self.page_view_counts, views)),
            ("active_users", users, count(&self.active_users, users)),
        ]
    }
}

/// A table, how far its sink had got, and the number of windows that end by then.
pub type Finals = (&'static str, i64, usize);

fn count<K>(rows: &BTreeMap<K, (i64, u64)>, w: i64) -> usize {
    rows.values().filter(|(end, _)| *end <= w).count()
}

/// What was missing, or too much, at some moment, as is found out when it is known what there had
/// to be. (A row that was there has neither changed nor disappeared since.)
pub fn finals_problem(seen: &BTreeSet<Finals>, expected: &Expected) -> Option<String> {
    seen.iter().find_map(|&(table, w, found)| {
        let wanted = match table {
            "page_view_counts" => count(&expected.page_view_counts, w),
            _ => count(&expected.active_users, w),
        };
        let text = || format!("{table}: {found} windows up to W = {w}, and {wanted} there are");
        (wanted != found).then(text)
    })
}

/// Windows: a final row is as it will be in the end, all of them are there, none disappears, and
/// no running value is ever less than one before, or more than the final one.
fn check<K: Ord + Debug>(
    table: &str,
    (w_before, w): (i64, i64),
    [before, now]: [&BTreeMap<K, (i64, u64)>; 2],
    expected: Option<&BTreeMap<K, (i64, u64)>>,
) -> Option<String> {
    for (key, (end, old)) in before {
        match now.get(key) {
            None => return Some(format!("{table} {key:?}: the row has disappeared")),
            Some((_, new)) if *end <= w_before && new != old => {
                return Some(format!("{table} {key:?}: final at {old}, and {new} later"));
            }
            Some((_, new)) if new < old => {
                return Some(format!("{table} {key:?}: went back from {old} to {new}"));
            }
            Some(_) => {}
        }
    }
    let expected = expected?;
    for (key, (end, n)) in now {
        match expected.get(key) {
            None => return Some(format!("{table} {key:?}: {n}, and there is no such row")),
            Some((_, last)) if *end <= w && n != last => {
                return Some(format!("{table} {key:?}: final at {n}, and should be {last}"));
            }
            Some((_, last)) if n > last => {
                return Some(format!("{table} {key:?}: {n}, and it will be {last}"));
            }
            Some(_) => {}
        }
    }
    let missing = expected.iter().find(|(key, (end, _))| *end <= w && !now.contains_key(key));
    missing.map(|(key, _)| format!("{table} {key:?}: missing, although W is {w}"))
}

/// Sessions have no running values: every row is final.
fn sessions(before: &Tables, now: &Tables, expected: Option<&Expected>) -> Option<String> {
    for (key, row) in &before.user_sessions {
        if now.user_sessions.get(key) != Some(row) {
            let now = now.user_sessions.get(key);
            return Some(format!("user_sessions {key:?}: was {row:?}, and is {now:?}"));
        }
    }
    let expected = expected?;
    let mut rows = now.user_sessions.iter();
    let wrong = rows.find(|(key, row)| expected.user_sessions.get(key) != Some(row));
    wrong.map(|(key, row)| format!("user_sessions {key:?}: {row:?} is not what it should be"))
}

#[test]
fn what_nobody_may_see_is_seen() {
    let expected = Expected {
        active_users: BTreeMap::from([(0, (60, 3)), (60, (120, 5))]),
        ..Expected::default()
    };
    let at = |w: i64, rows: &[(i64, u64)]| Tables {
        w: BTreeMap::from([("active_users".to_owned(), w)]),
        active_users: rows.iter().map(|&(start, n)| (start, (start + 60, n))).collect(),
        ..Tables::default()
    };
    let cases = [
        ((0, vec![(0, 1)]), (60, vec![(0, 3), (60, 2)]), ""),
        ((60, vec![(0, 3)]), (60, vec![(0, 2)]), "final at 3, and 2 later"),
        ((60, vec![(0, 3)]), (60, vec![]), "disappeared"),
        ((0, vec![(0, 2)]), (0, vec![(0, 1)]), "went back from 2 to 1"),
        ((0, vec![]), (60, vec![(0, 2)]), "final at 2, and should be 3"),
        ((0, vec![]), (0, vec![(0, 4)]), "and it will be 3"),
        ((0, vec![]), (60, vec![]), "missing"),
        ((0, vec![]), (0, vec![(7, 1)]), "no such row"),
        ((60, vec![(0, 3)]), (0, vec![(0, 3)]), "the progress went"),
    ];
    for ((w_before, before), (w, now), problem) in cases {
        let found =
            at(w, &now).problem(&at(w_before, &before), Some(&expected)).unwrap_or_default();
        assert!(found.contains(problem) && found.is_empty() == problem.is_empty(), "{found}");
    }
    let seen = |w: i64, rows: &[(i64, u64)]| BTreeSet::from([at(w, rows).finals()[1]]);
    assert_eq!(finals_problem(&seen(60, &[(0, 3), (60, 1)]), &expected), None);
    assert!(finals_problem(&seen(120, &[(0, 3)]), &expected).is_some_and(|p| p.contains("and 2")));
}
