//! Sessions: events settle in the order of time, a second after the other.

use std::collections::VecDeque;

use super::users::Line;
use super::{DAY, GAP, SECOND};
use crate::events::Role;
use crate::outcome::Outcome;

/// Events wait in the list of their second until the watermark has passed it.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) first_second: i64,
    waiting: VecDeque<Vec<(i64, Role, u32)>>,
    /// Users whose session may end in second `first_second + index`.
    due: VecDeque<Vec<u32>>,
}

impl Sessions {
    #[inline]
    pub(super) fn wait(&mut self, time: i64, user: u32, role: Role) {
        let second = (time.div_euclid(SECOND) - self.first_second) as usize;
        if self.waiting.len() <= second {
            self.waiting.resize_with(second + 1, Vec::new);
        }
        self.waiting[second].push((time, role, user));
    }

    pub(super) fn fire(&mut self, watermark: i64, lines: &mut [Line], outcome: &mut Outcome) {
        while (self.first_second + 1) * SECOND <= watermark {
            let mut events = self.waiting.pop_front().unwrap_or_default();
            events.sort_unstable_by_key(|(time, role, user)| (*time, order(*role), *user));
            for (time, role, user) in events {
                self.apply(time, role, user, lines, outcome);
            }
            for user in self.due.pop_front().unwrap_or_default() {
                let line = &mut lines[user as usize];
                line.reminded = false;
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
        } else if !line.reminded {
            self.remind(user, line);
        }
    }

    fn remind(&mut self, user: u32, line: &mut Line) {
        let second = closes(line).div_euclid(SECOND);
        // At the earliest in the second after this one, whose list is being worked off.
        let index = (second - self.first_second).max(1) as usize;
        line.reminded = true;
        if self.due.len() < index {
            self.due.resize_with(index, Vec::new);
        }
        match self.due.get_mut(index) {
            Some(users) => users.push(user),
            None => self.due.push_back(vec![user]),
        }
    }

    pub(super) fn finish(&mut self, lines: &mut [Line], outcome: &mut Outcome) {
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
    outcome.session(line.user(), line.start, line.last, u64::from(line.events));
    line.events = 0;
}
