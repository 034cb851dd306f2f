//! Copies past the processor's caches.

/// Bytes from which on it pays: less is better left in the caches.
const MUCH: usize = 8 << 20;

/// Copies bytes as part of a copy of `all` bytes that somebody reads later: another process, or nobody before the caches
/// have been used for other things. Where that is much it goes past the caches, so that memory is not read only to be
/// overwritten; on a processor that can't, and where it is little, it is a plain copy.
///
/// # Panics
/// As [`slice::copy_from_slice`]: both must be of one length.
pub fn copy_past_cache(from: &[u8], to: &mut [u8], all: usize) {
    match all < MUCH {
        true => to.copy_from_slice(from),
        false => copy_streamed(from, to),
    }
}

#[cfg(target_arch = "x86_64")]
fn copy_streamed(from: &[u8], to: &mut [u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const WORD: usize = size_of::<__m128i>();

    assert_eq!(from.len(), to.len(), "both slices of a copy are of one length");
    let head = to.as_ptr().align_offset(WORD).min(to.len());
    let (from_head, from) = from.split_at(head);
    let (to_head, to) = to.split_at_mut(head);
    to_head.copy_from_slice(from_head);
    let (words, rest) = from.as_chunks::<WORD>();
    let (places, to_rest) = to.as_chunks_mut::<WORD>();
    for (word, place) in words.iter().zip(places) {
        // SAFETY: both are 16 bytes, the place is on a boundary of 16 bytes, and every processor of this kind has these
        // instructions.
        unsafe { _mm_stream_si128(place.as_mut_ptr().cast(), _mm_loadu_si128(word.as_ptr().cast())) };
    }
    // SAFETY: as above. Others see what was written before whatever this thread writes next.
    unsafe { _mm_sfence() };
    to_rest.copy_from_slice(rest);
}

#[cfg(not(target_arch = "x86_64"))]
fn copy_streamed(from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_wherever_it_lies() {
        let from: Vec<u8> = (0..300u32).map(|byte| byte as u8).collect();
        for start in 0..20 {
            for length in (0..70).chain([255]) {
                for (all, offset) in [(0, 0), (MUCH, 0), (MUCH, 3)] {
                    let mut to = vec![7; 300];
                    copy_past_cache(&from[offset..offset + length], &mut to[start..start + length], all);
                    assert_eq!(to[start..start + length], from[offset..offset + length]);
                    let outside = to[..start].iter().chain(&to[start + length..]);
                    assert!(outside.copied().all(|byte| byte == 7), "{start} {length}");
                }
            }
        }
    }
}
