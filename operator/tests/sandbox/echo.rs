//! The tests' own service, as its image runs it on a host.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tasktracker_testbed::{DemoHost, http};

use crate::stage::{Stage, wait_until};

#[test]
fn echo_runs_as_its_own_user_keeps_its_data_and_shows_its_secret() {
    let stage = Stage::without_images("echo");
    stage.load(&["echo-r1", "echo-r2"]);
    stage.as_root(
        "mkdir /etc/echo && echo hello >/etc/echo/config.txt
         printf canary >/etc/echo/password && chown 65532:65532 /etc/echo/password && chmod 0400 /etc/echo/password",
    );
    let address = SocketAddr::new(stage.host.address(), 7000);
    let get = |path: &str| -> (u16, Value) {
        let (status, body) = http(address, &format!("GET {path}")).unwrap_or_default();
        (status, serde_json::from_str(&body).unwrap_or_default())
    };
    let run = |revision: &str| {
        stage.on_host(&format!(
            "docker rm -f echo >/dev/null 2>&1
             docker run -d --name echo --read-only -p 7000:7000 -v echo-data:/data -v /etc/echo/config.txt:/etc/echo/config.txt \
                -v /etc/echo/password:/run/secrets/password registry.example.com/tasktracker/echo:{revision} >/dev/null"
        ));
        wait_until(format_args!("{revision} is ready"), || get("/ready").0 == 200);
        assert_eq!(get("/"), (200, json!({"revision": revision})));
    };
    run("r1");
    assert_eq!(get("/config").1["text"], "hello\n");
    let secret = get("/secret").1;
    assert_eq!(
        (&secret["uid"], &secret["gid"], &secret["mode"]),
        (&json!(65532), &json!(65532), &json!("0400"))
    );
    assert_eq!(http(address, "PUT /health\nred").unwrap().0, 204);
    stage.on_host("docker exec echo /echo healthcheck && docker exec echo /echo reload");
    let validated = stage.on_host("docker exec echo /echo validate /etc/echo/config.txt && echo valid");
    assert_eq!(validated, "valid\n");
    // The volume outlives the container.
    run("r2");
    assert_eq!(get("/health").1, json!({"status": "red"}));
}
