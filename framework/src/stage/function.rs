//! Plain functions as stages.

use super::{Argument, Call, Given, Input, Output, Outputs, ParamError, Parameters, Returns, Signature, Stage};
use crate::{Error, Result};
use serde_json::Value;
use std::sync::Arc;

type Run = dyn Fn(&mut Call, &Signature) -> Result<Vec<Given>> + Send + Sync;
type Fingerprint = dyn Fn(&Value) -> Result<Option<String>> + Send + Sync;
type ReadsAnywhere = dyn Fn(&Value) -> bool + Send + Sync;
type MostWorkers = dyn Fn(&Value) -> Option<(usize, &'static str)> + Send + Sync;

/// A stage made of a function; made by [`stage()`].
pub struct FnStage {
    signature: Signature,
    run: Box<Run>,
    fingerprint: Option<Box<Fingerprint>>,
    reads_anywhere: Option<Box<ReadsAnywhere>>,
    most_workers: Option<Box<MostWorkers>>,
}

/// Something that can become a stage: a function, an async function, a closure, an [`FnStage`] or any [`Stage`].
///
/// `M` only tells these apart; it is always inferred.
pub trait IntoStage<M> {
    /// The stage.
    fn into_stage(self) -> Arc<dyn Stage>;
}

/// Something callable whose arguments are [`Argument`]s and whose result [`Returns`] artifacts.
pub trait StageFunction<M>: Send + Sync + 'static {
    /// What its type says of it.
    fn signature() -> Signature;

    /// Calls it.
    ///
    /// # Errors
    /// An argument can't be had, or the function fails.
    fn call(&self, call: &mut Call, signature: &Signature) -> Result<Vec<Given>>;
}

/// Makes a stage of a function, to give it port names, a version and the rest.
///
/// ```
/// use ropeway_framework::data::Frame;
/// use ropeway_framework::stage::{Registry, stage};
///
/// fn newest(old: Frame, new: Frame) -> Frame {
///     if new.rows() > 0 { new } else { old }
/// }
/// let registry = Registry::new().stage("newest", stage(newest).inputs(["old", "new"]).outputs(["rows"]));
/// assert_eq!(registry.get("newest").unwrap().signature().inputs[1].name, "new");
/// ```
///
/// An async function is a stage as well. It blocks the thread that it was given, and the process's
/// [`runtime`](crate::runtime) drives what it waits for:
///
/// ```
/// use ropeway_framework::data::Metrics;
/// use ropeway_framework::stage::{Registry, stage};
/// use ropeway_framework::{Context, Result};
///
/// async fn longest(texts: bytes::Bytes) -> Result<Metrics> {
///     // Anything of tokio's: a client of a service, a file, many of them at once.
///     let count = tokio::spawn(async move { texts.split(|byte| *byte == b'\n').map(<[u8]>::len).max() });
///     Ok(Metrics::new().with("longest", count.await?.context("no text")? as f64))
/// }
/// let registry = Registry::new().stage("longest", stage(longest).inputs(["texts"]).version(1));
/// assert_eq!(registry.get("longest").unwrap().signature().inputs[0].name, "texts");
/// ```
pub fn stage<M, F: StageFunction<M>>(function: F) -> FnStage {
    FnStage {
        signature: F::signature(),
        run: Box::new(move |call, signature| function.call(call, signature)),
        fingerprint: None,
        reads_anywhere: None,
        most_workers: None,
    }
}

impl FnStage {
    /// Names the inputs, in argument order.
    pub fn inputs<const N: usize>(mut self, names: [&str; N]) -> Self {
        rename(&mut self.signature.inputs, &names, |input: &mut Input, name| input.name = name);
        self
    }

    /// Names the outputs, in the order of the returned tuple; the first is the default one.
    pub fn outputs<const N: usize>(mut self, names: [&str; N]) -> Self {
        rename(&mut self.signature.outputs, &names, |output: &mut Output, name| output.name = name);
        self
    }

    /// The version of what it computes; raise it when results change, and old ones are forgotten.
    pub fn version(mut self, version: u32) -> Self {
        self.signature.version = version;
        self
    }

    /// What it does, for `ropeway stages`.
    pub fn about(mut self, about: &str) -> Self {
        about.clone_into(&mut self.signature.about);
        self
    }

    /// Says what else the result depends on, such as the content of a file that the parameters name.
    pub fn fingerprint<P: Parameters>(
        mut self,
        fingerprint: impl Fn(P) -> Result<String> + Send + Sync + 'static,
    ) -> Self {
        self.fingerprint = Some(Box::new(move |params| {
            let params = P::deserialize(params)?;
            fingerprint(params).map(Some)
        }));
        self
    }

    /// Says when what the fingerprint covers is the same wherever the stage runs ([`Stage::reads_anywhere`]).
    pub fn reads_anywhere<P: Parameters>(mut self, anywhere: impl Fn(P) -> bool + Send + Sync + 'static) -> Self {
        self.reads_anywhere = Some(Box::new(move |params| P::deserialize(params).is_ok_and(&anywhere)));
        self
    }

    /// Says how many workers can compute a call together at most, and what it is that they share, in words that follow the
    /// number: `(8, "shards")`. More are refused before anything runs.
    pub fn most_workers<P: Parameters>(
        mut self,
        most: impl Fn(P) -> Option<(usize, &'static str)> + Send + Sync + 'static,
    ) -> Self {
        self.most_workers = Some(Box::new(move |params| most(P::deserialize(params).ok()?)));
        self
    }
}

fn rename<T, const N: usize>(ports: &mut [T], names: &[&str; N], set: impl Fn(&mut T, String)) {
    debug_assert_eq!(ports.len(), N, "a stage has {} ports, {N} names were given", ports.len());
    for (port, name) in ports.iter_mut().zip(names) {
        set(port, (*name).to_owned());
    }
}

impl Stage for FnStage {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn fingerprint(&self, params: &Value) -> Result<Option<String>> {
        self.fingerprint.as_ref().map_or(Ok(None), |fingerprint| fingerprint(params))
    }

    fn reads_anywhere(&self, params: &Value) -> bool {
        self.reads_anywhere.as_ref().is_some_and(|anywhere| anywhere(params))
    }

    fn most_workers(&self, params: &Value) -> Option<(usize, &'static str)> {
        self.most_workers.as_ref()?(params)
    }

    fn run(&self, mut call: Call) -> Result<Outputs> {
        let artifacts = (self.run)(&mut call, &self.signature)?;
        if artifacts.len() != self.signature.outputs.len() {
            return Err(Error::new("the stage gave another number of outputs than its signature says"));
        }
        let named = self.signature.outputs.iter().zip(artifacts);
        Ok(named.fold(Outputs::new(), |outputs, (port, artifact)| outputs.with(&port.name, artifact)))
    }
}

/// Tells stages from functions in [`IntoStage`].
pub struct ByHand;
/// Tells functions from async functions in [`IntoStage`].
pub struct Plain;
/// Tells async functions from functions in [`IntoStage`].
pub struct Async;

impl<S: Stage> IntoStage<ByHand> for S {
    fn into_stage(self) -> Arc<dyn Stage> {
        Arc::new(self)
    }
}

impl<M, F: StageFunction<M>> IntoStage<(M,)> for F {
    fn into_stage(self) -> Arc<dyn Stage> {
        Arc::new(stage(self))
    }
}

macro_rules! stage_function {
    ($($argument:ident),*) => {
        impl<F, R, $($argument),*> StageFunction<(Plain, R, $($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Send + Sync + 'static,
            R: Returns,
            $($argument: Argument,)*
        {
            fn signature() -> Signature {
                #[allow(unused_mut)]
                let mut signature = Signature::default();
                $($argument::describe(&mut signature);)*
                R::describe(&mut signature);
                signature
            }
            #[allow(non_snake_case, unused_variables, unused_mut)]
            fn call(&self, call: &mut Call, signature: &Signature) -> Result<Vec<Given>> {
                let mut port = 0;
                $(let $argument = $argument::take(call, signature, &mut port)?;)*
                self($($argument),*).artifacts()
            }
        }

        impl<F, R, $($argument),*> StageFunction<(Async, R, $($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Send + Sync + 'static,
            R: Future,
            R::Output: Returns,
            $($argument: Argument,)*
        {
            fn signature() -> Signature {
                #[allow(unused_mut)]
                let mut signature = Signature::default();
                $($argument::describe(&mut signature);)*
                R::Output::describe(&mut signature);
                signature
            }
            #[allow(non_snake_case, unused_variables, unused_mut)]
            fn call(&self, call: &mut Call, signature: &Signature) -> Result<Vec<Given>> {
                let mut port = 0;
                $(let $argument = $argument::take(call, signature, &mut port)?;)*
                crate::runtime()?.block_on(self($($argument),*)).artifacts()
            }
        }
    };
}

stage_function!();
stage_function!(A1);
stage_function!(A1, A2);
stage_function!(A1, A2, A3);
stage_function!(A1, A2, A3, A4);
stage_function!(A1, A2, A3, A4, A5);
stage_function!(A1, A2, A3, A4, A5, A6);
stage_function!(A1, A2, A3, A4, A5, A6, A7);
stage_function!(A1, A2, A3, A4, A5, A6, A7, A8);

impl From<ParamError> for String {
    fn from(error: ParamError) -> Self {
        error.to_string()
    }
}
