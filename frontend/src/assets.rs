//! The files of the page, and how a browser may keep them.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::backend_url::BackendUrl;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Shown for every address that is none.
pub const NOT_FOUND_PAGE: &str = include_str!("../static/404.html");

/// A file of the page. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Asset {
    media_type: &'static str,
    bytes: Bytes,
    /// A strong validator: the same text means the same bytes.
    etag: String,
}

/// Every file with its address.
pub fn all(backend_url: &BackendUrl) -> [(&'static str, Asset); 8] {
    [
        ("/", Asset::fixed(HTML, include_str!("../static/index.html"))),
        ("/404.css", Asset::fixed(CSS, include_str!("../static/404.css"))),
        ("/style.css", Asset::fixed(CSS, include_str!("../static/style.css"))),
        ("/app.js", Asset::fixed(SCRIPT, include_str!("../static/app.js"))),
        ("/api.js", Asset::fixed(SCRIPT, include_str!("../static/api.js"))),
        ("/view.js", Asset::fixed(SCRIPT, include_str!("../static/view.js"))),
        ("/favicon.svg", Asset::fixed(SVG, include_str!("../static/favicon.svg"))),
        ("/config.js", Asset::new(SCRIPT, backend_url.script().into())),
    ]
}

impl Asset {
    fn fixed(media_type: &'static str, text: &'static str) -> Self {
        Self::new(media_type, Bytes::from_static(text.as_bytes()))
    }

    fn new(media_type: &'static str, bytes: Bytes) -> Self {
        let digest = Sha256::digest(&bytes);
        let half = digest.iter().take(16).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        Self { media_type, bytes, etag: format!("\"{half:032x}\"") }
    }

    /// The file, or 304 when the browser has it already. Browsers ask each time, so that a new release shows
    /// at once.
    pub fn respond(self, request: &HeaderMap) -> Response {
        let is_known = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .any(|tags| tags.to_str().is_ok_and(|tags| matches(tags, &self.etag)));
        let validators = [(header::ETAG, self.etag), (header::CACHE_CONTROL, "no-cache".to_owned())];
        if is_known {
            return (StatusCode::NOT_MODIFIED, validators).into_response();
        }
        let media_type: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, self.media_type)];
        (validators, media_type, self.bytes).into_response()
    }
}

/// Whether the list in `If-None-Match` names this tag; weakly, as RFC 9110 has it.
fn matches(tags: &str, etag: &str) -> bool {
    let mut tags = tags.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly() {
        for tags in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(matches(tags, "\"a\""), "{tags}");
        }
        for tags in ["", "a", "\"b\"", "\"aa\"", "w/\"a\""] {
            assert!(!matches(tags, "\"a\""), "{tags}");
        }
    }
}
