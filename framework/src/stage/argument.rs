//! Arguments say what a stage needs.

use super::{
    Call, Cancel, Checkpoint, Devices, Gang, Input, Keep, Models, Once, ParamSchema, Parameters, Progress, Scratch,
    Seed, Signature, Tasks, Template, Threads,
};
use crate::data::{Artifact, Frame, Kind, List, Metrics, Model, Tensors};
use crate::{Context, Error, Result};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Something that a stage function can take.
///
/// Artifacts ([`Frame`], [`Tensors`], [`Model`], [`Metrics`], [`List`], [`Bytes`], or [`Artifact`] for any) take the
/// inputs in order; `Option` makes one optional, [`OneOrMany`] takes several at one port, [`Parts`](super::Parts) a list
/// item by item, and [`Inputs`] all that are left. [`Params`] takes the parameters, [`Seed`] the chance, [`Progress`],
/// [`Checkpoint`], [`Once`], [`Keep`], [`Scratch`], [`Cancel`], [`Tasks`], [`Template`], [`Models`], [`Threads`],
/// [`Devices`] and [`Gang`] what their names say.
pub trait Argument: Sized {
    /// Adds to the signature what this argument needs.
    fn describe(signature: &mut Signature);

    /// Takes it from a call. `port` counts the inputs that earlier arguments took.
    ///
    /// # Errors
    /// It is not there, or not what it must be.
    fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self>;
}

/// The parameters, read into a type.
#[derive(Clone, Debug)]
pub struct Params<T>(pub T);

/// All inputs that no other argument takes, by name.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub BTreeMap<String, Artifact>);

/// One or several artifacts at one port, in the order in which the pipeline names them.
#[derive(Clone, Debug, Default)]
pub struct OneOrMany<T>(pub Vec<T>);

fn describe_input(signature: &mut Signature, kind: Option<Kind>) {
    let name = match signature.inputs.len() {
        0 => "input".to_owned(),
        n => format!("input{}", n + 1),
    };
    signature.inputs.push(Input { name, kind, ..Input::default() });
}

fn take_port<'a>(signature: &'a Signature, port: &mut usize) -> Result<&'a str> {
    let input = signature.inputs.get(*port).context("a stage asked for more inputs than its signature has")?;
    *port += 1;
    Ok(&input.name)
}

macro_rules! artifact_argument {
    ($($inner:ty => $kind:expr),*) => {$(
        impl Argument for $inner {
            fn describe(signature: &mut Signature) {
                describe_input(signature, $kind);
            }
            fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self> {
                call.input_as(take_port(signature, port)?)
            }
        }
    )*};
}

artifact_argument!(
    Frame => Some(Kind::Frame),
    Tensors => Some(Kind::Tensors),
    Model => Some(Kind::Model),
    Metrics => Some(Kind::Metrics),
    List => Some(Kind::List),
    Bytes => Some(Kind::Bytes)
);

impl Argument for Artifact {
    fn describe(signature: &mut Signature) {
        describe_input(signature, None);
    }
    fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self> {
        call.input(take_port(signature, port)?)
    }
}

impl<T: Argument> Argument for Option<T> {
    fn describe(signature: &mut Signature) {
        T::describe(signature);
        if let Some(input) = signature.inputs.last_mut() {
            input.optional = true;
        }
    }
    fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self> {
        let present = signature.inputs.get(*port).is_some_and(|input| call.inputs.contains_key(&input.name));
        if present {
            return T::take(call, signature, port).map(Some);
        }
        *port += 1;
        Ok(None)
    }
}

impl<T: Argument + TryFrom<Artifact, Error = Error>> Argument for OneOrMany<T> {
    fn describe(signature: &mut Signature) {
        T::describe(signature);
        if let Some(input) = signature.inputs.last_mut() {
            input.many = true;
        }
    }
    fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self> {
        let name = take_port(signature, port)?;
        let stored = call.inputs.get(name).map(Vec::as_slice).unwrap_or_default();
        stored
            .iter()
            .map(|one| one.load_as().map_err(|error| error.context(format!("input {name:?}"))))
            .collect::<Result<_>>()
            .map(Self)
    }
}

impl Argument for Inputs {
    fn describe(signature: &mut Signature) {
        signature.open = Some(None);
    }
    fn take(call: &mut Call, signature: &Signature, _: &mut usize) -> Result<Self> {
        let rest = call.inputs.iter().filter(|(name, _)| signature.inputs.iter().all(|input| input.name != **name));
        let mut inputs = BTreeMap::new();
        for (name, stored) in rest {
            if let [one] = stored.as_slice() {
                inputs.insert(name.clone(), one.load()?);
            }
        }
        Ok(Self(inputs))
    }
}

impl<T: Parameters> Argument for Params<T> {
    fn describe(signature: &mut Signature) {
        signature.params = Some(ParamSchema::of::<T>());
    }
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(Self(T::deserialize(&call.params).context("the parameters do not fit")?))
    }
}

impl Argument for Seed {
    fn describe(signature: &mut Signature) {
        signature.seeded = true;
    }
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.seed.clone())
    }
}

impl Argument for Tasks {
    fn describe(signature: &mut Signature) {
        signature.submits = true;
    }
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.tasks.clone())
    }
}

impl Argument for Template {
    fn describe(signature: &mut Signature) {
        describe_input(signature, None);
        if let Some(input) = signature.inputs.last_mut() {
            input.template = true;
        }
    }
    fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self> {
        let name = take_port(signature, port)?;
        call.templates.remove(name).context(format!("input {name:?} is missing"))
    }
}

impl Argument for Progress {
    fn describe(_: &mut Signature) {}
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.progress.clone())
    }
}

impl Argument for Checkpoint {
    fn describe(_: &mut Signature) {}
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.checkpoint.clone())
    }
}

impl Argument for Keep {
    fn describe(_: &mut Signature) {}
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.keep.clone())
    }
}

impl Argument for Once {
    fn describe(signature: &mut Signature) {
        signature.once = true;
    }

    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.once.clone())
    }
}

impl Argument for Cancel {
    fn describe(_: &mut Signature) {}
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.cancel.clone())
    }
}

impl Argument for Models {
    fn describe(_: &mut Signature) {}
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.models.clone())
    }
}

impl Argument for Threads {
    fn describe(_: &mut Signature) {}
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.threads)
    }
}

impl Argument for Devices {
    fn describe(signature: &mut Signature) {
        signature.devices = true;
    }
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.devices.clone())
    }
}

impl Argument for Gang {
    fn describe(signature: &mut Signature) {
        signature.gang = true;
    }
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(call.gang.clone())
    }
}

impl Argument for Scratch {
    fn describe(_: &mut Signature) {}
    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(std::mem::take(&mut call.scratch))
    }
}
