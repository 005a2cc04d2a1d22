//! What an operator puts into a checkpoint.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::KeyGroup;
use super::changes::{Changes, ChangesBuilder};
use crate::error::{Error, Result};

/// What a checkpoint asks of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Everything: a base.
    Beginning,
    /// What changed since the last time it was asked: an increment.
    Last,
}

/// The changes of one operator on one worker, in order.
#[derive(Debug)]
pub(crate) struct StateWriter {
    groups: (KeyGroup, KeyGroup),
    changes: ChangesBuilder,
    scratch: Vec<u8>,
    /// What could not be encoded first.
    failed: Option<Error>,
}

impl StateWriter {
    /// A writer for a worker that owns the groups from the first to the last.
    pub(crate) fn new(groups: (KeyGroup, KeyGroup)) -> Self {
        Self { groups, changes: ChangesBuilder::default(), scratch: vec![], failed: None }
    }

    /// The key is given in parts. A value that cannot be encoded is an error at the end.
    pub(crate) fn put(&mut self, group: KeyGroup, key: &[&[u8]], value: &impl Serialize) {
        self.scratch.clear();
        match encode(value, &mut self.scratch) {
            Ok(()) => self.changes.put(group, key, &self.scratch),
            Err(error) => _ = self.failed.get_or_insert(error),
        }
    }

    /// The same entry in each group: for what belongs to the worker and not to a key.
    pub(crate) fn put_in_every_group(&mut self, key: &[u8], value: &impl Serialize) {
        for group in self.groups.0..=self.groups.1 {
            self.put(group, &[key], value);
        }
    }

    pub(crate) fn delete(&mut self, group: KeyGroup, key: &[&[u8]]) {
        self.changes.delete(group, key);
    }

    pub(crate) fn delete_prefix(&mut self, prefix: &[u8]) {
        self.changes.delete_prefix(self.groups, prefix);
    }

    /// How many bytes have been written.
    pub(crate) fn written(&self) -> usize {
        self.changes.written()
    }

    pub(crate) fn into_changes(self) -> Result<Changes> {
        self.failed.map_or_else(|| Ok(self.changes.finish()), Err)
    }
}

/// The one encoding of state: postcard.
pub(crate) fn encode(value: &impl Serialize, into: &mut Vec<u8>) -> Result<()> {
    let bytes = std::mem::take(into);
    match postcard::to_extend(value, bytes) {
        Ok(bytes) => {
            *into = bytes;
            Ok(())
        }
        Err(e) => Err(Error::user("a value of the state cannot be encoded").because(e)),
    }
}

/// The inverse of [`encode`].
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::corrupt(
            "stored state cannot be decoded; was the type of an accumulator changed without a new name?",
        )
        .because(e)
    })
}
