//! Docker's API through stream-local channels: GET only but for pulls, tolerant of what it does not know, capped.

mod container;
mod event;
mod fault;
mod inspect;
mod registry;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::try_join_all;
use http::{HeaderMap, Method, Request, StatusCode, header::DATE};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use self::event::PROJECT_LABEL;
use super::{Error, ssh::Connection};
use crate::{model::sha256, text::printable};

pub use container::{Container, Health, Published, State};
pub use event::fuzz as fuzz_events;
pub(super) use event::{Events, Origin, Subject};
pub use fault::DockerFault;
pub use inspect::fuzz as fuzz_replies;
pub use inspect::{Details, ImageConfig, Settings};

/// Where the daemon listens.
pub(super) const SOCKET: &str = "/var/run/docker.sock";
/// Largest answer that is read, in bytes: the list of some ten thousand containers.
const BODY_LIMIT: usize = 16 << 20;
/// Largest answer about one thing, and largest entry of a list, in bytes: once read, it is many times as large.
const THING_LIMIT: usize = 1 << 20;
/// The last lines of a container's log that are read.
const LOG_LINES: usize = 200;
/// The newest API version that was tested.
const NEWEST_API: (u32, u32) = (1, 45);
/// The first API version that tells where an image comes from.
const API_WITH_ORIGINS: (u32, u32) = (1, 53);
/// Requests that are under way at once, each in a channel of its own.
const CHANNELS: usize = 6;
/// Images whose configuration is remembered: an image never changes.
const IMAGES_KEPT: usize = 100;
/// Containers whose parsed answer is cached: most answers equal the one before.
const CONTAINERS_KEPT: usize = 200;

/// The read path: it has no way to send anything but GET, and in [`registry`] pulls of images.
pub(super) struct DockerReader {
    /// What the daemon speaks.
    api: (u32, u32),
    prefix: String,
    answer_limit: Duration,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
    permits: Semaphore,
    images: Mutex<BTreeMap<String, Arc<ImageConfig>>>,
    inspected: Mutex<BTreeMap<String, Inspected>>,
}

/// A parsed answer about a container.
struct Inspected {
    /// SHA-256 of the answer.
    sha256: String,
    details: Details,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// ID, `sha256:` and 64 hexadecimal digits.
    pub id: String,
    /// Digests under which it was pulled, each with its repository. Where it was loaded or built there is none, or, in the
    /// image store of containerd, its ID.
    pub repo_digests: Vec<String>,
}

#[derive(Deserialize)]
struct IdentityAnswer {
    #[serde(rename = "Identity", default)]
    identity: Option<Identity>,
}

/// Where an image comes from.
#[derive(Deserialize)]
struct Identity {
    /// A value for each repository that it was pulled from.
    #[serde(rename = "Pull", default)]
    pulled: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct ImageAnswer {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "RepoDigests", default)]
    repo_digests: Option<Vec<String>>,
}

/// A network or a volume: what tells whether it is the one that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkOrVolume {
    /// ID of a network; empty for a volume.
    pub id: String,
    /// Settings, as field and text; what is as Docker has it by default is left out.
    pub settings: Settings,
}

/// A network or volume labelled with a Compose project, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProjectResource {
    /// A network.
    Network(String),
    /// A volume.
    Volume(String),
}

/// The body of an answer, and when it was given.
struct Answer {
    body: Bytes,
    /// By the daemon's clock; nothing where it does not tell.
    date: Option<Timestamp>,
}

impl Answer {
    /// Reads JSON about one thing.
    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        if self.body.len() > THING_LIMIT {
            let found = format!("an answer of {} bytes, expected {THING_LIMIT} at most", self.body.len());
            return Err(Error::DockerApi { path: path.to_owned(), found });
        }
        serde_json::from_slice(&self.body).map_err(|error| unreadable(path, &error))
    }
}

/// What the engine says of itself and of its kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Folder of its data.
    pub root: String,
    /// Runtime of containers that ask for none.
    pub default_runtime: String,
    /// Fields of a container that the kernel does not support: Docker drops them, so they prove nothing.
    pub unsupported: Vec<&'static str>,
}

impl Default for Engine {
    fn default() -> Self {
        Self { root: String::new(), default_runtime: "runc".to_owned(), unsupported: Vec::new() }
    }
}

impl DockerReader {
    pub(super) fn new(api: (u32, u32), answer_limit: Duration) -> Self {
        let (major, minor) = api.min(NEWEST_API);
        Self {
            api,
            prefix: format!("/v{major}.{minor}"),
            answer_limit,
            idle: Mutex::default(),
            permits: Semaphore::new(CHANNELS),
            images: Mutex::default(),
            inspected: Mutex::default(),
        }
    }

    /// Every container of the host, running or not.
    pub(super) async fn containers(&self, connection: &Connection) -> Result<Vec<Container>, Error> {
        let path = "/containers/json?all=1";
        let Some(answer) = self.answer(connection, path).await? else { return Ok(Vec::new()) };
        container::read_list(&answer.body).map_err(|error| unreadable(path, &error))
    }

    /// What `inspect` says of some containers; those that are gone by now are left out.
    pub(super) async fn details(
        &self,
        connection: &Connection,
        ids: &[String],
    ) -> Result<BTreeMap<String, Details>, Error> {
        let inspects = ids.iter().filter(|id| is_id(id)).map(|id| async move {
            let path = format!("/containers/{id}/json");
            let Some(answer) = self.answer(connection, &path).await? else { return Ok(None) };
            let details = self.read_details(id, &path, &answer)?;
            Ok::<_, Error>(Some((id.clone(), details)))
        });
        Ok(try_join_all(inspects).await?.into_iter().flatten().collect())
    }

    /// Parses an answer about a container, unless it equals the one before.
    fn read_details(&self, id: &str, path: &str, answer: &Answer) -> Result<Details, Error> {
        let sha256 = sha256(&answer.body);
        let known = || self.inspected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = known().get(id).filter(|before| before.sha256 == sha256) {
            return Ok(before.details.clone().at(answer.date));
        }
        let container: Value = answer.json(path)?;
        is_of(path, id, &container)?;
        let details = Details::read(&container, answer.date);
        let mut known = known();
        if known.len() >= CONTAINERS_KEPT && !known.contains_key(id) {
            known.clear();
        }
        known.insert(id.to_owned(), Inspected { sha256, details: details.clone() });
        Ok(details)
    }

    /// The last lines that a container wrote, as they are.
    pub(super) async fn log(&self, connection: &Connection, id: &str) -> Result<Vec<String>, Error> {
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1&tail={LOG_LINES}");
        let answer = if is_id(id) { self.answer(connection, &path).await? } else { None };
        let text = answer.map(|answer| unframed(&answer.body)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| (*line).to_owned()).collect())
    }

    pub(super) async fn image(
        &self,
        connection: &Connection,
        reference: &str,
    ) -> Result<Option<Image>, Error> {
        let answer: Option<ImageAnswer> = self.get(connection, &format!("/images/{reference}/json")).await?;
        Ok(answer
            .map(|answer| Image { id: answer.id, repo_digests: answer.repo_digests.unwrap_or_default() }))
    }

    /// Whether an image was pulled, or pushed, by the daemon; nothing where it cannot tell.
    pub(super) async fn was_pulled(
        &self,
        connection: &Connection,
        reference: &str,
    ) -> Result<Option<bool>, Error> {
        if self.api < API_WITH_ORIGINS {
            return Ok(None);
        }
        let (major, minor) = API_WITH_ORIGINS;
        let newer = Self { prefix: format!("/v{major}.{minor}"), ..Self::new(self.api, self.answer_limit) };
        let answer: Option<IdentityAnswer> =
            newer.get(connection, &format!("/images/{reference}/json")).await?;
        let pulled = |answer: IdentityAnswer| answer.identity.and_then(|identity| identity.pulled);
        Ok(answer.map(|answer| pulled(answer).is_some_and(|pulled| !pulled.is_empty())))
    }

    /// What an image brings along for its containers, by its ID; asked once.
    pub(super) async fn image_config(
        &self,
        connection: &Connection,
        id: &str,
    ) -> Result<Option<Arc<ImageConfig>>, Error> {
        if let Some(known) = self.known_images().get(id) {
            return Ok(Some(known.clone()));
        }
        if !is_id(id) {
            return Ok(None);
        }
        let path = format!("/images/{id}/json");
        let Some(answer) = self.get::<Value>(connection, &path).await? else { return Ok(None) };
        is_of(&path, id, &answer)?;
        let config = Arc::new(ImageConfig::read(&answer));
        let mut known = self.known_images();
        if known.len() >= IMAGES_KEPT {
            known.clear();
        }
        known.insert(id.to_owned(), config.clone());
        Ok(Some(config))
    }

    fn known_images(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<ImageConfig>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn network(
        &self,
        connection: &Connection,
        name: &str,
    ) -> Result<Option<NetworkOrVolume>, Error> {
        let answer: Option<Value> = self.get(connection, &format!("/networks/{name}")).await?;
        Ok(answer.map(|answer| NetworkOrVolume::network(&answer)))
    }

    pub(super) async fn volume(
        &self,
        connection: &Connection,
        name: &str,
    ) -> Result<Option<NetworkOrVolume>, Error> {
        let answer: Option<Value> = self.get(connection, &format!("/volumes/{name}")).await?;
        Ok(answer.map(|answer| NetworkOrVolume::volume(&answer)))
    }

    /// The networks and volumes labelled with a Compose project.
    pub(super) async fn project_resources(
        &self,
        connection: &Connection,
        project: &str,
    ) -> Result<Vec<ProjectResource>, Error> {
        let filter = json!({"label": [format!("{PROJECT_LABEL}={project}")]}).to_string();
        let paths = ["/networks", "/volumes"].map(|path| format!("{path}?filters={}", encoded(&filter)));
        let [networks, volumes] = &paths;
        let (networks, volumes) = futures::try_join!(
            self.get::<Value>(connection, networks),
            self.get::<Value>(connection, volumes)
        )?;
        let named = |list: &Value, made: fn(String) -> ProjectResource| -> Vec<ProjectResource> {
            let names = list.as_array().into_iter().flatten().filter_map(|one| one["Name"].as_str());
            names.map(|name| made(name.to_owned())).collect()
        };
        let mut project_resources =
            networks.map(|list| named(&list, ProjectResource::Network)).unwrap_or_default();
        project_resources.extend(
            volumes.into_iter().flat_map(|answer| named(&answer["Volumes"], ProjectResource::Volume)),
        );
        project_resources.sort();
        Ok(project_resources)
    }

    pub(super) async fn engine(&self, connection: &Connection) -> Result<Engine, Error> {
        let answer: Option<Value> = self.get(connection, "/info").await?;
        Ok(answer.map(|answer| Engine::read(&answer)).unwrap_or_default())
    }

    /// The archive of one path in a container, by its ID, of which at most `most` bytes are read; nothing where the
    /// container or the path is not there.
    pub(super) async fn archive(
        &self,
        connection: &Connection,
        id: &str,
        path: &str,
        most: usize,
    ) -> Result<Option<Bytes>, Error> {
        if !is_id(id) {
            return Ok(None);
        }
        let path = format!("/containers/{id}/archive?path={}", encoded(path));
        let failed = |found: String| Error::DockerApi { path: path.clone(), found };
        let _permit = self.permits.acquire().await.map_err(|_| Error::ConnectionLost)?;
        let fetched = timeout(self.answer_limit, async {
            // A channel of its own: an answer that is too large is not read to its end.
            let sender = open(connection).await?;
            let (_sender, response) = self.ask(sender, &path).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), most).collect().await;
            Ok::<_, Error>((status, body.map_err(|error| failed(error.to_string()))?.to_bytes()))
        });
        match fetched.await.map_err(|_| self.late(&path))?? {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, _) => Err(failed(format!("expected success, found status {status}"))),
        }
    }

    /// Opens the stream of events. Docker sends the head of its answer a moment before it subscribes: an event in between
    /// is not received, and what it is about is found at the interval.
    pub(super) async fn events(&self, connection: &Connection) -> Result<Events, Error> {
        let path = format!("/events?filters={}", encoded(event::FILTERS));
        let sender = open(connection).await?;
        let asked = timeout(self.answer_limit, self.ask(sender, &path)).await;
        let (_, response) = asked.map_err(|_| self.late(&path))??;
        if response.status() != StatusCode::OK {
            let found = format!("expected success, found status {}", response.status());
            return Err(Error::DockerApi { path, found });
        }
        Ok(Events::new(response.into_body()))
    }

    fn late(&self, path: &str) -> Error {
        Error::TimedOut { doing: format!("docker API {path}"), limit: self.answer_limit }
    }

    /// One GET of JSON; nothing for 404.
    async fn get<T: DeserializeOwned>(
        &self,
        connection: &Connection,
        path: &str,
    ) -> Result<Option<T>, Error> {
        let Some(answer) = self.answer(connection, path).await? else { return Ok(None) };
        answer.json(path).map(Some)
    }

    /// One GET; nothing for 404.
    async fn answer(&self, connection: &Connection, path: &str) -> Result<Option<Answer>, Error> {
        let _permit = self.permits.acquire().await.map_err(|_| Error::ConnectionLost)?;
        let fetched = timeout(self.answer_limit, self.fetch(connection, path)).await;
        let (status, answer) = fetched.map_err(|_| self.late(path))??;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            let text: String =
                String::from_utf8_lossy(&answer.body).chars().filter(|c| !c.is_control()).take(300).collect();
            let found = format!("expected success, found status {status}: {text}");
            return Err(Error::DockerApi { path: path.to_owned(), found });
        }
        Ok(Some(answer))
    }

    async fn fetch(&self, connection: &Connection, path: &str) -> Result<(StatusCode, Answer), Error> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let sender = match usable(kept).await {
            Some(sender) => sender,
            None => open(connection).await?,
        };
        let (sender, response) = self.ask(sender, path).await?;
        let (status, date) = (response.status(), date(response.headers()));
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        let body = body
            .map_err(|error| Error::DockerApi { path: path.to_owned(), found: error.to_string() })?
            .to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Ok((status, Answer { body, date }))
    }

    /// Sends the one kind of request that there is.
    async fn ask(
        &self,
        mut sender: SendRequest<Empty<Bytes>>,
        path: &str,
    ) -> Result<(SendRequest<Empty<Bytes>>, http::Response<Incoming>), Error> {
        let broken = |error: &dyn std::fmt::Display| Error::DockerApi {
            path: path.to_owned(),
            found: error.to_string(),
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}{path}", self.prefix))
            .header("host", "docker")
            .body(Empty::new())
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        Ok((sender, response))
    }
}

/// The text in a stream of standard output and standard error: frames of a header of 8 bytes, the last four of which are
/// the length of what follows. A container with a terminal has none.
fn unframed(body: &[u8]) -> String {
    let (mut text, mut rest) = (Vec::new(), body);
    while let [0..=2, 0, 0, 0, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (frame, next) = after.split_at(length.min(after.len()));
        text.extend_from_slice(frame);
        rest = next;
    }
    text.extend_from_slice(rest);
    String::from_utf8_lossy(&text).into_owned()
}

/// When an answer was given, by the daemon's clock.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(headers.get(DATE)?).ok()
}

fn unreadable(path: &str, error: &serde_json::Error) -> Error {
    // The error may quote the answer.
    let found = format!("an answer that cannot be read: {}", printable(&error.to_string()));
    Error::DockerApi { path: path.to_owned(), found }
}

/// Whether a text can be an ID that is asked for: nothing else becomes part of a path.
fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    !digits.is_empty() && digits.len() <= 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Refuses the details of something else than was asked for.
fn is_of(path: &str, id: &str, answer: &Value) -> Result<(), Error> {
    let found = answer["Id"].as_str().unwrap_or("nothing");
    if found == id {
        return Ok(());
    }
    let found = format!("expected the details of it, found those of {}", printable(found));
    Err(Error::DockerApi { path: path.to_owned(), found })
}

/// A text within a query, percent-encoded.
fn encoded(text: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A kept channel that still takes requests.
async fn usable(kept: Option<SendRequest<Empty<Bytes>>>) -> Option<SendRequest<Empty<Bytes>>> {
    let mut sender = kept?;
    sender.ready().await.is_ok().then_some(sender)
}

async fn open(connection: &Connection) -> Result<SendRequest<Empty<Bytes>>, Error> {
    let stream = connection.socket(SOCKET).await?;
    let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|_| Error::ConnectionLost)?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a channel to Docker ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_of_an_equal_answer_counts_and_another_answer_is_read() {
        let reader = DockerReader::new(NEWEST_API, Duration::ZERO);
        let read = |restarts: u64, seconds: u8| {
            let state = json!({"Pid": 7, "StartedAt": "2026-01-01T10:00:00Z"});
            let body = json!({"Id": "abc", "RestartCount": restarts, "State": state}).to_string().into();
            let answer = Answer { body, date: format!("2026-01-01T10:00:{seconds:02}Z").parse().ok() };
            let details = reader.read_details("abc", "/containers/abc/json", &answer).unwrap();
            (details.restarts, details.uptime.unwrap().as_secs())
        };
        assert_eq!([read(1, 9), read(1, 11), read(2, 12)], [(1, 9), (1, 11), (2, 12)]);
        let other = Answer { body: json!({"Id": "other"}).to_string().into(), date: None };
        assert!(reader.read_details("abc", "/containers/abc/json", &other).is_err());
    }

    #[test]
    fn a_log_is_read_with_and_without_frames() {
        let framed = b"\x01\0\0\0\0\0\0\x04one\n\x02\0\0\0\0\0\0\x04two\n";
        assert_eq!(super::unframed(framed), "one\ntwo\n");
        assert_eq!(super::unframed(b"plain\n"), "plain\n");
        assert_eq!(super::unframed(b"\x01\0\0\0\xff\xff\xff\xffshort"), "short");
    }

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(super::encoded("{\"a\":[b]} /ü"), "%7B%22a%22%3A%5Bb%5D%7D%20/%C3%BC");
    }
}
