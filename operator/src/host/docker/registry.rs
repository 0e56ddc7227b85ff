//! What Docker does for us in registries: it tells what a tag means, and pulls. The one thing here that is more than a GET.

use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Collected, Empty, Limited};
use serde::Deserialize;
use tokio::time::timeout;

use super::{BODY_LIMIT, DockerReader, THING_LIMIT, encoded, open};
use crate::{
    host::{Error, ssh::Connection},
    registry::{Login, Refusal, exact, is_digest, parts},
};

/// How long a registry may take to tell what a tag means.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How long one image may take to be pulled.
const PULL_LIMIT: Duration = Duration::from_mins(30);
/// How long a pull may be silent: Docker tells of progress all the time.
const SILENCE_LIMIT: Duration = Duration::from_mins(2);
/// Header with which Docker is told of a login.
const LOGIN_HEADER: &str = "X-Registry-Auth";

/// What comes of asking a registry through a host.
type Asked<T> = Result<Result<T, Refusal>, Error>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Distribution {
    descriptor: Descriptor,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Progress {
    error: Option<String>,
}

impl DockerReader {
    /// The digest that a tag means in its registry now.
    pub(in crate::host) async fn digest(
        &self,
        connection: &Connection,
        reference: &str,
        login: Option<&Login>,
    ) -> Asked<String> {
        let path = format!("/distribution/{reference}/json");
        let asked = timeout(ANSWER_LIMIT, self.send(connection, (Method::GET, &path), login)).await;
        let Ok(response) = asked else {
            let found = format!("no answer within {} s", ANSWER_LIMIT.as_secs());
            return Ok(Err(Refusal::unavailable(found)));
        };
        let (status, body) = response?;
        let body = timeout(ANSWER_LIMIT, Limited::new(body, BODY_LIMIT).collect()).await;
        let Ok(Ok(body)) = body else { return Ok(Err(Refusal::unavailable("half an answer"))) };
        let body = body.to_bytes();
        if status != StatusCode::OK {
            return Ok(Err(Refusal::judge(Some(status.as_u16()), &said(&body))));
        }
        let answer = serde_json::from_slice::<Distribution>(&body).ok();
        let digest = answer.map(|answer| answer.descriptor.digest).filter(|digest| is_digest(digest));
        Ok(digest.ok_or_else(|| Refusal::unavailable("an answer without a digest")))
    }

    /// Pulls an image; ends with the connection, and what was pulled until then is not pulled again.
    pub(in crate::host) async fn pull(
        &self,
        connection: &Connection,
        reference: &str,
        login: Option<&Login>,
    ) -> Asked<()> {
        let exact = exact(reference);
        let (repository, tag, digest) = parts(&exact);
        let tag = digest.or(tag).unwrap_or("latest");
        let path = format!("/images/create?fromImage={}&tag={}", encoded(repository), encoded(tag));
        let late = |limit: Duration| Refusal::unavailable(format!("not pulled within {} s", limit.as_secs()));
        let pulled = timeout(PULL_LIMIT, self.follow(connection, &path, login)).await;
        pulled.unwrap_or_else(|_| Ok(Err(late(PULL_LIMIT))))
    }

    /// Follows a pull to its end: what goes wrong on the way is told in its stream.
    async fn follow(&self, connection: &Connection, path: &str, login: Option<&Login>) -> Asked<()> {
        let silent = || Refusal::unavailable(format!("nothing for {} s", SILENCE_LIMIT.as_secs()));
        let asked = timeout(SILENCE_LIMIT, self.send(connection, (Method::POST, path), login)).await;
        let Ok(response) = asked else { return Ok(Err(silent())) };
        let (status, mut body) = response?;
        if status != StatusCode::OK {
            let body = timeout(ANSWER_LIMIT, Limited::new(body, THING_LIMIT).collect()).await;
            let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
            return Ok(Err(Refusal::judge(Some(status.as_u16()), &said(&body))));
        }
        let (mut line, mut refused) = (Vec::new(), None);
        loop {
            let Ok(next) = timeout(SILENCE_LIMIT, body.frame()).await else { return Ok(Err(silent())) };
            let Some(frame) = next else { break };
            let frame = frame.map_err(|_| Error::ConnectionLost)?;
            for byte in frame.data_ref().into_iter().flatten() {
                if *byte != b'\n' {
                    line.push(*byte);
                } else if let Ok(Progress { error: Some(error) }) = serde_json::from_slice(&line) {
                    refused = Some(error);
                    line.clear();
                } else {
                    line.clear();
                }
            }
            if line.len() > THING_LIMIT {
                return Ok(Err(Refusal::unavailable("a line without end")));
            }
        }
        Ok(refused.map_or(Ok(()), |found| Err(Refusal::judge(None, &found))))
    }

    /// Sends a request in a channel of its own.
    async fn send(
        &self,
        connection: &Connection,
        (method, path): (Method, &str),
        login: Option<&Login>,
    ) -> Result<(StatusCode, hyper::body::Incoming), Error> {
        let broken = |found: String| Error::DockerApi { path: path.to_owned(), found };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header("host", "docker")
            .body(Empty::new())
            .map_err(|error| broken(error.to_string()))?;
        if let Some(login) = login {
            let header = login.header();
            let mut value =
                HeaderValue::from_bytes(header.reveal()).map_err(|error| broken(error.to_string()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(LOGIN_HEADER, value);
        }
        let mut sender = open(connection).await?;
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        Ok((response.status(), response.into_body()))
    }
}

/// What Docker says where it refuses.
fn said(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Said>(body).map(|said| said.message);
    said.unwrap_or_else(|_| String::from_utf8_lossy(body).chars().take(300).collect())
}
