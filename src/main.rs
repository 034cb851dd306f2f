//! The `ropeway` binary: the standard stages and every command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ropeway::Allocator = ropeway::Allocator;

fn main() -> ExitCode {
    ropeway::main(ropeway::standard())
}
