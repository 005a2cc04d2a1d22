//! Reads what is in a log, and refuses what cannot be what was written there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::codec;
use super::manifest::{Checkpoint, Fact, Manifest};
use super::protocol::{Chain, Listing, Object};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::state::Entries;

/// Most headers fit.
const FIRST_READ: u64 = 16 * 1024;
/// So many of the oldest and of the newest checkpoints are listed in a message.
const LISTED: usize = 5;

/// The objects of one job.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) store: Store,
    pub(super) job: String,
}

impl Reader {
    /// The headers of all checkpoints in the listing; `None` for a damaged one.
    pub(super) fn manifests(&self, listing: &Listing) -> Result<BTreeMap<u64, Option<Manifest>>> {
        let read = |(&number, &size)| match self.manifest(number, size) {
            Ok(manifest) => Ok((number, Some(manifest))),
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok((number, None)),
            Err(e) => Err(e),
        };
        listing.checkpoints.iter().map(read).collect()
    }

    /// The header of the checkpoint with this number, whose object has `size` bytes.
    pub(super) fn manifest(&self, number: u64, size: u64) -> Result<Manifest> {
        let object = Object::Checkpoint(number);
        let damaged = |e| self.damaged(object, e);
        let mut bytes = self.store.get_start(object, size, FIRST_READ)?;
        let header = codec::header_bytes(&bytes).map_err(damaged)?;
        if header > bytes.len() {
            bytes = self.store.get_start(object, size, header as u64)?;
        }
        let manifest = codec::decode_manifest(&bytes).map_err(damaged)?;
        self.must_be(object, &manifest.job, manifest.number)?;
        Ok(manifest)
    }

    /// The state at a checkpoint, and the increments that it took.
    pub(super) fn state(&self, chosen: &Manifest) -> Result<(BTreeMap<String, Entries>, Chain)> {
        let mut state = BTreeMap::<String, Entries>::new();
        let mut chain = Chain::new(chosen.base, 0);
        for number in chosen.base..=chosen.number {
            let object = Object::Checkpoint(number);
            let bytes = self.store.get(object)?;
            let Checkpoint { manifest, changes } =
                codec::decode(&bytes).map_err(|e| self.damaged(object, e))?;
            self.must_be(object, &manifest.job, manifest.number)?;
            if manifest.base != chosen.base || manifest.lineage != chosen.lineage {
                return Err(Error::corrupt(format!(
                    "{} is not what checkpoint {} builds on",
                    self.store.shown(object),
                    chosen.number
                )));
            }
            let size = bytes.len() as u64;
            chain = if manifest.is_base() { Chain::new(number, size) } else { chain.and(size) };
            for (operator, changes) in changes {
                let entries = state.entry(operator).or_default();
                match manifest.is_base() {
                    true => entries.add_base(changes),
                    false => entries.add_later(changes),
                }
            }
        }
        Ok((state, chain))
    }

    /// The fact with this number.
    pub(super) fn fact(&self, number: u64) -> Result<Fact> {
        let object = Object::Fact(number);
        let stored =
            codec::decode_fact(&self.store.get(object)?).map_err(|e| self.damaged(object, e))?;
        self.must_be(object, &stored.job, stored.number)?;
        Ok(stored.content)
    }

    /// No checkpoint fits: the message lists what there is.
    pub(super) fn none_fits(&self, seen: &BTreeMap<u64, Option<Manifest>>) -> Error {
        let mut text = format!(
            "no checkpoint in {} fits what the sinks have: each was made when a sink had more than \
             it has now. Kept are:",
            self.store.folder()
        );
        let newest = seen.len().saturating_sub(LISTED);
        for (i, (number, manifest)) in seen.iter().enumerate() {
            if i >= LISTED && i < newest {
                if i == LISTED {
                    text.push_str("\n  …");
                }
                continue;
            }
            // Writing into a text cannot fail.
            let _ = write!(text, "\n  {number}");
            let Some(manifest) = manifest else {
                text.push_str(": damaged");
                continue;
            };
            let _ = write!(text, " of {}, lineage {}", manifest.created, manifest.lineage);
            for (sink, confirmed) in &manifest.confirmed {
                let _ = match confirmed.w {
                    Some(w) => write!(text, "; {sink}: everything up to {w}"),
                    None if confirmed.has_progress => write!(text, "; {sink}: some progress"),
                    None => write!(text, "; {sink}: nothing"),
                };
            }
        }
        Error::user(text)
    }

    pub(super) fn must_be(&self, object: Object, job: &str, number: u64) -> Result<()> {
        let (Object::Checkpoint(expected) | Object::Fact(expected)) = object;
        if job == self.job && number == expected {
            return Ok(());
        }
        let text = format!("{} is number {number} of job {job:?}", self.store.shown(object));
        Err(Error::corrupt(format!("{text}: it was renamed or put there by hand")))
    }

    fn damaged(&self, object: Object, error: Error) -> Error {
        let text = format!("{} cannot be used", self.store.shown(object));
        let outer = if error.kind() == ErrorKind::Corrupt {
            Error::corrupt(format!("{text}, it is damaged"))
        } else {
            Error::user(text)
        };
        outer.because(error)
    }
}
