//! `cargo xtask bench NAME`: the benchmarks live with the operator, this builds what they need.

use anyhow::{Result, ensure};
use tasktracker_testbed::packages;

use crate::{
    images,
    progress::{cargo, run as run_program, say, step, target},
};

const NAMES: [&str; 7] = ["noop", "heal", "deploy", "rollout", "kubernetes", "monitoring", "storm"];

pub(crate) fn run(name: &str) -> Result<()> {
    ensure!(NAMES.contains(&name), "expected one of {}, found {name}", NAMES.join(", "));
    packages::ensure_docker_host(&mut |line| say(line))?;
    packages::ensure_postgres(&mut |line| say(line))?;
    if name == "kubernetes" {
        packages::ensure_control_plane(&mut |line| say(line))?;
    }
    step("building static programs");
    images::Programs::Release.build()?;
    step("building images");
    let host = images::any_host("images")?;
    images::build(host.as_ref(), images::Programs::Release, &["r1", "r2"])?;
    drop(host);
    let mut command = cargo();
    command.args(["bench", "--locked", "--profile", "dist", "--target", images::TRIPLE]);
    command.args([
        "--package",
        "tasktracker-operator",
        "--features",
        "sandbox",
        "--bench",
        "hosts",
        "--",
        name,
    ]);
    command.env("RUSTFLAGS", images::STATIC);
    command.env("TASKTRACKER_IMAGES", images::folder());
    command.env("TASKTRACKER_BENCH", target().join("bench"));
    run_program(&mut command)
}
