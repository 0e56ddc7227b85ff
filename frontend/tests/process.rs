//! The binary as a container runs it.

#[cfg(test)]
mod process {
    use std::{
        net::TcpListener,
        process::{Command, Stdio},
    };

    use tasktracker_testbed::wait::wait_until;

    fn frontend() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frontend"));
        command.env_clear();
        command
    }

    #[test]
    fn it_serves_is_healthy_and_ends_on_sigterm() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let healthy =
            || frontend().arg("healthcheck").env("LISTEN", &address).output().unwrap().status.success();
        assert!(!healthy());
        let mut serving = frontend();
        // Compose hands on variables that nobody set as empty ones.
        serving.env("LISTEN", &address).env("BACKEND_URL", "").stdout(Stdio::null());
        let mut service = serving.spawn().unwrap();
        wait_until("it is healthy", healthy);
        Command::new("kill").arg(service.id().to_string()).status().unwrap();
        assert!(service.wait().unwrap().success());
    }

    #[test]
    fn a_wrong_backend_url_is_told() {
        let output = frontend().env("BACKEND_URL", "https://me:secret@api.example").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("BACKEND_URL") && told.contains("expected: nothing, or an address"), "{told}");
    }

    #[test]
    fn the_version_is_printed() {
        for flag in ["-v", "--version"] {
            let output = frontend().arg(flag).output().unwrap();
            assert_eq!(output.stdout, concat!("frontend ", env!("CARGO_PKG_VERSION"), "\n").as_bytes());
        }
    }
}
