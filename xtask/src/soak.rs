//! `cargo xtask soak NAME`: what has to hold for long, not only once.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use tasktracker_testbed::packages;

use crate::{
    images,
    progress::{cargo, root, run as run_program, say, step, target},
};

/// Options of `cargo xtask soak`.
#[derive(Args)]
pub(crate) struct Options {
    /// What is run.
    name: Name,
    /// How long each fuzz target runs, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Thousands of checks of hosts that nobody touches, with both supported engines.
    Quiet,
    /// What is another way with today's engine, which takes some minutes to build at first.
    Engine,
    /// Hundreds of repairs and rollouts that are cut at random: operator, connection, network, Docker daemon.
    Crash,
    /// Twenty stacks of a real API server that nobody touches, for ten minutes; an API server that is away for minutes;
    /// operators whose clocks are hours apart.
    Kubernetes,
    /// Ways to break an app, and whom each calls; two Alertmanagers of which one is away; fifty changes of Prometheus'
    /// configuration under load, and ten that it must refuse; every alert that is another one.
    Monitoring,
    /// Lines of every service on their way to Elasticsearch, by a real Fluent Bit, which takes some minutes to build at first.
    Logging,
    /// Any bytes as whatever the operator reads: the targets in operator/fuzz.
    Fuzz,
}

/// The fuzz targets, as operator/fuzz/Cargo.toml names them.
const FUZZ_TARGETS: [&str; 6] = ["archive", "replies", "events", "helper", "ledger", "stack_file"];
/// What libFuzzer needs of the compiler: counters and a table of places, and every check that a debug build has.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing -Cdebug-assertions";

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.name {
        Name::Quiet => scenarios("checking hosts that nobody touches", "quiet::soak_", 2),
        Name::Engine => scenarios("today's engine", "engine::soak_", 2),
        Name::Crash => scenarios("cutting applies at random", "crash::soak_", 2),
        Name::Kubernetes => {
            packages::ensure_control_plane(&mut |line| say(line))?;
            scenarios("following stacks of an API server", "kubernetes", 1)
        }
        Name::Monitoring => {
            packages::monitoring::prometheus(&mut |line| say(line))?;
            scenarios("what monitoring tells, and takes up", "monitoring::", 1)
        }
        Name::Logging => {
            packages::logging::ensure(&mut |line| say(line))?;
            scenarios("what reaches the log store", "logging::soak_", 1)
        }
        Name::Fuzz => fuzz(options.seconds),
    }
}

/// The scenarios that are counted in thousands stand beside the tests on real hosts that they belong to.
fn scenarios(what: &str, filter: &str, threads: u32) -> Result<()> {
    packages::ensure_docker_host(&mut |line| say(line))?;
    step("building the tests");
    // What `cargo xtask test` builds; one test target alone would have other features, and thus be built once more.
    let tests = ["test", "--locked", "--workspace", "--all-features"];
    run_program(cargo().args(tests).arg("--no-run"))?;
    step("building images");
    let host = images::any_host("images")?;
    images::build(host.as_ref(), images::Programs::Development, &["r1", "r2"])?;
    drop(host);
    step(what);
    let mut command = cargo();
    command.args(tests).args(["--test", "sandbox", "--", filter, "--ignored", "--nocapture"]);
    command.arg(format!("--test-threads={threads}"));
    run_program(command.env("TASKTRACKER_IMAGES", images::folder()))
}

fn fuzz(seconds: u32) -> Result<()> {
    step("fuzz targets");
    let crate_folder = root().join("operator/fuzz");
    let built = target().join("fuzz");
    let mut command = cargo();
    // With a target given, the flags spare what runs while building.
    command.current_dir(&crate_folder).args(["build", "--release", "--locked", "--target", images::TRIPLE]);
    run_program(command.env("RUSTFLAGS", INSTRUMENTED).env("CARGO_TARGET_DIR", &built))?;
    let programs = built.join(images::TRIPLE).join("release");
    let mut crashed = Vec::new();
    say(&format!("{:<12}{:>14}{:>10}{:>10}", "target", "executions", "coverage", "features"));
    for name in FUZZ_TARGETS {
        let run =
            Run { name, program: programs.join(name), seeds: crate_folder.join("seeds").join(name), seconds };
        let outcome = run.run(&built.join("runs").join(name))?;
        let Outcome { executions, coverage, features, log } = outcome;
        say(&format!("{name:<12}{executions:>14}{coverage:>10}{features:>10}"));
        if let Some(log) = log {
            crashed.push(format!("{name}, see {}", log.display()));
        }
    }
    ensure!(crashed.is_empty(), "crashed: {}", crashed.join("; "));
    Ok(())
}

/// One target, run for some time.
struct Run {
    name: &'static str,
    program: PathBuf,
    seeds: PathBuf,
    seconds: u32,
}

/// What a run came to.
struct Outcome {
    executions: u64,
    coverage: u64,
    features: u64,
    /// Where the story of a crash is.
    log: Option<PathBuf>,
}

impl Run {
    /// Runs the target; what it finds stays in `folder`, and the next run begins with it.
    fn run(&self, folder: &Path) -> Result<Outcome> {
        let corpus = folder.join("corpus");
        fs::create_dir_all(&corpus)?;
        let log = folder.join("log");
        let status = Command::new(&self.program)
            .arg(format!("-max_total_time={}", self.seconds))
            .args(["-max_len=65536", "-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", folder.display()))
            .args([&corpus, &self.seeds])
            .stderr(File::create(&log)?)
            .status()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let begun = last(&text, "cov: ", |line| line.contains("INITED"));
        let coverage = last(&text, "cov: ", |_| true).unwrap_or_default();
        if status.success() && begun.is_none_or(|begun| begun == 0) {
            bail!("{}: built without coverage, see {}", self.name, log.display());
        }
        Ok(Outcome {
            executions: last(&text, "stat::number_of_executed_units: ", |_| true).unwrap_or_default(),
            coverage,
            features: last(&text, "ft: ", |_| true).unwrap_or_default(),
            log: (!status.success()).then_some(log),
        })
    }
}

/// The number behind the last occurrence of a word in the lines that are wanted.
fn last(text: &str, word: &str, wanted: impl Fn(&str) -> bool) -> Option<u64> {
    let line = text.lines().rev().find(|line| line.contains(word) && wanted(line))?;
    line.split_once(word)?.1.split_whitespace().next()?.parse().ok()
}
