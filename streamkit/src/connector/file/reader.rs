//! Reads a file line by line, without an allocation per line.
//!
//! ```text
//! file    …line 6⏎line 7⏎line 8⏎lin        arena: whole lines, shared by the values cut from it
//!           └──────── arena ──────┘└tail   tail: begun, moves to the front of the next arena
//! ```

use std::fs;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr};

use super::input::Input;
use super::split::{self, Identity};
use super::watch::{Follower, Stamp};
use crate::connector::{RawRecord, ReadBatch, ReadStatus, SplitReader};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// How much is read at once. Values keep their arena alive, so it is not larger than useful.
const ARENA: usize = 256 << 10;
/// How many bytes of lines one read gives, about.
const BATCH: usize = 1 << 20;

/// Reads the lines of one file.
#[derive(Debug)]
pub(super) struct LineReader {
    identity: Identity,
    input: Input,
    partition: i32,
    max_line: usize,
    /// Set for a file that is read on as it grows.
    follower: Option<Arc<Follower>>,
    /// Whether a follower is at the end.
    waiting: bool,
    arena: Bytes,
    /// Where the next line begins in the arena.
    at: usize,
    /// What follows the last line feed read so far.
    tail: Vec<u8>,
    /// The number of the next line.
    line: u64,
    /// Whether the begun line is one that a bounded run has read as its last: it is not read again.
    given: bool,
    /// An error that is due when the lines before it have been given out.
    failed: Option<Error>,
}

/// What came of an attempt to read more.
enum Step {
    /// The arena has at least one line.
    Lines,
    /// The line is not complete yet, but there is more.
    Begun,
    /// The end of the file, as it is now.
    End,
}

impl LineReader {
    /// A reader at the start of a file, which must be the one that is known by its identity.
    pub(super) fn open(
        identity: Identity,
        partition: i32,
        max_line: usize,
        follower: Option<Arc<Follower>>,
    ) -> Result<Self> {
        let mut file = split::open(&identity.path)?;
        identity.check(&mut file)?;
        let input = Input::new(&identity.path, file)?;
        Ok(Self {
            identity,
            input,
            partition,
            max_line,
            follower,
            waiting: false,
            arena: Bytes::new(),
            at: 0,
            tail: Vec::new(),
            line: 0,
            given: false,
            failed: None,
        })
    }

    /// Skips the lines before `position`.
    pub(super) fn seek(&mut self, position: u64) -> Result<()> {
        while self.line < position {
            match self.fill()? {
                Step::Begun => {}
                Step::Lines => {
                    let lines = memchr_iter(b'\n', &self.arena).count() as u64;
                    let wanted = lines.min(position - self.line);
                    let last = usize::try_from(wanted - 1).unwrap_or(usize::MAX);
                    self.at = match memchr_iter(b'\n', &self.arena).nth(last) {
                        Some(end) if wanted < lines => end + 1,
                        _ => self.arena.len(),
                    };
                    self.line += wanted;
                }
                Step::End if self.line + 1 == position && !self.tail.is_empty() => {
                    self.given = true;
                    return Ok(());
                }
                Step::End => {
                    return Err(Error::user(format!(
                        "{} has {} lines, and the job has read {position} of it: it was truncated",
                        self.path().display(),
                        self.line
                    )));
                }
            }
        }
        Ok(())
    }

    /// Counts the lines from here to the end, the one without a line feed included.
    pub(super) fn count(mut self) -> Result<u64> {
        loop {
            match self.fill()? {
                Step::Begun => {}
                Step::Lines => {
                    self.line += memchr_iter(b'\n', &self.arena).count() as u64;
                }
                Step::End => return Ok(self.line + u64::from(!self.tail.is_empty())),
            }
        }
    }

    fn path(&self) -> &Path {
        &self.identity.path
    }

    /// Reads an arena; the one before must be used up.
    fn fill(&mut self) -> Result<Step> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut arena = mem::take(&mut self.tail);
        let begun = arena.len();
        // A long line doubles each time, so that all its copies cost no more than twice its length.
        let read = self.input.read(&mut arena, ARENA.max(begun));
        if let Some(end) = memrchr(b'\n', &arena[begun..]) {
            self.tail = arena.split_off(begun + end + 1);
            self.arena = Bytes::from(arena);
            self.at = 0;
            if self.given {
                self.given = false;
                self.line += 1;
                self.at = memchr(b'\n', &self.arena).map_or(0, |end| end + 1);
            }
            if let Err(e) = read {
                let lines = memchr_iter(b'\n', &self.arena[self.at..]).count() as u64;
                self.failed = Some(self.unreadable(self.line + lines, e));
            }
            return Ok(Step::Lines);
        }
        self.tail = arena;
        if self.tail.len() > self.max_line {
            return Err(Error::user(format!(
                "line {} (the first is 0) of {} is longer than {} bytes",
                self.line,
                self.path().display(),
                self.max_line
            )));
        }
        match read {
            Ok(0) => Ok(Step::End),
            Ok(_) => Ok(Step::Begun),
            Err(e) => Err(self.unreadable(self.line, e)),
        }
    }

    fn unreadable(&self, line: u64, cause: std::io::Error) -> Error {
        let what = format!("cannot read line {line} (the first is 0) of {}", self.path().display());
        let error = if self.input.plain().is_some() { Error::external } else { Error::corrupt };
        error(what).because(cause)
    }

    /// Gives out lines of the arena; returns how many bytes that were.
    fn take_lines(&mut self, batch: &mut ReadBatch<RawRecord>, max: usize, room: usize) -> usize {
        let (from, mut start, mut line) = (self.at, self.at, self.line);
        for end in memchr_iter(b'\n', &self.arena[from..]).take(max) {
            let end = from + end;
            let crlf = end > start && self.arena[end - 1] == b'\r';
            let value = self.arena.slice(start..end - usize::from(crlf));
            batch.push(line, self.record(line, value));
            line += 1;
            start = end + 1;
            if start - from >= room {
                break;
            }
        }
        (self.at, self.line) = (start, line);
        start - from
    }

    fn record(&self, line: u64, value: Bytes) -> RawRecord {
        RawRecord {
            key: None,
            value: Some(value),
            timestamp: Some(self.limit_base()),
            partition: self.partition,
            offset: line,
        }
    }

    fn limit_base(&self) -> Timestamp {
        self.identity.memo.limit_base
    }

    fn end(&mut self, batch: &mut ReadBatch<RawRecord>) -> Result<ReadStatus> {
        let Some(follower) = &self.follower else {
            if !self.given && !self.tail.is_empty() {
                let value = Bytes::from(mem::take(&mut self.tail));
                batch.push(self.line, self.record(self.line, value));
                self.line += 1;
            }
            return Ok(ReadStatus::Ended);
        };
        let Some(plain) = self.input.plain() else {
            return Err(Error::internal("a packed file cannot be followed"));
        };
        let gone = |why: &str| {
            let path = self.identity.path.display();
            Error::user(format!("{path} {why} while it was followed; this job cannot go on in it"))
        };
        let now = fs::metadata(self.path()).map_err(|e| gone("was removed").because(e))?;
        let open = plain.file.metadata().map_err(|e| gone("was lost").because(e))?;
        let (now, open) = (Stamp::new(&now), Stamp::new(&open));
        if !now.same_file(&open) {
            return Err(gone("was replaced"));
        }
        if now.length != plain.offset {
            return Ok(ReadStatus::More);
        }
        follower.wait(now);
        self.waiting = true;
        Ok(ReadStatus::CaughtUp)
    }

    /// Whether a reader that waits at the end has reason to look again.
    fn has_news(&mut self) -> Result<bool> {
        if !self.follower.as_ref().is_some_and(|f| f.changed()) {
            return Ok(false);
        }
        // A file that was cut and grew again is longer, too; its head tells.
        // (One that is not there any more is reported by `end`.)
        if let Ok(mut file) = split::open(&self.identity.path) {
            self.identity.check(&mut file)?;
        }
        self.waiting = false;
        Ok(true)
    }
}

impl SplitReader for LineReader {
    type Item = RawRecord;

    fn read(&mut self, batch: &mut ReadBatch<RawRecord>, max: usize) -> Result<ReadStatus> {
        if self.waiting && !self.has_news()? {
            return Ok(ReadStatus::CaughtUp);
        }
        let (before, mut room) = (batch.len(), BATCH);
        loop {
            let left = max.saturating_sub(batch.len() - before);
            if self.at < self.arena.len() {
                room = room.saturating_sub(self.take_lines(batch, left, room));
            }
            if batch.len() - before >= max || room == 0 {
                return Ok(ReadStatus::More);
            }
            match self.fill() {
                Ok(Step::Lines) => {}
                Ok(Step::Begun) => return Ok(ReadStatus::More),
                Ok(Step::End) => return self.end(batch),
                Err(error) if batch.len() > before => {
                    self.failed = Some(error);
                    return Ok(ReadStatus::More);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Exact at the end; before it, estimated from the lines so far and the bytes to come.
    fn lag(&self) -> Option<u64> {
        let plain = self.input.plain()?;
        let waiting = self.arena.len() - self.at;
        let unread = plain.length.saturating_sub(plain.offset);
        if unread == 0 && waiting == 0 {
            return Some(0);
        }
        let read = plain.offset.saturating_sub((waiting + self.tail.len()) as u64);
        let mean = (read / self.line.max(1)).max(1);
        Some(((waiting as u64 + unread) / mean).max(1))
    }
}
