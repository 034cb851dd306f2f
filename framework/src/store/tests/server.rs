//! A real S3 server as a process of its own, which can be killed and started again.

use super::super::Store;
use super::super::backend::Backend;
use super::super::objects::Objects;
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BUCKET: &str = "bucket";

/// How long the server may take to start, and how long a client waits for an answer that never comes.
const START: Duration = Duration::from_secs(60);

/// A running server; dropping it ends the process and removes its files.
pub(in crate::store) struct Server {
    command: String,
    folder: TempDir,
    address: SocketAddr,
    process: Mutex<Child>,
}

impl Server {
    /// Starts a server, or says that there is none.
    pub(in crate::store) fn start() -> Option<Self> {
        let Ok(command) = std::env::var("ROPEWAY_TEST_S3") else {
            println!("SKIPPED: ROPEWAY_TEST_S3 names no S3 server (see framework/src/store/tests/mod.rs)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let process = Mutex::new(spawn(&command, &folder, address));
        Some(Self { command, folder, address, process })
    }

    pub(in crate::store) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it with SIGKILL, in the middle of whatever it does, and starts it again on its files.
    pub(in crate::store) fn kill_and_restart(&self) {
        let mut process = self.process.lock().unwrap();
        end(&mut process);
        *process = spawn(&self.command, &self.folder, self.address);
    }

    /// Kills it.
    pub(in crate::store) fn kill(&self) {
        end(&mut self.process.lock().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also when a test has failed, and holds the lock.
        end(self.process.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

fn end(process: &mut Child) {
    // It may have ended already.
    let _ = process.kill();
    let _ = process.wait();
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts the process and waits until it answers.
fn spawn(command: &str, folder: &TempDir, address: SocketAddr) -> Child {
    let (port, folder) = (address.port().to_string(), folder.path().display().to_string());
    let mut words = command.split_whitespace().map(|word| word.replace("{port}", &port).replace("{folder}", &folder));
    let program = words.next().unwrap();
    let mut command = Command::new(&program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("can't start {program}: {error}"));
    let begun = Instant::now();
    while !answers(address) {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && begun.elapsed() < START, "{program} does not serve {address}: {ended:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Whether the server answers when it is told to create the bucket, which may be there already.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let asked = write!(stream, "PUT /{BUCKET} HTTP/1.0\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n");
    asked.is_ok() && stream.read_exact(&mut [0; 12]).is_ok()
}

/// The options of a store whose server is at an address.
pub(in crate::store) fn options(address: SocketAddr) -> Vec<(String, String)> {
    let options = [
        ("aws_endpoint", format!("http://{address}")),
        ("aws_allow_http", "true".to_owned()),
        ("aws_region", "us-east-1".to_owned()),
        ("aws_access_key_id", "test".to_owned()),
        ("aws_secret_access_key", "test".to_owned()),
    ];
    options.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The address of a store under a prefix.
pub(in crate::store) fn url(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

/// Opens a store as [`Store::open_with`] does, but with pauses that fit a server on this machine.
pub(in crate::store) fn hurried(address: SocketAddr, prefix: &str) -> Store {
    let pause = Duration::from_millis(5);
    let backoff = BackoffConfig { init_backoff: pause, max_backoff: 20 * pause, base: 2.0 };
    let client = ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(5));
    let s3 = AmazonS3Builder::new()
        .with_endpoint(format!("http://{address}"))
        .with_bucket_name(BUCKET)
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_client_options(client)
        .with_retry(RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: START })
        .build()
        .unwrap();
    let objects = Objects::cloud(url(prefix), Arc::new(PrefixStore::new(s3, prefix)));
    // A server that starts again is waited for as long as the store is patient, however often it is asked meanwhile.
    Store::new(Backend::Objects(objects.hurried(u32::MAX)))
}
