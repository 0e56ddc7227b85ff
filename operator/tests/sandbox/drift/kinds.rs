//! One case and more for each kind.

use tasktracker_crds::DriftKind::{self, *};
use tasktracker_operator::observe::Depth;
use tasktracker_testbed::HostKeyKind;

use super::{Bench, Expected, assert_items, docker};
use crate::stage::wait_until;

/// How a host gets back to what it was.
enum Back {
    /// The operator heals it, by the action that was planned.
    Healed,
    /// A script, as root.
    Script(&'static str),
}

/// A difference that a script makes, and what must be told and planned.
struct Case {
    name: &'static str,
    as_root: bool,
    script: &'static str,
    expected: Vec<Expected>,
    actions: &'static [&'static str],
    back: Back,
}

fn told(
    kind: DriftKind,
    service: Option<&'static str>,
    path: &'static str,
    wanted: &'static str,
    found: &'static str,
) -> Expected {
    Expected { kind, service, path: (!path.is_empty()).then_some(path), wanted, found }
}

fn case(
    name: &'static str,
    script: &'static str,
    expected: Vec<Expected>,
    actions: &'static [&'static str],
    back: Back,
) -> Case {
    Case { name, as_root: false, script, expected, actions, back }
}

/// What the scripts have at hand: making networks and volumes as the operator does, and Compose on the project.
const AT_HAND: &str = r#"
cd /opt/tasktracker/staging/app || exit 1
owner=$(sed -n 's/.*"owner": "\(.*\)",/\1/p' ledger.json)
ours() {
  kind=$1; shift
  docker "$kind" create --label "tasktracker.dev/owner=$owner" --label tasktracker.dev/stack=default/staging "$@"
}
compose() { docker compose -p tt-staging-app -f compose.yaml "$@"; }
up() { compose up -d --wait "$@"; }
"#;

/// What is done about a network that somebody else made.
const REPLACED: [&str; 4] = [
    "replace network tt-staging",
    "connect tt-staging-app-backend-1 to tt-staging",
    "connect tt-staging-app-edge-1 to tt-staging",
    "connect tt-staging-app-frontend-1 to tt-staging",
];

const CADDYFILE: &str = "files/edge/Caddyfile";
const BACKEND: &str = "tt-staging-app-backend-1";
const EDGE: &str = "tt-staging-app-edge-1";

/// Runs every case; the kinds that were seen.
pub(super) fn each_kind(bench: &Bench) -> Vec<DriftKind> {
    let mut seen = Vec::new();
    for case in files().into_iter().chain(containers()).chain(strangers()).chain(host()) {
        seen.extend(case.expected.iter().map(|expected| expected.kind));
        run(bench, case);
    }
    seen.extend(conditions(bench));
    seen.extend(copies(bench));
    seen.extend(without_management(bench));
    seen
}

fn run(bench: &Bench, case: Case) {
    let Case { name, as_root, script, expected, actions, back } = case;
    println!("{name}");
    let script = format!("{AT_HAND}{script}");
    let _ = if as_root { bench.stage.as_root(&script) } else { bench.stage.on_host(&script) };
    let (items, mut planned) = bench.told(Depth::Slow);
    assert_items(name, &items, &expected);
    // Files whose names are hashes come and go with the folder they are in.
    planned.retain(|action| !action.contains("/upstreams/"));
    assert_eq!(planned, actions, "{name}");
    match back {
        Back::Healed => {
            bench.stage.apply();
            // What was set aside is there, and told as something extra, until a person takes it away.
            bench.stage.as_root(&format!(
                "{AT_HAND}find . -name '*.moved-*' -prune -exec rm -rf {{}} +; rm -rf /opt/tasktracker/kept"
            ));
        }
        Back::Script(script) => drop(bench.stage.as_root(&format!("{AT_HAND}{script}"))),
    }
    bench.assert_quiet(name);
}

fn files() -> Vec<Case> {
    let edge = Some("edge");
    let hash = "sha256:…";
    let write = &["write files/edge/Caddyfile", "reload edge"];
    let set_aside = &["set files/edge/Caddyfile aside", "write files/edge/Caddyfile"];
    let extra = |path, found| vec![told(FileExtra, None, path, "nothing", found)];
    vec![
        case(
            "a file is gone",
            "rm files/edge/Caddyfile",
            vec![told(FileMissing, edge, CADDYFILE, hash, "nothing")],
            write,
            Back::Healed,
        ),
        case(
            "a file is edited",
            "echo '# mine' >>files/edge/Caddyfile",
            vec![told(FileChanged, edge, CADDYFILE, hash, hash)],
            write,
            Back::Healed,
        ),
        case(
            "a file is edited, with its size and time as before",
            "cp -p files/edge/Caddyfile /tmp/before && sed -i '1s/W/w/' files/edge/Caddyfile && touch -r /tmp/before files/edge/Caddyfile",
            vec![told(FileChanged, edge, CADDYFILE, hash, hash)],
            write,
            Back::Healed,
        ),
        case(
            "a file has another mode",
            "chmod 600 compose.yaml",
            vec![told(FileMode, None, "compose.yaml", "mode 0644", "mode 0600")],
            &["write compose.yaml"],
            Back::Healed,
        ),
        case(
            "a folder that services cannot enter",
            "chmod 700 files/edge",
            vec![told(FileMode, edge, "files/edge", "mode 0755", "mode 0700")],
            &["set the mode of files/edge to 0755"],
            Back::Healed,
        ),
        Case {
            as_root: true,
            ..case(
                "a folder of somebody else, which nobody can enter",
                "chown root:root files/edge/upstreams && chmod 700 files/edge/upstreams",
                vec![told(
                    FileMode,
                    edge,
                    "files/edge/upstreams",
                    "mode 0755, owner 1500",
                    "mode 0700, owner 0",
                )],
                &["give files/edge/upstreams to user 1500:1500, with the mode 0755"],
                Back::Healed,
            )
        },
        case(
            "a symbolic link in a file's place",
            "mv files/edge/Caddyfile /tmp/kept && ln -s /etc/passwd files/edge/Caddyfile",
            vec![told(NotAFile, edge, CADDYFILE, "a file", "a symbolic link")],
            set_aside,
            Back::Healed,
        ),
        case(
            "a folder in a file's place",
            "mv files/edge/Caddyfile /tmp/kept && mkdir files/edge/Caddyfile",
            vec![told(NotAFile, edge, CADDYFILE, "a file", "a folder")],
            set_aside,
            Back::Healed,
        ),
        case(
            "a symbolic link in the place of a folder above",
            "mv files /opt/tasktracker/kept && ln -s /opt/tasktracker/kept files",
            vec![
                told(NotAFile, edge, "files", "a folder", "a symbolic link"),
                stale("the folder /kept/edge"),
            ],
            &["set files aside", "write files/edge/Caddyfile", "restart tt-staging-app-edge-1"],
            Back::Healed,
        ),
        case(
            "a note",
            "echo hello >notes.txt",
            extra("notes.txt", "a file of 6 bytes"),
            &[],
            Back::Script("rm notes.txt"),
        ),
        case(
            "what Compose would read by itself",
            "echo A=1 >.env",
            extra(".env", "a file of 4 bytes"),
            &[],
            Back::Script("rm .env"),
        ),
        case(
            "a folder of notes",
            "mkdir -p files/more && touch files/more/x",
            extra("files/more", "a folder"),
            &[],
            Back::Script("rm -r files/more"),
        ),
        case(
            "a name that would be obeyed",
            "touch \"$(printf 'a\\033[31m\\nEND 7')\"",
            extra("a\\u{1b}[31m\\nEND 7", "a file of 0 bytes"),
            &[],
            Back::Script("rm a*"),
        ),
    ]
}

fn stale(found: &'static str) -> Expected {
    told(ContentStale, Some("edge"), "tt-staging-app-edge-1/etc/caddy", "the folder files/edge", found)
}

fn not_served(path: &'static str, found: &'static str) -> Expected {
    told(NotServing, Some("edge"), path, "an answer for users", found)
}

fn containers() -> Vec<Case> {
    let backend = Some("backend");
    let left = |service, path| told(ConfigChanged, service, path, "…", "not set");
    let other_image = "cd /tmp && old=$(docker image inspect --format '{{.Id}}' registry.example.com/tasktracker/frontend:r1)
        new=$(docker image inspect --format '{{.Id}}' registry.example.com/tasktracker/frontend:r2)
        sed \"s/$old/$new/\" /opt/tasktracker/staging/app/compose.yaml >/tmp/other.yaml
        docker compose -p tt-staging-app -f /tmp/other.yaml --project-directory /opt/tasktracker/staging/app up -d --no-deps frontend 2>&1";
    vec![
        case(
            "a container is gone",
            "docker rm -f tt-staging-app-backend-1",
            vec![told(Missing, backend, "", "1 running", "nothing")],
            &["create backend"],
            Back::Healed,
        ),
        case(
            "a container was stopped",
            "docker stop tt-staging-app-frontend-1",
            vec![told(Stopped, Some("frontend"), "tt-staging-app-frontend-1", "running", "exited (0)")],
            &["start tt-staging-app-frontend-1"],
            Back::Healed,
        ),
        case(
            "a container is paused",
            "docker pause tt-staging-app-backend-1",
            vec![told(Paused, backend, BACKEND, "running", "paused")],
            &["unpause tt-staging-app-backend-1"],
            Back::Healed,
        ),
        case(
            "a container of another image",
            other_image,
            vec![told(ImageChanged, Some("frontend"), "tt-staging-app-frontend-1", "sha256:…", "sha256:…")],
            &["recreate frontend"],
            Back::Healed,
        ),
        case(
            "the folder that a container sees was exchanged",
            "cp -a files/edge files/new && mv files/edge /tmp/old && mv files/new files/edge && rm -r /tmp/old",
            vec![stale("a folder that is gone")],
            &["restart tt-staging-app-edge-1"],
            Back::Healed,
        ),
        case(
            "users get errors though every container is healthy",
            r#"docker exec tt-staging-app-edge-1 wget -q -O - --header 'Content-Type: application/json' --post-data '{"admin":{"listen":"localhost:2019"},"apps":{"http":{"servers":{"x":{"listen":[":3500"],"routes":[{"handle":[{"handler":"static_response","status_code":500}]}]}}}}}' http://127.0.0.1:2019/load"#,
            vec![
                not_served(
                    "3500/",
                    "expected status 200, found 500; frontend itself answers: tt-staging-app-edge-1 does not lead there",
                ),
                not_served(
                    "3500/api/tasks?limit=1",
                    "expected status 200, found 500; backend itself answers: tt-staging-app-edge-1 does not lead there",
                ),
                not_served("8000/tasks?limit=1", "127.0.0.1:8000: …"),
            ],
            &["reload edge"],
            Back::Healed,
        ),
        case(
            "the volume is gone",
            "docker rm -f tt-staging-app-backend-1 && docker volume rm tt-staging-app-data",
            vec![
                told(Missing, backend, "", "1 running", "nothing"),
                told(VolumeMissing, None, "tt-staging-app-data", "there", "nothing"),
            ],
            &["create backend"],
            Back::Script("ours volume tt-staging-app-data && up backend"),
        ),
        case(
            "the volume was made by somebody else",
            "docker rm -f tt-staging-app-backend-1 && docker volume rm tt-staging-app-data && docker volume create --label tasktracker.dev/owner=$owner tt-staging-app-data && up backend",
            vec![told(
                VolumeChanged,
                None,
                "tt-staging-app-data/labels/tasktracker.dev/stack",
                "default/staging",
                "not set",
            )],
            &[],
            Back::Script(
                "docker rm -f tt-staging-app-backend-1 && docker volume rm tt-staging-app-data && ours volume tt-staging-app-data && up backend",
            ),
        ),
        case(
            "the network was made by somebody else",
            "compose down && docker network rm tt-staging && ours network --internal tt-staging && up",
            vec![told(NetworkChanged, None, "tt-staging/internal", "not set", "true")],
            &REPLACED,
            Back::Healed,
        ),
        case(
            "the network was made anew by hand",
            "for one in backend edge frontend; do docker network disconnect -f tt-staging tt-staging-app-$one-1; done && docker network rm tt-staging && docker network create tt-staging",
            vec![
                left(backend, "tt-staging-app-backend-1/networks/tt-staging"),
                left(backend, "tt-staging-app-backend-1/networks/tt-staging/aliases"),
                left(Some("edge"), "tt-staging-app-edge-1/networks/tt-staging"),
                left(Some("edge"), "tt-staging-app-edge-1/networks/tt-staging/aliases"),
                left(Some("frontend"), "tt-staging-app-frontend-1/networks/tt-staging"),
                left(Some("frontend"), "tt-staging-app-frontend-1/networks/tt-staging/aliases"),
                told(NetworkChanged, None, "tt-staging/labels/tasktracker.dev/owner", "…", "not set"),
                told(
                    NetworkChanged,
                    None,
                    "tt-staging/labels/tasktracker.dev/stack",
                    "default/staging",
                    "not set",
                ),
            ],
            &REPLACED,
            Back::Healed,
        ),
        case(
            "network and containers are gone",
            "compose down && docker network rm tt-staging",
            vec![
                told(Missing, backend, "", "1 running", "nothing"),
                told(Missing, Some("edge"), "", "1 running", "nothing"),
                told(Missing, Some("frontend"), "", "1 running", "nothing"),
                told(NetworkMissing, None, "tt-staging", "there", "nothing"),
            ],
            &["create network tt-staging", "create backend", "create edge", "create frontend"],
            Back::Healed,
        ),
    ]
}

fn strangers() -> Vec<Case> {
    let rogue = |found| vec![told(Rogue, None, "stranger", "nothing of ours", found)];
    let gone = || Back::Script("docker rm -f stranger");
    vec![
        case(
            "a stranger in our network",
            "docker run -d --name stranger --network tt-staging caddy:2.6.2 sleep 600",
            rogue("is in the network tt-staging"),
            &[],
            gone(),
        ),
        case(
            "a stranger that users are sent to",
            "docker run -d --name stranger --network tt-staging --network-alias $(ls files/edge/upstreams/backend | head -n 1) caddy:2.6.2 sleep 600",
            rogue("is in the network tt-staging, takes requests for backend, whose name it has there"),
            &[],
            gone(),
        ),
        case(
            "a stranger with our data",
            "docker run -d --name stranger -v tt-staging-app-data:/data caddy:2.6.2 sleep 600",
            rogue("sees tt-staging-app-data"),
            &[],
            gone(),
        ),
        case(
            "a stranger with our files",
            "docker run -d --name stranger -v /opt/tasktracker/staging/app/files:/x caddy:2.6.2 sleep 600",
            rogue("sees /opt/tasktracker/staging/app/files"),
            &[],
            gone(),
        ),
        case(
            "a stranger in our project",
            "docker run -d --name stranger --label com.docker.compose.project=tt-staging-app --label com.docker.compose.service=edge caddy:2.6.2 sleep 600",
            rogue("is in the Compose project tt-staging-app as edge"),
            &[],
            gone(),
        ),
        case(
            "a network and a volume labelled with our project",
            "docker network create --label com.docker.compose.project=tt-staging-app tt-staging-app_default && docker volume create --label com.docker.compose.project=tt-staging-app tt-staging-app_cache",
            vec![
                told(
                    Rogue,
                    None,
                    "tt-staging-app_cache",
                    "nothing of ours",
                    "is a volume of the Compose project tt-staging-app",
                ),
                told(
                    Rogue,
                    None,
                    "tt-staging-app_default",
                    "nothing of ours",
                    "is a network of the Compose project tt-staging-app",
                ),
            ],
            &[],
            Back::Script("docker network rm tt-staging-app_default && docker volume rm tt-staging-app_cache"),
        ),
        case(
            "a stranger on our port",
            "docker stop tt-staging-app-edge-1 && docker run -d --name stranger -p 3500:80 caddy:2.6.2 sleep 600",
            vec![
                told(Rogue, None, "stranger", "nothing of ours", "has port 3500"),
                told(Stopped, Some("edge"), EDGE, "running", "exited (0)"),
            ],
            &["start tt-staging-app-edge-1"],
            Back::Script("docker rm -f stranger; docker start tt-staging-app-edge-1"),
        ),
    ]
}

fn host() -> Vec<Case> {
    let listen = "docker stop tt-staging-app-edge-1 && (perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 3500, ReuseAddr => 1) or die; sleep 60' >/dev/null 2>&1 & echo $! >/tmp/listener); sleep 0.5";
    let as_root =
        |name, script, expected, back| Case { name, as_root: true, script, expected, actions: &[], back };
    vec![
        as_root(
            "the disk is nearly full",
            "head -c 100M /dev/zero >/opt/tasktracker/zeros 2>/dev/null; true",
            vec![told(DiskLow, None, "/opt/tasktracker", "at least 5 % free", "0 % free")],
            Back::Script("rm /opt/tasktracker/zeros"),
        ),
        as_root(
            "a clock that is a day off: a fake `date`, as all hosts here share one clock",
            "printf '#!/bin/sh\\necho $(($(/usr/bin/stat -c %%X /proc/self) + 86400))\\n' >/tmp/date; chmod 755 /tmp/date; mount --bind /tmp/date /usr/bin/date",
            vec![told(ClockSkew, None, "", "the operator's time", "24 h ahead")],
            Back::Script("umount /usr/bin/date"),
        ),
        as_root(
            "the kernel does not forward",
            "sysctl -qw net.ipv4.ip_forward=0",
            vec![told(SysctlTooLow, None, "net.ipv4.ip_forward", "1", "0")],
            Back::Script("sysctl -qw net.ipv4.ip_forward=1"),
        ),
        as_root(
            "another Compose than at the last rollout",
            "cp -p ledger.json /tmp/ledger && sed -i 's/\"compose\": \".*\"/\"compose\": \"2.20.0\"/' ledger.json",
            vec![told(ComposeVersionChanged, None, "", "2.20.0", "2.…")],
            Back::Script("cp -p /tmp/ledger ledger.json"),
        ),
        Case {
            name: "somebody else listens on our port",
            as_root: true,
            script: listen,
            expected: vec![
                told(
                    PortTaken,
                    None,
                    "3500",
                    "free for edge",
                    "something that is no container listens there",
                ),
                told(Stopped, Some("edge"), EDGE, "running", "exited (0)"),
            ],
            actions: &["start tt-staging-app-edge-1"],
            back: Back::Script("kill $(cat /tmp/listener); docker start tt-staging-app-edge-1"),
        },
    ]
}

/// What takes a process that dies or hangs.
fn conditions(bench: &Bench) -> Vec<DriftKind> {
    let stage = &bench.stage;
    let kill = format!("kill -KILL $(docker inspect --format '{{{{.State.Pid}}}}' {BACKEND})");
    let running = format!("docker inspect --format '{{{{.State.Running}}}}' {BACKEND}");
    for _ in 0..3 {
        wait_until("the container runs", || stage.on_host(&running).trim() == "true");
        stage.as_root(&format!("{kill}; sleep 0.2"));
    }
    let restarting = [told(
        Restarting,
        Some("backend"),
        BACKEND,
        "running without a restart",
        "restarting again and again",
    )];
    let (items, actions) = bench.told(Depth::Woken);
    assert_items("a container that restarts", &items, &restarting);
    assert_eq!(actions, ["recreate backend"]);
    stage.apply();
    bench.assert_quiet("the container was made anew");

    let health = format!("docker inspect --format '{{{{.State.Health.Status}}}}' {BACKEND}");
    let paused = stage.on_host(&format!("docker pause {BACKEND} && docker unpause {BACKEND} && {health}"));
    assert!(paused.ends_with("unhealthy\n"), "Docker calls it so until its next check: {paused}");
    assert_items("a pause that is over", &bench.told(Depth::Woken).0, &[]);
    wait_until("it was checked", || stage.on_host(&health) == "healthy\n");
    bench.assert_quiet("a pause that is over");

    let hung = "tt-staging-app-frontend-1";
    let process = format!("$(docker inspect --format '{{{{.State.Pid}}}}' {hung})");
    stage.as_root(&format!("kill -STOP {process}"));
    wait_until("the container is unhealthy", || !bench.told(Depth::Woken).0.is_empty());
    let (items, actions) = bench.told(Depth::Woken);
    assert_items(
        "a container that hangs",
        &items,
        &[told(Unhealthy, Some("frontend"), hung, "healthy", "unhealthy")],
    );
    assert_eq!(actions, ["restart tt-staging-app-frontend-1 at once"]);
    stage.apply();
    bench.assert_quiet("the container was started again");
    stage.on_host("docker rm -f $(docker ps -qf label=com.docker.compose.service=frontend)");
    stage.apply();
    bench.assert_quiet("the container has its usual name");
    vec![Restarting, Unhealthy]
}

/// Containers of ours that nothing asks for.
fn copies(bench: &Bench) -> Vec<DriftKind> {
    let recipe = docker::recipe(&bench.stage, "tt-staging-app-frontend-1");
    docker::run(&bench.stage, "copy", &recipe);
    let (items, actions) = bench.told(Depth::Woken);
    let orphan = told(Orphan, Some("frontend"), "copy", "nothing", "one more container of frontend, running");
    assert_items("a copy", &items, &[orphan]);
    assert_eq!(actions, ["remove orphan copy"]);
    let mut one_off = recipe;
    one_off["Labels"]["com.docker.compose.oneoff"] = "True".into();
    docker::run(&bench.stage, "one-off", &one_off);
    bench.stage.on_host("docker rm -f copy");
    let orphan =
        told(Orphan, Some("frontend"), "one-off", "nothing", "a container of `docker compose run`, running");
    assert_items("a container of docker compose run", &bench.told(Depth::Woken).0, &[orphan]);
    bench.stage.apply();
    bench.assert_quiet("the orphan was removed");
    leftovers(bench);
    vec![Orphan]
}

/// What keeps a host from being managed at all: one item each, with the whole message.
fn without_management(bench: &Bench) -> Vec<DriftKind> {
    let stage = &bench.stage;
    let fake = "printf '#!/bin/sh\\ncase \"$*\" in *compose*) echo 2.26.1 ;; *) echo 1.40 19.03.15 ;; esac\\n' >/tmp/docker; chmod 755 /tmp/docker; mount --bind /tmp/docker /usr/bin/docker";
    let cases = [
        (EngineTooOld, fake, "umount /usr/bin/docker"),
        (
            ComposeMissing,
            "for folder in /usr/libexec /usr/local/lib; do [ ! -d $folder/docker/cli-plugins ] || mount -t tmpfs none $folder/docker/cli-plugins; done",
            "for folder in /usr/libexec /usr/local/lib; do [ ! -d $folder/docker/cli-plugins ] || umount $folder/docker/cli-plugins; done",
        ),
        (
            SocketDenied,
            "chmod 600 /run/docker.sock; chown root:root /run/docker.sock",
            "chown root:docker /run/docker.sock; chmod 660 /run/docker.sock",
        ),
        (
            FolderNotWritable,
            "chown root:root /opt/tasktracker; chmod 755 /opt/tasktracker",
            "chown deploy:deploy /opt/tasktracker",
        ),
    ];
    let mut seen = Vec::new();
    for (kind, breaks, mends) in cases {
        stage.as_root(breaks);
        assert_items(
            kind.as_str(),
            &bench.told(Depth::Slow).0,
            &[told(kind, None, "", "a host that can be managed", "…")],
        );
        stage.as_root(mends);
        bench.assert_quiet(kind.as_str());
        seen.push(kind);
    }
    stage.host.kill_sshd().unwrap();
    wait_until("the connection is lost", || bench.try_check(Depth::Woken).is_err());
    assert_items(
        "no sshd",
        &bench.told(Depth::Slow).0,
        &[told(Unreachable, None, "", "a host that can be managed", "address …")],
    );
    stage.host.start_sshd().unwrap();
    bench.assert_quiet("sshd is back");
    stage.host.replace_host_key(HostKeyKind::Ed25519).unwrap();
    wait_until("the connection is lost", || {
        bench
            .told(Depth::Slow)
            .0
            .iter()
            .any(|item| item.kind == HostKeyChanged && item.found.starts_with("hostKeys: expected"))
    });
    seen.extend([Unreachable, HostKeyChanged]);
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", "").replace("[key]", "[missing]"));
    let (_, status) = stage.json(&["status"]);
    assert_eq!(status[0]["report"]["drift"][0]["kind"], "SecretMissing");
    seen.push(SecretMissing);
    seen
}

/// What a Compose leaves that was killed while it replaced a container: one that was renamed, and one that never ran.
fn leftovers(bench: &Bench) {
    let stage = &bench.stage;
    stage.on_host(
        "docker stop tt-staging-app-frontend-1 && docker rename tt-staging-app-frontend-1 0123456789ab_tt-staging-app-frontend-1",
    );
    let (items, actions) = bench.told(Depth::Woken);
    assert_eq!(
        actions,
        [
            "start 0123456789ab_tt-staging-app-frontend-1",
            "rename 0123456789ab_tt-staging-app-frontend-1 to tt-staging-app-frontend-1"
        ],
        "{items:#?}"
    );
    stage.apply();
    bench.assert_quiet("the container has its name again");
    let recipe = docker::recipe(stage, "tt-staging-app-frontend-1");
    docker::run(stage, "0123456789ab_tt-staging-app-frontend-1", &recipe);
    let (_, actions) = bench.told(Depth::Woken);
    assert_eq!(actions, ["remove orphan 0123456789ab_tt-staging-app-frontend-1"]);
    stage.apply();
    bench.assert_quiet("the leftover was removed");
}
