//! Calls a server: asks what it serves, and sends it rows.
//!
//! ```console
//! $ ropeway run configs/digits.toml && ropeway serve configs/digits.toml &
//! $ cargo run --release --example client -- http://127.0.0.1:8080
//! ```

#![allow(clippy::print_stdout, reason = "a program says what it found")]

use ropeway::arrow::array::Int64Array;
use ropeway::arrow::compute::cast;
use ropeway::arrow::util::pretty::pretty_format_batches;
use ropeway::prelude::*;
use ropeway::serving::Client;

fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let client = Client::new(&url)?;
    for model in client.models()? {
        println!("{} {}", model.name, model.version);
        // Two rows of zeros, of the types that the model wants.
        let zeros = Int64Array::from(vec![0, 0]);
        let schema = client.input_schema(&model.name)?;
        let columns = schema.fields().iter().map(|field| Ok((field.name(), cast(&zeros, field.data_type())?)));
        let rows = Frame::from_columns(columns.collect::<Result<Vec<_>>>()?)?;
        let predictions = client.infer(&model.name, &rows)?;
        println!("{}", pretty_format_batches(predictions.batches())?);
    }
    Ok(())
}
