//! Rollouts under the eyes of users: what they notice, and how long it takes beyond what cannot be had for less.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tasktracker_operator::engine;
use tasktracker_testbed::{Balancer, DemoHost, PostgresServer, SandboxHost, Seen, Users, titles};

use super::{
    PROJECT, Stage, run,
    table::{Rows, add, put},
    timed,
};

/// How long a release must have been healthy.
const SOAK: Duration = Duration::from_secs(1);
/// How long users are watched while nothing is rolled out.
const CALM: Duration = Duration::from_secs(10);
/// How long users are there before and after a rollout.
const AROUND: Duration = Duration::from_millis(500);
/// How long a rollout to several hosts may take before it counts as failed.
const PATIENCE: Duration = Duration::from_mins(5);
const POLICY: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 2s}}";

/// What is asked for: revision, and more about the backend.
type Wanted = (&'static str, &'static str);

/// One rollout after the other, by what changes. Without a wish, the edge's configuration is changed by hand: it is
/// reloaded.
const CHANGES: [(&str, Option<Wanted>); 6] = [
    ("image", Some(("r2", ""))),
    ("environment", Some(("r2", "env: {A: b}"))),
    ("three replicas", Some(("r2", "env: {A: b}, replicas: 3"))),
    ("one replica", Some(("r2", "env: {A: b}"))),
    ("edge reloaded", None),
    ("image and secret", Some(("r1", "secretEnv: {TOKEN: {secret: api, key: TOKEN}}"))),
];

/// On one host with `SQLite`, then on three with `PostgreSQL` behind a balancer.
pub(crate) fn rollout(stage: &mut Stage) -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    let rounds = std::env::var("TASKTRACKER_ROUNDS").map_or(Ok(1), |text| text.parse::<usize>())?;
    let mut rows = Rows::new();
    load(&stage.sandbox, &["backend-r2", "frontend-r2"])?;
    stage.clear()?;
    stage.write_value("api", "TOKEN", b"one")?;
    let one = one_host(stage, &mut rows, rounds)?;
    let (during, outside) = three_hosts(stage, &mut rows, rounds)?;
    let p99_over_outside = one.0 / one.1;
    let parts = rows["time_over_parts"].quantile(0.5);
    Ok((
        rows,
        BTreeMap::from([
            ("time_over_parts", parts),
            ("p99_over_outside", p99_over_outside),
            ("fleet_p99_over_outside", during / outside),
        ]),
    ))
}

fn load(host: &SandboxHost, images: &[&str]) -> Result<()> {
    let folder = std::env::var("TASKTRACKER_IMAGES").context("run `cargo xtask bench`")?;
    images.iter().try_for_each(|image| host.load_image(&Path::new(&folder).join(format!("{image}.tar"))))
}

/// What the users of one place noticed in all: latencies in milliseconds.
#[derive(Default)]
struct Noticed {
    during: Seen,
}

impl Noticed {
    /// Adds what was seen during one rollout; `api` still has every task.
    fn take(
        &mut self,
        rows: &mut Rows,
        keys: [&'static str; 2],
        what: &str,
        api: SocketAddr,
        seen: Seen,
    ) -> Result<()> {
        let there = titles(api)?;
        let lost = seen.created.difference(&there).count();
        if let Some(first) = seen.failures.first() {
            println!(
                "{what}: {} of {} requests failed, first: {first}",
                seen.failures.len(),
                seen.latencies.len()
            );
        }
        put(rows, keys[0], "count", count(seen.failures.len()));
        put(rows, keys[1], "count", count(lost));
        self.during.latencies.extend(seen.latencies);
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are few")]
fn count(number: usize) -> f64 {
    number as f64
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// What users see while nothing is rolled out.
fn calm(page: SocketAddr, name: &str) -> Result<Duration> {
    let users = Users::start(page, name);
    std::thread::sleep(CALM);
    let seen = users.stop();
    ensure!(seen.failures.is_empty(), "requests fail though nothing is rolled out: {:?}", seen.failures);
    Ok(seen.p99())
}

/// P99 during rollouts and outside, in milliseconds.
fn one_host(stage: &mut Stage, rows: &mut Rows, rounds: usize) -> Result<(f64, f64)> {
    let address = |port| SocketAddr::new(stage.sandbox.address(), port);
    let (page, api) = (address(3500), address(8000));
    stage.ask(&one_host_text(&stage.sandbox, ("r1", "")))?;
    stage.apply()?;
    let outside = milliseconds(calm(page, "calm")?);
    add(rows, "p99_outside_ms", outside);
    let mut noticed = Noticed::default();
    for round in 0..rounds {
        for (number, (what, wanted)) in CHANGES.iter().enumerate() {
            let users = Users::start(page, &format!("{round}-{number}"));
            std::thread::sleep(AROUND);
            match wanted {
                Some(wanted) => stage.ask(&one_host_text(&stage.sandbox, *wanted))?,
                None => drop(stage.on_host(&format!("echo '# mine' >>{PROJECT}/files/edge/Caddyfile"))?),
            }
            let began = engine::now();
            let (taken, is_rolled_out) = timed(|| stage.apply())?;
            ensure!(is_rolled_out == wanted.is_some(), "{what}: not what was asked for");
            std::thread::sleep(AROUND);
            noticed.take(rows, ["failed_requests", "lost_writes"], what, api, users.stop())?;
            if wanted.is_some() {
                let (healthy, drain) = parts(stage, began)?;
                let soak = milliseconds(SOAK);
                for (key, part) in
                    [("rollout_ms", taken), ("healthy_ms", healthy), ("soak_ms", soak), ("drain_ms", drain)]
                {
                    add(rows, key, part);
                }
                put(rows, "time_over_parts", "ratio", taken / (healthy + soak + drain));
            }
        }
    }
    let during = milliseconds(noticed.during.p99());
    add(rows, "p99_during_ms", during);
    Ok((during, outside))
}

fn one_host_text(host: &SandboxHost, (revision, backend): Wanted) -> String {
    let text = super::stack_text(host).replace("revision: r1", &format!("revision: {revision}"));
    let text = text.replace("tasktracker}", &format!("tasktracker, backend: {{{backend}}}}}"));
    text.lines().filter(|line| !line.starts_with("  policy")).chain([POLICY]).fold(String::new(), joined)
}

fn joined(text: String, line: &str) -> String {
    text + line + "\n"
}

/// From the first container that is made until the last of them is healthy, and from the first old one that is asked to
/// end until the last has, in milliseconds: by the daemon's own time stamps.
fn parts(stage: &Stage, since: jiff::Timestamp) -> Result<(f64, f64)> {
    let mut docker = stage.sandbox.docker_command();
    docker.args(["events", "--since", &since.to_string(), "--until", &engine::now().to_string()]);
    let text =
        run(docker.args(["--filter", "type=container", "--format", "{{.TimeNano}} {{.ID}} {{.Action}}"]))?;
    let events: Vec<(f64, &str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            Some((words.next()?.parse::<f64>().ok()? / 1e6, words.next()?, words.next()?))
        })
        .collect();
    let made: BTreeSet<&str> =
        events.iter().filter(|(_, _, action)| *action == "create").map(|(_, id, _)| *id).collect();
    let moments = |action: &'static str, is_new: bool| {
        let made = &made;
        let of = move |event: &&(f64, &str, &str)| event.2 == action && made.contains(event.1) == is_new;
        events.iter().filter(of).map(|(when, _, _)| *when)
    };
    let span = |from: Option<f64>, to: Option<f64>| Some(to? - from?);
    let healthy = span(moments("create", true).next(), moments("health_status: healthy", true).next_back());
    let drain = span(moments("kill", false).next(), moments("die", false).next_back());
    Ok((
        healthy.with_context(|| format!("nothing became healthy: {text}"))?,
        drain.with_context(|| format!("nothing ended: {text}"))?,
    ))
}

/// The operator as a program, at work.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<_> = self.0.wait();
    }
}

/// P99 during rollouts and outside, in milliseconds.
fn three_hosts(stage: &mut Stage, rows: &mut Rows, rounds: usize) -> Result<(f64, f64)> {
    stage.clear()?;
    let others: Vec<SandboxHost> =
        (2..=3).map(|number| super::host(&format!("bench-{number}"))).collect::<Result<_>>()?;
    for host in &others {
        load(host, &["backend-r2", "frontend-r2"])?;
        run(&mut host.command_as_deploy(super::CLEAR))?;
    }
    let hosts: Vec<&SandboxHost> = std::iter::once(&stage.sandbox).chain(&others).collect();
    let database = PostgresServer::start_at(stage.sandbox.gateway())?;
    stage.write_value("tasks", "url", database.database()?.as_bytes())?;
    let write = |wanted| fs::write(stage.file(), fleet_text(&hosts, wanted));
    write(("r1", ""))?;
    let mut operator = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
    operator.args(["run", "--listen", "127.0.0.1:0"]).args(stage.arguments()).stderr(Stdio::null());
    let _operator = Operator(operator.spawn()?);
    let settled = || {
        let started = Instant::now();
        let mut status = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
        status.arg("status").args(stage.arguments()).stdout(Stdio::null()).stderr(Stdio::null());
        while !status.status()?.success() {
            ensure!(started.elapsed() < PATIENCE, "not rolled out within {} s", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    };
    settled()?;
    let at = |host: &&SandboxHost| SocketAddr::new(host.address(), 3500);
    let balancer = Balancer::start(hosts.iter().map(at).collect())?;
    let api = SocketAddr::new(stage.sandbox.address(), 8000);
    std::thread::sleep(Duration::from_secs(1));
    let outside = milliseconds(calm(balancer.address(), "calm")?);
    add(rows, "fleet_p99_outside_ms", outside);
    let mut noticed = Noticed::default();
    for round in 0..rounds {
        for (number, (what, wanted)) in CHANGES.iter().enumerate() {
            let Some(wanted) = wanted else { continue };
            let users = Users::start(balancer.address(), &format!("fleet-{round}-{number}"));
            std::thread::sleep(AROUND);
            write(*wanted)?;
            add(rows, "fleet_rollout_ms", timed(settled)?.0);
            std::thread::sleep(AROUND);
            let keys = ["fleet_failed_requests", "fleet_lost_writes"];
            noticed.take(rows, keys, &format!("three hosts, {what}"), api, users.stop())?;
        }
    }
    let during = milliseconds(noticed.during.p99());
    add(rows, "fleet_p99_during_ms", during);
    Ok((during, outside))
}

fn fleet_text(hosts: &[&SandboxHost], wanted: Wanted) -> String {
    let host = |(at, host): (usize, &&SandboxHost)| {
        format!(
            "    - {{name: app-{}, address: {}, roles: [app], hostKeys: [\"{}\"]}}\n",
            at + 1,
            host.address(),
            host.host_key()
        )
    };
    let hosts_text: String = hosts.iter().enumerate().map(host).collect();
    let text = one_host_text(hosts[0], wanted);
    let text = text.replace("tasktracker,", "tasktracker, database: {postgres: {urlSecret: tasks}},");
    let text: String = text.lines().filter(|line| !line.contains("name: app-1")).fold(String::new(), joined);
    text.replace("  hosts:\n", &format!("  hosts:\n{hosts_text}")) + "  interval: 1s\n"
}
