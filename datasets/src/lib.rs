//! Small real data sets as source stages: they are in the program, so that a pipeline runs without any file.
//!
//! | stage | rows | columns | predicted |
//! |---|---|---|---|
//! | `dataset.digits` | 1797 | `pixel_0_0` to `pixel_7_7`, row and column of an image | `label`, 0 to 9 |
//! | `dataset.iris` | 150 | four lengths of a flower | `label`, the species |
//! | `dataset.wine` | 178 | thirteen measurements of a wine | `label`, the cultivar: 0, 1 or 2 |
//! | `dataset.breast_cancer` | 569 | thirty measurements of cell nuclei | `label`, `malignant` or `benign` |
//! | `dataset.diabetes` | 442 | ten measurements of a patient | `progression`, a number |
//!
//! They take no inputs and no parameters, and give a frame called `rows` without nulls, in the order of the source.
//! Where they come from and under which licence is in `data/README.md`; how to get larger ones is in `README.md`.
//!
//! ```
//! use ropeway_datasets::{digits, registry};
//!
//! assert_eq!(registry().stages().count(), 5);
//! assert_eq!((digits()?.rows(), digits()?.columns()), (1797, 65));
//! # Ok::<_, ropeway_framework::Error>(())
//! ```

#![warn(missing_docs)]

mod sets;
mod table;

pub use sets::{breast_cancer, diabetes, digits, iris, wine};

use ropeway_framework::stage::{Registry, stage};

/// The stages of this crate.
pub fn registry() -> Registry {
    Registry::new()
        .stage(
            "dataset.digits",
            stage(digits).outputs(["rows"]).version(1).about(
                "Handwritten digits: 1797 images of 8 by 8 pixels with values from 0 to 16. `label` is the digit.",
            ),
        )
        .stage(
            "dataset.iris",
            stage(iris)
                .outputs(["rows"])
                .version(1)
                .about("Fisher's irises: 150 flowers of three species, four lengths each. `label` is the species."),
        )
        .stage(
            "dataset.wine",
            stage(wine)
                .outputs(["rows"])
                .version(1)
                .about("Wines of one region: 178 chemical analyses. `label` is the cultivar: 0, 1 or 2."),
        )
        .stage(
            "dataset.breast_cancer",
            stage(breast_cancer)
                .outputs(["rows"])
                .version(1)
                .about("Breast tumours: 569 with 30 measurements each. `label` is `malignant` or `benign`."),
        )
        .stage(
            "dataset.diabetes",
            stage(diabetes).outputs(["rows"]).version(1).about(
                "Diabetes: 442 patients, ten measurements each. `progression` is the disease a year later, a number.",
            ),
        )
}
