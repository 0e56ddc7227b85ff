//! `cargo xtask test`: everything that CI checks.

use std::{env, fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tasktracker_testbed::packages;

use crate::{
    background::{Background, Job},
    compiler::{self, Executable},
    demo, images,
    progress::{cargo, forget_package, root, run as run_program, say, target},
    runner::{Process, Runner},
    times::{self, Times},
};

/// Revisions whose images the tests roll out.
const REVISIONS: [&str; 2] = ["r1", "r2"];
/// The background jobs.
const PACKAGES: &str = "packages";
const COMPOSE: &str = "Compose, with Go";
const PROMETHEUS: &str = "Prometheus, with Go";
const LOGGING: &str = "Elasticsearch, with Maven, and Fluent Bit, with CMake";
const CONTROL_PLANE: &str = "Kubernetes control plane, with Go";
const CLIPPY: &str = "clippy";
const DOCUMENTATION: &str = "examples in the documentation";
/// What tests need of that, by a part of their names, the first that fits: whatever is not there yet, a test would build itself.
const NEEDS: [(&str, &str); 4] = [
    ("kubernetes::", CONTROL_PLANE),
    ("logging::", LOGGING),
    ("monitoring::", PROMETHEUS),
    ("newer_engine", COMPOSE),
];
/// Tests on three hosts, by a part of their names: two of them at a time would wait for the machine.
const HEAVY: [&str; 2] = ["fleet::", "components::"];
/// How long one test may take: one that hangs ends, on whatever machine.
const LIMIT: Duration = Duration::from_mins(20);

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this; lints and the demo are left out then.
    filter: Option<String>,
    /// How many tests run at a time.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Test the images that are released, which takes ten minutes to build.
    #[arg(long)]
    release_images: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let times = Times::new("test");
    let result = check_all(options, &times);
    let reported = times.report();
    result.and(reported)?;
    say("all checks passed");
    Ok(())
}

fn check_all(options: &Options, times: &Times) -> Result<()> {
    let mut needs = Background::start(times, needs()).finish_always(PACKAGES);
    if options.filter.is_none() {
        times.step("format, banned crates", |_| check_sources())?;
    }
    let executables = times.step("building tests", |compiled| {
        let built = compiler::build(cargo().args(["test", "--no-run"]).args(WORKSPACE))?;
        *compiled = built.compiled();
        built.executables()
    })?;
    needs.wait(PACKAGES)?;
    // They need the processor while the tests wait most of the time.
    let mut lints = Background::start(times, if options.filter.is_none() { lints() } else { Vec::new() });
    times.step("images", |_| build_images(options.release_images))?;
    let processes = processes(&executables, options.filter.as_deref())?;
    times.step("tests", |_| run_tests(options, processes, &mut needs, &mut lints))?;
    lints.wait_all()
}

/// All of the workspace with all features, so that everything shares what is compiled.
const WORKSPACE: [&str; 3] = ["--locked", "--workspace", "--all-features"];

/// What tests need besides what Cargo builds.
fn needs() -> Vec<Job> {
    vec![
        Job::new(PACKAGES, packages::ensure_for_tests),
        Job::new(COMPOSE, |say| packages::newer::compose(say).map(drop)),
        Job::new(PROMETHEUS, |say| packages::monitoring::prometheus(say).map(drop)),
        Job::new(LOGGING, packages::logging::ensure),
        Job::new(CONTROL_PLANE, packages::ensure_control_plane),
    ]
}

fn lints() -> Vec<Job> {
    let clippy = |_: &mut dyn FnMut(&str)| {
        let mut arguments = vec!["clippy", "--quiet", "--all-targets"];
        arguments.extend(WORKSPACE);
        arguments.extend(["--", "--deny", "warnings"]);
        in_background(&arguments)
    };
    let documentation = |_: &mut dyn FnMut(&str)| {
        let mut arguments = vec!["test", "--quiet", "--doc"];
        arguments.extend(WORKSPACE);
        in_background(&arguments)
    };
    vec![Job::new(CLIPPY, clippy), Job::new(DOCUMENTATION, documentation)]
}

/// Runs Cargo beside the tests, which come first on the processor. It ends with us.
fn in_background(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", "nice", "-n", "10"]);
    command.arg(cargo().get_program()).args(arguments).current_dir(root());
    forget_package(&mut command);
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    Ok(())
}

fn check_sources() -> Result<()> {
    run_program(cargo().args(["fmt", "--all", "--check"]))?;
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

fn build_images(release: bool) -> Result<()> {
    let programs = if release { images::Programs::Release } else { images::Programs::Development };
    if release {
        programs.build()?;
    }
    let host = images::any_host("images")?;
    let revisions = [REVISIONS, demo::REVISIONS].concat();
    images::build(host.as_ref(), programs, &revisions).map(drop)
}

/// One process for each test on hosts, and one for all tests of any other executable; then the demo.
fn processes(executables: &[Executable], filter: Option<&str>) -> Result<Vec<Process>> {
    let mut processes = Vec::new();
    for executable in executables {
        let tests = executable.tests(filter.unwrap_or_default())?;
        if executable.on_hosts {
            processes.extend(tests.into_iter().map(|test| test_on_hosts(executable, &test)));
        } else if !tests.is_empty() {
            let mut command = executable.command();
            command.args(filter).env("INSTA_UPDATE", "no");
            processes.push(Process { name: executable.name.clone(), command, needs: None, is_heavy: false });
        }
    }
    if filter.is_none() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(env::current_exe()?);
        command.args(["demo", "--try", "--sandbox", "--built"]);
        processes.push(Process { name: "demo".to_owned(), command, needs: None, is_heavy: false });
    }
    Ok(processes)
}

fn test_on_hosts(executable: &Executable, test: &str) -> Process {
    let mut command = executable.command();
    command.args([test, "--exact", "--nocapture"]);
    // A failure ends with what the operator said last.
    command.env("RUST_BACKTRACE", "0");
    command.env("TASKTRACKER_IMAGES", images::folder()).env("INSTA_UPDATE", "no");
    let needs = NEEDS.iter().find(|(part, _)| test.contains(part)).map(|(_, job)| *job);
    let is_heavy = HEAVY.iter().any(|part| test.contains(part));
    Process { name: format!("{} {test}", executable.name), command, needs, is_heavy }
}

fn run_tests(
    options: &Options,
    processes: Vec<Process>,
    needs: &mut Background,
    lints: &mut Background,
) -> Result<()> {
    ensure!(!processes.is_empty(), "no test has such a name");
    let record = if options.filter.is_none() { "tests" } else { "filtered-tests" };
    let mut runner = Runner {
        slots: options.jobs,
        limit: LIMIT,
        logs: target().join("test-logs"),
        record: times::file(record),
        is_done: &mut |job| {
            // Asked for the sake of failures.
            lints.is_done(CLIPPY)?;
            needs.is_done(job)
        },
    };
    runner.run(processes)
}
