//! Networks from their parameters: which layers, and whether they fit each other.

use super::Network;
use super::activation::Activation;
use super::conv::{Conv, Image};
use super::dense::Dense;
use super::dropout::Dropout;
use super::layer::{Layer, Start};
use super::pool::{ChannelsLast, MaxPool};
use crate::train::spec::{Cnn, Mlp, ModelSpec, Padding};
use ropeway_framework::{Error, Result};

impl Network {
    /// The network that a pipeline asks for, for rows of `inputs` values and `outputs` results a row.
    ///
    /// # Errors
    /// Layers that do not fit, named.
    pub(crate) fn new(spec: &ModelSpec, inputs: usize, outputs: usize) -> Result<Self> {
        let mut layers = Builder { layers: Vec::new(), width: inputs };
        match spec {
            ModelSpec::Linear {} | ModelSpec::Logistic {} | ModelSpec::Softmax {} => {
                layers.dense("dense1", outputs, Activation::Identity, Start::Zero);
            }
            ModelSpec::Mlp(mlp) => layers.mlp(mlp, outputs),
            ModelSpec::Cnn(cnn) => layers.cnn(cnn, outputs)?,
        }
        Ok(Self::of(layers.layers, inputs))
    }
}

struct Builder {
    layers: Vec<Box<dyn Layer>>,
    width: usize,
}

impl Builder {
    fn dense(&mut self, name: &str, outputs: usize, activation: Activation, start: Start) {
        let dense = Dense { name: name.to_owned(), inputs: self.width, outputs, activation, start };
        self.width = outputs;
        self.layers.push(Box::new(dense));
    }

    fn mlp(&mut self, mlp: &Mlp, outputs: usize) {
        for (index, hidden) in mlp.hidden.iter().enumerate() {
            let start = start(mlp.activation, self.width, hidden.get());
            self.dense(&format!("dense{}", index + 1), hidden.get(), mlp.activation, start);
            self.dropout(&format!("dropout{}", index + 1), mlp.dropout.get());
        }
        let start = start(Activation::Identity, self.width, outputs);
        self.dense(&format!("dense{}", mlp.hidden.len() + 1), outputs, Activation::Identity, start);
    }

    fn dropout(&mut self, name: &str, share: f64) {
        if share > 0.0 {
            self.layers.push(Box::new(Dropout { name: name.to_owned(), width: self.width, share }));
        }
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
        if channels > 1 {
            self.layers.push(Box::new(ChannelsLast { name: "channels_last".to_owned(), image }));
        }
        let size = cnn.pool.get();
        for (index, channels) in cnn.channels.iter().enumerate() {
            image = self.conv(index + 1, cnn, image, channels.get())?;
            if size > 1 {
                let pool = MaxPool { name: format!("pool{}", index + 1), input: image, size };
                if size > image.height.min(image.width) || size > 16 {
                    return Err(misfit(&pool.name, "pool", size, image));
                }
                image = pool.output();
                self.layers.push(Box::new(pool));
            }
        }
        self.width = image.values();
        self.dropout("dropout0", cnn.dropout.get());
        let hidden = Mlp { hidden: cnn.hidden.clone(), activation: cnn.activation, dropout: cnn.dropout };
        self.mlp(&hidden, outputs);
        Ok(())
    }

    fn conv(&mut self, number: usize, cnn: &Cnn, input: Image, channels: usize) -> Result<Image> {
        let (name, kernel) = (format!("conv{number}"), cnn.kernel.get());
        if kernel > input.height.min(input.width) {
            return Err(misfit(&name, "kernel", kernel, input));
        }
        let (padding, lost) = match cnn.padding {
            Padding::Same => ((kernel - 1) / 2, 0),
            Padding::Valid => (0, kernel - 1),
        };
        let output = Image { height: input.height - lost, width: input.width - lost, channels };
        let patch = kernel * kernel * input.channels;
        let start = start(cnn.activation, patch, kernel * kernel * channels);
        self.layers.push(Box::new(Conv { name, input, output, kernel, padding, activation: cnn.activation, start }));
        Ok(output)
    }
}

fn misfit(layer: &str, field: &str, size: usize, image: Image) -> Error {
    Error::usage(format!(
        "layer {layer}: `model.cnn.{field}` is {size}, but only {} x {} pixels come in",
        image.height, image.width
    ))
    .help("use fewer `channels`, a smaller `kernel` or `pool`, or padding = \"same\"")
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
