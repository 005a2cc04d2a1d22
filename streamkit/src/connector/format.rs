//! From bytes to records: decoders and dead letters.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::{ReadBatch, ReadStatus, Source, SplitReader, Wake};
use crate::data::Data;
use crate::error::{Result, panic_text};
use crate::record::{Split, SplitId};
use crate::time::Timestamp;

/// A record as a topic or a file holds it, before it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawRecord {
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value; `None` is Kafka's null (a tombstone).
    pub value: Option<Bytes>,
    /// The record's own timestamp: Kafka's, or the limit base of a file. What `max_future` is
    /// measured against.
    pub timestamp: Option<Timestamp>,
    /// The partition's number.
    pub partition: i32,
    /// The offset, or the 0-based line number.
    pub offset: u64,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// A short word that people count by: `bad_json`.
    pub reason: &'static str,
    /// The field, if one is to blame.
    pub field: Option<&'static str>,
    /// A sentence: what is wrong with which value.
    pub error: String,
}

/// Turns a raw record into an item.
pub trait Decode: Send + Sync + 'static {
    /// What comes out.
    type Item: Data;

    /// Decodes one record; it must not depend on any other record.
    ///
    /// # Errors
    /// A [`Reject`] sends the record to the dead letters. It never stops the job nor moves the
    /// watermark. A panic does the same with the reason `processing_error`, after a second try,
    /// where dead letters go somewhere; elsewhere it stops the job.
    fn decode(&self, record: &RawRecord) -> Result<Self::Item, Reject>;
}

/// A record that could not be used, with everything needed to look at it and to replay it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// A short word that people count by: `bad_json`.
    pub reason: Cow<'static, str>,
    /// The field, if one is to blame.
    pub field: Option<Cow<'static, str>>,
    /// A sentence: what is wrong with which value.
    pub error: String,
    /// The operator that has given the record up, if all others have had it: whoever brings the record
    /// back has them count it twice. `None`: nothing has had it.
    pub operator: Option<Arc<str>>,
    /// The topic, or the file's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The offset, or the 0-based line number.
    pub offset: u64,
    /// The record's own timestamp.
    pub timestamp: Option<Timestamp>,
    /// The original key.
    pub key: Option<Bytes>,
    /// The original bytes.
    pub value: Option<Bytes>,
}

impl DeadLetter {
    /// The dead letter of `record`.
    pub fn new(reject: Reject, topic: &Arc<str>, record: &RawRecord) -> Self {
        Self {
            reason: Cow::Borrowed(reject.reason),
            field: reject.field.map(Cow::Borrowed),
            error: reject.error,
            operator: None,
            topic: Arc::clone(topic),
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
        }
    }
}

/// The reason of records that user code could not process: it panicked on them, or said so.
pub(crate) const PROCESSING_ERROR: &str = "processing_error";

impl DeadLetter {
    /// The dead letter of a record that was given up.
    pub(crate) fn given_up(split: &Split, at: u64, raw: Option<RawRecord>, error: String) -> Self {
        let none = || RawRecord { partition: split.partition, offset: at, ..RawRecord::default() };
        let reject = Reject { reason: PROCESSING_ERROR, field: None, error };
        Self::new(reject, &split.topic, &raw.unwrap_or_else(none))
    }
}

/// What can be done with any source of raw records.
pub trait SourceExt: Source<Item = RawRecord> + Sized {
    /// Decodes each record where it is read; what cannot be decoded becomes a dead letter.
    fn decode<D: Decode>(self, decoder: D) -> Decoded<Self, D> {
        Decoded { source: self, decoder: Arc::new(decoder) }
    }
}

impl<S: Source<Item = RawRecord>> SourceExt for S {}

/// A source of raw records with a decoder.
#[derive(Debug)]
pub struct Decoded<S, D> {
    source: S,
    decoder: Arc<D>,
}

impl<S: Source<Item = RawRecord>, D: Decode> Source for Decoded<S, D> {
    type Item = D::Item;

    fn describe(&self) -> String {
        self.source.describe()
    }

    fn splits(&self, known: &[Split]) -> Result<Vec<Split>> {
        self.source.splits(known)
    }

    fn start(&self, split: &Split) -> Result<u64> {
        self.source.start(split)
    }

    fn end(&self, split: &Split) -> Result<u64> {
        self.source.end(split)
    }

    fn open(
        &self,
        split: &Split,
        position: u64,
        wake: Wake,
    ) -> Result<Box<dyn SplitReader<Item = D::Item>>> {
        Ok(Box::new(DecodedReader {
            reader: self.source.open(split, position, wake)?,
            decoder: Arc::clone(&self.decoder),
            split: split.clone(),
            raws: ReadBatch::default(),
        }))
    }

    fn committed(&self, positions: &[(SplitId, u64)]) {
        self.source.committed(positions);
    }
}

struct DecodedReader<D> {
    reader: Box<dyn SplitReader<Item = RawRecord>>,
    decoder: Arc<D>,
    split: Split,
    raws: ReadBatch<RawRecord>,
}

impl<D: Decode> SplitReader for DecodedReader<D> {
    type Item = D::Item;

    fn read(&mut self, batch: &mut ReadBatch<D::Item>, max: usize) -> Result<ReadStatus> {
        self.raws.restart(batch.next);
        let status = self.reader.read(&mut self.raws, max)?;
        let raws = &mut self.raws;
        let (mut at, mut tried) = (0, None);
        // One frame for all of them: catching costs nothing as long as nothing is thrown.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
            while let (Some(raw), Some(&offset)) = (raws.items.get_mut(at), raws.offsets.get(at)) {
                match self.decoder.decode(raw) {
                    Ok(item) => {
                        batch.push(offset, item);
                        batch.raws.push(std::mem::take(raw));
                    }
                    Err(reject) => {
                        let letter = DeadLetter::new(reject, &self.split.topic, raw);
                        batch.rejected.push((offset, letter));
                    }
                }
                at += 1;
            }
        })) {
            // Once more: what made it panic may have passed.
            if tried.replace(at) == Some(at) {
                let (raw, offset) = (std::mem::take(&mut raws.items[at]), raws.offsets[at]);
                let error = panic_text(panic.as_ref());
                let letter = DeadLetter::given_up(&self.split, offset, Some(raw), error);
                batch.rejected.push((offset, letter));
                at += 1;
            }
        }
        batch.set_next(self.raws.next);
        Ok(status)
    }

    fn lag(&self) -> Option<u64> {
        self.reader.lag()
    }
}
