//! Letters about records that an operator behind an exchange has given up (fault F85). Every branch
//! had accepted them, and the sink of the dead letters may be far beyond: so a letter comes between
//! two later records, in a portion of its own that covers none, and positions count letters beside
//! records ([`Position::told`](crate::record::Position)).

use super::given_up::GivenUpBy;
use super::portion::{Portion, Start};
use super::split::OpenSplit;
use crate::connector::{DeadLetter, RawRecord, ReadBatch, ReadStatus, Source, Wake};
use crate::data::Data;
use crate::error::Result;

impl<T: Data> OpenSplit<T> {
    /// The letter that comes next, with the record as it is in the source, if that still has it.
    /// `None`: not at hand yet.
    pub(crate) fn next_letter(
        &mut self,
        source: &dyn Source<Item = T>,
        wake: &Wake,
    ) -> Option<Portion<T>> {
        let GivenUpBy { operator, at, error, .. } = self.due_letter()?.clone();
        let split = self.plan.split.clone();
        let raw = self.read_again(at, source, wake).unwrap_or_else(|error| {
            tracing::warn!(split = %split.id, at, %error, "the record of a dead letter cannot be read again: the letter is sent without it");
            Some(None)
        })?;
        self.again = None;
        let mut letter = DeadLetter::given_up(&split, at, raw, error);
        letter.operator = Some(operator.as_str().into());
        let start = Start { split: self.plan.index, position: self.position, time: self.time };
        Some(Portion::letter(start, at, letter, operator))
    }

    /// The undecoded form of a record, if there is one. `None`: not at hand yet.
    fn read_again(
        &mut self,
        at: u64,
        source: &dyn Source<Item = T>,
        wake: &Wake,
    ) -> Result<Option<Option<RawRecord>>> {
        let (reader, batch) = match &mut self.again {
            Some(again) => again,
            again => {
                let mut batch = ReadBatch::default();
                batch.restart(at);
                again.insert((source.open(&self.plan.split, at, wake.clone())?, batch))
            }
        };
        let status = reader.read(batch, 1)?;
        let is_there = matches!(status, ReadStatus::More | ReadStatus::Waiting);
        if batch.next <= at && is_there {
            return Ok(None);
        }
        let row = batch.offsets.iter().position(|offset| *offset == at);
        Ok(Some(row.and_then(|row| batch.raws.get(row).cloned())))
    }
}
