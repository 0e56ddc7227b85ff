//! Where the page finds the API, and how the page is told.

use std::{fmt, str::FromStr};

use axum::http::Uri;

/// The address of the API as the browser reaches it; empty when it is below `/api` on the page's own origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendUrl(String);

impl FromStr for BackendUrl {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let url = written.trim_end_matches('/');
        if written.is_empty() || is_plain(url) {
            return Ok(Self(url.to_owned()));
        }
        Err("nothing, or an address such as https://api.example/tasktracker without credentials, query and \
             fragment"
            .to_owned())
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl BackendUrl {
    /// The origin that the page must be allowed to call, unless it is the page's own.
    pub fn origin(&self) -> Option<String> {
        let uri: Uri = self.0.parse().ok()?;
        Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
    }

    /// The script that tells the page.
    pub fn script(&self) -> String {
        format!("export const backendUrl = {};\n", script_string(&self.0))
    }
}

/// Whether this is scheme, host, perhaps a port and a path, and nothing else. The host's characters are
/// checked too, since it goes into a response header.
fn is_plain(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let host_is_plain = authority.as_str().chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c));
    host_is_plain && !authority.host().is_empty() && !url.contains(['?', '#', '@', '\\'])
}

/// A string literal that is safe in a script, wherever that script ends up.
fn script_string(text: &str) -> String {
    let literal = serde_json::Value::from(text).to_string();
    let escape = |c: char| match c {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(c)),
        plain => plain.to_string(),
    };
    literal.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_accepted() {
        let table = [
            ("", "", None),
            ("http://localhost:8000", "http://localhost:8000", Some("http://localhost:8000")),
            ("https://api.example/", "https://api.example", Some("https://api.example")),
            ("https://api.example:444/v1/", "https://api.example:444/v1", Some("https://api.example:444")),
            ("http://[::1]:8000", "http://[::1]:8000", Some("http://[::1]:8000")),
        ];
        for (written, kept, origin) in table {
            let url: BackendUrl = written.parse().unwrap();
            assert_eq!((url.0.as_str(), url.origin().as_deref()), (kept, origin), "{written}");
        }
    }

    #[test]
    fn addresses_that_are_refused() {
        let refused = [
            "api.example",
            "/api",
            "//api.example",
            "ftp://api.example",
            "javascript:alert(1)",
            "https://",
            "https://user:secret@api.example",
            "https://api.example?x=1",
            "https://api.example/#x",
            "https://api.example; script-src *",
            "https://a;b.example",
            "https://a,b.example",
            " https://api.example",
            "https://api.example\n",
        ];
        for written in refused {
            assert!(written.parse::<BackendUrl>().is_err(), "{written}");
        }
    }

    #[test]
    fn the_script_is_a_string_whatever_the_address_holds() {
        let script = |text: &str| BackendUrl(text.to_owned()).script();
        assert_eq!(script(""), "export const backendUrl = \"\";\n");
        assert_eq!(script("https://a.example"), "export const backendUrl = \"https://a.example\";\n");
        assert_eq!(
            script("\"</script>\u{2028}\u{2029}&\\\n"),
            "export const backendUrl = \"\\\"\\u003c/script\\u003e\\u2028\\u2029\\u0026\\\\\\n\";\n"
        );
    }
}
