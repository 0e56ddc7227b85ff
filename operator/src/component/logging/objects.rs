//! What the log store is told through its API: how documents are kept, for how long, and who may add and read them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tasktracker_crds::LoggingSpec;

use super::{ELASTICSEARCH, PORT, credentials, object};
use crate::project::{ApiObject, Endpoint, Expect, HttpProbe};

/// Name of what is there for logs, and what the names of its indices begin with.
const LOGS: &str = "tasktracker-logs";

/// Somebody who is let in, with a role of the same name.
pub(super) struct User {
    /// The name.
    pub(super) name: &'static str,
    /// Key of the Secret with the password, and the name of its file.
    pub(super) password: &'static str,
    /// What they may do with the indices of logs.
    privileges: &'static [&'static str],
}

/// Everybody beside the administrator.
pub(super) const USERS: [User; 2] = [
    User { name: "shipper", password: "shipperPassword", privileges: &["auto_configure", "create_doc"] },
    READER,
];

/// Who only reads.
pub(super) const READER: User =
    User { name: "reader", password: "readerPassword", privileges: &["read", "view_index_metadata"] };

/// Fields that are words, of which one looks for the whole.
const WORDS: [&str; 15] = [
    "component",
    "container.name",
    "host.name",
    "http.request.id",
    "http.request.method",
    "log.level",
    "log.logger",
    "service.environment",
    "service.name",
    "stack",
    "stream",
    "trace.id",
    "url.path",
    "user.id",
    "id",
];

/// Every object, in the order in which one needs another.
pub(super) fn all(logging: &LoggingSpec) -> Vec<ApiObject> {
    let mut all = vec![policy(logging), index_template()];
    all.extend(USERS.iter().flat_map(|user| [role(user), account(user)]));
    all
}

fn policy(logging: &LoggingSpec) -> ApiObject {
    let days = format!("{}d", logging.elasticsearch.retention.days);
    let body = json!({ "policy": { "phases": {
        "hot": { "min_age": "0ms", "actions": {} },
        "delete": { "min_age": days, "actions": { "delete": {} } },
    } } });
    let read = json!({ LOGS: body.clone() });
    object(&format!("/_ilm/policy/{LOGS}"), body, read)
}

/// Nothing makes a field by itself: a document with a field that is otherwise elsewhere would be refused.
fn mappings() -> Value {
    let word = || json!({ "type": "keyword", "ignore_above": 1024 });
    let mut properties: BTreeMap<String, Value> =
        WORDS.into_iter().map(|name| (name.to_owned(), word())).collect();
    for (name, field) in [
        ("@timestamp", json!({ "type": "date_nanos" })),
        ("message", json!({ "type": "text" })),
        ("http.response.status_code", json!({ "type": "short" })),
        ("event.duration", json!({ "type": "long" })),
        ("fields", json!({ "type": "flattened", "ignore_above": 8191 })),
    ] {
        properties.insert(name.to_owned(), field);
    }
    json!({ "dynamic": "false", "subobjects": false, "properties": properties })
}

/// Settings as they are answered: below `index`, every value a text. In one template, so that nothing else in it makes
/// others of them.
fn index_template() -> ApiObject {
    let settings = json!({ "index": {
        "codec": "best_compression",
        "lifecycle": { "name": LOGS },
        "mapping": { "ignore_malformed": "true" },
        "number_of_replicas": "0",
        "number_of_shards": "1",
        "refresh_interval": "2s",
    } });
    let body = json!({
        "index_patterns": [format!("{LOGS}-*")],
        "composed_of": [],
        "priority": 500,
        "template": { "settings": settings, "mappings": mappings() },
    });
    let read = json!({ "index_templates": [{ "index_template": body.clone() }] });
    object(&format!("/_index_template/{LOGS}"), body, read)
}

fn role(user: &User) -> ApiObject {
    let indices = json!([{ "names": [format!("{LOGS}-*")], "privileges": user.privileges }]);
    let body = json!({ "cluster": [], "indices": indices, "applications": [], "run_as": [] });
    let read = json!({ user.name: body.clone() });
    object(&format!("/_security/role/{}", user.name), body, read)
}

/// Somebody who is let in with the password of the Secret: seen by being let in.
fn account(user: &User) -> ApiObject {
    let (_, password) = credentials(user.name, user.password);
    let read = json!({ "username": user.name, "roles": [user.name], "enabled": true });
    let body = json!({ "password": "", "roles": [user.name], "enabled": true });
    ApiObject {
        service: ELASTICSEARCH.to_owned(),
        secrets: BTreeMap::from([("/password".to_owned(), password.clone())]),
        probe: Some(HttpProbe {
            endpoint: Endpoint::new(PORT, "/_security/_authenticate"),
            credentials: Some((user.name.to_owned(), password)),
            expect: Expect::JsonSubset(read),
        }),
        ..object(&format!("/_security/user/{}", user.name), body, Value::Null)
    }
}
