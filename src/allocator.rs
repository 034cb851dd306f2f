//! Memory for whole arrays: the system gives it in huge pages, and what is freed is used again while it is warm.
//!
//! The first touch of a page costs more than what is written to it; in a virtual machine several times more. Most
//! allocators take 4 KiB pages for arrays and give them back soon, so that every task pays for each of them again. For
//! what is small huge pages are quicker too, but double the memory of a process that idles: mimalloc takes them, except in
//! workers that a run starts.

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// From so many bytes on a block comes from the system.
const DIRECT: usize = 2 << 20;
/// Blocks of more bytes go back to the system at once.
const KEPT: usize = 32 << 20;
/// What is kept of freed blocks at most.
const POOL: usize = 64 << 20;
/// Freed blocks that are kept at most.
const PLACES: usize = 32;
/// A huge page of x86-64 and of most other machines.
const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// The allocator of the `ropeway` binary, for a program with stages of its own:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: ropeway::Allocator = ropeway::Allocator;
/// ```
///
/// It is mimalloc, but for what is as large as a whole array.
pub struct Allocator;

// SAFETY: small blocks are mimalloc's from their allocation to their end. A large one is a mapping of its own of
// `length(size)` bytes, which depends on nothing but the layout; it is in the pool or somebody's, never both.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_direct(layout) {
            // SAFETY: the caller's promises are passed on.
            return unsafe { MiMalloc.alloc(layout) };
        }
        let length = length(layout.size());
        let warm = pool().take(length);
        warm.unwrap_or_else(|| map(length))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_direct(layout) {
            // SAFETY: the caller's promises are passed on.
            return unsafe { MiMalloc.alloc_zeroed(layout) };
        }
        let length = length(layout.size());
        let warm = pool().take(length);
        let Some(block) = warm else { return map(length) };
        // SAFETY: the block has at least so many bytes.
        unsafe { block.write_bytes(0, layout.size()) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_direct(layout) {
            // SAFETY: the caller's promises are passed on.
            return unsafe { MiMalloc.dealloc(block, layout) };
        }
        let length = length(layout.size());
        let kept = pool().keep(block, length);
        if !kept {
            unmap(block, length);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size, rounded up to the alignment, does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_direct(layout), is_direct(wanted)) {
            // SAFETY: the caller's promises are passed on.
            (false, false) => unsafe { MiMalloc.realloc(block, layout, size) },
            (true, true) if length(layout.size()) == length(size) => block,
            (true, true) => stretch(block, length(layout.size()), length(size)),
            _ => {
                // SAFETY: the caller's promises are passed on.
                let other = unsafe { self.alloc(wanted) };
                if !other.is_null() {
                    // SAFETY: both have so many bytes, and are two blocks.
                    unsafe { ptr::copy_nonoverlapping(block, other, layout.size().min(size)) };
                    // SAFETY: the caller gives the block up.
                    unsafe { self.dealloc(block, layout) };
                }
                other
            }
        }
    }
}

fn is_direct(layout: Layout) -> bool {
    layout.size() >= DIRECT && layout.align() <= PAGE
}

/// The length of the mapping for a block: nearly equal sizes often share one, so that one fits where another was. What
/// is never touched costs nothing.
fn length(size: usize) -> usize {
    let step = (size.next_power_of_two() / 16).max(PAGE);
    size.next_multiple_of(step)
}

/// Freed blocks, the oldest first, without gaps.
struct Pool {
    blocks: [Option<(NonNull<u8>, usize)>; PLACES],
    bytes: usize,
}

// SAFETY: the blocks are nobody else's.
unsafe impl Send for Pool {}

fn pool() -> MutexGuard<'static, Pool> {
    static POOL: Mutex<Pool> = Mutex::new(Pool { blocks: [None; PLACES], bytes: 0 });
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The block of a length that was freed last.
    fn take(&mut self, length: usize) -> Option<*mut u8> {
        let place = self.blocks.iter().rposition(|place| place.is_some_and(|(_, kept)| kept == length))?;
        self.remove(place).map(|(block, _)| block)
    }

    /// Keeps a block in the place of older ones; whether it does.
    fn keep(&mut self, block: *mut u8, length: usize) -> bool {
        let Some(block) = NonNull::new(block).filter(|_| length <= KEPT) else { return false };
        while self.bytes + length > POOL || self.blocks[PLACES - 1].is_some() {
            let Some((oldest, length)) = self.remove(0) else { return false };
            unmap(oldest, length);
        }
        let Some(place) = self.blocks.iter_mut().find(|place| place.is_none()) else { return false };
        *place = Some((block, length));
        self.bytes += length;
        true
    }

    fn remove(&mut self, place: usize) -> Option<(*mut u8, usize)> {
        let (block, length) = self.blocks[place].take()?;
        self.blocks[place..].rotate_left(1);
        self.bytes -= length;
        Some((block.as_ptr(), length))
    }
}

/// Undoes what mimalloc does when it starts where it is to take no huge pages, as in workers: it forbids them to the whole
/// process, and to the programs that this one starts.
pub(crate) fn allow_huge_pages() {
    static ALLOWED: Once = Once::new();
    // SAFETY: sets a flag of this process; an older system says that it knows no such flag.
    ALLOWED.call_once(|| unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
    });
}

/// A new mapping that begins where huge pages do; null if the system has none.
fn map(length: usize) -> *mut u8 {
    allow_huge_pages();
    // SAFETY: a new private mapping, which nothing knows of.
    let whole = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length + HUGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if whole == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let whole: *mut u8 = whole.cast();
    let before = whole.align_offset(HUGE);
    let block = whole.wrapping_add(before);
    unmap(whole, before);
    unmap(block.wrapping_add(length), HUGE - before);
    // SAFETY: the mapping is ours. That there are no huge pages changes nothing.
    unsafe { libc::madvise(block.cast(), length, libc::MADV_HUGEPAGE) };
    block
}

/// Gives part of a mapping back, or all of it.
fn unmap(block: *mut u8, length: usize) {
    if length > 0 {
        // SAFETY: the part is ours, begins and ends at a page, and nobody uses it any more.
        unsafe { libc::munmap(block.cast(), length) };
    }
}

/// Moves the pages of a block to one of another length, without a copy; null if the system has no room.
fn stretch(block: *mut u8, before: usize, length: usize) -> *mut u8 {
    let target = map(length);
    if target.is_null() {
        return target;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both mappings are ours, and what is at the target is in nobody's use.
    let moved = unsafe { libc::mremap(block.cast(), before, length, flags, target) };
    if moved == libc::MAP_FAILED {
        unmap(target, length);
        return ptr::null_mut();
    }
    moved.cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(block: *mut u8, size: usize, with: u8) {
        // SAFETY: the block has so many bytes.
        unsafe { block.write_bytes(with, size) };
    }

    fn holds(block: *mut u8, size: usize, with: u8) -> bool {
        // SAFETY: the block has so many bytes, which were all written.
        let bytes = unsafe { std::slice::from_raw_parts(block, size) };
        bytes.iter().all(|byte| *byte == with)
    }

    #[test]
    fn blocks_of_all_sizes_are_apart_and_keep_their_content_when_they_grow_and_shrink() {
        let sizes = [100, DIRECT - 1, DIRECT, DIRECT + 1, 5 << 20, 9 << 20, 33 << 20, 70 << 20];
        for round in 0..3u8 {
            let mut blocks = Vec::new();
            for (number, size) in (1..).zip(sizes) {
                let layout = Layout::from_size_align(size, 64).unwrap();
                // SAFETY: the size is not 0.
                let block = unsafe { Allocator.alloc(layout) };
                assert!(!block.is_null() && block.align_offset(64) == 0);
                fill(block, size, number + round);
                blocks.push((block, layout, number + round));
            }
            for (place, (block, layout, with)) in blocks.into_iter().enumerate() {
                assert!(holds(block, layout.size(), with));
                let size = sizes[(place + 3) % sizes.len()];
                // SAFETY: the block is of this layout, and the size is not 0.
                let other = unsafe { Allocator.realloc(block, layout, size) };
                assert!(holds(other, layout.size().min(size), with));
                fill(other, size, with);
                // SAFETY: the block is of this layout.
                unsafe { Allocator.dealloc(other, Layout::from_size_align(size, 64).unwrap()) };
            }
            let pool = pool();
            let kept: usize = pool.blocks.iter().flatten().map(|(_, length)| length).sum();
            assert!(kept == pool.bytes && kept <= POOL, "{kept}");
        }
    }

    #[test]
    fn what_is_used_again_is_zero_where_it_is_to_be() {
        let layout = Layout::from_size_align(6 << 20, 8).unwrap();
        for _ in 0..3 {
            // SAFETY: the size is not 0, and the blocks are of this layout.
            unsafe {
                let block = Allocator.alloc_zeroed(layout);
                assert!(holds(block, layout.size(), 0));
                fill(block, layout.size(), 1);
                Allocator.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn mappings_waste_little() {
        for size in (DIRECT..64 << 20).step_by(777_777) {
            let length = length(size);
            assert!(length >= size && length <= size + size / 8 && length.is_multiple_of(PAGE), "{size} {length}");
        }
    }
}
