//! Worker processes of this executable.

use super::Token;
use crate::{Context, Result};
use std::process::{Command, Stdio};

/// Has mimalloc, the program's allocator, take no huge pages for what is small: a worker that idles takes half the memory.
const FRUGAL: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");

/// A worker process that will join the coordinator at `join`, ready to be started. It ends with the process that starts
/// it, however that ends: it has a pipe from it, and ends when that closes.
///
/// # Errors
/// This executable can't be found.
pub(crate) fn command(join: &str, token: &Token, name: &str) -> Result<Command> {
    let program = std::env::current_exe().context("can't find this executable, to start workers from it")?;
    let mut command = Command::new(program);
    command
        .args(["worker", "--leash", "--quiet", "--join", join, "--name", name])
        // Not an argument: those can be read by every user of the machine.
        .env("ROPEWAY_TOKEN", token.to_string())
        .envs(std::env::var_os(FRUGAL.0).is_none().then_some(FRUGAL))
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    Ok(command)
}
