//! Every kind of drift, and for `ConfigChanged` every field, made by hand on a real host with each supported engine.

mod docker;
mod fields;
mod kinds;

use std::fmt::Write;

use tasktracker_crds::{DriftItem, DriftKind};
use tasktracker_operator::{
    engine::{self, CheckOptions, Evaluation},
    host::Host,
    observe::Depth,
    source::Stack,
};
use tasktracker_testbed::{Compose, Engine, HostOptions};
use tokio::runtime::Runtime;

use crate::stage::{Stage, wait_until};

/// Size of the file system of the operator's folder, so that it can be filled.
const DISK_MIB: u32 = 32;

/// A host with an applied release, and a connection to it that is kept.
struct Bench {
    stage: Stage,
    stack: Stack,
    host: std::sync::Arc<Host>,
    runtime: Runtime,
}

impl Bench {
    fn new(name: &str, options: HostOptions) -> Self {
        let stage = Stage::with(name, HostOptions { project_disk_mib: Some(DISK_MIB), ..options });
        stage.write_stack("staging.yaml", &stage.stack("staging", "r1", "  policy: {rollout: {soak: 1s}}\n"));
        stage.apply();
        let (stack, host) = stage.managed();
        Self { stage, stack, host, runtime: Runtime::new().unwrap() }
    }

    fn try_check(&self, depth: Depth) -> Result<Evaluation, engine::Error> {
        let options = CheckOptions::read_only(depth);
        let evaluations = self.runtime.block_on(self.stage.check(&self.stack, &self.host, options));
        Ok(evaluations?.pop().expect("one project"))
    }

    fn check(&self) -> Evaluation {
        self.try_check(Depth::Whole).unwrap()
    }

    /// Everything that is told, whether the host can be managed or not, and the actions that are planned.
    fn told(&self, depth: Depth) -> (Vec<DriftItem>, Vec<String>) {
        match self.try_check(depth) {
            Ok(evaluation) => {
                let actions = evaluation.plan.repairs.iter().map(|repair| repair.action.words()).collect();
                (evaluation.drift, actions)
            }
            Err(error) => (
                error.report(&tasktracker_operator::component::projects(&self.stack)[0], None).drift,
                Vec::new(),
            ),
        }
    }

    fn assert_quiet(&self, after: &str) {
        wait_until(format_args!("nothing differs after {after}: {:#?}", self.told(Depth::Slow).0), || {
            self.told(Depth::Slow).0.is_empty()
        });
    }
}

/// One difference as it must be told.
#[derive(Clone, Copy)]
struct Expected {
    kind: DriftKind,
    service: Option<&'static str>,
    path: Option<&'static str>,
    wanted: &'static str,
    found: &'static str,
}

/// Compares an item in every part; `wanted` and `found` may be beginnings that end in `…`.
fn mismatch(item: &DriftItem, expected: &Expected) -> Option<String> {
    let fits = |found: &str, expected: &str| match expected.strip_suffix('…') {
        Some(beginning) => found.starts_with(beginning),
        None => found == expected,
    };
    let mut wrong = String::new();
    let mut check = |part: &str, right: bool| {
        if !right {
            write!(wrong, " {part}").unwrap();
        }
    };
    check("host", item.host == "app-1");
    check("component", item.component == "app");
    check("kind", item.kind == expected.kind);
    check("service", item.service.as_deref() == expected.service);
    check("path", item.path.as_deref() == expected.path);
    check("wanted", fits(&item.wanted, expected.wanted));
    check("found", fits(&item.found, expected.found));
    check("answer", item.answer == expected.kind.answer());
    (!wrong.is_empty()).then(|| format!("wrong:{wrong} in {item:#?}"))
}

/// The items are exactly these, in any order.
fn assert_items(case: &str, items: &[DriftItem], expected: &[Expected]) {
    assert_eq!(items.len(), expected.len(), "{case}: {items:#?}");
    for one in expected {
        let place = |item: &&DriftItem| {
            (item.kind, item.service.as_deref(), item.path.as_deref()) == (one.kind, one.service, one.path)
        };
        let item = items
            .iter()
            .find(place)
            .unwrap_or_else(|| panic!("{case}: no {:?} {:?} in {items:#?}", one.kind, one.path));
        if let Some(wrong) = mismatch(item, one) {
            panic!("{case}: {wrong}");
        }
    }
}

fn every_kind(name: &str, options: HostOptions) {
    let bench = Bench::new(name, options);
    bench.assert_quiet("the rollout");
    let fields = fields::each_field(&bench);
    let kinds = kinds::each_kind(&bench);
    assert!(fields >= 40, "only {fields} fields");
    let seen: std::collections::BTreeSet<DriftKind> = kinds.into_iter().collect();
    let unseen: Vec<DriftKind> = DriftKind::ALL
        .iter()
        .filter(|kind| !seen.contains(kind))
        // Seen with secrets (`secrets.rs`), with a registry (`registry.rs`), with a store (`monitoring/memory.rs`), and field
        // by field; no service of the app has a configuration of its own to be asked for.
        .filter(|kind| {
            ![
                DriftKind::SecretMoved,
                DriftKind::ImageTagMoved,
                DriftKind::OutOfMemory,
                DriftKind::ConfigNotLoaded,
                DriftKind::ConfigChanged,
            ]
            .contains(kind)
        })
        .copied()
        .collect();
    assert_eq!(unseen, Vec::new(), "kinds without a case");
}

#[test]
fn every_kind_and_field_is_seen_with_the_oldest_engine() {
    every_kind("drift-old", HostOptions::default());
}

#[test]
fn every_kind_and_field_is_seen_with_a_newer_engine() {
    every_kind(
        "drift-new",
        HostOptions { engine: Engine::Newer, compose: Compose::Newer, ..HostOptions::default() },
    );
}
