//! What a task needs of the worker that runs it.

use super::{ParamError, Stage};
use crate::units;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// What a task needs of a worker. Its result does not depend on any of it, and neither does its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written")]
pub struct Needs {
    /// Cores that it keeps busy; parts of one are fine.
    pub cpus: f64,
    /// Bytes of memory that it takes at most; 0 if nothing is said.
    pub memory: u64,
    /// CUDA devices that it takes where it computes on CUDA: a part of one, or a whole number. See
    /// [`Needs::gpus_on_cuda`].
    pub gpus: f64,
    /// Bytes that it takes of the memory of each of its CUDA devices; 0 if its part is that of the device.
    pub gpu_memory: u64,
    /// Where it computes.
    pub device: Device,
    /// Workers of a distributed training, which are placed together or not at all.
    pub workers: u32,
    /// How long after the start of its run its result should be there.
    #[serde(with = "units::time::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "units::time::schema")]
    pub deadline: Option<Duration>,
    /// How often it is tried again after a failure that may pass.
    pub retries: u32,
    /// Whether it runs in a process of its own, so that it can take nothing down with it.
    pub isolate: bool,
    /// What goes first when not all that is ready can run: the higher number.
    pub priority: i32,
}

/// Where a task computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// Where it is cheapest.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On a CUDA device.
    Cuda,
}

/// Needs as a person writes them: who names `gpus` and no device means CUDA, and who means CUDA takes a device.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Needs")]
struct Written {
    /// Cores that it keeps busy; parts of one are fine.
    #[schemars(range(min = 0.0))]
    cpus: f64,
    /// The most memory that it takes: `"4GiB"`, `"512MB"` or a number of bytes.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size::schema")]
    memory: u64,
    /// CUDA devices that it takes: a part of one, or a whole number. By default one where it computes on CUDA.
    #[schemars(range(min = 0.0))]
    gpus: Option<f64>,
    /// What it takes of the memory of each of its CUDA devices; by default the same part as of the device.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size::schema")]
    gpu_memory: u64,
    /// Where it computes: `auto`, unless `gpus` are named.
    device: Option<Device>,
    /// Workers of a distributed training; its result does not depend on them.
    #[schemars(range(min = 1))]
    workers: u32,
    /// How long after the start of its run its result should be there: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "units::time::optional")]
    #[schemars(schema_with = "units::time::schema")]
    deadline: Option<Duration>,
    /// How often it is tried again after a failure that may pass.
    retries: u32,
    /// Whether it runs in a process of its own.
    isolate: bool,
    /// What goes first when not all that is ready can run: the higher number.
    priority: i32,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            cpus: 1.0,
            memory: 0,
            gpus: 0.0,
            gpu_memory: 0,
            device: Device::Auto,
            workers: 1,
            deadline: None,
            retries: 0,
            isolate: false,
            priority: 0,
        }
    }
}

impl Default for Written {
    fn default() -> Self {
        let Needs { cpus, memory, gpu_memory, workers, deadline, retries, isolate, priority, .. } = Needs::default();
        Self { cpus, memory, gpus: None, gpu_memory, device: None, workers, deadline, retries, isolate, priority }
    }
}

impl From<Written> for Needs {
    fn from(written: Written) -> Self {
        let Written { cpus, memory, gpus, gpu_memory, device, workers, deadline, retries, isolate, priority } = written;
        let device = device.unwrap_or(match gpus {
            Some(gpus) if gpus > 0.0 => Device::Cuda,
            _ => Device::Auto,
        });
        let gpus = gpus.unwrap_or(if device == Device::Cuda { 1.0 } else { 0.0 });
        Self { cpus, memory, gpus, gpu_memory, device, workers, deadline, retries, isolate, priority }
    }
}

impl Needs {
    /// CUDA devices that it takes where it computes on CUDA: what it says, or else one.
    pub fn gpus_on_cuda(&self) -> f64 {
        if self.gpus > 0.0 { self.gpus } else { 1.0 }
    }

    /// Whether they make sense for a stage, and for a call of it with (normalised) parameters if those are known; `uses` is
    /// its name.
    ///
    /// # Errors
    /// They don't, or contradict each other: which key, and why.
    pub fn check_for(&self, uses: &str, stage: &dyn Stage, params: Option<&Value>) -> Result<(), ParamError> {
        self.check()?;
        let signature = stage.signature();
        let wrong = |key: &str, message: String| Err(ParamError { path: vec![key.to_owned()], message });
        if self.workers > 1 && !signature.gang {
            return wrong("workers", format!("`{uses}` can't be computed by {} workers together", self.workers));
        }
        if self.workers > 1 && signature.once {
            let why = "acts on the outside world once, which workers together can't";
            return wrong("workers", format!("`{uses}` {why}"));
        }
        if let Some((most, why)) = params.and_then(|params| stage.most_workers(params))
            && self.workers as usize > most
        {
            return wrong("workers", format!("{} workers can't share {most} {why}", self.workers));
        }
        if signature.submits && self.deadline.is_some() {
            return wrong("deadline", format!("`{uses}` runs other stages; say it of the stage that it runs"));
        }
        match self.room().filter(|_| signature.submits) {
            None => Ok(()),
            Some(key) => wrong(
                key,
                format!("`{uses}` runs other stages and takes no room itself; say it of the stage that it runs"),
            ),
        }
    }

    /// The first key, if any, that says which room is taken on a worker.
    fn room(&self) -> Option<&'static str> {
        let Self { cpus, memory, gpus, device, isolate, .. } = self;
        let said = [
            ("isolate", *isolate),
            ("gpus", *gpus > 0.0 && *device != Device::Cuda),
            ("device", *device == Device::Cuda),
            ("memory", *memory > 0),
            ("cpus", *cpus != Self::default().cpus),
        ];
        said.iter().find_map(|(key, said)| said.then_some(*key))
    }

    /// Whether they can all be true.
    ///
    /// # Errors
    /// The first need that contradicts another, or that nothing can meet.
    pub fn check(&self) -> Result<(), ParamError> {
        let wrong = |key: &str, message: String| Err(ParamError { path: vec![key.to_owned()], message });
        let Self { cpus, gpus, .. } = *self;
        if !(cpus.is_finite() && cpus >= 0.0) {
            return wrong("cpus", format!("{cpus} is no number of cores"));
        }
        if !(gpus.is_finite() && gpus >= 0.0) || (gpus > 1.0 && gpus.fract() != 0.0) {
            return wrong("gpus", format!("{gpus} is neither a part of one CUDA device nor a whole number of them"));
        }
        if gpus > 0.0 && self.device == Device::Cpu {
            return wrong("gpus", "`device = \"cpu\"` takes no CUDA device".into());
        }
        if gpus == 0.0 && self.device == Device::Cuda {
            return wrong("gpus", "`device = \"cuda\"` takes at least a part of a CUDA device".into());
        }
        if self.gpu_memory > 0 && gpus == 0.0 {
            return wrong(
                "gpu_memory",
                "it says how much of a CUDA device's memory is taken, but `gpus` takes none".into(),
            );
        }
        if self.workers == 0 {
            return wrong("workers", "nothing can run on 0 workers".into());
        }
        if self.workers > 1 && self.isolate {
            return wrong("isolate", "what several workers compute together has no process of its own".into());
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return wrong("deadline", "a result takes more than no time".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gang, IntoStage, Params, Tasks, stage};
    use super::*;
    use crate::data::Metrics;
    use serde_json::{from_value, json, to_value};

    fn read(written: Value) -> Needs {
        from_value(written).unwrap()
    }

    #[test]
    fn who_names_gpus_means_cuda_and_who_means_cuda_takes_one() {
        let device_and_gpus = |written| {
            let needs = read(written);
            (needs.device, needs.gpus)
        };
        assert_eq!(device_and_gpus(json!({})), (Device::Auto, 0.0));
        assert_eq!(device_and_gpus(json!({"gpus": 0.5})), (Device::Cuda, 0.5));
        assert_eq!(device_and_gpus(json!({"device": "cuda"})), (Device::Cuda, 1.0));
        assert_eq!(device_and_gpus(json!({"device": "auto", "gpus": 0.25})), (Device::Auto, 0.25));
        assert_eq!(read(json!({})).gpus_on_cuda(), 1.0);
    }

    #[test]
    fn what_is_written_back_means_the_same() {
        let all = json!({"cpus": 0.5, "memory": "4GiB", "gpus": 2, "gpu_memory": "512MB", "workers": 3,
                         "deadline": "5m", "retries": 1, "priority": -1});
        for written in [
            all,
            json!({"isolate": true}),
            json!({}),
            json!({"device": "auto", "gpus": 0.5}),
            json!({"device": "cuda"}),
        ] {
            let needs = read(written);
            assert_eq!(read(to_value(&needs).unwrap()), needs);
            needs.check().unwrap();
        }
    }

    #[test]
    fn a_stage_that_runs_others_takes_no_room() {
        let plain = (|| Metrics::new()).into_stage();
        let leads = (|_: Tasks| Metrics::new()).into_stage();
        for (written, key) in [
            (json!({"device": "cuda"}), "device"),
            (json!({"device": "auto", "gpus": 0.5}), "gpus"),
            (json!({"memory": "1GiB"}), "memory"),
            (json!({"cpus": 2}), "cpus"),
            (json!({"isolate": true}), "isolate"),
            (json!({"deadline": "5m"}), "deadline"),
        ] {
            let needs = read(written);
            needs.check_for("train", &*plain, None).unwrap();
            let error = needs.check_for("tune", &*leads, None).unwrap_err();
            assert_eq!(error.path, [key]);
            assert!(error.message.contains("`tune` runs other stages"), "{}", error.message);
        }
        read(json!({"device": "cpu", "retries": 1, "priority": 2})).check_for("tune", &*leads, None).unwrap();
    }

    #[test]
    fn more_workers_than_share_a_call_are_refused() {
        let together = stage(|Params(_): Params<u32>, _: Gang| Metrics::new());
        let together = together.most_workers(|parts: u32| (parts > 0).then_some((parts as usize, "parts")));
        let check = |workers: u32, parts: Option<Value>| {
            read(json!({"workers": workers})).check_for("train", &together, parts.as_ref())
        };
        check(4, Some(json!(4))).unwrap();
        check(5, Some(json!(0))).unwrap();
        check(5, None).unwrap();
        let error = check(5, Some(json!(4))).unwrap_err();
        assert_eq!((error.path, error.message.as_str()), (vec!["workers".into()], "5 workers can't share 4 parts"));
    }

    #[test]
    fn contradictions_name_their_key() {
        for (written, key) in [
            (json!({"device": "cpu", "gpus": 1}), "gpus"),
            (json!({"device": "cuda", "gpus": 0}), "gpus"),
            (json!({"gpus": 1.5}), "gpus"),
            (json!({"gpu_memory": 1}), "gpu_memory"),
            (json!({"workers": 0}), "workers"),
            (json!({"workers": 2, "isolate": true}), "isolate"),
            (json!({"deadline": "0s"}), "deadline"),
            (json!({"cpus": -1}), "cpus"),
        ] {
            assert_eq!(read(written.clone()).check().unwrap_err().path, [key], "{written}");
        }
    }
}
