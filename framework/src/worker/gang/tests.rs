//! What every way to exchange must do: members come and go at any step, and the result is the same.

use super::*;
use crate::data::Digest;
use crate::runtime;
use crate::stage::Gang;
use crate::worker::peers::Counter;
use rand::RngExt;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc;
use std::thread;

const STEPS: u64 = 60;
const SHARDS: usize = 8;
/// Longer than any test takes.
const LATE: Duration = Duration::from_secs(60);

/// How the members reach each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Memory,
    Connections,
    /// The coordinator believes that they share a machine, and they don't.
    Mistaken,
}

const WAYS: [Way; 3] = [Way::Memory, Way::Connections, Way::Mistaken];

enum Said {
    Present(Present),
    Reached(u64),
    Left,
    Done(u64),
}

/// A worker, for one member.
struct Place {
    seats: Arc<Seats>,
    seat: Arc<Seat>,
    counter: Counter,
    cancel: Cancel,
}

/// The coordinator of one gang.
struct Table {
    way: Way,
    token: Token,
    places: BTreeMap<usize, Place>,
    present: BTreeMap<usize, Present>,
    epoch: u64,
    mouth: mpsc::Sender<(usize, Said)>,
    ear: mpsc::Receiver<(usize, Said)>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Table {
    fn new(way: Way) -> Self {
        let (mouth, ear) = mpsc::channel();
        let token = Token::generate().unwrap();
        let (places, present) = (BTreeMap::new(), BTreeMap::new());
        Self { way, token, places, present, epoch: 0, mouth, ear, threads: Vec::new() }
    }

    fn seat(&mut self, id: usize) -> (Gang, Cancel) {
        let seats = Arc::new(Seats::default());
        let counter = Counter::open("127.0.0.1:1", &self.token, seats.clone());
        let counter = runtime().unwrap().block_on(counter).unwrap();
        let mouth = self.mouth.clone();
        let say = move |present| drop(mouth.send((id, Said::Present(present))));
        let seat = seats.take(Key(Digest::of(b"gang")), self.token.clone(), say);
        let cancel = Cancel::default();
        let gang = Gang::new(Arc::new(AtSeat(seat.clone())));
        self.places.insert(id, Place { seats, seat, counter, cancel: cancel.clone() });
        (gang, cancel)
    }

    /// Starts a member; it leaves before a step, if that is said.
    fn start(&mut self, id: usize, leaves: Option<u64>) {
        let (gang, cancel) = self.seat(id);
        let mouth = self.mouth.clone();
        self.threads.push(thread::spawn(move || {
            let said = match count(&gang, &cancel, leaves, |step| drop(mouth.send((id, Said::Reached(step))))) {
                Ok(Some(value)) => Said::Done(value),
                _ => Said::Left,
            };
            let _ = mouth.send((id, said));
        }));
    }

    fn gather(&mut self) {
        self.epoch += 1;
        let chair = |(id, present): (&usize, &Present)| {
            let place = &self.places[id];
            let machine = if self.way == Way::Connections { format!("machine {id}") } else { kernel() };
            let hidden = self.way == Way::Mistaken && !present.memory.is_empty();
            let memory = if hidden { "1/1/0".to_owned() } else { present.memory.clone() };
            Chair { peer: place.counter.address().to_string(), machine, seat: present.seat, memory }
        };
        let chairs: Vec<Chair> = self.present.iter().map(chair).collect();
        for (rank, id) in self.present.keys().enumerate() {
            self.places[id].seat.hear(Circle { epoch: self.epoch, rank, chairs: chairs.clone() });
        }
    }

    fn hear(&mut self) -> (usize, Said) {
        self.ear.recv_timeout(LATE).expect("something happens")
    }
}

fn everything(bytes: usize, size: usize) -> Vec<Range<usize>> {
    vec![0..bytes; size]
}

/// Counts together: each member computes its shards of every step.
fn count(gang: &Gang, cancel: &Cancel, leaves: Option<u64>, reached: impl Fn(u64)) -> Result<Option<u64>> {
    let (mut step, mut value) = (0u64, 1u64);
    'circle: loop {
        let mut circle = gang.meet(cancel)?;
        let size = circle.size();
        let words: &mut [u64] = bytemuck::cast_slice_mut(circle.outgoing(16)?);
        words.copy_from_slice(&[step, value]);
        if !circle.exchange(&everything(16, size))? {
            continue;
        }
        let told = (0..size).map(|rank| bytemuck::cast_slice::<_, u64>(circle.incoming(rank)).to_vec());
        let farthest = told.max_by_key(|words| words[0]).unwrap();
        if !circle.is_whole() {
            continue;
        }
        (step, value) = (farthest[0], farthest[1]);
        while step < STEPS {
            reached(step);
            if leaves == Some(step) {
                return Ok(None);
            }
            let (rank, bytes) = (circle.rank(), SHARDS * 8);
            let mine = SHARDS * rank / size..SHARDS * (rank + 1) / size;
            let words: &mut [u64] = bytemuck::cast_slice_mut(circle.outgoing(bytes)?);
            words.fill(0);
            mine.for_each(|shard| words[shard] = (value ^ step).wrapping_mul(shard as u64 * 2 + 3) >> 7);
            if !circle.exchange(&everything(bytes, size))? {
                continue 'circle;
            }
            let shard = |shard| {
                let given = |rank| bytemuck::cast_slice::<_, u64>(circle.incoming(rank))[shard];
                (0..size).fold(0u64, |sum, rank| sum.wrapping_add(given(rank)))
            };
            let next = (0..SHARDS).fold(value, |value, index| value.rotate_left(5).wrapping_add(shard(index)));
            if !circle.is_whole() {
                continue 'circle;
            }
            (step, value) = (step + 1, next);
        }
        return Ok(Some(value));
    }
}

/// What one member alone counts.
fn alone() -> u64 {
    count(&Gang::default(), &Cancel::default(), None, |_| {}).unwrap().unwrap()
}

/// Members that start together, and those that come or go before a step.
fn run(way: Way, together: usize, leaves: &BTreeMap<usize, u64>, joins: &[u64]) -> Vec<u64> {
    let mut table = Table::new(way);
    (0..together).for_each(|id| table.start(id, leaves.get(&id).copied()));
    let (mut results, mut farthest, mut next, mut formed) = (Vec::new(), 0, together, false);
    let mut running = together;
    while running > 0 {
        let (id, said) = table.hear();
        match said {
            Said::Present(present) => {
                let known = table.present.insert(id, present.clone()).is_some();
                if (formed || table.present.len() == running) && !(known && present.after < table.epoch) {
                    formed = true;
                    table.gather();
                }
            }
            Said::Reached(step) => farthest = farthest.max(step),
            Said::Left => {
                running -= 1;
                table.present.remove(&id);
                table.places.remove(&id);
                if !table.present.is_empty() && results.is_empty() {
                    table.gather();
                }
            }
            Said::Done(value) => {
                running -= 1;
                results.push(value);
                // The task is done: the others are stopped.
                table.places.values().for_each(|place| place.cancel.cancel());
            }
        }
        while next - together < joins.len() && farthest >= joins[next - together] && results.is_empty() {
            table.start(next, leaves.get(&next).copied());
            next += 1;
            running += 1;
        }
    }
    table.threads.into_iter().for_each(|thread| thread.join().unwrap());
    results
}

#[test]
fn any_number_of_members_counts_the_same() {
    for way in WAYS {
        for members in [1, 2, 3, 5, 8] {
            let results = run(way, members, &BTreeMap::new(), &[]);
            assert!(!results.is_empty() && results.iter().all(|result| *result == alone()), "{way:?} {members}");
        }
    }
}

#[test]
fn members_that_come_and_go_change_nothing() {
    for way in WAYS {
        for seed in 0..12 {
            let mut rng = crate::stage::Seed::new(seed, "gang").rng("test");
            let together = rng.random_range(1..5);
            let mut joins: Vec<u64> = (0..rng.random_range(1..5)).map(|_| rng.random_range(0..STEPS)).collect();
            joins.sort_unstable();
            // One stays, so that there is a result.
            let mut leaves = BTreeMap::new();
            for id in 1..together + joins.len() {
                if rng.random_range(0..2) == 0 {
                    leaves.insert(id, rng.random_range(0..STEPS));
                }
            }
            let results = run(way, together, &leaves, &joins);
            assert!(!results.is_empty() && results.iter().all(|result| *result == alone()), "{way:?} {seed}");
        }
    }
}

#[test]
fn each_gets_its_part_of_any_size() {
    const SIZES: [usize; 7] = [0, 8, 4096, 3 << 20, 24, 5 << 20, 16];
    for way in [Way::Memory, Way::Connections] {
        let mut table = Table::new(way);
        let gangs: Vec<_> = (0..3).map(|id| table.seat(id)).collect();
        let members: Vec<_> = gangs
            .into_iter()
            .map(|(gang, cancel)| {
                thread::spawn(move || {
                    let mut circle = gang.meet(&cancel).unwrap();
                    let rank = circle.rank();
                    for (turn, bytes) in SIZES.into_iter().enumerate() {
                        // For each of the three a part of its own; what came before can be read yet.
                        let (given, last) = circle.answer(3 * bytes).unwrap();
                        for (from, part) in last.into_iter().enumerate() {
                            assert_eq!(part.len(), if turn > 0 { SIZES[turn - 1] } else { 0 });
                            let expected = |turn: usize| (turn * 9 + from * 3 + rank) as u8;
                            assert!(part.iter().all(|byte| *byte == expected(turn - 1)));
                        }
                        for (to, part) in given.chunks_mut(bytes.max(1)).enumerate() {
                            part.fill((turn * 9 + rank * 3 + to) as u8);
                        }
                        let parts = [0, 1, 2].map(|to| to * bytes..(to + 1) * bytes);
                        assert!(circle.exchange(&parts).unwrap());
                        for from in 0..3 {
                            let part = circle.incoming(from);
                            assert_eq!(part.len(), bytes);
                            assert!(part.iter().all(|byte| *byte == (turn * 9 + from * 3 + rank) as u8));
                        }
                        assert!(circle.is_whole());
                    }
                    assert!(circle.exchange(&[0..1, 0..0, 0..0]).is_err(), "nothing is given");
                    assert!(circle.exchange(&everything(0, 1)).is_err(), "not for all");
                })
            })
            .collect();
        for _ in 0..3 {
            let (id, Said::Present(present)) = table.hear() else { panic!("nobody speaks") };
            table.present.insert(id, present);
        }
        table.gather();
        members.into_iter().for_each(|member| member.join().unwrap());
    }
}

#[test]
fn who_overwrites_what_another_still_reads_is_found_out() {
    let mut table = Table::new(Way::Memory);
    let [first, second] = [0, 1].map(|id| table.seat(id));
    let (slow, quick) = (mpsc::channel(), mpsc::channel::<()>());
    let sleeper = thread::spawn(move || {
        let mut circle = first.0.meet(&first.1).unwrap();
        circle.outgoing(8).unwrap().fill(1);
        assert!(circle.exchange(&everything(8, 2)).unwrap() && circle.is_whole());
        slow.0.send(()).unwrap();
        // It is cut off here, while the other goes on alone.
        quick.1.recv().unwrap();
        assert!(!circle.is_whole());
    });
    let other = thread::spawn(move || {
        let mut circle = second.0.meet(&second.1).unwrap();
        circle.outgoing(8).unwrap().fill(2);
        assert!(circle.exchange(&everything(8, 2)).unwrap());
        drop(circle);
        let mut circle = second.0.meet(&second.1).unwrap();
        for _ in 0..2 {
            circle.outgoing(8).unwrap().fill(3);
            assert!(circle.exchange(&everything(8, 1)).unwrap());
        }
        quick.0.send(()).unwrap();
    });
    for _ in 0..2 {
        let (id, Said::Present(present)) = table.hear() else { panic!("nobody speaks") };
        table.present.insert(id, present);
    }
    table.gather();
    slow.1.recv().unwrap();
    table.present.remove(&0);
    table.gather();
    other.join().unwrap();
    sleeper.join().unwrap();
}

#[test]
fn a_stopped_member_waits_no_longer() {
    for way in [Way::Memory, Way::Connections] {
        let mut table = Table::new(way);
        let (gang, cancel) = table.seat(0);
        let (other, _) = table.seat(1);
        let (met, waits) = mpsc::channel();
        let member = thread::spawn(move || {
            let mut circle = gang.meet(&cancel).unwrap();
            circle.outgoing(8).unwrap().fill(0);
            met.send(()).unwrap();
            circle.exchange(&everything(8, 2)).unwrap_err()
        });
        let idle = thread::spawn(move || drop(other.meet(&Cancel::default())));
        for _ in 0..2 {
            let (id, Said::Present(present)) = table.hear() else { panic!("nobody speaks") };
            table.present.insert(id, present);
        }
        table.gather();
        idle.join().unwrap();
        waits.recv().unwrap();
        table.places[&0].cancel.cancel();
        assert_eq!(member.join().unwrap().whose(), crate::Fault::Interrupted);
        assert!(table.places[&0].seats.get(1).is_some());
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_disturbs_nobody() {
    use crate::worker::peers::peer;
    use crate::worker::wire::{Part, key_bytes};
    use tonic::Code;

    let mut table = Table::new(Way::Connections);
    let _gang = table.seat(0);
    let place = &table.places[&0];
    let address = place.counter.address().to_string();
    let key = key_bytes(Key(Digest::of(b"gang")));
    let head = Part { seat: 1, key: key.clone(), ..Part::default() };
    let piece = |bytes: u64, content: &'static [u8]| Part { bytes, content: content.into(), ..Part::default() };
    let other = Part { turn: 9, ..piece(6, b"def") };
    let cases: [(Code, Vec<Part>); 8] = [
        (Code::Ok, vec![]),
        (Code::NotFound, vec![Part { seat: 2, ..head.clone() }]),
        (Code::NotFound, vec![Part { key: key_bytes(Key(Digest::of(b"another"))), ..head.clone() }]),
        (Code::InvalidArgument, vec![head.clone(), piece(2, b"abc")]),
        (Code::InvalidArgument, vec![head.clone(), piece(6, b"abc")]),
        (Code::InvalidArgument, vec![head.clone(), piece(6, b"abc"), other]),
        (Code::InvalidArgument, vec![head.clone(), piece(6, b"abc"), piece(6, b"")]),
        (Code::InvalidArgument, vec![head.clone(), piece(u64::MAX, b"abc")]),
    ];
    runtime().unwrap().block_on(async {
        for (code, parts) in cases {
            let mut client = peer(&address, &table.token).unwrap();
            let status =
                client.give(tokio_stream::iter(parts.clone())).await.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_eq!(status, code, "{parts:?}");
        }
        let mut stranger = peer(&address, &Token::generate().unwrap()).unwrap();
        assert!(stranger.give(tokio_stream::iter(vec![head.clone()])).await.is_err());
        // What comes after all that is taken.
        let good = vec![head, Part { epoch: 1, turn: 1, ..piece(3, b"abc") }];
        peer(&address, &table.token).unwrap().give(tokio_stream::iter(good)).await.unwrap();
    });
    let got = table.places[&0].seat.mailbox.take((1, 1, 0), || Ok(true)).unwrap().unwrap();
    assert_eq!(got.as_slice(), b"abc");
}
