//! The routes of the protocol.

use crate::binary::HEADER;
use crate::body;
use crate::endpoint::names;
use crate::infer::{decode, encode};
use crate::protocol::{IndexEntry, ModelReady, ServerMetadata};
use crate::refusal::Refusal;
use crate::runner::{Runner, offload};
use crate::{Endpoint, Limits};
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ropeway_framework::{Error, nearest};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the routes share.
pub(crate) struct House {
    /// By name; the versions of one name in ascending order.
    pub(crate) models: BTreeMap<String, Vec<Arc<Endpoint>>>,
    pub(crate) runner: Runner,
    pub(crate) limits: Limits,
    /// Whether new requests are welcome; false once the server is told to stop.
    pub(crate) ready: AtomicBool,
}

type Shared = State<Arc<House>>;
type Target = Result<Path<Model>, PathRejection>;

/// The model that a path names.
#[derive(Deserialize)]
pub(crate) struct Model {
    model: String,
    version: Option<String>,
}

pub(crate) fn router(house: Arc<House>) -> Router {
    let mut router = Router::new()
        .route("/v2", get(server))
        .route("/v2/", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/repository/index", post(index).get(index));
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        router = router
            .route(model, get(model_metadata))
            .route(&format!("{model}/ready"), get(model_ready))
            .route(&format!("{model}/infer"), post(infer));
    }
    let router = router.fallback(no_route).method_not_allowed_fallback(no_method);
    router.layer(from_fn_with_state(house.clone(), body::first)).layer(DefaultBodyLimit::disable()).with_state(house)
}

impl House {
    fn find(&self, target: Target) -> Result<&Arc<Endpoint>, Refusal> {
        let Path(target) = target.map_err(|error| Refusal::new(error.status(), Error::usage(error.body_text())))?;
        let Some(versions) = self.models.get(&target.model) else {
            let error = Error::usage(format!("there is no model {:?}", target.model));
            return Err(Refusal::not_found(match nearest(&target.model, self.models.keys().map(String::as_str)) {
                Some(near) => error.help(format!("did you mean {near:?}?")),
                None => error.help(format!("the models are {}", names(self.models.keys().map(String::as_str)))),
            }));
        };
        let found = match &target.version {
            None => versions.last(),
            Some(version) => versions.iter().find(|endpoint| endpoint.version() == version),
        };
        found.ok_or_else(|| {
            let version = target.version.unwrap_or_default();
            let error = Error::usage(format!("model {:?} has no version {version:?}", target.model));
            Refusal::not_found(error.help(format!("its versions are {}", names(versions.iter().map(|e| e.version())))))
        })
    }

    fn versions(&self, name: &str) -> Vec<String> {
        self.models.get(name).into_iter().flatten().map(|endpoint| endpoint.version().to_owned()).collect()
    }
}

async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "ropeway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: vec!["binary_tensor_data".to_owned()],
    })
}

async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

async fn ready(State(house): Shared) -> Response {
    let ready = house.ready.load(Ordering::Relaxed);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready }))).into_response()
}

async fn index(State(house): Shared) -> Json<Vec<IndexEntry>> {
    let endpoints = house.models.values().flatten();
    let entries = endpoints.map(|endpoint| IndexEntry {
        name: endpoint.name().to_owned(),
        version: endpoint.version().to_owned(),
        state: "READY".to_owned(),
    });
    Json(entries.collect())
}

async fn model_metadata(State(house): Shared, target: Target) -> Result<Response, Refusal> {
    let endpoint = house.find(target)?;
    Ok(Json(endpoint.metadata(house.versions(endpoint.name()))).into_response())
}

async fn model_ready(State(house): Shared, target: Target) -> Result<Response, Refusal> {
    let endpoint = house.find(target)?;
    let ready = house.ready.load(Ordering::Relaxed);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(ModelReady { name: endpoint.name(), ready })).into_response())
}

async fn infer(State(house): Shared, target: Target, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let endpoint = house.find(target)?.clone();
    let header = json_length(&headers)?;
    if let Some(coding) = headers.get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let error = Error::usage(format!("the content encoding {coding:?} is not supported")).help("send it as it is");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let _place = house.runner.enter()?;

    let (model, size) = (endpoint.clone(), body.len());
    let (asked, rows) = offload(size, move || decode(&model, &body, header)).await??;
    let frame = house.runner.apply(endpoint.clone(), rows).await?;
    let size = frame.batches().iter().map(|batch| batch.get_array_memory_size()).sum();
    let answer = offload(size, move || encode(&endpoint, asked, &frame)).await??;

    let kind = if answer.header.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = Body::from(answer.body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = answer.header {
        response.headers_mut().insert(HeaderName::from_static(HEADER), HeaderValue::from(length));
    }
    Ok(response)
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let wrong = || Error::usage(format!("the header Inference-Header-Content-Length is {value:?}, no number of bytes"));
    length.map(Some).ok_or_else(|| wrong().into())
}

async fn no_route(uri: Uri) -> Refusal {
    let error = Error::usage(format!("there is no {:?} here", uri.path()));
    Refusal::not_found(error.help("requests go to /v2/models/MODEL/infer; /v2/repository/index lists the models"))
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    let other = if method == Method::POST { "GET" } else { "POST" };
    let error = Error::usage(format!("{:?} does not answer {method}", uri.path())).help(format!("use {other}"));
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
