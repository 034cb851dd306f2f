//! What a request may say, and what every mistake is answered with.

use super::*;
use serde_json::json;

const PATH: &str = "/v2/models/m/infer";

/// `a`: FP32, `b`: UINT8, `image`: UINT8 [-1, 2, 2] in, and the same out.
fn columns() -> SchemaRef {
    let side = |of: DataType| DataType::FixedSizeList(Arc::new(Field::new("item", of, false)), 2);
    schema([("a", DataType::Float32), ("b", DataType::UInt8), ("image", side(side(DataType::UInt8)))])
}

fn valid() -> Value {
    json!({
        "id": "42",
        "parameters": {"sequence_id": 7},
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "FP32", "data": [0.1, -2]},
            {"name": "b", "shape": [2, 1], "datatype": "UINT8", "data": [[1], [255]]},
            {"name": "image", "shape": [2, 1, 4], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6, 7, 8]},
        ],
    })
}

/// A valid request with the value at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut request = valid();
    *request.pointer_mut(pointer).unwrap() = value;
    request.to_string().into_bytes()
}

#[test]
fn a_request_is_answered_in_the_protocols_form() {
    let server = start_one("m", echo(columns()));
    let answer = post(&server.url(PATH), valid().to_string().as_bytes(), None);
    assert_eq!(answer.headers["content-type"], "application/json");
    let expected = json!({
        "model_name": "m", "model_version": "1", "id": "42",
        "outputs": [
            {"name": "a", "shape": [2], "datatype": "FP32", "data": [0.1, -2.0]},
            {"name": "b", "shape": [2], "datatype": "UINT8", "data": [1, 255]},
            {"name": "image", "shape": [2, 2, 2], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6, 7, 8]},
        ],
    });
    assert_eq!(answer.json(), expected);
}

#[test]
fn only_the_outputs_asked_for_come_in_the_form_asked_for() {
    let server = start_one("m", echo(columns()));
    let mut request = valid();
    request["outputs"] = json!([{"name": "b", "parameters": {"binary_data": false}}, {"name": "a"}]);
    request["parameters"] = json!({"binary_data_output": true});
    let answer = post(&server.url(PATH), request.to_string().as_bytes(), None);
    let length: usize = answer.headers[crate::binary::HEADER].to_str().unwrap().parse().unwrap();
    let (head, tail) = answer.body.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"][0]["data"], json!([1, 255]));
    assert_eq!(head["outputs"][1]["parameters"], json!({"binary_data_size": 8}));
    assert_eq!(tail, [0.1_f32.to_le_bytes(), (-2.0_f32).to_le_bytes()].concat());
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
}

#[test]
fn json_and_binary_inputs_mix() {
    let server = start_one("m", echo(columns()));
    let mut request = valid();
    request["inputs"][0] =
        json!({"name": "a", "shape": [2], "datatype": "BF16", "parameters": {"binary_data_size": 4}});
    request["inputs"][2] =
        json!({"name": "image", "shape": [2, 4], "datatype": "INT16", "parameters": {"binary_data_size": 16}});
    let head = request.to_string();
    let mut body = head.clone().into_bytes();
    body.extend([0x80, 0x3f, 0x00, 0xc0]);
    body.extend((1..=8_i16).flat_map(i16::to_le_bytes));
    let answer = post(&server.url(PATH), &body, Some(&head.len().to_string()));
    assert_eq!(answer.json()["outputs"][0]["data"], json!([1.0, -2.0]));
    assert_eq!(answer.json()["outputs"][2]["data"], json!([1, 2, 3, 4, 5, 6, 7, 8]));
}

#[test]
fn raw_bytes_are_the_only_input() {
    let server = start_one("m", linear());
    let answer = post(&server.url(PATH), &[1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat(), Some("0"));
    let length: usize = answer.headers[crate::binary::HEADER].to_str().unwrap().parse().unwrap();
    assert_eq!(&answer.body[length..], [4.0_f32.to_le_bytes(), 7.0_f32.to_le_bytes()].concat());
    let short = post(&server.url(PATH), &[1, 2, 3], Some("0"));
    assert_eq!(short.error(), "3 bytes do not fill the shape [0] with FP32 of 4 bytes");

    let server = start_one("m", echo(schema([("text", DataType::Utf8)])));
    let answer = post(&server.url(PATH), b"hello", Some("0"));
    assert!(answer.body.ends_with(b"\x05\0\0\0hello"));
    let server = start_one("m", echo(columns()));
    assert!(post(&server.url(PATH), b"hello", Some("0")).error().contains("for models with one input"));
}

#[test]
fn numbers_that_convert_exactly_are_welcome() {
    let server = start_one("m", echo(columns()));
    for (pointer, kind, data) in [
        ("/inputs/0", "INT64", json!([1, -2])),
        ("/inputs/0", "FP64", json!([0.5, "NaN"])),
        ("/inputs/0", "FP16", json!([0.5, 1e2])),
        ("/inputs/0", "FP32", json!(["Infinity", "-Infinity"])),
        ("/inputs/1", "FP64", json!([1.0, 255.0])),
        ("/inputs/1", "UINT8", json!([1.0, 2e2])),
    ] {
        let mut request = valid();
        let tensor = request.pointer_mut(pointer).unwrap();
        *tensor = json!({"name": tensor["name"], "shape": [2], "datatype": kind, "data": data});
        let answer = post(&server.url(PATH), request.to_string().as_bytes(), None);
        assert_eq!(answer.status, 200, "{kind} {data}: {}", answer.json());
    }
}

#[test]
fn every_mistake_is_named() {
    let server = start_one("m", echo(columns()));
    let nested = json!([[1, 2], [3]]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "the request has no body"),
        (b"{\n  \"inputs\": [}".to_vec(), "the request is no inference request: expected value at line 2 column 14"),
        (b"{}".to_vec(), "missing field `inputs` at line 1 column 2"),
        (b"\xff".to_vec(), "byte 0 is no UTF-8"),
        (b"[1]".to_vec(), "the request is no inference request: "),
        (br#"{"inputs": []}"#.to_vec(), "the inputs \"a\", \"b\", \"image\" are missing"),
        (with("/inputs/0/name", json!("image")), "tensor \"image\": expected the shape [-1, 2, 2], found [2]"),
        (with("/inputs/2/name", json!("imag")), "the model has no input \"imag\"; did you mean \"image\"?"),
        (
            with("/inputs/2/name", json!("xyz")),
            "the model has no input \"xyz\"; its inputs are \"a\", \"b\", \"image\"",
        ),
        (with("/inputs/0", valid()["inputs"][1].clone()), "tensor \"b\" is given twice"),
        (
            with("/inputs", json!([valid()["inputs"][0], valid()["inputs"][1]])),
            "the input \"image\" is missing; the model takes \"a\", \"b\", \"image\"",
        ),
        (with("/inputs/0/datatype", json!("FLOAT")), "tensor \"a\": \"FLOAT\" is no datatype"),
        (with("/inputs/0/datatype", json!("fp32")), "did you mean \"FP32\"?"),
        (with("/inputs/0/datatype", json!("BOOL")), "tensor \"a\": at [0]: 0.1 is no BOOL (true or false)"),
        (with("/inputs/0/datatype", json!("BF16")), "tensor \"a\": BF16 comes as binary data only"),
        (with("/inputs/0/datatype", json!("FP64")), "expected FP32, found FP64, and 0.1 is not exactly FP32"),
        (with("/inputs/0/datatype", json!("BYTES")), "tensor \"a\": at [0]: 0.1 is no BYTES (a string)"),
        (with("/inputs/0/data", json!(["x", 1])), "tensor \"a\": at [0]: \"x\" is no FP32"),
        (with("/inputs/0/data", json!([0.5, null])), "tensor \"a\": at [1]: null, and the protocol has no nulls"),
        (with("/inputs/0/data", json!([0.5, 1e39])), "tensor \"a\": at [1]: 1e+39 is out of the range of FP32"),
        (with("/inputs/1/data", json!([1, 300])), "tensor \"b\": at [1, 0]: 300 is out of the range of UINT8"),
        (with("/inputs/1/data", json!([-1, 3])), "tensor \"b\": at [0, 0]: -1 is out of the range of UINT8"),
        (with("/inputs/1/data", json!([1.5, 3])), "tensor \"b\": at [0, 0]: 1.5 is no UINT8"),
        (with("/inputs/1/data", json!([true, 3])), "tensor \"b\": at [0, 0]: true is no UINT8"),
        (with("/inputs/0/data", json!([1, 2, 3])), "tensor \"a\": 3 elements do not fill the shape [2]"),
        (with("/inputs/0/data", json!([1])), "tensor \"a\": 1 elements do not fill the shape [2]"),
        (with("/inputs/0/data", json!(1)), "tensor \"a\": the data is 1, not an array"),
        (with("/inputs/0/data", json!({"x": 1})), "tensor \"a\": the data holds an object"),
        (with("/inputs/0/data", json!(null)), "tensor \"a\": it has no data"),
        (with("/inputs/0/data", nested), "tensor \"a\": near [3]: an array of 1 stands beside one of 2"),
        (with("/inputs/0/data", json!([1, [2]])), "an array stands where elements were expected"),
        (with("/inputs/0/data", json!([[1], 2])), "an element stands where an array was expected"),
        (
            with("/inputs/1/data", json!([[1, 2]])),
            "tensor \"b\": the data is nested as [1, 2], and the shape is [2, 1]",
        ),
        (with("/inputs/0/shape", json!([3])), "tensor \"a\": 2 elements do not fill the shape [3]"),
        (with("/inputs/0/shape", json!([])), "tensor \"a\": 2 elements do not fill the shape []"),
        (with("/inputs/0/shape", json!([-2])), "tensor \"a\": the shape [-2] has a negative side"),
        (
            with("/inputs/0/shape", json!([i64::MAX, 4])),
            "tensor \"a\": the shape [9223372036854775807, 4] has too many",
        ),
        (with("/inputs/0/shape", json!([1, 2])), "tensor \"a\": expected the shape [-1], found [1, 2]"),
        (with("/inputs/0/shape", json!("x")), "invalid type: string \"x\""),
        (with("/inputs/2/shape", json!([4, 2])), "tensor \"image\": expected the shape [-1, 2, 2], found [4, 2]"),
        (
            with("/inputs/0", json!({"name": "a", "shape": [1], "datatype": "FP32", "data": [1]})),
            "the inputs differ in rows: \"a\" has 1, \"b\" has 2",
        ),
        (with("/id", json!(42)), "invalid type: integer `42`, expected a string"),
        (with("/parameters", json!({"binary_data_output": 1})), "\"binary_data_output\" is 1, not true or false"),
    ];
    for (body, expected) in cases {
        let answer = post(&server.url(PATH), &body, None);
        let shown = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(answer.status, 400, "{shown}");
        assert!(answer.error().contains(expected), "{shown}\n expected {expected}\n found    {}", answer.error());
    }
    assert_eq!(post(&server.url(PATH), valid().to_string().as_bytes(), None).status, 200);
}

#[test]
fn wrong_outputs_are_named() {
    let server = start_one("m", echo(columns()));
    for (outputs, expected) in [
        (json!([{"name": "imagee"}]), "the model has no output \"imagee\"; did you mean \"image\"?"),
        (json!([{"name": "a"}, {"name": "a"}]), "output \"a\" is asked for twice"),
        (json!([{"name": "a", "parameters": {"binary_data": 1}}]), "output \"a\": the parameter \"binary_data\" is 1"),
        (json!([{"name": "a", "parameters": {"classification": 3}}]), "\"classification\" is not supported"),
    ] {
        let mut request = valid();
        request["outputs"] = outputs;
        let answer = post(&server.url(PATH), request.to_string().as_bytes(), None);
        assert!(answer.status == 400 && answer.error().contains(expected), "{}", answer.error());
    }
}

#[test]
fn wrong_binary_data_is_named() {
    let server = start_one("m", echo(schema([("t", DataType::Utf8)])));
    let head = |size: Value| {
        let tensor = json!({"name": "t", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": size}});
        json!({"inputs": [tensor]}).to_string()
    };
    let two = b"\x01\0\0\0a\x02\0\0\0bc";
    let send = |size: Value, tail: &[u8], length: Option<&str>| {
        let head = head(size);
        let length = length.map(str::to_owned).unwrap_or(head.len().to_string());
        post(&server.url(PATH), &[head.as_bytes(), tail].concat(), Some(&length))
    };
    assert_eq!(send(json!(11), two, None).json()["outputs"][0]["data"], json!(["a", "bc"]));
    for (size, tail, length, expected) in [
        (json!(11), &two[..], Some("100000"), "Inference-Header-Content-Length is 100000, and the body has"),
        (json!(11), &two[..], Some("x"), "the header Inference-Header-Content-Length is \"x\", no number"),
        (json!(11), &two[..], Some("-1"), "no number of bytes"),
        (json!(11), &two[..], Some("10"), "the request is no inference request"),
        (json!(12), &two[..], None, "binary_data_size is 12, and 11 bytes are left in the body"),
        (json!(10), &two[..], None, "tensor \"t\": at [1]: the element is longer than the 5 bytes left"),
        (json!(11), &b"\x01\0\0\0a\x02\0\0\0bcd"[..], None, "1 bytes at the end of the body belong to no tensor"),
        (json!(-1), &two[..], None, "binary_data_size is -1, no number of bytes"),
        (json!("11"), &two[..], None, "binary_data_size is \"11\", no number of bytes"),
        (json!(11), &b"\x01\0\0\0a\xff\xff\xff\xffbc"[..], None, "at [1]: the element is longer than the 6 bytes left"),
        (json!(11), &b"\x01\0\0\0a\x02\0\0\0\xff\xff"[..], None, "tensor \"t\": at [1]: the bytes are no UTF-8 text"),
        (json!(4), &b"\0\0\0\0"[..], None, "4 bytes hold fewer than the 2 BYTES of [2]"),
    ] {
        let answer = send(size, tail, length);
        assert!(answer.status == 400 && answer.error().contains(expected), "{expected}: {}", answer.error());
    }
    let without = post(&server.url(PATH), head(json!(11)).as_bytes(), None);
    assert!(without.error().contains("the header Inference-Header-Content-Length is missing"));
    let both = json!({"inputs": [{
        "name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": {"binary_data_size": 1}
    }]});
    assert!(
        post(&server.url(PATH), both.to_string().as_bytes(), None).error().contains("both data and binary_data_size")
    );
}

#[test]
fn wrong_dates_are_named() {
    let server = start_one("m", echo(schema([("day", DataType::Date32)])));
    let request =
        json!({"inputs": [{"name": "day", "shape": [2], "datatype": "BYTES", "data": ["2013-01-31", "31.1."]}]});
    let error = post(&server.url(PATH), request.to_string().as_bytes(), None).error();
    assert!(error.starts_with("tensor \"day\": at [1]: \"31.1.\" can't be read as the column's type, Date32; dates"));
}

#[test]
fn wrong_places_and_methods_are_named() {
    let server = start_one("digits", linear());
    let answer = get(&server.url("/v2/models/digts"));
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (404, "there is no model \"digts\"; did you mean \"digits\"?")
    );
    let answer = get(&server.url("/v2/models/x"));
    assert_eq!(answer.error(), "there is no model \"x\"; the models are \"digits\"");
    let answer = get(&server.url("/v2/models/digits/versions/7/ready"));
    let expected = "model \"digits\" has no version \"7\"; its versions are \"1\"";
    assert_eq!((answer.status, answer.error().as_str()), (404, expected));
    let answer = get(&server.url("/v1/models/digits"));
    assert!(answer.status == 404 && answer.error().starts_with("there is no \"/v1/models/digits\" here"));
    let answer = get(&server.url("/v2/models/digits/infer"));
    assert_eq!((answer.status, answer.headers["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(answer.error(), "\"/v2/models/digits/infer\" does not answer GET; use POST");
    let answer = post(&server.url("/v2"), b"", None);
    assert_eq!((answer.status, answer.error().as_str()), (405, "\"/v2\" does not answer POST; use GET"));
    assert_eq!(get(&server.url("/v2/models/%ff")).status, 400);
    assert!(!get(&server.url("/v2/models/%ff")).error().is_empty());
}

#[test]
fn what_is_too_large_is_refused_with_the_limit() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let server = start(vec![Endpoint::new("m", "1", [linear()]).unwrap()], limits);
    let url = server.url(PATH);
    for size in [1001, 50_000, 20_000_000] {
        let answer = post(&url, &vec![b' '; size], None);
        assert_eq!(answer.status, 413);
        assert_eq!(answer.error(), "the request is larger than 1000 bytes; send fewer rows at once");
    }
    assert_eq!(post(&url, &[b' '; 1000], None).status, 400);
    let compressed = answer(agent().post(&url).header("content-encoding", "gzip").send(&b"x"[..]));
    assert_eq!(compressed.status, 415);
}

/// Sends bytes as they are and reads until the server closes.
fn raw(server: &Running, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn bodies_that_do_not_come_are_not_waited_for() {
    let limits = Limits { read: std::time::Duration::from_millis(20), body: 1000, ..Limits::default() };
    let server = start(vec![Endpoint::new("m", "1", [linear()]).unwrap()], limits);
    let slow = raw(&server, &format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{"));
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("did not arrive within 20ms"), "{slow}");
    // Who asks first is answered at once, before the body is sent.
    let asked = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\nexpect: 100-continue\r\n\r\n");
    let asked = raw(&server, &asked);
    assert!(asked.starts_with("HTTP/1.1 413 ") && asked.contains("larger than 1000 bytes"), "{asked}");
}

#[test]
fn chunked_bodies_are_read() {
    let server = start_one("m", linear());
    let body = r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}"#;
    let (first, second) = body.split_at(20);
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let answer = raw(&server, &(head + &chunks));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("[4.0]"), "{answer}");
}

#[test]
fn models_that_fail_do_not_take_the_server_with_them() {
    let one = || schema([("x", DataType::Float32)]);
    let model = fake(one(), one(), |rows| {
        let x = rows.column("x")?;
        match x.as_primitive::<Float32Type>().value(0) {
            0.0 => panic!("a bug"),
            1.0 => Err(ropeway_framework::Error::new("the weights are gone")),
            2.0 => Frame::from_columns([("x", x.slice(0, 0))]),
            3.0 => Frame::from_columns([("z", x)]),
            4.0 => Frame::from_columns([("x", Arc::new(Int8Array::from(vec![1])) as ArrayRef)]),
            5.0 => Frame::from_columns([("x", Arc::new(Float32Array::from(vec![None])) as ArrayRef)]),
            6.0 => Err(ropeway_framework::Error::usage("x must not be 6")),
            _ => Ok(rows.clone()),
        }
    });
    let server = start_one("m", model);
    for (x, status, expected) in [
        (0, 500, "the model panicked"),
        (1, 500, "the weights are gone"),
        (2, 500, "a model gave 0 rows for 1"),
        (3, 500, "output \"x\": there is no column \"x\""),
        (4, 500, "output \"x\": expected the type Float32, found Int8"),
        (5, 500, "output \"x\": at [0]: null, and the protocol has no nulls"),
        (6, 400, "x must not be 6"),
    ] {
        let request = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [x]}]});
        let answer = post(&server.url(PATH), request.to_string().as_bytes(), None);
        assert!(answer.status == status && answer.error().contains(expected), "{}", answer.error());
    }
    let request = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [7]}]});
    assert_eq!(post(&server.url(PATH), request.to_string().as_bytes(), None).status, 200);
}

#[test]
fn json_carries_what_is_not_finite_as_strings_and_refuses_what_is_no_text() {
    let kinds = schema([("f", DataType::Float64), ("b", DataType::Binary)]);
    let server = start_one("m", echo(kinds));
    let values = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]));
    let good = Arc::new(BinaryArray::from_vec(vec![b"a", b"b", b"c"]));
    let frame = |blobs: Arc<BinaryArray>| {
        Frame::from_columns([("f", values.clone() as ArrayRef), ("b", blobs as ArrayRef)]).unwrap()
    };
    let given = server.client().json().infer("m", &frame(good)).unwrap();
    assert_eq!(&given.column("f").unwrap(), &(values.clone() as ArrayRef));
    let bad = frame(Arc::new(BinaryArray::from_vec(vec![b"a", b"\xff", b"c"])));
    assert_same(&server.client().infer("m", &bad).unwrap(), &bad);
    let error = server.client().json().infer("m", &bad).unwrap_err();
    assert_eq!(error.to_string(), "BYTES that are no UTF-8 can't be JSON");
    let raw = json!({"name": "b", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}});
    let head = json!({"inputs": [raw, {"name": "f", "shape": [1], "datatype": "FP64", "data": ["NaN"]}]}).to_string();
    let body = [head.as_bytes(), b"\x01\0\0\0\xff"].concat();
    let answer = post(&server.url(PATH), &body, Some(&head.len().to_string()));
    assert!(answer.status == 400 && answer.error().contains("\"binary_data_output\": true"), "{}", answer.error());
}

#[test]
fn endpoints_that_can_not_work_are_refused() {
    let refused = |chain: Vec<Box<dyn Apply>>| Endpoint::new("m", "1", chain).unwrap_err().to_string();
    assert_eq!(refused(vec![]), "endpoint \"m\": it has no models");
    let other = || echo(schema([("z", DataType::Float32)]));
    let link = "endpoint \"m\": a model reads column \"z\", which the model before it does not give";
    assert_eq!(refused(vec![linear(), other()]), link);
    let list = DataType::new_list(DataType::Int8, true);
    let kind = "endpoint \"m\": column \"l\" can't be served: the protocol has no tensors of the type List";
    assert!(refused(vec![echo(schema([("l", list)]))]).starts_with(kind));
    assert!(Server::new([]).bind("127.0.0.1:0").unwrap_err().to_string().contains("nothing to serve"));
    let twice = [0, 1].map(|_| Endpoint::new("m", "1", [linear()]).unwrap());
    let error = Server::new(twice).bind("127.0.0.1:0").unwrap_err();
    assert_eq!(error.to_string(), "endpoint \"m\" is given twice in version \"1\"");
}

#[test]
fn the_client_explains_what_is_wrong() {
    let server = start_one("m", linear());
    let rows = |name: &str, column: ArrayRef| Frame::from_columns([(name, column)]).unwrap();
    let refused = |frame: Frame| server.client().infer("m", &frame).unwrap_err().to_string();
    let floats = Arc::new(Float32Array::from(vec![1.0]));
    assert!(refused(rows("X", floats.clone())).contains("there is no column \"x\""));
    let null = refused(rows("x", Arc::new(Float32Array::from(vec![Some(1.0), None]))));
    assert_eq!(null, "column \"x\": at [1]: null, and the protocol has no nulls");
    let text = refused(rows("x", Arc::new(StringArray::from(vec!["1"]))));
    assert_eq!(text, "column \"x\": expected FP32, found BYTES");
    let unknown = server.client().infer("n", &rows("x", floats.clone())).unwrap_err().to_string();
    assert!(unknown.ends_with("answers 404: there is no model \"n\"; did you mean \"m\"?"), "{unknown}");
    assert!(Client::new("ftp://x").unwrap_err().to_string().contains("no URL of a server"));
    assert!(Client::new("http://").is_err() && Client::new("").is_err());

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::new(&nobody.to_string()).unwrap().infer("m", &rows("x", floats)).unwrap_err();
    assert!(error.to_string().starts_with(&format!("can't reach the server at http://{nobody}: ")), "{error}");
    assert_eq!(error.advice(), Some("is it running? `ropeway serve` starts one"));
    assert_eq!(error.whose().exit_code(), 3);
}

#[test]
fn a_connection_that_the_server_closed_is_opened_again() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let server = std::thread::spawn(move || {
        let answer = r#"{"name": "s", "version": "1", "extensions": []}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        // Each connection has one answer and then ends, the first of them after it has got another request.
        for requests in [2, 1] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for request in 0..requests {
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    assert!(reader.read_line(&mut line).unwrap() > 0);
                }
                if request == 0 {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    assert_eq!(client.server().unwrap().name, "s");
    assert_eq!(client.server().unwrap().name, "s");
    server.join().unwrap();
}
