//! Docker's API through a stream-local channel: GET only, tolerant of what it does not know, capped.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{sync::Mutex, time::timeout};

use super::{Error, facts::Facts, ssh::Connection};

/// Where the daemon listens.
pub(super) const SOCKET: &str = "/var/run/docker.sock";
/// Largest answer that is read, in bytes.
const BODY_LIMIT: usize = 16 << 20;
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The newest API version that was tested.
const NEWEST_API: (u32, u32) = (1, 45);

/// The read path: it has no way to send anything but GET.
pub(super) struct DockerReader {
    prefix: String,
    sender: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

/// One container, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// ID, 64 hexadecimal digits.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// ID of the image it runs.
    pub image_id: String,
    /// Whether it runs.
    pub state: State,
    /// What its health check says.
    pub health: Health,
    /// Docker's own words, such as `Up 2 minutes (healthy)`.
    pub status: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Whether a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// Any other state, in Docker's own words: created, exited, paused, restarting, dead, …
    Other(String),
}

/// What a health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// There is none.
    None,
    /// Too early to say.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// ID, `sha256:` and 64 hexadecimal digits.
    pub id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct ContainerAnswer {
    id: String,
    names: Vec<String>,
    #[serde(rename = "ImageID")]
    image_id: String,
    state: String,
    status: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ImageAnswer {
    #[serde(rename = "Id")]
    id: String,
}

impl DockerReader {
    pub(super) fn new(facts: &Facts) -> Self {
        let (major, minor) = facts.api.min(NEWEST_API);
        Self { prefix: format!("/v{major}.{minor}"), sender: Mutex::new(None) }
    }

    pub(super) async fn containers(
        &self,
        connection: &Connection,
        project: &str,
    ) -> Result<Vec<Container>, Error> {
        let filters = format!("%7B%22label%22%3A%5B%22com.docker.compose.project%3D{project}%22%5D%7D");
        let path = format!("/containers/json?all=1&filters={filters}");
        let answers: Vec<ContainerAnswer> = self.get(connection, &path).await?.unwrap_or_default();
        Ok(answers.into_iter().map(Container::from).collect())
    }

    pub(super) async fn image(
        &self,
        connection: &Connection,
        reference: &str,
    ) -> Result<Option<Image>, Error> {
        let answer: Option<ImageAnswer> = self.get(connection, &format!("/images/{reference}/json")).await?;
        Ok(answer.map(|answer| Image { id: answer.id }))
    }

    pub(super) async fn exists(&self, connection: &Connection, path: &str) -> Result<bool, Error> {
        Ok(self.get::<serde_json::Value>(connection, path).await?.is_some())
    }

    /// One GET; nothing for 404.
    async fn get<T: DeserializeOwned>(
        &self,
        connection: &Connection,
        path: &str,
    ) -> Result<Option<T>, Error> {
        let wrong = |found: String| Error::DockerApi { path: path.to_owned(), found };
        let (status, body) = timeout(ANSWER_LIMIT, self.fetch(connection, path))
            .await
            .map_err(|_| Error::TimedOut { doing: format!("docker API {path}"), limit: ANSWER_LIMIT })??;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            let text: String =
                String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(wrong(format!("expected success, found status {status}: {text}")));
        }
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| wrong(format!("an answer that cannot be read: {error}")))
    }

    async fn fetch(&self, connection: &Connection, path: &str) -> Result<(StatusCode, Bytes), Error> {
        let mut kept = self.sender.lock().await;
        let mut sender = match usable(kept.take()).await {
            Some(sender) => sender,
            None => open(connection).await?,
        };
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
        let status = response.status();
        let body =
            Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_err(|error| broken(&error))?;
        *kept = Some(sender);
        Ok((status, body.to_bytes()))
    }
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

impl From<ContainerAnswer> for Container {
    fn from(answer: ContainerAnswer) -> Self {
        let name =
            answer.names.first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default();
        let state = if answer.state == "running" { State::Running } else { State::Other(answer.state) };
        Self {
            id: answer.id,
            name,
            image_id: answer.image_id,
            health: health(&answer.status),
            state,
            status: answer.status,
            labels: answer.labels.unwrap_or_default(),
        }
    }
}

/// The list tells health only in the words of its status.
fn health(status: &str) -> Health {
    if status.ends_with("(healthy)") {
        Health::Healthy
    } else if status.ends_with("(unhealthy)") {
        Health::Unhealthy
    } else if status.ends_with("(health: starting)") {
        Health::Starting
    } else {
        Health::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_and_states_are_no_error() {
        let answer = r#"[{"Id":"a","Names":["/n"],"ImageID":"sha256:1","State":"hibernating","Status":"Up 1 second (healthy)","Labels":null,"New":{"x":[1]}},{}]"#;
        let answers: Vec<ContainerAnswer> = serde_json::from_str(answer).unwrap();
        let containers: Vec<Container> = answers.into_iter().map(Container::from).collect();
        assert_eq!(containers[0].state, State::Other("hibernating".to_owned()));
        assert_eq!(containers[0].health, Health::Healthy);
        assert_eq!(containers[0].name, "n");
        assert_eq!(containers[1].name, "");
    }

    #[test]
    fn health_is_read_from_the_status() {
        for (status, expected) in [
            ("Up 3 minutes", Health::None),
            ("Up 3 minutes (health: starting)", Health::Starting),
            ("Up 3 minutes (unhealthy)", Health::Unhealthy),
            ("Exited (137) 2 seconds ago", Health::None),
        ] {
            assert_eq!(health(status), expected, "{status}");
        }
    }
}
