//! Docker's API on a sandbox host, for a hand that makes what the command line cannot.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use serde_json::{Value, json};

use crate::stage::Stage;

/// One request with a JSON body: status and answer.
fn request(stage: &Stage, method: &str, path: &str, body: &Value) -> (u16, String) {
    let mut stream = UnixStream::connect(stage.host.path("/run/docker.sock")).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    // The daemon may cut the connection once it has answered.
    let _: std::io::Result<usize> = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// What it takes to make a container once more, from its `inspect`.
pub(super) fn recipe(stage: &Stage, container: &str) -> Value {
    let inspect: Value =
        serde_json::from_str(&stage.on_host(&format!("docker inspect {container}"))).unwrap();
    let mut recipe = inspect[0]["Config"].clone();
    recipe["Hostname"] = json!("");
    recipe["HostConfig"] = inspect[0]["HostConfig"].clone();
    let service = inspect[0]["Config"]["Labels"]["com.docker.compose.service"].clone();
    let mut aliases = inspect[0]["NetworkSettings"]["Networks"]["tt-staging"]["Aliases"].clone();
    let is_upstream = |alias: &Value| {
        let last = alias.as_str().and_then(|alias| alias.rsplit_once('-')).map(|(_, last)| last);
        last.is_some_and(|last| last.len() == 16)
    };
    aliases.as_array_mut().unwrap().retain(|alias| *alias == service || is_upstream(alias));
    recipe["NetworkingConfig"] = json!({"EndpointsConfig": {"tt-staging": {"Aliases": aliases}}});
    recipe
}

/// Makes a container and starts it; one that ends at once is no failure.
pub(super) fn run(stage: &Stage, name: &str, recipe: &Value) {
    let (status, answer) = request(stage, "POST", &format!("/containers/create?name={name}"), recipe);
    assert_eq!(status, 201, "{answer}");
    let (status, answer) = request(stage, "POST", &format!("/containers/{name}/start"), &json!({}));
    assert!([204, 400, 500].contains(&status), "{answer}");
}
