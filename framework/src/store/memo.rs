//! What is remembered of a task: its key, its result, and how a commit went.

use super::StoreError;
use crate::data::{Digest, Ref};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The digest of a task's identity; its result is remembered under it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Digest);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Key {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        text.parse().map(Self)
    }
}

/// The remembered result of a task. Only `outputs` is the result; the rest says how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memo {
    /// The outputs by port.
    pub outputs: BTreeMap<String, Ref>,
    /// The stage's name in the registry.
    pub stage: String,
    /// How long the stage ran, in seconds.
    pub seconds: f64,
    /// What it ran on: `cpu`, `cuda:0`.
    pub device: String,
    /// The build that ran it.
    pub build: String,
}

/// How a commit went. In each case there is now exactly one result under the key.
#[derive(Clone, Debug, PartialEq)]
pub enum Commit {
    /// This result is the one that is kept.
    First,
    /// The same outputs were there already.
    Same,
    /// Other outputs were there already; they stay. The stage is not deterministic.
    Different(Memo),
}

/// What comes between a memo and the digest that guards it.
const CHECK: &[u8] = b",\"check\":\"";

impl Memo {
    /// The memo as one JSON object whose last member, `check`, is the digest of everything before it: a flipped bit
    /// in the name of a port would otherwise go unnoticed.
    pub(super) fn seal(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = serde_json::to_vec(self).map_err(|error| StoreError::Unreadable {
            what: "this memo".into(),
            reason: format!("it can't be written as JSON: {error}"),
        })?;
        bytes.pop(); // the closing brace
        let check = Digest::of(&bytes);
        bytes.extend_from_slice(CHECK);
        bytes.extend_from_slice(check.to_string().as_bytes());
        bytes.extend_from_slice(b"\"}");
        Ok(bytes)
    }

    /// Reads what [`Memo::seal`] wrote; `Err` says what is wrong with it.
    pub(super) fn unseal(bytes: &[u8]) -> Result<Self, String> {
        let torn = || "it is cut off or altered".to_owned();
        let tail = CHECK.len() + 64 + 2;
        let (body, tail) = bytes.split_at_checked(bytes.len().saturating_sub(tail)).ok_or_else(torn)?;
        let check = tail.strip_prefix(CHECK).and_then(|rest| rest.strip_suffix(b"\"}")).ok_or_else(torn)?;
        if check != Digest::of(body).to_string().as_bytes() {
            return Err("its content does not match its checksum".to_owned());
        }
        serde_json::from_slice(bytes).map_err(|error| format!("this version can't read it: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::damaged;
    use crate::data::Kind;

    fn memo() -> Memo {
        let reference = Ref { kind: Kind::Bytes, digest: Digest::of(b"x"), bytes: 1 };
        Memo {
            outputs: [("out".to_owned(), reference)].into(),
            stage: "split".into(),
            seconds: 0.1 + 0.2,
            device: "cpu".into(),
            build: "0.1.0".into(),
        }
    }

    #[test]
    fn a_memo_is_one_json_object_and_comes_back() {
        let bytes = memo().seal().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["outputs"]["out"]["kind"], "bytes");
        assert_eq!(json["check"].as_str().unwrap().len(), 64);
        assert_eq!(Memo::unseal(&bytes).unwrap().outputs, memo().outputs);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = memo().seal().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Memo::unseal(&bad).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Memo::unseal(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_key_reads_what_it_writes() {
        let key = Key(Digest::of(b"task"));
        assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        assert_eq!(serde_json::from_str::<Key>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
    }

    #[test]
    fn a_damaged_memo_is_told_and_one_that_is_sealed_again_is_read_or_refused() {
        let whole = memo().seal().unwrap();
        damaged(1, 5_000, std::slice::from_ref(&whole), |bytes| {
            assert!(Memo::unseal(bytes).is_err() || bytes == whole, "it is taken for whole");
        });
        let body = whole[..whole.len() - CHECK.len() - 66].to_vec();
        damaged(2, 5_000, &[body], |body| {
            let check = Digest::of(body).to_string();
            let sealed = [body, CHECK, check.as_bytes(), b"\"}"].concat();
            if let Ok(memo) = Memo::unseal(&sealed) {
                let _ = memo.seal();
            }
        });
    }
}
