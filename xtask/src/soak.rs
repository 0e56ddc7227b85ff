//! `cargo xtask soak NAME`: what takes too long for every run of the tests.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tasktracker_testbed::packages;

use crate::{
    images,
    progress::{cargo, root, run as run_program, say, step, target},
};

/// Options of `cargo xtask soak`.
#[derive(Args)]
pub(crate) struct Options {
    /// quiet (checks of hosts that nobody touches) or fuzz (any bytes for whatever is read).
    name: String,
    /// How long each fuzz target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.name.as_str() {
        "quiet" => quiet(),
        "fuzz" => fuzz(options.seconds),
        other => bail!("expected quiet or fuzz, found {other}"),
    }
}

/// The scenarios that are counted in thousands, beside the tests on real hosts that they belong to.
fn quiet() -> Result<()> {
    packages::ensure_docker_host(&mut |line| say(line))?;
    images::build_binaries()?;
    let host = images::any_host("images")?;
    images::build(host.as_ref(), &["r1", "r2"])?;
    drop(host);
    step("checking hosts that nobody touches");
    let mut command = cargo();
    command.args([
        "test",
        "--locked",
        "--package",
        "tasktracker-operator",
        "--features",
        "sandbox",
        "--test",
        "sandbox",
    ]);
    command.args(["--", "soak_", "--ignored", "--nocapture", "--test-threads=2"]);
    run_program(command.env("TASKTRACKER_IMAGES", images::folder()))
}

/// Everything that is read from hosts and from people.
const TARGETS: [&str; 5] = ["replies", "events", "helper", "ledger", "stack_file"];

/// Coverage for libFuzzer by flags of the stable compiler.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

fn fuzz(seconds: u32) -> Result<()> {
    step("building the fuzz targets");
    let build = target().join("fuzz");
    let mut command = cargo();
    command.current_dir(root().join("operator/fuzz"));
    command.args(["build", "--locked", "--release", "--target", images::TRIPLE]);
    command.env("CARGO_TARGET_DIR", &build).env("RUSTFLAGS", COVERAGE);
    run_program(&mut command)?;
    let mut rows = Vec::new();
    for name in TARGETS {
        step(&format!("fuzzing {name} for {seconds} s"));
        rows.push(fuzz_one(&build, name, seconds)?);
    }
    say(&format!("{:<12} {:>12} {:>10} {:>10}", "target", "executions", "coverage", "peak MB"));
    for row in &rows {
        say(row);
    }
    Ok(())
}

fn fuzz_one(build: &std::path::Path, name: &str, seconds: u32) -> Result<String> {
    let corpus = build.join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    let mut command = Command::new(build.join(images::TRIPLE).join("release").join(name));
    command.arg(&corpus).args(["-max_len=65536", "-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", build.display()));
    if name == "stack_file" {
        command.arg(root().join("examples"));
    }
    let output = command.output().with_context(|| format!("starting the target {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let end: Vec<&str> = said.lines().rev().take(25).collect();
    ensure!(
        output.status.success(),
        "{name} found something:\n{}",
        end.into_iter().rev().collect::<Vec<_>>().join("\n")
    );
    let stat = |key: &str| {
        let line = said.lines().rev().find_map(|line| line.split_once(key));
        line.and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?").to_owned()
    };
    let coverage = stat("cov: ");
    ensure!(
        coverage.parse::<u32>().is_ok_and(|edges| edges > 100),
        "{name}: no coverage was measured: {coverage}"
    );
    Ok(format!(
        "{name:<12} {:>12} {coverage:>10} {:>10}",
        stat("number_of_executed_units:"),
        stat("peak_rss_mb:")
    ))
}
