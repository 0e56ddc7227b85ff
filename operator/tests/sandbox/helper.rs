//! The helper program under every shell that a host may have, with hostile names, and its end.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tasktracker_operator::observe::Depth;

use crate::stage::{Stage, succeeded, wait_until};

const PROGRAM: &str = include_str!("../../src/host/programs/helper.sh");

/// Shells with their own utilities: busybox brings its `find`, `stat` and `sha256sum`.
fn shells(folder: &Path) -> Vec<(&'static str, Command)> {
    let busybox = Path::new("/usr/bin/busybox");
    let tools = folder.join("bin");
    fs::create_dir(&tools).unwrap();
    succeeded(Command::new(busybox).args(["--install", "-s"]).arg(&tools));
    let mut under_busybox = Command::new(busybox);
    under_busybox.arg("sh").env("PATH", &tools);
    vec![("dash", Command::new("dash")), ("bash", Command::new("bash")), ("busybox", under_busybox)]
}

fn ask(child: &mut Child, lines: &mut impl Iterator<Item = String>, question: &str) -> (String, Vec<String>) {
    writeln!(child.stdin.as_ref().unwrap(), "{question}").unwrap();
    let mut answer = Vec::new();
    loop {
        let line = lines.next().unwrap();
        if let Some(state) = line.strip_prefix("END ") {
            return (state.to_owned(), answer);
        }
        answer.push(line);
    }
}

#[test]
fn every_shell_tells_the_same_of_hostile_names_and_sees_what_was_restored() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let project = root.join("staging/app/files");
    fs::create_dir_all(&project).unwrap();
    let names: [&[u8]; 9] = [
        b"plain",
        b"a b",
        b"-rf",
        b"new\nEND 7\nline",
        b"\x1b[31m",
        b"\xff\xfe",
        b"$(touch pwned)",
        b"'\"\\",
        b"*",
    ];
    for name in names {
        fs::write(project.join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    symlink("/etc/passwd", project.join("link")).unwrap();
    let mut answers = Vec::new();
    for (shell, mut command) in shells(folder.path()) {
        let plain = project.join("plain");
        command.args(["-c", PROGRAM, "tasktracker"]).arg(&root).arg("staging");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (state, mut listed) = ask(&mut child, &mut lines, "list 0");
        assert_eq!(listed.len(), 3 + names.len() + 1 + 2, "{shell}: {listed:#?}");
        let odd = listed.iter().filter(|line| line.starts_with("O ")).count();
        assert_eq!(odd, names.len() - 2, "{shell}: {listed:#?}");
        assert!(listed.iter().all(|line| line.bytes().all(|byte| (b' '..=b'~').contains(&byte))), "{shell}");
        assert_eq!(ask(&mut child, &mut lines, &format!("sweep {state}")), (state.clone(), Vec::new()));

        let old = fs::metadata(&plain).unwrap().modified().unwrap();
        fs::write(&plain, "y").unwrap();
        fs::File::options().write(true).open(&plain).unwrap().set_modified(old).unwrap();
        let (_, again) = ask(&mut child, &mut lines, "list 0");
        let hash =
            |lines: &[String]| lines.iter().find(|line| line.ends_with("/plain") && line.len() > 64).cloned();
        assert_ne!(hash(&listed), hash(&again), "{shell}: a change with size and time restored was not seen");
        fs::write(&plain, "x").unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "{shell}: the end of its input did not end it");
        // Times differ from shell to shell; what is there does not.
        for line in &mut listed {
            *line = line.split(' ').take(4).collect::<Vec<_>>().join(" ");
        }
        listed.sort();
        answers.push(listed);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(
        answers[0].iter().filter(|l| !l.contains("41ed")).collect::<Vec<_>>(),
        answers[2].iter().filter(|l| !l.contains("41ed")).collect::<Vec<_>>()
    );
    assert!(!project.join("pwned").exists() && !Path::new("pwned").exists());
}

#[test]
fn it_ends_with_the_connection_and_when_the_operator_is_killed() {
    let stage = Stage::without_images("helper");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", ""));
    let running = || stage.as_root("pgrep -f '[t]asktracker-helper' || true").lines().count();
    let (stack, host) = stage.managed();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = tasktracker_operator::engine::CheckOptions::read_only(Depth::Whole);
    runtime.block_on(stage.check(&stack, &host, options)).unwrap();
    assert!(running() > 0, "the helper does not run");
    drop(host);
    wait_until("the helper ended with its connection", || running() == 0);

    let operator = stage.start_operator();
    wait_until("the helper runs", || running() > 0);
    operator.kill();
    wait_until("the helper ended with the operator", || running() == 0);
    runtime.shutdown_timeout(Duration::from_secs(1));
}
