//! The commands of the pages about alerts do what the pages say.

use std::{fs, path::Path};

use super::query_answer;
use crate::stage::Stage;

/// What a page tells to do that is not done here, by what it begins with, and why.
const NOT_HERE: [(&str, &str); 9] = [
    ("kubectl", "there is no Kubernetes here"),
    ("amtool", "a person's own program"),
    ("curl", "asks for a password, or another port"),
    ("timedatectl", "a sandbox host has no systemd"),
    ("chronyc", "a sandbox host has no systemd"),
    ("tail -n 50 STATE_DIR", "the place is the operator's own"),
    ("tasktracker-operator hostkey", "tried by a scenario of its own"),
    ("tasktracker-operator approve", "there is no plan to approve"),
    ("tasktracker-operator rollback", "there is no release to go back to"),
];

/// The lines of a page's blocks in a language.
fn lines<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let blocks = page.split(begin.as_str()).skip(1);
    blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines()).collect()
}

/// Runs every command of every page that can be run on a host with a stack and its monitoring.
pub(super) fn assert_commands_work(stage: &Stage) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let (mut done, mut left) = (0, 0);
    let filled = |line: &str| {
        let line = line.replace("NAMESPACE", "default").replace("STACK", "staging").replace("HOST", "app-1");
        let line = line.replace("SERVICE", "backend").replace("NAME", "tt-staging-app-edge-1");
        line.replace("URL", &format!("http://{}", stage.page()))
    };
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        for line in lines(&page, "promql") {
            let answer = query_answer(stage, &filled(line));
            assert!(answer.is_some_and(|(status, _)| status == 200), "{}: {line}", path.display());
            done += 1;
        }
        for line in lines(&page, "sh") {
            let is_elsewhere = NOT_HERE.iter().any(|(begins, _)| line.starts_with(begins));
            if is_elsewhere || line.contains("--kubernetes") || line.contains("--watch") {
                left += 1;
                continue;
            }
            let command = filled(line.split(" # ").next().unwrap_or_default());
            match command.strip_prefix("tasktracker-operator ") {
                Some(command) => {
                    let name = command.split_whitespace().next().unwrap();
                    let output = stage.command(&[name, "staging"]);
                    // 2: something differs.
                    assert!(
                        output.status.code().is_some_and(|code| [0, 2].contains(&code)),
                        "{}: {output:?}",
                        path.display()
                    );
                }
                None => drop(stage.as_root(&command)),
            }
            done += 1;
        }
    }
    println!("{done} commands of runbooks done, {left} are for elsewhere");
    assert!(done > 40);
}
