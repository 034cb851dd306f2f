//! Errors as answers.

use crate::protocol::ErrorBody;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ropeway_framework::{Error, Fault};

/// A request that is not fulfilled: a status, and a reason in words.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: Error,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error }
    }

    pub(crate) fn not_found(error: Error) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.whose() {
            Fault::Usage => StatusCode::BAD_REQUEST,
            Fault::Unavailable | Fault::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Stage | Fault::Device | Fault::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), error = %self.error, "a request failed");
        }
        let error = match self.error.advice() {
            Some(help) => format!("{}; {help}", self.error),
            None => self.error.to_string(),
        };
        let mut response = (self.status, Json(ErrorBody { error })).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
