//! Clients that are slow, silent, too many or gone, on real sockets.

use super::loopback::{ONE, gate};
use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that is going to happen on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(600);

/// Limits under which a test that hangs would hang for an hour, so that each test sets the one that it is about.
fn patient() -> Limits {
    Limits { head: NEVER, idle: NEVER, read: NEVER, write: NEVER, ..Limits::default() }
}

fn serve(model: Box<dyn Apply>, limits: Limits) -> Running {
    start(vec![Endpoint::new("m", "1", [model]).unwrap()], limits)
}

fn connect(server: &Running) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads one answer of a connection that stays open; its status.
fn answer(stream: &mut TcpStream) -> u16 {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let head = String::from_utf8(seen).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    stream.read_exact(&mut vec![0; length]).unwrap();
    head[9..12].parse().unwrap()
}

fn ask(stream: &mut TcpStream) -> u16 {
    stream.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    answer(stream)
}

#[test]
fn a_connection_goes_on_after_a_body_that_nobody_needs() {
    let server = serve(linear(), patient());
    let mut stream = connect(&server);
    for (method, path, status) in [
        ("POST", "/v2/repository/index", 200),
        ("GET", "/v2/health/ready", 200),
        ("POST", "/v2/models/n/infer", 404),
        ("POST", "/v2/models/m/infer", 415),
        ("DELETE", "/v2", 405),
    ] {
        let head = "HTTP/1.1\r\nhost: x\r\ncontent-encoding: x\r\ncontent-length: 2\r\n\r\n";
        stream.write_all(format!("{method} {path} {head}").as_bytes()).unwrap();
        // Nothing is answered before the body is there.
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(stream.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "{method} {path}");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"{}").unwrap();
        assert_eq!(answer(&mut stream), status, "{method} {path}");
    }
    assert_eq!(ask(&mut stream), 200);
}

/// Whether the server has closed a connection, with nothing more to say.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn a_head_that_drips_is_cut_off() {
    let server = serve(linear(), Limits { head: SHORT, ..patient() });
    let mut drips = connect(&server);
    drips.write_all(b"GET /v2 HTTP/1.1\r\nhost: x\r\nx: ").unwrap();
    drips.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begun = Instant::now();
    while !is_closed(&mut drips) {
        assert!(begun.elapsed() < PATIENCE, "every byte gave it more time");
        drop(drips.write_all(b"x"));
        assert_eq!(ask(&mut connect(&server)), 200, "others are served meanwhile");
    }
    // The same in the second request of a connection, where the time begins with its first byte.
    let mut second = connect(&server);
    assert_eq!(ask(&mut second), 200);
    thread::sleep(2 * SHORT);
    assert_eq!(ask(&mut second), 200, "it may rest for longer than a head may take");
    second.write_all(b"GET ").unwrap();
    assert!(is_closed(&mut second));
}

#[test]
fn connections_without_a_request_end() {
    let server = serve(linear(), Limits { head: SHORT, idle: SHORT, ..patient() });
    assert!(is_closed(&mut connect(&server)), "a client that never said a word");
    let mut rests = connect(&server);
    assert_eq!(ask(&mut rests), 200);
    assert!(is_closed(&mut rests));
}

#[test]
fn a_model_may_take_longer_than_any_of_these_times() {
    let (model, inside, open) = gate();
    let server = serve(model, Limits { head: SHORT, idle: SHORT, write: SHORT, ..patient() });
    let mut waits = connect(&server);
    let head = format!("POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", ONE.len());
    waits.write_all(&[head.as_bytes(), ONE].concat()).unwrap();
    inside.recv().unwrap();
    thread::sleep(3 * SHORT);
    open.send(()).unwrap();
    assert_eq!(answer(&mut waits), 200);
}

#[test]
fn a_body_may_take_longer_than_a_head() {
    let server = serve(linear(), Limits { head: SHORT, idle: SHORT, ..patient() });
    let mut slow = connect(&server);
    // What the server writes first (100) must not count as the beginning of its answer.
    let head = "POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nexpect: 100-continue";
    slow.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n", ONE.len()).as_bytes()).unwrap();
    let mut go_on = [0; 25];
    slow.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "));
    for part in ONE.chunks(ONE.len() / 4) {
        thread::sleep(SHORT);
        slow.write_all(part).unwrap();
    }
    assert_eq!(answer(&mut slow), 200);
}

#[test]
fn a_client_that_does_not_read_does_not_keep_its_place() {
    let large = schema([("text", DataType::Utf8)]);
    let output = large.clone();
    let model = fake(large, output, |_| {
        Frame::from_columns([("text", Arc::new(StringArray::from(vec!["x".repeat(64 << 20)])) as ArrayRef)])
    });
    let server = serve(model, Limits { connections: 1, write: SHORT, ..patient() });
    let body = r#"{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}"#;
    let mut deaf = connect(&server);
    let head = format!("POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    deaf.write_all((head + body).as_bytes()).unwrap();
    assert_eq!(ask(&mut connect(&server)), 200, "the only place is free again");
}

#[test]
fn those_who_find_no_place_wait_and_all_are_answered() {
    let (model, inside, open) = gate();
    let limits = Limits { connections: 4, inferences: 8, ..patient() };
    let server = serve(model, limits);
    let url = server.url("/v2/models/m/infer");
    thread::scope(|scope| {
        let requests: Vec<_> = (0..8).map(|_| scope.spawn(|| post(&url, ONE, None).status)).collect();
        for _ in 0..4 {
            inside.recv_timeout(PATIENCE).unwrap();
        }
        assert!(inside.recv_timeout(2 * SHORT).is_err(), "four places, and a fifth request has begun");
        for _ in 0..8 {
            open.send(()).unwrap();
        }
        assert!(requests.into_iter().all(|request| request.join().unwrap() == 200));
    });
}

#[test]
fn connections_that_rest_give_way() {
    let server = serve(linear(), Limits { connections: 4, ..patient() });
    let rests = |_| {
        let mut stream = connect(&server);
        assert_eq!(ask(&mut stream), 200);
        stream
    };
    let mut resting: Vec<TcpStream> = (0..4).map(rests).collect();
    let mut half = connect(&server);
    half.write_all(b"GET /v2 HT").unwrap();
    // Twelve in a row, on four places, each of which someone else holds for an hour.
    for _ in 0..12 {
        assert_eq!(ask(&mut connect(&server)), 200);
    }
    for stream in &mut resting {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    }
    assert!(resting.iter_mut().any(is_closed));
}

#[test]
fn clients_that_vanish_free_their_places() {
    let server = serve(linear(), Limits { connections: 2, ..patient() });
    for _ in 0..8 {
        let mut gone = connect(&server);
        gone.write_all(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
        gone.shutdown(Shutdown::Both).unwrap();
    }
    let mut half_open = connect(&server);
    half_open.write_all(b"GET /v2 HT").unwrap();
    half_open.shutdown(Shutdown::Write).unwrap();
    half_open.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(ask(&mut connect(&server)), 200);
}

#[test]
fn a_stop_does_not_wait_for_those_who_say_nothing() {
    let mut server = serve(linear(), Limits { drain: NEVER, ..patient() });
    let mut rests = connect(&server);
    assert_eq!(ask(&mut rests), 200);
    let mut silent = connect(&server);
    let mut half = connect(&server);
    half.write_all(b"GET /v2 HT").unwrap();
    // Another connection that is answered says that those before it are taken.
    assert_eq!(ask(&mut connect(&server)), 200);
    server.finish();
    assert!(is_closed(&mut rests) && is_closed(&mut silent) && is_closed(&mut half));
}
