//! The client's side of HTTP: requests that are tried again while a server is busy, and failures in words.

use crate::binary::HEADER;
use crate::protocol::ErrorBody;
use ropeway_framework::{Error, Result};
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

/// The most that is read of an answer.
const MAX_ANSWER: u64 = 1 << 30;
/// How often a request is sent to a server that is busy.
const TRIES: usize = 5;
/// The longest wait between two tries, in seconds.
const MAX_WAIT: usize = 10;

/// A server, seen from a client.
#[derive(Debug)]
pub(crate) struct Transport {
    agent: Agent,
    base: String,
}

impl Transport {
    /// The server at a URL. Nothing is sent yet.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let wrong = || Error::usage(format!("{url:?} is no URL of a server")).help("such as http://127.0.0.1:8080");
        let uri: Uri = full.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .user_agent(concat!("ropeway/", env!("CARGO_PKG_VERSION")));
        // No proxy knows this machine's own addresses.
        if matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
            config = config.proxy(None);
        }
        let base = full.trim_end_matches('/').trim_end_matches("/v2").to_owned();
        Ok(Self { agent: config.build().new_agent(), base })
    }

    /// The URL before `/v2`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request, again if the server is busy or had closed the connection. A body comes with the length of its
    /// JSON, where it has binary data; so does the answer.
    pub(crate) fn exchange(
        &self,
        path: &str,
        body: Option<(&[u8], Option<usize>)>,
    ) -> Result<(Option<usize>, Vec<u8>)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = self.send(path, body).or_else(|error| match closed(&error) {
                true => self.send(path, body),
                false => Err(error),
            });
            let mut response = sent.map_err(|error| self.unreachable(error))?;
            let number = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()?.parse().ok());
            let (status, length, wait): (_, _, Option<usize>) =
                (response.status(), number(HEADER), number("retry-after"));
            let read = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
            let answer = read.map_err(|error| self.unreachable(error))?;
            if status.is_success() {
                return Ok((length, answer));
            }
            match wait {
                Some(seconds) if status.as_u16() == 503 && tries < TRIES => {
                    std::thread::sleep(Duration::from_secs(seconds.min(MAX_WAIT) as u64));
                }
                _ => return Err(self.refused(path, status.as_u16(), &answer)),
            }
        }
    }

    fn send(&self, path: &str, body: Option<(&[u8], Option<usize>)>) -> Result<Response<Body>, ureq::Error> {
        let url = format!("{}{path}", self.base);
        let Some((body, header)) = body else { return self.agent.get(url).call() };
        let request = self.agent.post(url);
        match header {
            Some(length) => request.content_type("application/octet-stream").header(HEADER, length.to_string()),
            None => request.content_type("application/json"),
        }
        .send(body)
    }

    fn unreachable(&self, error: ureq::Error) -> Error {
        let refused = matches!(&error, ureq::Error::Io(io) if io.kind() == ErrorKind::ConnectionRefused);
        let failed = Error::unavailable(format!("can't reach the server at {}: {error}", self.base));
        match error {
            _ if refused => failed.help("is it running? `ropeway serve` starts one"),
            ureq::Error::HostNotFound => failed.help("is the host's name right?"),
            ureq::Error::TlsRequired | ureq::Error::Tls(_) => failed.help("https:// is not supported; use http://"),
            _ => failed,
        }
    }

    fn refused(&self, path: &str, status: u16, answer: &[u8]) -> Error {
        let text = match serde_json::from_slice::<ErrorBody>(answer) {
            Ok(body) => body.error,
            Err(_) => format!("no reason is given at {path}; is it a server of the Open Inference Protocol?"),
        };
        let message = format!("the server at {} answers {status}: {text}", self.base);
        if status >= 500 { Error::unavailable(message) } else { Error::usage(message) }
    }
}

/// Whether a connection ended before an answer began. A server may close one that rests in the very moment in which a
/// request is sent on it, and no request here changes anything, so each is sent once more.
fn closed(error: &ureq::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error, ureq::Error::Io(io) if
        matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// A name as one segment of a URL's path.
pub(crate) fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
        text
    })
}
