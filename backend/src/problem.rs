//! The one shape of errors: `application/problem+json` as RFC 9457 defines it.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::storage;

/// Media type of every error response.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong with a request; becomes a [`Problem`] in the response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is found at this address.
    #[error("there is no {0}")]
    NotFound(String),
    /// The address exists, but does not support the request's method.
    #[error("this resource does not support the method {0}")]
    MethodNotAllowed(String),
    /// The body is not JSON, or could not be read.
    #[error("the body is not valid JSON: {0}")]
    Malformed(String),
    /// The body does not say that it is JSON.
    #[error("the body must be sent with the content type application/json")]
    UnsupportedMediaType,
    /// The body is larger than the service reads.
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The largest accepted body.
        limit_bytes: usize,
    },
    /// Well-formed, but some fields have values that are not accepted.
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldError>),
    /// The service cannot answer now, but may later.
    #[error("{0}")]
    Unavailable(String),
    /// The storage failed. Logged, and hidden from the caller.
    #[error("the storage failed")]
    Storage(#[from] storage::Error),
    /// A handler panicked. Logged, and hidden from the caller.
    #[error("a handler panicked: {0}")]
    Panicked(String),
}

/// Why a request failed, as it is counted. Rides on the response to where that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of [`REASONS`].
    pub reason: &'static str,
    /// Fields and parameters that were not accepted, each one of [`FIELDS`].
    pub fields: Vec<&'static str>,
}

/// Why requests fail: what was sent, the database, no time or no will to answer now, a defect.
pub const REASONS: [&str; 4] = ["invalid", "database", "unavailable", "panic"];
/// What may be refused of what was sent. Callers may invent fields: those are `other`.
pub const FIELDS: [&str; 8] =
    ["title", "description", "completed", "limit", "after", "Idempotency-Key", "body", "other"];

/// A problem as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A URI for the kind of problem; `about:blank` says that the status tells it all.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: &'static str,
    /// The status in words.
    #[schema(example = "Unprocessable Entity")]
    pub title: &'static str,
    /// The HTTP status code.
    #[schema(example = 422)]
    pub status: u16,
    /// What happened this time, for people.
    #[schema(example = "one field was not accepted")]
    pub detail: String,
    /// The fields or parameters that were not accepted; empty when the problem is another one.
    pub errors: Vec<FieldError>,
}

/// One field or parameter that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name; empty when the body as a whole is meant.
    #[schema(example = "title")]
    pub field: String,
    /// What is expected of it.
    #[schema(example = "must not be empty")]
    pub message: String,
}

impl FieldError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Storage(cause) if cause.is_unavailable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Storage(_) | Self::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the caller gets to read; says nothing of what is inside the service.
    fn problem(self) -> Problem {
        let status = self.status();
        let detail = match &self {
            Self::Storage(_) | Self::Panicked(_) => "the service failed; the cause is in its log".to_owned(),
            told => told.to_string(),
        };
        let errors = match self {
            Self::Invalid(errors) => errors,
            _ => Vec::new(),
        };
        let title = status.canonical_reason().unwrap_or("Error");
        Problem { kind: "about:blank", title, status: status.as_u16(), detail, errors }
    }

    /// As it is counted; nothing where only the address was wrong.
    fn failure(&self) -> Option<Failure> {
        let [invalid, database, unavailable, panic] = REASONS;
        let (reason, fields) = match self {
            Self::NotFound(_) | Self::MethodNotAllowed(_) => return None,
            Self::Malformed(_) | Self::UnsupportedMediaType | Self::TooLarge { .. } => {
                (invalid, vec!["body"])
            }
            Self::Invalid(errors) => {
                (invalid, errors.iter().map(|error| known_field(&error.field)).collect())
            }
            Self::Storage(_) => (database, Vec::new()),
            Self::Unavailable(_) => (unavailable, Vec::new()),
            Self::Panicked(_) => (panic, Vec::new()),
        };
        Some(Failure { reason, fields })
    }

    fn log(&self) {
        match self {
            Self::Storage(cause) => tracing::error!(error = %chain(cause), "a request failed in the storage"),
            Self::Panicked(message) => tracing::error!(error = %message, "a request handler panicked"),
            _ => {}
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let failure = self.failure();
        let mut response = self.problem().into_response();
        if let Some(failure) = failure {
            response.extensions_mut().insert(failure);
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn known_field(field: &str) -> &'static str {
    match field {
        "" => "body",
        field => FIELDS.into_iter().find(|known| *known == field).unwrap_or("other"),
    }
}

/// An error and its sources on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |cause| cause.source());
    sources.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

fn summary(errors: &[FieldError]) -> String {
    match errors.len() {
        1 => "one value was not accepted".to_owned(),
        count => format!("{count} values were not accepted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internals_are_hidden() {
        let problem = Error::Panicked("index 7 of 3 in cellar".to_owned()).problem();
        insta::assert_json_snapshot!(problem, @r#"
        {
          "type": "about:blank",
          "title": "Internal Server Error",
          "status": 500,
          "detail": "the service failed; the cause is in its log",
          "errors": []
        }
        "#);
    }

    #[test]
    fn what_failed_is_counted_by_a_few_words() {
        let of = |error: Error| error.into_response().extensions().get::<Failure>().cloned();
        let refused = ["title", "", "x".repeat(99).as_str()].map(|field| FieldError::new(field, "no"));
        let expected = Failure { reason: "invalid", fields: vec!["title", "body", "other"] };
        assert_eq!(of(Error::Invalid(refused.to_vec())), Some(expected));
        let too_large = of(Error::TooLarge { limit_bytes: 1 });
        assert_eq!(too_large, Some(Failure { reason: "invalid", fields: vec!["body"] }));
        let storage = storage::Error::Statement { doing: "count", source: sqlx::Error::PoolTimedOut };
        assert_eq!(of(Error::Storage(storage)), Some(Failure { reason: "database", fields: Vec::new() }));
        assert_eq!(of(Error::NotFound("task 7".to_owned())), None);
    }

    #[test]
    fn unavailable_says_when_to_come_back() {
        let response = Error::Unavailable("draining".to_owned()).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
