//! The sandbox itself, on real hosts: `cargo test -p tasktracker-testbed --features sandbox` as root.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failure here is a failed test, figures are for its reader"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tasktracker_testbed::{
    Compose, DemoHost, Engine, HostKeyKind, HostOptions, LocalHost, SandboxHost, cache_folder, images,
    packages,
    wait::{elapse, wait_until},
};

fn start(name: &str) -> SandboxHost {
    packages::ensure_docker_host(&mut |line| println!("{line}")).unwrap();
    SandboxHost::start(name, &HostOptions::default()).unwrap()
}

/// What a command printed; it must succeed.
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn over_ssh(host: &dyn DemoHost, script: &str) -> String {
    said(&mut host.ssh(script))
}

fn fails(command: &mut Command) -> bool {
    !command.stdin(Stdio::null()).output().unwrap().status.success()
}

fn connects(host: &SandboxHost) -> bool {
    let address = SocketAddr::new(host.address(), host.port());
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

#[test]
fn two_hosts_side_by_side_are_two_servers() {
    let (one, other) = (start("one"), start("other"));
    for (host, name) in [(&one, "one"), (&other, "other")] {
        assert_eq!(over_ssh(host, "docker info --format '{{.Name}}'"), name);
        assert_eq!(over_ssh(host, "id -un; id -nG"), "deploy\ndeploy docker");
        assert!(over_ssh(host, "docker compose version --short").starts_with("2."));
        assert_eq!(over_ssh(host, "stat -c %U /opt/tasktracker"), "deploy");
        assert_eq!(said(&mut host.command_as_deploy("id -un; pwd")), "deploy\n/home/deploy");
    }
    assert_ne!(one.address(), other.address());
    assert_ne!(one.host_key(), other.host_key());
    let id = |host: &SandboxHost| host.docker(&["info", "--format", "{{.ID}}"]).unwrap();
    assert_ne!(id(&one), id(&other));
    // Each reaches the other, too.
    let reach = format!("exec 3<>/dev/tcp/{}/22 && read -r line <&3 && echo \"$line\"", other.address());
    assert!(over_ssh(&one, &reach).starts_with("SSH-2.0"));
}

#[test]
fn files_go_over_sftp_and_through_the_side_door() {
    let host = start("files");
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("up");
    fs::write(&local, "over sftp").unwrap();
    let batch = folder.path().join("batch");
    fs::write(&batch, format!("put {} /opt/tasktracker/file\n", local.display())).unwrap();
    said(&mut host.sftp(&batch));
    assert_eq!(host.read_file("/opt/tasktracker/file").unwrap(), b"over sftp");
    host.write_file("/opt/tasktracker/other", "written").unwrap();
    assert_eq!(
        over_ssh(&host, "cat /opt/tasktracker/other; stat -c %U /opt/tasktracker/other"),
        "writtendeploy"
    );
}

#[test]
fn a_cable_is_pulled_and_traffic_dropped() {
    let host = start("cable");
    assert!(connects(&host));
    host.set_link(false).unwrap();
    assert!(!connects(&host));
    host.set_link(true).unwrap();
    wait_until("a connection after the cable is back", || connects(&host));
    host.drop_traffic(true).unwrap();
    assert!(!connects(&host));
    host.drop_traffic(false).unwrap();
    assert!(connects(&host));
    host.lose(1.0).unwrap();
    assert!(!connects(&host));
    host.lose(0.0).unwrap();
    assert!(connects(&host));
}

#[test]
fn what_a_host_sends_is_slowed_down() {
    let host = start("slow");
    let million = |host: &SandboxHost| {
        let start = Instant::now();
        assert_eq!(over_ssh(host, "head -c 1000000 /dev/zero | tr '\\0' x").len(), 1_000_000);
        start.elapsed()
    };
    host.shape(Some("tbf rate 8mbit burst 64kbit latency 1s")).unwrap();
    assert!(million(&host) > Duration::from_millis(900));
    host.shape(None).unwrap();
    assert!(million(&host) < Duration::from_millis(900));
    if let Err(error) = host.netem(Some("delay 150ms")) {
        println!("not tried here: {error:#}");
        return;
    }
    let start = Instant::now();
    assert!(connects(&host));
    assert!(start.elapsed() > Duration::from_millis(140));
    host.netem(None).unwrap();
}

#[test]
fn daemons_die_and_come_back() {
    let host = start("daemons");
    host.kill_sshd().unwrap();
    assert!(!connects(&host));
    host.start_sshd().unwrap();
    over_ssh(&host, "true");
    for end in [SandboxHost::stop_docker, SandboxHost::kill_docker] {
        end(&host).unwrap();
        assert!(host.docker(&["info"]).is_err());
        host.start_docker().unwrap();
        host.docker(&["info"]).unwrap();
    }
    let old = host.host_key();
    host.replace_host_key(HostKeyKind::Ecdsa).unwrap();
    assert!(host.host_key().starts_with("ecdsa-sha2-nistp256 "));
    assert_ne!(host.host_key(), old);
    assert!(fails(&mut host.ssh("true")), "the old key is still accepted");
}

#[test]
fn caddy_serves_from_its_image_and_a_forward_reaches_it() {
    let options = HostOptions { reuse: Some("test-caddy".to_owned()), ..HostOptions::default() };
    let host = SandboxHost::start("caddy", &options).unwrap();
    let archive = images::caddy(&host, &mut |line| println!("{line}")).unwrap();
    host.load_image(&archive).unwrap();
    let start = Instant::now();
    host.load_image(&archive).unwrap();
    println!("loading what is there: {:?}", start.elapsed());
    host.docker(&["run", "-d", "--name", "web", "-p", "80:80", images::CADDY]).unwrap();
    let forward = host.forward(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 80).unwrap();
    let mut page = String::new();
    wait_until("an answer of Caddy", || {
        page = get(forward.local()).unwrap_or_default();
        page.starts_with("HTTP/1.0 200") || page.starts_with("HTTP/1.1 200")
    });
    assert!(page.contains("Caddy"), "{page}");
    let start = Instant::now();
    assert!(host.docker(&["exec", "web", "wget", "-qO-", "http://no-such-service"]).is_err());
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "a name that does not exist took {:?}",
        start.elapsed()
    );
    host.docker(&["exec", "web", "sh", "-c", "wget -qO /dev/null http://localhost && ls /data /config"])
        .unwrap();
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

#[test]
fn images_are_kept_for_the_next_start_and_containers_are_not() {
    let options = HostOptions { reuse: Some("test-reuse".to_owned()), ..HostOptions::default() };
    let timed = || {
        let start = Instant::now();
        let host = SandboxHost::start("reuse", &options).unwrap();
        println!("started in {:?}", start.elapsed());
        host
    };
    let host = timed();
    let context = scratch_context();
    let archive = tempfile::tempdir().unwrap();
    let archive = archive.path().join("hello.tar");
    let build = images::Build { context: context.path(), tag: "hello:1", arguments: &[("NAME", "x")] };
    images::build(&host, &build, &archive).unwrap();
    assert!(archive.metadata().unwrap().len() > 0);
    host.docker(&["create", "--name", "left", "hello:1"]).unwrap();
    host.docker(&["volume", "create", "left"]).unwrap();
    host.docker(&["network", "create", "left"]).unwrap();
    drop(host);
    let host = timed();
    assert_eq!(
        host.docker(&["inspect", "--format", "{{.Config.Labels.name}}", "hello:1"]).unwrap().trim(),
        "x"
    );
    for list in [["ps", "-aq"], ["volume", "-q"]] {
        let list = if list[0] == "volume" { vec!["volume", "ls", "-q"] } else { list.to_vec() };
        assert_eq!(host.docker(&list).unwrap(), "");
    }
    assert_eq!(host.docker(&["network", "ls", "-q", "--filter", "type=custom"]).unwrap(), "");
}

fn scratch_context() -> tempfile::TempDir {
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("hello"), "hello").unwrap();
    let dockerfile = "FROM scratch\nARG NAME\nLABEL name=$NAME\nCOPY hello /hello\nENTRYPOINT [\"/hello\"]\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    context
}

#[test]
fn a_small_disk_can_be_full() {
    let options = HostOptions { project_disk_mib: Some(1), ..HostOptions::default() };
    let host = SandboxHost::start("disk", &options).unwrap();
    let fill = "head -c 2000000 /dev/zero >/opt/tasktracker/zeros";
    let output = host.ssh(fill).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left on device"));
}

#[test]
fn a_newer_engine_runs_beside_the_old_one() {
    let newer = HostOptions { engine: Engine::Newer, ..HostOptions::default() };
    let host = SandboxHost::start("newer", &newer).unwrap();
    assert!(over_ssh(&host, "docker version --format '{{.Server.Version}}'").starts_with("26.1"));
    let old = start("old");
    assert!(over_ssh(&old, "docker version --format '{{.Server.Version}}'").starts_with("20.10"));
    host.load_image(&images::caddy(&old, &mut |_| ()).unwrap()).unwrap();
    host.docker(&["run", "--rm", images::CADDY, "caddy", "version"]).unwrap();
}

#[test]
fn a_newer_compose_runs_on_the_newer_engine() {
    let newer = HostOptions { engine: Engine::Newer, compose: Compose::Newer, ..HostOptions::default() };
    let host = SandboxHost::start("newest", &newer).unwrap();
    assert_eq!(over_ssh(&host, "docker compose version --short"), packages::newer::COMPOSE_VERSION);
}

/// What carries the mark of a host: namespaces, processes, mounts, cgroups, folders, links.
fn traces(id: &str, processes: &Path) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    let mut keep = |what: &str, text: String| {
        traces.extend(text.lines().filter(|line| line.contains(id)).map(|line| format!("{what}: {line}")));
    };
    keep("namespace", said(Command::new("ip").args(["netns"])));
    // Groups of other tests come and go meanwhile.
    let find = ["/sys/fs/cgroup", "-ignore_readdir_race", "-type", "d"];
    keep("cgroup", said(Command::new("find").args(find)));
    keep("mount", fs::read_to_string("/proc/self/mountinfo").unwrap());
    keep("folder", said(Command::new("ls").arg(cache_folder().unwrap().join("sandbox"))));
    let of_host = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let of_host =
        of_host.filter(|path| fs::read_link(path.join("ns/pid")).is_ok_and(|link| link == processes));
    traces.extend(of_host.map(|path| format!("process: {}", path.display())));
    traces
}

#[test]
fn nothing_is_left_of_a_host_whose_owner_was_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_of_a_host", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let marked = lines.find_map(|line| Some(line.split_once("HOST ")?.1.to_owned())).unwrap();
    let (id, process) = marked.split_once(' ').unwrap();
    let processes = fs::read_link(Path::new("/proc").join(process).join("ns/pid")).unwrap();
    let alive = traces(id, &processes);
    println!("{alive:#?}");
    for kind in ["namespace", "cgroup", "folder", "process"] {
        assert!(alive.iter().any(|trace| trace.starts_with(kind)), "no {kind} of a host that lives");
    }
    owner.kill().unwrap(); // SIGKILL
    owner.wait().unwrap();
    let start = Instant::now();
    wait_until("the end of every trace", || traces(id, &processes).is_empty());
    println!("nothing left after {:?}", start.elapsed());
}

#[test]
#[ignore = "is the owner that another test kills"]
fn owner_of_a_host() {
    let options = HostOptions { reuse: Some("test-owner".to_owned()), ..HostOptions::default() };
    let host = SandboxHost::start("owned", &options).unwrap();
    host.load_image(&images::caddy(&host, &mut |_| ()).unwrap()).unwrap();
    host.docker(&["run", "-d", "--restart", "always", images::CADDY]).unwrap();
    let id = host.known_hosts_file().parent().unwrap().file_name().unwrap().to_owned();
    let process: PathBuf = host.path("").components().skip(2).take(1).collect();
    println!("\nHOST {} {}", id.display(), process.display());
    // The other test ends this one.
    elapse(Duration::from_mins(1));
}

#[test]
fn a_machine_with_docker_is_a_host_without_root() {
    let machine = start("machine");
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    machine.write_file("/home/deploy/test", program).unwrap();
    let script = "chmod +x ./test 2>/dev/null; ./test --exact user_with_docker --ignored --nocapture";
    let output = machine.command_as_deploy(script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1 passed"), "{text}");
    assert_eq!(said(&mut machine.command_as_deploy("ls")), "test");
    assert!(fails(machine.command_as_deploy("pgrep -u deploy sshd").stdin(Stdio::null())));
}

#[test]
#[ignore = "is run by another test as a user with Docker"]
fn user_with_docker() {
    assert!(LocalHost::is_possible());
    let host = LocalHost::start().unwrap();
    assert_eq!(host.user(), "deploy");
    assert_eq!(host.address(), Ipv4Addr::LOCALHOST);
    assert_eq!(over_ssh(&host, "docker info --format '{{.Name}}'"), "machine");
    let folder = host.project_folder();
    over_ssh(&host, &format!("touch {}/file", folder.display()));
    assert!(folder.join("file").exists());
    drop(host);
    assert!(!folder.exists());
}
