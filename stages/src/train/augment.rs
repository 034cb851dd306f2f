//! Images that are changed a little, at each sight another way.

use super::models::ModelSpec;
use rand::{Rng, RngExt};
use ropeway_framework::stage::Seed;
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How the images of the training part are changed at every step: by chance that comes from the seed, the step and
/// the row's place in it alone, so that the result does not depend on threads or workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// The most pixels by which an image is shifted each way; what comes in is 0.
    #[serde(default)]
    pub shift: usize,
    /// Whether an image is mirrored, left to right, every second time.
    #[serde(default)]
    pub flip: bool,
}

/// Changes images of one size that lie channel by channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Augmenter {
    rule: Augment,
    height: usize,
    width: usize,
}

impl Augmenter {
    /// # Errors
    /// A model whose rows are no images, or a shift that leaves nothing of them.
    pub(super) fn new(rule: Augment, model: &ModelSpec) -> Result<Self> {
        let ModelSpec::Cnn(cnn) = model else {
            return Err(Error::usage(format!(
                "`augment` is for images, which the model `{}` does not know",
                model.name()
            ))
            .help("use a `cnn`, whose `input` says how large they are"));
        };
        let [_, height, width] = cnn.input.map(usize::from);
        if rule.shift >= height.min(width) {
            let shift = rule.shift;
            return Err(Error::usage(format!("`augment.shift` is {shift}, but images have {height} x {width} pixels")));
        }
        Ok(Self { rule, height, width })
    }

    /// Changes the images that have these places in a step.
    pub(super) fn apply(&self, places: Range<usize>, images: &mut [f32], chance: &Seed) {
        let size = images.len() / places.len().max(1);
        let mut before = vec![0.0; self.height * self.width];
        for (place, image) in places.zip(images.chunks_exact_mut(size.max(1))) {
            // Not the row's number: of one that a step takes twice each copy is changed its own way.
            let mut rng = chance.rng(&format!("augment/{place}"));
            let flip = self.rule.flip && rng.random::<bool>();
            let (down, right) = (self.offset(&mut rng), self.offset(&mut rng));
            for channel in image.chunks_exact_mut(before.len()) {
                before.copy_from_slice(channel);
                self.channel(&before, channel, flip, (down, right));
            }
        }
    }

    fn offset(&self, rng: &mut impl Rng) -> isize {
        // Smaller than an image, whose pixels are in memory.
        let most = self.rule.shift as i64;
        if most == 0 { 0 } else { rng.random_range(-most..=most) as isize }
    }

    fn channel(&self, from: &[f32], to: &mut [f32], flip: bool, (down, right): (isize, isize)) {
        for (y, line) in to.chunks_exact_mut(self.width).enumerate() {
            let source = y.checked_add_signed(-down).filter(|y| *y < self.height);
            for (x, value) in line.iter_mut().enumerate() {
                let x = x.checked_add_signed(-right).filter(|x| *x < self.width);
                let x = x.map(|x| if flip { self.width - 1 - x } else { x });
                *value = source.zip(x).map_or(0.0, |(y, x)| from[y * self.width + x]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn augmenter(shift: usize, flip: bool) -> Augmenter {
        Augmenter { rule: Augment { shift, flip }, height: 2, width: 3 }
    }

    #[test]
    fn images_are_shifted_and_mirrored() {
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let changed = |flip: bool, offset: (isize, isize)| {
            let mut to = [9.0; 6];
            augmenter(1, true).channel(&image, &mut to, flip, offset);
            to
        };
        assert_eq!(changed(false, (0, 0)), image);
        assert_eq!(changed(true, (0, 0)), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        assert_eq!(changed(false, (1, 0)), [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(changed(false, (-1, 1)), [0.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
        assert_eq!(changed(true, (0, -1)), [2.0, 1.0, 0.0, 5.0, 4.0, 0.0]);
    }

    #[test]
    fn a_row_is_changed_the_same_way_in_any_company_and_its_copies_in_other_ways() {
        let image: Vec<f32> = (1..13).map(|value| value as f32).collect();
        let images = image.repeat(5);
        let (augmenter, chance) = (augmenter(1, true), Seed::new(7, "fit"));
        let mut whole = images.clone();
        augmenter.apply(0..5, &mut whole, &chance.child("step-3"));
        let mut part = images[24..48].to_vec();
        augmenter.apply(2..4, &mut part, &chance.child("step-3"));
        assert_eq!(part, whole[24..48]);
        let mut later = images.clone();
        augmenter.apply(0..5, &mut later, &chance.child("step-4"));
        assert!(later != whole && whole != images);
        let copies: std::collections::BTreeSet<String> = whole.chunks(12).map(|copy| format!("{copy:?}")).collect();
        assert!(copies.len() > 2, "{copies:?}");
    }

    #[test]
    fn what_cannot_be_augmented_is_named() {
        let error = |rule: serde_json::Value, model: serde_json::Value| {
            Augmenter::new(from_value(rule).unwrap(), &from_value(model).unwrap()).unwrap_err().to_string()
        };
        assert!(error(json!({"flip": true}), json!({"mlp": {}})).contains("which the model `mlp` does not know"));
        let cnn = json!({"cnn": {"input": [1, 8, 6]}});
        assert_eq!(error(json!({"shift": 6}), cnn), "`augment.shift` is 6, but images have 8 x 6 pixels");
    }
}
