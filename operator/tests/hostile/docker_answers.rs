//! Answers of the Docker API that are cut, endless, slow, huge or not HTTP.

use std::time::Duration;

use serde_json::json;

use crate::{
    fake_docker::{answer, body as json_body, chunk, endless_head},
    fake_sshd::{Said, Script, Then},
    good,
    stage::{Expected, check_texts, check_within, docker, expect},
};

const LIST: &str = "/containers/json";
const CLOSED: &str = "docker API /containers/json?all=1: ";
const UNREADABLE: &str = "docker API /containers/json?all=1: an answer that cannot be read: ";
const LATE: &str = "docker API /containers/json?all=1: expected an end within";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_host_shows_nothing() {
    expect("good", Script::default(), &Expected::Good).await;
}

/// A script in which the list of containers is these bytes.
fn list(bytes: impl Into<Vec<u8>>, then: Then) -> Script {
    let said = Said::new(bytes, then);
    docker(LIST, move |_| said.clone())
}

/// A script in which the list of containers has this body.
fn body(body: impl AsRef<[u8]>) -> Script {
    let said = answer("200 OK", body.as_ref());
    docker(LIST, move |_| said.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_or_no_http_is_told() {
    let with_head = |head: &str, then| list(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n[]"), then);
    let table = [
        ("nothing", list("", Then::Close), CLOSED),
        ("half a head", list("HTTP/1.1 200", Then::Close), CLOSED),
        ("not HTTP", list("SSH-2.0-OpenSSH_9.9\r\n\r\n", Then::Hang), CLOSED),
        ("half a body", with_head("Content-Length: 900", Then::Close), CLOSED),
        ("a length that is too large", with_head("Content-Length: 900", Then::Hang), LATE),
        ("a length that is too small", with_head("Content-Length: 1", Then::Hang), UNREADABLE),
        ("a negative length", with_head("Content-Length: -1", Then::Hang), CLOSED),
        (
            "a length beyond all numbers",
            with_head("Content-Length: 99999999999999999999999", Then::Hang),
            CLOSED,
        ),
        ("two lengths", with_head("Content-Length: 2\r\nContent-Length: 3", Then::Hang), CLOSED),
        ("a chunk of rubbish", list(format!("{}zz\r\n[]", endless_head()), Then::Hang), CLOSED),
        ("half a chunk", list(format!("{}9\r\n[]", endless_head()), Then::Close), CLOSED),
        ("a cut connection", list("HTTP/1.1 200 OK\r\n", Then::Cut), ""),
        (
            "an endless head",
            list("HTTP/1.1 200 OK\r\n", Then::Repeat(b"X-More: and more\r\n".repeat(500))),
            CLOSED,
        ),
        ("a line without end", list("HTTP/1.1 200 OK\r\nX: ", Then::Repeat(vec![b'x'; 8_000])), CLOSED),
    ];
    for (name, script, wanted) in table {
        expect(name, script, &Expected::Failure(wanted)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_no_success_is_told_in_one_short_line() {
    let long = "no \u{1b}[31mspace\n".repeat(100_000);
    let status = |status: &str| {
        let said = answer(status, long.as_bytes());
        docker(LIST, move |_| said.clone())
    };
    for (text, wanted) in [
        (
            "500 Internal Server Error",
            "expected success, found status 500 Internal Server Error: no [31mspaceno",
        ),
        ("301 Moved Permanently", "expected success, found status 301"),
        ("999 \u{e9}", "expected success, found status 999"),
    ] {
        expect(text, status(text), &Expected::Failure(wanted)).await;
    }
    // Docker knows of no containers at all: then they are missing.
    let missing = &["Missing -: nothing", "Missing -: nothing", "Missing -: nothing"];
    expect("404", docker(LIST, |_| answer("404 Not Found", b"")), &Expected::Items(missing)).await;
    expect("204", list("HTTP/1.1 204 No Content\r\n\r\n", Then::Listen), &Expected::Failure(UNREADABLE))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_answer_is_refused_at_the_cap_and_a_slow_one_at_the_deadline() {
    let endless = || list(endless_head(), Then::Repeat(chunk(&" ".repeat(30_000))));
    let evaluations = check_within(endless(), Duration::from_secs(20)).await;
    let message = evaluations.as_ref().unwrap_err().to_string();
    assert!(message.contains("length limit exceeded"), "{message}");
    check_texts("endless", &evaluations);
    let slow = |begin: &str, piece: &[u8]| list(begin, Then::Drip(piece.to_vec()));
    for (name, script) in [
        ("silence", list("", Then::Hang)),
        ("a slow head", slow("", b"H")),
        ("a slow body", slow(endless_head(), &chunk(" "))),
        ("a slow body of a length", slow("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" ")),
        ("only interim answers", slow("", b"HTTP/1.1 100 Continue\r\n\r\n")),
    ] {
        expect(name, script, &Expected::Failure(LATE)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_form_of_json_is_too_much() {
    let deep = |open: &str| open.repeat(200_000);
    let table = [
        ("deep lists", deep("["), UNREADABLE),
        ("deep mappings", deep("[{\"a\":"), UNREADABLE),
        ("nothing at all", String::new(), UNREADABLE),
        (
            "a text",
            format!("\"{}\"", "\u{1b}[2J\\n".repeat(100_000)).replace('\u{1b}', "\\u001b"),
            UNREADABLE,
        ),
        ("a mapping", "{\"message\": \"no\"}".to_owned(), UNREADABLE),
        ("a number beyond all numbers", format!("[{}]", "9".repeat(100_000)), UNREADABLE),
        ("a list and more", "[] []".to_owned(), UNREADABLE),
        ("a broken letter", "[\"\\ud800\"]".to_owned(), UNREADABLE),
    ];
    for (name, text, wanted) in table {
        expect(name, body(text), &Expected::Failure(wanted)).await;
    }
    expect("broken UTF-8", body(b"[\"\xff\"]"), &Expected::Failure(UNREADABLE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_many_small_things_takes_no_memory() {
    let many = |piece: &str| {
        let pieces: Vec<&str> = std::iter::repeat_n(piece, (3 << 20) / (piece.len() + 1)).collect();
        pieces.join(",")
    };
    let inspect = |body: String| {
        let said = answer("200 OK", body.as_bytes());
        docker(good::INSPECT, move |_| said.clone())
    };
    for (name, script, wanted) in [
        ("numbers for containers", body(format!("[{}]", many("0"))), UNREADABLE),
        ("mappings for containers", body(format!("[{}]", many("{}"))), UNREADABLE),
        ("a container of many lists", body(format!("[{{\"Ports\":[{}]}}]", many("[]"))), UNREADABLE),
        ("details of many lists", inspect(format!("{{\"Mounts\":[{}]}}", many("[]"))), "an answer of"),
    ] {
        let evaluations = check_within(script, Duration::from_secs(10)).await;
        let message = evaluations.as_ref().map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{name}: {message}");
        check_texts(name, &evaluations);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_of_another_container_are_not_taken_for_those_asked_for() {
    let other = good::docker(&format!("/containers/{}/json", good::container_id("backend")));
    let script = docker(good::INSPECT, move |_| other.clone());
    let wanted = Expected::Failure("expected the details of it, found those of");
    expect("another container", script, &wanted).await;
    let image = answer("200 OK", b"{\"Id\":\"sha256:0\",\"Config\":{}}");
    let script = docker("/images/", move |_| image.clone());
    expect("another image", script, &wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uptime_is_told_by_the_clock_of_the_daemon() {
    let answered_at = |date: &'static str| {
        docker(good::INSPECT, move |said| {
            let mut container = json_body(&said);
            container["RestartCount"] = json!(5);
            container["State"]["StartedAt"] = json!("2026-01-01T10:00:00.123456789Z");
            let answer = answer("200 OK", container.to_string().as_bytes()).text();
            Said::new(answer.replacen("\r\n", &format!("\r\n{date}"), 1), Then::Listen)
        })
    };
    let restarting = &[
        "Restarting tt-staging-app-backend-1: restarting again and again",
        "Restarting tt-staging-app-edge-1: restarting again and again",
        "Restarting tt-staging-app-frontend-1: restarting again and again",
    ];
    for (date, expected) in [
        ("Date: Thu, 01 Jan 2026 10:00:09 GMT\r\n", Expected::Items(restarting)),
        ("Date: Thu, 01 Jan 2026 10:00:11 GMT\r\n", Expected::Good),
        ("Date: just now\r\n", Expected::Good),
        ("", Expected::Good),
    ] {
        expect(date, answered_at(date), &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_key_that_comes_twice_the_last_one_counts() {
    let twice = |said: Said| {
        let text = said.text();
        answer(
            "200 OK",
            text.split_once("\r\n\r\n")
                .unwrap()
                .1
                .replacen('{', "{\"Config\":{\"User\":\"root\"},", 1)
                .as_bytes(),
        )
    };
    expect("twice", docker(good::INSPECT, twice), &Expected::Good).await;
}
