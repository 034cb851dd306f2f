//! The `ropeway` binary: the standard stages and every command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ropeway::main(ropeway::standard())
}
