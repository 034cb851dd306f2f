//! A stage that acts on the outside world once, however often it is attempted: it writes a letter, then its connection
//! breaks twice. The letter goes out once, and every attempt knows its number.
//!
//! `cargo run --release --example once`

#![allow(clippy::print_stdout, reason = "a program says what it found")]

use ropeway::prelude::*;
use ropeway::run::{Line, Options, run};
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Letters that went out: the outside world.
static LETTERS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

/// Sends a letter and gives its number. A real service would know the token, and not send a letter twice.
fn send(text: &str, token: &str) -> Result<usize> {
    let mut letters = LETTERS.lock().map_err(|_| Error::new("the letter box is broken"))?;
    letters.push(format!("{text} ({})", token.get(..8).unwrap_or(token)));
    Ok(letters.len())
}

/// Says that the wine is there.
fn notify(wine: Frame, once: Once) -> Result<Metrics> {
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed) + 1;
    let letter: usize = once.run("letter", |token| send(&format!("{} wines have come", wine.rows()), token))?;
    println!("attempt {attempt}: letter {letter}");
    if attempt < 3 {
        return Err(Error::new("the connection broke"));
    }
    Ok(Metrics::new().with("letter", letter as f64))
}

fn main() -> Result<()> {
    let registry = Arc::new(ropeway::standard().stage("notify", notify));
    let pipeline = Pipeline::build("letter")
        .stage("wine", "dataset.wine")
        .stage("notify", "notify")
        .from("wine")
        .needs(json!({ "retries": 2 }))
        .resolve(&registry)?;
    run(&pipeline, &registry, &Store::memory(), &Options::default(), &mut |_: &Line| {})?;
    let letters = LETTERS.lock().map_err(|_| Error::new("the letter box is broken"))?;
    println!("{} sent: {}", letters.len(), letters.join(", "));
    Ok(())
}
