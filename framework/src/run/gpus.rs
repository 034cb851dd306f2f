//! The CUDA devices of this machine in a run: who has which, and what is said of those that are not there.

use super::coordinator::Coordinator;
use super::event::Event;
use crate::pipeline::Pool;
use crate::schedule::{Device, TaskId};
use crate::worker::Gpus;
use crate::{Result, stage};

/// How the devices of this machine are dealt out.
pub(super) struct Dealt {
    /// The devices of each pool's workers together, by the devices' numbers.
    pub(super) pools: Vec<Vec<usize>>,
    /// How many are left for the worker in this process: the first ones.
    pub(super) left: usize,
}

impl Dealt {
    /// Deals to one pool after the other, from the last device on: for as many workers as it may have, or as there are
    /// devices for.
    pub(super) fn of(gpus: &Gpus, pools: &[Pool]) -> Self {
        let mut left = gpus.all().len();
        let mut deal = |pool: &Pool| {
            let (each, end) = (pool.gpus as usize, left);
            let workers = (pool.max as usize).min(left.checked_div(each).unwrap_or(0));
            left -= workers * each;
            (left..end).collect()
        };
        Self { pools: pools.iter().map(&mut deal).collect(), left }
    }
}

impl Coordinator<'_> {
    /// Says which pools' workers will not have the devices that their pools promise.
    pub(super) fn warn_of_devices(&mut self) -> Result<()> {
        let Some(elsewhere) = &self.options.elsewhere else { return Ok(()) };
        let dealt = Dealt::of(&self.options.gpus, &elsewhere.pools).pools;
        let mut warnings = Vec::new();
        for (pool, devices) in elsewhere.pools.iter().zip(dealt).filter(|(pool, _)| pool.gpus > 0) {
            let (workers, reason) = (devices.len() / pool.gpus as usize, self.options.gpus.missing());
            let message = match (workers, reason) {
                (0, Some(reason)) => format!("its workers compute on processors only: {reason}"),
                (0, None) => "its workers compute on processors only: no CUDA device is left for them".to_owned(),
                _ if workers < pool.max as usize => {
                    format!("there are CUDA devices for {workers} of its {} workers: no more are started", pool.max)
                }
                _ => continue,
            };
            warnings.push(Event::Warning { name: format!("pool {}", pool.name), message });
        }
        warnings.into_iter().try_for_each(|warning| self.tell_all(warning))
    }

    /// What to do about a task that no worker can ever run.
    pub(super) fn advice(&self, id: TaskId) -> String {
        let demands = self.tasks.get(&id).is_some_and(|task| task.device == Device::Cuda);
        let nobody_has = || self.crew.sites().iter().all(|site| site.has.devices.is_empty());
        match self.options.gpus.missing().filter(|_| demands) {
            Some(reason) => format!("{reason}; or say device = \"auto\" under `needs`"),
            None if demands && !self.options.gpus.all().is_empty() && nobody_has() => {
                "give workers devices: `gpus` of their pool, or no more --workers than there are devices".to_owned()
            }
            None => "ask for less under `needs`".to_owned(),
        }
    }

    /// Says, once a run, that a stage which would compute on a CUDA device finds none: only programs that were built for
    /// CUDA do.
    pub(super) fn tell_of_missing_gpus(&mut self, id: TaskId) -> Result<()> {
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let Some(course) = self.courses.get_mut(&task.run) else { return Ok(()) };
        if course.told_of_gpus || !Gpus::is_built() {
            return Ok(());
        }
        let may = task.request.task.needs.device == stage::Device::Auto && task.request.stage.signature().devices;
        let Some(reason) = self.options.gpus.missing().filter(|_| may) else { return Ok(()) };
        let (run, name, message) =
            (task.run, task.label().to_owned(), format!("{reason}: it computes on the processor"));
        course.told_of_gpus = true;
        self.tell(run, Event::Warning { name, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Metrics;
    use crate::pipeline::{SourceFile, resolve};
    use crate::run::{Elsewhere, Line, Options, Report, run};
    use crate::stage::{Devices, FnStage, Registry, stage};
    use crate::store::Store;
    use crate::worker::{Gpu, Leave, Token, WorkerMetrics, WorkerOptions, work};
    use crate::{Error, Fault};
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
    fn every_device_is_dealt_out_once() {
        let gpus = Gpus::of(vec![Gpu { name: "T".into(), memory: 1 << 30 }; 8]);
        let pool = |gpus, max| Pool { gpus, max, ..Pool::default() };
        let dealt = |pools: &[Pool]| {
            let Dealt { pools, left } = Dealt::of(&gpus, pools);
            (pools, left)
        };
        let all = |devices: std::ops::Range<usize>| devices.collect::<Vec<usize>>();
        assert_eq!(dealt(&[]), (vec![], 8));
        assert_eq!(dealt(&[pool(0, 5), pool(1, 2), pool(2, 2)]), (vec![all(8..8), all(6..8), all(2..6)], 2));
        // Whole workers only, the first pool first.
        assert_eq!(dealt(&[pool(3, 4), pool(1, 9), pool(1, 1)]), (vec![all(2..8), all(0..2), all(0..0)], 0));
        assert_eq!(Dealt::of(&Gpus::default(), &[pool(1, 1)]).pools, [all(0..0)]);
    }

    #[test]
    fn pools_are_told_of_devices_that_there_are_not() {
        let warned = |gpus: Gpus, pool: Pool| {
            let (listen, token, pools) = ("127.0.0.1:0".into(), Token::generate().unwrap(), vec![pool]);
            let elsewhere = Elsewhere { listen, open: false, token, pools, memory: 0, cache: None };
            let options = Options { gpus, elsewhere: Some(elsewhere), ..Options::default() };
            let mut warnings = Vec::new();
            go("device = \"cpu\"", &Store::memory(), &options, |line| {
                if let Event::Warning { name, message } = &line.event {
                    warnings.push(format!("{name}: {message}"));
                }
            });
            warnings.concat()
        };
        let pool = |gpus, max| Pool { name: "big".into(), gpus, max, ..Pool::default() };
        assert_eq!(warned(two(), pool(1, 2)), "");
        assert_eq!(
            warned(two(), pool(1, 3)),
            "pool big: there are CUDA devices for 2 of its 3 workers: no more are started"
        );
        assert_eq!(
            warned(two(), pool(4, 1)),
            "pool big: its workers compute on processors only: no CUDA device is left for them"
        );
        let none = warned(Gpus::find(), pool(1, 1));
        assert!(Gpus::find().missing().is_none_or(|reason| none.ends_with(reason)), "{none}");
    }

    /// A run that waits for workers with its token.
    fn open() -> (Token, Options) {
        let (listen, token) = ("127.0.0.1:0".into(), Token::generate().unwrap());
        let (pools, memory, cache) = (Vec::new(), 0, None);
        let elsewhere = Elsewhere { listen, open: true, token: token.clone(), pools, memory, cache };
        (token, Options { cores: 0, elsewhere: Some(elsewhere), ..Options::default() })
    }

    /// A worker that dials a coordinator.
    fn far(name: &str, address: &str, token: &Token) -> WorkerOptions {
        WorkerOptions {
            join: address.to_owned(),
            token: token.clone(),
            name: name.to_owned(),
            cores: 1.0,
            gpus: two(),
            room: None,
            memory: 64 << 20,
            cache: None,
            pool: String::new(),
            patience: Duration::from_secs(60),
            store_options: Vec::new(),
            metrics: WorkerMetrics::default(),
            leave: Leave::default(),
        }
    }

    #[test]
    fn a_worker_whose_device_fails_leaves_and_another_does_its_work() {
        let (token, options) = open();
        let broken = move || -> Result<Metrics> {
            Err(Error::new("CUDA device 0 failed: it fell off the bus").fault(Fault::Device))
        };
        let whole = || Metrics::new().with("done", 1.0);
        let (mut workers, mut lost, mut place) = (Vec::new(), Vec::new(), String::new());
        let (text, registry) =
            ("[stage.s]\nuse = \"s\"\n", |stage: FnStage| Arc::new(Registry::new().stage("s", stage)));
        let [broken, whole] = [registry(stage(broken).version(1)), registry(stage(whole).version(1))];
        let built = resolve(&SourceFile::new("p.toml", text), &whole, &[]).0.unwrap();
        let report = run(&built, &whole, &Store::memory(), &options, &mut |line: &Line| match &line.event {
            Event::Listening { address } => {
                place = address.clone();
                let options = far("broken", address, &token);
                let broken = broken.clone();
                workers.push(std::thread::spawn(move || work(&broken, &options, &mut |_| ())));
            }
            Event::WorkerLeft { worker, lost: Some(reason) } => {
                lost.push(format!("{worker}: {reason}"));
                let options = far("whole", &place, &token);
                let whole = whole.clone();
                workers.push(std::thread::spawn(move || work(&whole, &options, &mut |_| ())));
            }
            _ => {}
        });
        // It was no failure of the stage, which may have none.
        assert_eq!(report.unwrap().stages[0].metrics.get("done"), Some(1.0));
        assert!(lost.len() == 1 && lost[0].starts_with("broken: "), "{lost:?}");
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        let error = ends[0].as_ref().unwrap_err();
        assert_eq!(error.whose(), Fault::Device);
        assert!(error.to_string().contains("this worker ends") && error.to_string().contains("off the bus"), "{error}");
        assert!(ends[1].is_ok(), "{ends:?}");
    }

    #[test]
    fn a_worker_elsewhere_announces_its_devices_and_hears_its_part() {
        let (token, options) = open();
        let mut worker = None;
        // It waits for a worker with a device, should one join.
        let report = go("gpus = 1, gpu_memory = \"9GiB\"", &Store::memory(), &options, |line| {
            if let Event::Listening { address } = &line.event {
                let options = far("far", address, &token);
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
