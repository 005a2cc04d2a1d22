//! What is sent in one go: records of one split, stamped, with the position after them.

use std::collections::{BTreeMap, BTreeSet};

use crate::connector::{DeadLetter, RawRecord};
use crate::record::{Batch, BatchBuilder, Kind, Place, Position, Run, Split};
use crate::time::{SplitTime, Timestamp};

/// Records of one split between two positions, and their dead letters.
pub(crate) struct Portion<T> {
    /// The records, with their marks.
    pub(crate) rows: Batch<T>,
    /// The position and the sense of time after all of them.
    pub(crate) end: Position,
    pub(crate) time: SplitTime,
    /// By position.
    pub(crate) letters: BTreeMap<u64, DeadLetter>,
    /// Records that were found unfit to be processed, and are no facts yet.
    pub(crate) unsettled: BTreeSet<u64>,
    /// The operator that has given a record up, if the portion is nothing but the letter about it.
    pub(crate) of: Option<String>,
    from: Start,
    /// Of every physical row.
    offsets: Vec<u64>,
    /// The undecoded form of every physical row; empty if the source has none.
    raws: Vec<RawRecord>,
}

/// Where a portion begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// The split's index.
    pub(crate) split: u32,
    pub(crate) position: Position,
    pub(crate) time: SplitTime,
}

impl Start {
    fn run(&self, end: Position) -> Run {
        let Position { next: first, told, .. } = self.position;
        Run { split: self.split, first, told, end }
    }
}

/// Records that have been taken from a reader, not stamped yet.
pub(crate) struct Taken<T> {
    pub(crate) items: Vec<T>,
    pub(crate) times: Vec<Timestamp>,
    pub(crate) offsets: Vec<u64>,
    pub(crate) raws: Vec<RawRecord>,
    pub(crate) letters: BTreeMap<u64, DeadLetter>,
    pub(crate) unsettled: BTreeSet<u64>,
    /// The position after everything.
    pub(crate) next: u64,
}

impl<T> Taken<T> {
    /// Makes dead letters of some of the items.
    pub(crate) fn refuse(&mut self, refused: BTreeMap<usize, DeadLetter>) {
        if refused.is_empty() {
            return;
        }
        let keep: Vec<bool> =
            (0..self.items.len()).map(|row| !refused.contains_key(&row)).collect();
        fn retain<U>(column: &mut Vec<U>, keep: &[bool]) {
            let mut keep = keep.iter();
            column.retain(|_| keep.next().is_none_or(|keep| *keep));
        }
        for (row, letter) in refused {
            self.letters.insert(self.offsets[row], letter);
        }
        retain(&mut self.items, &keep);
        retain(&mut self.times, &keep);
        retain(&mut self.offsets, &keep);
        retain(&mut self.raws, &keep);
    }
}

impl<T> Portion<T> {
    pub(crate) fn new(from: Start, taken: Taken<T>) -> Self {
        let Taken { items, times, offsets, raws, letters, unsettled, next } = taken;
        let stamped = stamp(from, times.iter().copied().zip(0..), letters.len(), next);
        let rows = BatchBuilder::of(items, times, stamped.marks);
        Self {
            rows: rows.finish(Some(from.run(stamped.end)), Kind::Final),
            end: stamped.end,
            time: stamped.time,
            letters,
            unsettled,
            of: None,
            from,
            offsets,
            raws,
        }
    }

    /// The dead letter of a record that had been accepted, and nothing else: it counts as no record.
    pub(crate) fn letter(from: Start, at: u64, letter: DeadLetter, of: String) -> Self {
        let end = Position { told: from.position.told + 1, ..from.position };
        let rows = BatchBuilder::with_capacity(0);
        Self {
            rows: rows.finish(Some(from.run(end)), Kind::Final),
            end,
            time: from.time,
            letters: BTreeMap::from([(at, letter)]),
            unsettled: BTreeSet::new(),
            of: Some(of),
            from,
            offsets: vec![],
            raws: vec![],
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.from.position.next
    }

    pub(crate) fn begin(&self) -> Place {
        self.from.position.place()
    }

    /// The dead letters, as a batch.
    pub(crate) fn dead(&self) -> Batch<DeadLetter> {
        let mut dead = BatchBuilder::with_capacity(self.letters.len());
        for letter in self.letters.values() {
            dead.push(letter.clone(), letter.timestamp.unwrap_or(Timestamp::MIN), None);
        }
        dead.finish(self.rows.run().copied(), Kind::Final)
    }

    /// The position of a row.
    pub(crate) fn offset(&self, row: u32) -> u64 {
        self.offsets.get(row as usize).copied().unwrap_or(self.from.position.next)
    }

    /// Marks by another watermark than the split's own: what the rules forbid, for the control that
    /// shows that it would be noticed.
    pub(crate) fn marked_by(mut self, watermark: Timestamp) -> Self {
        let rows: Vec<u32> = self.rows.indices().collect();
        let late = rows.iter().filter(|&&row| self.rows.time(row) < watermark);
        let marks = late.map(|&row| (row, watermark)).collect();
        self.rows = self.rows.restamped(rows, marks, self.from.run(self.end));
        self
    }

    /// The portion as if these rows had been unusable from the start: they are dead letters, and
    /// have moved no watermark, so the others are stamped anew.
    pub(crate) fn without(mut self, culprits: &BTreeMap<u32, String>, split: &Split) -> Self {
        for (&row, error) in culprits {
            let at = self.offset(row);
            let raw = self.raws.get(row as usize).cloned();
            self.letters.insert(at, DeadLetter::given_up(split, at, raw, error.clone()));
            self.unsettled.insert(at);
        }
        let left: Vec<u32> =
            self.rows.indices().filter(|row| !culprits.contains_key(row)).collect();
        let times = left.iter().map(|&row| (self.rows.time(row), row));
        let stamped = stamp(self.from, times, self.letters.len(), self.end.next);
        self.rows = self.rows.restamped(left, stamped.marks, self.from.run(stamped.end));
        (self.end, self.time) = (stamped.end, stamped.time);
        self
    }
}

struct Stamped {
    marks: Vec<(u32, Timestamp)>,
    end: Position,
    time: SplitTime,
}

/// Marks (rule T2) and the position after the records (rules T1, D13).
fn stamp(
    from: Start,
    times: impl Iterator<Item = (Timestamp, u32)>,
    dead: usize,
    next: u64,
) -> Stamped {
    let Start { position, mut time, .. } = from;
    let (mut marks, mut accepted) = (vec![], 0);
    for (at, row) in times {
        if let Some(mark) = time.accept(at) {
            marks.push((row, mark));
        }
        accepted += 1;
    }
    let end = Position {
        next,
        high: time.high(),
        read: position.read + accepted + dead as u64,
        accepted: position.accepted + accepted,
        floor: time.floor(),
        told: position.told,
    };
    Stamped { marks, end, time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::seconds;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_micros(s * 1_000_000)
    }

    #[test]
    fn t2_a_record_that_is_given_up_has_never_moved_the_watermark() {
        let split = Split::new("t/0", "t", 0);
        let time = SplitTime::new(Some(at(0)), None, seconds(10));
        let position = Position { next: 5, read: 5, accepted: 5, ..Position::default() };
        let taken = Taken {
            items: vec!['a', 'b', 'c'],
            times: vec![at(5), at(1_000), at(6)],
            offsets: vec![5, 6, 8],
            raws: vec![],
            letters: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            next: 9,
        };
        let portion = Portion::new(Start { split: 0, position, time }, taken);
        assert_eq!(portion.rows.marked().collect::<Vec<_>>(), [(2, at(990))]);
        assert_eq!((portion.end.next, portion.end.accepted, portion.end.read), (9, 8, 8));
        let portion = portion.without(&BTreeMap::from([(1, "boom".to_owned())]), &split);
        assert_eq!(portion.rows.values().collect::<Vec<_>>(), [&'a', &'c']);
        assert_eq!(portion.rows.marked().count(), 0);
        assert_eq!(portion.end.high, Some(at(6)));
        assert_eq!((portion.end.accepted, portion.end.read), (7, 8));
        let dead = portion.dead();
        let letter = dead.values().next().unwrap();
        assert_eq!(
            (letter.offset, &*letter.reason, &*letter.error),
            (6, "processing_error", "boom")
        );
        assert_eq!(portion.unsettled, BTreeSet::from([6]));
    }
}
