//! The `train` stage.

use super::augment::Augmenter;
use super::columns::Features;
use super::data::{Data, Input};
use super::device::{DeviceEngine, Place, places};
use super::encoding::model_columns;
use super::engine::{Examples, NetworkEngine, Target};
use super::fit::{Engine, Plan, Surroundings, fit};
use super::fitted::Description;
use super::init::{self, Frozen};
use super::lesson::{Training, Validation};
use super::loss::{Loss, Objective};
use super::models::ModelSpec;
use super::numbers::Shards;
use super::order::Order;
use super::pool::Pool;
use super::rates::FindRate;
use super::sampler::{Balance, Sampler};
use super::spec::{BATCH, ClassWeights, TrainSpec, WeightRule};
use super::state::State;
use super::stream::Stream;
use super::target::{Classes, classifies, numbers};
use super::trees;
use ropeway_framework::data::{Artifact, Frame, Metrics, Model, Tensors};
use ropeway_framework::stage::{Argument, Call, Params, Parts, Seed, Signature};
use ropeway_framework::{Context, Error, Result, nearest};
use serde_json::{Value, json};

/// Classes beyond which an integer column is taken for a mistake.
const MANY_CLASSES: usize = 1000;

/// What a training learns from: the inputs of the stage.
pub(super) struct Given {
    pub(super) train: Parts<Frame>,
    pub(super) valid: Option<Parts<Frame>>,
    pub(super) features: Option<Model>,
    pub(super) resume: Option<Tensors>,
    pub(super) init: Option<Artifact>,
}

impl Argument for Given {
    fn describe(signature: &mut Signature) {
        Parts::<Frame>::describe(signature);
        Option::<Parts<Frame>>::describe(signature);
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
    let places = places(&spec, &around.devices, &around.progress)?;
    train_on(places, given, &spec, seed, &around)
}

/// Trains on devices, or else on the processor.
pub(super) fn train_on(
    places: Vec<Place>,
    given: Given,
    spec: &TrainSpec,
    seed: Seed,
    around: &Surroundings,
) -> Result<(Model, Metrics, Frame, Tensors)> {
    let Given { train, valid, features, resume, init } = given;
    check(spec, valid.is_some(), resume.is_some(), init.is_some())?;
    let data = Data::read((train, valid), features.as_ref(), spec, around)?;
    let description = &data.description;
    let class_weights = class_weights(spec, &data)?;
    if let ModelSpec::Trees(trees) = &spec.model {
        if resume.is_some() || init.is_some() {
            return Err(Error::usage("the model `trees` begins anew: it takes no input \"resume\" or \"init\""));
        }
        let (train, valid) = data.together(spec.model.name())?;
        return trees::train((spec, trees), description, (train, valid), &class_weights, around);
    }
    let network = description.network()?;
    let mut plan = plan(spec, &data.sizes, data.in_parts())?;
    if spec.balance == Some(Balance::Oversample) {
        plan.order = plan.order.drawn(sampler(&data)?);
    }
    let shards = spec.shards.unwrap_or(Shards::for_batch(plan.order.batch())).get();
    let chance = seed.number("training");

    let pool = Pool::new(around.threads.0.min(shards.max(EVALUATORS)))?;
    let (mut weights, mut frozen) = (network.initial(&Seed::new(chance, "train")), Frozen::default());
    if let Some(init) = &init {
        let taken = init::adopt(&network, init::tensors(init)?, &mut weights, &around.progress)?;
        frozen = init::freeze(&network, &spec.freeze, &weights, &taken)?;
    }
    let augmenter = spec.augment.map(|rule| Augmenter::new(rule, &spec.model)).transpose()?;
    let objective = description.objective;
    let rows = (training(&data, &plan, (chance, shards), around), validation(&data, around));
    let mut engine: Box<dyn Engine + Send + '_> = match places.is_empty() {
        true => {
            let mut engine = NetworkEngine::new(&network, objective, rows, shards, &pool);
            (engine.weights, engine.augmenter, engine.frozen) = (class_weights, augmenter, frozen);
            Box::new(engine)
        }
        false => {
            let counts = (shards, spec.optimizer.moments());
            let mut engine = DeviceEngine::new(&network, objective, rows, counts, places, &around.progress)?;
            (engine.weights, engine.augmenter) = (class_weights, augmenter);
            engine.freeze(frozen)?;
            Box::new(engine)
        }
    };
    let fresh = State {
        identity: identity(spec, &data, shards)?,
        chance,
        weights,
        moments: vec![vec![0.0; network.parameters()]; spec.optimizer.moments()],
        ..State::default()
    };
    if let Some(rule) = &spec.find_rate {
        let model = description.model(&network, &fresh.weights)?;
        let tensors = fresh.tensors()?;
        let sweep = pool.inside(|| rule.sweep(&plan, engine.as_mut(), fresh, (&pool, around)))?;
        return Ok((model, sweep.metrics(), sweep.curve()?, tensors));
    }
    let state = pool.inside(|| fit(&plan, engine.as_mut(), (fresh, resume.as_ref()), &pool, around))?;
    let model = description.model(&network, state.chosen())?;
    Ok((model, state.metrics(), state.curve()?, state.tensors()?))
}

/// Refuses parameters and inputs that contradict each other.
fn check(spec: &TrainSpec, valid: bool, resume: bool, init: bool) -> Result<()> {
    spec.optimizer.check()?;
    spec.check_numbers()?;
    if spec.find_rate.is_some() && resume {
        return Err(Error::usage("`find_rate` sweeps from the first weights: it takes no input \"resume\""));
    }
    if spec.early_stop.is_some() && !valid {
        return Err(Error::usage("`early_stop` watches the validation loss, but there is no input \"valid\""));
    }
    if !spec.freeze.is_empty() && !init {
        return Err(Error::usage("`freeze` keeps the weights of the input \"init\", but there is no such input"));
    }
    if spec.balance.is_some() && matches!(spec.class_weights, Some(ClassWeights::Rule(WeightRule::Balanced))) {
        return Err(Error::usage("`balance` and `class_weights = \"balanced\"` would both make up for rare classes")
            .help("choose one of them"));
    }
    spec.find_rate.as_ref().map_or(Ok(()), FindRate::check)
}

/// Threads that validation may use even if there are fewer shards.
const EVALUATORS: usize = 8;

/// Draws rows so that all classes have as many.
fn sampler(data: &Data) -> Result<Sampler> {
    let labels = data.labels.clone();
    let labels = labels.ok_or_else(|| Error::usage("`balance` needs classes, but the target is a number"))?;
    Ok(Sampler::new(labels, &data.counts))
}

/// Where the rows of the training part are found.
fn training<'a>(data: &'a Data, plan: &Plan, (chance, shards): (u64, usize), around: &Surroundings) -> Training<'a> {
    match &data.train {
        Input::Whole(examples) => Training::Whole(examples),
        Input::InParts(source) => {
            let (order, chance) = (plan.order.clone(), Seed::new(chance, "train"));
            let stream = Stream::new(source.clone(), order, chance, shards, around.cancel.clone());
            Training::Streamed(Box::new(stream), data.labels.clone())
        }
    }
}

/// Where those of the validation part are found, if there is one.
fn validation<'a>(data: &'a Data, around: &Surroundings) -> Option<Validation<'a>> {
    data.valid.as_ref().map(|valid| match valid {
        Input::Whole(examples) => Validation::Whole(examples),
        Input::InParts(source) => Validation::Streamed(source.clone(), around.cancel.clone()),
    })
}

/// The examples of a training part, and what the model will be.
pub(super) fn read(train: &Frame, spec: &TrainSpec, threads: usize) -> Result<(Examples, Description)> {
    if train.rows() == 0 {
        return Err(Error::new("input \"train\" has no rows"));
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
    let description =
        Description { model: spec.model.clone(), objective, target: spec.target.clone(), classes, columns };
    Ok((train, description))
}

/// The examples of rows, for a model that is known.
pub(super) fn examples(rows: &Frame, description: &Description, threads: usize) -> Result<Examples> {
    let target = &description.target;
    let values = rows.column(target)?;
    let target = match &description.classes {
        Some(classes) => Target::Classes(classes.encode(&values, target)?),
        None => Target::Numbers(numbers(&values, target)?),
    };
    Ok(Examples { features: Features::read(rows, &description.columns, threads)?, target })
}

/// What is made small: as asked for, or by the model and the type of the target.
pub(super) fn objective(spec: &TrainSpec, kind: &arrow::datatypes::DataType) -> Result<Objective> {
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

pub(super) fn check_classes(classes: &Classes, spec: &TrainSpec, objective: Objective, rows: usize) -> Result<()> {
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

/// What the training follows, on rows in parts of these sizes; there is one part if they are in one piece.
pub(super) fn plan(spec: &TrainSpec, sizes: &[usize], in_parts: bool) -> Result<Plan> {
    let rows = sizes.iter().sum();
    let batch = spec.batch.map_or(BATCH.min(rows), std::num::NonZeroUsize::get);
    if batch > rows {
        return Err(Error::usage(format!("`batch` is {batch}, but input \"train\" has only {rows} rows"))
            .help(format!("set `batch` to {rows} or less; {rows} makes the whole part one batch")));
    }
    let order = match in_parts {
        true => Order::in_parts(sizes, batch, spec.shuffle)?,
        false => Order::whole(rows, batch, spec.shuffle)?,
    };
    Ok(Plan {
        epochs: spec.epochs.get() as u64,
        order,
        optimizer: spec.optimizer.clone(),
        schedule: spec.schedule.clone(),
        clip: spec.clip.map(super::numbers::Positive::get),
        early_stop: spec.early_stop.clone(),
        checkpoint: spec.checkpoint,
        curve: spec.curve.as_ref().map(|curve| curve.steps.get() as u64),
    })
}

/// The weights of the classes in the loss; empty for none.
fn class_weights(spec: &TrainSpec, data: &Data) -> Result<Vec<f32>> {
    let Some(weights) = &spec.class_weights else { return Ok(Vec::new()) };
    let Some(classes) = &data.description.classes else {
        return Err(Error::usage("`class_weights` needs classes, but the target is a number"));
    };
    let names = classes.names();
    match weights {
        ClassWeights::Rule(WeightRule::Balanced) => {
            let rows: usize = data.counts.iter().sum();
            // A class without rows has no weight to speak of, and none is ever looked up for it.
            let weight = |count: &usize| rows as f32 / (names.len() * (*count).max(1)) as f32;
            Ok(data.counts.iter().map(weight).collect())
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
fn identity(spec: &TrainSpec, data: &Data, shards: usize) -> Result<Value> {
    let mut identity = serde_json::to_value(spec)?;
    if let Value::Object(map) = &mut identity {
        map.remove("epochs");
        map.remove("checkpoint");
        map.insert("shards".to_owned(), json!(shards));
        map.insert("rows".to_owned(), json!(data.sizes.iter().sum::<usize>()));
        if data.in_parts() {
            map.insert("parts".to_owned(), json!(data.sizes));
        }
        map.insert("columns".to_owned(), serde_json::to_value(&data.description.columns)?);
        map.insert("classes".to_owned(), serde_json::to_value(&data.description.classes)?);
    }
    Ok(identity)
}
