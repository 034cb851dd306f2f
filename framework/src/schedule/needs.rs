//! What a task needs, what a worker has, and whether the one fits into the other.

use std::fmt;

/// A whole device, in thousandths.
pub const WHOLE: u64 = 1000;

/// What a task needs. Whole numbers, so that sums have no rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needs {
    /// Thousandths of a core.
    pub millicores: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Thousandths of a device: less than [`WHOLE`] is a part of one device, a multiple of it so many whole ones.
    pub gpus: u64,
    /// Bytes of memory on each of its devices; 0 for as large a part of it as of the device.
    pub gpu_memory: u64,
    /// Whether it must run where the coordinator's files are.
    pub files: bool,
    /// Whether it works together with others, and must be where they reach it.
    pub peers: bool,
}

/// What a worker has.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capacity {
    /// Thousandths of a core.
    pub millicores: u64,
    /// Bytes of memory; `u64::MAX` if nobody counts them.
    pub memory: u64,
    /// The memory of each device, in bytes.
    pub devices: Vec<u64>,
    /// Whether the coordinator's files are visible there.
    pub files: bool,
    /// Whether other workers reach it.
    pub peers: bool,
    /// The pool it comes from, if it was started for the run.
    pub pool: Option<PoolId>,
    /// The machine it is on: workers of one machine share what they hold.
    pub machine: u32,
}

/// A pool of like workers that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// A part of a device that a task was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    /// Which device of the worker.
    pub device: u32,
    /// Thousandths of it.
    pub share: u32,
    /// Bytes of its memory.
    pub memory: u64,
}

impl Needs {
    /// Whether it needs any device.
    pub fn on_device(&self) -> bool {
        self.gpus > 0 || self.gpu_memory > 0
    }

    /// Whether it needs a part of one device or whole ones, not one and a half.
    pub(super) fn is_sound(&self) -> bool {
        self.gpus <= WHOLE || self.gpus.is_multiple_of(WHOLE)
    }

    /// How many devices it needs.
    pub fn devices(&self) -> u64 {
        if self.on_device() { self.gpus.div_ceil(WHOLE).max(1) } else { 0 }
    }

    /// The thousandths of each of its devices.
    pub(super) fn share(&self) -> u64 {
        self.gpus.min(WHOLE)
    }

    /// The bytes that it takes of a device with so much memory.
    pub(super) fn memory_of(&self, device: u64) -> u64 {
        match (self.share(), self.gpu_memory) {
            // A whole device is nobody else's.
            (WHOLE, asked) => device.max(asked),
            (share, 0) => (u128::from(device) * u128::from(share) / u128::from(WHOLE)) as u64,
            (_, asked) => asked,
        }
    }
}

impl Capacity {
    /// Whether it is where a task with such needs must run.
    pub(super) fn is_where(&self, needs: &Needs) -> bool {
        (self.files || !needs.files) && (self.peers || !needs.peers)
    }

    /// Whether `needs` fit into a worker that does nothing else.
    pub fn fits(&self, needs: &Needs) -> bool {
        let large = self.devices.iter().filter(|memory| needs.gpu_memory <= **memory).count() as u64;
        let devices = needs.devices() == 0 || needs.devices() <= large;
        let rest = needs.millicores <= self.millicores && needs.memory <= self.memory;
        needs.is_sound() && rest && devices && self.is_where(needs)
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Cores(self.millicores))?;
        if self.memory > 0 {
            write!(f, ", {} of memory", Bytes(self.memory))?;
        }
        match self.gpus {
            0 if self.gpu_memory == 0 => {}
            0 => write!(f, ", a GPU")?,
            WHOLE => write!(f, ", 1 GPU")?,
            part if part < WHOLE => write!(f, ", {} of a GPU", part as f64 / WHOLE as f64)?,
            many => write!(f, ", {} GPUs", many as f64 / WHOLE as f64)?,
        }
        if self.gpu_memory > 0 {
            write!(f, " with {} each", Bytes(self.gpu_memory))?;
        }
        if self.files {
            write!(f, ", the files of this machine")?;
        }
        Ok(())
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Cores(self.millicores))?;
        if self.memory < u64::MAX {
            write!(f, ", {} of memory", Bytes(self.memory))?;
        }
        match (self.devices.len(), self.devices.iter().max()) {
            (0, _) | (_, None) => {}
            (1, Some(memory)) => write!(f, ", 1 GPU with {}", Bytes(*memory))?,
            (many, Some(memory)) => write!(f, ", {many} GPUs with up to {} each", Bytes(*memory))?,
        }
        if !self.files {
            write!(f, ", none of this machine's files")?;
        }
        Ok(())
    }
}

/// Thousandths of a core, for people.
struct Cores(u64);

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1000 => write!(f, "1 core"),
            millicores => write!(f, "{} cores", millicores as f64 / 1000.0),
        }
    }
}

/// Bytes, for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(size, _)| self.0 >= *size) {
            Some((size, unit)) => write!(f, "{} {unit}", (self.0 as f64 / size as f64 * 10.0).round() / 10.0),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_device_fits_one_device_and_many_are_whole() {
        let has =
            Capacity { millicores: 4000, memory: 1 << 30, devices: vec![8 << 30, 16 << 30], ..Capacity::default() };
        let needs = |gpus, gpu_memory| Needs { gpus, gpu_memory, ..Needs::default() };
        assert!(has.fits(&needs(500, 16 << 30)));
        assert!(!has.fits(&needs(500, 17 << 30)));
        assert!(has.fits(&needs(2000, 8 << 30)));
        assert!(!has.fits(&needs(2000, 9 << 30)), "the smaller device has less");
        assert!(!has.fits(&needs(3000, 0)));
        assert!(!has.fits(&needs(1500, 0)), "one and a half devices are neither a part nor whole");
        assert!(!has.fits(&Needs { files: true, ..Needs::default() }));
    }

    #[test]
    fn needs_are_said_in_words() {
        let needs =
            Needs { millicores: 1000, memory: 3 << 29, gpus: 4000, gpu_memory: 8 << 30, files: true, peers: false };
        let said = "1 core, 1.5 GiB of memory, 4 GPUs with 8 GiB each, the files of this machine";
        assert_eq!(needs.to_string(), said);
        let needs = Needs { millicores: 500, gpus: 250, ..Needs::default() };
        assert_eq!(needs.to_string(), "0.5 cores, 0.25 of a GPU");
    }
}
