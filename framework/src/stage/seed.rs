//! Where all chance comes from.

use crate::data::Digest;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The source of all chance in a stage: the run's seed and the stage's name, never the clock or a thread.
///
/// A generator is asked for by purpose; it is counter-based (ChaCha with 8 rounds; Bernstein, "ChaCha, a variant of
/// Salsa20", 2008), so any position of its stream can be reached at once.
///
/// ```
/// use rand::RngExt;
/// use ropeway_framework::stage::Seed;
///
/// let seed = Seed::new(7, "split");
/// let first: u64 = seed.rng("shuffle").random();
/// assert_eq!(first, seed.rng("shuffle").random::<u64>());
/// assert_ne!(first, seed.rng("init").random::<u64>());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    run: u64,
    path: String,
}

impl Seed {
    /// The seed of a run (or of a task that another task asked for), for one stage.
    pub fn new(run: u64, stage: &str) -> Self {
        Self { run, path: stage.to_owned() }
    }

    /// The number that the run was given.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// A generator for one purpose.
    pub fn rng(&self, purpose: &str) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(*self.digest(purpose).as_bytes())
    }

    /// A seed of a part: an epoch, a fold, a trial.
    pub fn child(&self, part: &str) -> Self {
        Self { run: self.run, path: format!("{}/{part}", self.path) }
    }

    /// A number for one purpose, for programs that want a plain seed.
    pub fn number(&self, purpose: &str) -> u64 {
        let digest = self.digest(purpose);
        u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap_or_default())
    }

    fn digest(&self, purpose: &str) -> Digest {
        Digest::of_fields([b"seed".as_slice(), &self.run.to_le_bytes(), self.path.as_bytes(), purpose.as_bytes()])
    }
}
