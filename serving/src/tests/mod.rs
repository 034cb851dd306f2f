//! A real server on a free port, and real clients.

mod hostile;
mod limits;
mod loopback;
mod requests;

use crate::{Client, Endpoint, Limits, Server};
use arrow::array::*;
use arrow::datatypes::*;
use half::f16;
use ropeway_framework::data::Frame;
use ropeway_framework::stage::Apply;
use ropeway_framework::{Result, runtime};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Work = dyn Fn(&Frame) -> Result<Frame> + Send + Sync;

/// A model that does what a test wants.
pub(super) struct Fake {
    input: SchemaRef,
    output: SchemaRef,
    target: Option<&'static str>,
    work: Box<Work>,
}

impl Apply for Fake {
    fn input(&self) -> SchemaRef {
        self.input.clone()
    }

    fn output(&self) -> SchemaRef {
        self.output.clone()
    }

    fn target(&self) -> Option<&str> {
        self.target
    }

    fn apply(&self, rows: &Frame) -> Result<Frame> {
        (self.work)(rows)
    }
}

pub(super) fn schema<const N: usize>(fields: [(&str, DataType); N]) -> SchemaRef {
    Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec()))
}

pub(super) fn fake(
    input: SchemaRef,
    output: SchemaRef,
    work: impl Fn(&Frame) -> Result<Frame> + Send + Sync + 'static,
) -> Box<dyn Apply> {
    Box::new(Fake { input, output, target: None, work: Box::new(work) })
}

/// A model that gives back what it gets.
pub(super) fn echo(schema: SchemaRef) -> Box<dyn Apply> {
    fake(schema.clone(), schema, |rows| Ok(rows.clone()))
}

/// `y = 3 x + 1`, with `x` and `y` in `FP32`.
pub(super) fn linear() -> Box<dyn Apply> {
    fake(schema([("x", DataType::Float32)]), schema([("y", DataType::Float32)]), |rows| {
        let x = rows.column("x")?;
        let y: Float32Array = x.as_primitive::<Float32Type>().unary(|x| 3.0 * x + 1.0);
        Frame::from_columns([("y", Arc::new(y) as ArrayRef)])
    })
}

/// A server that stops when it is dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) done: Option<JoinHandle<Result<()>>>,
}

pub(super) fn start(endpoints: Vec<Endpoint>, limits: Limits) -> Running {
    let bound = Server::new(endpoints).limits(limits).bind("127.0.0.1:0").unwrap();
    let address = bound.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let done = runtime().unwrap().spawn(bound.serve(async {
        let _ = stopped.await;
    }));
    Running { address, stop: Some(stop), done: Some(done) }
}

pub(super) fn start_one(name: &str, model: Box<dyn Apply>) -> Running {
    start(vec![Endpoint::new(name, "1", [model]).unwrap()], Limits::default())
}

impl Running {
    pub(super) fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address)).unwrap()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn finish(&mut self) {
        drop(self.stop.take());
        if let Some(done) = self.done.take() {
            runtime().unwrap().block_on(done).unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}

/// An answer: its status, headers and body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: ureq::http::HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

pub(super) fn get(url: &str) -> Answer {
    answer(agent().get(url).call())
}

pub(super) fn post(url: &str, body: &[u8], header: Option<&str>) -> Answer {
    let request = agent().post(url);
    answer(match header {
        Some(length) => request.header(crate::binary::HEADER, length).send(body),
        None => request.send(body),
    })
}

/// A column of every datatype, with the values at the ends of its range.
pub(super) fn every_datatype() -> Frame {
    let images = FixedSizeListArray::new(
        Arc::new(Field::new("item", DataType::UInt8, false)),
        4,
        Arc::new(UInt8Array::from_iter_values(0..12)),
        None,
    );
    let inner = FixedSizeListArray::new(
        Arc::new(Field::new("item", DataType::Float32, false)),
        2,
        Arc::new(Float32Array::from_iter_values((0..18).map(|value| value as f32 / 7.0))),
        None,
    );
    let nested = FixedSizeListArray::new(
        Arc::new(Field::new("item", inner.data_type().clone(), false)),
        3,
        Arc::new(inner),
        None,
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("uint8", Arc::new(UInt8Array::from(vec![0, 1, u8::MAX]))),
        ("uint16", Arc::new(UInt16Array::from(vec![0, 1, u16::MAX]))),
        ("uint32", Arc::new(UInt32Array::from(vec![0, 1, u32::MAX]))),
        ("uint64", Arc::new(UInt64Array::from(vec![0, 1, u64::MAX]))),
        ("int8", Arc::new(Int8Array::from(vec![i8::MIN, -1, i8::MAX]))),
        ("int16", Arc::new(Int16Array::from(vec![i16::MIN, -1, i16::MAX]))),
        ("int32", Arc::new(Int32Array::from(vec![i32::MIN, -1, i32::MAX]))),
        ("int64", Arc::new(Int64Array::from(vec![i64::MIN, -1, i64::MAX]))),
        ("fp16", Arc::new(Float16Array::from(vec![f16::MIN, f16::from_f32(0.1), f16::MAX]))),
        ("fp32", Arc::new(Float32Array::from(vec![f32::MIN_POSITIVE, 0.1, f32::MAX]))),
        ("fp64", Arc::new(Float64Array::from(vec![f64::MIN_POSITIVE, -0.0, f64::MAX]))),
        ("bytes", Arc::new(StringArray::from(vec!["", "grüße \"x\\y\"\n", "\u{1F600}\u{0}"]))),
        ("images", Arc::new(images)),
        ("nested", Arc::new(nested)),
    ];
    Frame::from_columns(columns).unwrap()
}

pub(super) fn assert_same(a: &Frame, b: &Frame) {
    assert_eq!(a.schema().fields(), b.schema().fields());
    assert_eq!(a.to_batch().unwrap(), b.to_batch().unwrap());
}
