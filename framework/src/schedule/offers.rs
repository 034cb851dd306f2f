//! On what a task could run, and for how much.

use super::cost::{Device, Offer};
use super::{Capacity, Needs, Time, WHOLE};

/// Workers of one kind, there or to be started.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// What each has.
    pub has: &'a Capacity,
    /// What an hour of one costs.
    pub price: f64,
    /// How long until one can begin.
    pub ready: Time,
}

impl Site<'_> {
    /// What a task costs here on a device, if it fits: its part of the worker, by what it takes the largest part of.
    fn offer(&self, device: Device, needs: &Needs) -> Option<Offer> {
        let part = |taken: u64, all: u64| if taken == 0 { 0.0 } else { taken as f64 / all as f64 };
        let cores = part(needs.millicores, self.has.millicores);
        let memory = part(needs.memory, self.has.memory);
        let devices = part(needs.gpus, self.has.devices.len() as u64 * WHOLE);
        let price = self.price * cores.max(memory).max(devices);
        self.has.fits(needs).then_some(Offer { device, price, ready: self.ready })
    }
}

/// The offers of some sites for a task that needs other things on each device; those of the processor come first.
pub fn offers(sites: &[Site<'_>], needs: impl Fn(Device) -> Needs) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    for device in [Device::Cpu, Device::Cuda] {
        let needs = needs(device);
        for offer in sites.iter().filter_map(|site| site.offer(device, &needs)) {
            if !offers.contains(&offer) {
                offers.push(offer);
            }
        }
    }
    offers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Costs, StageId};

    const STAGE: StageId = StageId(0);

    fn needs(device: Device) -> Needs {
        let gpus = if device == Device::Cuda { WHOLE } else { 0 };
        Needs { millicores: 1000, gpus, ..Needs::default() }
    }

    fn capacity(cores: u64, gpus: usize) -> Capacity {
        let devices = vec![16 << 30; gpus];
        Capacity { millicores: cores * 1000, memory: u64::MAX, devices, ..Capacity::default() }
    }

    #[test]
    fn without_a_device_anywhere_the_processor_is_chosen_whatever_the_deadline() {
        let plain = capacity(4, 0);
        let sites = [Site { has: &plain, price: 1.0, ready: Time::ZERO }];
        let mut costs = Costs::default();
        costs.learn(STAGE, Device::Cpu, 100, Time::from_secs(3600));
        costs.learn(STAGE, Device::Cuda, 100, Time::from_secs(1));
        for left in [None, Some(Time::ZERO), Some(Time::from_secs(60))] {
            assert_eq!(costs.choose(STAGE, 100, &offers(&sites, needs), left), Some(Device::Cpu));
        }
    }

    #[test]
    fn a_deadline_buys_the_dear_device_and_no_deadline_the_cheap_one() {
        let (plain, gpu) = (capacity(4, 0), capacity(8, 1));
        let sites = [
            Site { has: &gpu, price: 40.0, ready: Time::from_secs(30) },
            Site { has: &plain, price: 0.4, ready: Time::ZERO },
        ];
        let offers = offers(&sites, needs);
        assert_eq!(offers.iter().map(|offer| offer.device).filter(|device| *device == Device::Cuda).count(), 1);
        let mut costs = Costs::default();
        assert_eq!(costs.choose(STAGE, 100, &offers, None), Some(Device::Cpu), "nothing is known yet");
        costs.learn(STAGE, Device::Cpu, 100, Time::from_secs(600));
        costs.learn(STAGE, Device::Cuda, 100, Time::from_secs(10));
        let choose = |left: Option<u64>| costs.choose(STAGE, 100, &offers, left.map(Time::from_secs));
        assert_eq!(choose(None), Some(Device::Cpu), "600 s of a quarter of the cheap one cost less");
        assert_eq!(choose(Some(700)), Some(Device::Cpu));
        assert_eq!(choose(Some(120)), Some(Device::Cuda), "30 s to start and 10 s to run");
        assert_eq!(choose(Some(1)), Some(Device::Cuda), "nobody is in time: the fastest");
    }

    #[test]
    fn a_task_pays_for_its_part_of_a_worker() {
        let many = capacity(10, 4);
        let site = Site { has: &many, price: 8.0, ready: Time::ZERO };
        let price = |device| site.offer(device, &needs(device)).unwrap().price;
        assert_eq!((price(Device::Cpu), price(Device::Cuda)), (0.8, 2.0));
        assert_eq!(site.offer(Device::Cuda, &Needs { gpus: 5 * WHOLE, ..Needs::default() }), None);
    }
}
