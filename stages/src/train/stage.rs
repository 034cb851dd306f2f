//! The `train` stage.

use super::augment::Augmenter;
use super::columns::{Column, Features};
use super::device::{DeviceEngine, Place, place};
use super::encoding::model_columns;
use super::engine::{Examples, NetworkEngine, Target};
use super::fit::{Engine, Plan, Surroundings, fit};
use super::fitted::Description;
use super::init::{self, Frozen};
use super::loss::{Loss, Objective};
use super::models::ModelSpec;
use super::numbers::Shards;
use super::pool::Pool;
use super::rates::FindRate;
use super::spec::{ClassWeights, TrainSpec, WeightRule};
use super::state::State;
use super::target::{Classes, classifies, numbers};
use super::trees;
use ropeway_framework::data::{Artifact, Frame, Metrics, Model, Tensors};
use ropeway_framework::stage::{Argument, Call, Params, Seed, Signature};
use ropeway_framework::{Context, Error, Result, nearest};
use serde_json::{Value, json};

/// Rows a step where the pipeline does not say.
const BATCH: usize = 64;

/// Classes beyond which an integer column is taken for a mistake.
const MANY_CLASSES: usize = 1000;

/// What a training learns from: the inputs of the stage.
pub(super) struct Given {
    pub(super) train: Frame,
    pub(super) valid: Option<Frame>,
    pub(super) features: Option<Model>,
    pub(super) resume: Option<Tensors>,
    pub(super) init: Option<Artifact>,
}

impl Argument for Given {
    fn describe(signature: &mut Signature) {
        Frame::describe(signature);
        Option::<Frame>::describe(signature);
        Option::<Model>::describe(signature);
        Option::<Tensors>::describe(signature);
        Option::<Artifact>::describe(signature);
    }

    fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self> {
        Ok(Self {
            train: Argument::take(call, signature, port)?,
            valid: Argument::take(call, signature, port)?,
            features: Argument::take(call, signature, port)?,
            resume: Argument::take(call, signature, port)?,
            init: Argument::take(call, signature, port)?,
        })
    }
}

/// Trains a model on rows: `(model, metrics, curve, state)`.
pub(super) fn train(
    given: Given,
    Params(spec): Params<TrainSpec>,
    seed: Seed,
    around: Surroundings,
) -> Result<(Model, Metrics, Frame, Tensors)> {
    let place = place(&spec, &around.devices, &around.progress)?;
    train_on(place, given, &spec, seed, &around)
}

/// Trains on a device, or else on the processor.
pub(super) fn train_on(
    place: Option<Place>,
    given: Given,
    spec: &TrainSpec,
    seed: Seed,
    around: &Surroundings,
) -> Result<(Model, Metrics, Frame, Tensors)> {
    let Given { train, valid, features, resume, init } = given;
    check(spec, valid.is_some(), init.is_some())?;
    let (frame, valid) = transformed(train, valid, features.as_ref(), around)?;
    let (train, valid, description) = read(&frame, valid.as_ref(), spec, around.threads.0)?;
    // What the features made of the rows is read, and goes.
    drop(frame);
    if let ModelSpec::Trees(trees) = &spec.model {
        if resume.is_some() || init.is_some() {
            return Err(Error::usage("the model `trees` begins anew: it takes no input \"resume\" or \"init\""));
        }
        let weights = class_weights(spec, &description, &train)?;
        return trees::train((spec, trees), &description, (&train, valid.as_ref()), &weights, around);
    }
    let network = description.network()?;
    let plan = plan(spec, train.features.rows())?;
    let shards = spec.shards.unwrap_or(Shards::for_batch(plan.batch)).get();

    let pool = Pool::new(around.threads.0.min(shards.max(EVALUATORS)))?;
    let chance = seed.number("training");
    let (mut weights, mut frozen) = (network.initial(&Seed::new(chance, "train")), Frozen::default());
    if let Some(init) = &init {
        init::adopt(&network, init::tensors(init)?, &mut weights, &around.progress)?;
        frozen = init::freeze(&network, &spec.freeze, &weights)?;
    }
    let class_weights = class_weights(spec, &description, &train)?;
    let augmenter = spec.augment.map(|rule| Augmenter::new(rule, &spec.model)).transpose()?;
    let (objective, data) = (description.objective, (&train, valid.as_ref()));
    let mut engine: Box<dyn Engine + Send + '_> = match place {
        None => {
            let mut engine = NetworkEngine::new(&network, objective, data, shards, &pool);
            (engine.weights, engine.augmenter, engine.frozen) = (class_weights, augmenter, frozen);
            Box::new(engine)
        }
        Some(place) => {
            let counts = (shards, spec.optimizer.moments());
            let mut engine = DeviceEngine::new(&network, objective, data, counts, place, &around.progress)?;
            (engine.weights, engine.augmenter) = (class_weights, augmenter);
            engine.freeze(frozen)?;
            Box::new(engine)
        }
    };
    let fresh = State {
        identity: identity(spec, &description, &train, shards)?,
        chance,
        weights,
        moments: vec![vec![0.0; network.parameters()]; spec.optimizer.moments()],
        ..State::default()
    };
    if let Some(rule) = &spec.find_rate {
        let model = description.model(&network, &fresh.weights)?;
        let tensors = fresh.tensors()?;
        let sweep = rule.sweep(&plan, engine.as_mut(), fresh, (&pool, around))?;
        return Ok((model, sweep.metrics(), sweep.curve()?, tensors));
    }
    let state = pool.inside(|| fit(&plan, engine.as_mut(), (fresh, resume.as_ref()), &pool, around))?;
    let model = description.model(&network, state.chosen())?;
    Ok((model, state.metrics(), state.curve()?, state.tensors()?))
}

/// Refuses parameters and inputs that contradict each other.
fn check(spec: &TrainSpec, valid: bool, init: bool) -> Result<()> {
    spec.optimizer.check()?;
    if spec.early_stop.is_some() && !valid {
        return Err(Error::usage("`early_stop` watches the validation loss, but there is no input \"valid\""));
    }
    if !spec.freeze.is_empty() && !init {
        return Err(Error::usage("`freeze` keeps the weights of the input \"init\", but there is no such input"));
    }
    spec.find_rate.as_ref().map_or(Ok(()), FindRate::check)
}

/// Threads that validation may use even if there are fewer shards.
const EVALUATORS: usize = 8;

/// The parts as the fitted features give them.
fn transformed(
    train: Frame,
    valid: Option<Frame>,
    features: Option<&Model>,
    around: &Surroundings,
) -> Result<(Frame, Option<Frame>)> {
    let Some(model) = features else { return Ok((train, valid)) };
    let features = around.models.load(model).context("input \"features\"")?;
    let train = features.apply_on(&train, around.threads.0).context("input \"train\"")?;
    let valid = valid.map(|rows| features.apply_on(&rows, around.threads.0)).transpose().context("input \"valid\"")?;
    Ok((train, valid))
}

/// The examples of both parts, and what the model will be.
pub(super) fn read(
    train: &Frame,
    valid: Option<&Frame>,
    spec: &TrainSpec,
    threads: usize,
) -> Result<(Examples, Option<Examples>, Description)> {
    if train.rows() == 0 {
        return Err(Error::new("input \"train\" has no rows"));
    }
    if valid.is_some_and(|rows| rows.rows() == 0) {
        return Err(
            Error::new("input \"valid\" has no rows").help("leave the input out, or split off more rows for it")
        );
    }
    let target = train.column(&spec.target).context("`target`")?;
    let objective = objective(spec, target.data_type())?;
    let columns = model_columns(&spec.model, train, &spec.target).context("input \"train\"")?;
    let (classes, values) = match objective.classifies() {
        true => {
            let (classes, values) = Classes::find(&target, &spec.target).context("input \"train\"")?;
            check_classes(&classes, spec, objective, values.len())?;
            (Some(classes), Target::Classes(values))
        }
        false => (None, Target::Numbers(numbers(&target, &spec.target).context("input \"train\"")?)),
    };
    let features = Features::read(train, &columns, threads).context("input \"train\"")?;
    let train = Examples { features, target: values };
    let valid = valid.map(|rows| examples(rows, &columns, (&spec.target, classes.as_ref()), threads));
    let valid = valid.transpose().context("input \"valid\"")?;
    let description =
        Description { model: spec.model.clone(), objective, target: spec.target.clone(), classes, columns };
    Ok((train, valid, description))
}

fn examples(
    rows: &Frame,
    columns: &[Column],
    (target, classes): (&str, Option<&Classes>),
    threads: usize,
) -> Result<Examples> {
    let values = rows.column(target)?;
    let target = match classes {
        Some(classes) => Target::Classes(classes.encode(&values, target)?),
        None => Target::Numbers(numbers(&values, target)?),
    };
    Ok(Examples { features: Features::read(rows, columns, threads)?, target })
}

/// What is made small: as asked for, or by the model and the type of the target.
fn objective(spec: &TrainSpec, kind: &arrow::datatypes::DataType) -> Result<Objective> {
    let objective = match (spec.loss, &spec.model) {
        (Loss::CrossEntropy, _) | (Loss::Auto, ModelSpec::Softmax {}) => Objective::CrossEntropy,
        (Loss::Bce, _) | (Loss::Auto, ModelSpec::Logistic {}) => Objective::BinaryCrossEntropy,
        (Loss::Mse, _) | (Loss::Auto, ModelSpec::Linear {}) => Objective::SquaredError,
        (Loss::Mae, _) => Objective::AbsoluteError,
        (Loss::Huber(huber), _) => Objective::Huber(huber.delta.get() as f32),
        (Loss::Auto, _) if classifies(kind) => Objective::CrossEntropy,
        (Loss::Auto, _) => Objective::SquaredError,
    };
    let fits = match spec.model {
        ModelSpec::Linear {} => !objective.classifies(),
        ModelSpec::Logistic {} => objective == Objective::BinaryCrossEntropy,
        ModelSpec::Softmax {} => objective == Objective::CrossEntropy,
        ModelSpec::Mlp(_) | ModelSpec::Cnn(_) | ModelSpec::Transformer(_) | ModelSpec::Trees(_) => true,
    };
    if !fits {
        return Err(Error::usage(format!("`loss` does not go with the model `{}`", spec.model.name()))
            .help("leave `loss` out, or use an mlp with `hidden = []`"));
    }
    Ok(objective)
}

fn check_classes(classes: &Classes, spec: &TrainSpec, objective: Objective, rows: usize) -> Result<()> {
    let (count, target) = (classes.len(), &spec.target);
    if objective == Objective::BinaryCrossEntropy && count != 2 {
        return Err(Error::new(format!("column {target:?} has {count} classes; {} is for two", spec.model.name()))
            .help("use the model `softmax`, or leave `loss` out"));
    }
    if count > MANY_CLASSES && count > rows / 10 {
        return Err(Error::new(format!("column {target:?} has {count} different values in {rows} rows"))
            .help("if it is a number to predict, say loss = \"mse\"; if it is no target, name another with `target`"));
    }
    Ok(())
}

pub(super) fn plan(spec: &TrainSpec, rows: usize) -> Result<Plan> {
    let batch = spec.batch.map_or(BATCH.min(rows), std::num::NonZeroUsize::get);
    if batch > rows {
        return Err(Error::usage(format!("`batch` is {batch}, but input \"train\" has only {rows} rows"))
            .help(format!("set `batch` to {rows} or less; {rows} makes the whole part one batch")));
    }
    Ok(Plan {
        epochs: spec.epochs.get() as u64,
        batch,
        optimizer: spec.optimizer.clone(),
        schedule: spec.schedule.clone(),
        clip: spec.clip.map(super::numbers::Positive::get),
        early_stop: spec.early_stop.clone(),
        checkpoint: spec.checkpoint,
        curve: spec.curve.as_ref().map(|curve| curve.steps.get() as u64),
        shuffle: spec.shuffle,
    })
}

/// The weights of the classes in the loss; empty for none.
fn class_weights(spec: &TrainSpec, description: &Description, train: &Examples) -> Result<Vec<f32>> {
    let Some(weights) = &spec.class_weights else { return Ok(Vec::new()) };
    let (Some(classes), Target::Classes(rows)) = (&description.classes, &train.target) else {
        return Err(Error::usage("`class_weights` needs classes, but the target is a number"));
    };
    let names = classes.names();
    match weights {
        ClassWeights::Rule(WeightRule::Balanced) => {
            let mut counts = vec![0usize; names.len()];
            rows.iter().for_each(|class| counts[*class as usize] += 1);
            // A class without rows has no weight to speak of, and none is ever looked up for it.
            Ok(counts.iter().map(|count| rows.len() as f32 / (names.len() * (*count).max(1)) as f32).collect())
        }
        ClassWeights::Table(table) => {
            if let Some(strange) = table.keys().find(|key| !names.contains(key)) {
                let error = Error::usage(format!("`class_weights` names {strange:?}, which is no class"));
                return Err(match nearest(strange, names.iter().map(String::as_str)) {
                    Some(near) => error.help(format!("did you mean {near:?}?")),
                    None => error.help(format!("the classes are {}", names.join(", "))),
                });
            }
            Ok(names.iter().map(|name| table.get(name).map_or(1.0, |weight| weight.get() as f32)).collect())
        }
    }
}

/// What a training is: all that its steps depend on but the data's values.
fn identity(spec: &TrainSpec, description: &Description, train: &Examples, shards: usize) -> Result<Value> {
    let mut identity = serde_json::to_value(spec)?;
    if let Value::Object(map) = &mut identity {
        map.remove("epochs");
        map.remove("checkpoint");
        map.insert("shards".to_owned(), json!(shards));
        map.insert("rows".to_owned(), json!(train.features.rows()));
        map.insert("columns".to_owned(), serde_json::to_value(&description.columns)?);
        map.insert("classes".to_owned(), serde_json::to_value(&description.classes)?);
    }
    Ok(identity)
}
