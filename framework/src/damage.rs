//! Damaged bytes, for tests of whatever reads bytes from outside. All comes from a seed, so that what fails once fails
//! again.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 48, i64::MAX as u64, 1 << 63, u64::MAX];
/// The same in text.
const WORDS: [&str; 12] =
    ["0", "-1", "1e999", "18446744073709551616", "0.1", "null", "NaN", "\"", "{}", "[[[[", "\u{fffd}", "true"];

/// Has `read` read damaged copies of samples, so many of them. A reader may refuse them; it must not panic.
pub(crate) fn damaged(seed: u64, cases: usize, samples: &[Vec<u8>], mut read: impl FnMut(&[u8])) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for case in 0..cases {
        let mut bytes = samples[case % samples.len()].clone();
        for _ in 0..rng.random_range(1..5) {
            damage(&mut bytes, samples, &mut rng);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
        assert!(outcome.is_ok(), "case {case} of seed {seed} makes it panic: {:?}", String::from_utf8_lossy(&bytes));
    }
}

/// A part of something so long.
fn part(length: usize, rng: &mut ChaCha8Rng) -> Range<usize> {
    let from = rng.random_range(0..=length);
    let most = (length - from).min(1 << rng.random_range(0..12));
    from..from + rng.random_range(0..=most)
}

fn damage(bytes: &mut Vec<u8>, samples: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..9) {
        // A bit is another.
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        2 => bytes.truncate(at),
        // A part is missing, or there twice, or from something else.
        3 => drop(bytes.drain(part(bytes.len(), rng))),
        4 => {
            let twice = bytes[part(bytes.len(), rng)].to_vec();
            drop(bytes.splice(at..at, twice));
        }
        5 => {
            let other = &samples[rng.random_range(0..samples.len())];
            let other = other[part(other.len(), rng)].to_vec();
            let place = part(bytes.len(), rng);
            drop(bytes.splice(place, other));
        }
        // A number is another: of fixed width, of as many bytes as it needs, or in text.
        6 => {
            let number = EDGES[rng.random_range(0..EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            bytes.iter_mut().skip(at).zip(&number[..width]).for_each(|(byte, new)| *byte = *new);
        }
        7 => {
            let number = varint(EDGES[rng.random_range(0..EDGES.len())]);
            let end = bytes[at..].iter().position(|byte| byte & 0x80 == 0).map_or(bytes.len(), |last| at + last + 1);
            drop(bytes.splice(at..end, number));
        }
        _ => {
            let word = WORDS[rng.random_range(0..WORDS.len())].bytes();
            let digits = |byte: &u8| byte.is_ascii_digit();
            let from = bytes[at..].iter().position(digits).map_or(at, |found| at + found);
            let end = from + bytes[from..].iter().take_while(|byte| digits(byte)).count();
            drop(bytes.splice(from..end, word));
        }
    }
}

/// A number as Protocol Buffers write it.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
