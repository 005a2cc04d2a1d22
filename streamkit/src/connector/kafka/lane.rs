//! The queue between the thread that fetches and the reader of one partition.
//!
//! Records travel in chunks: the keys and values of some thousand records in one block of memory,
//! so that a record costs two reference counts and no allocation. The queue is bounded by what it
//! holds ([`Lane::load`]); the fetching side sees to that.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::observer::End;
use crate::connector::{RawRecord, Wake};
use crate::error::Error;
use crate::time::Timestamp;

/// What a record is charged beside its bytes, so that a bound in bytes is one in records too.
const OVERHEAD: usize = 64;

/// One record of a chunk.
#[derive(Debug, Clone, Copy)]
struct Row {
    offset: u64,
    millis: Option<i64>,
    /// Where its bytes begin: the key, and the value after it.
    start: u32,
    key: Option<u32>,
    value: Option<u32>,
}

/// Records in one block of memory.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    rows: Vec<Row>,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn charge(&self) -> usize {
        self.bytes.len() + self.rows.len() * OVERHEAD
    }

    /// The record at `index`; its bytes are shared with the chunk.
    #[inline]
    pub(super) fn record(&self, index: usize, partition: i32) -> RawRecord {
        let row = self.rows[index];
        let key_end = row.start + row.key.unwrap_or(0);
        let slice = |from: u32, length: u32| {
            self.bytes.slice(from as usize..from as usize + length as usize)
        };
        RawRecord {
            key: row.key.map(|length| slice(row.start, length)),
            value: row.value.map(|length| slice(key_end, length)),
            timestamp: row.millis.and_then(Timestamp::from_millis),
            partition,
            offset: row.offset,
        }
    }
}

/// Builds a chunk.
#[derive(Debug, Default)]
pub(super) struct ChunkBuilder {
    bytes: BytesMut,
    rows: Vec<Row>,
    /// What the last chunk needed: a good guess at what the next one will.
    last: (usize, usize),
}

impl ChunkBuilder {
    #[inline]
    pub(super) fn push(
        &mut self,
        offset: u64,
        millis: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        if self.rows.is_empty() {
            self.bytes.reserve(self.last.0);
            self.rows.reserve(self.last.1);
        }
        // Chunks end at a mebibyte and a record is below two gibibytes: all of it fits 32 bits.
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        let (key, value) = (key.map(length), value.map(length));
        self.rows.push(Row { offset, millis, start, key, value });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether the chunk is as large as a chunk should get.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= 1 << 20
    }

    pub(super) fn finish(&mut self) -> Chunk {
        self.last = (self.bytes.len(), self.rows.len());
        Chunk { bytes: self.bytes.split().freeze(), rows: std::mem::take(&mut self.rows) }
    }
}

/// What the fetching thread and a reader share.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: i32,
    wake: Wake,
    load: AtomicUsize,
    /// The position after everything that is there, as of the last fetch. 0: not known.
    high: AtomicU64,
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// That nothing follows the chunks. Void as soon as something does, or might.
    end: Option<End>,
    failure: Option<Error>,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Next {
    Chunk(Chunk),
    /// Nothing, and nothing follows: the evidence.
    End(End),
    /// Nothing, and no evidence.
    Nothing,
}

impl Lane {
    pub(super) fn new(partition: i32, wake: Wake) -> Self {
        Self {
            partition,
            wake,
            load: AtomicUsize::new(0),
            high: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the queue holds, in bytes.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Acquire)
    }

    pub(super) fn push(&self, chunk: Chunk) {
        self.load.fetch_add(chunk.charge(), Ordering::AcqRel);
        let mut state = self.state();
        let was_empty = state.chunks.is_empty();
        state.chunks.push_back(chunk);
        state.end = None;
        drop(state);
        if was_empty {
            self.wake.wake();
        }
    }

    /// Nothing follows what was pushed; `None` takes that back.
    pub(super) fn set_end(&self, end: Option<End>) {
        if let Some(end) = end {
            self.set_high(end.high);
        }
        let before = std::mem::replace(&mut self.state().end, end);
        if before != end {
            self.wake.wake();
        }
    }

    pub(super) fn set_high(&self, high: u64) {
        self.high.store(high, Ordering::Release);
    }

    pub(super) fn high(&self) -> u64 {
        self.high.load(Ordering::Acquire)
    }

    /// The partition cannot be read on. What was pushed before is still read.
    pub(super) fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
        self.wake.wake();
    }

    /// The next chunk, or what is known instead. A chunk's load is given back here.
    pub(super) fn next(&self) -> Result<Next, Error> {
        let mut state = self.state();
        if let Some(chunk) = state.chunks.pop_front() {
            drop(state);
            self.load.fetch_sub(chunk.charge(), Ordering::AcqRel);
            return Ok(Next::Chunk(chunk));
        }
        if let Some(error) = state.failure.take() {
            return Err(error);
        }
        Ok(state.end.map_or(Next::Nothing, Next::End))
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn chunk(offsets: std::ops::Range<u64>) -> Chunk {
        let mut builder = ChunkBuilder::default();
        for offset in offsets {
            builder.push(offset, Some(7), Some(b"k"), Some(b"value"));
        }
        builder.finish()
    }

    #[test]
    fn a_record_comes_back_with_its_nulls_and_its_empty_parts() {
        let mut builder = ChunkBuilder::default();
        let some = |text: &'static str| Some(text.as_bytes());
        let cases =
            [(None, None), (some(""), some("")), (some("key"), None), (None, some("value"))];
        for (i, (key, value)) in cases.iter().enumerate() {
            builder.push(i as u64, None, *key, *value);
        }
        let chunk = builder.finish();
        for (i, (key, value)) in cases.iter().enumerate() {
            let record = chunk.record(i, 3);
            assert_eq!((record.key.as_deref(), record.value.as_deref()), (*key, *value));
            assert_eq!((record.partition, record.offset, record.timestamp), (3, i as u64, None));
        }
        assert!(builder.is_empty());
    }

    #[test]
    fn wakes_once_for_a_burst_and_gives_the_load_back() {
        let woken = Arc::new(AtomicUsize::new(0));
        let wake = {
            let woken = Arc::clone(&woken);
            Wake::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            })
        };
        let lane = Lane::new(0, wake);
        lane.push(chunk(0..2));
        lane.push(chunk(2..4));
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        assert_eq!(lane.load(), 4 * (6 + OVERHEAD));
        while let Ok(Next::Chunk(_)) = lane.next() {}
        assert_eq!(lane.load(), 0);
    }

    #[test]
    fn t8_new_data_and_an_outage_void_the_evidence_of_the_end() {
        let lane = Lane::new(0, Wake::new(|| ()));
        let end = End { offset: 2, high: 2 };
        lane.set_end(Some(end));
        assert!(matches!(lane.next(), Ok(Next::End(e)) if e == end));
        lane.push(chunk(2..3));
        assert!(matches!(lane.next(), Ok(Next::Chunk(_))));
        assert!(matches!(lane.next(), Ok(Next::Nothing)));
        lane.set_end(Some(end));
        lane.set_end(None);
        assert!(matches!(lane.next(), Ok(Next::Nothing)));
    }

    #[test]
    fn a_failure_comes_after_what_was_read_before_it() {
        let lane = Lane::new(0, Wake::new(|| ()));
        lane.push(chunk(0..1));
        lane.fail(Error::external("gone"));
        assert!(matches!(lane.next(), Ok(Next::Chunk(_))));
        assert_eq!(lane.next().unwrap_err().message(), "gone");
    }
}
