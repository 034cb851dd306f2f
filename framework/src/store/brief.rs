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
pub(super) struct Common(HashSet<Arc<About>>);

impl Common {
    pub(super) fn shorten(&mut self, memo: &Memo) -> Brief {
        let Memo { outputs, stage, seconds, device, build } = memo;
        let ports = outputs.keys().map(|port| port.as_str().into()).collect();
        let about = About { ports, stage: stage.clone(), device: device.clone(), build: build.clone() };
        let about = self.0.get(&about).cloned().unwrap_or_else(|| {
            let about = Arc::new(about);
            self.0.insert(about.clone());
            about
        });
        Brief { outputs: outputs.values().copied().collect(), seconds: *seconds, about }
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
        assert_eq!(common.0.len(), 2);
    }
}
