//! A gang whose members never change, on threads of the test.

use ropeway_framework::Result;
use ropeway_framework::stage::{Cancel, Collective, Gang, Meeting};
use std::ops::Range;
use std::sync::{Arc, Barrier, Mutex};

/// Runs members of a gang side by side; what each gives, by rank.
pub(super) fn together<T: Send>(size: usize, run: impl Fn(usize, Gang) -> T + Sync) -> Vec<T> {
    let ring = Arc::new(Ring { given: Mutex::new(vec![Parted::default(); size]), all: Barrier::new(size) });
    std::thread::scope(|scope| {
        let member = |rank| {
            let (gang, run) = (Gang::new(Arc::new(Table(rank, ring.clone()))), &run);
            scope.spawn(move || run(rank, gang))
        };
        let members: Vec<_> = (0..size).map(member).collect();
        members.into_iter().map(|member| member.join().unwrap()).collect()
    })
}

/// Where they meet.
struct Ring {
    given: Mutex<Vec<Parted>>,
    all: Barrier,
}

/// What one of them gives, and the part of each.
#[derive(Clone, Default)]
struct Parted(Vec<u64>, Vec<Range<usize>>);

/// One of them: what it gives and what it was given, on boundaries of 8 bytes.
struct Member {
    rank: usize,
    ring: Arc<Ring>,
    given: Vec<u64>,
    taken: Vec<(Vec<u64>, usize)>,
}

fn bytes_of((words, bytes): &(Vec<u64>, usize)) -> &[u8] {
    &bytemuck::cast_slice(words)[..*bytes]
}

impl Collective for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.ring.given.lock().unwrap().len()
    }

    fn is_over(&self) -> bool {
        false
    }

    fn answer(&mut self, bytes: usize) -> Result<(&mut [u8], Vec<&[u8]>)> {
        let size = self.size();
        self.given = vec![u64::MAX; bytes.div_ceil(8)];
        let Self { given, taken, .. } = self;
        let taken = (0..size).map(|rank| taken.get(rank).map_or(&[][..], bytes_of)).collect();
        Ok((&mut bytemuck::cast_slice_mut(given)[..bytes], taken))
    }

    fn exchange(&mut self, parts: &[Range<usize>]) -> Result<bool> {
        self.ring.given.lock().unwrap()[self.rank] = Parted(std::mem::take(&mut self.given), parts.to_vec());
        self.ring.all.wait();
        let take = |Parted(words, parts): &Parted| {
            let part: &[u8] = &bytemuck::cast_slice(words)[parts[self.rank].clone()];
            let mut taken = vec![0u64; part.len().div_ceil(8)];
            bytemuck::cast_slice_mut::<_, u8>(&mut taken)[..part.len()].copy_from_slice(part);
            (taken, part.len())
        };
        self.taken = self.ring.given.lock().unwrap().iter().map(take).collect();
        self.ring.all.wait();
        Ok(true)
    }

    fn incoming(&self, rank: usize) -> &[u8] {
        self.taken.get(rank).map_or(&[], bytes_of)
    }

    fn is_whole(&self) -> bool {
        true
    }
}

/// Where one of them meets the others.
struct Table(usize, Arc<Ring>);

impl Meeting for Table {
    fn meet(&self, _: &Cancel) -> Result<Box<dyn Collective>> {
        Ok(Box::new(Member { rank: self.0, ring: self.1.clone(), given: Vec::new(), taken: Vec::new() }))
    }
}
