//! Asks for memory before it is needed, so that waiting for several places overlaps.

/// How many rows ahead a loop over slots asks for.
pub(crate) const AHEAD: usize = 16;

/// Begins to load `slice[index]` into the cache, if there is such an element.
#[inline(always)]
#[expect(unsafe_code, reason = "the instruction has no safe form; see inside")]
pub(crate) fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about a valid address. It reads nothing that the program can see.
        unsafe { _mm_prefetch(std::ptr::from_ref(element).cast::<i8>(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}
