//! How the key of a record is had: borrowed from it, or computed.
//!
//! The exchange and the look-up are handed whole batches, so that the loop over the rows is compiled
//! for the user's closure instead of calling it through a pointer for every row.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::data::{Data, Key};
use crate::state::key_hash;
use crate::task::{HashesOf, Lookup};

/// Takes the key of a record.
pub(crate) trait KeyOf<T>: Send + Sync + 'static {
    /// Calls `f` with the bytes of the record's key.
    fn with<R>(&self, record: &T, f: impl FnOnce(&[u8]) -> R) -> R;
}

/// A key that is a part of the record.
pub(crate) struct Borrowed<F, K: ?Sized>(F, PhantomData<fn() -> Box<K>>);

impl<F, K: ?Sized> Borrowed<F, K> {
    pub(crate) fn new(key: F) -> Self {
        Self(key, PhantomData)
    }
}

impl<T, K, F> KeyOf<T> for Borrowed<F, K>
where
    K: Key + ?Sized + 'static,
    F: for<'a> Fn(&'a T) -> &'a K + Send + Sync + 'static,
{
    #[inline(always)]
    fn with<R>(&self, record: &T, f: impl FnOnce(&[u8]) -> R) -> R {
        (self.0)(record).with_bytes(f)
    }
}

/// A key that is made for the purpose.
pub(crate) struct Computed<F>(pub(crate) F);

impl<T, K: Key, F: Fn(&T) -> K + Send + Sync + 'static> KeyOf<T> for Computed<F> {
    #[inline(always)]
    fn with<R>(&self, record: &T, f: impl FnOnce(&[u8]) -> R) -> R {
        (self.0)(record).with_bytes(f)
    }
}

/// Hashes the keys of a batch.
pub(super) fn hashes_by<T: Data>(key: &Arc<impl KeyOf<T>>) -> HashesOf<T> {
    let key = Arc::clone(key);
    Arc::new(move |batch, rows| {
        rows.iter().map(|row| key.with(batch.value(*row), key_hash)).collect()
    })
}

/// Looks up the keys of a batch.
pub(super) fn look_up_by<T: Data>(key: &Arc<impl KeyOf<T>>) -> Lookup<T> {
    let key = Arc::clone(key);
    Box::new(move |batch, rows, hashes, keys, slots| {
        keys.guess(hashes, slots);
        for ((slot, hash), row) in slots.iter_mut().zip(hashes).zip(rows) {
            *slot = key.with(batch.value(*row), |bytes| keys.confirm(*slot, *hash, bytes));
        }
    })
}
