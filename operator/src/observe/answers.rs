//! What services answer over HTTP: whether they serve, and whether they have loaded what was rolled out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures::future::try_join_all;
use serde_json::Value;

use crate::{
    host::{BasicAuth, Container, Error, Host, HttpAnswer, State},
    model::{Answers, Question, sha256},
    project::{
        Endpoint, Expect, HttpProbe, Readiness, Service, Strategy,
        compose::{COMPOSE_SERVICE, Namespace},
        labels,
    },
    release::Release,
    secret::{SealKey, Values},
};

/// What is needed to ask the containers of a release.
#[derive(Clone, Copy)]
pub struct Interview<'a> {
    /// The release.
    pub release: &'a Release,
    /// What the source of secrets has.
    pub secrets: &'a Values,
    /// The key by which a value is known to be the release's; none where those of the source are.
    pub key: Option<&'a SealKey>,
}

impl Interview<'_> {
    /// Asks the running containers of the release the chosen questions.
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn ask(
        &self,
        host: &Host,
        containers: &[Container],
        is_chosen: impl Fn(&str, &str, &Question) -> bool,
    ) -> Result<Answers, Error> {
        let mut asked = Vec::new();
        for (service, definition) in &self.release.project.services {
            let hash = self.release.service_hashes.get(service).map_or("", String::as_str);
            let is_it = |one: &&Container| {
                one.state == State::Running
                    && one.has_label(COMPOSE_SERVICE, service)
                    && one.has_label(labels::SERVICE_HASH, hash)
            };
            let questions = self.questions(service, definition);
            for container in containers.iter().filter(is_it) {
                let chosen =
                    questions.iter().filter(|(question, _)| is_chosen(service, &container.id, question));
                asked.extend(chosen.map(|(question, probe)| (container, question.clone(), probe.clone())));
            }
        }
        let answers = asked.into_iter().map(async |(container, question, probe)| {
            let answer = self.answer(host, container, &probe).await?;
            Ok::<_, Error>(answer.map(|answer| ((container.id.clone(), question), answer)))
        });
        Ok(try_join_all(answers).await?.into_iter().flatten().collect())
    }

    fn questions(&self, service: &str, definition: &Service) -> Vec<(Question, HttpProbe)> {
        let ready = match &definition.readiness {
            Readiness::Http(probe) => Some((Question::Ready, probe.clone())),
            Readiness::Healthcheck | Readiness::Running => None,
        };
        let gate = match &definition.strategy {
            Strategy::Serial { gate } => Some((Question::Gate, gate.clone())),
            Strategy::BlueGreen(_) | Strategy::Recreate => None,
        };
        let loaded = definition.loaded.iter();
        let loaded = loaded.map(|loaded| (Question::Loaded(loaded.what.clone()), loaded.probe.clone()));
        let objects = self.release.project.api_objects.iter().filter(|object| object.service == service);
        let objects = objects.map(|object| {
            let probe = HttpProbe {
                endpoint: object.endpoint.clone(),
                credentials: object.credentials.clone(),
                expect: Expect::JsonSubset(object.body.clone()),
            };
            (Question::Object(object.endpoint.path.clone()), probe)
        });
        ready.into_iter().chain(gate).chain(loaded).chain(objects).collect()
    }

    /// What is wrong with the answer of a container; nothing where that is not to be known.
    async fn answer(
        &self,
        host: &Host,
        container: &Container,
        probe: &HttpProbe,
    ) -> Result<Option<Result<(), String>>, Error> {
        let Some(address) = self.address(container, &probe.endpoint) else { return Ok(None) };
        let Ok(credentials) = self.credentials(probe.credentials.as_ref()) else { return Ok(None) };
        let answer = host.http_get(address, &probe.endpoint.path, credentials.as_ref()).await?;
        Ok(judge(&probe.expect, answer))
    }

    /// Where a container is reached from its host.
    pub fn address(&self, container: &Container, endpoint: &Endpoint) -> Option<SocketAddr> {
        let service = container.labels.get(COMPOSE_SERVICE)?;
        let definition = self.release.project.services.get(service)?;
        let address = match &definition.compose.network_mode {
            Some(Namespace::Host) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            None => *container.addresses.get(&self.release.project.network)?,
        };
        Some(SocketAddr::new(address, endpoint.port))
    }

    /// User and password, where any are needed.
    ///
    /// # Errors
    /// When the password of the release is not to be had: its source has another one by now, or none.
    pub fn credentials(&self, credentials: Option<&(String, String)>) -> Result<Option<BasicAuth>, Unknown> {
        let Some((user, path)) = credentials else { return Ok(None) };
        let reference = &self.release.project.secrets.get(path).ok_or(Unknown)?.reference;
        let password = self.secrets.known.get(reference).ok_or(Unknown)?;
        let is_other =
            |key: &SealKey| self.release.seals.get(path) != Some(&key.seal(path, &sha256(password.reveal())));
        if self.key.is_some_and(is_other) {
            return Err(Unknown);
        }
        Ok(Some(BasicAuth { user: user.clone(), password: password.clone() }))
    }
}

/// A password is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

fn judge(expect: &Expect, answer: HttpAnswer) -> Option<Result<(), String>> {
    let (status, body) = match answer {
        HttpAnswer::Forbidden => return None,
        HttpAnswer::NoAnswer(found) => return Some(Err(found)),
        HttpAnswer::Answered { status, body } => (status, body),
    };
    let wanted = if let Expect::Status(wanted) = expect { *wanted } else { 200 };
    if status != wanted {
        return Some(Err(format!("expected status {wanted}, found {status}")));
    }
    let Expect::JsonSubset(wanted) = expect else { return Some(Ok(())) };
    let Ok(found) = serde_json::from_slice::<Value>(&body) else {
        return Some(Err("expected JSON, found something else".to_owned()));
    };
    Some(match other_field(wanted, Some(&found), String::new()) {
        Some((field, found)) => Err(format!("expected {field} as rolled out, found {found}")),
        None => Ok(()),
    })
}

/// The first field that is not as wanted, as a JSON pointer, and whether it is there. Its value is not told: it may be a
/// secret.
fn other_field(wanted: &Value, found: Option<&Value>, place: String) -> Option<(String, &'static str)> {
    let Some(found) = found else { return Some((place, "nothing")) };
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .find_map(|(key, wanted)| other_field(wanted, found.get(key), format!("{place}/{key}"))),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => wanted
            .iter()
            .enumerate()
            .find_map(|(index, wanted)| other_field(wanted, found.get(index), format!("{place}/{index}"))),
        _ if wanted == found => None,
        _ if place.is_empty() => Some(("the answer".to_owned(), "another value")),
        _ => Some((place, "another value")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(status: u16, body: &Value) -> HttpAnswer {
        HttpAnswer::Answered { status, body: body.to_string().into_bytes() }
    }

    #[test]
    fn an_answer_is_judged_by_what_it_must_have() {
        let subset = Expect::JsonSubset(json!({"status": "green", "nodes": [{"name": "a"}, {}]}));
        let good = json!({"status": "green", "nodes": [{"name": "a", "age": 7}, {"name": "b"}], "more": 1});
        let table = [
            (Expect::Status(204), answered(204, &json!(null)), Some(Ok(()))),
            (Expect::Status(200), answered(503, &json!(null)), Some(Err("expected status 200, found 503"))),
            (Expect::Status(200), HttpAnswer::NoAnswer("refused".to_owned()), Some(Err("refused"))),
            (Expect::Status(200), HttpAnswer::Forbidden, None),
            (subset.clone(), answered(200, &good), Some(Ok(()))),
            (subset.clone(), answered(401, &good), Some(Err("expected status 200, found 401"))),
            (
                subset.clone(),
                HttpAnswer::Answered { status: 200, body: b"<html>".to_vec() },
                Some(Err("expected JSON, found something else")),
            ),
            (
                subset.clone(),
                answered(200, &json!({"status": "canary", "nodes": good["nodes"]})),
                Some(Err("expected /status as rolled out, found another value")),
            ),
            (
                subset.clone(),
                answered(200, &json!({"status": "green", "nodes": [{}, {}]})),
                Some(Err("expected /nodes/0/name as rolled out, found nothing")),
            ),
            (
                subset.clone(),
                answered(200, &json!({"status": "green", "nodes": [{"name": "a"}]})),
                Some(Err("expected /nodes as rolled out, found another value")),
            ),
            (
                subset,
                answered(200, &json!([])),
                Some(Err("expected the answer as rolled out, found another value")),
            ),
        ];
        for (expect, answer, wanted) in table {
            let wanted = wanted.map(|wanted: Result<(), &str>| wanted.map_err(str::to_owned));
            assert_eq!(judge(&expect, answer), wanted, "{expect:?}");
        }
    }
}
