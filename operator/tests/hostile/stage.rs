//! One check of a fake host, bounded in time and memory, and what has to be true of every outcome.

use std::{fs, sync::Arc, time::Duration};

use russh::keys::ssh_key::LineEnding;
use tasktracker_crds::{DriftItem, DriftKind};
use tasktracker_operator::{
    component,
    engine::{self, CheckOptions, Evaluation, Memory, ProjectContext},
    host::{Error, Host, Identity, Limits, Target},
    observe::Depth,
    source::Secrets,
};
use tokio::{sync::RwLock, time::timeout};

use crate::{
    FakeSshd,
    fake_sshd::{Said, Script, key},
    good,
};

/// How long one answer may take.
pub(crate) const LIMIT: Duration = Duration::from_millis(500);
/// How long a whole check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// How much more memory a check may need, in KiB.
const MEMORY_LIMIT: u64 = 64 << 10;

/// Memory is measured of the whole process: a check that is given much to read is alone.
static ALONE: RwLock<()> = RwLock::const_new(());

/// Expected outcome of a check.
pub(crate) enum Expected {
    /// Nothing differs.
    Good,
    /// A message that contains this.
    Failure(&'static str),
    /// Exactly these differences, as `Kind path: found`; what follows a `…` does not matter.
    Items(&'static [&'static str]),
}

/// A host at a fake's port.
pub(crate) fn host(port: u16, limits: Limits) -> Host {
    let key = key();
    Host::new(Target {
        name: "app-1".to_owned(),
        address: "127.0.0.1".to_owned(),
        port,
        user: "deploy".to_owned(),
        host_keys: vec![key.public_key().to_openssh().unwrap()],
        identities: vec![Identity::read(&key.to_openssh(LineEnding::LF).unwrap()).unwrap()],
        unusable_identities: Vec::new(),
        directory: good::DIRECTORY.to_owned(),
        limits,
    })
}

/// Checks a fake host once, within time and memory.
pub(crate) async fn check(script: Script) -> Result<Vec<Evaluation>, Error> {
    let _others = ALONE.read().await;
    check_once(script, LIMIT).await
}

/// As [`check`], for much to read: alone, and with another limit for each answer.
pub(crate) async fn check_within(script: Script, limit: Duration) -> Result<Vec<Evaluation>, Error> {
    let _alone = ALONE.write().await;
    check_once(script, limit).await
}

async fn check_once(script: Script, limit: Duration) -> Result<Vec<Evaluation>, Error> {
    let fake = FakeSshd::start(script).await;
    let host = Arc::new(host(fake.port, Limits { answer: limit, program: limit, ..Limits::default() }));
    let options = CheckOptions::read_only(Depth::Whole);
    let before = Size::to_begin_with();
    let (secrets, nothing, images) = (Secrets::default(), Memory::none(), Arc::default());
    let site = ProjectContext {
        stack: &good::STACK,
        spec: &good::STACK.spec.hosts[0],
        host: &host,
        secrets: &secrets,
        memory: &nothing,
        images: &images,
    };
    let evaluations = Box::pin(async {
        let mut evaluations = Vec::new();
        for project in component::for_host(site.stack, site.spec) {
            evaluations.push(site.check(&project, options).await?);
        }
        Ok(evaluations)
    });
    let evaluations = timeout(CHECK_LIMIT + limit, evaluations).await.expect("a check has an end");
    let grown = before.grown();
    assert!(grown < MEMORY_LIMIT, "the check took {grown} KiB");
    for request in fake.seen.requests.lock().unwrap().iter() {
        assert!(request.starts_with("GET /"), "{request}");
    }
    evaluations
}

/// Checks a fake host and what came of it.
pub(crate) async fn expect(name: &str, script: Script, expected: &Expected) {
    let evaluations = check(script).await;
    match (&evaluations, expected) {
        (Ok(_), Expected::Good) => assert_eq!(items(&evaluations), [""; 0], "{name}"),
        (Ok(_), Expected::Items(wanted)) => {
            let found = items(&evaluations);
            let is_alike = |found: &String, wanted: &str| match wanted.split_once('…') {
                Some((beginning, end)) => found.starts_with(beginning) && found.ends_with(end),
                None => found == wanted,
            };
            let same = found.len() == wanted.len()
                && found.iter().zip(*wanted).all(|(found, wanted)| is_alike(found, wanted));
            assert!(same, "{name}: expected {wanted:#?}, found {found:#?}");
        }
        (Err(error), Expected::Failure(wanted)) => {
            let message = error.to_string();
            assert!(message.contains(wanted), "{name}: expected {wanted}, found {message}");
        }
        (found, _) => panic!("{name}: {:?}", found.as_ref().map(|_| items(&evaluations))),
    }
    check_texts(name, &evaluations);
}

/// Every text that leaves a check is a line that can be printed, and not a long one.
pub(crate) fn check_texts(name: &str, evaluations: &Result<Vec<Evaluation>, Error>) {
    let texts: Vec<String> = match evaluations {
        Err(error) => vec![error.to_string()],
        Ok(evaluations) => evaluations.iter().flat_map(texts_of).collect(),
    };
    for text in texts {
        assert!(!text.chars().any(char::is_control), "{name}: {text:?}");
        assert!(text.chars().count() < 2_500, "{name}: {} characters", text.chars().count());
    }
}

fn texts_of(evaluation: &Evaluation) -> Vec<String> {
    let report = serde_json::to_value(evaluation.report("app-1", engine::now()).drift).unwrap();
    let plan = serde_json::to_value(&evaluation.plan).unwrap();
    let facts = serde_json::to_value(&evaluation.observed.facts).unwrap();
    let mut texts = Vec::new();
    for value in [report, plan, facts] {
        collect(&value, &mut texts);
    }
    texts
}

fn collect(value: &serde_json::Value, texts: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => texts.push(text.clone()),
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, texts)),
        serde_json::Value::Object(map) => {
            texts.extend(map.keys().cloned());
            map.values().for_each(|value| collect(value, texts));
        }
        _ => {}
    }
}

/// The differences as lines.
pub(crate) fn items(evaluations: &Result<Vec<Evaluation>, Error>) -> Vec<String> {
    let line = |item: &DriftItem| {
        let kind: DriftKind = item.kind;
        format!("{} {}: {}", kind.as_str(), item.path.as_deref().unwrap_or("-"), item.found)
    };
    evaluations.iter().flatten().flat_map(|evaluation| evaluation.drift.iter().map(line)).collect()
}

/// A script in which some answers of the Docker API are changed: those whose path begins with `path`.
pub(crate) fn docker(path: &'static str, change: impl Fn(Said) -> Said + Send + Sync + 'static) -> Script {
    let twist = move |asked: &str, good| if asked.starts_with(path) { change(good) } else { good };
    Script { docker: Arc::new(twist), ..Script::default() }
}

/// A script in which one program's answer is changed: that to questions that begin with `verb`.
pub(crate) fn program(verb: &'static str, change: impl Fn(Said) -> Said + Send + Sync + 'static) -> Script {
    let twist = move |asked: &str, good| {
        if asked.split(' ').next() == Some(verb) { change(good) } else { good }
    };
    Script { programs: Arc::new(twist), ..Script::default() }
}

/// How large this process was, in KiB.
struct Size {
    largest: u64,
    /// Pages of files, which are those of the program itself: they come as it first gets there.
    of_files: u64,
}

impl Size {
    /// Forgets the largest size so far, and tells the present one.
    fn to_begin_with() -> Self {
        fs::write("/proc/self/clear_refs", "5").unwrap();
        Self::now()
    }

    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let of = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self { largest: of("VmHWM"), of_files: of("RssFile") }
    }

    /// How much more it needed since, but for the program.
    fn grown(&self) -> u64 {
        let now = Self::now();
        (now.largest + self.of_files).saturating_sub(self.largest + now.of_files)
    }
}
