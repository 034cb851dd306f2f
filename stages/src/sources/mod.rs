//! Stages that read files into frames, and one that reads tensors.
//!
//! | stage | reads |
//! |---|---|
//! | `read.csv` | comma (or otherwise) separated text, in parallel, types inferred |
//! | `read.json` | JSON lines: one object a line |
//! | `read.parquet` | Parquet, only the columns that are asked for |
//! | `read.arrow` | Arrow IPC files (Feather version 2) and streams |
//! | `read.idx` | the images and labels of MNIST and its kin |
//! | `read.safetensors` | named tensors |
//!
//! All of them take local paths, globs and object-store URLs ([`Paths`]), and unpack gzip by content where the format
//! has no compression of its own. The key of a result has the content of the files in it, so a changed file is read
//! again and an unchanged one is not. Text comes as `Utf8` and bytes as `Binary`, whatever layout the file uses.

mod arrow;
mod csv;
mod files;
mod groups;
mod idx;
mod ipc;
mod json;
mod parallel;
mod parquet;
mod remote;
mod rows;
mod safetensors;
mod sniff;
mod table;
mod types;

pub use self::arrow::ArrowParams;
pub(crate) use self::arrow::read_path;
pub use self::csv::CsvParams;
pub use self::files::Paths;
pub use self::idx::IdxParams;
pub(crate) use self::ipc::{Fault as StreamFault, read_stream};
pub use self::json::JsonParams;
pub use self::parquet::ParquetParams;
pub use self::safetensors::SafetensorsParams;
pub use self::types::ColumnType;

use ropeway_framework::stage::Registry;

/// The stages of this module.
pub fn registry() -> Registry {
    Registry::new()
        .stage("read.csv", csv::stage())
        .stage("read.json", json::stage())
        .stage("read.parquet", parquet::stage())
        .stage("read.arrow", arrow::stage())
        .stage("read.idx", idx::stage())
        .stage("read.safetensors", safetensors::stage())
}
