//! Lines from the log store, asked through the SSH connection of its host.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Filter, Level, Line};
use crate::{
    component::LogStore,
    host::{BasicAuth, Host, HttpAnswer},
    observe,
    project::Project,
    source::Stack,
    text::printable,
};

/// Documents of one answer, at most: an answer of the store has at most 1 MiB, and asks for fewer where it would be larger.
const PAGE: usize = 200;

/// The log store of a stack, where it runs.
pub struct Store {
    host: Arc<Host>,
    address: SocketAddr,
    credentials: BasicAuth,
    stack: String,
}

impl Store {
    /// The store of a stack on its host.
    ///
    /// # Errors
    /// When the host cannot be reached, or runs none: in words.
    pub async fn find(
        stack: &Stack,
        host: Arc<Host>,
        project: &Project,
        of: &LogStore<'_>,
        credentials: BasicAuth,
    ) -> Result<Self, String> {
        let found =
            observe::address_of(&host, project, of.service).await.map_err(|error| error.to_string())?;
        let address = found.ok_or_else(|| format!("{} does not run", of.service))?;
        Ok(Self {
            host,
            address: SocketAddr::new(address, of.port),
            credentials,
            stack: stack.key.to_string(),
        })
    }

    /// Hands over every line that fits, oldest first. Of a document that is larger than an answer may be, it is that it is
    /// there.
    ///
    /// # Errors
    /// When the store does not answer as it should: in words.
    pub async fn read(&self, filter: &Filter, mut each: impl FnMut(Line)) -> Result<(), String> {
        let (mut after, mut size, mut is_short) = (None::<Value>, PAGE, false);
        loop {
            let mut query = json!({
                "size": size,
                "query": query(&self.stack, filter),
                "sort": [{ "@timestamp": "asc" }, { "id": { "order": "asc", "unmapped_type": "keyword" } }],
                "track_total_hits": false,
            });
            if let Some(after) = &after {
                query["search_after"] = after.clone();
            }
            if is_short {
                query["_source"] = json!({ "excludes": ["message", "fields"] });
            }
            let Some(answer) = self.ask(&query).await? else {
                match size {
                    1 if is_short => {
                        return Err("one document is larger than 1 MiB, without its text".to_owned());
                    }
                    1 => is_short = true,
                    _ => size /= 2,
                }
                continue;
            };
            let hits = answer["hits"]["hits"].as_array().cloned().unwrap_or_default();
            let is_last = hits.len() < size;
            after = hits.last().map(|hit| hit["sort"].clone());
            for mut line in hits.iter().map(line) {
                if is_short {
                    "(too long to be shown)".clone_into(&mut line.message);
                }
                if is_short || filter.text.as_ref().is_none_or(|text| line.has(text)) {
                    each(line);
                }
            }
            if is_last {
                return Ok(());
            }
            (size, is_short) = ((size * 2).min(PAGE), false);
        }
    }

    /// An answer; none where it is too large.
    async fn ask(&self, query: &Value) -> Result<Option<Value>, String> {
        let path = format!(
            "/tasktracker-logs-*/_search?ignore_unavailable=true&source_content_type=application/json&source={}",
            escaped(&query.to_string())
        );
        let answer = self.host.http_get(self.address, &path, Some(&self.credentials)).await;
        match answer.map_err(|error| error.to_string())? {
            HttpAnswer::Answered { status: 200, body } => {
                serde_json::from_slice(&body).map(Some).map_err(|error| format!("no JSON: {error}"))
            }
            HttpAnswer::Answered { status: 401, .. } => {
                Err(format!("{} is not let in: expected the password of the Secret", self.credentials.user))
            }
            HttpAnswer::Answered { status, body } => {
                let body = String::from_utf8_lossy(&body);
                Err(format!("expected status 200, found {status}: {}", printable(body.trim())))
            }
            HttpAnswer::NoAnswer(found) if found.contains("found a larger one") => Ok(None),
            HttpAnswer::NoAnswer(found) => Err(found),
            HttpAnswer::Forbidden => Err("sshd forbids TCP forwarding".to_owned()),
        }
    }
}

/// What is asked of the store. A text may be in the middle of a word, which it does not look for: that is done here.
fn query(stack: &str, filter: &Filter) -> Value {
    let Filter { services, since, request, level, .. } = filter;
    let mut all = vec![
        json!({ "term": { "stack": stack } }),
        json!({ "range": { "@timestamp": { "gte": since.to_string() } } }),
    ];
    if !services.is_empty() {
        all.push(json!({ "terms": { "service.name": services } }));
    }
    if let Some(level) = level {
        all.push(json!({ "terms": { "log.level": level.and_above().collect::<Vec<_>>() } }));
    }
    if let Some(request) = request {
        all.push(json!({ "bool": { "should": [
            { "term": { "http.request.id": request } },
            { "term": { "fields": request } },
            { "match_phrase": { "message": request } },
        ], "minimum_should_match": 1 } }));
    }
    json!({ "bool": { "filter": all } })
}

/// Fields of a document that a line has in places of their own, or that say nothing more.
const KNOWN: [&str; 13] = [
    "@timestamp",
    "component",
    "container.name",
    "fields",
    "host.name",
    "id",
    "index",
    "log.level",
    "message",
    "service.environment",
    "service.name",
    "stack",
    "stream",
];

fn line(hit: &Value) -> Line {
    let document = &hit["_source"];
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    let of_document = document.as_object().into_iter().flatten();
    let of_document = of_document.filter(|(name, _)| !KNOWN.contains(&name.as_str()));
    let all = document["fields"].as_object().into_iter().flatten().chain(of_document);
    let fields: BTreeMap<String, Value> = all.map(|(name, value)| (name.clone(), value.clone())).collect();
    Line {
        time: text("@timestamp").and_then(|time| time.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH),
        host: text("host.name").unwrap_or_default(),
        service: text("service.name").unwrap_or_default(),
        container: text("container.name"),
        level: text("log.level").and_then(|level| Level::of(&level)),
        message: text("message").unwrap_or_default(),
        fields,
        id: hit["_id"].as_str().unwrap_or_default().to_owned(),
    }
}

/// A text as part of a query of a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            // Writing to a string does not fail.
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}
