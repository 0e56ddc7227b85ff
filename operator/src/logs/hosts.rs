//! Lines from the Docker hosts of a stack: what Docker keeps of each container.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use serde_json::Value;

use super::{Filter, Level, Line};
use crate::{
    host::{Container, Exit, Host, shell},
    project::{compose::COMPOSE_SERVICE, labels},
    source::Stack,
    text::printable,
};

/// How long a host may take to look for the lines of one container.
const LIMIT: Duration = Duration::from_secs(30);
/// What is taken of one container at once, in bytes: the newest.
const BYTES: usize = 700_000;
/// Lines of a container since a moment ($2), with a text in them ($3): the newest bytes ($4). It ends as `docker logs` does.
const READ: &str = "exec 4>&1
status=$({ { docker logs --timestamps --since \"$2\" \"$1\" 2>&1; echo $? >&3; } | grep -aF -- \"$3\" | tail -c \"$4\" >&4; } 3>&1)
exit \"$status\"";

/// The containers of a stack on a host.
pub struct Containers {
    host: Arc<Host>,
    name: String,
    stack: String,
}

impl Containers {
    /// Those of a stack on the host with this name.
    pub fn new(stack: &Stack, name: &str, host: Arc<Host>) -> Self {
        Self { host, name: name.to_owned(), stack: stack.key.to_string() }
    }

    /// Every line that fits, oldest first, and what could not be read, in words. Of a container that has written much, it is
    /// the newest lines.
    pub async fn read(&self, filter: &Filter) -> (Vec<Line>, Vec<String>) {
        let containers = match self.host.containers().await {
            Ok(containers) => containers,
            Err(error) => return (Vec::new(), vec![format!("{}: {error}", self.name)]),
        };
        let is_asked = |one: &&Container| {
            let service = one.labels.get(COMPOSE_SERVICE);
            one.has_label(labels::STACK, &self.stack)
                && service.is_some_and(|name| filter.services.is_empty() || filter.services.contains(name))
        };
        let read = containers.iter().filter(is_asked).map(|one| self.of_container(one, filter));
        let (mut lines, mut errors) = (Vec::new(), Vec::new());
        for read in join_all(read).await {
            match read {
                Ok(more) => lines.extend(more),
                Err(error) => errors.push(format!("{}: {error}", self.name)),
            }
        }
        lines.sort_by(|one, other| (one.time, &one.id).cmp(&(other.time, &other.id)));
        (lines, errors)
    }

    async fn of_container(&self, container: &Container, filter: &Filter) -> Result<Vec<Line>, String> {
        let text = filter.request.as_deref().or(filter.text.as_deref()).unwrap_or_default();
        // Docker's lines may have other characters in a way of their own.
        let is_plain = |one: char| one.is_ascii_alphanumeric() || " .:_-".contains(one);
        let text = if text.chars().all(is_plain) { text } else { "" };
        let since = filter.since.to_string();
        let command = shell::command(READ, &[&container.name, &since, text, &BYTES.to_string()]);
        let output = self.host.run(&command, Vec::new(), LIMIT).await.map_err(|error| error.to_string())?;
        if output.exit != Exit::Exited(0) {
            return Err(format!("docker logs {}: {}", container.name, printable(&output.last_words())));
        }
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let read = lines.lines().filter_map(|raw| Some((raw, self.line(container, raw)?)));
        Ok(read.filter(|(raw, line)| fits(line, raw, filter)).map(|(_, line)| line).collect())
    }

    /// A line with its time before it; none where it begins in the middle.
    fn line(&self, container: &Container, line: &str) -> Option<Line> {
        let (time, text) = line.split_once(' ')?;
        let (level, message, fields) = parsed(text);
        Some(Line {
            time: time.parse().ok()?,
            host: self.name.clone(),
            service: container.labels.get(COMPOSE_SERVICE).cloned().unwrap_or_default(),
            container: Some(container.name.clone()),
            level,
            message,
            fields,
            id: format!("{}{line}", container.name),
        })
    }
}

/// Whether a line is asked for, by what it says and how it stands there.
fn fits(line: &Line, raw: &str, filter: &Filter) -> bool {
    let is_grave = filter.level.is_none_or(|least| line.level.is_some_and(|level| level >= least));
    let has = |text: &String| raw.contains(text) || line.has(text);
    is_grave && filter.request.as_ref().is_none_or(has) && filter.text.as_ref().is_none_or(has)
}

/// What a line of JSON, or of any other text, says.
fn parsed(text: &str) -> (Option<Level>, String, BTreeMap<String, Value>) {
    let object = serde_json::from_str::<BTreeMap<String, Value>>(text);
    let Ok(mut fields) = object else {
        let mut words = text.split([' ', '\t', '[', ']', ':', '=']).filter(|word| !word.is_empty()).take(10);
        let is_marked = |word: &&str| {
            word.len() > 2 && (word.to_uppercase() == **word || text.contains(&format!("level={word}")))
        };
        let level = words.find_map(|word| Some(word).filter(is_marked).and_then(Level::of));
        return (level, text.to_owned(), BTreeMap::new());
    };
    let mut take = |names: &[&str]| {
        let name = names.iter().find(|name| fields.get(**name).is_some_and(Value::is_string))?;
        fields.remove(*name)?.as_str().map(str::to_owned)
    };
    let said = take(&["level", "lvl", "severity", "log.level"]);
    let level = said.as_deref().and_then(Level::of);
    let message = take(&["message", "msg"]).unwrap_or_default();
    fields.extend(said.filter(|_| level.is_none()).map(|said| ("level".to_owned(), said.into())));
    for said_again in ["timestamp", "ts", "time", "@timestamp"] {
        fields.remove(said_again);
    }
    let request = fields.get("request").filter(|request| request.is_object()).cloned().unwrap_or_default();
    fields.retain(|name, value| name != "request" || !value.is_object());
    for (name, place) in [("http.request.method", "method"), ("url.path", "uri")] {
        fields.extend(request.get(place).map(|found| (name.to_owned(), found.clone())));
    }
    for (name, place) in NAMES {
        let found = Value::Object(fields.clone().into_iter().collect()).pointer(place).cloned();
        if let Some(found) = found.filter(|found| !found.is_null()) {
            fields.remove(place.trim_start_matches('/').split('/').next().unwrap_or_default());
            fields.insert(name.to_owned(), found);
        }
    }
    for (place, unit) in [("latency_ms", 1e6), ("duration", 1e9)] {
        if let Some(duration) = fields.get(place).and_then(Value::as_f64) {
            fields.remove(place);
            fields.insert("event.duration".to_owned(), (duration * unit).round().into());
        }
    }
    (level, message, fields)
}

/// Fields as documents of the log store name them, and where programs of a stack have them.
const NAMES: [(&str, &str); 8] = [
    ("http.request.id", "/resp_headers/X-Request-Id/0"),
    ("http.request.id", "/request_id"),
    ("http.response.status_code", "/status"),
    ("http.request.method", "/method"),
    ("url.path", "/path"),
    ("log.logger", "/target"),
    ("log.logger", "/logger"),
    ("user.id", "/user_id"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_how_grave_it_is_and_what_else() {
        for (text, level, message, fields) in [
            (
                r#"{"timestamp":"t","level":"INFO","message":"request","request_id":"a","status":200}"#,
                Some(Level::Info),
                "request",
                json!({ "http.request.id": "a", "http.response.status_code": 200 }),
            ),
            (
                r#"{"level":"info","msg":"handled request","request":{"method":"GET","uri":"/a?b"},"duration":0.5,"resp_headers":{"X-Request-Id":["c"]}}"#,
                Some(Level::Info),
                "handled request",
                json!({ "http.request.id": "c", "http.request.method": "GET", "url.path": "/a?b", "event.duration": 5e8 }),
            ),
            ("2026-12-01 ERROR: no", Some(Level::Error), "2026-12-01 ERROR: no", json!({})),
            (r#"ts=1 level=warn msg="a b""#, Some(Level::Warn), r#"ts=1 level=warn msg="a b""#, json!({})),
            ("an error in the text", None, "an error in the text", json!({})),
            (r#"{"level":7}"#, None, "", json!({ "level": 7 })),
            (r#"{"level":"odd","request":"a"}"#, None, "", json!({ "level": "odd", "request": "a" })),
        ] {
            let found = parsed(text);
            let fields = serde_json::from_value(fields).unwrap();
            assert_eq!(found, (level, message.to_owned(), fields), "{text}");
        }
    }
}
