//! Files that say where the containers behind a proxy are: for the time in which the Docker daemon, which knows their
//! names, is away.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    host::{Container, FileFact},
    project::is_below,
    release::Release,
};

/// Files, by path from the project's folder, that are to be made or to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Those that are not there.
    pub missing: BTreeSet<String>,
    /// Those that lead nowhere.
    pub stale: BTreeSet<String>,
}

/// What differs between those files and where the running containers of a release are.
pub fn addresses(
    release: &Release,
    containers: &[Container],
    files: &BTreeMap<String, FileFact>,
) -> Addresses {
    let project = &release.project;
    let mut wanted = BTreeSet::new();
    for (service, blue_green) in project.blue_green().filter(|(_, one)| !one.addresses.is_empty()) {
        let running = release.running(service, containers);
        let addresses = running.filter_map(|one| one.addresses.get(&project.network));
        let addresses = addresses.filter(|address| address.is_ipv4());
        wanted.extend(addresses.map(|address| format!("{}/{address}", blue_green.addresses)));
    }
    let folders: Vec<&str> = project.blue_green().map(|(_, one)| one.addresses.as_str()).collect();
    let is_one = |path: &&String| folders.iter().any(|folder| !folder.is_empty() && is_below(path, folder));
    let there = files.iter().filter(|(_, fact)| !fact.is_folder()).map(|(path, _)| path).filter(is_one);
    let there: BTreeSet<String> = there.cloned().collect();
    Addresses {
        missing: wanted.difference(&there).cloned().collect(),
        stale: there.difference(&wanted).cloned().collect(),
    }
}

impl Addresses {
    /// Whether the files say where everything is.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.stale.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        host::State,
        project::{
            compose::{COMPOSE_ONE_OFF, COMPOSE_SERVICE},
            labels,
        },
        release::Prepared,
        source::Stack,
    };

    #[test]
    fn the_files_follow_the_running_containers_of_the_release() {
        let text = include_str!("../../../examples/staging.yaml");
        let stack = Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), PathBuf::new());
        let project = crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap());
        let release = Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release;
        let container = |service: &str, last: u8, state: State| Container {
            state,
            labels: [
                (COMPOSE_SERVICE.to_owned(), service.to_owned()),
                (labels::SERVICE_HASH.to_owned(), release.service_hashes[service].clone()),
            ]
            .into(),
            addresses: [("tt-staging".to_owned(), [172, 18, 0, last].into())].into(),
            ..Container::default()
        };
        let stopped = State::Other("exited".to_owned());
        let mut by_hand = container("backend", 6, State::Running);
        by_hand.labels.insert(COMPOSE_ONE_OFF.to_owned(), "True".to_owned());
        let containers = [
            container("backend", 3, State::Running),
            container("backend", 4, stopped),
            container("edge", 5, State::Running),
            by_hand,
        ];
        let path = |service: &str, last: u8| format!("files/edge/addresses/{service}/172.18.0.{last}");
        let file =
            |path: String| (path, FileFact::File { mode: 0o644, uid: 0, gid: 0, size: 0, sha256: None });
        let files = BTreeMap::from([file(path("backend", 9)), file("files/edge/Caddyfile".to_owned())]);
        let found = addresses(&release, &containers, &files);
        let expected = Addresses { missing: [path("backend", 3)].into(), stale: [path("backend", 9)].into() };
        assert_eq!((found.is_empty(), &found), (false, &expected));
        assert!(addresses(&release, &containers, &BTreeMap::from([file(path("backend", 3))])).is_empty());
    }
}
