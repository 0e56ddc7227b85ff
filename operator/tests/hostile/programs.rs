//! Answers of the programs that the operator runs on a host: endless, cut, rubbish, of other things.

use crate::{
    fake_sshd::{BEGINS, Said, Script, Then},
    stage::{Expected, expect, program},
};

const LOST: &str = "connection: expected it to stay, found it closed";
const UNREADABLE: &str = "asking the host for its list: an answer that cannot be read";

/// A script in which one answer is this.
fn says(verb: &'static str, bytes: impl Into<Vec<u8>>, then: Then) -> Script {
    let said = Said::new(bytes, then);
    program(verb, move |_| said.clone())
}

/// A script in which an answer has these lines in front.
fn adds(verb: &'static str, lines: &'static str) -> Script {
    program(verb, move |said| Said::new(format!("{lines}{}", said.text()), Then::Listen))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_helper_that_does_not_keep_to_questions_and_answers_is_given_up() {
    let endless = || Then::Repeat(b"and so on\n".repeat(3_000));
    let table = [
        ("endless and unasked", says("", "", endless()), ""),
        ("gone before the first question", says("", "", Then::Close), LOST),
        ("gone with the whole connection", says("", "", Then::Cut), ""),
        ("an endless answer", says("list", "", endless()), ""),
        ("an endless line", says("list", "", Then::Repeat(vec![b'x'; 30_000])), ""),
        (
            "no end",
            says("list", "S staging 41ed 4096 1500 1500 7 x\n", Then::Hang),
            "asking the host for its list 0: expected an end within",
        ),
        (
            "a slow answer",
            says("list", "", Then::Drip(b"S staging 41ed 4096 1500 1500 7 x\n".to_vec())),
            "expected an end within",
        ),
        ("half an end", says("list", "END 1", Then::Hang), "expected an end within"),
        ("gone in the middle", says("list", "S staging 41ed", Then::Close), LOST),
        ("cut in the middle", says("list", "S staging 41ed", Then::Cut), ""),
        ("gone at the second question", says("texts", "T ", Then::Close), LOST),
        ("silent when asked for mounts", says("mounts", "", Then::Hang), "asking the host for its mounts"),
    ];
    for (name, script, wanted) in table {
        expect(name, script, &Expected::Failure(wanted)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_login_shell_says_before_a_program_is_no_answer() {
    let greetings =
        ["Welcome to app-1\nLast login: today\n", "no end of a line", "\u{1b}[2J\u{7}", "held 9 x\nEND 7\n"];
    for greeting in greetings {
        let greeting = format!("{greeting}{BEGINS}").leak();
        expect(greeting, Script { greeting, ..Script::default() }, &Expected::Good).await;
    }
    let unusable =
        Expected::Failure("login shell: expected the shell of user 'deploy' to run programs, found: ");
    for greeting in ["", "This account is not available.\n", "tasktracker-begins"] {
        expect(greeting, Script { greeting, ..Script::default() }, &unusable).await;
    }
    let without_base64 = Script { greeting: "sh: 1: base64: not found\n", ..Script::default() };
    expect("no base64", without_base64, &Expected::Failure("found: missing base64")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_rubbish_is_told() {
    let texts = "asking the host for its texts: an answer that cannot be read";
    let table = [
        ("rubbish", adds("list", "rubbish\n"), UNREADABLE),
        (
            "bytes that are no text",
            says("list", b"\xff\xfe\x00\nEND 1\n".as_slice(), Then::Listen),
            UNREADABLE,
        ),
        ("an end without number", says("list", "END of it\n", Then::Listen), UNREADABLE),
        ("an end below nothing", says("list", "END -1\n", Then::Listen), UNREADABLE),
        ("an end in the middle", adds("list", "END 4\n"), UNREADABLE),
        ("a size below nothing", adds("list", "S staging/app/x 81a4 -1 1500 1500 7 x\n"), UNREADABLE),
        ("a mode that is none", adds("list", "S staging/app/x rw-r--r-- 1 1500 1500 7 x\n"), UNREADABLE),
        ("an owner that is a name", adds("list", "S staging/app/x 81a4 1 root root 7 x\n"), UNREADABLE),
        ("an owner below nobody", adds("list", "S staging/app/x 81a4 1 -1 0 7 x\n"), UNREADABLE),
        ("a name in rubbish", adds("list", "O !!! 81a4 1 1500 1500 7 x\n"), UNREADABLE),
        ("half a line", adds("list", "S staging/app/x\n"), UNREADABLE),
        ("a text in rubbish", adds("texts", "T staging/app/HOLD !!!\n"), texts),
        ("a text without name", adds("texts", "T\n"), texts),
    ];
    for (name, script, wanted) in table {
        expect(name, script, &Expected::Failure(wanted)).await;
    }
    let many: String =
        (0..4_001).map(|number| format!("S staging/app/{number} 81a4 1 1500 1500 7 x\n")).collect();
    let script = says("list", format!("{many}END 1\n"), Then::Listen);
    expect("many files", script, &Expected::Failure("more than 4000; take away what is not the operator's"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_other_things_are_judged_for_what_they_are() {
    let table: [(&str, Script, &[&str]); 6] = [
        (
            "files of others",
            adds(
                "list",
                "S ../../etc/passwd 81a4 1 1500 1500 7 x\nS /etc/shadow 8180 1 1500 1500 7 x\nS production/app/x 81a4 1 1500 1500 7 x\n",
            ),
            &[],
        ),
        ("texts of others", adds("texts", "T production/app/ledger.json AAAA\nT ../HOLD AAAA\n"), &[]),
        (
            "a file of the largest size",
            adds("list", "S staging/app/x 81a4 18446744073709551615 1500 1500 7 x\n"),
            &["FileExtra x: a file of 18446744073709551615 bytes"],
        ),
        ("a link for the folder", adds("list", "S staging a1ff 1 1500 1500 7 x\n"), &[]),
        ("mounts of rubbish", adds("mounts", "M\nrubbish\nM a b c d\n"), &[]),
        (
            "another folder in its place",
            program("mounts", |said| Said::new(said.text().replace("app/files", "app/old"), Then::Listen)),
            &[
                "ContentStale tt-staging-app-edge-1/etc/caddy: the folder /opt/tasktracker/staging/app/old/edge",
            ],
        ),
    ];
    for (name, script, wanted) in table {
        expect(name, script, &Expected::Items(wanted)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_tells_nonsense_is_no_panic() {
    let told = |from: &'static str, to: &'static str| {
        program("probe", move |said| {
            let text = said.text();
            let lines: Vec<&str> =
                text.lines().map(|line| if line.starts_with(from) { to } else { line }).collect();
            Said::new(lines.join("\n"), Then::Close)
        })
    };
    let huge = "340282366920938463463374607431768211455";
    let disk: &'static str = format!("disk {huge} {huge} {huge} 1 /opt").leak();
    let low = "disk 18446744073709551615 1 0 0 /opt";
    let table: [(&str, Script, Expected); 10] = [
        (
            "the first second",
            told("seconds", "seconds -9223372036854775808"),
            Expected::Items(&["ClockSkew -: …h behind"]),
        ),
        (
            "the last second",
            told("seconds", "seconds 9223372036854775807"),
            Expected::Items(&["ClockSkew -: …h ahead"]),
        ),
        ("no second", told("seconds", "seconds now"), Expected::Good),
        ("a disk beyond all numbers", told("disk", disk), Expected::Good),
        ("a full disk of the largest size", told("disk", low), Expected::Items(&["DiskLow /opt: 0 % free"])),
        ("a disk below nothing", told("disk", "disk -5 -1 0 0 /opt"), Expected::Good),
        (
            "a version beyond all numbers",
            told("api", "api 99999999999.1 x"),
            Expected::Failure("a socket on which no engine answers"),
        ),
        (
            "another probe",
            says("probe", "hello\n".repeat(1_000), Then::Close),
            Expected::Failure("docker: expected a Docker engine"),
        ),
        (
            "no end",
            says("probe", "user deploy\n", Then::Hang),
            Expected::Failure("a program on the host: expected an end within"),
        ),
        ("a cut", says("probe", "user deploy\n", Then::Cut), Expected::Failure("")),
    ];
    for (name, script, wanted) in &table {
        expect(name, script.clone(), wanted).await;
    }
}
