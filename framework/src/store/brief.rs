//! Memos in memory, in few bytes: there may be millions, and what they have in common is kept once.

use super::Memo;
use crate::data::Ref;
use std::collections::HashSet;
use std::sync::Arc;

/// A memo, shortened.
pub(super) struct Brief {
    /// In the order of its ports.
    outputs: Box<[Ref]>,
    seconds: f64,
    about: Arc<About>,
}

/// What the memos of one stage have in common.
#[derive(PartialEq, Eq, Hash)]
struct About {
    ports: Box<[Box<str>]>,
    stage: String,
    device: String,
    build: String,
}

/// What many memos have in common.
#[derive(Default)]
pub(super) struct Common {
    all: HashSet<Arc<About>>,
    /// That of the last memo: most are like the one before.
    last: Option<Arc<About>>,
}

impl About {
    fn is_of(&self, memo: &Memo) -> bool {
        let Self { ports, stage, device, build } = self;
        ports.iter().map(|port| &**port).eq(memo.outputs.keys().map(String::as_str))
            && *stage == memo.stage
            && *device == memo.device
            && *build == memo.build
    }
}

impl Common {
    pub(super) fn shorten(&mut self, memo: &Memo) -> Brief {
        let last = self.last.as_ref().filter(|last| last.is_of(memo)).cloned();
        let about = last.unwrap_or_else(|| self.about(memo));
        Brief { outputs: memo.outputs.values().copied().collect(), seconds: memo.seconds, about }
    }

    fn about(&mut self, memo: &Memo) -> Arc<About> {
        let Memo { outputs, stage, device, build, .. } = memo;
        let ports = outputs.keys().map(|port| port.as_str().into()).collect();
        let about = About { ports, stage: stage.clone(), device: device.clone(), build: build.clone() };
        let about = self.all.get(&about).cloned().unwrap_or_else(|| {
            let about = Arc::new(about);
            self.all.insert(about.clone());
            about
        });
        self.last = Some(about.clone());
        about
    }
}

impl Brief {
    pub(super) fn memo(&self) -> Memo {
        let About { ports, stage, device, build } = &*self.about;
        Memo {
            outputs: ports.iter().map(|port| port.to_string()).zip(self.outputs.iter().copied()).collect(),
            stage: stage.clone(),
            seconds: self.seconds,
            device: device.clone(),
            build: build.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Digest, Kind};

    #[test]
    fn memos_come_back_and_share_what_they_can() {
        let made = |text: &str| Ref { kind: Kind::Bytes, digest: Digest::of(text.as_bytes()), bytes: 1 };
        let memo = |stage: &str, seconds| Memo {
            outputs: [("a".to_owned(), made(stage)), ("b".to_owned(), made("b"))].into(),
            stage: stage.to_owned(),
            seconds,
            device: "cpu".into(),
            build: "this".into(),
        };
        let mut common = Common::default();
        for (stage, seconds) in [("one", 0.1 + 0.2), ("two", -0.0), ("one", 1e300)] {
            assert_eq!(common.shorten(&memo(stage, seconds)).memo(), memo(stage, seconds));
        }
        assert_eq!(common.all.len(), 2);
    }
}
