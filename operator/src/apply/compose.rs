//! `docker compose` on a host, with nothing left to its surroundings.

use std::time::Duration;

use super::ACTION_LIMIT;
use crate::{
    desired::Project,
    host::{Error, Host, HostLock},
    release::COMPOSE_FILE,
};

/// Compose on one project of a host.
pub(super) struct Compose<'a> {
    host: &'a Host,
    lock: &'a HostLock,
    name: &'a str,
    directory: String,
    file: String,
}

impl<'a> Compose<'a> {
    pub(super) fn new(host: &'a Host, lock: &'a HostLock, project: &'a Project) -> Self {
        let directory = format!("{}/{}", host.target().directory, project.folder);
        Self { host, lock, name: &project.name, file: format!("{directory}/{COMPOSE_FILE}"), directory }
    }

    /// A stray `.env` or `compose.override.yaml` is not obeyed; nothing is pulled or built; nothing is asked.
    async fn run(&self, arguments: &[&str], limit: Duration) -> Result<(), Error> {
        let fixed = [
            "compose",
            "-p",
            self.name,
            "-f",
            &self.file,
            "--project-directory",
            &self.directory,
            "--env-file",
            "/dev/null",
        ];
        let all: Vec<&str> = fixed.iter().copied().chain(arguments.iter().copied()).collect();
        self.host.docker(self.lock, &all, limit).await.map(drop)
    }

    /// Makes containers; whether they serve is looked at afterwards, never believed.
    pub(super) async fn up(&self, arguments: &[&str]) -> Result<(), Error> {
        let fixed = ["up", "-d", "--pull", "never", "--no-build"];
        let all: Vec<&str> = fixed.iter().copied().chain(arguments.iter().copied()).collect();
        self.run(&all, ACTION_LIMIT * 2).await
    }

    /// Makes a running service take up its files: Caddy validates before it switches; anything else is restarted.
    pub(super) async fn reload(&self, service: &str) -> Result<(), Error> {
        if service == "edge" {
            return self
                .run(
                    &[
                        "exec",
                        "-T",
                        service,
                        "caddy",
                        "reload",
                        "--config",
                        "/etc/caddy/Caddyfile",
                        "--adapter",
                        "caddyfile",
                    ],
                    ACTION_LIMIT,
                )
                .await;
        }
        self.run(&["restart", service], ACTION_LIMIT).await
    }
}
