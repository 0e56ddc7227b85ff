//! Golden renderings: canonical hash, `compose.yaml`, every file and the manifest of example stacks.
//!
//! A changed snapshot changes what is on every host: it is a decision that the CHANGELOG names.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use tasktracker_operator::{
    component,
    release::{COMPOSE_FILE, Prepared},
    secret::Seals,
    source::Stack,
};

/// Name of the snapshot, and the stack.
const STACKS: [(&str, &str); 7] = [
    ("staging", include_str!("../../../examples/staging.yaml")),
    ("kind", include_str!("../../../examples/kind/stack.yaml")),
    ("postgres", include_str!("stacks/postgres.yaml")),
    ("certificate", include_str!("stacks/certificate.yaml")),
    ("acme", include_str!("stacks/acme.yaml")),
    ("adopted", include_str!("stacks/adopted.yaml")),
    ("echo", include_str!("stacks/echo.yaml")),
];

/// The stack of a file; the placeholders of the example for kind are filled in.
fn stack(text: &str) -> Stack {
    let text = text.replace(
        "HOST_KEY",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    );
    let resource = tasktracker_crds::validation::read_stack(&text.replace("REVISION", "3f2c1ab")).unwrap();
    Stack::new(resource, "stack.yaml".into())
}

/// Everything that a stack puts on its hosts, as one text.
fn rendered(stack: &Stack) -> String {
    let mut text = String::new();
    for host in &stack.spec.hosts {
        for project in component::for_host(stack, host) {
            let images = project.services.keys().map(|name| (name.clone(), format!("sha256:{name}")));
            let seals = project.secrets.keys().map(|path| (path.clone(), "00".repeat(32)));
            let (images, seals): (BTreeMap<_, _>, Seals) = (images.collect(), seals.collect());
            let (component, hash) = (project.component, project.hash(&Seals::new()));
            let prepared = Prepared::new(project, images, seals);
            writeln!(text, "# {} {component}: hash {hash}", host.name).unwrap();
            writeln!(text, "# with secrets: {}", prepared.release.desired_hash).unwrap();
            let mut placements = [prepared.stored(), prepared.live()].concat();
            placements.sort_by(|one, other| one.path.cmp(&other.path));
            let stored = prepared.release.stored("");
            for placement in placements.iter().filter(|placement| placement.path.starts_with(&stored)) {
                let path = Path::new(&placement.path).strip_prefix(&stored).unwrap().display().to_string();
                let content = match &placement.source {
                    tasktracker_operator::host::Source::Inline(content) => String::from_utf8_lossy(content),
                    other => format!("{other:?}").into(),
                };
                let kind = if path == COMPOSE_FILE { " (last)" } else { "" };
                writeln!(text, "==== {path} {:04o}{kind}\n{content}", placement.mode).unwrap();
            }
        }
    }
    text
}

#[test]
fn renderings_are_as_they_were() {
    for (name, text) in STACKS {
        insta::assert_snapshot!(name, rendered(&stack(text)));
    }
}
