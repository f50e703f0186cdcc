//! Counts what a process allocates: for benches, which name it as their allocator.
//!
//! While nobody counts, an allocation pays for one look at a flag.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

static COUNTS: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted: `#[global_allocator] static A: Counted = Counted;`.
pub struct Counted;

/// Allocations, and the bytes that were asked for; blocks that grow count again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocations {
    pub calls: u64,
    pub bytes: u64,
}

/// From now on everything is counted, or nothing.
pub fn count(on: bool) {
    COUNTS.store(on, Relaxed);
}

/// What all threads have allocated while it was counted; nothing where [`Counted`] is not the allocator.
pub fn so_far() -> Allocations {
    Allocations { calls: CALLS.load(Relaxed), bytes: BYTES.load(Relaxed) }
}

fn note(size: usize) {
    if COUNTS.load(Relaxed) {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(size as u64, Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator as it is; counting touches no memory but three atomics.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above; the block came from the same allocator.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_while_it_is_asked_for() {
        let layout = Layout::from_size_align(100, 8).unwrap();
        let before = so_far();
        let pair = || {
            // SAFETY: the layout is not empty, and the block is given back with it.
            unsafe {
                let block = Counted.alloc(layout);
                Counted.dealloc(block, layout);
            }
        };
        pair();
        assert_eq!(so_far(), before);
        count(true);
        pair();
        count(false);
        assert_eq!(so_far(), Allocations { calls: before.calls + 1, bytes: before.bytes + 100 });
    }
}
