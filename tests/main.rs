//! One binary of tests: the program as people use it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests end where they fail"
)]

mod bad_input;
mod broken_store;
mod command_line;
mod configs;
mod coordinator;
mod devices;
mod examples;
mod gangs;
mod kills;
mod lab;
mod layers;
mod live;
mod locality;
mod network;
mod pools;
mod readme;
mod same_bytes;
mod seen;
mod serving;
mod streams;
mod support;
mod training;
mod workers;
