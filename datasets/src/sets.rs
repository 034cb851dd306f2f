//! The data sets: what their files look like and what their columns mean.

use crate::table::Table;
use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use ropeway_framework::data::Frame;
use ropeway_framework::{Context, Result};
use std::sync::Arc;

/// The column with what is to be predicted, where that is a class.
const LABEL: &str = "label";

/// Handwritten digits: 1797 images of 8 by 8 pixels (`pixel_ROW_COLUMN`, 0 to 16) and `label`, the digit.
///
/// # Errors
/// A damaged program.
pub fn digits() -> Result<Frame> {
    let file = include_bytes!("../data/digits.csv.gz");
    let pixels = (0..8).flat_map(|row| (0..8).map(move |column| format!("pixel_{row}_{column}")));
    let columns: Vec<_> = pixels.chain([LABEL.to_owned()]).map(|name| (name, DataType::Int64)).collect();
    Frame::from_columns(Table { file, delimiter: b',', skip: 0 }.read(&columns)?)
}

/// Fisher's irises: 150 flowers, four lengths in centimetres and `label`, the species.
///
/// # Errors
/// A damaged program.
pub fn iris() -> Result<Frame> {
    let measures = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
    classes(include_bytes!("../data/iris.csv.gz"), &measures, Some(&["setosa", "versicolor", "virginica"]))
}

/// Wines: 178 chemical analyses and `label`, the number of the cultivar.
///
/// # Errors
/// A damaged program.
pub fn wine() -> Result<Frame> {
    let measures = [
        "alcohol",
        "malic_acid",
        "ash",
        "alcalinity_of_ash",
        "magnesium",
        "total_phenols",
        "flavanoids",
        "nonflavanoid_phenols",
        "proanthocyanins",
        "color_intensity",
        "hue",
        "od280_od315",
        "proline",
    ];
    classes(include_bytes!("../data/wine_data.csv.gz"), &measures, None)
}

/// Breast tumours: 569, with the mean, the standard error and the worst value of ten measurements of cell nuclei
/// (`mean_radius`, `se_radius`, `worst_radius`), and `label`.
///
/// # Errors
/// A damaged program.
pub fn breast_cancer() -> Result<Frame> {
    const MEASURES: [&str; 10] = [
        "radius",
        "texture",
        "perimeter",
        "area",
        "smoothness",
        "compactness",
        "concavity",
        "concave_points",
        "symmetry",
        "fractal_dimension",
    ];
    let measures = ["mean", "se", "worst"].iter().flat_map(|of| MEASURES.map(|measure| format!("{of}_{measure}")));
    let measures: Vec<String> = measures.collect();
    classes(include_bytes!("../data/breast_cancer.csv.gz"), &measures, Some(&["malignant", "benign"]))
}

/// Diabetes: 442 patients, ten measurements each as they were taken (not scaled) and `progression`, how far the
/// disease was a year later. `sex` is 1 or 2; the source does not say which is which.
///
/// # Errors
/// A damaged program.
pub fn diabetes() -> Result<Frame> {
    let integers = ["age", "sex"].map(|name| (name.to_owned(), DataType::Int64));
    let floats = [
        "bmi",
        "blood_pressure",
        "total_cholesterol",
        "ldl",
        "hdl",
        "cholesterol_ratio",
        "log_triglycerides",
        "glucose",
    ]
    .map(|name| (name.to_owned(), DataType::Float64));
    let columns: Vec<_> = integers.into_iter().chain(floats).collect();
    let rows = Table { file: include_bytes!("../data/diabetes_data_raw.csv.gz"), delimiter: b' ', skip: 0 };
    let target = Table { file: include_bytes!("../data/diabetes_target.csv.gz"), delimiter: b' ', skip: 0 };
    let mut columns = rows.read(&columns)?;
    columns.extend(target.read(&[("progression".to_owned(), DataType::Float64)])?);
    Frame::from_columns(columns)
}

/// Measurements and the number of a class, under a line that counts them; the numbers become `names`.
fn classes<S: AsRef<str>>(file: &'static [u8], measures: &[S], names: Option<&[&str]>) -> Result<Frame> {
    let floats = measures.iter().map(|name| (name.as_ref().to_owned(), DataType::Float64));
    let columns: Vec<_> = floats.chain([(LABEL.to_owned(), DataType::Int64)]).collect();
    let mut columns = Table { file, delimiter: b',', skip: 1 }.read(&columns)?;
    if let (Some(names), Some((_, label))) = (names, columns.last_mut()) {
        let name = |number: &i64| usize::try_from(*number).ok().and_then(|number| names.get(number));
        let labels = label.as_primitive::<Int64Type>().values().iter().map(name);
        let labels = labels.collect::<Option<Vec<_>>>().context("a bundled file has an unknown class")?;
        *label = Arc::new(StringArray::from_iter_values(labels)) as ArrayRef;
    }
    Frame::from_columns(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::compute::{cast, sum};
    use arrow::datatypes::Float64Type;

    /// Sums of the numeric columns.
    fn sums(frame: &Frame) -> Vec<f64> {
        let batch = frame.to_batch().unwrap();
        let numeric = batch.columns().iter().filter(|column| column.data_type().is_numeric());
        numeric
            .map(|column| sum(cast(column, &DataType::Float64).unwrap().as_primitive::<Float64Type>()).unwrap())
            .collect()
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-8 * expected.abs(), "{found} is not {expected}");
        }
    }

    fn count(frame: &Frame, label: &str) -> usize {
        let column = frame.column(LABEL).unwrap();
        let text = cast(&column, &DataType::Utf8).unwrap();
        text.as_string::<i32>().iter().filter(|value| *value == Some(label)).count()
    }

    #[test]
    fn digits_are_complete() {
        let frame = digits().unwrap();
        assert_eq!((frame.rows(), frame.columns()), (1797, 65));
        let sums = sums(&frame);
        close(&sums[..8], &[0.0, 546.0, 9353.0, 21269.0, 21291.0, 10390.0, 2448.0, 233.0]);
        close(&sums[60..], &[21221.0, 12155.0, 3716.0, 655.0, 8070.0]);
        assert_eq!(sums[..64].iter().sum::<f64>(), 561_718.0);
        let counts: Vec<usize> = (0..10).map(|digit| count(&frame, &digit.to_string())).collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!(frame.schema().field(9).name(), "pixel_1_1");
    }

    #[test]
    fn iris_is_complete() {
        let frame = iris().unwrap();
        close(&sums(&frame), &[876.5, 458.6, 563.7, 179.9]);
        assert_eq!(["setosa", "versicolor", "virginica"].map(|name| count(&frame, name)), [50, 50, 50]);
    }

    #[test]
    fn wine_is_complete() {
        let frame = wine().unwrap();
        let expected = [
            2314.11, 415.87, 421.24, 3470.1, 17754.0, 408.53, 361.21, 64.41, 283.18, 900.339999, 170.426, 464.88,
            132_947.0, 167.0,
        ];
        close(&sums(&frame), &expected);
        assert_eq!(["0", "1", "2"].map(|name| count(&frame, name)), [59, 71, 48]);
    }

    #[test]
    fn breast_cancer_is_complete() {
        let frame = breast_cancer().unwrap();
        assert_eq!((frame.rows(), frame.columns()), (569, 31));
        let sums = sums(&frame);
        close(&sums[..4], &[8038.429, 10975.81, 52330.38, 372_631.9]);
        close(&sums[20..24], &[9257.169, 14610.34, 61031.63, 501_051.8]);
        assert_eq!(["malignant", "benign"].map(|name| count(&frame, name)), [212, 357]);
        assert_eq!(frame.schema().field(27).name(), "worst_concave_points");
    }

    #[test]
    fn diabetes_is_complete() {
        let frame = diabetes().unwrap();
        assert_eq!((frame.rows(), frame.columns()), (442, 11));
        let expected =
            [21445.0, 649.0, 11658.1, 41833.98, 83600.0, 51024.1, 22006.5, 1799.05, 2051.5036, 40337.0, 67243.0];
        close(&sums(&frame), &expected);
    }

    #[test]
    fn every_stage_gives_rows_without_nulls() {
        for frame in [digits, iris, wine, breast_cancer, diabetes].map(|read| read().unwrap()) {
            assert!(frame.schema().fields().iter().all(|field| !field.is_nullable()));
        }
        for (name, stage) in crate::registry().stages() {
            let signature = stage.signature();
            assert_eq!((signature.version, signature.outputs[0].name.as_str()), (1, "rows"), "{name}");
            assert!(signature.inputs.is_empty() && signature.params.is_none() && !signature.about.is_empty());
        }
    }
}
