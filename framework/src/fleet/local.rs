//! Workers as child processes on this machine.

use super::{Ended, Fleet, Recipe};
use crate::worker::process;
use crate::{Context, Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
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
        let child = process::command(&self.recipe.join, &self.recipe.token, name)?
            .args(arguments(&self.recipe))
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

/// What a worker is told, besides where it joins.
fn arguments(recipe: &Recipe) -> Vec<OsString> {
    let Recipe { pool, cores, room, memory, cache, .. } = recipe;
    let mut arguments = vec![format!("--pool={pool}"), format!("--cores={cores}"), format!("--memory={memory}")];
    // They would all take the same.
    arguments.push("--gpus=0".to_owned());
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

    #[test]
    fn workers_are_told_all_that_the_recipe_says() {
        let recipe = Recipe {
            join: "127.0.0.1:7777".into(),
            token: Token::generate().unwrap(),
            pool: "local".into(),
            cores: 1.5,
            room: Some(1 << 30),
            memory: 1 << 20,
            cache: Some(("/tmp/a cache".into(), 1 << 40)),
        };
        let told =
            "--pool=local --cores=1.5 --memory=1048576 --gpus=0 --room=1073741824 --cache-size=1099511627776 --cache";
        let mut expected: Vec<&str> = told.split(' ').collect();
        expected.push("/tmp/a cache");
        assert_eq!(arguments(&recipe), expected);
        assert_eq!(arguments(&Recipe { room: None, cache: None, ..recipe }), expected[..4]);
    }
}
