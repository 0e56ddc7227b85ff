//! How soon a difference is seen, and how soon it is put right.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tasktracker_operator::{engine, observe::Depth};
use tasktracker_testbed::DemoHost;

use super::{
    PROJECT, Stage, TRIES, run,
    table::{Rows, add},
};

/// From a difference made by hand to the operator's own word for it. `detect_container_ms` counts from the moment that
/// the daemon gives for what happened; `command_to_item_ms` from the start of the `docker` command, with all that the
/// client, the daemon and the container's own end take.
pub(crate) fn heal(stage: &Stage) -> Result<(Rows, BTreeMap<&'static str, f64>)> {
    let mut rows = Rows::new();
    stage.apply()?;
    stage.runtime.block_on(stage.host.watch())?;
    stage.check_now(Depth::Whole)?;
    let frontend = "tt-staging-app-frontend-1";
    let breaks = [
        ("detect_rm_ms", format!("rm -f {frontend}")),
        ("detect_stop_ms", format!("stop {frontend}")),
        ("detect_connect_ms", format!("network connect bridge {frontend}")),
    ];
    for _ in 0..TRIES {
        for (row, command) in &breaks {
            let began = engine::now();
            let milliseconds = detected(stage, || {
                let mut docker = stage.sandbox.docker_command();
                run(docker.args(command.split(' '))).map(drop)
            })?;
            add(&mut rows, "command_to_item_ms", milliseconds.0);
            let happened = happened(stage, began)?;
            let since = milliseconds.1.duration_since(happened).as_secs_f64() * 1_000.0;
            add(&mut rows, row, since);
            add(&mut rows, "detect_container_ms", since);
            stage.apply()?;
        }
        let caddyfile = format!("{PROJECT}/files/edge/Caddyfile");
        let content = stage.sandbox.read_file(&caddyfile)?;
        let changed = [&content[..], b"# mine\n"].concat();
        add(
            &mut rows,
            "detect_file_ms",
            detected(stage, || stage.sandbox.write_file(&caddyfile, &changed))?.0,
        );
        stage.sandbox.write_file(&caddyfile, &content)?;
        stage.check_now(Depth::Whole)?;
    }
    restored(stage, &mut rows)?;
    Ok((rows, BTreeMap::new()))
}

/// From `docker rm -f` until the container runs again as wanted, and until it is healthy, with `run` at work: by the
/// daemon's own time stamps.
fn restored(stage: &Stage, rows: &mut Rows) -> Result<()> {
    let mut operator = Command::new(env!("CARGO_BIN_EXE_tasktracker-operator"));
    operator.args(["run", "--listen", "127.0.0.1:0"]).args(stage.arguments());
    operator.stderr(std::process::Stdio::null());
    let mut operator = operator.spawn()?;
    std::thread::sleep(Duration::from_secs(3));
    let result = (0..TRIES).try_for_each(|_| {
        let began = engine::now();
        run(stage.sandbox.docker_command().args(["rm", "-f", "tt-staging-app-frontend-1"]))?;
        std::thread::sleep(Duration::from_secs(5));
        let gone = moment(stage, began, "destroy")?;
        for (row, event) in [("restored_ms", "start"), ("healthy_ms", "health_status: healthy")] {
            let milliseconds = moment(stage, began, event)?.duration_since(gone).as_secs_f64() * 1_000.0;
            add(rows, row, milliseconds);
        }
        anyhow::Ok(())
    });
    operator.kill()?;
    operator.wait()?;
    result
}

/// When something happened first to the frontend since a moment, as the daemon tells.
fn moment(stage: &Stage, since: Timestamp, event: &str) -> Result<Timestamp> {
    let mut docker = stage.sandbox.docker_command();
    docker.args(["events", "--since", &since.to_string(), "--until", &engine::now().to_string()]);
    docker.args(["--filter", "container=tt-staging-app-frontend-1", "--filter", "type=container"]);
    let text = run(docker.args(["--format", "{{.TimeNano}} {{.Action}}"]))?;
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(_, action)| *action == event);
    let (nanoseconds, _) = found.with_context(|| format!("nothing of {event} in: {text}"))?;
    Ok(Timestamp::from_nanosecond(nanoseconds.parse()?)?)
}

/// Breaks something on a quiet host and looks whenever something wakes it, as `run` does: milliseconds from the moment
/// before the hand moved to the item, and when that was.
fn detected(stage: &Stage, by_hand: impl FnOnce() -> Result<()> + Send) -> Result<(f64, Timestamp)> {
    // What was done before is heard out.
    std::thread::sleep(Duration::from_millis(1_300));
    ensure!(stage.check_now(Depth::Whole)?.drift.is_empty(), "something differs before it was broken");
    let mut hints = stage.host.hints();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let hand = scope.spawn(by_hand);
        let seen = stage.runtime.block_on(async {
            loop {
                tokio::time::timeout(Duration::from_secs(10), hints.changed())
                    .await
                    .context("nothing woke")??;
                if !stage.check(&stage.host, Depth::Woken).await?.drift.is_empty() {
                    return anyhow::Ok((started.elapsed(), engine::now()));
                }
            }
        })?;
        hand.join().map_err(|_| anyhow::anyhow!("the hand slipped"))??;
        Ok((seen.0.as_secs_f64() * 1_000.0, seen.1))
    })
}

/// When a container ended or joined a network, by the daemon's own time stamp; the host here has this machine's clock.
fn happened(stage: &Stage, since: Timestamp) -> Result<Timestamp> {
    let mut docker = stage.sandbox.docker_command();
    docker.args(["events", "--since", &since.to_string(), "--until", &engine::now().to_string()]);
    docker.args(["--filter", "event=die", "--filter", "event=connect", "--format", "{{.TimeNano}}"]);
    let text = run(&mut docker)?;
    let first = text.lines().next().context("the daemon tells of nothing that happened")?;
    Ok(Timestamp::from_nanosecond(first.trim().parse()?)?)
}
