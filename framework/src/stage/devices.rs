//! The devices that a call may compute on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The CUDA devices that a call was given; none if it is to compute on the processor.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    shares: Vec<DeviceShare>,
    demanded: bool,
    used: Arc<AtomicBool>,
}

/// A part of a CUDA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceShare {
    /// CUDA's number of the device, in the process that computes.
    pub ordinal: u32,
    /// Thousandths of the device.
    pub share: u32,
    /// Bytes of its memory that may be taken.
    pub memory: u64,
    /// What the device is called; empty if nobody knows.
    pub name: String,
}

impl Devices {
    /// Parts of devices; `demanded` if the call's `needs` demand CUDA.
    pub fn new(shares: Vec<DeviceShare>, demanded: bool) -> Self {
        Self { shares, demanded, used: Arc::default() }
    }

    /// The part of each device.
    pub fn shares(&self) -> &[DeviceShare] {
        &self.shares
    }

    /// Whether the call's `needs` demand CUDA. If not, it may as well compute on the processor, and say why.
    pub fn is_demanded(&self) -> bool {
        self.demanded
    }

    /// Notes that the call computes on the devices, for the record.
    pub fn mark_used(&self) {
        self.used.store(true, Ordering::Release);
    }

    /// What the record says that the call computed on: `cpu`, `cuda`, or `cuda (NVIDIA H200)`.
    pub fn record(&self) -> String {
        match self.shares.first().filter(|_| self.used.load(Ordering::Acquire)) {
            None => "cpu".to_owned(),
            Some(share) if share.name.is_empty() => "cuda".to_owned(),
            Some(share) => format!("cuda ({})", share.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_names_a_device_that_was_used() {
        let share = DeviceShare { name: "NVIDIA H200".into(), ..DeviceShare::default() };
        let devices = Devices::new(vec![share], false);
        assert_eq!(devices.record(), "cpu");
        devices.clone().mark_used();
        assert_eq!(devices.record(), "cuda (NVIDIA H200)");
        let nameless = Devices::new(vec![DeviceShare::default()], true);
        nameless.mark_used();
        assert_eq!(nameless.record(), "cuda");
    }
}
