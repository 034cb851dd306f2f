//! The store on a real S3 server, with real failures between the two.
//!
//! `ROPEWAY_TEST_S3` is the command that starts the server, with `{port}` and `{folder}` where those belong:
//!
//! ```text
//! pip install ministack==1.5.33
//! export ROPEWAY_TEST_S3="env SERVICES=s3 S3_PERSIST=1 S3_DATA_DIR={folder} TMPDIR={folder} \
//!     BIND_HOST=127.0.0.1 GATEWAY_PORT={port} ministack"
//! cargo test --release -p ropeway-framework --features s3 --lib
//! ```
//!
//! It must honour `If-None-Match: *`, also when two such requests race, and keep what it has when it is killed.
//! Without the variable these tests say that they are skipped.

mod ambiguous;
mod killed;
pub(super) mod proxy;
pub(super) mod server;
mod whole_run;
