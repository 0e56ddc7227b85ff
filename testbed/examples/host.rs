//! Starts one sandbox host and keeps it until Enter, the end of stdin or Ctrl-C.
//!
//! `cargo run -p tasktracker-testbed --example host -- [NAME] [KEEP IMAGES AS] [newer|current]`

use anyhow::Result;
use std::io::{Write, stdin, stdout};
use std::time::Instant;
use tasktracker_testbed::{Compose, DemoHost, Engine, HostOptions, SandboxHost};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "host".to_owned());
    let mut options = HostOptions { reuse: arguments.next(), ..HostOptions::default() };
    options = match arguments.next().as_deref() {
        Some("newer") => HostOptions { engine: Engine::Newer, compose: Compose::Newer, ..options },
        Some("current") => HostOptions { engine: Engine::Current, compose: Compose::Current, ..options },
        _ => options,
    };
    let start = Instant::now();
    let host = SandboxHost::start(&name, &options)?;
    let mut out = stdout();
    writeln!(out, "started   {:.1} s", start.elapsed().as_secs_f64())?;
    writeln!(out, "address   {}:{}", host.address(), host.port())?;
    writeln!(out, "user      {}", host.user())?;
    writeln!(out, "identity  {}", host.identity_file().display())?;
    writeln!(out, "host key  {}", host.host_key())?;
    writeln!(out, "known     {}", host.known_hosts_file().display())?;
    writeln!(out, "docker    {:?}", host.docker_command())?;
    writeln!(out, "ssh       {:?}", host.ssh("docker info"))?;
    stdin().read_line(&mut String::new())?;
    Ok(())
}
