//! What the CUDA driver says of this machine's devices. The driver's library is opened by name while the program runs:
//! libraries that are linked against it do not start where it is not, and bindings that load it panic.

use super::Gpu;

/// The devices, or in words why there are none.
#[cfg(not(feature = "cuda"))]
pub(super) fn devices() -> Result<Vec<Gpu>, String> {
    Err("this program was built without CUDA: build it with `--features cuda`".to_owned())
}

#[cfg(feature = "cuda")]
pub(super) use driver::devices;

#[cfg(feature = "cuda")]
mod driver {
    use super::Gpu;
    use libloading::Library;
    use std::ffi::{CStr, c_char, c_int};
    use std::sync::OnceLock;

    const LIBRARY: &str = "libcuda.so.1";
    const NAME_BYTES: usize = 256;

    /// Results and arguments of the functions used here (CUDA Driver API, "Initialization" and "Device Management").
    type Init = unsafe extern "C" fn(u32) -> c_int;
    type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;

    /// The devices, or in words why there are none. It is looked once a process.
    pub(in crate::worker) fn devices() -> Result<Vec<Gpu>, String> {
        static FOUND: OnceLock<Result<Vec<Gpu>, String>> = OnceLock::new();
        FOUND.get_or_init(look).clone()
    }

    fn look() -> Result<Vec<Gpu>, String> {
        // SAFETY: opening it runs the driver's initialisers, which are made for that; whoever replaces the system's
        // driver library can do anything anyway.
        let library = unsafe { Library::new(LIBRARY) }
            .map_err(|_| format!("NVIDIA's driver is not there: {LIBRARY} can't be opened"))?;
        // SAFETY: the symbols are functions of the driver's interface, with the types that it documents, and every
        // pointer is to a place of this function that outlives the call.
        unsafe {
            let absent = |_| format!("{LIBRARY} is not the library of a CUDA driver");
            let init = library.get::<Init>(b"cuInit\0").map_err(absent)?;
            let count = library.get::<Count>(b"cuDeviceGetCount\0").map_err(absent)?;
            let get = library.get::<Get>(b"cuDeviceGet\0").map_err(absent)?;
            let name = library.get::<Name>(b"cuDeviceGetName\0").map_err(absent)?;
            let memory = library.get::<Memory>(b"cuDeviceTotalMem_v2\0").map_err(absent)?;
            check("cuInit", init(0))?;
            let mut devices = 0;
            check("cuDeviceGetCount", count(&raw mut devices))?;
            let mut found = Vec::new();
            for ordinal in 0..devices {
                let (mut device, mut bytes, mut text) = (0, 0usize, [0 as c_char; NAME_BYTES]);
                check("cuDeviceGet", get(&raw mut device, ordinal))?;
                check("cuDeviceGetName", name(text.as_mut_ptr(), NAME_BYTES as c_int - 1, device))?;
                check("cuDeviceTotalMem", memory(&raw mut bytes, device))?;
                let name = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
                found.push(Gpu { name, memory: bytes as u64 });
            }
            // The driver stays: candle uses it, and it does not bear being unloaded.
            std::mem::forget(library);
            match found.is_empty() {
                true => Err("NVIDIA's driver has no device".to_owned()),
                false => Ok(found),
            }
        }
    }

    fn check(call: &str, code: c_int) -> Result<(), String> {
        match code {
            0 => Ok(()),
            100 => Err("NVIDIA's driver finds no device".to_owned()),
            code => Err(format!("NVIDIA's driver can't be used: {call} gave the error {code}")),
        }
    }
}
