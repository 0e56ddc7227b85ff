//! HTTP probes of services: readiness, gates, and proof that a service loaded what was rolled out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::Value;

use super::{Depth, ListDifferences, Observed};
use crate::{
    host::{BasicAuth, Container, Error, Host, HttpAnswer, ServiceAddress},
    model::{LastProbes, Probe, ProbeFailure, ProbeResults, sha256},
    project::{
        Endpoint, Expect, HttpProbe, Readiness, Service, Strategy,
        compose::{COMPOSE_SERVICE, Namespace},
    },
    release::Release,
    secret::{SealKey, Values},
};

/// Probes the containers of the applied release. Results stay valid until everything is read anew; a container that is
/// new or was started again is probed at once. A service that hangs would otherwise delay every check by the deadlines of
/// its probes.
///
/// # Errors
/// When the host cannot be reached.
pub async fn probe(
    host: &Host,
    observed: &Observed,
    depth: Depth,
    now: Timestamp,
) -> Result<ProbeResults, Error> {
    let Some(release) = &observed.applied else { return Ok(ProbeResults::new()) };
    let started: BTreeMap<String, Option<Timestamp>> =
        observed.containers.iter().map(|container| (container.id.clone(), container.started_at())).collect();
    let LastProbes { results: mut known, started: before } = host.last_probes(&release.project.name);
    // Docker starts a container again under the same ID.
    known.retain(|(id, _), _| {
        depth < Depth::Whole && started.contains_key(id) && before.get(id) == started.get(id)
    });
    let prober = Prober { release, secrets: &observed.secrets, key: observed.seal_key.as_ref(), now };
    let is_new = |_: &str, container: &Container, probe: &Probe| {
        !known.contains_key(&(container.id.clone(), probe.clone()))
    };
    let mut results = prober.run(host, &observed.containers, is_new).await?;
    results.extend(known);
    host.keep_probes(&release.project.name, LastProbes { results: results.clone(), started });
    Ok(results)
}

/// Probes the containers of a release.
#[derive(Clone, Copy)]
pub struct Prober<'a> {
    /// The release.
    pub release: &'a Release,
    /// Current values from the source of secrets.
    pub secrets: &'a Values,
    /// Key that verifies that a current value is the one the release was applied with; none to skip that check.
    pub key: Option<&'a SealKey>,
    /// Now: what was wanted until a moment before it is wanted no more.
    pub now: Timestamp,
}

impl Prober<'_> {
    /// Sends the chosen probes to the running containers of the release; `is_chosen` gets service, container and probe.
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub async fn run(
        &self,
        host: &Host,
        containers: &[Container],
        is_chosen: impl Fn(&str, &Container, &Probe) -> bool,
    ) -> Result<ProbeResults, Error> {
        let mut chosen = Vec::new();
        for (service, definition) in &self.release.project.services {
            for container in self.release.running(service, containers) {
                let probes = self.probes(service, definition).into_iter();
                let probes = probes.filter(|(probe, _)| is_chosen(service, container, probe));
                chosen.extend(probes.map(|(probe, request)| (container, probe, request)));
            }
        }
        let results = chosen.into_iter().map(async |(container, probe, request)| {
            let result = self.result(host, container, &request).await?;
            Ok::<_, Error>(result.map(|result| ((container.id.clone(), probe), result)))
        });
        Ok(try_join_all(results).await?.into_iter().flatten().collect())
    }

    /// The probes of a service.
    fn probes(&self, service: &str, definition: &Service) -> Vec<(Probe, HttpProbe)> {
        let ready = match &definition.readiness {
            Readiness::Http(request) => Some((Probe::Ready, request.clone())),
            Readiness::Healthcheck | Readiness::Running => None,
        };
        let gate = match &definition.strategy {
            Strategy::Serial { gate } => Some((Probe::Gate, gate.clone())),
            Strategy::BlueGreen(_) | Strategy::Recreate => None,
        };
        let loaded = definition.loaded.iter();
        let loaded = loaded.map(|loaded| (Probe::Loaded(loaded.what.clone()), loaded.probe.clone()));
        let objects = self.release.project.api_objects.iter().filter(|object| object.service == service);
        let objects = objects.map(|object| (Probe::Object(object.endpoint.path.clone()), object.probe()));
        let collections = self.release.project.api_collections.iter().filter(|all| all.service == service);
        let collections = collections.map(|all| {
            let request = HttpProbe {
                endpoint: all.endpoint.clone(),
                credentials: all.credentials.clone(),
                expect: Expect::Listed(all.wanted.clone()),
            };
            (Probe::Object(all.endpoint.path.clone()), request)
        });
        ready.into_iter().chain(gate).chain(loaded).chain(objects).chain(collections).collect()
    }

    /// The result of one probe; none where it cannot be sent.
    async fn result(
        &self,
        host: &Host,
        container: &Container,
        request: &HttpProbe,
    ) -> Result<Option<Result<(), ProbeFailure>>, Error> {
        let Some(address) = self.address(container, &request.endpoint) else {
            let found = "no address in the stack's network".to_owned();
            return Ok(Some(Err(ProbeFailure::NoAnswer(found))));
        };
        let Ok(credentials) = self.credentials(request.credentials.as_ref()) else { return Ok(None) };
        let answer = host.http_get(address, &request.endpoint.path, credentials.as_ref()).await?;
        Ok(evaluate(&request.expect, answer, self.now))
    }

    /// Where a service of a container is, as its host reaches it.
    pub fn address<'b>(&self, container: &Container, endpoint: &'b Endpoint) -> Option<ServiceAddress<'b>> {
        let service = container.labels.get(COMPOSE_SERVICE)?;
        let definition = self.release.project.services.get(service)?;
        let address = match &definition.compose.network_mode {
            Some(Namespace::Host) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            None => *container.addresses.get(&self.release.project.network)?,
        };
        let address = SocketAddr::new(address, endpoint.port);
        Some(ServiceAddress { address, tls_name: endpoint.tls_name.as_deref() })
    }

    /// User and password, where the service requires them.
    ///
    /// # Errors
    /// When the password is unknown: the source of secrets has another value by now, or none.
    pub fn credentials(
        &self,
        credentials: Option<&(String, String)>,
    ) -> Result<Option<BasicAuth>, UnknownPassword> {
        let Some((user, path)) = credentials else { return Ok(None) };
        let reference = &self.release.project.secrets.get(path).ok_or(UnknownPassword)?.reference;
        let password = self.secrets.known.get(reference).ok_or(UnknownPassword)?;
        let is_other =
            |key: &SealKey| self.release.seals.get(path) != Some(&key.seal(path, &sha256(password.reveal())));
        if self.key.is_some_and(is_other) {
            return Err(UnknownPassword);
        }
        Ok(Some(BasicAuth { user: user.clone(), password: password.clone() }))
    }
}

/// The password of a release is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPassword;

/// The result that an answer means; none where sshd forbids to ask.
pub(super) fn evaluate(
    expect: &Expect,
    answer: HttpAnswer,
    now: Timestamp,
) -> Option<Result<(), ProbeFailure>> {
    let (status, body) = match answer {
        HttpAnswer::Forbidden => return None,
        HttpAnswer::NoAnswer(found) => return Some(Err(ProbeFailure::NoAnswer(found))),
        HttpAnswer::Answered { status, body } => (status, body),
    };
    Some(compare(expect, status, &body, now).map_err(ProbeFailure::Unexpected))
}

fn compare(expect: &Expect, status: u16, body: &[u8], now: Timestamp) -> Result<(), String> {
    let expected = if let Expect::Status(expected) = expect { *expected } else { 200 };
    if status != expected {
        return Err(format!("expected status {expected}, found {status}"));
    }
    match expect {
        Expect::Status(_) => Ok(()),
        Expect::Text(expected) if contains(body, expected.as_bytes()) => Ok(()),
        Expect::Text(_) => Err("expected what was rolled out, found something else".to_owned()),
        Expect::JsonSubset(expected) => match other_field(expected, Some(&json(body)?), String::new()) {
            Some((field, found)) => Err(format!("expected {field} as rolled out, found {found}")),
            None => Ok(()),
        },
        Expect::Listed(wanted) => {
            let found = json(body)?;
            let Some(differences) = ListDifferences::of(wanted, &found, now) else {
                return Err("expected a list, found something else".to_owned());
            };
            differences
                .words()
                .map_or(Ok(()), |words| Err(format!("expected what was rolled out, found {words}")))
        }
    }
}

fn json(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|_| "expected JSON, found something else".to_owned())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// The first field that differs, as a JSON pointer, and how. The message never contains its value, which may be a secret.
pub(super) fn other_field(
    wanted: &Value,
    found: Option<&Value>,
    place: String,
) -> Option<(String, &'static str)> {
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
    fn answers_are_compared_with_the_expected_status_and_fields() {
        let subset = Expect::JsonSubset(json!({"status": "green", "nodes": [{"name": "a"}, {}]}));
        let good = json!({"status": "green", "nodes": [{"name": "a", "age": 7}, {"name": "b"}], "more": 1});
        let table = [
            (Expect::Status(204), answered(204, &json!(null)), Some(Ok(()))),
            (Expect::Status(200), answered(503, &json!(null)), Some(Err("expected status 200, found 503"))),
            (Expect::Status(200), HttpAnswer::Forbidden, None),
            (Expect::Text("\"green\"".to_owned()), answered(200, &json!("green")), Some(Ok(()))),
            (
                Expect::Text("red".to_owned()),
                answered(200, &json!("green")),
                Some(Err("expected what was rolled out, found something else")),
            ),
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
            let unexpected = |found: &str| ProbeFailure::Unexpected(found.to_owned());
            let wanted = wanted.map(|wanted: Result<(), &str>| wanted.map_err(unexpected));
            assert_eq!(evaluate(&expect, answer, Timestamp::UNIX_EPOCH), wanted, "{expect:?}");
        }
        let refused = HttpAnswer::NoAnswer("refused".to_owned());
        let no_answer = Some(Err(ProbeFailure::NoAnswer("refused".to_owned())));
        assert_eq!(evaluate(&Expect::Status(200), refused, Timestamp::UNIX_EPOCH), no_answer);
    }
}
