//! The real log shipper with a rendered configuration: what it makes of lines of every source. Nothing here needs a host.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tasktracker_crds::validation::read_stack;
use tasktracker_operator::{
    component,
    model::ComponentName,
    project::{Project, SECRETS_FOLDER},
    source::Stack,
};
use tasktracker_testbed::{images, packages};
use tempfile::TempDir;

use crate::stage::wait_until;

/// Bytes after which Docker writes the rest of a line as another record.
const PIECE: usize = 16 << 10;

/// A stand-in for the bulk API of Elasticsearch: it takes everything, and keeps it.
struct BulkFake {
    address: SocketAddr,
    /// Documents by index and ID.
    documents: Arc<Mutex<BTreeMap<(String, String), Value>>>,
}

impl BulkFake {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, documents) = (listener.local_addr().unwrap(), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let kept = documents.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                thread::spawn(move || take(stream, &kept));
            }
        });
        Self { address, documents }
    }

    /// Everything that came, by time and then by text.
    fn documents(&self) -> Vec<Value> {
        let taken = self.documents.lock().unwrap();
        let mut all: Vec<Value> = taken.values().cloned().collect();
        all.sort_by_key(|one| (one["@timestamp"].to_string(), one["message"].to_string()));
        all
    }
}

/// Takes bulk requests of one connection until it ends.
fn take(stream: TcpStream, kept: &Mutex<BTreeMap<(String, String), Value>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut size = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                size = value.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; size];
        reader.read_exact(&mut body).ok()?;
        let text = String::from_utf8(body).expect("documents are UTF-8");
        let mut lines = text.lines();
        while let (Some(action), Some(document)) = (lines.next(), lines.next()) {
            let action: Value = serde_json::from_str(action).unwrap();
            let document: Value = serde_json::from_str(document).unwrap();
            let of = |name: &str| action["create"][name].as_str().unwrap_or_default().to_owned();
            kept.lock().unwrap().entry((of("_index"), of("_id"))).or_insert(document);
        }
        let answer = r#"{"took":1,"errors":false,"items":[]}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        reader.get_mut().write_all(format!("{head}{answer}").as_bytes()).ok()?;
    }
}

/// The project of the agents of a stack with one host and such options of its shipper.
fn agents(image: &str, port: u16, options: &str) -> Project {
    let text = format!(
        "{}  logging:\n    elasticsearch: {{port: {port}}}\n    fluentBit:\n      image: {image}\n{options}",
        include_str!("../../../../examples/staging.yaml")
    );
    let text =
        text.replace("roles: [app]", "roles: [app, logging]").replace("staging.example.com", "127.0.0.1");
    let stack = Stack::new(
        read_stack(&text).unwrap_or_else(|mistakes| panic!("{mistakes:?}: {text}")),
        PathBuf::new(),
    );
    component::project(&stack, &stack.spec.hosts[0], ComponentName::Agents).unwrap()
}

/// A line as Docker writes it: as several records where it is long.
pub(super) fn pieces(line: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), line);
    while !rest.is_empty() {
        let size = (0..=rest.len().min(PIECE)).rev().find(|size| rest.is_char_boundary(*size)).unwrap();
        let (piece, more) = rest.split_at(size);
        pieces.push(piece);
        rest = more;
    }
    pieces
}

/// A free port of loopback.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The real program with the files of a project; places of a container are below a folder.
struct Shipper {
    folder: TempDir,
    process: Child,
    /// Where it tells of itself, and where others send to it.
    ports: [u16; 2],
}

impl Shipper {
    /// The program, its own, or the one that `FLUENT_BIT` names; and the image by whose version it is configured.
    fn program() -> (PathBuf, String) {
        let Ok(program) = env::var("FLUENT_BIT") else {
            let program = packages::logging::fluent_bit(&mut |line| println!("{line}")).unwrap();
            return (program, images::FLUENT_BIT.to_owned());
        };
        let said = Command::new(&program).arg("--version").output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let version = said.split_whitespace().find_map(|word| word.strip_prefix('v')).unwrap();
        (program.into(), format!("fluent/fluent-bit:{version}"))
    }

    /// Puts down the files of a project: the configuration.
    fn install(project: &Project, folder: &Path, ports: [u16; 2]) -> PathBuf {
        let at = |path: &str| {
            let place = path.split_once("/fluent-bit/").unwrap().1;
            let place = folder.join(if path.starts_with("files") { "etc" } else { "secrets" }).join(place);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            place
        };
        let inside = |text: &str| {
            let below = |name: &str| folder.join(name).display().to_string();
            text.replace("/fluent-bit/etc/tasktracker", &below("etc"))
                .replace("/run/secrets", &below("secrets"))
                .replace("/fluent-bit/state", &below("state"))
                .replace("/var/lib/docker/containers", &below("containers"))
                .replace("/var/log/", &below("log/"))
                .replace("2020", &ports[0].to_string())
                .replace("9880", &ports[1].to_string())
        };
        let mut config = None;
        for (path, file) in project.files.iter().filter(|(path, _)| path.starts_with("files/fluent-bit/")) {
            let place = at(path);
            let is_config = place.extension().is_some_and(|ending| ending != "lua");
            let text = file.content.clone();
            fs::write(&place, if is_config { inside(&text) } else { text }).unwrap();
            if is_config && place.file_stem().is_some_and(|name| name == "fluent-bit") {
                config = Some(place);
            }
        }
        let prefix = format!("{SECRETS_FOLDER}/fluent-bit/");
        for path in project.secrets.keys().filter(|path| path.starts_with(&prefix)) {
            let form = project.secrets[path].reference.form.as_ref().unwrap();
            let value =
                form.of(&tasktracker_operator::secret::Secret::new(b"of-\"shipper\"".to_vec())).unwrap();
            fs::write(at(path), value.reveal()).unwrap();
        }
        for name in ["state", "containers", "log"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        config.unwrap()
    }

    fn start(options: &str, store: &BulkFake) -> Self {
        let (program, image) = Self::program();
        let (folder, ports) = (tempfile::tempdir().unwrap(), [free_port(), free_port()]);
        let project = agents(&image, store.address.port(), options);
        let config = Self::install(&project, folder.path(), ports);
        let log = fs::File::create(folder.path().join("said")).unwrap();
        let process =
            Command::new(program).arg("-c").arg(config).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { folder, process, ports }
    }

    /// Whether it comes up with all that its configuration says: some versions go on without what they do not know.
    fn comes_up(&mut self) -> bool {
        let mut has_ended = false;
        wait_until(format_args!("it is up, or has ended: {}", self.said()), || {
            has_ended = self.process.try_wait().unwrap().is_some();
            has_ended || TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[0])).is_ok()
        });
        !has_ended && !self.said().contains("cannot be loaded")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// Writes records as Docker does: of one container for each service, a millisecond apart.
    fn write(&self, lines: &[(String, String)]) {
        let mut files = BTreeMap::<&str, String>::new();
        for (number, (service, line)) in lines.iter().enumerate() {
            for piece in pieces(&format!("{line}\n")) {
                let record = json!({
                    "log": piece,
                    "stream": "stdout",
                    "attrs": {
                        "com.docker.compose.service": service,
                        "tag": format!("tt-staging-app-{service}-1"),
                        "tasktracker.dev/component": "app",
                        "tasktracker.dev/stack": "default/staging",
                    },
                    "time": format!("2026-01-31T12:{:02}:{:02}.{:03}000000Z", number / 60000, number / 1000 % 60, number % 1000),
                });
                let file = files.entry(service).or_default();
                file.push_str(&format!("{record}\n"));
            }
        }
        for (service, text) in files {
            let folder = self.folder.path().join("containers").join(service);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{service}-json.log")), text).unwrap();
        }
    }

    /// Has it take something at its HTTP input.
    fn send(&self, path: &str, body: &Value) {
        let body = body.to_string();
        let request = format!(
            "POST /{path} HTTP/1.1\r\nHost: fluent-bit\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // It does not close the connection.
        let status = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[1])).ok()?;
            stream.write_all(request.as_bytes()).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            Some(line)
        };
        wait_until(format_args!("it takes {path}: {}", self.said()), || {
            status().is_some_and(|line| line.starts_with("HTTP/1.1 201"))
        });
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        // It is ended anyway.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const OPTIONS: &str = r#"      hostLog: Files
      mask: [{pattern: "\\b(\\d{4} ){3}\\d{4}\\b", replacement: "100% gone"}]
      drop: [{service: plain, pattern: "^GET /health"}, {pattern: "^never (here|there)$"}]
"#;

#[test]
fn lines_of_every_source_become_documents_as_they_should() {
    let store = BulkFake::start();
    let mut shipper = Shipper::start(OPTIONS, &store);
    let mut lines: Vec<(String, String)> = include_str!("lines.txt")
        .lines()
        .map(|line| {
            line.split_once('\t').map(|(service, text)| (service.to_owned(), text.to_owned())).unwrap()
        })
        .collect();
    let long = format!("{{\"message\":\"{}\",\"level\":\"warn\"}}", "long ".repeat(8000));
    lines.extend(
        [("plain", long.as_str()), ("plain", "control \u{1b}[31mred\u{1b}[0m and \u{0} and \u{fffd}")]
            .map(|(service, text)| (service.to_owned(), text.to_owned())),
    );
    // Files that it has not seen yet are read from their beginning, those of the host only from where they end.
    assert!(shipper.comes_up(), "{}", shipper.said());
    shipper.write(&lines);
    fs::write(shipper.folder.path().join("log/syslog"), include_str!("syslog.txt")).unwrap();
    let alert = |status: &str, ends: &str| {
        json!({ "version": "4", "receiver": "log-store", "status": status, "alerts": [{
            "status": status, "fingerprint": "c0ffee", "startsAt": "2026-01-31T13:00:00.123456789+01:00", "endsAt": ends,
            "generatorURL": "http://10.0.0.5:9090/graph",
            "labels": { "alertname": "HighErrorRate", "severity": "critical", "host": "app-1", "service": "backend" },
            "annotations": { "summary": "Backend answers with errors." },
        }] })
    };
    shipper.send("alerts", &alert("firing", "0001-01-01T00:00:00Z"));
    shipper.send("alerts", &alert("firing", "0001-01-01T00:00:00Z"));
    shipper.send("alerts", &alert("resolved", "2026-01-31T12:05:00Z"));
    shipper.send(
        "audit",
        &json!({
            "when": "2026-01-31T12:00:00.5Z", "who": "tasktracker-operator", "why": "ConfigChanged edge", "stack": "default/staging",
            "host": "app-1", "component": "app", "what": ["reload edge", "recreate backend"], "plan": "fbc9",
            "before": { "release": "573d", "revision": "r1" }, "result": "Succeeded", "seconds": 0.46,
        }),
    );
    // A trace is one document, what is dropped is none, and nothing of its own comes back.
    let joined = |(service, left): (&str, usize)| lines.iter().filter(|(of, _)| of == service).count() - left;
    let traces: usize = [("go", 1), ("java", 2), ("python", 2)].map(joined).iter().sum();
    let expected = lines.len() - traces - 1 - 1 + include_str!("syslog.txt").lines().count() + 3;
    let is_all = || store.documents().len() >= expected;
    wait_until(format_args!("{expected} documents: {}", shipper.said()), is_all);
    let documents = store.documents();
    assert_eq!(documents.len(), expected, "{documents:#?}");
    let text: String = documents
        .iter()
        .map(|document| {
            let mut document = document.clone();
            if let Some(long) = document["message"].as_str().filter(|text| text.len() > 2000) {
                document["message"] = format!("{} bytes", long.len()).into();
            }
            format!("{document}\n")
        })
        .collect();
    insta::assert_snapshot!(text);
    assert!(!text.contains("hunter2") && !text.contains("4111"), "what is masked is gone");
}

#[test]
fn every_combination_of_options_is_a_configuration_that_the_program_takes() {
    let logs = ["hostLog: Files", "hostLog: None", "hostLog: Journal"];
    let masks = ["", r#"mask: [{pattern: 'a|"b\\'}]"#, "drop: [{service: edge, pattern: 'x{2,3}'}]"];
    let outputs = [
        "",
        "extraOutputs: [{plugin: http, options: {host: logs.example.com, port: '443', tls: 'on'}, secretOptions: {http_passwd: {secret: logs, key: password}}}]",
    ];
    let store = BulkFake::start();
    let (program, _) = Shipper::program();
    let known = Command::new(program).arg("--help").output().unwrap().stdout;
    let knows_journal = String::from_utf8_lossy(&known).contains("systemd");
    for log in logs.into_iter().filter(|log| !log.ends_with("Journal") || knows_journal) {
        for (mask, output) in masks.into_iter().flat_map(|mask| outputs.map(|output| (mask, output))) {
            let options = [log, mask, output].map(|option| format!("      {option}\n")).concat();
            let mut shipper = Shipper::start(&options, &store);
            assert!(shipper.comes_up(), "{options}: {}", shipper.said());
        }
    }
    let mut shipper =
        Shipper::start("      hostLog: None\n      extraOutputs: [{plugin: nothing}]\n", &store);
    assert!(!shipper.comes_up(), "a mistake is told");
}
