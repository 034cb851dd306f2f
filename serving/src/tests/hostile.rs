//! Bytes that nobody should send: they may be refused, and nothing else.

use super::*;
use crate::infer::{decode, encode};
use crate::{Datatype, binary, json};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

fn endpoint() -> Endpoint {
    Endpoint::new("m", "1", [echo(every_datatype().schema().clone())]).unwrap()
}

/// A valid request for every datatype, half of it binary.
fn valid() -> (Vec<u8>, usize) {
    let endpoint = endpoint();
    let batch = every_datatype().to_batch().unwrap();
    let mut tail = Vec::new();
    let tensors: Vec<_> =
        endpoint.input_columns().iter().zip(batch.columns()).map(|(of, column)| of.write(column).unwrap()).collect();
    let columns = endpoint.input_columns().iter().zip(&tensors).enumerate();
    let inputs = columns
        .map(|(at, (column, tensor))| crate::message::pack(column.name(), tensor, at % 2 == 0, &mut tail))
        .collect();
    let request = crate::protocol::InferRequest { id: None, parameters: None, inputs, outputs: None };
    let (body, header) = crate::message::seal(&request, &tail, true).unwrap();
    (body, header.unwrap())
}

fn run(endpoint: &Endpoint, body: &[u8], header: Option<usize>) {
    if let Ok((asked, rows)) = decode(endpoint, body, header) {
        let _ = encode(endpoint, asked, &endpoint.apply(&rows).unwrap());
    }
}

#[test]
fn the_valid_request_is_valid() {
    let (body, header) = valid();
    let (_, rows) = decode(&endpoint(), &body, Some(header)).unwrap();
    assert_same(&rows, &every_datatype());
}

const DATATYPES: [Datatype; 14] = [
    Datatype::Bool,
    Datatype::Uint8,
    Datatype::Uint16,
    Datatype::Uint32,
    Datatype::Uint64,
    Datatype::Int8,
    Datatype::Int16,
    Datatype::Int32,
    Datatype::Int64,
    Datatype::Fp16,
    Datatype::Fp32,
    Datatype::Fp64,
    Datatype::Bf16,
    Datatype::Bytes,
];

proptest! {
    #[test]
    fn any_bytes_are_survived(body: Vec<u8>, header in proptest::option::of(0..300_usize)) {
        run(&endpoint(), &body, header);
    }

    #[test]
    fn mutated_requests_are_survived(
        edits in proptest::collection::vec((any::<Index>(), 0..4_u8, any::<u8>(), 0..20_usize), 1..6),
        moved in -3..3_isize,
    ) {
        let (mut body, header) = valid();
        for (at, edit, byte, length) in edits {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            match edit {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.drain(at..(at + length).min(body.len()))),
                // Bytes that mean something in JSON hit more than random ones.
                _ => body[at] = b"[]{},:\"\\-.e09tn"[usize::from(byte) % 15],
            }
        }
        run(&endpoint(), &body, header.checked_add_signed(moved));
    }

    #[test]
    fn any_data_is_survived(
        text in r#"[\[\]{},:"\\\-+.eE0-9tfnull äNaI ]{0,60}"#,
        shape in proptest::collection::vec(0..4_usize, 0..4),
        datatype in proptest::sample::select(&DATATYPES[..]),
    ) {
        let _ = json::read(&text, datatype, &shape);
        let _ = json::read(&format!("[{text}]"), datatype, &shape);
    }

    #[test]
    fn any_binary_data_is_survived(
        bytes: Vec<u8>,
        shape in proptest::collection::vec(prop_oneof![0..5_usize, any::<usize>()], 0..4),
        datatype in proptest::sample::select(&DATATYPES[..]),
    ) {
        let _ = binary::read(&bytes, datatype, &shape);
    }

    #[test]
    fn floats_keep_their_bits_in_json(singles: Vec<u32>, doubles: Vec<u64>, halves: Vec<u16>) {
        let keep = |datatype: Datatype, values: ArrayRef| {
            let text = serde_json::to_string(&json::Elements { datatype, values: &values }).unwrap();
            assert_eq!(&json::read(&text, datatype, &[values.len()]).unwrap(), &values);
        };
        let singles = singles.into_iter().map(f32::from_bits).filter(|value| !value.is_nan());
        keep(Datatype::Fp32, Arc::new(Float32Array::from_iter_values(singles)));
        let doubles = doubles.into_iter().map(f64::from_bits).filter(|value| !value.is_nan());
        keep(Datatype::Fp64, Arc::new(Float64Array::from_iter_values(doubles)));
        let halves = halves.into_iter().map(f16::from_bits).filter(|value| !value.is_nan());
        keep(Datatype::Fp16, Arc::new(Float16Array::from_iter_values(halves)));
    }

    #[test]
    fn integers_and_text_keep_their_values_in_both_forms(
        small: Vec<i8>, large: Vec<i64>, unsigned: Vec<u64>, flags: Vec<bool>, text: Vec<String>,
    ) {
        let keep = |datatype: Datatype, values: ArrayRef| {
            let shape = [values.len()];
            let text = serde_json::to_string(&json::Elements { datatype, values: &values }).unwrap();
            assert_eq!(&json::read(&text, datatype, &shape).unwrap(), &values);
            let mut bytes = Vec::new();
            binary::write(&values, datatype, &mut bytes);
            assert_eq!(&binary::read(&bytes, datatype, &shape).unwrap(), &values);
        };
        keep(Datatype::Int8, Arc::new(Int8Array::from(small)));
        keep(Datatype::Int64, Arc::new(Int64Array::from(large)));
        keep(Datatype::Uint64, Arc::new(UInt64Array::from(unsigned)));
        keep(Datatype::Bool, Arc::new(BooleanArray::from(flags)));
        keep(Datatype::Bytes, Arc::new(BinaryArray::from_iter_values(text.iter().map(String::as_bytes))));
    }
}

#[test]
fn deep_and_wide_requests_are_survived() {
    let endpoint = endpoint();
    let deep = "[".repeat(100_000);
    run(&endpoint, deep.as_bytes(), None);
    let nested = format!("{deep}{}", "]".repeat(100_000));
    let tensor = format!(r#"{{"inputs": [{{"name": "int8", "shape": [1], "datatype": "INT8", "data": {nested}}}]}}"#);
    assert!(decode(&endpoint, tensor.as_bytes(), None).is_err());
    let parameters = json!({"inputs": [], "parameters": {"x": 1}}).to_string().replace('1', &nested);
    assert!(decode(&endpoint, parameters.as_bytes(), None).is_err());
    let absurd = json!({"inputs": [{"name": "int8", "shape": [1_u64 << 62], "datatype": "INT8", "data": [1]}]});
    assert!(decode(&endpoint, absurd.to_string().as_bytes(), None).is_err());
}
