//! The CUDA devices of this machine, found while the program runs: nothing of CUDA need be there.

use crate::schedule::Share;
use crate::stage::DeviceShare;
use crate::{Error, Result};

/// A CUDA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// What it is called.
    pub name: String,
    /// Bytes of its memory.
    pub memory: u64,
}

/// The CUDA devices that a process computes on, in CUDA's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus {
    found: Vec<Gpu>,
    /// Why there are none, if nobody wanted it so.
    missing: Option<String>,
}

impl Gpus {
    /// Those of this machine. Where there is no driver or no device, and in a build without the feature `cuda`, there
    /// are none, and [`Gpus::missing`] says why.
    pub fn find() -> Self {
        match super::cuda::devices() {
            Ok(found) => Self { found, missing: None },
            Err(reason) => Self { found: Vec::new(), missing: Some(reason) },
        }
    }

    /// Certain ones.
    pub fn of(found: Vec<Gpu>) -> Self {
        Self { found, missing: None }
    }

    /// Whether this build can compute on any.
    pub fn is_built() -> bool {
        cfg!(feature = "cuda")
    }

    /// Only the first few.
    ///
    /// # Errors
    /// There are not as many.
    pub fn first(self, count: usize) -> Result<Self> {
        let there = self.found.len();
        if count <= there {
            return Ok(Self::of(self.found.into_iter().take(count).collect()));
        }
        let error = Error::usage(format!("{count} CUDA devices are asked for, but there are {there}"));
        Err(match self.missing {
            Some(reason) => error.help(reason),
            None => error,
        })
    }

    /// Why there are none, if there are none though nobody said so.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// The devices.
    pub fn all(&self) -> &[Gpu] {
        &self.found
    }

    /// The memory of each, as a scheduler knows them.
    pub(crate) fn memory(&self) -> Vec<u64> {
        self.found.iter().map(|gpu| gpu.memory).collect()
    }

    /// What an attempt was given, as its stage sees it.
    pub(crate) fn share(&self, share: &Share) -> DeviceShare {
        let name = self.found.get(share.device as usize).map(|gpu| gpu.name.clone()).unwrap_or_default();
        DeviceShare { ordinal: share.device, share: share.share, memory: share.memory, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_as_many_are_taken_as_there_are() {
        let gpu = |memory| Gpu { name: "T".into(), memory };
        let two = Gpus::of(vec![gpu(1), gpu(2)]);
        assert_eq!(two.clone().first(1).unwrap().memory(), [1]);
        assert_eq!(two.clone().first(0).unwrap(), Gpus::default());
        let error = two.first(3).unwrap_err().to_string();
        assert_eq!(error, "3 CUDA devices are asked for, but there are 2");
        let none = Gpus { found: Vec::new(), missing: Some("the driver is not there".into()) };
        assert_eq!(none.first(1).unwrap_err().advice(), Some("the driver is not there"));
    }

    #[test]
    fn looking_for_devices_does_no_harm_where_there_are_none() {
        let found = Gpus::find();
        assert_eq!(found.all().is_empty(), found.missing().is_some());
        assert!(Gpus::is_built() || found.missing().unwrap().contains("--features cuda"));
    }
}
