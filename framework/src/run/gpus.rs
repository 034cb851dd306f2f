//! What a run says of CUDA devices that are not there.

use super::coordinator::Coordinator;
use super::event::Event;
use crate::schedule::{Device, TaskId};
use crate::worker::Gpus;
use crate::{Result, stage};

impl Coordinator<'_> {
    /// What to do about a task that no worker can ever run.
    pub(super) fn advice(&self, id: TaskId) -> String {
        let demands = self.tasks.get(&id).is_some_and(|task| task.device == Device::Cuda);
        match self.options.gpus.missing().filter(|_| demands) {
            Some(reason) => format!("{reason}; or say device = \"auto\" under `needs`"),
            None => "ask for less under `needs`".to_owned(),
        }
    }

    /// Says, once a run, that a stage which would compute on a CUDA device finds none: only programs that were built for
    /// CUDA do.
    pub(super) fn tell_of_missing_gpus(&mut self, id: TaskId) -> Result<()> {
        if self.told_of_gpus || !Gpus::is_built() {
            return Ok(());
        }
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let may = task.request.task.needs.device == stage::Device::Auto && task.request.stage.signature().devices;
        let Some(reason) = self.options.gpus.missing().filter(|_| may) else { return Ok(()) };
        let (name, message) = (task.label().to_owned(), format!("{reason}: it computes on the processor"));
        self.told_of_gpus = true;
        self.tell(Event::Warning { name, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Metrics;
    use crate::pipeline::{SourceFile, resolve};
    use crate::run::{Elsewhere, Line, Options, Report, run};
    use crate::stage::{Devices, Registry, stage};
    use crate::store::Store;
    use crate::worker::{Gpu, Token, WorkerMetrics, WorkerOptions, work};
    use std::sync::Arc;
    use std::time::Duration;

    /// Says which part of which device it was given.
    fn look(devices: Devices) -> Metrics {
        devices.mark_used();
        let about = |metrics: Metrics, (index, share): (usize, &crate::stage::DeviceShare)| {
            let numbers = [f64::from(share.ordinal), f64::from(share.share), share.memory as f64];
            let names = ["ordinal", "share", "memory"].into_iter().zip(numbers);
            names.fold(metrics, |metrics, (name, number)| metrics.with(format!("{name}.{index}"), number))
        };
        let demanded = Metrics::new().with("demanded", f64::from(u8::from(devices.is_demanded())));
        devices.shares().iter().enumerate().fold(demanded, about)
    }

    fn registry() -> Arc<Registry> {
        Arc::new(Registry::new().stage("look", stage(look).version(1)))
    }

    fn two() -> Gpus {
        Gpus::of([8, 16].map(|memory| Gpu { name: format!("T{memory}"), memory: memory << 30 }).into())
    }

    fn go(needs: &str, store: &Store, options: &Options, mut hear: impl FnMut(&Line)) -> Report {
        let text = format!("name = \"p\"\n[stage.a]\nuse = \"look\"\nneeds = {{ {needs} }}\n");
        let (pipeline, found) = resolve(&SourceFile::new("p.toml", text), &registry(), &[]);
        let pipeline = pipeline.unwrap_or_else(|| panic!("{found:?}"));
        run(&pipeline, &registry(), store, options, &mut |line: &Line| hear(line)).unwrap()
    }

    fn given(report: &Report) -> Vec<(String, f64)> {
        report.stages[0].metrics.iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn a_stage_is_told_its_part_of_a_device_and_the_record_names_it() {
        let options = Options { gpus: two(), ..Options::default() };
        let store = Store::memory();
        let half = go("gpus = 0.5", &store, &options, |_| ());
        let share = 4.0 * f64::from(1 << 30);
        let expected = [("demanded", 1.0), ("memory.0", share), ("ordinal.0", 0.0), ("share.0", 500.0)];
        assert_eq!(given(&half), expected.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(half.stages[0].device, "cuda (T8)");
        assert_eq!(go("gpus = 0.5", &store, &options, |_| ()).stages[0].device, "cuda (T8)", "the memo says so");
        let whole = go("gpus = 2", &Store::memory(), &options, |_| ());
        assert_eq!(given(&whole).len(), 7);
        let large = go("gpus = 0.1, gpu_memory = \"12GiB\"", &Store::memory(), &options, |_| ());
        assert_eq!(large.stages[0].device, "cuda (T16)");
        let none = go("device = \"cpu\"", &Store::memory(), &options, |_| ());
        assert_eq!((given(&none).len(), none.stages[0].device.as_str()), (1, "cpu"));
        let more = go("gpus = 3", &Store::memory(), &options, |_| ());
        let error = more.stages[0].error.clone().unwrap();
        assert!(error.ends_with("it needs 3 GPUs; the largest worker has 2"), "{error}");
        assert_eq!(more.stages[0].help.as_deref(), Some("ask for less under `needs`"));
    }

    #[test]
    fn a_worker_elsewhere_announces_its_devices_and_hears_its_part() {
        let token = Token::generate().unwrap();
        let elsewhere = Elsewhere {
            listen: "127.0.0.1:0".into(),
            open: true,
            token: token.clone(),
            pools: Vec::new(),
            memory: 0,
            cache: None,
        };
        let options = Options { cores: 0, elsewhere: Some(elsewhere), ..Options::default() };
        let mut worker = None;
        // It waits for a worker with a device, should one join.
        let report = go("gpus = 1, gpu_memory = \"9GiB\"", &Store::memory(), &options, |line| {
            if let Event::Listening { address } = &line.event {
                let options = WorkerOptions {
                    join: address.clone(),
                    token: token.clone(),
                    name: "far".into(),
                    cores: 1.0,
                    gpus: two(),
                    room: None,
                    memory: 64 << 20,
                    cache: None,
                    pool: String::new(),
                    patience: Duration::from_secs(60),
                    store_options: Vec::new(),
                    metrics: WorkerMetrics::default(),
                };
                worker = Some(std::thread::spawn(move || work(&registry(), &options, &mut |_| ())));
            }
        });
        assert_eq!(report.stages[0].device, "cuda (T16)");
        let memory = 16.0 * f64::from(1 << 30);
        let expected = [("demanded", 1.0), ("memory.0", memory), ("ordinal.0", 1.0), ("share.0", 1000.0)];
        assert_eq!(given(&report), expected.map(|(name, value)| (name.to_owned(), value)));
        worker.unwrap().join().unwrap().unwrap();
    }
}
