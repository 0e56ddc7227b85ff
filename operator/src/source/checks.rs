//! What the schema cannot say: folders, keys, and stacks that would get in each other's way. Pure.

use std::path::{Path, PathBuf};

use tasktracker_crds::{HostSpec, validation::Mistake};

use super::Stack;
use crate::host::is_public_key;

/// What is wrong with a stack beyond its schema; its folders of hosts have to be below one of `roots`.
pub fn mistakes(stack: &Stack, roots: &[PathBuf]) -> Vec<Mistake> {
    outside_roots(stack, roots).into_iter().chain(broken_host_keys(stack)).collect()
}

fn mistake(path: String, message: String) -> Mistake {
    Mistake { line: 0, column: 0, path, message }
}

fn outside_roots(stack: &Stack, roots: &[PathBuf]) -> Vec<Mistake> {
    let is_below = |directory: &str| roots.iter().any(|root| Path::new(directory).starts_with(root));
    let hosts = stack.spec.hosts.iter().enumerate();
    hosts
        .filter(|(_, host)| !is_below(host.directory.as_str()))
        .map(|(index, host)| {
            let roots: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
            let message = format!(
                "expected a folder below {} (see --host-roots), found {}",
                roots.join(", "),
                host.directory
            );
            mistake(format!("spec.hosts[{index}].directory"), message)
        })
        .collect()
}

/// Keys that have the form of one but are cut or damaged.
fn broken_host_keys(stack: &Stack) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (index, host) in stack.spec.hosts.iter().enumerate() {
        let broken = host.host_keys.iter().enumerate().filter(|(_, key)| !is_public_key(key.as_str()));
        for (position, _) in broken {
            let message = "expected a whole public key, found one that is cut or damaged; `tasktracker-operator hostkey ADDRESS` prints it";
            mistakes.push(mistake(format!("spec.hosts[{index}].hostKeys[{position}]"), message.to_owned()));
        }
    }
    mistakes
}

/// Two stacks that would have the same project on one host, or other folders of it, would undo each other's work.
pub fn rivals<'a>(stack: &Stack, others: impl IntoIterator<Item = &'a Stack>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for other in others.into_iter().filter(|other| other.key != stack.key) {
        for (index, host) in stack.spec.hosts.iter().enumerate() {
            for beside in other.spec.hosts.iter().filter(|one| is_same(one, host)) {
                let message = if other.key.name == stack.key.name {
                    let place = place(other);
                    format!(
                        "expected another name than that of {} on the same host, found it also in {place}",
                        other.key
                    )
                } else if beside.directory == host.directory {
                    continue;
                } else {
                    format!(
                        "expected the directory {} that {} gives the same host, found {}",
                        beside.directory, other.key, host.directory
                    )
                };
                mistakes.push(mistake(format!("spec.hosts[{index}]"), message));
            }
        }
    }
    mistakes
}

/// Whether two are the same machine: they have the same address, or the same key under two names.
fn is_same(one: &HostSpec, other: &HostSpec) -> bool {
    let has_same_key = || one.host_keys.iter().any(|key| other.host_keys.contains(key));
    (one.address == other.address && one.port == other.port) || has_same_key()
}

fn place(stack: &Stack) -> String {
    if stack.origin.as_os_str().is_empty() {
        format!("the namespace {}", stack.key.namespace)
    } else {
        stack.origin.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use tasktracker_crds::validation::read_stack;

    use super::*;

    const GOOD: &str = include_str!("../../../examples/staging.yaml");

    #[test]
    fn a_machine_under_two_names_is_one_host() {
        let stack = |text: String| Stack::new(read_stack(&text).unwrap(), PathBuf::new());
        let one = stack(GOOD.to_owned());
        let other = |address: &str, key: &str| {
            let text = GOOD.replace("name: staging", "name: other\n  namespace: elsewhere");
            let text = text.replace("address: staging.example.com", address).replace("IAAAA", key);
            stack(text.replace("roles: [app]", "roles: [app]\n      directory: /srv/other"))
        };
        for (address, key, is_rival) in [
            ("address: staging.example.com", "IAAAA", true),
            ("address: 192.0.2.7", "IAAAA", true),
            ("address: staging.example.com", "IBBBB", true),
            ("address: staging.example.com\n      port: 2222", "IBBBB", false),
            ("address: 192.0.2.7", "IBBBB", false),
        ] {
            let found = rivals(&other(address, key), [&one]);
            assert_eq!(found.len(), usize::from(is_rival), "{address} {key}: {found:?}");
        }
    }
}
