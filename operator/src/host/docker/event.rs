//! Docker's events: a wake-up, never a fact. What happened is checked afterwards.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

/// What may change what the operator observes; a stop or a restart is told by the death and the start within it.
/// Health checks run as `exec_*` every few seconds and are not asked for.
pub(super) const FILTERS: &str = r#"{"type":["container","network","volume"],"event":["create","start","die","pause","unpause","destroy","rename","update","oom","health_status","connect","disconnect","remove","prune"]}"#;
/// The longest event that is kept, in bytes; of a longer one only that it came is known.
const LINE_LIMIT: usize = 64 << 10;
/// How long what else comes with an event of ours is waited for.
const BURST: Duration = Duration::from_millis(2);
/// How much of it is taken at most before the check.
const BURST_FRAMES: usize = 100;
/// The label that names a Compose project.
pub(super) const PROJECT_LABEL: &str = "com.docker.compose.project";
/// Those that name its service, and its number among those of the service.
pub(super) const SERVICE_LABEL: &str = "com.docker.compose.service";
pub(super) const NUMBER_LABEL: &str = "com.docker.compose.container-number";

/// A stream of events.
pub(in crate::host) struct Events {
    body: Incoming,
    rest: BytesMut,
    /// The most urgent event that was read and not returned yet.
    origin: Option<Origin>,
}

/// Whose an event is; the later variant is the more urgent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::host) enum Origin {
    /// Somebody else's, or it cannot be read.
    Foreign,
    /// A project's, network's or volume's that the operator asks about.
    Ours,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Subject<'a> {
    /// A container of this Compose project.
    Project(&'a str),
    /// A container of which the kernel ended a process for its memory.
    OutOfMemory {
        /// Its Compose project.
        project: &'a str,
        /// Its service.
        service: &'a str,
        /// Its number among those of the service.
        replica: &'a str,
    },
    /// A network by its name, and the container that joined or left it, by its ID.
    Network(&'a str, Option<&'a str>),
    /// A volume by its name.
    Volume(&'a str),
    /// Something else, such as a container of no project.
    Other,
    /// Any network or volume: many were removed at once, or the event cannot be read.
    Unknown,
}

/// The part of an event that tells whether to check.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Event {
    r#type: String,
    action: String,
    actor: Actor,
}

/// What an event is about, with the labels of a container among its attributes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

impl Event {
    fn subject(&self) -> Subject<'_> {
        let attribute = |key: &str| self.actor.attributes.get(key).map(String::as_str);
        match self.r#type.as_str() {
            "container" => {
                let Some(project) = attribute(PROJECT_LABEL) else { return Subject::Other };
                let service = attribute(SERVICE_LABEL).filter(|_| self.action == "oom");
                match (service, attribute(NUMBER_LABEL)) {
                    (Some(service), Some(replica)) => Subject::OutOfMemory { project, service, replica },
                    _ => Subject::Project(project),
                }
            }
            "network" | "volume" if self.action == "prune" => Subject::Unknown,
            "network" => attribute("name")
                .map_or(Subject::Other, |name| Subject::Network(name, attribute("container"))),
            "volume" => Subject::Volume(&self.actor.id),
            _ => Subject::Other,
        }
    }
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, rest: BytesMut::new(), origin: None }
    }

    /// Waits until something happened that is worth a check; nothing when the stream ended. Whoever stops waiting loses
    /// no event. `receive` is called once for each, with what it is about.
    pub(in crate::host) async fn next(&mut self, receive: impl Fn(Subject<'_>) -> Origin) -> Option<Origin> {
        while self.origin.is_none() {
            let data = self.read().await?;
            self.take(&data, &receive);
        }
        // A removal is a handful of events: one check serves them all. Foreign ones are collected by the caller.
        for _ in 0..BURST_FRAMES {
            if self.origin != Some(Origin::Ours) {
                break;
            }
            let Ok(Some(more)) = timeout(BURST, self.read()).await else { break };
            self.take(&more, &receive);
        }
        self.origin.take()
    }

    async fn read(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    fn take(&mut self, data: &[u8], receive: impl Fn(Subject<'_>) -> Origin) {
        self.origin = self.origin.max(take_lines(&mut self.rest, data, receive));
    }
}

/// Takes bytes, and tells whose the events are that are complete with them: the most urgent one.
fn take_lines(rest: &mut BytesMut, data: &[u8], receive: impl Fn(Subject<'_>) -> Origin) -> Option<Origin> {
    rest.extend_from_slice(data);
    let mut most_urgent = None;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        most_urgent = most_urgent.max(origin(&rest[..end], &receive));
        rest.advance(end + 1);
    }
    if rest.len() > LINE_LIMIT {
        rest.clear();
        most_urgent = most_urgent.max(Some(receive(Subject::Unknown)));
    }
    most_urgent
}

/// Whose an event is; nothing where it is no reason to check. What cannot be read is a reason.
fn origin(line: &[u8], receive: impl Fn(Subject<'_>) -> Origin) -> Option<Origin> {
    if line.trim_ascii().is_empty() {
        return None;
    }
    let Ok(event) = serde_json::from_slice::<Event>(line) else {
        return Some(receive(Subject::Unknown));
    };
    if event.action.starts_with("exec_") {
        return None;
    }
    Some(receive(event.subject()))
}

/// For fuzzing: any bytes are taken, in pieces.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let mut rest = BytesMut::new();
    for piece in data.chunks(7) {
        take_lines(&mut rest, piece, |_| Origin::Foreign);
        assert!(rest.len() <= LINE_LIMIT + 7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(rest: &mut BytesMut, data: &[u8]) -> Option<Origin> {
        take_lines(rest, data, |subject| {
            let ours = [
                Subject::Project("ours"),
                Subject::Network("ours-net", Some("c")),
                Subject::Volume("ours-data"),
            ];
            if ours.contains(&subject) { Origin::Ours } else { Origin::Foreign }
        })
    }

    #[test]
    fn lines_are_put_together_and_health_checks_do_not_wake() {
        let mut rest = BytesMut::new();
        assert_eq!(take(&mut rest, br#"{"Action":"di"#), None);
        assert_eq!(take(&mut rest, b"e\"}\n"), Some(Origin::Foreign));
        assert_eq!(take(&mut rest, b"{\"Action\":\"exec_start: /x\"}\n\n"), None);
        assert_eq!(take(&mut rest, b"no JSON\n"), Some(Origin::Foreign));
        let endless = vec![b'x'; LINE_LIMIT + 1];
        assert_eq!(take(&mut rest, &endless), Some(Origin::Foreign), "an endless line is a reason to check");
        assert!(rest.is_empty());
    }

    #[test]
    fn an_end_for_want_of_memory_names_the_replica() {
        let event = |action: &str, number: &str| {
            format!(
                "{{\"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"c\",\"Attributes\":{{\"com.docker.compose.project\":\"p\",\"com.docker.compose.service\":\"s\"{number}}}}}}}\n"
            )
        };
        let number = ",\"com.docker.compose.container-number\":\"2\"";
        for (text, expected) in
            [(event("oom", number), true), (event("die", number), false), (event("oom", ""), false)]
        {
            let is_it = |subject: Subject<'_>| {
                let wanted = Subject::OutOfMemory { project: "p", service: "s", replica: "2" };
                if subject == wanted { Origin::Ours } else { Origin::Foreign }
            };
            let found = take_lines(&mut BytesMut::new(), text.as_bytes(), is_it);
            assert_eq!(found == Some(Origin::Ours), expected, "{text}");
        }
    }

    #[test]
    fn events_are_ours_by_project_network_or_volume() {
        let event = |kind: &str, id: &str, attributes: &str| {
            format!(
                "{{\"Type\":\"{kind}\",\"Action\":\"x\",\"Actor\":{{\"ID\":\"{id}\",\"Attributes\":{{{attributes}}}}},\"time\":1}}\n"
            )
        };
        let of_project = |name: &str| {
            event("container", "c", &format!("\"com.docker.compose.project\":\"{name}\",\"name\":\"n\""))
        };
        let table = [
            (of_project("ours"), Origin::Ours),
            (of_project("other"), Origin::Foreign),
            (event("container", "ours", "\"name\":\"ours\""), Origin::Foreign),
            (event("network", "7", "\"container\":\"c\",\"name\":\"ours-net\""), Origin::Ours),
            (event("network", "ours-net", "\"name\":\"bridge\""), Origin::Foreign),
            (event("volume", "ours-data", "\"driver\":\"local\""), Origin::Ours),
            (event("volume", "data", ""), Origin::Foreign),
            (
                r#"{"Type":"volume","Action":"prune","Actor":{"ID":"ours-data"}}"#.to_owned() + "\n",
                Origin::Foreign,
            ),
            (event("image", "ours", "\"com.docker.compose.project\":\"ours\""), Origin::Foreign),
            (of_project("other") + &of_project("ours") + &of_project("other"), Origin::Ours),
        ];
        for (text, expected) in table {
            assert_eq!(take(&mut BytesMut::new(), text.as_bytes()), Some(expected), "{text}");
        }
    }
}
