//! The bytes that the whole process holds for peers that do not take them.
//!
//! A connection holds at most one read's bytes. That is little for one, and much for a hundred
//! thousand that never read: once all of them together hold [`limit`] bytes, reads become small, so
//! that each further one can make its connection hold only [`SMALL`]. Nobody is cut off for it,
//! and peers that do read go on, in smaller steps.
//!
//! One number for the process, not one a worker: it is touched only when a peer is slow.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes of one read while too much is held.
pub const SMALL: usize = 2 * 1024;

static HELD: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static MET: AtomicU64 = AtomicU64::new(0);

/// Sets how many bytes may be held before reads become small.
pub fn limit(bytes: usize) {
    LIMIT.store(bytes, Relaxed);
}

/// How many times a read was made small.
pub fn met() -> u64 {
    MET.load(Relaxed)
}

/// Most bytes that a read of up to `wanted` may take now.
pub fn allowance(wanted: usize) -> usize {
    if HELD.load(Relaxed) < LIMIT.load(Relaxed) || wanted <= SMALL {
        return wanted;
    }
    MET.fetch_add(1, Relaxed);
    SMALL
}

/// `now` bytes are held where it were `before`.
pub fn changed(before: usize, now: usize) {
    // Wraps around in between for nobody: what is subtracted was added before.
    HELD.fetch_add(now.wrapping_sub(before), Relaxed);
}
