//! What a task will cost: learned from what others of its stage took.

use super::{StageId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a task runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device.
    Cuda,
}

/// A device that a task could run on, and its price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Which.
    pub device: Device,
    /// What an hour costs, in any currency.
    pub price: f64,
    /// How long until it can begin: a worker must start, say.
    pub ready: Time,
}

/// What a task is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The median.
    pub median: Time,
    /// How many tasks that is learned from.
    pub samples: u32,
}

/// Learns how long the tasks of a stage take on a device, by the size of their work.
///
/// Sizes are put in classes, one for each power of two; a class keeps a histogram of times in steps of at most an
/// eighth (as HDR histograms do), so that the median is robust, costs little, and does not depend on the order in which
/// tasks end. Stages are known by number: who keeps this for another run must keep the numbers' meaning with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    stages: Vec<Stage>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stage {
    cpu: BTreeMap<u8, Histogram>,
    cuda: BTreeMap<u8, Histogram>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Histogram {
    /// How many tasks took how long, by step, ascending.
    counts: Vec<(u16, u32)>,
    total: u32,
    /// The median, in nanoseconds.
    median: u64,
}

/// A histogram with so many tasks forgets half of them, so that it follows a stage that changes.
const MOST: u32 = 1024;
/// More than this is no experience but a mistake of who sends it.
const MOST_STAGES: usize = 1 << 20;

impl Costs {
    /// Learns that a task took so long.
    pub fn learn(&mut self, stage: StageId, device: Device, size: u64, took: Time) {
        let at = stage.0 as usize;
        if at >= MOST_STAGES {
            return;
        }
        if self.stages.len() <= at {
            self.stages.resize_with(at + 1, Stage::default);
        }
        self.stages[at].on_mut(device).entry(class(size)).or_default().add(nanos(took));
    }

    /// Whether these can be costs that were learned: what is read from a store is not believed before.
    pub fn is_sound(&self) -> bool {
        let sizes = |stage: &Stage| stage.cpu.values().chain(stage.cuda.values()).all(Histogram::is_sound);
        self.stages.len() <= MOST_STAGES && self.stages.iter().all(sizes)
    }

    /// What a task of a stage usually takes: that of the size that most of its tasks had.
    pub fn usual(&self, stage: StageId, device: Device) -> Option<Time> {
        let known = self.stages.get(stage.0 as usize)?.on(device).values();
        known.max_by_key(|size| size.total).map(|size| Time::from_nanos(size.median))
    }

    /// What a task will take, if anything is known of its stage on the device.
    ///
    /// Between two known sizes it is interpolated; beyond the largest it grows with the size; below the smallest it
    /// is that of the smallest.
    pub fn expect(&self, stage: StageId, device: Device, size: u64) -> Option<Estimate> {
        let known = self.stages.get(stage.0 as usize)?.on(device);
        let class = class(size);
        let below = known.range(..=class).next_back();
        let above = known.range(class..).next();
        let (nanos, samples) = match (below, above) {
            (Some((at, below)), Some((to, above))) if to > at => {
                let part = f64::from(class - at) / f64::from(to - at);
                // Times grow as powers of the size: the geometric mean, not the arithmetic.
                let ratio = above.median.max(1) as f64 / below.median.max(1) as f64;
                ((below.median as f64 * ratio.powf(part)) as u64, below.total.min(above.total))
            }
            (Some((at, below)), _) => {
                let doublings = u32::from(class - at).min(32);
                (below.median.saturating_mul(1 << doublings), below.total)
            }
            (None, Some((_, above))) => (above.median, above.total),
            (None, None) => return None,
        };
        Some(Estimate { median: Time::from_nanos(nanos), samples })
    }

    /// The cheapest offer that is done within `left`; without a deadline the cheapest of those that are known. If none
    /// that is known is in time, one that is not known is tried, else it is the fastest. The earlier of equals wins.
    pub fn choose(&self, stage: StageId, size: u64, offers: &[Offer], left: Option<Time>) -> Option<Device> {
        let known = offers.iter().filter_map(|offer| {
            let takes = self.expect(stage, offer.device, size)?.median;
            Some((offer, takes.as_secs_f64() * offer.price, offer.ready + takes))
        });
        let known: Vec<_> = known.collect();
        let in_time = known.iter().filter(|(_, _, done)| left.is_none_or(|left| *done <= left));
        if let Some((offer, ..)) = in_time.min_by(|a, b| a.1.total_cmp(&b.1)) {
            return Some(offer.device);
        }
        let unknown = offers.iter().find(|offer| known.iter().all(|(known, ..)| known.device != offer.device));
        let fastest = || known.iter().min_by_key(|(_, _, done)| *done).map(|(offer, ..)| *offer);
        unknown.or_else(fastest).map(|offer| offer.device)
    }
}

impl Stage {
    fn on(&self, device: Device) -> &BTreeMap<u8, Histogram> {
        match device {
            Device::Cpu => &self.cpu,
            Device::Cuda => &self.cuda,
        }
    }

    fn on_mut(&mut self, device: Device) -> &mut BTreeMap<u8, Histogram> {
        match device {
            Device::Cpu => &mut self.cpu,
            Device::Cuda => &mut self.cuda,
        }
    }
}

impl Histogram {
    fn is_sound(&self) -> bool {
        let ascending = self.counts.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let total = self.counts.iter().try_fold(0u32, |sum, (_, count)| sum.checked_add(*count));
        ascending && total == Some(self.total) && self.total < MOST
    }

    fn add(&mut self, nanos: u64) {
        let step = step(nanos);
        match self.counts.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (step, 1)),
        }
        self.total += 1;
        if self.total >= MOST {
            self.counts.iter_mut().for_each(|(_, count)| *count /= 2);
            self.counts.retain(|(_, count)| *count > 0);
            self.total = self.counts.iter().map(|(_, count)| count).sum();
        }
        let mut left = self.total / 2;
        for (step, count) in &self.counts {
            if left < *count {
                self.median = middle(*step);
                return;
            }
            left -= count;
        }
    }
}

fn nanos(time: Time) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The size class: how many binary digits the size has.
fn class(size: u64) -> u8 {
    (u64::BITS - size.leading_zeros()) as u8
}

/// Times in eight steps an octave.
fn step(nanos: u64) -> u16 {
    let nanos = nanos.max(8);
    let octave = nanos.ilog2();
    (octave as u16) << 3 | (nanos >> (octave - 3) & 7) as u16
}

/// The middle of a step.
fn middle(step: u16) -> u64 {
    let octave = (u32::from(step) >> 3).clamp(3, 63);
    let width = 1u64 << (octave - 3);
    (8 + u64::from(step & 7)) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGE: StageId = StageId(3);

    fn millis(costs: &Costs, device: Device, size: u64) -> f64 {
        costs.expect(STAGE, device, size).unwrap().median.as_secs_f64() * 1e3
    }

    #[test]
    fn every_time_is_near_the_middle_of_its_step() {
        for nanos in (0..60).flat_map(|shift| [1u64 << shift, 3 << shift, (9 << shift) / 2, (1 << shift) + 1]) {
            let error = (middle(step(nanos)) as f64 - nanos as f64).abs() / nanos.max(16) as f64;
            assert!(error < 0.07 || nanos < 16, "{nanos}: {error}");
        }
    }

    #[test]
    fn the_median_is_robust_and_does_not_depend_on_the_order() {
        let times: Vec<u64> = (0..99).map(|i| if i % 10 == 0 { 60_000 } else { 10 }).collect();
        let learn = |times: &mut dyn Iterator<Item = &u64>| {
            let mut costs = Costs::default();
            times.for_each(|time| costs.learn(STAGE, Device::Cpu, 100, Time::from_millis(*time)));
            costs
        };
        let costs = learn(&mut times.iter());
        assert_eq!(costs, learn(&mut times.iter().rev()));
        assert!((millis(&costs, Device::Cpu, 100) - 10.0).abs() < 1.0);
        assert_eq!(costs.expect(STAGE, Device::Cuda, 100), None);
        assert_eq!(costs.expect(StageId(9), Device::Cpu, 100), None);
    }

    #[test]
    fn unseen_sizes_are_interpolated_and_larger_ones_take_longer() {
        let mut costs = Costs::default();
        costs.learn(STAGE, Device::Cpu, 1 << 10, Time::from_millis(10));
        costs.learn(STAGE, Device::Cpu, 1 << 20, Time::from_millis(1000));
        let between = millis(&costs, Device::Cpu, 1 << 15);
        assert!((90.0..110.0).contains(&between), "{between}");
        assert!((3600.0..4400.0).contains(&millis(&costs, Device::Cpu, 1 << 22)));
        assert!((9.0..11.0).contains(&millis(&costs, Device::Cpu, 0)));
    }

    #[test]
    fn the_cheapest_device_that_is_in_time_is_chosen() {
        let mut costs = Costs::default();
        let offers = [
            Offer { device: Device::Cpu, price: 0.05, ready: Time::ZERO },
            Offer { device: Device::Cuda, price: 2.0, ready: Time::from_secs(30) },
        ];
        let choose = |costs: &Costs, left: Option<u64>| costs.choose(STAGE, 0, &offers, left.map(Time::from_secs));
        assert_eq!(choose(&costs, None), Some(Device::Cpu), "nothing is known: the first");
        costs.learn(STAGE, Device::Cpu, 0, Time::from_secs(1000));
        assert_eq!(choose(&costs, None), Some(Device::Cpu));
        assert_eq!(choose(&costs, Some(500)), Some(Device::Cuda), "unknown, but the other is too late");
        costs.learn(STAGE, Device::Cuda, 0, Time::from_secs(100));
        assert_eq!(choose(&costs, Some(500)), Some(Device::Cuda));
        assert_eq!(choose(&costs, Some(2000)), Some(Device::Cpu));
        assert_eq!(choose(&costs, Some(1)), Some(Device::Cuda), "none is in time: the fastest");
        costs.learn(StageId(4), Device::Cuda, 0, Time::from_secs(1));
        costs.learn(StageId(4), Device::Cpu, 0, Time::from_secs(1000));
        let chosen = costs.choose(StageId(4), 0, &offers, None);
        assert_eq!(chosen, Some(Device::Cuda), "40 times the price, but 1000 times as fast");
    }

    #[test]
    fn a_stage_that_changes_is_followed() {
        let mut costs = Costs::default();
        (0..5000).for_each(|_| costs.learn(STAGE, Device::Cpu, 0, Time::from_millis(10)));
        (0..2000).for_each(|_| costs.learn(STAGE, Device::Cpu, 0, Time::from_millis(100)));
        assert!((90.0..110.0).contains(&millis(&costs, Device::Cpu, 0)));
    }

    #[test]
    fn what_was_learned_can_be_kept() {
        let mut costs = Costs::default();
        (1..100).for_each(|i| costs.learn(STAGE, Device::Cpu, i, Time::from_millis(i)));
        let json = serde_json::to_string(&costs).unwrap();
        assert_eq!(serde_json::from_str::<Costs>(&json).unwrap(), costs);
    }
}
