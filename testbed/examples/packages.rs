//! Installs what sandbox hosts need; with `newer`, also prepares the newer Docker Engine and Compose.

use anyhow::Result;
use std::io::{Write, stdout};
use std::time::Instant;
use tasktracker_testbed::packages;

fn main() -> Result<()> {
    let mut say = |line: &str| {
        let _ = writeln!(stdout(), "{line}");
    };
    let start = Instant::now();
    packages::ensure_docker_host(&mut say)?;
    say(&format!("{:?} for a Docker host", start.elapsed()));
    if std::env::args().nth(1).as_deref() == Some("newer") {
        let (engine, compose) = (packages::newer::engine(&mut say)?, packages::newer::compose(&mut say)?);
        say(&format!("{}\n{}", engine.display(), compose.display()));
    }
    Ok(())
}
