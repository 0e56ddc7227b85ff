//! The binary as a container runs it.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tasktracker_testbed::{hostile, wait::wait_until};
use tempfile::TempDir;

/// A running service, and the folder with its files.
struct Echo {
    folder: TempDir,
    address: SocketAddr,
    child: Child,
}

/// The status and body of an answer.
type Answer = (u16, String);

impl Echo {
    /// Starts a service whose configuration file has this text.
    fn start(config: Option<&str>, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        if let Some(text) = config {
            fs::write(folder.path().join("config.txt"), text).unwrap();
        }
        let address = hostile::closed_port().unwrap();
        let mut command = command(&folder, address);
        let child = command.envs(environment.iter().copied()).stdout(Stdio::null()).spawn().unwrap();
        let echo = Self { folder, address, child };
        wait_until("the service answers", || echo.try_ask("GET", "/", "", "").is_some());
        echo
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn try_ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_ask(method, path, "", body).unwrap()
    }

    fn status(&self, path: &str) -> u16 {
        self.ask("GET", path, "").0
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Runs one command against the service.
    fn command(&self, arguments: &[&str]) -> Output {
        command(&self.folder, self.address).args(arguments).output().unwrap()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}

fn command(folder: &TempDir, address: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo"));
    command
        .env_clear()
        .env("LISTEN", address.to_string())
        .env("CONFIG_PATH", folder.path().join("config.txt"))
        .env("DATA_PATH", folder.path().join("data"))
        .env("PASSWORD_PATH", folder.path().join("password"))
        .env("REVISION", "r7");
    command
}

#[test]
fn a_configuration_is_loaded_at_start_and_at_each_reload() {
    let echo = Echo::start(Some("one"), &[]);
    assert_eq!((echo.status("/ready"), echo.json("/")), (200, json!({"revision": "r7"})));
    let text = || echo.json("/config")["text"].as_str().unwrap().to_owned();
    echo.write("config.txt", "two");
    assert_eq!(text(), "one");
    assert_eq!(echo.ask("POST", "/-/reload", "").0, 200);
    assert_eq!(text(), "two");
    echo.write("config.txt", "three");
    echo.signal("HUP");
    wait_until("SIGHUP reloads", || text() == "three");
    echo.write("config.txt", "four");
    assert!(echo.command(&["reload"]).status.success());
    assert_eq!(text(), "four");
    echo.write("config.txt", "is refused");
    let refused = echo.command(&["reload"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("config.txt:1: expected"), "{said}");
    assert_eq!((text(), echo.status("/ready")), ("four".to_owned(), 200));
}

#[test]
fn a_service_without_a_configuration_is_not_ready_until_it_is_loaded() {
    let echo = Echo::start(None, &[]);
    assert_eq!((echo.status("/ready"), echo.json("/config")), (503, json!({"text": null})));
    assert_eq!(echo.command(&["healthcheck"]).status.code(), Some(1));
    assert_eq!(echo.ask("POST", "/-/reload", "").0, 500);
    echo.write("config.txt", "here");
    assert_eq!(echo.ask("POST", "/-/reload", "").0, 200);
    assert_eq!(echo.status("/ready"), 200);
    assert!(echo.command(&["healthcheck"]).status.success());
}

#[test]
fn a_service_that_is_to_fail_is_never_ready() {
    let echo = Echo::start(Some("one"), &[("FAIL", "never-ready")]);
    assert_eq!((echo.status("/ready"), echo.json("/config")), (503, json!({"text": "one"})));
    assert_eq!(echo.ask("POST", "/-/reload", "").0, 200);
    assert_eq!(echo.status("/ready"), 503);
}

#[test]
fn validate_accepts_and_refuses_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    fs::write(&good, "fine\n").unwrap();
    fs::write(&bad, "fine\nrefused\n").unwrap();
    let validate = |file: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_echo")).arg("validate").arg(file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(validate(&good), (Some(0), String::new()));
    let (code, said) = validate(&bad);
    assert!(code == Some(1) && said.contains("bad:2: expected a text without the word"), "{said}");
    let (code, said) = validate(&folder.path().join("none"));
    assert!(code == Some(1) && said.contains("cannot read"), "{said}");
}

#[test]
fn the_health_is_what_a_test_set_it_to_and_is_kept() {
    let echo = Echo::start(Some("one"), &[]);
    assert_eq!(echo.json("/health"), json!({"status": "green"}));
    for status in ["red", "green", "red"] {
        assert_eq!(echo.ask("PUT", "/health", status).0, 204);
        assert_eq!(echo.json("/health"), json!({"status": status}));
    }
    assert_eq!(echo.ask("PUT", "/health", "blue").0, 400);
    assert_eq!(fs::read_to_string(echo.folder.path().join("data/health")).unwrap(), "red");
}

#[test]
fn objects_are_stored_and_need_the_password_where_there_is_one() {
    let echo = Echo::start(Some("one"), &[]);
    let object = json!({"a": [1, "two"]}).to_string();
    assert_eq!(echo.status("/objects/first"), 404);
    assert_eq!(echo.ask("PUT", "/objects/first", &object).0, 201);
    assert_eq!(echo.ask("PUT", "/objects/first", &object).0, 200);
    assert_eq!(echo.ask("GET", "/objects/first", ""), (200, object.clone()));
    for body in ["", "[]", "1", "{"] {
        assert_eq!(echo.ask("PUT", "/objects/second", body).0, 400, "{body}");
    }
    assert_eq!((echo.status("/objects/second"), echo.ask("PUT", "/objects/..", "{}").0), (404, 404));
    assert_eq!(echo.status("/secret"), 404);

    echo.write("password", "canary");
    let with = |password: &str, method: &str, body: &str| {
        let header = format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("admin:{password}")));
        echo.try_ask(method, "/objects/first", &header, body).unwrap().0
    };
    assert_eq!((echo.status("/objects/first"), echo.ask("PUT", "/objects/first", "{}").0), (401, 401));
    assert_eq!((with("other", "GET", ""), with("other", "PUT", "{}")), (401, 401));
    assert_eq!((with("canary", "GET", ""), with("canary", "PUT", "{}")), (200, 200));
    assert_eq!(echo.json("/secret")["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn anything_else_is_not_found_and_sigterm_ends_it_with_success() {
    let mut echo = Echo::start(Some("one"), &[]);
    for path in ["/other", "/objects", "/objects/a/b", "/-/reload/x"] {
        assert_eq!(echo.status(path), 404, "{path}");
    }
    echo.signal("TERM");
    assert!(echo.child.wait().unwrap().success());
}
