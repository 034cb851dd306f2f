//! One binary of tests: the program as people use it.

mod bad_input;
mod command_line;
mod configs;
mod examples;
mod layers;
mod readme;
mod same_bytes;
mod serving;
mod support;
