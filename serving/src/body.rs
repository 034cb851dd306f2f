//! Bodies of requests: read to their end, with a limit and in limited time, before anything is answered.

use crate::Limits;
use crate::http::House;
use crate::refusal::Refusal;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use ropeway_framework::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

/// The most that is read, only to be thrown away, of a body that is too large: a client that still writes when the
/// connection closes may not see the answer.
const DRAIN: usize = 256 << 20;

/// Reads the body of a request, and then has it answered.
///
/// For all routes, also those that need no body: a connection whose request was not read to its end can't carry
/// another one, and a client that has its answer sends the next request on it.
pub(crate) async fn first(State(house): State<Arc<House>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match read(body, &parts.headers, &house.limits).await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(refusal) => {
            let mut response = refusal.into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// A whole body, unless it is too large or too slow.
async fn read(body: Body, headers: &HeaderMap, limits: &Limits) -> Result<Bytes, Refusal> {
    let length: Option<usize> = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let waits = headers.contains_key(header::EXPECT);
    if waits && length.is_some_and(|length| length > limits.body_bytes()) {
        return Err(too_large(limits));
    }
    tokio::time::timeout(limits.read, collect(body, length, limits)).await.unwrap_or_else(|_| {
        let error = Error::usage(format!("the body did not arrive within {:?}", limits.read));
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, error))
    })
}

async fn collect(mut body: Body, length: Option<usize>, limits: &Limits) -> Result<Bytes, Refusal> {
    let limit = limits.body_bytes();
    let mut seen = 0_usize;
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Refusal::from(Error::usage(format!("the body broke off: {error}"))))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > limit {
            whole = BytesMut::new();
            if seen - limit > DRAIN {
                break;
            }
        } else if Some(seen) == length && whole.is_empty() {
            return Ok(data);
        } else {
            if whole.is_empty() {
                whole.reserve(length.unwrap_or(0).min(limit).min(1 << 20));
            }
            whole.extend_from_slice(&data);
        }
    }
    if seen > limit { Err(too_large(limits)) } else { Ok(whole.freeze()) }
}

fn too_large(limits: &Limits) -> Refusal {
    let error = Error::usage(format!("the request is larger than {} bytes", limits.body_bytes()));
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error.help("send fewer rows at once"))
}
