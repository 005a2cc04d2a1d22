//! The bounds on what travels, what partitions, and what a checkpoint holds.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that travels through a stream.
///
/// Batches are shared by the branches of a job and by its workers, hence `Sync`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel through a stream",
    note = "records must be `Send + Sync + 'static`: own their data and borrow nothing"
)]
pub trait Data: Send + Sync + 'static {}
impl<T: Send + Sync + 'static> Data for T {}

/// State that a checkpoint can hold.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored in a checkpoint",
    note = "add `#[derive(serde::Serialize, serde::Deserialize)]`"
)]
pub trait State: Data + Serialize + DeserializeOwned {}
impl<T: Data + Serialize + DeserializeOwned> State for T {}

/// A partitioning key.
///
/// A key is its bytes: they are hashed by a fixed function, compared, and stored in checkpoints, so
/// they must be the same in every process and every version of the program. `std::hash::Hash`
/// promises none of that and is never used.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    note = "keys are strings, byte strings, integers, `bool` and `()`; floats are not, since they are not `Eq`",
    note = "for a key of several parts, make one string or one byte string of them"
)]
pub trait Key: Eq {
    /// The key as a result carries it.
    type Owned: Data + Clone + Eq + std::fmt::Debug;

    /// Calls `f` with the bytes of the key.
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R;

    /// The key whose bytes these are; the inverse of [`with_bytes`](Self::with_bytes).
    fn from_bytes(bytes: &[u8]) -> Self::Owned;
}

impl Key for str {
    type Owned = String;
    #[inline(always)]
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self.as_bytes())
    }
    fn from_bytes(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Key for String {
    type Owned = String;
    #[inline(always)]
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self.as_bytes())
    }
    fn from_bytes(bytes: &[u8]) -> String {
        str::from_bytes(bytes)
    }
}

impl Key for [u8] {
    type Owned = Vec<u8>;
    #[inline(always)]
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self)
    }
    fn from_bytes(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }
}

impl Key for Vec<u8> {
    type Owned = Vec<u8>;
    #[inline(always)]
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self)
    }
    fn from_bytes(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }
}

impl Key for () {
    type Owned = ();
    #[inline(always)]
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(&[])
    }
    fn from_bytes(_: &[u8]) {}
}

impl Key for bool {
    type Owned = bool;
    #[inline(always)]
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(&[u8::from(*self)])
    }
    fn from_bytes(bytes: &[u8]) -> bool {
        bytes.first() == Some(&1)
    }
}

macro_rules! integer_keys {
    ($($int:ty),*) => {$(
        impl Key for $int {
            type Owned = $int;
            #[inline(always)]
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
                f(&self.to_le_bytes())
            }
            fn from_bytes(bytes: &[u8]) -> $int {
                let mut buffer = [0; size_of::<$int>()];
                let n = bytes.len().min(buffer.len());
                buffer[..n].copy_from_slice(&bytes[..n]);
                <$int>::from_le_bytes(buffer)
            }
        }
    )*};
}
integer_keys!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_bytes() {
        assert_eq!((-5i64).with_bytes(i64::from_bytes), -5);
        assert_eq!("käse".with_bytes(str::from_bytes), "käse");
        assert!(true.with_bytes(bool::from_bytes));
        assert_eq!(vec![0u8, 255].with_bytes(<[u8]>::from_bytes), [0, 255]);
    }
}
