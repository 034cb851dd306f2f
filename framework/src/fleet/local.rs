//! Workers as child processes on this machine.

use super::{Ended, Fleet, Recipe};
use crate::worker::process;
use crate::{Context, Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long workers have to end by themselves once the run is over, and how long once they are told to.
const GRACE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];

/// What tells a process which CUDA devices there are for it.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Child processes of this executable. They end with the process that started them, however it ends.
pub struct LocalFleet {
    recipe: Recipe,
    children: BTreeMap<String, Worker>,
    /// CUDA devices that no worker has, by their numbers in this process.
    free: Vec<usize>,
    /// Workers that ended and were not asked for yet.
    gone: Vec<Ended>,
}

/// A child and its CUDA devices.
struct Worker {
    child: Child,
    devices: Vec<usize>,
}

impl LocalFleet {
    /// Workers on this machine, none of them started yet. `devices` are the CUDA devices that they have together, each
    /// of them its own.
    pub fn new(recipe: Recipe, devices: Vec<usize>) -> Self {
        Self { recipe, children: BTreeMap::new(), free: devices, gone: Vec::new() }
    }

    /// Devices for a worker.
    ///
    /// # Errors
    /// There are none: one that was told to go may have them for a while yet.
    fn take_devices(&mut self, name: &str) -> Result<Vec<usize>> {
        if self.free.len() < self.recipe.gpus {
            self.reap();
        }
        if self.free.len() < self.recipe.gpus {
            return Err(Error::unavailable(format!("no CUDA device is left for worker {name}")));
        }
        let rest = self.free.split_off(self.recipe.gpus);
        Ok(std::mem::replace(&mut self.free, rest))
    }

    /// Finds the children that have ended; how many.
    fn reap(&mut self) -> usize {
        let ended = self.children.iter_mut().filter_map(|(name, worker)| {
            let status = worker.child.try_wait().ok()??;
            Some(Ended { name: name.clone(), how: status.to_string() })
        });
        let ended: Vec<Ended> = ended.collect();
        for one in &ended {
            self.free.extend(self.children.remove(&one.name).into_iter().flat_map(|worker| worker.devices));
        }
        self.gone.extend(ended.iter().cloned());
        ended.len()
    }

    /// What starts a worker.
    fn command(&self, name: &str, devices: &[usize]) -> Result<Command> {
        let mut command = process::command(&self.recipe.join, &self.recipe.token, name)?;
        command.args(arguments(&self.recipe));
        if !devices.is_empty() {
            command.env(VISIBLE, visible(devices, std::env::var(VISIBLE).ok().as_deref()));
        }
        Ok(command)
    }

    /// Waits for children to end; those that don't are told to, and then killed.
    fn disband(&mut self) {
        self.wait(GRACE[0]);
        // The pipe closes: that is the sign.
        self.children.values_mut().for_each(|worker| drop(worker.child.stdin.take()));
        self.wait(GRACE[1]);
        for worker in self.children.values_mut() {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
        self.children.clear();
    }

    fn wait(&mut self, grace: Duration) {
        let until = Instant::now() + grace;
        while !self.children.is_empty() && Instant::now() < until {
            if self.reap() == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Fleet for LocalFleet {
    fn start(&mut self, name: &str) -> Result<()> {
        let devices = self.take_devices(name)?;
        match self.command(name, &devices).and_then(|mut command| Ok(command.spawn()?)) {
            Ok(child) => {
                self.children.insert(name.to_owned(), Worker { child, devices });
                Ok(())
            }
            Err(error) => {
                self.free.extend(devices);
                Err(Error::unavailable(format!("can't start worker {name}: {error}")))
            }
        }
    }

    fn stop(&mut self, name: &str) -> Result<()> {
        if let Some(Worker { mut child, devices }) = self.children.remove(name) {
            child.kill().and_then(|()| child.wait()).context(format!("can't stop worker {name}"))?;
            self.free.extend(devices);
        }
        Ok(())
    }

    fn ended(&mut self) -> Vec<Ended> {
        self.reap();
        std::mem::take(&mut self.gone)
    }
}

/// How a process is told which devices it has: by their numbers in this process, which may be told some itself.
fn visible(devices: &[usize], told: Option<&str>) -> String {
    let told: Vec<&str> = told.map(|told| told.split(',').map(str::trim).collect()).unwrap_or_default();
    let name = |device: &usize| told.get(*device).map_or_else(|| device.to_string(), |name| (*name).to_owned());
    devices.iter().map(name).collect::<Vec<_>>().join(",")
}

/// What a worker is told, besides where it joins.
fn arguments(recipe: &Recipe) -> Vec<OsString> {
    let Recipe { pool, cores, gpus, room, memory, cache, .. } = recipe;
    let mut arguments = vec![format!("--pool={pool}"), format!("--cores={cores}"), format!("--memory={memory}")];
    arguments.push(format!("--gpus={gpus}"));
    arguments.extend(room.map(|room| format!("--room={room}")));
    arguments.extend(cache.as_ref().map(|(_, limit)| format!("--cache-size={limit}")));
    let folder = cache.iter().flat_map(|(folder, _)| [OsString::from("--cache"), folder.into()]);
    arguments.into_iter().map(OsString::from).chain(folder).collect()
}

impl Drop for LocalFleet {
    fn drop(&mut self) {
        self.disband();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Token;

    fn recipe() -> Recipe {
        Recipe {
            join: "127.0.0.1:7777".into(),
            token: Token::generate().unwrap(),
            pool: "local".into(),
            cores: 1.5,
            gpus: 2,
            room: Some(1 << 30),
            memory: 1 << 20,
            cache: Some(("/tmp/a cache".into(), 1 << 40)),
        }
    }

    #[test]
    fn workers_are_told_all_that_the_recipe_says() {
        let told =
            "--pool=local --cores=1.5 --memory=1048576 --gpus=2 --room=1073741824 --cache-size=1099511627776 --cache";
        let mut expected: Vec<&str> = told.split(' ').collect();
        expected.push("/tmp/a cache");
        assert_eq!(arguments(&recipe()), expected);
        assert_eq!(arguments(&Recipe { room: None, cache: None, ..recipe() }), expected[..4]);
    }

    #[test]
    fn each_worker_has_devices_of_its_own() {
        let mut fleet = LocalFleet::new(recipe(), vec![1, 2, 3, 4]);
        let mut start = |name: &str| {
            let devices = fleet.take_devices(name).unwrap();
            let told = fleet.command(name, &devices).unwrap();
            let told = told.get_envs().find(|(name, _)| *name == VISIBLE).unwrap().1.unwrap().to_owned();
            // Any process that ends when its input closes will do.
            let child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
            fleet.children.insert(name.to_owned(), Worker { child, devices });
            told
        };
        assert_eq!((start("a"), start("b")), ("1,2".into(), "3,4".into()));
        // One that is stopped, and one that ends by itself, give theirs back.
        fleet.stop("a").unwrap();
        assert_eq!(fleet.take_devices("c").unwrap(), [1, 2]);
        assert!(fleet.take_devices("d").is_err(), "it lives yet");
        let child = &mut fleet.children.get_mut("b").unwrap().child;
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(fleet.take_devices("d").unwrap(), [3, 4]);
        let ended: Vec<String> = fleet.ended().into_iter().map(|ended| ended.name).collect();
        assert_eq!((ended, fleet.ended()), (vec!["b".to_owned()], Vec::new()));
    }

    #[test]
    fn devices_are_named_as_this_process_was_told() {
        assert_eq!(visible(&[0, 2], None), "0,2");
        assert_eq!(visible(&[0, 2], Some("5, GPU-8932f937,7")), "5,7");
    }
}
