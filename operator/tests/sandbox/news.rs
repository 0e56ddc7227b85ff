//! What people are told of rollouts through a webhook, and a failed one that is left for them to look at.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::{
    rollout::make_bad,
    stage::{Stage, wait_until},
};

/// A webhook that takes everything, and keeps it; each has one secret address.
pub(crate) struct Webhook {
    pub(crate) address: SocketAddr,
    pub(crate) taken: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same at another address of this machine, such as hosts and their containers reach.
    pub(crate) fn start_at(address: IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let (address, taken) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let kept = taken.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                while let Some((path, body)) = request(&mut reader) {
                    kept.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap()));
                    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            }
        });
        Self { address, taken }
    }

    fn texts(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(_, body)| body["text"].as_str().unwrap().to_owned()).collect()
    }
}

/// One request: its path and its body.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.to_lowercase().split("content-length:").nth(1)?.lines().next()?.trim().parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head.split(' ').nth(1)?.to_owned(), body))
}

#[test]
fn people_are_told_once_and_what_failed_is_left_where_they_want_it() {
    let stage = Stage::new("news");
    let webhook = Webhook::start();
    stage.write_value(
        "webhook",
        "url",
        format!("http://{}/canary-of-the-webhook\n", webhook.address).as_bytes(),
    );
    stage.write_value("api", "TOKEN", b"canary-of-the-token");
    make_bad(&stage.host, "bad", r#"echo "<!channel>" no room for $(cat $TOKEN_FILE); exec sleep 600"#);
    let write = |revision: &str, policy: &str| {
        let more = format!(
            "  policy: {{rollout: {{soak: 1s, drainTimeout: 1s, healthTimeout: 4s, onFailure: Hold}}{policy}}}
  notifications: [{{slack: {{webhookSecret: webhook, channel: '#ops'}}, events: [Succeeded, RolledBack, ApprovalNeeded]}}]\n"
        );
        let text = stage.stack("staging", revision, &more);
        let app = "tasktracker, backend: {secretEnv: {TOKEN: {secret: api, key: TOKEN}}}}";
        stage.write_stack("staging.yaml", &text.replace("tasktracker}", app));
    };
    let told = |number: usize, what: &[&str]| {
        wait_until(format_args!("{what:?} is told: {:?}", webhook.texts()), || {
            webhook.texts().len() >= number
        });
        let texts = webhook.texts();
        assert_eq!(texts.len(), number, "{texts:?}");
        assert!(what.iter().all(|words| texts[number - 1].contains(words)), "{what:?}: {texts:?}");
    };
    write("r1", "");
    let operator = stage.start_operator();
    told(1, &["default/staging: app r1 is in force on app-1"]);
    write("r2", ", upgrade: Approve");
    told(2, &["waits for approval", "app-1: app r1 to r2", "approve staging "]);
    // What was told once is not told again by the next operator.
    operator.stop();
    let operator = stage.start_operator();
    wait_until("it checked again", || operator.log().matches("a change waits").count() == 2);
    operator.wait_for_checks("staging", "app-1", 3);
    told(2, &["waits for approval"]);
    write("bad", "");
    told(3, &["app bad failed on app-1", "&lt;!channel&gt; no room for …"]);
    let status = || stage.json(&["status"]).1[0]["report"]["waiting"]["reason"].clone();
    assert_eq!(status(), "RolloutHeld");
    let names = "docker ps --filter label=com.docker.compose.service=backend --format '{{.Image}}'";
    let left = || stage.on_host(names).lines().count();
    assert_eq!(
        (left(), stage.http(3500, "GET /api/tasks").0),
        (2, 200),
        "the old one serves, the new one is left"
    );
    assert_eq!(stage.json(&["rollback", "staging"]).0, 0);
    assert_eq!((left(), stage.http(3500, "GET /api/tasks").0), (1, 200));
    write("r2", "");
    told(4, &["app r2 is in force"]);
    let kept = format!("{:?} {}", webhook.texts(), operator.log());
    assert!(!kept.contains("canary"), "{kept}");
    assert!(
        webhook
            .taken
            .lock()
            .unwrap()
            .iter()
            .all(|(path, body)| { path == "/canary-of-the-webhook" && body["channel"] == "#ops" })
    );
    // The webhook has a message a moment before the operator has its answer.
    let sent = || operator.metric("tasktracker_notifications_total", &["result=\"sent\""]);
    wait_until("both are counted", || sent() == Some(2.0));
    operator.stop();
}
