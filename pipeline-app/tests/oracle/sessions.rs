//! `user_sessions`.

use std::collections::BTreeMap;

use super::Settings;
use super::decode::Event;

/// What an event means for a session; the order is the order at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `session_start`
    Start,
    /// Anything else.
    Other,
    /// `session_end`
    End,
}

impl Kind {
    /// The kind of an event type.
    pub fn of(event_type: &str) -> Self {
        match event_type {
            "session_start" => Self::Start,
            "session_end" => Self::End,
            _ => Self::Other,
        }
    }
}

/// The on-time events of every user.
#[derive(Debug, Default)]
pub struct Sessions {
    events: BTreeMap<String, Vec<(i64, Kind)>>,
}

impl Sessions {
    /// Keeps an event for the end; `false` if it is older than its split's watermark.
    pub fn add(&mut self, event: &Event, mark: Option<i64>) -> bool {
        if mark.is_some_and(|mark| event.event_time < mark) {
            return false;
        }
        let kind = Kind::of(&event.event_type);
        self.events.entry(event.user_id.clone()).or_default().push((event.event_time, kind));
        true
    }

    /// The rows: (user, session start) -> (session end, duration in seconds).
    pub fn rows(self, settings: &Settings) -> BTreeMap<(String, i64), (i64, f64)> {
        let mut rows = BTreeMap::new();
        for (user, events) in self.events {
            for (start, end) in sessions_of_one_user(&events, settings) {
                let seconds = (end - start) as f64 / 1e6;
                let before = rows.insert((user.clone(), start), (end, seconds));
                assert!(before.is_none(), "two sessions of {user} start at {start}");
            }
        }
        rows
    }
}

/// The sessions (start, end) of one user's on-time events, given in any order.
pub fn sessions_of_one_user(events: &[(i64, Kind)], settings: &Settings) -> Vec<(i64, i64)> {
    // By event time; at one instant session_start first and session_end last. Several of either at
    // one instant count as one.
    let mut events = events.to_vec();
    events.sort_unstable();
    events.dedup_by(|next, before| next == before && next.1 != Kind::Other);

    let mut finished = Vec::new();
    let mut open: Option<(i64, i64)> = None; // start and last event of the open session
    for (time, kind) in events {
        let opens_new = match open {
            None => true,
            // An open session always has an event: the one that opened it.
            Some(_) if kind == Kind::Start => true,
            Some((_, last)) if time - last >= settings.session_gap => true,
            Some((start, _)) if time - start >= settings.session_max => true,
            Some(_) => false,
        };
        if opens_new {
            finished.extend(open);
            open = Some((time, time));
        } else if let Some((_, last)) = &mut open {
            *last = time;
        }
        if kind == Kind::End {
            finished.extend(open.take());
        }
    }
    // The end of the input closes what is still open.
    finished.extend(open);
    finished
}
