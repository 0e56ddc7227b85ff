//! The binary as a container runs it.

use std::{
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;
use tasktracker_testbed::wait::wait_until;

pub(crate) fn backend() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
    command.env_clear();
    command
}

pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A running backend; it ends with the test.
pub(crate) struct Service(Child);

impl Service {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Sends SIGTERM and waits for its end; whether it exits with success.
    pub(crate) fn terminate(&mut self) -> bool {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        self.0.wait().unwrap().success()
    }

    pub(crate) fn output(&mut self) -> ChildStdout {
        self.0.stdout.take().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<_> = self.0.wait();
    }
}

fn serve(address: &str, database: &Path) -> Service {
    let mut command = backend();
    command.env("LISTEN", address).env("DATABASE_PATH", database).env("LOG_LEVEL", "debug");
    Service::start(command.stdout(Stdio::piped()))
}

pub(crate) fn healthcheck(address: &str) -> Output {
    backend().arg("healthcheck").env("LISTEN", address).output().unwrap()
}

/// Waits until the service answers.
pub(crate) fn wait_until_ready(address: &str, service: &mut Service) {
    wait_until("the service is ready", || {
        assert_eq!(service.0.try_wait().unwrap(), None, "it ended");
        healthcheck(address).status.success()
    });
}

#[test]
fn sigterm_ends_it_with_success_and_every_log_line_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut service = serve(&address, &folder.path().join("tasks.db"));
    wait_until_ready(&address, &mut service);

    assert!(service.terminate());
    let mut log = String::new();
    service.output().read_to_string(&mut log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let request = lines.iter().find(|line| line["message"] == "request").expect("a line for the request");
    assert_eq!(
        (&request["level"], &request["method"], &request["route"], &request["status"]),
        (&"DEBUG".into(), &"GET".into(), &"/health/ready".into(), &200.into())
    );
    assert!(request["latency_ms"].is_f64());
    assert_eq!(lines.last().unwrap()["message"], "stopped");
    assert!(!folder.path().join("tasks.db-wal").exists(), "the database is closed in order");
}

#[test]
fn healthcheck_fails_in_one_line_when_nothing_listens() {
    let output = healthcheck(&free_address());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
}

#[test]
fn bad_settings_end_it_with_1() {
    let output = backend().env("DRAIN_TIMEOUT", "soon").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("DRAIN_TIMEOUT") && told.contains("soon") && told.contains("expected"), "{told}");
}

#[test]
fn version_and_description_are_printed() {
    for flag in ["-v", "--version"] {
        let output = backend().arg(flag).output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, concat!("backend ", env!("CARGO_PKG_VERSION"), "\n").as_bytes());
    }
    let description = backend().arg("openapi").output().unwrap().stdout;
    assert!(serde_json::from_slice::<Value>(&description).unwrap()["paths"]["/tasks"].is_object());
}

#[test]
fn processes_that_start_together_share_one_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("tasks.db");
    let addresses: Vec<_> = (0..6).map(|_| free_address()).collect();
    let mut services: Vec<_> = addresses.iter().map(|address| serve(address, &database)).collect();
    for (address, service) in addresses.iter().zip(&mut services) {
        wait_until_ready(address, service);
    }
}
