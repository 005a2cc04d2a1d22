//! The yard-stick: the same results by a loop written by hand for them.
//!
//! Everything is known beforehand: how many users there are, that keys are short, that there is one
//! split. Users are in an open-addressing table with one line of the cache each; 64 events are
//! hashed and their lines fetched before any is applied. There are no operators, no checkpoints,
//! no sinks and no second thread.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashTable;
use pipeline_app::model::{Origin, decode};
use xxhash_rust::xxh3::xxh3_64;

use crate::Workload;
use crate::engine::{DELAY_MINUTES, GAP_MINUTES};
use crate::events::{Event, Role, role};
use crate::outcome::Outcome;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;
const DELAY: i64 = DELAY_MINUTES as i64 * MINUTE;
const GAP: i64 = GAP_MINUTES as i64 * MINUTE;
/// Panes of a sliding window.
const PANES: i64 = 5;
/// Events that are hashed and fetched together.
const TOGETHER: usize = 64;

/// Runs a workload over structs.
#[must_use]
pub fn structs(workload: Workload, events: &[Event], users: u32) -> Outcome {
    let mut state = Floor::new(workload, users);
    events.chunks(TOGETHER).for_each(|events| state.add(events));
    state.finish()
}

/// Runs a workload over JSON; decoding is pipeline-app's.
#[must_use]
pub fn json(workload: Workload, records: &[Bytes], users: u32) -> Outcome {
    let mut state = Floor::new(workload, users);
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
    state.finish()
}

#[derive(Clone, Copy)]
struct Borrowed<'a> {
    time: i64,
    user: &'a [u8],
    page: &'a [u8],
    role: Role,
}

/// Minutes are counted from `base`; those before `fired` have given their results.
struct Floor {
    workload: Workload,
    high: i64,
    base: i64,
    fired: i64,
    pages: Pages,
    users: Users,
    /// Users of the window whose last minute is `fired + index`.
    active: VecDeque<u64>,
    sessions: Sessions,
    outcome: Outcome,
}

impl Floor {
    fn new(workload: Workload, users: u32) -> Self {
        Self {
            workload,
            high: i64::MIN,
            base: i64::MIN,
            fired: 0,
            pages: Pages::default(),
            users: Users::new(users),
            active: VecDeque::new(),
            sessions: Sessions::default(),
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
            // No event that counts is earlier than this.
            let earliest = events[0].time - 2 * DELAY;
            self.base = earliest.div_euclid(MINUTE);
            self.sessions.first_second = earliest.div_euclid(SECOND);
            self.high = events[0].time;
        }
        let mut marks = [0; TOGETHER];
        for (mark, event) in marks.iter_mut().zip(events) {
            *mark = self.high - DELAY;
            self.high = self.high.max(event.time);
        }
        if self.workload.tumbling() {
            self.count_views(events, &marks);
        }
        if self.workload.sliding() || self.workload.sessions() {
            self.count_users(events, &marks);
        }
        self.fire(self.high - DELAY);
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
            if self.workload.sliding() {
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
            if self.workload.sessions() {
                if event.time < *mark {
                    self.outcome.late += 1;
                } else {
                    self.sessions.wait(event.time, at as u32, event.role);
                }
            }
        }
    }

    /// Gives out what is final at the watermark.
    fn fire(&mut self, watermark: i64) {
        while self.fired < self.minute(watermark)
            && !(self.pages.minutes.is_empty() && self.active.is_empty())
        {
            let start = (self.base + self.fired) * MINUTE;
            self.pages.fire(start, &mut self.outcome);
            let users = self.active.pop_front().unwrap_or(0);
            if users > 0 {
                self.outcome.active_users(start - (PANES - 1) * MINUTE, users);
            }
            self.fired += 1;
        }
        if self.pages.minutes.is_empty() && self.active.is_empty() {
            self.fired = self.fired.max(self.minute(watermark));
        }
        if self.workload.sessions() {
            self.sessions.fire(watermark, &mut self.users.lines, &mut self.outcome);
        }
    }

    fn finish(mut self) -> Outcome {
        self.fire(self.high + PANES * MINUTE);
        if self.workload.sessions() {
            self.sessions.finish(&mut self.users.lines, &mut self.outcome);
        }
        self.outcome
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

/// A user, in one line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    hash: u64,
    len: u8,
    key: [u8; 23],
    start: i64,
    last: i64,
    /// Of the open session; 0 if there is none.
    events: u32,
    /// Bit n: seen in minute `newest − n`.
    seen: u32,
    newest: i32,
    /// The second at which somebody looks whether the session has ended.
    due: u32,
}

impl Line {
    /// Calls `count` with the last minute of each window that has not seen the user before.
    #[inline]
    fn appear(&mut self, minute: i64, mut count: impl FnMut(i64)) {
        let minute = minute as i32;
        let ahead = minute - self.newest;
        if ahead > 0 {
            self.seen = if ahead < 32 { self.seen << ahead } else { 0 };
            self.newest = minute;
        }
        let bit = 1u32 << (self.newest - minute).min(31);
        if self.seen & bit == 0 {
            for last in minute..minute + PANES as i32 {
                // The panes last − 4 ..= last, as bits below the newest.
                let low = self.newest - last;
                let panes = if low >= 0 { 0x1f_u32 << low.min(31) } else { 0x1f >> -low };
                if self.seen & panes == 0 {
                    count(i64::from(last));
                }
            }
            self.seen |= bit;
        }
    }
}

struct Users {
    lines: Vec<Line>,
    mask: usize,
}

impl Users {
    fn new(users: u32) -> Self {
        let empty = Line {
            hash: 0,
            len: 0,
            key: [0; 23],
            start: 0,
            last: 0,
            events: 0,
            seen: 0,
            newest: 0,
            due: u32::MAX,
        };
        let lines = (users as usize * 2).next_power_of_two();
        Self { lines: vec![empty; lines], mask: lines - 1 }
    }

    /// Begins to load the line where a user should be.
    #[inline]
    #[expect(unsafe_code, reason = "a prefetch reads nothing, and the address is in the table")]
    fn fetch(&self, hash: u64) {
        #[cfg(target_arch = "x86_64")]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let line = &raw const self.lines[hash as usize & self.mask];
            _mm_prefetch(line.cast::<i8>(), _MM_HINT_T0);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    #[inline]
    fn find(&mut self, hash: u64, user: &[u8]) -> usize {
        let mut at = hash as usize & self.mask;
        loop {
            let line = &mut self.lines[at];
            let len = line.len as usize;
            if len == 0 {
                line.hash = hash;
                line.len = user.len() as u8;
                line.key[..user.len()].copy_from_slice(user);
                return at;
            }
            if line.hash == hash && &line.key[..len] == user {
                return at;
            }
            at = (at + 1) & self.mask;
        }
    }
}

/// Events wait in the list of their second until the watermark has passed it.
#[derive(Default)]
struct Sessions {
    first_second: i64,
    waiting: VecDeque<Vec<(i64, Role, u32)>>,
    /// Users whose session may end in second `first_second + index`.
    due: VecDeque<Vec<u32>>,
}

impl Sessions {
    #[inline]
    fn wait(&mut self, time: i64, user: u32, role: Role) {
        let second = (time.div_euclid(SECOND) - self.first_second) as usize;
        if self.waiting.len() <= second {
            self.waiting.resize_with(second + 1, Vec::new);
        }
        self.waiting[second].push((time, role, user));
    }

    fn fire(&mut self, watermark: i64, lines: &mut [Line], outcome: &mut Outcome) {
        while (self.first_second + 1) * SECOND <= watermark {
            let mut events = self.waiting.pop_front().unwrap_or_default();
            events.sort_unstable_by_key(|(time, role, user)| (*time, order(*role), *user));
            for (time, role, user) in events {
                self.apply(time, role, user, lines, outcome);
            }
            for user in self.due.pop_front().unwrap_or_default() {
                let line = &mut lines[user as usize];
                line.due = u32::MAX;
                if line.events > 0 {
                    if closes(line) < (self.first_second + 1) * SECOND {
                        close(line, outcome);
                    } else {
                        self.remind(user, line);
                    }
                }
            }
            self.first_second += 1;
        }
    }

    #[inline]
    fn apply(
        &mut self,
        time: i64,
        role: Role,
        user: u32,
        lines: &mut [Line],
        outcome: &mut Outcome,
    ) {
        let line = &mut lines[user as usize];
        if line.events > 0 && (time >= closes(line) || role == Role::Start && line.start < time) {
            close(line, outcome);
        }
        if line.events == 0 {
            line.start = time;
        }
        line.last = time;
        line.events += 1;
        if role == Role::End {
            close(line, outcome);
        } else if line.due == u32::MAX {
            self.remind(user, line);
        }
    }

    fn remind(&mut self, user: u32, line: &mut Line) {
        let second = closes(line).div_euclid(SECOND);
        // At the earliest in the second after this one, whose list is being worked off.
        let index = (second - self.first_second).max(1) as usize;
        line.due = index as u32;
        if self.due.len() < index {
            self.due.resize_with(index, Vec::new);
        }
        match self.due.get_mut(index) {
            Some(users) => users.push(user),
            None => self.due.push_back(vec![user]),
        }
    }

    fn finish(&mut self, lines: &mut [Line], outcome: &mut Outcome) {
        let seconds = self.waiting.len() as i64;
        self.fire((self.first_second + seconds) * SECOND, lines, outcome);
        lines.iter_mut().filter(|line| line.events > 0).for_each(|line| close(line, outcome));
    }
}

fn order(role: Role) -> u8 {
    match role {
        Role::Start => 0,
        Role::View | Role::Other => 1,
        Role::End => 2,
    }
}

#[inline]
fn closes(line: &Line) -> i64 {
    (line.last + GAP).min(line.start + DAY)
}

#[inline]
fn close(line: &mut Line, outcome: &mut Outcome) {
    let user = &line.key[..line.len as usize];
    outcome.session(user, line.start, line.last, u64::from(line.events));
    line.events = 0;
}
