//! What goes over the wire, and how it is read: nothing that comes in is believed before it is checked.

#[allow(missing_docs, clippy::all, unreachable_pub, reason = "generated from proto/worker.proto")]
mod messages {
    tonic::include_proto!("ropeway.v1");
}

pub(super) use messages::*;

use super::row::messages;
use super::{Failure, Outcome, Unsaved, gang};
use crate::data::{Digest, Kind, Ref};
use crate::schedule::{self, TaskId};
use crate::stage::Report;
use crate::store::Key;
use crate::{Context, Error, Fault, Result};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;

/// The largest message on a worker's own stream; everything longer goes in chunks.
pub(super) const MESSAGE_BYTES: usize = 16 << 20;
/// The content of a chunk.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// How long a connection may be silent before the other side is asked whether it is there, and how long it may take to
/// answer. Who is cut off gets no word of it from the network.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(1);
pub(super) const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(5);
/// Outputs of a task up to this many canonical bytes travel in the reply.
pub(super) const SMALL_BYTES: u64 = 64 << 10;

/// The largest artifact that there may be; sums of such do not overflow.
const MOST_BYTES: u64 = 1 << 48;
/// More devices than any machine has.
const MOST_DEVICES: usize = 1024;
/// What is kept of one report: numbers, and bytes of a line of a log or of a name.
const REPORT_METRICS: usize = 1000;
const REPORT_LINE: usize = 64 << 10;
const REPORT_NAME: usize = 1 << 10;

const KINDS: [Kind; 6] = [Kind::Frame, Kind::Tensors, Kind::Model, Kind::Metrics, Kind::List, Kind::Bytes];
pub(super) const FAULTS: [Fault; 6] =
    [Fault::Stage, Fault::Usage, Fault::Unavailable, Fault::Bug, Fault::Interrupted, Fault::Device];

/// An attempt, by the coordinator's numbers.
pub(super) type Number = (TaskId, u32);

impl From<Number> for Attempt {
    fn from((task, attempt): Number) -> Self {
        Self { task: task.0, attempt }
    }
}

impl From<Attempt> for Number {
    fn from(wire: Attempt) -> Self {
        (TaskId(wire.task), wire.attempt)
    }
}

impl From<gang::Chair> for Chair {
    fn from(chair: gang::Chair) -> Self {
        let gang::Chair { peer, machine, seat, memory } = chair;
        Self { peer, machine, seat, memory }
    }
}

impl From<Circle> for gang::Circle {
    fn from(wire: Circle) -> Self {
        let chair = |chair: Chair| {
            let Chair { peer, machine, seat, memory } = chair;
            gang::Chair { peer, machine, seat, memory }
        };
        let chairs = wire.chairs.into_iter().map(chair).collect();
        Self { epoch: wire.epoch, rank: wire.rank as usize, chairs }
    }
}

pub(super) fn from_present((task, attempt): Number, present: gang::Present) -> Present {
    let gang::Present { after, seat, memory } = present;
    Present { attempt: Some((task, attempt).into()), after, seat, memory }
}

/// The attempt that a message is about.
pub(super) fn number(attempt: Option<Attempt>) -> Result<Number> {
    attempt.map(Number::from).context("it names no attempt")
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| Error::new("a digest has 32 bytes"))?;
    Ok(Digest::from(bytes))
}

pub(super) fn key(bytes: &[u8]) -> Result<Key> {
    digest(bytes).map(Key)
}

pub(super) fn key_bytes(key: Key) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(key.0.as_bytes())
}

impl From<Ref> for Artifact {
    fn from(reference: Ref) -> Self {
        Self {
            kind: KINDS.iter().position(|kind| *kind == reference.kind).unwrap_or_default() as u32,
            digest: bytes::Bytes::copy_from_slice(reference.digest.as_bytes()),
            bytes: reference.bytes,
        }
    }
}

pub(super) fn reference(wire: Option<&Artifact>) -> Result<Ref> {
    let wire = wire.context("an artifact is missing")?;
    let kind = *KINDS.get(wire.kind as usize).context("it names a kind of artifact that there is not")?;
    if wire.bytes > MOST_BYTES {
        return Err(Error::new("it names an artifact that is larger than any"));
    }
    Ok(Ref { kind, digest: digest(&wire.digest)?, bytes: wire.bytes })
}

pub(super) fn inputs(wire: &[Input]) -> Result<BTreeMap<String, Vec<Ref>>> {
    let port = |input: &Input| {
        let refs = input.artifacts.iter().map(|one| reference(Some(one))).collect::<Result<Vec<_>>>()?;
        Ok((input.port.clone(), refs))
    };
    wire.iter().map(port).collect()
}

pub(super) fn from_inputs(inputs: &BTreeMap<String, Vec<Ref>>) -> Vec<Input> {
    let port = |(port, refs): (&String, &Vec<Ref>)| Input {
        port: port.clone(),
        artifacts: refs.iter().copied().map(Artifact::from).collect(),
    };
    inputs.iter().map(port).collect()
}

/// The orders of a batch, up to one that is cut off.
pub(super) fn starts(batch: StartBatch) -> impl Iterator<Item = Result<Start>> {
    let unreadable = |error| Error::new(format!("an order can't be read: {error}"));
    messages(batch.attempts).map(move |start| Start::decode(start?).map_err(unreadable))
}

/// How an attempt ended, from its bytes in a batch.
pub(super) fn ended(bytes: bytes::Bytes) -> Result<Ended> {
    let ended = Ended::decode(bytes);
    let ended = ended.map_err(|error| Error::new(format!("how an attempt ended can't be read: {error}")))?;
    key(&ended.key)?;
    ended.end.as_ref().context("an attempt that ended says how")?;
    Ok(ended)
}

/// A result, as the coordinator reads it, and what is not in the store yet; nothing if the worker committed it.
pub(super) fn outcome(done: Done) -> Result<(Outcome, Option<Unsaved>)> {
    let output = |output: Output| Ok((output.port, reference(output.artifact.as_ref())?));
    let outputs = done.outputs.into_iter().map(output).collect::<Result<BTreeMap<_, _>>>()?;
    let seconds = if done.seconds.is_finite() { done.seconds.max(0.0) } else { 0.0 };
    let (moved, device) = (done.moved.min(MOST_BYTES), short(done.device, REPORT_NAME));
    let outcome = Outcome { outputs, seconds, device, differs: done.differs, unsaved: None, moved };
    if done.committed {
        return Ok((outcome, None));
    }
    let blob = |blob: Blob| Ok((reference(blob.artifact.as_ref())?, blob.content));
    let blobs = done.blobs.into_iter().map(blob).collect::<Result<Vec<_>>>()?;
    let left = done.left.iter().map(|left| reference(Some(left))).collect::<Result<Vec<_>>>()?;
    Ok((outcome, Some(Unsaved { blobs, left })))
}

/// A failure, as the coordinator reads it.
pub(super) fn failure(failed: Failed) -> Result<Failure> {
    let lost = failed.lost.as_ref().map(|lost| reference(Some(lost))).transpose()?;
    let error = Error::new(&failed.message).fault(fault(&failed));
    let error = if failed.help.is_empty() { error } else { error.help(&failed.help) };
    Ok(Failure { error, lost: lost.map(Box::new), moved: failed.moved.min(MOST_BYTES) })
}

/// What is told of an error to somebody who is refused.
pub(super) fn refusal(error: &Error) -> Refusal {
    Refusal {
        message: short(error.to_string(), REPORT_LINE),
        help: short(error.advice().unwrap_or_default().to_owned(), REPORT_LINE),
        fault: fault_number(error),
    }
}

fn fault_number(error: &Error) -> u32 {
    FAULTS.iter().position(|fault| *fault == error.whose()).unwrap_or_default() as u32
}

/// Whose fault a failure was.
pub(super) fn fault(failed: &Failed) -> Fault {
    FAULTS.get(failed.fault as usize).copied().unwrap_or_default()
}

pub(super) fn from_end(end: Result<Outcome, Failure>) -> ended::End {
    match end {
        Ok(outcome) => {
            let committed = outcome.unsaved.is_none();
            let Unsaved { blobs, left } = outcome.unsaved.unwrap_or_default();
            let output = |(port, made): (String, Ref)| Output { port, artifact: Some(made.into()) };
            let blob = |(made, content): (Ref, bytes::Bytes)| Blob { artifact: Some(made.into()), content };
            ended::End::Done(Done {
                outputs: outcome.outputs.into_iter().map(output).collect(),
                blobs: blobs.into_iter().map(blob).collect(),
                left: left.into_iter().map(Artifact::from).collect(),
                seconds: outcome.seconds,
                device: outcome.device,
                differs: outcome.differs,
                committed,
                moved: outcome.moved,
            })
        }
        Err(failure) => ended::End::Failed(Failed {
            message: short(failure.error.to_string(), REPORT_LINE),
            help: short(failure.error.advice().unwrap_or_default().to_owned(), REPORT_LINE),
            fault: fault_number(&failure.error),
            lost: failure.lost.map(|lost| Artifact::from(*lost)),
            moved: failure.moved,
        }),
    }
}

/// The memory of a worker's devices, as far as it can be true.
pub(super) fn devices(wire: &[u64]) -> Vec<u64> {
    wire.iter().take(MOST_DEVICES).map(|memory| (*memory).min(MOST_BYTES)).collect()
}

impl From<Share> for schedule::Share {
    fn from(wire: Share) -> Self {
        Self { device: wire.device, share: wire.share, memory: wire.memory }
    }
}

impl From<schedule::Share> for Share {
    fn from(share: schedule::Share) -> Self {
        Self { device: share.device, share: share.share, memory: share.memory }
    }
}

/// What is said in a report, as far as anybody would read it.
pub(super) fn report(wire: Progress) -> Report {
    let metrics = wire.metrics.into_iter().take(REPORT_METRICS);
    Report {
        done: wire.done,
        total: wire.total,
        unit: short(wire.unit, REPORT_NAME).into(),
        metrics: metrics.map(|metric| (short(metric.name, REPORT_NAME), metric.value)).collect(),
        line: wire.line.map(|line| short(line, REPORT_LINE)),
    }
}

/// What somebody is called, as far as anybody would read it.
pub(super) fn name(text: String) -> String {
    short(text, REPORT_NAME)
}

/// A text, cut off where it is too long.
fn short(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

pub(super) fn from_report(number: Number, report: Report) -> Progress {
    let metric = |(name, value)| Metric { name: short(name, REPORT_NAME), value };
    Progress {
        attempt: Some(number.into()),
        done: report.done,
        total: report.total,
        unit: report.unit.into_owned(),
        metrics: report.metrics.into_iter().take(REPORT_METRICS).map(metric).collect(),
        line: report.line.map(|line| short(line, REPORT_LINE)),
    }
}
