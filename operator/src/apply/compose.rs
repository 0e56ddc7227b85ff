//! `docker compose` on a host, with nothing left to its surroundings.

use std::time::Duration;

use super::ACTION_LIMIT;
use crate::{
    host::{Host, Step},
    project::{Project, Reload},
    release::COMPOSE_FILE,
};

/// Compose on one project of a host.
pub(super) struct Compose<'a> {
    name: &'a str,
    directory: String,
    file: String,
}

impl<'a> Compose<'a> {
    pub(super) fn new(host: &Host, project: &'a Project) -> Self {
        Self::of_file(host, project, COMPOSE_FILE)
    }

    /// By another Compose file in the project's folder.
    pub(super) fn of_file(host: &Host, project: &'a Project, file: &str) -> Self {
        let directory = format!("{}/{}", host.target().directory, project.folder);
        Self { name: &project.name, file: format!("{directory}/{file}"), directory }
    }

    /// A stray `.env` or `compose.override.yaml` is not obeyed; nothing is pulled or built; nothing is asked.
    fn run(&self, arguments: &[&str], limit: Duration) -> Step {
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
        Step::docker(&all, limit)
    }

    /// Makes containers; whether they serve is checked afterwards, never believed.
    pub(super) fn up(&self, arguments: &[&str]) -> Step {
        let fixed = ["up", "-d", "--pull", "never", "--no-build"];
        let all: Vec<&str> = fixed.iter().copied().chain(arguments.iter().copied()).collect();
        self.run(&all, ACTION_LIMIT * 2)
    }

    /// Makes containers of services beside those that are there, until there are so many of each.
    pub(super) fn beside<'b>(&self, services: impl IntoIterator<Item = (&'b str, usize)>) -> Step {
        let services: Vec<(&str, usize)> = services.into_iter().collect();
        let scales: Vec<String> = services.iter().map(|(name, number)| format!("{name}={number}")).collect();
        let mut arguments = vec!["--no-deps", "--no-recreate"];
        arguments.extend(scales.iter().flat_map(|scale| ["--scale", scale.as_str()]));
        arguments.extend(services.iter().map(|(name, _)| *name));
        self.up(&arguments)
    }

    /// Runs a program once, in a container like those of a service.
    pub(super) fn once(&self, container: &str, service: &str, words: &[&str], limit: Duration) -> Step {
        let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
        let mut all = vec!["run", "--rm", "--no-deps", "-T", "--name", container];
        all.extend(["--entrypoint", program, service]);
        all.extend(arguments);
        self.run(&all, limit)
    }

    /// Makes containers that are not there, and starts nothing.
    pub(super) fn create(&self) -> Step {
        self.run(&["create", "--pull", "never", "--no-build"], ACTION_LIMIT)
    }

    /// Makes a running service take up its files, with `force` also what its configuration only names, such as a
    /// certificate. Nothing for a service that is reloaded over HTTP.
    pub(super) fn reload(&self, service: &str, how: &Reload, force: bool) -> Option<Step> {
        let words: Vec<&str> = match how {
            Reload::Restart => vec!["restart", service],
            Reload::Exec { argv, force: more } => {
                let more = more.iter().filter(|_| force);
                ["exec", "-T", service]
                    .into_iter()
                    .chain(argv.iter().chain(more).map(String::as_str))
                    .collect()
            }
            Reload::Signal(signal) => vec!["kill", "--signal", signal, service],
            Reload::Http(_) | Reload::Watched => return None,
        };
        Some(self.run(&words, ACTION_LIMIT))
    }
}
