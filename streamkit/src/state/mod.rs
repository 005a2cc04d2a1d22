//! Keyed state: what survives a restart.
//!
//! A key has a hash ([`key_hash`]), and the hash a key group, one of [`KEY_GROUPS`]. A worker owns a
//! range of groups. Each keyed stream has one [`KeyTable`] per worker, which gives a key a dense
//! *slot*; every operator on that stream keeps its state in columns that are indexed by slot, so
//! that a key is looked up once however many operators need it.
//!
//! A checkpoint holds entries `(operator, group, key, value)`. Each operator writes what changed
//! since the last checkpoint and deletes what is gone; each group can be restored alone, on any
//! worker.

mod bits;
mod changes;
mod entries;
mod key_group;
mod key_table;
mod prefetch;
mod snapshot;
mod timers;

pub(crate) use bits::BitSet;
#[cfg(test)]
pub(crate) use changes::Change;
pub(crate) use changes::{Changes, put_bytes, put_varint, read_bytes, read_varint};
pub(crate) use entries::{Entries, StateReader};
pub(crate) use key_group::KeyGroup;
pub use key_group::{KEY_GROUPS, key_hash};
pub(crate) use key_group::{group_of, worker_of};
pub(crate) use key_table::KeyTable;
pub(crate) use prefetch::{AHEAD, prefetch};
pub(crate) use snapshot::{Since, StateWriter, decode, encode};
pub(crate) use timers::Timers;
