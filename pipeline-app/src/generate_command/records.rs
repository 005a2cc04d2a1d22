//! The records of all splits in the order of their arrival.

use crate::generate::{GeneratedSpan, Generator, SplitGenerator};

/// The splits take turns: record n of split s is number `n · splits + s` of all.
pub(super) struct Records {
    splits: Vec<Split>,
    per_round: usize,
    /// The split whose turn it is, and the place of its record in the round.
    turn: usize,
    place: usize,
}

struct Split {
    generator: SplitGenerator,
    arena: Vec<u8>,
    spans: Vec<GeneratedSpan>,
}

impl Records {
    /// From the first record on; so many of each split are made at a time.
    pub(super) fn new(generator: &Generator, per_round: usize) -> Self {
        let split =
            |split| Split { generator: generator.reader(split, 0), arena: vec![], spans: vec![] };
        let per_round = per_round.max(1);
        let splits = (0..generator.splits()).map(split).collect();
        Self { splits, per_round, turn: 0, place: per_round }
    }

    /// The next record: its split, and where it is in which bytes.
    pub(super) fn next(&mut self) -> (u32, &[u8], &GeneratedSpan) {
        if self.turn == 0 && self.place >= self.per_round {
            for split in &mut self.splits {
                split.arena.clear();
                split.spans.clear();
                split.generator.fill(&mut split.arena, &mut split.spans, self.per_round);
            }
            self.place = 0;
        }
        let (turn, place) = (self.turn, self.place);
        self.turn += 1;
        if self.turn == self.splits.len() {
            self.turn = 0;
            self.place += 1;
        }
        let split = &self.splits[turn];
        (turn as u32, &split.arena, &split.spans[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::GeneratorOptions;

    #[test]
    fn records_come_in_the_order_of_their_arrival_and_none_is_left_out() {
        let generator = Generator::new(&GeneratorOptions::default()).unwrap();
        for per_round in [1, 7] {
            let mut records = Records::new(&generator, per_round);
            let mut last = i64::MIN;
            for g in 0..100_u64 {
                let (split, arena, span) = records.next();
                assert_eq!((u64::from(split), span.n), (g % 4, g / 4));
                assert!(span.timestamp >= last);
                assert_eq!(span.timestamp, generator.arrival(split, span.n));
                assert!(arena.len() >= span.value.end as usize);
                last = span.timestamp;
            }
        }
    }
}
