//! Extractors that answer with a problem instead of axum's plain text.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    problem::{Error, FieldError},
    tasks::{IDEMPOTENCY_KEY, IdempotencyKey, TaskId},
};

/// The largest request body that is read, in bytes.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// A JSON body read into `T`.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        if !is_json(request.headers()) {
            return Err(Error::UnsupportedMediaType);
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| Error::Malformed(error.to_string()))?;
        if !value.is_object() {
            // Structs would also be read from arrays, by the order of their fields.
            return Err(Error::Invalid(vec![FieldError::new("", "must be a JSON object")]));
        }
        serde_path_to_error::deserialize(value).map(Self).map_err(|error| wrong_shape(&error))
    }
}

/// The query string as pairs, in the order written.
#[derive(Debug)]
pub struct QueryPairs(pub Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryPairs {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let unreadable = || Error::Invalid(vec![FieldError::new("", "the query string cannot be read")]);
        Query::try_from_uri(&parts.uri).map(|Query(pairs)| Self(pairs)).map_err(|_| unreadable())
    }
}

/// The task an address names. Whatever is no identifier names no task.
#[derive(Debug, Clone, Copy)]
pub struct TaskPath(pub TaskId);

impl<S: Send + Sync> FromRequestParts<S> for TaskPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let unnamed = || Error::NotFound("task at this address".to_owned());
        let Path(id) = Path::<i64>::from_request_parts(parts, state).await.map_err(|_| unnamed())?;
        Ok(Self(TaskId(id)))
    }
}

/// The key of a request that may be repeated, where it has one.
#[derive(Debug)]
pub struct OptionalKey(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for OptionalKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let refused = |message| Error::Invalid(vec![FieldError::new("Idempotency-Key", message)]);
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.next().is_some() {
            return Err(refused("is given more than once".to_owned()));
        }
        IdempotencyKey::try_from(value.as_bytes()).map(|key| Self(Some(key))).map_err(refused)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let written = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = written.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn unread(rejection: &BytesRejection) -> Error {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Error::TooLarge { limit_bytes: BODY_LIMIT_BYTES };
    }
    Error::Malformed("it ended before it was complete".to_owned())
}

fn wrong_shape(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let path = error.path().to_string();
    let field = if path == "." { String::new() } else { path };
    Error::Invalid(vec![FieldError::new(field, error.inner().to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_its_essence() {
        let table = [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonp", false),
            ("", false),
        ];
        for (written, expected) in table {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, written.parse().unwrap())]);
            assert_eq!(is_json(&headers), expected, "{written}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
