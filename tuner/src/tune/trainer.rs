//! From a trial's parameters to a task.

use super::{Stock, Tune};
use crate::pruners::Pruner;
use crate::space::path;
use crate::{Job, Values};
use ropeway_framework::data::Kind;
use ropeway_framework::stage::{ParamError, Stored, TaskRequest, Template};
use ropeway_framework::{Context, Error, Result, nearest};
use serde_json::Value;

/// Makes a task of every job: the template's, with the trial's parameters and budget.
pub(super) struct Trainer {
    template: Template,
    budget: String,
    prunes: bool,
    /// The length of a whole training, where the template says it.
    whole: Option<u64>,
    /// Whether a training goes on from the state that a shorter one left.
    resumes: bool,
    /// The output that is the trial's model.
    model: String,
}

impl Trainer {
    /// Checks that the template can do what the search asks of it.
    ///
    /// # Errors
    /// It gives no metrics, has no such budget, or does not take a parameter of the space.
    pub(super) fn new(template: Template, params: &Tune) -> Result<Self> {
        let name = &template.name;
        let output = |port: &str| template.outputs.iter().find(|output| output.name == port);
        let metrics = output("metrics").filter(|output| output.kind.is_none_or(|kind| kind == Kind::Metrics));
        if metrics.is_none() {
            return Err(Error::usage(format!("stage {name:?} can't be tuned: it has no output `metrics`")));
        }
        let model = output("model").or(template.outputs.first()).context(format!("stage {name:?} has no outputs"))?;
        let state = output("state");
        let resumes = template
            .accepts
            .iter()
            .find(|input| input.name == "resume")
            .zip(state)
            .is_some_and(|(input, state)| input.kind.is_none() || state.kind.is_none() || input.kind == state.kind);
        let normal = normalise(&template, &Values::new())?;
        let whole = path::get(&normal, &params.budget).and_then(Value::as_u64).filter(|whole| *whole > 0);
        let trainer = Self {
            budget: params.budget.clone(),
            prunes: params.pruner.prunes(),
            whole,
            resumes,
            model: model.name.clone(),
            template,
        };
        if trainer.prunes {
            trainer.check_budget(&normal, params)?;
        }
        trainer.check_space(params)?;
        Ok(trainer)
    }

    /// The stage's name in the pipeline.
    pub(super) fn name(&self) -> &str {
        &self.template.name
    }

    /// The output that is the trial's model: `model`, or else the default one.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The length of a whole training, where the template says it.
    pub(super) fn whole(&self) -> Option<u64> {
        self.whole
    }

    /// An output of a trial.
    pub(super) fn output<'a>(&self, stock: &'a Stock, port: &str) -> Result<&'a Stored> {
        stock.get(port).ok_or_else(|| Error::new(format!("stage {:?} gave no output `{port}`", self.name())))
    }

    /// The task of a job; `former` are the outputs of the trial's rung before.
    ///
    /// # Errors
    /// The stage refuses these parameters.
    pub(super) fn task(&self, job: &Job, former: Option<&Stock>) -> Result<TaskRequest> {
        let mut task = self.template.task.clone();
        task.label = match job.rung {
            0 => format!("trial-{}", job.trial),
            rung => format!("trial-{}/rung-{rung}", job.trial),
        };
        let mut values = job.values.clone();
        if self.prunes {
            values.insert(&self.budget, job.budget);
        }
        task.params = normalise(&self.template, &values)?;
        if let (true, Some(former)) = (self.resumes, former) {
            let state = self.output(former, "state")?;
            task.inputs.insert("resume".to_owned(), vec![state.reference]);
        }
        Ok(task)
    }

    fn check_budget(&self, normal: &Value, params: &Tune) -> Result<()> {
        let (name, budget) = (self.name(), &self.budget);
        let Some(whole) = self.whole else {
            let error = match path::get(normal, budget) {
                Some(value) => format!("`{budget}` of stage {name:?} is {value}, which is no budget for a pruner"),
                None => format!("stage {name:?} has no parameter `{budget}` for a pruner to divide"),
            };
            return Err(Error::usage(error).help("set `budget` to the parameter that is the length of a training"));
        };
        params.pruner.check(whole).context(format!("`{budget}` of stage {name:?} is {whole}"))?;
        let first = params.pruner.rungs(0, whole).into_iter().next().unwrap_or(whole);
        let mut values = Values::new();
        values.insert(budget, first);
        normalise(&self.template, &values).map(drop).context(format!("`{budget}` = {first}"))
    }

    /// Tries both ends, or every choice, of every parameter.
    fn check_space(&self, params: &Tune) -> Result<()> {
        for (path, parameter) in params.space.iter() {
            let mut seen: Vec<Value> = Vec::new();
            let corners = parameter.domain.corners();
            for corner in &corners {
                let normal = normalise(&self.template, &params.space.corner(path, corner))
                    .map_err(|error| error.context(format!("`{path}` = {corner}")))?;
                seen.push(normal);
            }
            let ignored = corners.len() > 1 && seen.windows(2).all(|pair| pair.first() == pair.last());
            if ignored {
                let name = self.name();
                return Err(Error::usage(format!(
                    "`{path}` is no parameter of stage {name:?}: it makes no difference"
                )));
            }
        }
        Ok(())
    }
}

/// The template's parameters with these values, checked and completed by its stage.
fn normalise(template: &Template, values: &Values) -> Result<Value> {
    let params = values.apply(&template.task.params)?;
    template.stage.0.normalise(&params).map_err(|mistake| {
        let error = Error::usage(format!("stage {:?} does not take it: {mistake}", template.name));
        match meant(&mistake) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        }
    })
}

/// The name that an unknown one was probably meant to be: serde quotes it first, and then those that it knows.
fn meant(mistake: &ParamError) -> Option<&str> {
    let mut quoted = mistake.message.split('`').skip(1).step_by(2);
    let unknown = mistake.message.starts_with("unknown").then(|| quoted.next()).flatten()?;
    nearest(unknown, quoted)
}
