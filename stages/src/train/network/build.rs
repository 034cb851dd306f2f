//! Networks from their parameters: which layers, and whether they fit each other.

use super::Network;
use super::activation::Activation;
use super::attention::Attention;
use super::conv::{Conv, Image};
use super::dense::Dense;
use super::dropout::Dropout;
use super::embedding::{Embedding, Field, Mean, Tokens};
use super::layer::{Layer, Start};
use super::norm::LayerNorm;
use super::pool::{ChannelsLast, MaxPool};
use super::residual::Residual;
use crate::train::models::{Cnn, Mlp, ModelSpec, Padding, Transformer};
use ropeway_framework::{Error, Result};
use std::hint::black_box;

impl Network {
    /// The network that a pipeline asks for, for rows of these fields and `outputs` results a row.
    ///
    /// # Errors
    /// Layers that do not fit, named.
    pub(crate) fn new(spec: &ModelSpec, fields: &[Field], outputs: usize) -> Result<Self> {
        let inputs = fields.iter().map(|field| field.width).sum();
        let mut layers = Builder { layers: Vec::new(), width: inputs, way: Vec::new() };
        match spec {
            ModelSpec::Linear {} | ModelSpec::Logistic {} | ModelSpec::Softmax {} => {
                layers.dense("dense1", outputs, Activation::Identity, Start::Zero);
            }
            ModelSpec::Mlp(mlp) => {
                layers.embed(fields);
                layers.mlp(mlp, outputs)?;
            }
            ModelSpec::Cnn(cnn) => layers.cnn(cnn, outputs)?,
            ModelSpec::Transformer(transformer) => layers.transformer(transformer, outputs)?,
            ModelSpec::Trees(_) => return Err(Error::new("trees are no network")),
        }
        check_size(&layers.layers)?;
        Ok(Self::of(layers.layers, inputs))
    }
}

/// Refuses a network whose weights no memory of this machine holds, before anything is as large.
fn check_size(layers: &[Box<dyn Layer>]) -> Result<()> {
    let count = |layer: &dyn Layer| -> f64 {
        let weights = |shape: &[usize]| shape.iter().map(|length| *length as f64).product::<f64>();
        layer.parameters().iter().map(|parameter| weights(&parameter.shape)).sum()
    };
    let all: f64 = layers.iter().map(|layer| count(layer.as_ref())).sum();
    // The optimiser would know that nobody uses it.
    let is_had = |weights: usize| black_box(&mut Vec::<f32>::new()).try_reserve_exact(weights).is_ok();
    if all < MOST_WEIGHTS && is_had(all as usize) {
        return Ok(());
    }
    let largest = layers.iter().max_by(|a, b| count(a.as_ref()).total_cmp(&count(b.as_ref())));
    let (name, weights) = largest.map_or(("", 0.0), |layer| (layer.name(), count(layer.as_ref())));
    Err(Error::usage(format!(
        "the model has {all:.3e} weights, which take {:.3e} bytes, more than this machine can hold; layer {name} has \
         {weights:.3e} of them",
        all * size_of::<f32>() as f64
    ))
    .help("make its layers smaller"))
}

/// A number of weights whose bytes can be counted.
const MOST_WEIGHTS: f64 = (1_u64 << 60) as f64;

/// The largest side of a square that is pooled: where its largest value was is kept in a byte.
const MOST_POOLED: usize = 16;

struct Builder {
    layers: Vec<Box<dyn Layer>>,
    width: usize,
    /// What an image has gone through, and its size after each.
    way: Vec<String>,
}

impl Builder {
    /// A builder of a branch, for rows (or pixels, or tokens) of so many values.
    fn branch(width: usize) -> Self {
        Self { layers: Vec::new(), width, way: Vec::new() }
    }

    /// Adds a branch's layers as a residual block.
    fn residual(&mut self, name: String, branch: Builder, inputs: usize) {
        self.layers.push(Box::new(Residual { name, branch: Network::of(branch.layers, inputs) }));
    }

    fn dense(&mut self, name: &str, outputs: usize, activation: Activation, start: Start) {
        let dense = Dense { name: name.to_owned(), inputs: self.width, outputs, activation, start };
        self.width = outputs;
        self.layers.push(Box::new(dense));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.layers.push(Box::new(LayerNorm { name: name.to_owned(), width }));
    }

    fn dropout(&mut self, name: &str, share: f64) {
        if share > 0.0 {
            self.layers.push(Box::new(Dropout { name: name.to_owned(), width: self.width, share }));
        }
    }

    fn embed(&mut self, fields: &[Field]) {
        if fields.iter().any(|field| field.table.is_some()) {
            let embedding = Embedding { name: "embedding".to_owned(), fields: fields.to_vec() };
            self.width = embedding.outputs();
            self.layers.push(Box::new(embedding));
        }
    }

    fn mlp(&mut self, mlp: &Mlp, outputs: usize) -> Result<()> {
        let pairs = mlp.hidden.windows(2).any(|pair| pair[0] == pair[1]);
        if mlp.residual && !pairs {
            let widths: Vec<String> = mlp.hidden.iter().map(ToString::to_string).collect();
            return Err(Error::usage(format!(
                "`model.mlp.residual` has no layer to add: none of `hidden` = [{}] is as wide as the one before it",
                widths.join(", ")
            ))
            .help("such as hidden = [64, 64, 64]"));
        }
        for (index, hidden) in mlp.hidden.iter().enumerate() {
            let (number, hidden) = (index + 1, hidden.get());
            let start = start(mlp.activation, self.width, hidden);
            let block = mlp.residual && index > 0 && hidden == self.width;
            let mut branch = Self::branch(self.width);
            let layers = if block { &mut branch } else { &mut *self };
            let name = |layer: &str| if block { layer.to_owned() } else { format!("{layer}{number}") };
            if mlp.norm && index > 0 {
                layers.norm(&name("norm"), layers.width);
            }
            layers.dense(&name("dense"), hidden, mlp.activation, start);
            layers.dropout(&name("dropout"), mlp.dropout.get());
            if block {
                self.residual(format!("block{number}"), branch, hidden);
            }
        }
        let start = start(Activation::Identity, self.width, outputs);
        self.dense(&format!("dense{}", mlp.hidden.len() + 1), outputs, Activation::Identity, start);
        Ok(())
    }

    fn cnn(&mut self, cnn: &Cnn, outputs: usize) -> Result<()> {
        let [channels, height, width] = cnn.input.map(std::num::NonZeroUsize::get);
        let mut image = Image { channels, height, width };
        if image.values() != self.width {
            return Err(Error::usage(format!(
                "`model.cnn.input` is {channels} x {height} x {width} = {} values, but the feature columns have {}",
                image.values(),
                self.width
            ))
            .help("`input` is [channels, height, width] of one image"));
        }
        self.went("input", image);
        if channels > 1 {
            self.layers.push(Box::new(ChannelsLast { name: "channels_last".to_owned(), image }));
        }
        let size = cnn.pool.get();
        for (index, channels) in cnn.channels.iter().enumerate() {
            let name = format!("conv{}", index + 1);
            image = self.conv(name, cnn, image, channels.get(), cnn.padding, cnn.activation)?;
            for block in 1..=cnn.blocks {
                self.block(format!("block{}-{block}", index + 1), cnn, image)?;
            }
            if size > 1 {
                let pool = MaxPool { name: format!("pool{}", index + 1), input: image, size };
                if size > image.height.min(image.width) {
                    return Err(self.misfit(&pool.name, "pool", size, image));
                }
                if size > MOST_POOLED {
                    let name = &pool.name;
                    return Err(Error::usage(format!(
                        "layer {name}: `model.cnn.pool` is {size}, but at most {MOST_POOLED} pixels are pooled at once"
                    )));
                }
                image = pool.output();
                self.went(&pool.name, image);
                self.layers.push(Box::new(pool));
            }
        }
        self.width = image.values();
        self.dropout("dropout0", cnn.dropout.get());
        let dropout = cnn.dropout;
        self.mlp(&Mlp { hidden: cnn.hidden.clone(), activation: cnn.activation, dropout, ..Mlp::default() }, outputs)
    }

    /// A residual block of two convolutions that keep the image's sides. Its last one begins at zero, so that the block
    /// begins as if it were not there (Zhang, Dauphin and Ma, "Fixup Initialization", 2019): a net of many blocks then
    /// learns without batch normalisation.
    fn block(&mut self, name: String, cnn: &Cnn, image: Image) -> Result<()> {
        let mut branch = Self::branch(image.values());
        branch.way.clone_from(&self.way);
        branch.norm("norm", image.channels);
        branch.conv("conv1".to_owned(), cnn, image, image.channels, Padding::Same, cnn.activation)?;
        let (kernel, padding, activation) = (cnn.kernel.get(), (cnn.kernel.get() - 1) / 2, Activation::Identity);
        let (name2, start) = ("conv2".to_owned(), Start::Zero);
        let last = Conv { name: name2, input: image, output: image, kernel, padding, activation, start };
        branch.layers.push(Box::new(last));
        self.residual(name, branch, image.values());
        Ok(())
    }

    fn conv(
        &mut self,
        name: String,
        cnn: &Cnn,
        input: Image,
        channels: usize,
        padding: Padding,
        activation: Activation,
    ) -> Result<Image> {
        let kernel = cnn.kernel.get();
        if kernel > input.height.min(input.width) {
            return Err(self.misfit(&name, "kernel", kernel, input));
        }
        let (padding, lost) = match padding {
            Padding::Same => ((kernel - 1) / 2, 0),
            Padding::Valid => (0, kernel - 1),
        };
        let output = Image { height: input.height - lost, width: input.width - lost, channels };
        self.went(&name, output);
        let patch = kernel * kernel * input.channels;
        let start = start(activation, patch, kernel * kernel * channels);
        self.layers.push(Box::new(Conv { name, input, output, kernel, padding, activation, start }));
        Ok(output)
    }

    /// An image has gone through a layer.
    fn went(&mut self, layer: &str, Image { channels, height, width }: Image) {
        self.way.push(format!("{layer} {channels} x {height} x {width}"));
    }

    fn misfit(&self, layer: &str, field: &str, size: usize, image: Image) -> Error {
        let Image { height, width, .. } = image;
        let message =
            format!("layer {layer}: `model.cnn.{field}` is {size}, but only {height} x {width} pixels come in");
        Error::usage(message).help(format!(
            "channels x height x width so far: {}; use fewer `channels`, a smaller `kernel` or `pool`, or padding = \"same\"",
            self.way.join(", ")
        ))
    }

    /// An encoder with the norms before the blocks (Xiong et al., "On Layer Normalization in the Transformer
    /// Architecture", 2020), which learns without a warm-up.
    fn transformer(&mut self, spec: &Transformer, outputs: usize) -> Result<()> {
        let (length, width, heads) = (self.width, spec.width.get(), spec.heads.get());
        if !width.is_multiple_of(heads) {
            return Err(Error::usage(format!(
                "layer attention1: `model.transformer.heads` is {heads}, which does not divide `width` = {width}"
            )));
        }
        if length < 2 {
            return Err(Error::usage(format!("layer tokens: a sequence has {length} tokens, but needs at least 2")));
        }
        let vocabulary = spec.vocabulary.get();
        self.layers.push(Box::new(Tokens { name: "tokens".to_owned(), vocabulary, length, width }));
        self.dropout("dropout0", spec.dropout.get());
        let even = start(Activation::Identity, width, width);
        let hidden = spec.feed_forward.map_or(4 * width, std::num::NonZeroUsize::get);
        for number in 1..=spec.layers.get() {
            let mut branch = Self::branch(width);
            branch.norm("norm", width);
            let name = "heads".to_owned();
            branch.layers.push(Box::new(Attention { name, length, width, heads, start: even }));
            branch.dropout("dropout", spec.dropout.get());
            self.residual(format!("attention{number}"), branch, length * width);

            let mut branch = Self::branch(width);
            branch.norm("norm", width);
            branch.dense("dense1", hidden, Activation::Relu, start(Activation::Relu, width, hidden));
            branch.dense("dense2", width, Activation::Identity, start(Activation::Identity, hidden, width));
            branch.dropout("dropout", spec.dropout.get());
            self.residual(format!("feed_forward{number}"), branch, width);
        }
        self.norm("norm", width);
        self.layers.push(Box::new(Mean { name: "mean".to_owned(), length, width }));
        self.width = width;
        self.dense("dense1", outputs, Activation::Identity, start(Activation::Identity, width, outputs));
        Ok(())
    }
}

fn start(activation: Activation, inputs: usize, outputs: usize) -> Start {
    Start::Uniform(bound(activation, inputs, outputs))
}

/// How far from 0 the weights of a layer begin: He et al., "Delving Deep into Rectifiers", 2015, for the rectifiers;
/// Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", 2010, for the
/// others; both uniform.
pub(in crate::train) fn bound(activation: Activation, inputs: usize, outputs: usize) -> f32 {
    let square = match activation {
        Activation::Relu | Activation::LeakyRelu | Activation::Elu => 6.0 / inputs as f32,
        Activation::Tanh | Activation::Sigmoid | Activation::Identity => 6.0 / (inputs + outputs) as f32,
    };
    square.sqrt()
}
