//! Those who mean harm: strangers, and workers that have the token but talk nonsense, lie or flood.

use super::client::endpoint;
use super::door::STRANGERS;
use super::row::{Row, messages};
use super::token::DOMAIN;
use super::wire::coordinator_client::CoordinatorClient;
use super::wire::{self, FromWorker, ToWorker, ended, from_worker, to_worker};
use super::{Heard, Hub, Leave, Terms, Token, WorkerMetrics, WorkerOptions, program, work};
use crate::damage::damaged;
use crate::data::{Digest, Metrics};
use crate::pipeline::{SourceFile, resolve};
use crate::run::{Elsewhere, Event, Line, Options, run};
use crate::stage::{Progress, Registry, stage};
use crate::store::{Remote, Store};
use crate::{Result, runtime};
use bytes::Bytes;
use futures::stream;
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

type Client = CoordinatorClient<Channel>;

/// No answer takes so long.
const LONG: Duration = Duration::from_secs(60);

/// A hub that nobody but its test hears.
struct Scene {
    hub: Hub,
    token: Token,
    store: Store,
    heard: Mutex<mpsc::Receiver<Heard>>,
}

impl Scene {
    fn new() -> Self {
        let (token, store) = (Token::generate().unwrap(), Store::memory());
        let (ear, heard) = mpsc::channel();
        let terms = Terms {
            build: program::identity().unwrap(),
            run: Some("test-1".into()),
            heartbeat: Duration::from_millis(500),
            patience: LONG,
        };
        // As a run does, it keeps a worker until that is lost.
        let joined = Mutex::new(BTreeMap::new());
        let hear = move |heard| match heard {
            Heard::Joined(worker) => drop(joined.lock().unwrap().insert(worker.id, worker)),
            Heard::Lost { worker, .. } => {
                joined.lock().unwrap().remove(&worker);
                drop(ear.send(heard));
            }
            other => drop(ear.send(other)),
        };
        let ear = Arc::new(move |heard: Vec<Heard>| heard.into_iter().for_each(&hear));
        let hub = Hub::listen("127.0.0.1:0", &token, terms, store.clone(), ear).unwrap();
        Self { hub, token, store, heard: Mutex::new(heard) }
    }

    fn client(&self) -> Client {
        client(self.hub.address(), &self.token)
    }

    /// A worker comes, says words, and is heard out; what the hub said, until it or the worker had enough.
    fn say(&self, words: Vec<from_worker::Word>) -> Vec<Result<to_worker::Word, Status>> {
        say(&mut self.client(), words)
    }

    /// What the run heard of the first worker from now on, until it was lost; and why it was.
    fn listen(&self) -> (Vec<Heard>, String) {
        let heard = self.heard.lock().unwrap();
        let mut all = Vec::new();
        loop {
            match heard.recv_timeout(LONG).unwrap() {
                Heard::Lost { reason, .. } => return (all, reason),
                other => all.push(other),
            }
        }
    }

    /// The hub still takes an honest worker.
    fn is_well(&self) {
        let said = self.say(vec![hello()]);
        assert!(matches!(&said[..], [Ok(to_worker::Word::Welcome(_)), ..]), "{said:?}");
        assert_eq!(self.listen().1, "it left");
    }
}

fn options(address: SocketAddr, token: &Token) -> WorkerOptions {
    WorkerOptions {
        join: address.to_string(),
        token: token.clone(),
        name: "honest".into(),
        gpus: Default::default(),
        cores: 1.0,
        room: None,
        memory: 64 << 20,
        cache: None,
        pool: String::new(),
        patience: LONG,
        store_options: Vec::new(),
        metrics: WorkerMetrics::default(),
        leave: Leave::default(),
    }
}

fn client(address: SocketAddr, token: &Token) -> Client {
    let _entered = runtime().unwrap().enter();
    CoordinatorClient::new(endpoint(&address.to_string(), token).unwrap().connect_lazy())
}

fn say(client: &mut Client, words: Vec<from_worker::Word>) -> Vec<Result<to_worker::Word, Status>> {
    let words = stream::iter(words.into_iter().map(|word| FromWorker { word: Some(word) }));
    let conversation = async {
        let mut heard = Vec::new();
        let mut answers = match client.attach(words).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return vec![Err(status)],
        };
        loop {
            match answers.message().await {
                Ok(Some(ToWorker { word })) => heard.extend(word.map(Ok)),
                Ok(None) => return heard,
                Err(status) => {
                    heard.push(Err(status));
                    return heard;
                }
            }
        }
    };
    let timed = async { tokio::time::timeout(LONG, conversation).await };
    runtime().unwrap().block_on(timed).expect("the hub keeps silent")
}

fn hello() -> from_worker::Word {
    from_worker::Word::Hello(wire::Hello {
        build: program::identity().unwrap(),
        name: "enemy".into(),
        ..wire::Hello::default()
    })
}

/// Messages in a row.
fn in_row(all: Vec<Bytes>) -> Bytes {
    let mut row = Row::default();
    all.iter().for_each(|one| row.push(one));
    row.take().unwrap_or_default()
}

fn ended_word(ended: wire::Ended) -> from_worker::Word {
    from_worker::Word::Ended(wire::EndedBatch { attempts: in_row(vec![ended.encode_to_vec().into()]) })
}

fn artifact(content: &'static [u8]) -> wire::Artifact {
    let digest = Bytes::copy_from_slice(Digest::of(content).as_bytes());
    wire::Artifact { kind: 5, digest, bytes: content.len() as u64 }
}

/// That an attempt is done, with an output that travels with the word.
fn done(task: u64, attempt: u32, output: wire::Artifact, content: &'static [u8]) -> wire::Ended {
    wire::Ended {
        attempt: Some(wire::Attempt { task, attempt }),
        key: Bytes::copy_from_slice(&[7; 32]),
        stage: "x".into(),
        end: Some(ended::End::Done(wire::Done {
            outputs: vec![wire::Output { port: "output".into(), artifact: Some(output.clone()) }],
            blobs: vec![wire::Blob { artifact: Some(output), content: Bytes::from_static(content) }],
            ..wire::Done::default()
        })),
    }
}

#[test]
fn who_says_something_else_than_hello_is_no_worker() {
    let scene = Scene::new();
    for words in [vec![], vec![from_worker::Word::Heartbeat(wire::Heartbeat {}), hello()]] {
        let said = scene.say(words);
        assert!(matches!(&said[..], [Err(status)] if status.code() == Code::InvalidArgument), "{said:?}");
    }
    scene.say(vec![hello(), hello()]);
    assert!(scene.listen().1.contains("hello twice"));
    scene.is_well();
}

#[test]
fn a_message_that_is_too_long_ends_its_sender_only() {
    let scene = Scene::new();
    let mut long = wire::Hello { name: "x".repeat(100 << 20), ..wire::Hello::default() };
    let said = scene.say(vec![from_worker::Word::Hello(long.clone())]);
    assert!(said.iter().all(Result::is_err), "{} words", said.len());
    long.name.truncate(20 << 20);
    let line = Some(long.name);
    scene.say(vec![hello(), from_worker::Word::Progress(wire::Progress { line, ..wire::Progress::default() })]);
    assert!(scene.listen().1.contains("its connection broke"));
    scene.is_well();
}

#[test]
fn a_lie_about_a_digest_fails_the_attempt_and_is_not_kept() {
    let scene = Scene::new();
    scene.say(vec![
        hello(),
        ended_word(done(1, 1, artifact(b"true"), b"lies")),
        ended_word(done(2, 1, wire::Artifact { bytes: 5, ..artifact(b"true") }, b"true")),
        ended_word(done(3, 1, artifact(b"true"), b"true")),
    ]);
    let results: Vec<_> = scene
        .listen()
        .0
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Ended { task, result, .. } => Some((task.0, result.map_err(|failure| failure.error.to_string()))),
            _ => None,
        })
        .collect();
    assert_eq!(results.len(), 3);
    assert!(matches!(&results[0], (1, Err(error)) if error.contains("has the digest")), "{results:?}");
    assert!(matches!(&results[1], (2, Err(error)) if error.contains("has 4 bytes")), "{results:?}");
    assert!(results[2].1.is_ok(), "{results:?}");
    scene.is_well();
}

#[test]
fn of_a_message_of_millions_of_ends_no_more_is_read_than_to_the_first_that_makes_no_sense() {
    let scene = Scene::new();
    // Each zero is an end that says nothing: of which attempt, or how.
    let nothing = Bytes::from(vec![0; wire::MESSAGE_BYTES - 100]);
    let word = from_worker::Word::Ended(wire::EndedBatch { attempts: nothing.clone() });
    scene.say(vec![hello(), word]);
    assert!(scene.listen().1.contains("makes no sense"));
    let hello = match hello() {
        from_worker::Word::Hello(hello) => from_worker::Word::Hello(wire::Hello { finished: nothing, ..hello }),
        other => other,
    };
    scene.say(vec![hello]);
    scene.is_well();
}

#[test]
fn who_says_that_it_left_something_and_did_not_fails_the_attempt() {
    let scene = Scene::new();
    let mut lie = done(1, 1, artifact(b"true"), b"true");
    if let Some(ended::End::Done(done)) = &mut lie.end {
        (done.blobs, done.left) = (Vec::new(), vec![artifact(b"true")]);
    }
    let mut escape = lie.clone();
    if let Some(ended::End::Done(done)) = &mut escape.end {
        done.left[0].digest = Bytes::from_static(b"../../../etc/passwd");
    }
    let mut nothing = lie.clone();
    if let Some(ended::End::Done(done)) = &mut nothing.end {
        done.left = Vec::new();
    }
    scene.say(vec![hello(), ended_word(lie), ended_word(nothing), ended_word(escape)]);
    let (heard, reason) = scene.listen();
    let failed = |why: &str| {
        heard.iter().any(|heard| match heard {
            Heard::Ended { result: Err(failure), .. } => failure.error.to_string().contains(why),
            _ => false,
        })
    };
    assert!(failed("left no bytes") && failed("which the store does not have"), "{reason}");
    assert!(reason.contains("a digest has 32 bytes"), "{reason}");
    scene.is_well();
}

#[test]
fn who_says_that_it_committed_is_believed_only_if_it_did() {
    let scene = Scene::new();
    let claim = |task: u64, key: &'static [u8; 32], output: wire::Artifact| {
        let mut claim = done(task, 1, output, b"");
        claim.key = Bytes::from_static(key);
        if let Some(ended::End::Done(done)) = &mut claim.end {
            (done.committed, done.blobs) = (true, Vec::new());
        }
        claim
    };
    let mut first = done(1, 1, artifact(b"true"), b"true");
    first.key = Bytes::from_static(&[7; 32]);
    let nothing = claim(2, &[8; 32], artifact(b"true"));
    let another = claim(3, &[7; 32], artifact(b"false"));
    // One message each, so that the first is committed before the others are heard.
    scene.say([hello()].into_iter().chain([first, another, nothing].map(ended_word)).collect());
    let (heard, reason) = scene.listen();
    let outputs = heard.into_iter().filter_map(|heard| match heard {
        Heard::Ended { task, result, .. } => Some((task.0, result.unwrap().outputs)),
        _ => None,
    });
    let [(1, committed), (3, claimed)] = &outputs.collect::<Vec<_>>()[..] else { panic!("two attempts ended") };
    assert_eq!(claimed, committed);
    assert!(reason.contains("it says that it committed a result that the store does not have"), "{reason}");
    scene.is_well();
}

#[test]
fn nothing_but_objects_can_be_reached_and_the_log_is_not_a_workers() {
    let scene = Scene::new();
    let runtime = runtime().unwrap();
    let log = "runs/test-1/00000001.jsonl";
    runtime.block_on(Remote::create(&scene.store, log, Bytes::from_static(b"{}"))).unwrap();
    let mut client = scene.client();
    let object = |path: &str| wire::Object { path: path.to_owned() };
    let mut refused = |path: &str| {
        let mut codes = Vec::new();
        let part = wire::CreatePart { path: path.to_owned(), content: Bytes::from_static(b"x") };
        codes.push(runtime.block_on(client.create(stream::iter([part]))).unwrap_err().code());
        codes.push(runtime.block_on(client.remove(object(path))).unwrap_err().code());
        codes.push(runtime.block_on(client.set_aside(object(path))).unwrap_err().code());
        codes
    };
    for path in [
        "",
        "/etc/passwd",
        "../../etc/passwd",
        "blobs/../../etc/passwd",
        "staging/x",
        "runs/test-1/00000002.jsonl",
        log,
    ] {
        let codes = refused(path);
        let denied = |code: &Code| matches!(code, Code::PermissionDenied | Code::FailedPrecondition);
        assert!(codes.iter().all(denied), "{path}: {codes:?}");
    }
    for path in ["/etc/passwd", "blobs/../../etc/passwd"] {
        assert_eq!(runtime.block_on(client.read(object(path))).unwrap_err().code(), Code::FailedPrecondition);
    }
    let kept = runtime.block_on(Remote::list(&scene.store, "runs")).unwrap();
    assert_eq!(kept.len(), 1, "the log is as it was");
}

#[test]
fn a_flood_of_reports_is_held_back() {
    let scene = Scene::new();
    let before = Instant::now();
    let attempt = Some(wire::Attempt { task: 1, attempt: 1 });
    let mut words = vec![hello()];
    words.extend(
        (0..4100).map(|_| from_worker::Word::Progress(wire::Progress { attempt, ..wire::Progress::default() })),
    );
    scene.say(words);
    assert_eq!(scene.listen().1, "it left");
    assert!(before.elapsed() > Duration::from_secs(1));
}

/// A coordinator as somebody sees it who knows its certificate, but maybe not its token.
fn dial(address: SocketAddr, tls: ClientTlsConfig) -> Result<(), tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls)?;
    let asked = async {
        let channel = endpoint.connect().await?;
        let mut client = CoordinatorClient::new(channel);
        client.list(wire::Object { path: "blobs".into() }).await.map(drop).expect_err("a stranger is answered");
        Ok(())
    };
    runtime().unwrap().block_on(asked)
}

#[test]
fn nobody_without_the_token_is_answered() {
    let scene = Scene::new();
    let other = Token::generate().unwrap();
    let (authority, _): (Certificate, Identity) = scene.token.certificates().unwrap();
    let (others, identity) = other.certificates().unwrap();
    let knows = || ClientTlsConfig::new().ca_certificate(authority.clone()).domain_name(DOMAIN);
    // Whoever shows no certificate or another token's gets no answer, even if the server is the right one for it.
    let _ = dial(scene.hub.address(), knows());
    let _ = dial(scene.hub.address(), knows().identity(identity.clone()));
    // And who only has another token does not take the server for its own.
    let wrong = ClientTlsConfig::new().ca_certificate(others).identity(identity).domain_name(DOMAIN);
    dial(scene.hub.address(), wrong).unwrap_err();
    // Without TLS.
    let mut stream = TcpStream::connect(scene.hub.address()).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    // At most an alert of TLS.
    assert!(answer.len() < 16, "{answer:?}");
    scene.is_well();
}

#[test]
fn a_crowd_that_only_stands_there_keeps_nobody_out() {
    let scene = Scene::new();
    let crowd: Vec<TcpStream> = (0..STRANGERS + 20).map(|_| TcpStream::connect(scene.hub.address()).unwrap()).collect();
    // One says what it says very slowly.
    let mut slow = &crowd[STRANGERS + 19];
    slow.write_all(&[0x16, 3, 1]).unwrap();
    scene.is_well();
    // The first of them had to go.
    let mut first = &crowd[0];
    first.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(first.read(&mut [0; 16]).unwrap(), 0);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/.]{0,12}", Just("ä".repeat(700)), Just("\0".to_owned()), any::<String>()]
}

fn any_artifact() -> impl Strategy<Value = wire::Artifact> {
    let digest = prop_oneof![Just(32), Just(0), Just(31), Just(1000)];
    (prop_oneof![0..6u32, any::<u32>()], digest, prop_oneof![Just(u64::MAX), any::<u64>(), 0..9u64])
        .prop_map(|(kind, digest, bytes)| wire::Artifact { kind, digest: Bytes::from(vec![1; digest]), bytes })
}

fn any_attempt() -> impl Strategy<Value = Option<wire::Attempt>> {
    let numbers = (prop_oneof![0..4u64, any::<u64>()], any::<u32>());
    prop::option::of(numbers.prop_map(|(task, attempt)| wire::Attempt { task, attempt }))
}

fn any_end() -> impl Strategy<Value = ended::End> {
    let seconds = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), any::<f64>()];
    let outputs = prop::collection::vec((text(), prop::option::of(any_artifact())), 0..4);
    let blobs = prop::collection::vec((prop::option::of(any_artifact()), any::<Vec<u8>>()), 0..3);
    let left = prop::collection::vec(any_artifact(), 0..3);
    let done = (outputs, seconds, any::<bool>(), any::<bool>(), blobs, left).prop_map(
        |(outputs, seconds, differs, committed, blobs, left)| {
            let outputs = outputs.into_iter().map(|(port, artifact)| wire::Output { port, artifact }).collect();
            let blob = |(artifact, content): (_, Vec<u8>)| wire::Blob { artifact, content: content.into() };
            let blobs = blobs.into_iter().map(blob).collect();
            ended::End::Done(wire::Done {
                outputs,
                seconds,
                differs,
                committed,
                blobs,
                moved: u64::MAX,
                left,
                device: "x".repeat(2000),
            })
        },
    );
    let failed =
        (text(), text(), any::<u32>(), prop::option::of(any_artifact())).prop_map(|(message, help, fault, lost)| {
            ended::End::Failed(wire::Failed { message, help, fault, lost, moved: u64::MAX })
        });
    prop_oneof![done, failed]
}

fn any_ended() -> impl Strategy<Value = wire::Ended> {
    let key = prop_oneof![Just(32usize), Just(0), Just(33)];
    (any_attempt(), key, text(), prop::option::of(any_end())).prop_map(|(attempt, key, stage, end)| wire::Ended {
        attempt,
        key: Bytes::from(vec![9; key]),
        stage,
        end,
    })
}

/// How an attempt ended, as it travels; now and then something else does.
fn any_ended_bytes() -> impl Strategy<Value = Bytes> {
    let garbage = prop::collection::vec(any::<u8>(), 0..30).prop_map(Bytes::from);
    prop_oneof![4 => any_ended().prop_map(|ended| ended.encode_to_vec().into()), 1 => garbage]
}

/// What the hub makes of how an attempt ended.
fn read_end(ended: Bytes) {
    let Ok(ended) = wire::ended(ended) else { return };
    drop(wire::key(&ended.key));
    match ended.end {
        Some(ended::End::Done(done)) => drop(wire::outcome(done)),
        Some(ended::End::Failed(failed)) => drop(wire::failure(failed)),
        None => {}
    }
}

fn any_word() -> impl Strategy<Value = from_worker::Word> {
    let hello = (text(), text(), any::<u64>(), any::<u64>(), prop::collection::vec(any_ended_bytes(), 0..3)).prop_map(
        |(name, pool, millicores, memory, finished)| {
            let build = program::identity().unwrap();
            let machine = name.clone();
            from_worker::Word::Hello(wire::Hello {
                build,
                name,
                machine,
                millicores,
                memory,
                pool,
                finished: in_row(finished),
                ..wire::Hello::default()
            })
        },
    );
    let metrics = prop::collection::vec((text(), any::<f64>()), 0..4);
    let progress = (any_attempt(), any::<u64>(), any::<Option<u64>>(), text(), metrics, prop::option::of(text()))
        .prop_map(|(attempt, done, total, unit, metrics, line)| {
            let metrics = metrics.into_iter().map(|(name, value)| wire::Metric { name, value }).collect();
            from_worker::Word::Progress(wire::Progress { attempt, done, total, unit, metrics, line })
        });
    let ended = prop::collection::vec(any_ended_bytes(), 0..4)
        .prop_map(|attempts| from_worker::Word::Ended(wire::EndedBatch { attempts: in_row(attempts) }));
    let present = (any_attempt(), any::<u64>(), any::<u64>(), text()).prop_map(|(attempt, after, seat, memory)| {
        from_worker::Word::Present(wire::Present { attempt, after, seat, memory })
    });
    prop_oneof![hello, progress, ended, present, Just(from_worker::Word::Heartbeat(wire::Heartbeat {}))]
}

/// Reads bytes as a message, and what can be made of it; no bytes are so bad that anything ends.
fn read<M: Message + Default>(bytes: &[u8], convert: impl Fn(M)) {
    if let Ok(message) = M::decode(bytes) {
        convert(message);
    }
}

/// One of each message that travels, with all that can be in it.
fn all_messages() -> Vec<Vec<u8>> {
    let artifact = artifact(b"true");
    let attempt = Some(wire::Attempt { task: 7, attempt: 2 });
    let failed =
        wire::Failed { message: "no".into(), help: "try".into(), fault: 1, lost: Some(artifact.clone()), moved: 300 };
    let failed = wire::Ended { end: Some(ended::End::Failed(failed)), ..done(3, 1, artifact.clone(), b"true") };
    let inputs = vec![wire::Input { port: "rows".into(), artifacts: vec![artifact.clone(), artifact.clone()] }];
    let start = wire::Start {
        attempt,
        stage: "train".into(),
        key: Bytes::copy_from_slice(&[9; 32]),
        params: Bytes::from_static(b"{\"epochs\":3}"),
        inputs,
        seed: 7,
        threads: 2,
        millicores: 2000,
        memory: 1 << 30,
        peers: vec!["127.0.0.1:7777".into()],
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        ..wire::Start::default()
    };
    let metrics = vec![wire::Metric { name: "loss".into(), value: 0.5 }];
    let progress = wire::Progress { attempt, done: 3, total: Some(9), unit: "epochs".into(), metrics, line: None };
    let ended = [done(1, 1, artifact.clone(), b"true"), failed].map(|ended| Bytes::from(ended.encode_to_vec()));
    let ended = wire::EndedBatch { attempts: in_row(ended.to_vec()) };
    let up = [hello(), from_worker::Word::Ended(ended), from_worker::Word::Progress(progress)];
    let down = [
        to_worker::Word::Start(wire::StartBatch { attempts: in_row(vec![start.encode_to_vec().into(); 2]) }),
        to_worker::Word::Stop(wire::Attempt { task: 1, attempt: 1 }),
        to_worker::Word::Welcome(wire::Welcome { worker: 1, run: "digits-1".into(), ..wire::Welcome::default() }),
    ];
    let up = up.into_iter().map(|word| FromWorker { word: Some(word) }.encode_to_vec());
    up.chain(down.into_iter().map(|word| ToWorker { word: Some(word) }.encode_to_vec())).collect()
}

#[test]
fn damaged_messages_are_read_or_refused() {
    damaged(1, 20_000, &all_messages(), |bytes| {
        read(bytes, |message: FromWorker| match message.word {
            Some(from_worker::Word::Ended(batch)) => messages(batch.attempts).flatten().for_each(read_end),
            Some(from_worker::Word::Progress(progress)) => drop(wire::report(progress)),
            _ => {}
        });
        read(bytes, |message: ToWorker| {
            if let Some(to_worker::Word::Start(batch)) = message.word {
                for start in wire::starts(batch).flatten() {
                    let params = serde_json::from_slice::<serde_json::Value>(&start.params);
                    drop((wire::number(start.attempt), wire::key(&start.key), wire::inputs(&start.inputs), params));
                    crate::join_trace(&tracing::Span::none(), &start.trace);
                }
            }
        });
    });
}

proptest! {
    #[test]
    fn any_bytes_can_be_read(bytes in any::<Vec<u8>>()) {
        read(&bytes, |message: wire::Artifact| drop(wire::reference(Some(&message))));
        read(&bytes, |message: wire::Attempt| drop(wire::number(Some(message))));
        read(&bytes, |message: wire::Progress| drop(wire::report(message)));
        read(&bytes, |message: wire::Start| drop((wire::inputs(&message.inputs), wire::key(&message.key))));
        read_end(bytes.clone().into());
        read(&bytes, |_: wire::FromWorker| ());
        read(&bytes, |_: wire::ToWorker| ());
        read(&bytes, |_: wire::CreatePart| ());
        read(&bytes, |_: wire::Listing| ());
    }

    /// Bytes that nearly are a message.
    #[test]
    fn a_message_with_a_wrong_byte_can_be_read(word in any_word(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = FromWorker { word: Some(word) }.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read(&bytes, |message: FromWorker| match message.word {
            Some(from_worker::Word::Ended(batch)) => messages(batch.attempts).flatten().for_each(read_end),
            Some(from_worker::Word::Progress(progress)) => drop(wire::report(progress)),
            _ => {}
        });
    }

    #[test]
    fn no_words_of_a_worker_end_the_hub(words in prop::collection::vec(any_word(), 0..6), polite in any::<bool>()) {
        static SCENE: LazyLock<Scene> = LazyLock::new(Scene::new);
        let mut all: Vec<from_worker::Word> = polite.then(hello).into_iter().collect();
        all.extend(words);
        let comes = matches!(all.first(), Some(from_worker::Word::Hello(_)));
        SCENE.say(all);
        if comes {
            SCENE.listen();
        }
        SCENE.is_well();
    }
}

/// Waits in the middle of its work until the test lets it go on.
struct Gate {
    entered: Mutex<mpsc::Sender<()>>,
    opened: Mutex<mpsc::Receiver<()>>,
}

#[test]
fn a_worker_speaks_for_nobody_but_itself() {
    let (entered, comes) = mpsc::channel();
    let (open, opened) = mpsc::channel();
    let gate = Arc::new(Gate { entered: Mutex::new(entered), opened: Mutex::new(opened) });
    let waits = move |progress: Progress| -> Result<Metrics> {
        progress.log("honest words");
        gate.entered.lock().unwrap().send(()).unwrap();
        gate.opened.lock().unwrap().recv_timeout(LONG).unwrap();
        Ok(Metrics::new().with("x", 1.0))
    };
    let next = |before: Metrics| -> Metrics { Metrics::new().with("y", before.get("x").unwrap_or_default() + 1.0) };
    let registry = Registry::new().stage("waits", stage(waits).version(1)).stage("next", stage(next).version(1));
    let registry = Arc::new(registry);
    let text = "name = \"p\"\n[stage.a]\nuse = \"waits\"\n[stage.b]\nuse = \"next\"\nfrom = \"a\"\n";
    let (pipeline, found) = resolve(&SourceFile::new("p.toml", text), &registry, &[]);
    let pipeline = pipeline.unwrap_or_else(|| panic!("{found:?}"));
    let token = Token::generate().unwrap();
    let (say_address, hear_address) = mpsc::channel();
    let run_it = {
        let (registry, token) = (registry.clone(), token.clone());
        move || {
            let elsewhere = Elsewhere {
                listen: "127.0.0.1:0".into(),
                open: true,
                token,
                pools: Vec::new(),
                memory: 0,
                cache: None,
            };
            let options = Options { cores: 0, elsewhere: Some(elsewhere), ..Options::default() };
            let mut lines = Vec::new();
            let mut sink = |line: &Line| {
                if let Event::Listening { address } = &line.event {
                    say_address.send(address.parse::<SocketAddr>().unwrap()).unwrap();
                }
                lines.push(format!("{:?}", line.event));
            };
            let report = run(&pipeline, &registry, &Store::memory(), &options, &mut sink).unwrap();
            (report, lines)
        }
    };
    let running = std::thread::spawn(run_it);
    let address = hear_address.recv_timeout(LONG).unwrap();
    let worker = options(address, &token);
    std::thread::scope(|scope| {
        let honest = scope.spawn(|| work(&registry, &worker, &mut |_| {}));
        comes.recv_timeout(LONG).unwrap();
        // Every attempt that there may be has ended, it says, in every way.
        let mut words = vec![hello()];
        for (task, attempt) in (0..8).flat_map(|task| (0..4).map(move |attempt| (task, attempt))) {
            let number = Some(wire::Attempt { task, attempt });
            let line = Some("a lie".into());
            words.push(from_worker::Word::Progress(wire::Progress {
                attempt: number,
                line,
                ..wire::Progress::default()
            }));
            words.push(ended_word(done(task, attempt, artifact(b"lie"), b"lie")));
            let end =
                Some(ended::End::Failed(wire::Failed { message: "a lie".into(), fault: 1, ..wire::Failed::default() }));
            words.push(ended_word(wire::Ended { end, ..done(task, attempt, artifact(b"lie"), b"lie") }));
        }
        say(&mut client(address, &token), words);
        open.send(()).unwrap();
        let (report, lines) = running.join().unwrap();
        assert!(report.succeeded(), "{lines:?}");
        let said = lines.join("\n");
        assert!(said.contains("honest words") && !said.contains("a lie"), "{said}");
        let sum = report.stages.iter().find_map(|stage| stage.metrics.get("y"));
        assert_eq!(sum, Some(2.0));
        honest.join().unwrap().unwrap();
    });
}
