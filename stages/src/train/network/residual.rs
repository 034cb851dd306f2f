//! Residual blocks.

use super::layer::{Kept, Layer, Parameter, Pass};
use super::{Backward, Network};
use crate::train::device;
use candle_core::Device;
use rand::Rng;

/// Adds to its input what some layers make of it (He et al., "Deep Residual Learning for Image Recognition", 2016).
pub(super) struct Residual {
    pub(super) name: String,
    /// As wide at its end as at its beginning.
    pub(super) branch: Network,
}

impl Layer for Residual {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.branch.inputs()
    }

    fn outputs(&self) -> usize {
        self.branch.inputs()
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.branch.named()
    }

    fn uses_chance(&self) -> bool {
        self.branch.uses_chance()
    }

    fn on_device(&self, device: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::Residual { branch: self.branch.on_device(device)? }))
    }

    fn forward(
        &self,
        weights: &[f32],
        input: &[f32],
        output: &mut [f32],
        kept: &mut Kept,
        chance: Option<&mut dyn Rng>,
    ) {
        let workspace = kept.branch.get_or_insert_default();
        self.branch.input(workspace, input.len() / self.inputs()).copy_from_slice(input);
        workspace.hand_on(&kept.lengths);
        let added = self.branch.forward(weights, workspace, chance);
        for ((output, input), added) in output.iter_mut().zip(input).zip(added) {
            *output = input + added;
        }
    }

    fn backward(&self, weights: &[f32], pass: Pass<'_>, gradient: &mut [f32], kept: &mut Kept) {
        let workspace = kept.branch.get_or_insert_default();
        self.branch.output(workspace).1.copy_from_slice(pass.output_gradient);
        let how = Backward { through: pass.input_gradient.is_some(), ..Backward::default() };
        let inner = self.branch.backward_through(weights, workspace, gradient, how);
        if let Some(input_gradient) = pass.input_gradient {
            for ((to, direct), inner) in input_gradient.iter_mut().zip(&*pass.output_gradient).zip(inner) {
                *to = direct + inner;
            }
        }
    }
}
