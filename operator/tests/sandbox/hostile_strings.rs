//! Hostile text in every string of a stack is refused, or arrives on the host byte for byte.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use kube::CustomResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tasktracker_crds::{TaskTrackerStack, validation::read_stack};
use tasktracker_operator::{
    component,
    host::{Exit, Host, Step, shell},
    release::Prepared,
    source::Stack,
};

use crate::stage::Stage;

const HOSTILE: [&str; 14] = [
    "$(touch /tmp/pwned)",
    "`touch /tmp/pwned`",
    "'; touch /tmp/pwned; '",
    "\"; touch /tmp/pwned; \"",
    "a\nb: c\n# d",
    "-rf",
    "--help",
    "${HOME} $$ $HOME",
    "ünïcödé ☃ 𝄞",
    "../../etc/passwd",
    "{{.Name}}",
    "*&!|>%@ [x] {y}",
    " no ",
    "\\n\\\\",
];

fn host_of(stage: &Stage) -> std::sync::Arc<Host> {
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", ""));
    stage.managed().1
}

#[test]
fn words_reach_a_program_on_the_host_byte_for_byte() {
    let stage = Stage::without_images("quoting");
    let host = host_of(&stage);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let words = proptest::collection::vec(
        prop_oneof!["[^\u{0}]{0,60}", "-[ -~]{0,20}", "[$`'\"\\\\\n\r\t*?~#;&|<>(){}!]{1,40}"],
        1..8,
    );
    let config =
        proptest::test_runner::Config { cases: 100, failure_persistence: None, ..Default::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&words, |words| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let line = shell::command("printf '%s\\0' \"$@\"", &words);
            let output = runtime.block_on(host.run(&line, Vec::new(), Duration::from_secs(10))).unwrap();
            let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
            prop_assert_eq!(output.exit, Exit::Exited(0));
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
            Ok(())
        })
        .unwrap();
}

/// Paths of every string in the schema of the spec; a step `[]` is an item of a list, `*` a value of a mapping.
fn string_paths(schema: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    let step = |name: &str| path.iter().cloned().chain([name.to_owned()]).collect::<Vec<String>>();
    match schema["type"].as_str() {
        Some("string") => found.push(path.to_vec()),
        Some("array") => string_paths(&schema["items"], &step("[]"), found),
        Some("object") => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                string_paths(property, &step(name), found);
            }
            if schema["additionalProperties"].is_object() {
                string_paths(&schema["additionalProperties"], &step("*"), found);
            }
        }
        _ => {}
    }
}

/// Texts of every form that some string of a stack takes.
const BENIGN: [&str; 14] = [
    "a",
    "10s",
    "64Mi",
    "0.5",
    "/opt/b",
    "https://a.example.com",
    "app",
    "Auto",
    "Approve",
    "Off",
    "StreamLocal",
    "info",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "sha256:0123456789012345678901234567890123456789012345678901234567890123",
];

/// The base with one text in another place, where that is valid.
fn with(base: &Value, path: &[String], text: &str) -> Result<Stack, ()> {
    let mut document = base.clone();
    put(&mut document, path, text);
    read_stack(&document.to_string()).map(|stack| Stack::new(stack, PathBuf::new())).map_err(drop)
}

fn put(value: &mut Value, path: &[String], text: &str) {
    let Some((step, rest)) = path.split_first() else {
        *value = json!(text);
        return;
    };
    let next = match step.as_str() {
        "[]" => {
            if !value.is_array() {
                *value = json!([Value::Null]);
            }
            &mut value[0]
        }
        name => {
            if !value.is_object() {
                *value = json!({});
            }
            &mut value[if name == "*" { "NAME" } else { name }]
        }
    };
    put(next, rest, text);
}

#[test]
fn every_string_of_a_stack_is_refused_or_byte_equal_on_the_host() {
    let stage = Stage::without_images("strings");
    let host = host_of(&stage);
    let directory = &host.target().directory;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = runtime_base(&stage);
    let definition = serde_json::to_value(TaskTrackerStack::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut paths = Vec::new();
    string_paths(schema, &["spec".to_owned()], &mut paths);
    paths.push(vec!["metadata".to_owned(), "name".to_owned()]);
    assert!(paths.len() > 60, "{}", paths.len());

    let (mut live, mut refused, mut accepted) = (0, 0, Vec::new());
    for path in &paths {
        // Only where some text is taken does a refusal say anything about the text.
        if !BENIGN.iter().any(|benign| with(&base, path, benign).is_ok()) {
            continue;
        }
        live += 1;
        for hostile in HOSTILE {
            match with(&base, path, hostile) {
                Err(()) => refused += 1,
                Ok(stack) => accepted.push((path.join("."), hostile, stack)),
            }
        }
    }
    let env = accepted.iter().filter(|(path, ..)| path == "spec.app.backend.env.*").count();
    assert!(
        live >= 25 && refused > 250 && env == HOSTILE.len(),
        "{live} paths, {refused} refused, {env} values of env accepted"
    );
    let lock = runtime.block_on(host.lock("test")).unwrap();
    for (path, hostile, stack) in &accepted {
        let Some(project) = component::for_host(stack, &stack.spec.hosts[0]).pop() else { continue };
        let prepared = Prepared::new(project.clone(), BTreeMap::new(), BTreeMap::new());
        let steps: Vec<Step> =
            [prepared.stored(), prepared.live()].concat().into_iter().map(Step::Place).collect();
        runtime.block_on(host.carry_out(&lock, &project.folder, &steps)).unwrap();
        let folder = format!("{directory}/{}", project.folder);
        arrives(&stage, &folder, &prepared, stack, &format!("{path} = {hostile:?}"));
    }
    assert_eq!(stage.as_root("ls /tmp | grep pwned || true"), "", "something was executed");
}

/// A stack that is good, without a value where a hostile one is put.
fn runtime_base(stage: &Stage) -> Value {
    let stack = read_stack(&stage.stack("staging", "r1", "")).unwrap();
    serde_json::to_value(stack).unwrap()
}

/// Reads the files on the host back, and asks Compose what it understands.
fn arrives(stage: &Stage, folder: &str, prepared: &Prepared, stack: &Stack, case: &str) {
    for (file, content) in &prepared.contents {
        let found = stage.host.read_file(format!("{folder}/{file}")).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), *content, "{case}: {file}");
    }
    let Some(wanted) = stack.spec.app.as_ref().and_then(|app| app.backend.env.get("NAME")) else { return };
    let command =
        format!("docker compose -f {folder}/compose.yaml --env-file /dev/null config --format json");
    let config: Value = serde_json::from_str(&stage.on_host(&command)).unwrap();
    // Compose prints a dollar as two, so that its output can be read again.
    let found = config["services"]["backend"]["environment"]["NAME"].as_str().unwrap().replace("$$", "$");
    assert_eq!(found, wanted.as_str(), "{case}");
}
