//! Workers as child processes on this machine.

use super::{Ended, Fleet, Recipe};
use crate::worker::process;
use crate::{Context, Error, Result};
use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long workers have to end by themselves once the run is over, and how long once they are told to.
const GRACE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];

/// Child processes of this executable. They end with the process that started them, however it ends.
pub struct LocalFleet {
    recipe: Recipe,
    children: BTreeMap<String, Child>,
}

impl LocalFleet {
    /// Workers on this machine, none of them started yet.
    pub fn new(recipe: Recipe) -> Self {
        Self { recipe, children: BTreeMap::new() }
    }

    /// Waits for children to end; those that don't are told to, and then killed.
    fn disband(&mut self) {
        self.wait(GRACE[0]);
        // The pipe closes: that is the sign.
        self.children.values_mut().for_each(|child| drop(child.stdin.take()));
        self.wait(GRACE[1]);
        for child in self.children.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
    }

    fn wait(&mut self, grace: Duration) {
        let until = Instant::now() + grace;
        while !self.children.is_empty() && Instant::now() < until {
            if self.ended().is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Fleet for LocalFleet {
    fn start(&mut self, name: &str) -> Result<()> {
        let Recipe { join, token, pool, cores, room, memory } = &self.recipe;
        let child = process::command(join, token, name)?
            .args([format!("--pool={pool}"), format!("--cores={cores}"), format!("--memory={memory}")])
            .args(room.map(|room| format!("--room={room}")))
            .spawn()
            .map_err(|error| Error::unavailable(format!("can't start worker {name}: {error}")))?;
        self.children.insert(name.to_owned(), child);
        Ok(())
    }

    fn stop(&mut self, name: &str) -> Result<()> {
        if let Some(mut child) = self.children.remove(name) {
            child.kill().and_then(|()| child.wait()).context(format!("can't stop worker {name}"))?;
        }
        Ok(())
    }

    fn ended(&mut self) -> Vec<Ended> {
        let ended = self.children.iter_mut().filter_map(|(name, child)| {
            let status = child.try_wait().ok()??;
            Some(Ended { name: name.clone(), how: status.to_string() })
        });
        let ended: Vec<Ended> = ended.collect();
        ended.iter().for_each(|one| drop(self.children.remove(&one.name)));
        ended
    }
}

impl Drop for LocalFleet {
    fn drop(&mut self) {
        self.disband();
    }
}
