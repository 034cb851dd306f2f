//! Inputs that the pipeline leaves open: mistakes, unless the stage is a template and who runs it gives them.

use super::diagnostic::{Report, join};
use super::params::{Subject, report_wrong};
use super::resolve::Draft;
use super::tree::{Item, dotted};
use super::wiring::Wires;
use crate::stage::{ParamError, TemplateUse};
use std::collections::BTreeMap;

/// Reports what stages lack, and what does not fit between templates and those who run them.
pub(super) fn report(wires: &Wires<'_>, report: &mut Report) {
    let template_only = wires.template_only();
    let mut filled: BTreeMap<usize, Vec<Vec<String>>> = BTreeMap::new();
    for (runner, template) in wires.templates() {
        let fills = match fills(wires, runner, template) {
            Some(Ok(fills)) => fills,
            Some(Err(error)) => {
                report_unfit(wires, runner, error, report);
                missing(wires, template).map(str::to_owned).collect()
            }
            // Something of the two is wrong and reported.
            None => missing(wires, template).map(str::to_owned).collect(),
        };
        filled.entry(template).or_default().push(fills);
    }
    for (node, template_only) in template_only.into_iter().enumerate() {
        let fills = filled.get(&node).filter(|_| template_only);
        let is_filled =
            |input: &&str| fills.is_some_and(|fills| fills.iter().all(|one| one.iter().any(|f| f == input)));
        let lacking: Vec<&str> = missing(wires, node).filter(|input| !is_filled(input)).collect();
        if let (Some(draft), false) = (wires.draft(node), lacking.is_empty()) {
            report_missing(draft, &lacking, report);
        }
    }
}

/// The inputs that a stage must have and is not given.
fn missing<'w>(wires: &'w Wires<'_>, node: usize) -> impl Iterator<Item = &'w str> {
    let stage = wires.draft(node).and_then(|draft| draft.stage.as_deref());
    let inputs = stage.zip(wires.given(node)).into_iter().flat_map(|(stage, given)| {
        let required = stage.signature().inputs.iter().filter(|input| !input.optional);
        required.filter(|input| !given.contains(&input.name))
    });
    inputs.map(|input| input.name.as_str())
}

/// What the stage that runs a template gives to it.
fn fills(wires: &Wires<'_>, runner: usize, template: usize) -> Option<Result<Vec<String>, ParamError>> {
    let (by, of) = (wires.draft(runner)?, wires.draft(template)?);
    let template = TemplateUse {
        name: of.name,
        stage: of.stage.as_deref()?,
        params: of.params.as_ref()?,
        open: missing(wires, template).collect(),
        beside: wires.given(runner)?.iter().map(String::as_str).collect(),
    };
    Some(by.stage.as_ref()?.fills(by.params.as_ref()?, &template))
}

fn report_unfit(wires: &Wires<'_>, runner: usize, error: ParamError, report: &mut Report) {
    let Some(by) = wires.draft(runner) else { return };
    let absent = Item::empty_table(by.place.cloned());
    let of = format!("`{}`", by.uses);
    let subject = Subject { noun: "parameter", of: &of, path: &["stage", by.name, "with"] };
    report_wrong(error, by.with.unwrap_or(&absent), subject, report);
}

fn report_missing(draft: &Draft<'_>, missing: &[&str], report: &mut Report) {
    let names = join(missing.iter().map(|name| format!("`{name}`")).collect(), "and");
    let plural = if missing.len() == 1 { "" } else { "s" };
    let place = draft.from.and_then(|from| from.place.as_ref()).or(draft.place);
    let wiring: Vec<String> = missing.iter().map(|name| format!("{name} = \"...\"")).collect();
    let message = format!("stage `{}` lacks its input{plural} {names}", draft.name);
    report
        .error("missing-input", place, dotted(&["stage", draft.name, "from"]), message)
        .label(format!("{names} missing"))
        .help(format!("say where from: from = {{ {} }}", wiring.join(", ")));
}
