//! `cargo xtask test`: everything that CI checks.

use std::{fs, time::Instant};

use anyhow::{Result, ensure};
use clap::Args;
use tasktracker_testbed::packages;

use crate::{
    demo, images,
    progress::{cargo, root, run as run_program, say, step},
};

/// Revisions whose images the tests roll out.
const REVISIONS: [&str; 2] = ["r1", "r2"];

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this; checks of style are left out then.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    step("installing what the tests need");
    packages::ensure_docker_host(&mut |line| say(line))?;
    packages::ensure_browser(&mut |line| say(line))?;
    packages::ensure_postgres(&mut |line| say(line))?;
    packages::ensure_registry(&mut |line| say(line))?;
    packages::ensure_busybox(&mut |line| say(line))?;
    packages::newer::compose(&mut |line| say(line))?;
    packages::ensure_control_plane(&mut |line| say(line))?;
    if options.filter.is_none() {
        check_style()?;
    }
    images::build_binaries()?;
    let host = images::any_host("images")?;
    images::build(host.as_ref(), &REVISIONS)?;
    drop(host);
    run_tests(options.filter.as_deref())?;
    if options.filter.is_none() {
        step("trying what the demo proposes");
        demo::run(&demo::Options { try_things: true, sandbox: true })?;
    }
    say(&format!("all checks passed in {} s", started.elapsed().as_secs()));
    Ok(())
}

fn check_style() -> Result<()> {
    step("checking style");
    run_program(cargo().args(["fmt", "--all", "--check"]))?;
    let clippy =
        ["clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"];
    run_program(cargo().args(clippy))?;
    // The fuzz targets are a workspace of their own, which only `soak` builds.
    let fuzz = ["tree", "--locked", "--quiet", "--depth", "0", "--manifest-path", "operator/fuzz/Cargo.toml"];
    run_program(cargo().args(fuzz))?;
    check_bans()
}

/// The crates that `deny.toml` bans are not in the lock file: what `cargo deny check bans` says, without the tool.
fn check_bans() -> Result<()> {
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    let deny = fs::read_to_string(root().join("deny.toml"))?;
    let banned: Vec<&str> = deny
        .lines()
        .skip_while(|line| !line.starts_with("deny = ["))
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.split("crate = \"").nth(1)?.split('"').next())
        .collect();
    ensure!(!banned.is_empty(), "deny.toml bans nothing: expected a list `deny = [` of crates");
    for name in banned {
        ensure!(
            !lock.contains(&format!("name = \"{name}\"")),
            "{name} is in Cargo.lock: deny.toml bans it, and says why"
        );
    }
    Ok(())
}

/// All tests, at most four at a time: each of those on real hosts starts one of its own, and waits most of the time.
fn run_tests(filter: Option<&str>) -> Result<()> {
    step("running tests");
    let mut command = cargo();
    command.args(["test", "--locked", "--workspace", "--all-features"]);
    command.env("TASKTRACKER_IMAGES", images::folder());
    command.env("INSTA_UPDATE", "no");
    command.args(filter);
    command.args(["--", "--test-threads=4"]);
    run_program(&mut command)
}
