//! Memory that members of a gang on one machine share: each writes its own, and the others map it. It has no name in any
//! folder, and is gone when the processes are.

use crate::store::Key;
use crate::{Context, Error, Result};
use memmap2::{Mmap, MmapMut, MmapOptions, UncheckedAdvice};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

/// Members of one circle, at most.
pub(super) const MOST_MEMBERS: usize = 256;
/// What is given begins after the header.
const HEADER: u64 = 1 << 14;
/// What is given is kept in pieces of this size.
const PAGE: u64 = 1 << 12;
/// What a slot may keep beyond what it is used for.
const SLACK: u64 = 4 << 20;
/// How often it may keep that: what is written again soon should find its pages.
const PATIENCE: u32 = 16;

/// What stands at the head of a member's memory. Others read it while it is written: all of it is atomic.
#[repr(C)]
struct Header {
    /// Whose memory it is.
    nonce: AtomicU64,
    /// Rings when something is given: a futex.
    bell: AtomicU32,
    /// What is given takes turns, so that others may still read what was given before.
    slots: [Slot; 2],
}

/// Something that is given.
#[repr(C)]
struct Slot {
    /// Which exchange it is for; 0 while it is written.
    stamp: AtomicU64,
    /// Where in the memory it begins.
    offset: AtomicU64,
    /// The part of each member: where in it that begins and ends.
    parts: [[AtomicU64; 2]; MOST_MEMBERS],
}

/// The name of an exchange: that of its circle and its number in it, from 1.
pub(super) fn stamp(epoch: u64, turn: u32) -> u64 {
    (epoch << 32) | u64::from(turn)
}

const _: () = assert!(size_of::<Header>() as u64 <= HEADER);

/// Where a slot's content lies in its memory.
#[derive(Clone, Copy, Default)]
struct Area {
    begin: u64,
    room: u64,
    /// How much of it was written since it was last given back.
    used: u64,
    /// How often in a row much less was written.
    spared: u32,
}

/// A member's own memory.
pub(super) struct Memory {
    file: File,
    map: MmapMut,
    areas: [Area; 2],
    nonce: u64,
}

impl Memory {
    /// Memory for a member of the gang of a task.
    ///
    /// # Errors
    /// The system has none to share.
    pub(super) fn create(key: Key) -> Result<Self> {
        let file = anonymous()?;
        file.set_len(HEADER)?;
        // SAFETY: nobody else changes this memory: others have it for reading only.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        // Processes of two containers may have one number, but no two files of a machine do.
        let number = [file.metadata()?.dev(), file.metadata()?.ino()].map(u64::to_le_bytes);
        let digest = blake3::hash(&[key.0.as_bytes().as_slice(), number.as_flattened()].concat());
        let nonce = digest.as_bytes().first_chunk().map_or(1, |bytes| u64::from_le_bytes(*bytes));
        let this = Self { file, map, areas: [Area { begin: HEADER, ..Area::default() }; 2], nonce };
        this.header().nonce.store(nonce, Ordering::Release);
        Ok(this)
    }

    /// Where others of this machine find it.
    pub(super) fn address(&self) -> String {
        format!("{}/{}/{:x}", std::process::id(), self.file.as_raw_fd(), self.nonce)
    }

    fn header(&self) -> &Header {
        header(&self.map)
    }

    /// Room in a slot, where what was given before is no more, beside a part of what the other slot holds.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn write(
        &mut self,
        slot: usize,
        bytes: usize,
        (other, part): (usize, std::ops::Range<usize>),
    ) -> Result<(&mut [u8], &[u8])> {
        self.header().slots[slot].stamp.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let room = (bytes as u64).next_multiple_of(PAGE);
        if self.areas[slot].room < room {
            self.shrink(slot, 0);
            let begin = self.file.metadata()?.len();
            self.file.set_len(begin + room)?;
            // SAFETY: as above.
            self.map = unsafe { MmapMut::map_mut(&self.file) }.context("no memory for a gang's exchange")?;
            self.areas[slot] = Area { begin, room, ..Area::default() };
        }
        let area = &mut self.areas[slot];
        area.spared = if area.used < room + SLACK { 0 } else { area.spared + 1 };
        if area.spared > PATIENCE {
            self.shrink(slot, room);
        }
        let area = &mut self.areas[slot];
        area.used = area.used.max(room);
        let begin = area.begin as usize;
        let kept = self.areas[other].begin as usize;
        let kept = kept + part.start..kept + part.end;
        let parts = self.map.get_disjoint_mut([begin..begin + bytes, kept]);
        let [room, kept] = parts.ok().context("a slot lies within its memory, and beside the other")?;
        Ok((room, kept))
    }

    /// Gives the system back what of a slot is beyond what it is used for, if that is much: a state that was handed over
    /// once is as long as many gradients.
    fn shrink(&mut self, slot: usize, room: u64) {
        let area = &mut self.areas[slot];
        if area.used <= room {
            return;
        }
        let (begin, length) = ((area.begin + room) as usize, (area.used - room) as usize);
        (area.used, area.spared) = (room, 0);
        // SAFETY: the range is within the map, and nobody needs what it held: the slot's stamp was taken away.
        let given = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::Remove, begin, length) };
        if let Err(error) = given {
            tracing::debug!("memory of a gang is kept: {error}");
        }
    }

    /// Gives what a slot holds: to each member its part.
    pub(super) fn give(&self, slot: usize, stamp: u64, parts: &[std::ops::Range<usize>]) {
        let header = self.header();
        let at = &header.slots[slot];
        at.offset.store(self.areas[slot].begin, Ordering::Relaxed);
        for (part, [begin, end]) in parts.iter().zip(&at.parts) {
            begin.store(part.start as u64, Ordering::Relaxed);
            end.store(part.end as u64, Ordering::Relaxed);
        }
        at.stamp.store(stamp, Ordering::Release);
        header.bell.fetch_add(1, Ordering::Release);
        wake(&header.bell);
    }

    /// What was written to a slot.
    pub(super) fn written(&self, slot: usize, part: std::ops::Range<usize>) -> &[u8] {
        let begin = self.areas[slot].begin as usize;
        self.map.get(begin + part.start..begin + part.end).unwrap_or_default()
    }
}

/// Another member's memory.
pub(super) struct Mapped {
    file: File,
    map: Mmap,
}

impl Mapped {
    /// The memory at an address.
    ///
    /// # Errors
    /// It can't be seen from here, or is another's.
    pub(super) fn open(address: &str) -> Result<Self> {
        let mut words = address.split('/');
        let wrong = || Error::new(format!("{address:?} is no address of shared memory"));
        let mut next = || words.next().ok_or_else(wrong);
        let (process, descriptor) = (next()?.parse::<u32>()?, next()?.parse::<i32>()?);
        let nonce = u64::from_str_radix(next()?, 16)?;
        let path = format!("/proc/{process}/fd/{descriptor}");
        let file = File::open(&path).context(path)?;
        if file.metadata()?.len() < HEADER {
            return Err(wrong());
        }
        // SAFETY: another process writes to it. What its header says is atomic and checked; of what it gives, only
        // numbers are made, and those count only if nothing was written meanwhile (`is_whole`).
        let map = unsafe { Mmap::map(&file) }?;
        match header(&map).nonce.load(Ordering::Acquire) == nonce {
            true => Ok(Self { file, map }),
            false => Err(wrong()),
        }
    }

    /// The exchange for which something was given last in a slot.
    pub(super) fn stamp(&self, slot: usize) -> u64 {
        header(&self.map).slots[slot].stamp.load(Ordering::Acquire)
    }

    /// Whether a slot still holds what was given for an exchange.
    pub(super) fn is_whole(&self, slot: usize, stamp: u64) -> bool {
        fence(Ordering::Acquire);
        header(&self.map).slots[slot].stamp.load(Ordering::Relaxed) == stamp
    }

    /// Where in the memory the part of a member lies.
    ///
    /// # Errors
    /// It lies elsewhere.
    pub(super) fn part(&mut self, slot: usize, rank: usize) -> Result<std::ops::Range<usize>> {
        let at = &header(&self.map).slots[slot];
        let offset = at.offset.load(Ordering::Relaxed);
        let [begin, end] = at.parts[rank].each_ref().map(|place| offset.checked_add(place.load(Ordering::Relaxed)));
        let range = begin.zip(end).filter(|(begin, end)| *begin >= HEADER && begin <= end);
        let (begin, end) = range.context("a member gives what is nowhere")?;
        if end > self.map.len() as u64 {
            let length = self.file.metadata()?.len();
            if end > length {
                return Err(Error::new("a member gives more than it has"));
            }
            // SAFETY: as above.
            self.map = unsafe { MmapOptions::new().len(length as usize).map(&self.file) }?;
        }
        Ok(begin as usize..end as usize)
    }

    /// What lies there.
    pub(super) fn read(&self, place: std::ops::Range<usize>) -> &[u8] {
        self.map.get(place).unwrap_or_default()
    }

    /// How often it has rung.
    pub(super) fn rung(&self) -> u32 {
        header(&self.map).bell.load(Ordering::Acquire)
    }

    /// Waits until it rings again, but not for longer than `patience`.
    pub(super) fn listen(&self, rung: u32, patience: Duration) {
        sleep(&header(&self.map).bell, rung, patience);
    }
}

fn header(map: &[u8]) -> &Header {
    // SAFETY: a map begins on a page, is at least as long as a header, and every field of one is atomic, so that it may
    // change while it is looked at.
    unsafe { &*map.as_ptr().cast::<Header>() }
}

#[cfg(target_os = "linux")]
fn anonymous() -> Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a string that ends with a zero; the descriptor that is given is nobody else's.
    unsafe {
        let descriptor = libc::memfd_create(c"ropeway-gang".as_ptr(), libc::MFD_CLOEXEC);
        match descriptor {
            ..0 => Err(std::io::Error::last_os_error().into()),
            descriptor => Ok(File::from_raw_fd(descriptor)),
        }
    }
}

#[cfg(target_os = "linux")]
fn sleep(word: &AtomicU32, value: u32, patience: Duration) {
    let until = libc::timespec { tv_sec: patience.as_secs() as _, tv_nsec: patience.subsec_nanos() as _ };
    // SAFETY: the word and the time live until it returns, for whatever reason it does.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const until) };
}

#[cfg(target_os = "linux")]
fn wake(word: &AtomicU32) {
    // SAFETY: the word lives; nothing is written.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

#[cfg(not(target_os = "linux"))]
fn anonymous() -> Result<File> {
    Err(Error::new("memory is shared on Linux only"))
}

#[cfg(not(target_os = "linux"))]
fn sleep(_: &AtomicU32, _: u32, patience: Duration) {
    std::thread::sleep(patience.min(Duration::from_micros(100)));
}

#[cfg(not(target_os = "linux"))]
fn wake(_: &AtomicU32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::data::Digest;

    #[test]
    fn what_is_not_needed_any_more_is_given_back() {
        let mut memory = Memory::create(Key(Digest::of(b"gang"))).unwrap();
        let mut other = Mapped::open(&memory.address()).unwrap();
        let held = |memory: &Memory| memory.file.metadata().unwrap().blocks() * 512;
        let much = (2, 64 << 20);
        let little = (3..).map(|turn| (turn, 1 << 20)).take(2 * PATIENCE as usize + 5);
        let turns = [(1, 1 << 20), much].into_iter().chain(little);
        let mut last = 0;
        for (turn, bytes) in turns {
            last = turn;
            let slot = turn as usize % 2;
            memory.write(slot, bytes, (1 - slot, 0..0)).unwrap().0.fill(turn as u8);
            memory.give(slot, stamp(1, turn), &[0..bytes, 5..9]);
            assert_eq!((other.stamp(slot), other.part(slot, 1).unwrap().len()), (stamp(1, turn), 4));
            let part = other.part(slot, 0).unwrap();
            assert!(other.read(part).iter().all(|byte| *byte == turn as u8) && other.is_whole(slot, stamp(1, turn)));
            assert!(memory.written(slot, 5..9) == [turn as u8; 4]);
        }
        assert!(held(&memory) < 4 << 20, "{}", held(&memory));
        let slot = last as usize % 2;
        memory.write(slot, 8, (1 - slot, 0..0)).unwrap();
        assert!(!other.is_whole(slot, stamp(1, last)));
    }

    #[test]
    fn no_two_have_one_address_even_under_the_same_numbers() {
        let address = || Memory::create(Key(Digest::of(b"gang"))).unwrap().address();
        // Of process and descriptor, as in two containers; each is gone before the next one comes.
        let addresses: std::collections::BTreeSet<String> = (0..50).map(|_| address()).collect();
        assert_eq!(addresses.len(), 50);
    }

    #[test]
    fn an_address_of_something_else_is_refused() {
        let memory = Memory::create(Key(Digest::of(b"gang"))).unwrap();
        let [process, file, nonce] =
            memory.address().split('/').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        let empty = tempfile::tempfile().unwrap();
        let wrong = [
            String::new(),
            "x/y/z".into(),
            format!("{process}/{file}"),
            format!("{process}/{file}/{nonce}0"),
            format!("{process}/{file}/0"),
            format!("{process}/{}/{nonce}", empty.as_raw_fd()),
            format!("4000000000/{file}/{nonce}"),
        ];
        for address in wrong {
            assert!(Mapped::open(&address).is_err(), "{address}");
        }
    }
}
