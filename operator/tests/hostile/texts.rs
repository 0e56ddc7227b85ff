//! Texts with NUL, line ends and escape sequences: whatever a check tells is lines that can be printed.

use serde_json::{Value, json};
use tasktracker_operator::ledger::Ledger;

use crate::{
    fake_docker::{body, json as answer},
    fake_sshd::{Said, Script, Then},
    good::{self, RELEASE, text_line},
    stage::{Expected, check, check_texts, docker, expect, items, program},
};

/// What no text may bring along.
const NASTY: &str = "\u{0}\r\n\u{1b}[2J\u{7}\u{9b}\u{2028}";

/// Adds it to every text, and to the keys of what is keyed by people.
fn soil(value: &mut Value, keys: bool) {
    match value {
        Value::String(text) => text.push_str(NASTY),
        Value::Array(list) => list.iter_mut().for_each(|value| soil(value, keys)),
        Value::Object(map) => {
            map.values_mut().for_each(|value| soil(value, keys));
            if keys && let Some((key, value)) = map.clone().into_iter().next() {
                map.insert(format!("{key}{NASTY}"), value);
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_s_texts_are_told_without_what_a_terminal_obeys() {
    for path in ["/containers/json", good::INSPECT, "/images/", "/networks/", "/volumes/", "/info"] {
        for keys in [false, true] {
            let evaluations = check(docker(path, move |said| {
                let mut value = body(&said);
                let id = value["Id"].clone();
                soil(&mut value, keys);
                if id.is_string() {
                    value["Id"] = id;
                }
                answer(&value)
            }))
            .await;
            check_texts(path, &evaluations);
        }
    }
    let rogue = docker("/containers/json", |said| {
        let mut list = body(&said);
        let rogue = json!({"Id": "f0", "Names": [format!("/tt-staging-app-{NASTY}")], "Labels": {"com.docker.compose.project": "tt-staging-app",
            "com.docker.compose.service": NASTY}, "Mounts": [{"Type": "bind", "Source": format!("/opt/tasktracker/staging/app/{NASTY}")}]});
        list.as_array_mut().unwrap().push(rogue);
        answer(&list)
    });
    let evaluations = check(rogue).await;
    check_texts("rogue", &evaluations);
    assert!(
        items(&evaluations)[0].starts_with("Rogue tt-staging-app-\\u{0}\\r\\n\\u{1b}[2J"),
        "{:?}",
        items(&evaluations)
    );
}

/// A script in which the ledger and the manifest on the host are these.
fn kept(ledger: &[u8], manifest: &[u8]) -> Script {
    let lines = text_line("staging/app/ledger.json", ledger) + &text_line(&good::manifest_path(), manifest);
    program("texts", move |_| Said::new(format!("{lines}END 1\n"), Then::Listen))
}

fn bytes(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_on_the_host_is_not_trusted_to_be_printable() {
    let manifest = RELEASE.release.manifest().into_bytes();
    let other =
        Ledger { owner: NASTY.to_owned(), stack: format!("other/{}", NASTY.repeat(1_000)), ..good::ledger() };
    let wanted = Expected::Failure("expected it to be of this stack, found the ledger of other/");
    expect("another owner", kept(&bytes(&other), &manifest), &wanted).await;

    let damaged = Expected::Failure("expected the stored copy of /opt/tasktracker/staging/app/");
    let odd_id = Ledger { current: Some(NASTY.repeat(500)), ..good::ledger() };
    expect("a release with an odd ID", kept(&bytes(&odd_id), &manifest), &damaged).await;
    let text = bytes(&NASTY.repeat(10_000));
    for (name, ledger, manifest) in [
        ("a ledger that is a text", text.clone(), manifest.clone()),
        ("a manifest that is a text", bytes(&good::ledger()), text.clone()),
        ("an empty ledger", Vec::new(), manifest.clone()),
        ("a deep ledger", b"[".repeat(100_000), manifest.clone()),
        ("a ledger of another format", bytes(&Ledger { format: 7, ..good::ledger() }), manifest.clone()),
    ] {
        expect(name, kept(&ledger, &manifest), &damaged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_somebody_wrote_is_told_without_what_a_terminal_obeys() {
    let good: serde_json::Value = serde_json::from_str(&RELEASE.release.manifest()).unwrap();
    let ledger = bytes(&good::ledger());
    let damaged = Expected::Failure("expected the stored copy of /opt/tasktracker/staging/app/releases/");
    for key in ["project", "images", "files", "id", "serviceHashes"] {
        for keys in [false, true] {
            let mut manifest = good.clone();
            soil(&mut manifest[key], keys);
            expect(key, kept(&ledger, &bytes(&manifest)), &damaged).await;
        }
    }
    // What the services are like is told as it is there, field by field.
    for part in ["services", "files"] {
        let mut manifest = good.clone();
        for value in manifest["project"][part].as_object_mut().unwrap().values_mut() {
            soil(if part == "services" { &mut value["compose"] } else { value }, false);
        }
        manifest["desiredHash"] = json!(NASTY);
        let evaluations = check(kept(&ledger, &bytes(&manifest))).await;
        assert!(evaluations.is_ok(), "{part}: {evaluations:?}");
        check_texts(part, &evaluations);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_files_and_words_of_the_probe_are_told_without_what_a_terminal_obeys() {
    let odd = program("list", |said| {
        // `staging/app/` and the nasty text, as the helper encodes names that are not plain.
        let name = text_line("", format!("staging/app/{NASTY}").as_bytes());
        let line = format!("O {} 81a4 3 1500 1500 x\n", name.split_whitespace().last().unwrap());
        Said::new(line + &said.text(), Then::Listen)
    });
    let wanted = &["FileExtra \\u{0}\\r\\n\\u{1b}[2J\\u{7}\\u{9b}…: a file of 3 bytes"];
    expect("an odd name", odd, &Expected::Items(wanted)).await;
    for (from, to) in [
        ("user deploy", "user de\u{1b}[2J\u{7}ploy"),
        ("compose 2.26.1-4", "compose 2.26.1-\u{1b}[2J\u{9b}\u{0}"),
        ("compose 2.26.1-4", "compose \u{1b}[2J\u{9b}\u{0}"),
        ("api 1.41 20.10.24", "api 1.41 \u{1b}[2J"),
        ("folder ok", "folder \u{1b}[2J is no folder"),
        ("user deploy", "missing \u{1b}[2J"),
        ("disk 1000 400", "disk 1000 4"),
        ("0 0 /opt", "0 0 /o\u{1b}[2Jpt"),
    ] {
        let script = program("probe", move |said| Said::new(said.text().replace(from, to), Then::Close));
        check_texts(to, &check(script).await);
    }
}
