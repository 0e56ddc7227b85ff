//! What stops people at their first try: shells, keys, sessions, paths and proxies as hosts really have them.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use tasktracker_testbed::DemoHost;

use crate::stage::{Stage, phase, succeeded, wait_until, wait_until_listening};

const SOAK: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 1s}}\n";
/// Port of another sshd on the host.
const OTHER_SSHD: u16 = 2222;

/// `status` of the one stack: exit code, reason and message of its failure.
fn failure(stage: &Stage) -> (i32, String, String) {
    let (code, status) = stage.json(&["status"]);
    let text = |key: &str| status[0]["report"]["failure"][key].as_str().unwrap_or_default().to_owned();
    (code, text("reason"), text("message"))
}

/// Starts another sshd, with options of its own, in place of the one that was started so before.
fn other_sshd(stage: &Stage, options: &[&str]) {
    stage.as_root("[ ! -f /run/sshd2.pid ] || kill $(cat /run/sshd2.pid)");
    let options: String = options.iter().map(|option| format!(" -o {option}")).collect();
    stage.as_root(&format!(
        "/usr/sbin/sshd -p {OTHER_SSHD} -o PidFile=/run/sshd2.pid -E /var/log/sshd2.log{options}"
    ));
    wait_until_listening(&stage.host, OTHER_SSHD);
}

/// Gives the user a login shell.
fn set_shell(stage: &Stage, shell: &str) {
    stage.as_root(&format!("sed -i 's#^\\(deploy:.*:\\)[^:]*$#\\1{shell}#' /etc/passwd"));
}

fn takes_away(stage: &Stage) {
    stage.as_root("docker ps -aq | xargs -r docker rm -fv; docker volume ls -q | xargs -r docker volume rm -f; docker network ls -q --filter type=custom | xargs -r docker network rm; find /opt/tasktracker -mindepth 1 -delete");
    let _: std::io::Result<()> = fs::remove_dir_all(stage.path("state"));
}

#[test]
fn shells_keys_and_sessions_of_real_hosts_let_the_operator_in_or_are_told() {
    let stage = Stage::new("first-ssh");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    let bashrc = "/home/deploy/.bashrc";

    phase("start-up files that print");
    stage.as_root(&format!(
        "printf 'echo Welcome to app-1\\necho noise >&2\\nprintf \"no end of a line\"\\n' >{bashrc}"
    ));
    stage.apply();
    stage.on_host("docker stop tt-staging-app-frontend-1");
    stage.apply();
    assert_eq!(stage.json(&["status"]).0, 0);
    stage.as_root(&format!("rm {bashrc}"));

    phase("other login shells");
    set_shell(&stage, "/bin/tcsh");
    stage.as_root("printf 'echo Welcome\\nset prompt = \"%%\"\\n' >/home/deploy/.cshrc");
    stage.on_host("docker rm -f tt-staging-app-frontend-1");
    stage.apply();
    assert_eq!(stage.json(&["status"]).0, 0);
    stage.as_root("rm /home/deploy/.cshrc");
    for shell in ["/bin/false", "/bin/true", "/usr/sbin/nologin"] {
        set_shell(&stage, shell);
        let (code, reason, message) = failure(&stage);
        assert_eq!((code, reason.as_str()), (1, "ShellUnusable"), "{shell}: {message}");
        assert!(message.contains("login shell: expected") && message.contains("exit status"), "{message}");
    }
    set_shell(&stage, "/bin/bash");
    stage.as_root(&format!("echo exit 0 >{bashrc}"));
    let (_, reason, message) = failure(&stage);
    assert_eq!(reason, "ShellUnusable", "{message}");
    assert!(message.contains("`exit` in a start-up file"), "{message}");
    stage.as_root(&format!("rm {bashrc}"));

    phase("keys in PEM, and one that is missing among several");
    for (form, arguments) in [
        ("PKCS#1", ["-t", "rsa", "-m", "PEM"]),
        ("PKCS#8", ["-t", "ecdsa", "-m", "PKCS8"]),
        ("SEC1", ["-t", "ecdsa", "-m", "PEM"]),
    ] {
        let path = stage.path("pem");
        for file in [path.clone(), path.with_extension("pub")] {
            let _: std::io::Result<()> = fs::remove_file(file);
        }
        succeeded(Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).args(arguments));
        let public = fs::read_to_string(path.with_extension("pub")).unwrap();
        stage.as_root(&format!("echo '{}' >>/home/deploy/.ssh/authorized_keys", public.trim()));
        stage.write_secret("pem", &format!("{}\n\n", fs::read_to_string(&path).unwrap()));
        let text = stage.stack("staging", "r1", SOAK);
        stage.write_stack("staging.yaml", &text.replace("[key]", "[missing, pem]"));
        assert_eq!(stage.json(&["status"]).0, 0, "{form}: {:?}", failure(&stage));
    }
    stage.write_secret(
        "pem",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA me",
    );
    let (_, reason, message) = failure(&stage);
    assert!(reason == "SecretMissing" && message.contains("missing"), "{message}");

    phase("secrets as Kubernetes mounts them");
    let key = stage.path("secrets/key/ssh-privatekey");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o444)).unwrap();
    let (_, reason, message) = failure(&stage);
    assert!(reason == "SecretMissing" && message.contains("--secrets-mounted"), "{message}");
    assert_eq!(stage.command(&["status", "--secrets-mounted"]).status.code(), Some(0));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    phase("an sshd that opens few sessions");
    let here = format!("port: {}", stage.host.port());
    let text = stage.stack("staging", "r1", SOAK).replace(&here, &format!("port: {OTHER_SSHD}"));
    for sessions in 1..4 {
        takes_away(&stage);
        other_sshd(&stage, &[&format!("MaxSessions={sessions}")]);
        stage.write_stack("staging.yaml", &text);
        stage.apply();
        let operator = stage.start_operator();
        operator.wait_until_ready("staging");
        stage.on_host("docker stop tt-staging-app-frontend-1");
        wait_until(format_args!("it is healed with MaxSessions {sessions}: {}", operator.said()), || {
            stage.on_host("docker inspect --format '{{.State.Running}}' tt-staging-app-frontend-1").trim()
                == "true"
        });
        operator.wait_until_ready("staging");
        operator.stop();
    }
    other_sshd(&stage, &["AllowStreamLocalForwarding=no"]);
    let (_, reason, message) = failure(&stage);
    assert!(reason == "DockerUnavailable" && message.contains("AllowStreamLocalForwarding yes"), "{message}");
    assert!(!message.contains("install Docker"), "{message}");
}

#[test]
fn paths_sockets_and_proxies_of_real_hosts_are_followed_or_told() {
    let stage = Stage::new("first-paths");
    let text = stage.stack("staging", "r1", SOAK);
    stage.write_stack("staging.yaml", &text);

    phase("proxies in the client's configuration");
    let proxies = r#"{"proxies":{"default":{"httpProxy":"http://127.0.0.1:3128","httpsProxy":"http://127.0.0.1:3128","noProxy":"localhost"}}}"#;
    stage.as_root(&format!(
        "install -d -o deploy /home/deploy/.docker; printf '%s' '{proxies}' >/home/deploy/.docker/config.json"
    ));
    stage.apply();
    let environment = "docker ps -q | xargs docker inspect --format '{{.Config.Env}}'";
    assert!(!stage.on_host(environment).to_lowercase().contains("_proxy"), "{}", stage.on_host(environment));
    stage.on_host("docker rm -f tt-staging-app-backend-1 tt-staging-app-edge-1");
    stage.apply();
    assert_eq!(stage.json(&["status"]).0, 0);

    phase("a link of root's on the way to the folder");
    takes_away(&stage);
    stage.as_root("install -d -o deploy /srv/real/tasktracker; ln -sfn /srv/real /srv/data");
    let linked = text.replace("roles: [app]", "roles: [app], directory: /srv/data/tasktracker");
    stage.write_stack("staging.yaml", &linked);
    stage.apply();
    let (code, status) = stage.json(&["status"]);
    assert_eq!(code, 0, "{status:#}");
    stage.as_root(
        "rm /srv/data; install -d -o deploy /srv/open; chmod 777 /srv/open; ln -s /srv/real /srv/open/data",
    );
    let others = text.replace("roles: [app]", "roles: [app], directory: /srv/open/data/tasktracker");
    stage.write_stack("staging.yaml", &others);
    let (_, reason, message) = failure(&stage);
    assert!(reason == "FolderNotWritable" && message.contains("others than root"), "{message}");
    stage.as_root("rm -rf /srv/open /srv/real");
    takes_away(&stage);

    phase("a daemon that listens elsewhere");
    stage.write_stack("staging.yaml", &text);
    stage.as_root("install -d -o deploy /run/user/1500; mv /run/docker.sock /run/user/1500/docker.sock");
    stage.as_root("echo 'export DOCKER_HOST=unix:///run/user/1500/docker.sock' >/home/deploy/.bashrc");
    let (_, reason, message) = failure(&stage);
    assert!(
        reason == "DockerUnavailable" && message.contains("found it at unix:///run/user/1500/docker.sock"),
        "{message}"
    );
    assert!(message.contains("ln -s /run/user/1500/docker.sock /var/run/docker.sock"), "{message}");
    stage.as_root("ln -s /run/user/1500/docker.sock /run/docker.sock");
    stage.apply();
    stage.as_root("rm /run/docker.sock /home/deploy/.bashrc; mv /run/user/1500/docker.sock /run/docker.sock");
}
