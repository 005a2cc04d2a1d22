//! The yard-stick: the same results by a loop written by hand for them.
//!
//! Everything is known beforehand: how many users there are, that keys are short, that there is one
//! split. Users are in an open-addressing table with one line of the cache each; 64 events are
//! hashed and their lines fetched before any is applied. There are no operators, no checkpoints,
//! no sinks and no second thread.

mod sessions;
mod users;

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashTable;
use pipeline_app::model::{Origin, decode};
use xxhash_rust::xxh3::xxh3_64;

use crate::Workload;
use crate::engine::{DELAY_MINUTES, GAP_MINUTES};
use crate::events::{Event, Role, role};
use crate::outcome::Outcome;
use sessions::Sessions;
use users::Users;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;
/// How far the watermark is behind the latest event.
pub const DELAY: i64 = DELAY_MINUTES as i64 * MINUTE;
const GAP: i64 = GAP_MINUTES as i64 * MINUTE;
/// Panes of a sliding window.
const PANES: i64 = 5;
/// Events that are hashed and fetched together.
pub const TOGETHER: usize = 64;

/// Runs a workload over structs.
#[must_use]
pub fn structs(workload: Workload, events: &[Event], users: u32) -> Outcome {
    let mut state = Floor::new(Parts::of(workload), users);
    events.chunks(TOGETHER).for_each(|events| state.add(events));
    let high = state.high;
    state.finish(high)
}

/// Runs a workload over JSON; decoding is pipeline-app's.
#[must_use]
pub fn json(workload: Workload, records: &[Bytes], users: u32) -> Outcome {
    let mut state = Floor::new(Parts::of(workload), users);
    for records in records.chunks(TOGETHER) {
        let activities: Vec<_> = records
            .iter()
            .map(|json| match decode(Some(json), Origin::default()) {
                Ok(activity) => activity,
                Err(reject) => panic!("{reject:?}"),
            })
            .collect();
        let events: Vec<_> = activities
            .iter()
            .map(|activity| Borrowed {
                time: activity.event_time(),
                user: activity.user_id_bytes(),
                page: activity.page_url_bytes().unwrap_or_default(),
                role: role(activity),
            })
            .collect();
        state.add_borrowed(&events);
    }
    let high = state.high;
    state.finish(high)
}

/// An event whose texts are elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Borrowed<'a> {
    /// In microseconds.
    pub time: i64,
    /// Who did it.
    pub user: &'a [u8],
    /// Where.
    pub page: &'a [u8],
    /// What.
    pub role: Role,
}

/// Which of the results are computed.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// Page views per minute.
    pub tumbling: bool,
    /// Users of five minutes.
    pub sliding: bool,
    /// Sessions.
    pub sessions: bool,
}

impl Parts {
    /// What a workload needs.
    #[must_use]
    pub fn of(workload: Workload) -> Self {
        Self {
            tumbling: workload.tumbling(),
            sliding: workload.sliding(),
            sessions: workload.sessions(),
        }
    }
}

/// The state of the loop. Minutes are counted from `base`; those before `fired` have given their
/// results.
#[expect(missing_debug_implementations, reason = "it is a large table")]
pub struct Floor {
    parts: Parts,
    high: i64,
    base: i64,
    fired: i64,
    pages: Pages,
    users: Users,
    /// Users of the window whose last minute is `fired + index`.
    active: VecDeque<u64>,
    sessions: Sessions,
    /// Start and users of windows, for somebody who adds up what several have seen.
    pub partial: Option<Vec<(i64, u64)>>,
    /// The results so far.
    pub outcome: Outcome,
}

impl Floor {
    /// Nothing has been seen yet, of at most so many users.
    #[must_use]
    pub fn new(parts: Parts, users: u32) -> Self {
        Self {
            parts,
            high: i64::MIN,
            base: i64::MIN,
            fired: 0,
            pages: Pages::default(),
            users: Users::new(users),
            active: VecDeque::new(),
            sessions: Sessions::default(),
            partial: None,
            outcome: Outcome::default(),
        }
    }

    fn add(&mut self, events: &[Event]) {
        let mut borrowed =
            [Borrowed { time: 0, user: &[], page: &[], role: Role::Other }; TOGETHER];
        for (to, from) in borrowed.iter_mut().zip(events) {
            let Event { time, user, page, role } = *from;
            *to = Borrowed { time: time.as_micros(), user, page, role };
        }
        self.add_borrowed(&borrowed[..events.len()]);
    }

    fn add_borrowed(&mut self, events: &[Borrowed<'_>]) {
        if self.base == i64::MIN {
            self.begin(events[0].time);
        }
        let mut marks = [0; TOGETHER];
        for (mark, event) in marks.iter_mut().zip(events) {
            *mark = self.high - DELAY;
            self.high = self.high.max(event.time);
        }
        self.take(events, &marks);
        self.fire(self.high - DELAY);
    }

    /// Says when the first event happened, before anything else is done.
    pub fn begin(&mut self, first: i64) {
        // No event that counts is earlier than this.
        let earliest = first - 2 * DELAY;
        self.base = earliest.div_euclid(MINUTE);
        self.sessions.first_second = earliest.div_euclid(SECOND);
        self.high = first;
    }

    /// Takes at most [`TOGETHER`] events in, with the watermark that each of them has found.
    pub fn take(&mut self, events: &[Borrowed<'_>], marks: &[i64]) {
        if self.parts.tumbling {
            self.count_views(events, marks);
        }
        if self.parts.sliding || self.parts.sessions {
            self.count_users(events, marks);
        }
    }

    fn minute(&self, time: i64) -> i64 {
        time.div_euclid(MINUTE) - self.base
    }

    fn count_views(&mut self, events: &[Borrowed<'_>], marks: &[i64]) {
        for (event, mark) in events.iter().zip(marks).filter(|(e, _)| e.role == Role::View) {
            let minute = self.minute(event.time);
            if minute < self.minute(*mark) {
                self.outcome.late += 1;
            } else {
                self.pages.add((minute - self.fired) as usize, event.page);
            }
        }
    }

    fn count_users(&mut self, events: &[Borrowed<'_>], marks: &[i64]) {
        let mut hashes = [0; TOGETHER];
        for (hash, event) in hashes.iter_mut().zip(events) {
            *hash = xxh3_64(event.user);
            self.users.fetch(*hash);
        }
        for ((event, mark), hash) in events.iter().zip(marks).zip(hashes) {
            let at = self.users.find(hash, event.user);
            if self.parts.sliding {
                let (minute, open) = (self.minute(event.time), self.minute(*mark));
                if minute + PANES <= open {
                    self.outcome.late += 1;
                } else {
                    let (fired, active) = (self.fired, &mut self.active);
                    self.users.lines[at].appear(minute, |last_minute| {
                        if last_minute >= open {
                            let window = (last_minute - fired) as usize;
                            if active.len() <= window {
                                active.resize(window + 1, 0);
                            }
                            active[window] += 1;
                        }
                    });
                }
            }
            if self.parts.sessions {
                if event.time < *mark {
                    self.outcome.late += 1;
                } else {
                    self.sessions.wait(event.time, at as u32, event.role);
                }
            }
        }
    }

    /// Gives out what is final at the watermark.
    pub fn fire(&mut self, watermark: i64) {
        while self.fired < self.minute(watermark)
            && !(self.pages.minutes.is_empty() && self.active.is_empty())
        {
            let start = (self.base + self.fired) * MINUTE;
            self.pages.fire(start, &mut self.outcome);
            let users = self.active.pop_front().unwrap_or(0);
            if users > 0 {
                self.active_users(start - (PANES - 1) * MINUTE, users);
            }
            self.fired += 1;
        }
        if self.pages.minutes.is_empty() && self.active.is_empty() {
            self.fired = self.fired.max(self.minute(watermark));
        }
        if self.parts.sessions {
            self.sessions.fire(watermark, &mut self.users.lines, &mut self.outcome);
        }
    }

    fn active_users(&mut self, start: i64, users: u64) {
        match &mut self.partial {
            Some(partial) => partial.push((start, users)),
            None => self.outcome.active_users(start, users),
        }
    }

    /// Everything, after the last event; `high` is the time of the latest one.
    #[must_use]
    pub fn finish(mut self, high: i64) -> Outcome {
        self.finish_partial(high);
        self.outcome
    }

    /// As [`finish`](Self::finish), for one that sees a part of the users.
    pub fn finish_partial(&mut self, high: i64) {
        self.fire(high + PANES * MINUTE);
        if self.parts.sessions {
            self.sessions.finish(&mut self.users.lines, &mut self.outcome);
        }
    }
}

/// Page → number, and a count per number and minute.
#[derive(Default)]
struct Pages {
    table: HashTable<u32>,
    names: Vec<(u64, Vec<u8>)>,
    minutes: VecDeque<Vec<u32>>,
}

impl Pages {
    fn add(&mut self, minute: usize, page: &[u8]) {
        let hash = xxh3_64(page);
        let names = &mut self.names;
        let is_page = |&i: &u32| names[i as usize].0 == hash && names[i as usize].1 == page;
        let number = match self.table.find(hash, is_page) {
            Some(&number) => number,
            None => {
                let number = names.len() as u32;
                names.push((hash, page.to_vec()));
                self.table.insert_unique(hash, number, |&i| names[i as usize].0);
                number
            }
        };
        while self.minutes.len() <= minute {
            self.minutes.push_back(vec![]);
        }
        let counts = &mut self.minutes[minute];
        if counts.len() <= number as usize {
            counts.resize((number as usize + 1).next_power_of_two(), 0);
        }
        counts[number as usize] += 1;
    }

    fn fire(&mut self, start: i64, outcome: &mut Outcome) {
        let counts = self.minutes.pop_front().unwrap_or_default();
        for (views, (_, page)) in counts.iter().zip(&self.names).filter(|(views, _)| **views > 0) {
            outcome.page_views(start, page, u64::from(*views));
        }
    }
}
