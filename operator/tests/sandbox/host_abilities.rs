//! Files with owners that the SSH user cannot give, and HTTP to services: on both engines, by a user without root.

use std::{net::SocketAddr, sync::Arc};

use futures::future::join_all;
use tasktracker_operator::{
    host::{BasicAuth, Error, FileFact, Host, HostLock, HttpAnswer, OwnedFile, Step, WriteMethod},
    secret::Secret,
};
use tasktracker_testbed::wait::wait_until_async;
use tasktracker_testbed::{Engine, HostOptions};
use tokio::runtime::Runtime;

use crate::stage::{Stage, wait_until};

const PROJECT: &str = "staging/app";
const FOLDER: &str = "secrets/elasticsearch";
/// An image without programs, as a whole: with a user that the host does not know, and a volume of its own.
const IMAGE: &str = "elasticsearch:test";
const MAKE_IMAGE: &str = "
mkdir -p /tmp/image && echo x >/tmp/image/x
tar -C /tmp/image -c . |
  docker import --change 'USER elasticsearch:root' --change 'VOLUME /data' --change 'HEALTHCHECK CMD /x' - elasticsearch:test";

fn options(engine: Engine) -> HostOptions {
    HostOptions { engine, ..HostOptions::default() }
}

fn host_of(stage: &Stage) -> Arc<Host> {
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", ""));
    stage.managed().1
}

fn owned(name: &str, content: &str, (uid, gid): (u32, u32), mode: u32) -> OwnedFile {
    let content = Secret::new(content.as_bytes().to_vec());
    OwnedFile { name: name.to_owned(), content, mode, uid, gid }
}

fn folder() -> Vec<Step> {
    ["secrets", FOLDER].map(|path| Step::Folder { path: path.to_owned(), mode: 0o700 }).to_vec()
}

/// Writes files with owners into the folder, which is made where it is missing.
async fn write(host: &Host, lock: &HostLock, image: &str, files: &[OwnedFile]) -> Result<(), Error> {
    let steps = [folder(), vec![Step::owned_files(image, FOLDER, files), Step::Sync]].concat();
    host.carry_out(lock, PROJECT, &steps).await
}

/// What the listing has of a file of the folder.
async fn listed(host: &Host, name: &str) -> Option<FileFact> {
    let listing = host.files("staging", true).await.unwrap();
    listing.files.get(&format!("{PROJECT}/{FOLDER}/{name}")).cloned()
}

/// Content, owner, group and mode as read through a container.
async fn read_back(host: &Host, container: &str, name: &str) -> Option<(String, u32, u32, u32)> {
    let file = host.archived_file(container, &format!("/run/secrets/{name}")).await.unwrap()?;
    let content = String::from_utf8(file.content.reveal().to_vec()).unwrap();
    Some((content, file.uid, file.gid, file.mode))
}

/// A container that has the folder mounted and never ran.
fn reader(stage: &Stage) -> String {
    let create = format!(
        "docker create --name reader --network none --entrypoint /x \
         --mount type=bind,src=/opt/tasktracker/{PROJECT}/{FOLDER},dst=/run/secrets,readonly {IMAGE}"
    );
    stage.on_host(&create).trim().to_owned()
}

/// What an extraction would leave if it left something: containers, volumes, staged files.
fn left(stage: &Stage) -> String {
    stage.on_host(
        "docker ps -a --format '{{.Names}}' | grep -vx reader
         docker volume ls -q | grep -vx -e data -e \"$(docker inspect --format '{{range .Mounts}}{{.Name}}{{end}}' reader)\"
         ls -d /opt/tasktracker/staging/app/.staging.* 2>/dev/null
         true",
    )
}

fn files_have_owners(name: &str, engine: Engine) {
    let stage = Stage::bare(name, options(engine));
    let host = host_of(&stage);
    stage.on_host(MAKE_IMAGE);
    Runtime::new().unwrap().block_on(async {
        let lock = host.lock("test").await.unwrap();
        let first = [
            owned("PASSWORD", "first", (1000, 1000), 0o400),
            owned("empty", "", (1000, 0), 0o600),
            owned("a b'$(id)", &"x".repeat(5_000), (3_000_000, 7), 0o440),
        ];
        write(&host, &lock, IMAGE, &first).await.unwrap();
        let fact = FileFact::File { mode: 0o400, uid: 1000, gid: 1000, size: 5, sha256: None };
        assert_eq!(listed(&host, "PASSWORD").await, Some(fact));
        let Some(FileFact::File { mode: 0o440, uid: 3_000_000, gid: 7, size: 5_000, sha256: None }) =
            listed(&host, "a b'$(id)").await
        else {
            panic!("{:?}", listed(&host, "a b'$(id)").await);
        };
        stage.on_host(&format!("cd /opt/tasktracker/{PROJECT}/{FOLDER} && ! cat PASSWORD 2>/dev/null"));

        let container = reader(&stage);
        let read = async |name: &str| read_back(&host, &container, name).await;
        assert_eq!(read("PASSWORD").await, Some(("first".to_owned(), 1000, 1000, 0o400)));
        assert_eq!(read("empty").await, Some((String::new(), 1000, 0, 0o600)));
        assert_eq!(read("a b'$(id)").await, Some(("x".repeat(5_000), 3_000_000, 7, 0o440)));
        assert_eq!(read("other").await, None);
        assert_eq!(left(&stage), "");

        // Another value and another owner, over a file that the SSH user may not even read.
        write(&host, &lock, IMAGE, &[owned("PASSWORD", "second", (1001, 1002), 0o600)]).await.unwrap();
        let fact = FileFact::File { mode: 0o600, uid: 1001, gid: 1002, size: 6, sha256: None };
        assert_eq!(listed(&host, "PASSWORD").await, Some(fact));
        assert_eq!(read("PASSWORD").await, Some(("second".to_owned(), 1001, 1002, 0o600)));

        // A container of the name, of which nothing else is left, is in nobody's way.
        stage.on_host(&format!(
            "docker create --name tasktracker-extract.staging.app --entrypoint /x {IMAGE}"
        ));
        write(&host, &lock, IMAGE, &[owned("empty", "", (1000, 0), 0o600)]).await.unwrap();
        assert_eq!(left(&stage), "");

        // What cannot be extracted leaves what is there.
        let missing = write(&host, &lock, "missing:1", &[owned("PASSWORD", "third", (0, 0), 0o400)]).await;
        let upwards = write(&host, &lock, IMAGE, &[owned("../evil", "third", (0, 0), 0o400)]).await;
        let long = write(&host, &lock, IMAGE, &[owned(&"n".repeat(101), "third", (0, 0), 0o400)]).await;
        for (result, wanted) in [(missing, "missing:1"), (upwards, ""), (long, "found no file")] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(wanted) && !message.contains("third"), "{message}");
            assert_eq!(left(&stage), "", "{message}");
        }
        assert_eq!(read("PASSWORD").await, Some(("second".to_owned(), 1001, 1002, 0o600)));
        let there = stage.on_host(&format!("cd /opt/tasktracker/{PROJECT} && find secrets -type f | sort"));
        let names = ["PASSWORD", "a b'$(id)", "empty"].map(|name| format!("{FOLDER}/{name}"));
        assert_eq!(there.lines().collect::<Vec<_>>(), names);

        let path = format!("{FOLDER}/PASSWORD");
        host.carry_out(&lock, PROJECT, &[Step::Remove { path }]).await.unwrap();
        assert_eq!((listed(&host, "PASSWORD").await, read("PASSWORD").await), (None, None));
        lock.release().await;
    });
}

#[test]
fn files_have_owners_that_are_not_the_ssh_user() {
    files_have_owners("owners", Engine::Distribution);
}

#[test]
fn files_have_owners_that_are_not_the_ssh_user_with_a_newer_engine() {
    files_have_owners("owners-new", Engine::Newer);
}

fn volumes_have_owners(name: &str, engine: Engine) {
    let stage = Stage::bare(name, options(engine));
    let host = host_of(&stage);
    stage.on_host(MAKE_IMAGE);
    stage.on_host("docker volume create data");
    let root = "/var/lib/docker/volumes/data/_data";
    stage.as_root(&format!("echo kept >{root}/file && chown 7:8 {root}/file && chmod 604 {root}/file"));
    Runtime::new().unwrap().block_on(async {
        let lock = host.lock("test").await.unwrap();
        for (uid, gid, mode) in [(1000, 0, 0o750), (1001, 1002, 0o2770)] {
            let step = Step::own_volume(IMAGE, "data", uid, gid, mode);
            host.carry_out(&lock, PROJECT, &[step]).await.unwrap();
            let found = stage.as_root(&format!("cd {root} && stat -c '%n %u %g %a' . * && cat file"));
            assert_eq!(found, format!(". {uid} {gid} {mode:o}\nfile 7 8 604\nkept\n"));
        }
        let step = Step::own_volume(IMAGE, "missing", 1000, 1000, 0o700);
        let message = host.carry_out(&lock, PROJECT, &[step]).await.unwrap_err().to_string();
        assert!(message.contains("docker volume") && message.contains("missing"), "{message}");
        assert_eq!(stage.on_host("docker ps -aq; docker volume ls -q"), "data\n", "{message}");
        lock.release().await;
    });
}

#[test]
fn the_root_of_a_volume_gets_its_owner() {
    volumes_have_owners("volumes", Engine::Distribution);
}

#[test]
fn the_root_of_a_volume_gets_its_owner_with_a_newer_engine() {
    volumes_have_owners("volumes-new", Engine::Newer);
}

/// A `docker` in front of the real one that kills the program of the steps once: /opt/cut has the command, how many
/// calls of it pass, and whether the next one is carried out.
const DOCKER_THAT_CUTS: &str = r#"
cat >/usr/local/bin/docker <<'END'
#!/bin/sh
command= passes= when=
read -r command passes when 2>/dev/null </opt/cut
case " $* " in *" ${command:-/} "*) ;; *) exec /usr/bin/docker "$@" ;; esac
if [ "$passes" -gt 0 ]; then
  echo "$command $((passes - 1)) $when" >/opt/cut
  exec /usr/bin/docker "$@"
fi
[ "$when" = before ] || /usr/bin/docker "$@"
rm -f /opt/cut
kill -9 "$(cut -d ' ' -f 6 /proc/$$/stat)"
END
chmod 755 /usr/local/bin/docker
chown deploy /opt"#;

#[test]
fn an_extraction_that_is_cut_anywhere_is_finished_by_the_next() {
    let stage = Stage::bare("owners-cut", HostOptions::default());
    let host = host_of(&stage);
    stage.on_host(MAKE_IMAGE);
    Runtime::new().unwrap().block_on(async {
        let lock = host.lock("test").await.unwrap();
        write(&host, &lock, IMAGE, &[owned("PASSWORD", "0", (1000, 1000), 0o400)]).await.unwrap();
        let container = reader(&stage);
        stage.as_root(DOCKER_THAT_CUTS);
        let calls = [
            "rm 0 before",
            "rm 0 after",
            "create 0 before",
            "create 0 after",
            "cp 0 before",
            "cp 0 after",
            "rm 1 before",
            "rm 1 after",
        ];
        let mut before = "0".to_owned();
        for (number, call) in calls.iter().enumerate() {
            stage.on_host(&format!("echo '{call}' >/opt/cut"));
            let value = format!("{}", number + 1);
            let file = [owned("PASSWORD", &value, (1000, 1000), 0o400)];
            write(&host, &lock, IMAGE, &file).await.unwrap_err();
            stage.on_host("! test -e /opt/cut");
            let found = read_back(&host, &container, "PASSWORD").await.unwrap();
            assert_eq!(found, (before, 1000, 1000, 0o400), "{call}: neither missing nor half a file");
            assert_ne!(left(&stage), "", "{call}: nothing was cut");

            // Any steps of the project remove what was left.
            host.carry_out(&lock, PROJECT, &[Step::Sync]).await.unwrap();
            assert_eq!(left(&stage), "", "{call}");
            write(&host, &lock, IMAGE, &file).await.unwrap();
            let found = read_back(&host, &container, "PASSWORD").await.unwrap();
            assert_eq!(found, (value.clone(), 1000, 1000, 0o400), "{call}");
            before = value;
        }
        lock.release().await;
    });
}

/// A service that answers each request with what it was: method, path, credentials and body.
const SERVICE: &str = r#"
mkdir -p /tmp/service/bin && cp /usr/bin/busybox /tmp/service/bin/
cat >/tmp/service/answer <<'END'
#!/bin/busybox sh
end=$(printf '\r') length=0
read -r method path _
while read -r name value; do
  value=${value%"$end"}
  case $name in
    "$end") break ;;
    authorization:) credentials=$value ;;
    content-length:) length=$value ;;
  esac
done
case $path in
  /silent) exec /bin/busybox sleep 60 ;;
  /moved) status="302 Found" ;;
  /secure) [ -n "$credentials" ] && status="200 OK" || status="401 Unauthorized" ;;
  *) status="200 OK" ;;
esac
said="$method $path $credentials $(/bin/busybox head -c "$length")"
printf 'HTTP/1.1 %s\r\nLocation: /\r\nContent-Length: %s\r\n\r\n%s' "$status" "${#said}" "$said"
END
chmod 755 /tmp/service/answer
tar -C /tmp/service -c . | docker import - service:test
docker network create services
docker run -d --name service --network services -p 127.0.0.1:9201:9200 service:test \
  /bin/busybox nc -ll -p 9200 -e /answer
docker exec service /bin/busybox httpd -p 9300 -h /
"#;

fn endpoint(stage: &Stage) -> SocketAddr {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}:9200";
    stage.on_host(&format!("docker inspect --format '{format}' service")).trim().parse().unwrap()
}

fn services_are_asked(name: &str, engine: Engine) {
    let stage = Stage::bare(name, options(engine));
    let host = host_of(&stage);
    stage.on_host(SERVICE);
    let endpoint = endpoint(&stage);
    let runtime = Runtime::new().unwrap();
    let get = |endpoint, path: &'static str, credentials| {
        runtime.block_on(host.http_get(endpoint, path, credentials)).unwrap()
    };
    let answer = |status, text: &str| HttpAnswer::Answered { status, body: text.as_bytes().to_vec() };
    wait_until("the service answers", || get(endpoint, "/", None) == answer(200, "GET /  "));
    let password = Secret::new(b"canary".to_vec());
    let credentials = BasicAuth { user: "elastic".to_owned(), password };
    let basic = "Basic ZWxhc3RpYzpjYW5hcnk=";
    let published = SocketAddr::from(([127, 0, 0, 1], 9201));
    assert_eq!(get(published, "/a?b=c", None), answer(200, "GET /a?b=c  "));
    assert_eq!(get(endpoint, "/secure", None), answer(401, "GET /secure  "));
    assert_eq!(get(endpoint, "/secure", Some(&credentials)), answer(200, &format!("GET /secure {basic} ")));
    assert_eq!(get(endpoint, "/moved", None), answer(302, "GET /moved  "));

    let no_answer = |endpoint, path| match get(endpoint, path, None) {
        HttpAnswer::NoAnswer(reason) => reason,
        other => panic!("{other:?}"),
    };
    let closed = SocketAddr::new(endpoint.ip(), 1);
    assert_eq!(no_answer(closed, "/"), format!("{closed}: connection refused"));
    assert_eq!(no_answer(endpoint, "/silent"), format!("{endpoint}: no answer within 3 s"));
    let nobody = "172.31.255.1:9200".parse().unwrap();
    assert!(no_answer(nobody, "/").starts_with("172.31.255.1:9200: "));

    runtime.block_on(async {
        let lock = host.lock("test").await.unwrap();
        for (method, word, body) in [
            (WriteMethod::Post, "POST", "{\"a\":1}"),
            (WriteMethod::Put, "PUT", "{}"),
            (WriteMethod::Delete, "DELETE", ""),
        ] {
            let sent = host.http_send(&lock, method, endpoint, "/_ilm", Some(&credentials), body.as_bytes());
            assert_eq!(sent.await.unwrap(), answer(200, &format!("{word} /_ilm {basic} {body}")));
        }
        // Several at once go through one connection. `nc` keeps two waiting at most, so a server
        // that keeps nine is asked.
        let files = SocketAddr::new(endpoint.ip(), 9300);
        let many = join_all((0..8).map(|_| host.http_get(files, "/answer", None))).await;
        let script = |found: &_| matches!(found, Ok(HttpAnswer::Answered { status: 200, body }) if body.starts_with(b"#!"));
        assert!(many.iter().all(script), "{many:?}");

        stage.as_root("pgrep -f '[t]asktracker-lock' | xargs kill");
        let stays = async || {
            host.http_send(&lock, WriteMethod::Post, endpoint, "/", None, b"").await
                != Err(Error::ConnectionLost)
        };
        wait_until_async("a request is refused without the lock", async || !stays().await).await;
    });
}

#[test]
fn services_are_asked_through_the_ssh_connection() {
    services_are_asked("services", Engine::Distribution);
}

#[test]
fn services_are_asked_through_the_ssh_connection_with_a_newer_engine() {
    services_are_asked("services-new", Engine::Newer);
}
