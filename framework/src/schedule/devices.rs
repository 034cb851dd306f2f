//! The devices of one worker. What is given here is what the worker's allocator gives: a part of a device is so many
//! thousandths and so many bytes of one device, and never the sum of rests on several.

use super::{Needs, Share, WHOLE};

/// Which parts of a worker's devices are free.
#[derive(Clone, Debug)]
pub(super) struct Devices(Vec<Device>);

#[derive(Clone, Copy, Debug)]
struct Device {
    has: u64,
    share: u64,
    memory: u64,
}

impl Device {
    fn is_free(&self) -> bool {
        self.share == WHOLE && self.memory == self.has
    }

    fn takes(&self, needs: &Needs) -> u64 {
        needs.memory_of(self.has)
    }

    fn fits(&self, needs: &Needs) -> bool {
        let whole = needs.share() < WHOLE || self.is_free();
        whole && needs.share() <= self.share && self.takes(needs) <= self.memory
    }
}

impl Devices {
    pub(super) fn new(memory: &[u64]) -> Self {
        Self(memory.iter().map(|has| Device { has: *has, share: WHOLE, memory: *has }).collect())
    }

    /// Whether the devices that are needed are free.
    pub(super) fn fit(&self, needs: &Needs) -> bool {
        let many = needs.devices() as usize;
        many == 0 || self.0.iter().filter(|device| device.fits(needs)).take(many).count() == many
    }

    /// Takes what is needed, from the devices that are filled best by it, so that whole ones stay whole.
    pub(super) fn take(&mut self, needs: &Needs) -> Option<Vec<Share>> {
        let many = needs.devices() as usize;
        if many == 0 {
            return Some(Vec::new());
        }
        let fitting = self.0.iter().enumerate().filter(|(_, device)| device.fits(needs));
        let mut fitting: Vec<_> = fitting.map(|(at, device)| (device.share, device.memory, at)).collect();
        if fitting.len() < many {
            return None;
        }
        fitting.sort_unstable();
        let take = |(_, _, at): (u64, u64, usize)| {
            let (share, memory) = (needs.share(), self.0[at].takes(needs));
            self.0[at].share -= share;
            self.0[at].memory -= memory;
            Share { device: at as u32, share: share as u32, memory }
        };
        Some(fitting.into_iter().take(many).map(take).collect())
    }

    pub(super) fn give(&mut self, shares: &[Share]) {
        for share in shares {
            if let Some(device) = self.0.get_mut(share.device as usize) {
                device.share += u64::from(share.share);
                device.memory += share.memory;
            }
        }
    }

    /// The largest free share of a device, the largest free memory of one, and how many are wholly free.
    pub(super) fn most(&self) -> [u64; 3] {
        let share = self.0.iter().map(|device| device.share).max();
        let memory = self.0.iter().map(|device| device.memory).max();
        let whole = self.0.iter().filter(|device| device.is_free()).count();
        [share.unwrap_or(0), memory.unwrap_or(0), whole as u64]
    }

    /// The thousandths that are free, of all devices.
    pub(super) fn free(&self) -> u64 {
        self.0.iter().map(|device| device.share).sum()
    }

    /// What was taken as `share`s is free again in the end.
    #[cfg(test)]
    pub(super) fn without<'a>(&self, taken: impl Iterator<Item = &'a Share>) -> bool {
        let mut all = self.clone();
        taken.for_each(|share| all.give(&[*share]));
        all.0.iter().all(Device::is_free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(gpus: u64, gpu_memory: u64) -> Needs {
        Needs { gpus, gpu_memory, ..Needs::default() }
    }

    #[test]
    fn parts_go_where_they_fill_best_and_rests_are_not_summed() {
        let mut devices = Devices::new(&[16, 16]);
        let first = devices.take(&needs(600, 0)).unwrap();
        assert_eq!(first, [Share { device: 0, share: 600, memory: 9 }]);
        assert_eq!(devices.take(&needs(400, 0)).unwrap()[0].device, 0);
        assert_eq!(devices.take(&needs(600, 0)).unwrap()[0].device, 1);
        assert!(!devices.fit(&needs(500, 0)), "400 are free, on one device");
        devices.give(&first);
        assert!(devices.fit(&needs(600, 0)) && !devices.fit(&needs(1000, 0)));
    }

    #[test]
    fn memory_counts_as_much_as_the_share() {
        let mut devices = Devices::new(&[16]);
        devices.take(&needs(100, 12)).unwrap();
        assert!(!devices.fit(&needs(100, 5)));
        assert!(devices.fit(&needs(100, 4)));
    }

    #[test]
    fn a_whole_device_is_nobody_elses() {
        let mut devices = Devices::new(&[16, 8]);
        let whole = devices.take(&needs(1000, 4)).unwrap();
        assert_eq!(whole, [Share { device: 1, share: 1000, memory: 8 }], "the smaller one is enough");
        assert!(!devices.fit(&needs(2000, 0)));
        assert!(!devices.fit(&needs(1000, 17)));
        devices.give(&whole);
        assert!(devices.fit(&needs(2000, 0)));
    }
}
