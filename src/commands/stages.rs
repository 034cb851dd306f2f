//! `ropeway stages`

use super::{did_you_mean, print, print_json};
use crate::cli::{Context, Exit, Format};
use crate::stage::Signature;
use crate::table::Table;
use crate::{Error, Result};
use serde_json::{Value, json};

/// `ropeway stages [NAME]`
#[derive(clap::Args)]
pub(crate) struct Stages {
    /// Describe this stage: its inputs, outputs and parameters
    name: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Stages {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let registry = &context.registry;
        if let Some(name) = &self.name {
            let stage = registry.get(name).ok_or_else(|| {
                did_you_mean(
                    Error::usage(format!("there is no stage {name:?}")),
                    name,
                    registry.stages().map(|(name, _)| name),
                )
            })?;
            match self.format {
                Format::Json => print_json(&as_json(name, stage.signature()))?,
                Format::Text => describe(name, stage.signature())?,
            }
            return Ok(0);
        }
        let mut table = Table::new(["stage", "takes", "gives", "what it does"]);
        for (name, stage) in registry.stages() {
            let signature = stage.signature();
            if self.format == Format::Json {
                print_json(&as_json(name, signature))?;
            }
            let first = signature.about.split_inclusive(". ").next().unwrap_or_default().trim().trim_end_matches('.');
            table.row([name.to_owned(), inputs(signature), outputs(signature), first.to_owned()]);
        }
        if self.format == Format::Text {
            print(table)?;
        }
        Ok(0)
    }
}

fn inputs(signature: &Signature) -> String {
    let named = signature.inputs.iter().map(|input| match input.optional {
        true => format!("[{}]", input.name),
        false => input.name.clone(),
    });
    named.chain(signature.open.map(|_| "…".to_owned())).collect::<Vec<_>>().join(" ")
}

fn outputs(signature: &Signature) -> String {
    signature.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn as_json(name: &str, signature: &Signature) -> Value {
    let inputs = signature.inputs.iter().map(|input| {
        json!({ "name": input.name, "kind": input.kind, "optional": input.optional, "template": input.template,
                "many": input.many, "parts": input.parts })
    });
    json!({
        "name": name,
        "about": signature.about,
        "version": signature.version,
        "inputs": inputs.collect::<Vec<_>>(),
        "other_inputs": signature.open.is_some(),
        "outputs": signature.outputs.iter().map(|output| json!({ "name": output.name, "kind": output.kind }))
            .collect::<Vec<_>>(),
        "seeded": signature.seeded,
        "params": signature.params.as_ref().map(|params| params.schema()),
    })
}

fn describe(name: &str, signature: &Signature) -> Result<()> {
    print(format!("{name}: {}\n", signature.about))?;
    let kind = |kind: Option<crate::data::Kind>| kind.map_or("anything".to_owned(), |kind| kind.to_string());
    let mut table = Table::new(["", "name", "what"]);
    for input in &signature.inputs {
        let mut what = if input.template { "a stage, to be run again and again".to_owned() } else { kind(input.kind) };
        what += if input.many { ", one or several" } else { "" };
        what += if input.parts { ", whole or as a list of parts" } else { "" };
        what += if input.optional { ", optional" } else { "" };
        table.row(["takes".into(), input.name.clone(), what]);
    }
    if let Some(open) = signature.open {
        table.row(["takes".into(), "any name".into(), kind(open)]);
    }
    for output in &signature.outputs {
        table.row(["gives".into(), output.name.clone(), kind(output.kind)]);
    }
    print(format!("{table}\n"))?;
    match &signature.params {
        Some(params) => print(format!("parameters (JSON Schema):\n{}", serde_json::to_string_pretty(params.schema())?)),
        None => print("it takes no parameters"),
    }
}
