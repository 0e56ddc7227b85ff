//! An API server in memory, for tests: objects by path, versions that grow, and a record of what was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::{Client, api::DynamicObject, client::Body};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// The example of a stack, as an API server has it.
pub(super) fn stack(name: &str) -> DynamicObject {
    let resource = tasktracker_crds::validation::read_stack(include_str!("../../../examples/staging.yaml"));
    let mut object = serde_json::to_value(resource.unwrap()).unwrap();
    object["metadata"] = json!({
        "name": name,
        "namespace": "default",
        "uid": format!("uid-of-{name}"),
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": "2025-03-04T05:06:07Z",
    });
    serde_json::from_value(object).unwrap()
}

/// Path of a stack.
pub(super) fn stack_path(name: &str) -> String {
    format!("/apis/tasktracker.dev/v1alpha1/namespaces/default/tasktrackerstacks/{name}")
}

/// Path of a `ConfigMap`.
pub(super) fn config_map_path(name: &str) -> String {
    format!("/api/v1/namespaces/default/configmaps/{name}")
}

/// The API server. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct FakeApi {
    state: Arc<Mutex<State>>,
    /// Told of every request once it is answered.
    pub(super) answered: Arc<Notify>,
    before: Arc<Mutex<Option<Before>>>,
}

/// What happens once, before a request with this method is answered.
type Before = (Method, Box<dyn FnOnce() + Send>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    requests: Vec<String>,
    refused: BTreeSet<String>,
}

impl FakeApi {
    pub(super) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Stores an object as if somebody else had.
    pub(super) fn store(&self, path: &str, object: &impl serde::Serialize) {
        self.lock().store(path, serde_json::to_value(object).unwrap());
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Methods and paths of all requests so far, in their order.
    pub(super) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    pub(super) fn count(&self, request: &str) -> usize {
        self.requests().iter().filter(|one| *one == request).count()
    }

    /// Answers requests with a method by 500 from now on, or does no longer.
    pub(super) fn refuse(&self, method: &Method, refused: bool) {
        if refused {
            self.lock().refused.insert(method.to_string());
        } else {
            self.lock().refused.remove(method.as_str());
        }
    }

    /// Runs something just before the next request with a method is answered.
    pub(super) fn before(&self, method: &Method, act: impl FnOnce() + Send + 'static) {
        *self.before.lock().unwrap() = Some((method.clone(), Box::new(act)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let before = self.before.lock().unwrap().take_if(|(method, _)| *method == parts.method);
        if let Some((_, act)) = before {
            act();
        }
        let (status, answer) = self.lock().answer(&parts.method, parts.uri.path(), body);
        self.answered.notify_waiters();
        let answer = Body::from(answer.to_string().into_bytes());
        Response::builder().status(status).body(answer).unwrap()
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.requests.push(format!("{method} {path}"));
        if self.refused.contains(method.as_str()) {
            return failure(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let place = path.strip_suffix("/status").unwrap_or(path);
        let known = self.objects.get(place).cloned();
        match (method.as_str(), known) {
            ("POST", _) => {
                let place = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&place) {
                    return failure(StatusCode::CONFLICT);
                }
                (StatusCode::CREATED, self.store(&place, body))
            }
            (_, None) => failure(StatusCode::NOT_FOUND),
            ("GET", Some(known)) => (StatusCode::OK, known),
            ("DELETE", Some(known)) => {
                let wanted = &body["preconditions"]["uid"];
                if !wanted.is_null() && *wanted != known["metadata"]["uid"] {
                    return failure(StatusCode::CONFLICT);
                }
                self.objects.remove(place);
                (StatusCode::OK, known)
            }
            (_, Some(known)) => {
                let wanted = &body["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != known["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT);
                }
                let mut changed = if method == Method::PATCH { known } else { Value::Null };
                merge(&mut changed, body);
                (StatusCode::OK, self.store(place, changed))
            }
        }
    }
}

/// A merge patch: RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    for (key, value) in patch {
        merge(&mut target[key], value);
    }
}

fn failure(status: StatusCode) -> (StatusCode, Value) {
    let reason = match status {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        _ => "InternalError",
    };
    let answer = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": reason,
        "code": status.as_u16(),
    });
    (status, answer)
}
