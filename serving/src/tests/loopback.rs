//! What goes right: every type both ways, many requests at once, and a calm end.

use super::*;
use crate::Datatype;
use serde_json::json;
use std::sync::mpsc;
use std::sync::{Barrier, Mutex};
use std::thread;

#[test]
fn every_datatype_goes_there_and_back_in_both_forms() {
    let frame = every_datatype();
    let server = start_one("echo", echo(frame.schema().clone()));
    assert_same(&server.client().infer("echo", &frame).unwrap(), &frame);
    assert_same(&server.client().json().infer("echo", &frame).unwrap(), &frame);
    let one_by_one = server.client().rows_per_request(1).infer("echo", &frame).unwrap();
    assert_eq!(one_by_one.batches().len(), 3);
    assert_same(&one_by_one, &frame);
}

#[test]
fn no_rows_give_no_rows() {
    let frame = every_datatype();
    let empty = Frame::new(frame.schema().clone(), vec![frame.to_batch().unwrap().slice(0, 0)]).unwrap();
    let server = start_one("echo", echo(frame.schema().clone()));
    assert_same(&server.client().infer("echo", &empty).unwrap(), &empty);
    assert_same(&server.client().json().infer("echo", &empty).unwrap(), &empty);
}

#[test]
fn other_columns_travel_as_text_or_plain_values() {
    let categories: DictionaryArray<Int8Type> = ["a", "b", "a"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("date", Arc::new(Date32Array::from(vec![0, 19_000, -1]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_600_000_000_123_456, -1]))),
        ("utc", Arc::new(TimestampSecondArray::from(vec![0, 1_600_000_000, -1]).with_timezone("+00:00"))),
        ("price", Arc::new(Decimal128Array::from(vec![1, -250, 99_999]).with_precision_and_scale(9, 2).unwrap())),
        ("category", Arc::new(categories)),
        ("view", Arc::new(StringViewArray::from(vec!["x", "", "a text of more than twelve bytes"]))),
        ("large", Arc::new(LargeStringArray::from(vec!["x", "", "ß"]))),
        ("blob", Arc::new(LargeBinaryArray::from_vec(vec![b"x", b"", b"\xff\x00"]))),
    ];
    let frame = Frame::from_columns(columns).unwrap();
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let model = fake(frame.schema().clone(), frame.schema().clone(), move |rows| {
        *keep.lock().unwrap() = Some(rows.clone());
        Ok(rows.clone())
    });
    let server = start_one("echo", model);
    let given = server.client().infer("echo", &frame).unwrap();
    assert_same(seen.lock().unwrap().as_ref().unwrap(), &frame);
    let text = |name: &str| {
        let column = given.column(name).unwrap();
        column.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(text("date"), ["1970-01-01", "2022-01-08", "1969-12-31"]);
    assert_eq!(text("at")[1], "2020-09-13T12:26:40.123456");
    assert_eq!(text("utc")[1], "2020-09-13T12:26:40Z");
    assert_eq!(text("price"), ["0.01", "-2.50", "999.99"]);
    assert_eq!(text("category"), ["a", "b", "a"]);
    assert_eq!(given.column("blob").unwrap().as_binary::<i32>().value(2), b"\xff\x00");
}

#[test]
fn metadata_says_what_goes_in_and_comes_out() {
    let frame = every_datatype();
    let server = start_one("echo", echo(frame.schema().clone()));
    let about = server.client().server().unwrap();
    assert_eq!((about.name.as_str(), about.extensions), ("ropeway", vec!["binary_tensor_data".to_owned()]));
    let metadata = server.client().metadata("echo").unwrap();
    assert_eq!((metadata.inputs.len(), &metadata.inputs), (15, &metadata.outputs));
    assert_eq!(metadata.inputs[9].datatype, Datatype::Fp16);
    assert_eq!(
        (metadata.inputs[0].shape.as_slice(), metadata.inputs[14].shape.as_slice()),
        (&[-1][..], &[-1, 3, 2][..])
    );
    assert_eq!(metadata.versions, ["1"]);
    assert_eq!(get(&server.url("/v2/health/live")).json(), json!({"live": true}));
    assert_eq!(get(&server.url("/v2/health/ready")).json(), json!({"ready": true}));
    assert_eq!(get(&server.url("/v2/models/echo/ready")).json(), json!({"name": "echo", "ready": true}));
    assert_eq!(server.client().models().unwrap()[0].name, "echo");
}

#[test]
fn rows_pass_through_the_chain_and_need_no_target() {
    let input = schema([("raw", DataType::Int64), ("label", DataType::Int64)]);
    let features = Fake {
        input,
        output: schema([("x", DataType::Float32)]),
        target: Some("label"),
        work: Box::new(|rows| {
            let x: Float32Array = rows.column("raw")?.as_primitive::<Int64Type>().unary(|raw| raw as f32 / 2.0);
            Frame::from_columns([("x", Arc::new(x) as ArrayRef)])
        }),
    };
    let chain: Vec<Box<dyn Apply>> = vec![Box::new(features), linear()];
    let server = start(vec![Endpoint::new("two", "1", chain).unwrap()], Limits::default());
    let rows = Frame::from_columns([
        ("label", Arc::new(Int64Array::from(vec![7, 7])) as ArrayRef),
        ("raw", Arc::new(Int32Array::from(vec![1, 2]))),
    ]);
    let given = server.client().infer("two", &rows.unwrap()).unwrap();
    assert_eq!(given.column("y").unwrap().as_primitive::<Float32Type>().values(), &[2.5, 4.0]);
}

#[test]
fn the_highest_version_answers_unless_another_is_named() {
    let constant = |value: i64| {
        fake(schema([("x", DataType::Float32)]), schema([("y", DataType::Int64)]), move |rows| {
            Frame::from_columns([("y", Arc::new(Int64Array::from(vec![value; rows.rows()])) as ArrayRef)])
        })
    };
    let endpoints = [10, 9, 2].map(|version| Endpoint::new("m n/o", version.to_string(), [constant(version)]).unwrap());
    let server = start(endpoints.into(), Limits::default());
    let rows = Frame::from_columns([("x", Arc::new(Float32Array::from(vec![0.0])) as ArrayRef)]).unwrap();
    let version = |client: Client| {
        let column = client.infer("m n/o", &rows).unwrap().column("y").unwrap();
        column.as_primitive::<Int64Type>().value(0)
    };
    assert_eq!(version(server.client()), 10);
    assert_eq!(version(server.client().version("2")), 2);
    assert_eq!(server.client().metadata("m n/o").unwrap().versions, ["2", "9", "10"]);
}

#[test]
fn many_at_once_get_what_one_gets() {
    let server = start_one("linear", linear());
    let direct = linear();
    thread::scope(|scope| {
        for worker in 0..8_u32 {
            let (client, direct) = (server.client(), &direct);
            scope.spawn(move || {
                for request in 0..200_u32 {
                    let values = (0..=worker).map(|row| (request * 8 + row) as f32 / 3.0);
                    let values: ArrayRef = Arc::new(Float32Array::from_iter_values(values));
                    let rows = Frame::from_columns([("x", values)]).unwrap();
                    assert_same(&client.infer("linear", &rows).unwrap(), &direct.apply(&rows).unwrap());
                }
            });
        }
    });
}

/// A model that says when it starts, and ends when it is told to.
pub(super) fn gate() -> (Box<dyn Apply>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, inside) = mpsc::channel();
    let (open, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let one = schema([("x", DataType::Float32)]);
    let model = fake(one.clone(), one, move |rows| {
        entered.send(()).unwrap();
        opened.lock().unwrap().recv().unwrap();
        Ok(rows.clone())
    });
    (model, inside, open)
}

pub(super) const ONE: &[u8] = br#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}"#;

#[test]
fn a_full_house_says_when_to_come_back() {
    let (model, inside, open) = gate();
    let limits = Limits { inferences: 1, queue: 0, ..Limits::default() };
    let server = start(vec![Endpoint::new("gate", "1", [model]).unwrap()], limits);
    let url = server.url("/v2/models/gate/infer");
    thread::scope(|scope| {
        let first = scope.spawn(|| post(&url, ONE, None));
        inside.recv().unwrap();
        let second = post(&url, ONE, None);
        assert_eq!((second.status, second.headers["retry-after"].to_str().unwrap()), (503, "1"));
        assert_eq!(second.error(), "the server is busy: too many requests are waiting; try again in a second");
        assert_eq!(get(&server.url("/v2/health/ready")).status, 200, "it still answers what needs no model");
        open.send(()).unwrap();
        assert_eq!(first.join().unwrap().status, 200);
        open.send(()).unwrap();
        assert_eq!(post(&url, ONE, None).status, 200);
    });
}

#[test]
fn a_stop_waits_for_requests_in_flight() {
    let (model, inside, open) = gate();
    let mut server = start_one("gate", model);
    let (url, address) = (server.url("/v2/models/gate/infer"), server.address);
    let stop = server.stop.take();
    thread::scope(|scope| {
        let request = scope.spawn(|| post(&url, ONE, None));
        inside.recv().unwrap();
        drop(stop);
        open.send(()).unwrap();
        assert_eq!(request.join().unwrap().status, 200);
    });
    server.finish();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let (model, inside, open) = gate();
    let limits = Limits { drain: std::time::Duration::ZERO, ..Limits::default() };
    let mut server = start(vec![Endpoint::new("gate", "1", [model]).unwrap()], limits);
    let url = server.url("/v2/models/gate/infer");
    thread::scope(|scope| {
        let request = scope.spawn(|| post(&url, ONE, None));
        inside.recv().unwrap();
        server.finish();
        open.send(()).unwrap();
        drop(request.join());
    });
}

#[test]
fn a_taken_address_is_explained() {
    let server = start_one("linear", linear());
    let bind = |address: &str| Server::new([Endpoint::new("m", "1", [linear()]).unwrap()]).bind(address).unwrap_err();
    let error = bind(&server.address.to_string());
    assert_eq!(error.to_string(), format!("{} is in use by another program", server.address));
    assert!(error.advice().unwrap().contains("port 0"));
    assert!(bind("127.0.0.1").to_string().starts_with("can't listen on \"127.0.0.1\""));
    assert!(bind("192.0.2.1:80").to_string().contains("192.0.2.1:80"));
}

#[test]
fn every_client_stays_its_own() {
    // Two clients of one server, started together, with answers of different lengths.
    let server = start_one("echo", echo(schema([("text", DataType::Utf8)])));
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for length in [1, 100_000] {
            let (server, barrier) = (&server, &barrier);
            scope.spawn(move || {
                let text: ArrayRef = Arc::new(StringArray::from(vec!["ä".repeat(length); 3]));
                let rows = Frame::from_columns([("text", text)]).unwrap();
                barrier.wait();
                for _ in 0..20 {
                    assert_same(&server.client().infer("echo", &rows).unwrap(), &rows);
                }
            });
        }
    });
}
