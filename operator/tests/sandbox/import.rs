//! A Compose project made by hand is imported and taken over: with every task, and with as little downtime as may be.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tasktracker_testbed::{DemoHost, http, titles};

use crate::stage::{Stage, elapse, phase, wait_until};

const TASKS: usize = 10_000;
const COMPOSE: &str = "
services:
  backend:
    image: registry.example.com/tasktracker/backend:r1
    restart: always
    environment: {ALLOWED_ORIGINS: 'http://page.example.com', API_TOKEN: canary-by-hand}
    ports: ['8000:8000']
    volumes: ['tasks:/data']
  frontend:
    image: registry.example.com/tasktracker/frontend:r1
    environment: {BACKEND_URL: 'http://api.example.com:8000'}
    ports: ['3500:8080']
volumes:
  tasks: {}
";

/// Adds tasks over a connection that is kept.
fn add_tasks(address: SocketAddr, numbers: std::ops::Range<usize>) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    for number in numbers {
        let body = format!("{{\"title\": \"task {number}\"}}");
        let length = body.len();
        let head = format!(
            "POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}"
        );
        writer.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.contains(" 201 "), "{line}");
        let mut size = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                size = value.trim().parse().unwrap();
            }
        }
        std::io::copy(&mut reader.by_ref().take(size), &mut std::io::sink()).unwrap();
    }
}

/// Asks again and again, and keeps the longest time in which nobody answered well.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Watch {
    fn start(address: SocketAddr, request: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while !asked.load(Ordering::Relaxed) {
                if http(address, request).is_some_and(|(status, _)| status == 200) {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                elapse(Duration::from_millis(10));
            }
            longest.max(last.elapsed())
        });
        Self { stop, thread }
    }

    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_project_made_by_hand_is_taken_over_with_every_task() {
    let stage = Stage::new("import");
    phase("a project is made by hand");
    stage.host.write_file("/tmp/compose.yaml", COMPOSE).unwrap();
    stage.on_host("mkdir -p /home/deploy/by_hand && cp /tmp/compose.yaml /home/deploy/by_hand/ && cd /home/deploy/by_hand && docker compose up -d 2>&1");
    let api = SocketAddr::new(stage.host.address(), 8000);
    wait_until("the app that was made by hand serves", || {
        http(api, "GET /health").is_some_and(|(status, _)| status == 200)
    });
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || add_tasks(api, part * TASKS / 4..(part + 1) * TASKS / 4));
        }
    });
    let before = titles(api).unwrap();
    assert_eq!(before.len(), TASKS);

    phase("import writes a file");
    // The file says all that the containers did, but the secret.
    let import = |project: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
        command.args([
            "import",
            &format!("deploy@{}:{}", stage.host.address(), stage.host.port()),
            "--project",
            project,
        ]);
        command.args([
            "--host-key",
            &stage.host.host_key(),
            "--identity-secret",
            "key",
            "--environment",
            "test",
        ]);
        command.args(["--name", "tasks", "--secrets-dir"]).arg(stage.path("secrets"));
        command.arg("--out").arg(stage.path("stacks/tasks.yaml")).output().unwrap()
    };
    let unknown = import("nobodys");
    assert_eq!(unknown.status.code(), Some(1));
    let imported = import("by_hand");
    let said = String::from_utf8_lossy(&imported.stderr).into_owned();
    assert!(imported.status.success() && said.contains("API_TOKEN"), "{said}");
    let text = fs::read_to_string(stage.path("stacks/tasks.yaml")).unwrap();
    assert!(!format!("{text}{said}").contains("canary-by-hand"), "{text}{said}");
    assert!(!import("by_hand").status.success(), "a file that is there was replaced");
    stage.write_value("tasks", "API_TOKEN", b"canary-by-hand");

    phase("the plan shows what is replaced");
    // The plan shows what is replaced, and nothing is written before a person wants it.
    let containers = || stage.on_host("docker ps -a --format '{{.Names}} {{.State}}' | sort");
    let (by_hand, volumes) = (containers(), stage.on_host("docker volume ls -q | sort"));
    let (code, plan) = stage.json(&["plan"]);
    let change = &plan[0]["plan"]["waiting"]["change"];
    let adopts: Vec<&str> =
        change["adopts"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!((code, adopts), (2, vec!["by_hand-backend-1", "by_hand-frontend-1"]), "{plan:#}");
    assert_eq!(
        plan[0]["drift"],
        serde_json::json!([]),
        "what is to be taken over is told as if it was in the way"
    );
    let paths: Vec<&str> =
        change["items"].as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"containers/by_hand-backend-1") && paths.contains(&"volumes/data"), "{paths:?}");

    phase("a release that does not serve");
    // What the file does not name would be left, and what does not serve gives back what it replaced.
    let write = |text: &str| fs::write(stage.path("stacks/tasks.yaml"), text).unwrap();
    write(&text.replace("by_hand_tasks", "other_tasks"));
    assert!(refused(&stage, "apply").contains("expected its volume at /data in app.adopt.volumes"));
    stage.on_host("docker tag caddy:2.6.2 registry.example.com/tasktracker/backend:bad; docker tag caddy:2.6.2 registry.example.com/tasktracker/frontend:bad");
    write(
        &text
            .replace("revision: r1", "revision: bad")
            .replace("upgrade: Approve", "upgrade: Approve\n    rollout: {healthTimeout: 3s, soak: 1s}"),
    );
    // Cut on the way, the next one knows what ran and how it was started again.
    assert!(stage.ends_at("applied", &["apply"]), "it was not cut");
    refused(&stage, "apply");
    wait_until("what was made by hand serves again", || {
        http(api, "GET /health").is_some_and(|(status, _)| status == 200)
    });
    let is_as_before = || {
        assert_eq!(
            (containers(), stage.on_host("docker volume ls -q | sort")),
            (by_hand.clone(), volumes.clone())
        );
        let policy =
            stage.on_host("docker inspect --format '{{.HostConfig.RestartPolicy.Name}}' by_hand-backend-1");
        assert_eq!(policy, "always\n", "it is not as it was");
        assert_eq!(titles(api).unwrap(), before);
    };
    is_as_before();

    phase("an interrupted apply without its secret");
    // Cut, and what it needs cannot be had any more: what was stopped is not left so.
    let good = text.replace("upgrade: Approve", "upgrade: Approve\n    rollout: {soak: 1s}");
    write(&good);
    assert!(stage.ends_at("applied", &["apply"]), "it was not cut");
    fs::remove_file(stage.path("secrets/tasks/API_TOKEN")).unwrap();
    // New containers that all serve by now would be kept instead.
    stage.on_host("docker rm -f tt-tasks-app-backend-1");
    let operator = stage.start_operator();
    wait_until(format_args!("what was made by hand serves again: {}", operator.said()), || {
        containers() == by_hand && http(api, "GET /health").is_some_and(|(status, _)| status == 200)
    });
    operator.stop();
    is_as_before();
    stage.write_value("tasks", "API_TOKEN", b"canary-by-hand");
    phase("apply takes over");
    let (page_watch, api_watch) = (
        Watch::start(SocketAddr::new(stage.host.address(), 3500), "GET /"),
        Watch::start(api, "GET /health/ready"),
    );
    stage.apply();
    let (page_down, api_down) = (page_watch.stop(), api_watch.stop());
    println!(
        "taken over with {TASKS} tasks: nobody answered for {} ms at the page, {} ms at the API",
        page_down.as_millis(),
        api_down.as_millis()
    );
    assert_eq!(titles(api).unwrap(), before);
    assert_eq!(stage.on_host("docker volume ls -q | sort"), volumes, "another volume was made");
    let now = containers();
    assert!(now.lines().count() == 3 && now.lines().all(|line| line.starts_with("tt-tasks-app-")), "{now}");
    let (code, status) = stage.json(&["status"]);
    assert_eq!(code, 0, "{status:#}");

    phase("without adopt");
    // Once is enough: without `adopt`, everything stays as it is.
    let ids = || stage.on_host("docker ps -aq --no-trunc | sort");
    let adopted = ids();
    let lines: Vec<&str> = good.lines().collect();
    let start = lines.iter().position(|line| line.trim() == "adopt:").unwrap();
    let without: Vec<&str> = lines
        .iter()
        .enumerate()
        .filter(|(at, _)| !(start..start + 4).contains(at))
        .map(|(_, line)| *line)
        .collect();
    write(&format!("{}\n", without.join("\n")));
    let (code, plan) = stage.json(&["plan"]);
    assert_eq!(code, 0, "{plan:#}");
    stage.apply();
    assert_eq!((ids(), titles(api).unwrap()), (adopted, before.clone()));
    renamed(&stage, &good, &before);
}

/// A stack under another name is another owner: a person says that it is the same.
fn renamed(stage: &Stage, good: &str, before: &BTreeSet<String>) {
    fs::remove_file(stage.path("stacks/tasks.yaml")).unwrap();
    let text = good.replace("name: tasks", "name: todo").replace("project: by_hand", "project: tt-tasks-app");
    stage.write_stack("todo.yaml", &text);
    let (_, plan) = stage.json(&["plan"]);
    assert_eq!(plan[0]["plan"]["waiting"]["reason"], "NameConflict", "{plan:#}");
    assert!(refused(stage, "apply").contains("a person runs `adopt`"));
    let adopted = stage.command(&["adopt", "todo"]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    assert_eq!(titles(SocketAddr::new(stage.host.address(), 8000)).unwrap(), *before);
    let names = stage.on_host("docker ps -a --format '{{.Names}}' | sort");
    assert_eq!(names, "tt-todo-app-backend-1\ntt-todo-app-edge-1\ntt-todo-app-frontend-1\n");
    let (code, status) = stage.json(&["status"]);
    assert_eq!(code, 0, "{status:#}");
}

/// What a command says that must not succeed.
fn refused(stage: &Stage, command: &str) -> String {
    let output = stage.command(&[command]);
    assert_eq!(output.status.code(), Some(1), "it was done");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
