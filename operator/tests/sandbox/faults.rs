//! What can go wrong with a host while something is repaired or rolled out: it is told, and goes on when the cause is gone.

use serde_json::Value;
use tasktracker_testbed::{HostOptions, Users};

use crate::stage::{Stage, wait_until};

const SOAK: &str = "  policy: {rollout: {soak: 1s, drainTimeout: 1s}}\n";
const EDGE: &str = "/opt/tasktracker/staging/app/files/edge/Caddyfile";
/// Size of the file system of the operator's folder.
const DISK_MIB: u32 = 32;

fn ledger(stage: &Stage) -> Value {
    serde_json::from_str(&stage.on_host("cat /opt/tasktracker/staging/app/ledger.json")).unwrap()
}

/// Breaks a file while something keeps it from being repaired, waits until that is told, and takes the cause away.
fn goes_on(stage: &Stage, before: &str, cause: &str, end: &str, told: &[&str]) {
    let operator = stage.start_operator();
    operator.wait_for_checks("staging", "app-1", 1);
    stage.as_root(&format!("echo '# mine' >>{EDGE}; {cause}"));
    wait_until(format_args!("it is told: {told:?}"), || {
        let log = operator.log();
        told.iter().all(|words| log.contains(words))
    });
    let folder = stage.on_host(&format!("ls -A /opt/tasktracker/staging/app; grep -c . {EDGE}"));
    assert!(!folder.contains(".staging"), "something half-done was left: {folder}");
    stage.as_root(end);
    wait_until(format_args!("it goes on: {}", operator.said()), || {
        operator.is_ready("staging") && stage.snapshot() == before
    });
    operator.stop();
}

#[test]
fn a_disk_that_is_full_or_cannot_be_written_is_told_and_everything_goes_on_afterwards() {
    let options = HostOptions { project_disk_mib: Some(DISK_MIB), ..HostOptions::default() };
    let stage = Stage::with("faults-disk", options);
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    stage.apply();
    let before = stage.snapshot();
    let fill = "dd if=/dev/zero bs=4k >>/opt/tasktracker/full 2>/dev/null; dd if=/dev/zero bs=1 >>/opt/tasktracker/full 2>/dev/null; true";
    let reserve = || stage.as_root("stat -c %s /opt/tasktracker/.reserve 2>/dev/null || true");
    assert_eq!(reserve(), "262144\n");
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    stage.as_root(&format!("{fill}; docker rm -f tt-staging-app-frontend-1"));
    wait_until(format_args!("the page is back on a full disk: {}", operator.said()), || {
        stage.http(3500, "GET /").0 == 200 && operator.log().contains("DiskLow")
    });
    operator.stop();
    assert_eq!(reserve(), "", "it is what the repair was written in");
    // What it gave is used up, too.
    let end = "rm -f /opt/tasktracker/full";
    goes_on(&stage, &before, fill, end, &["No space left on device", "DiskLow"]);
    assert_eq!(reserve(), "262144\n");
    goes_on(
        &stage,
        &before,
        "mount -o remount,ro /opt/tasktracker",
        "mount -o remount,rw /opt/tasktracker",
        &["FolderNotWritable"],
    );
}

#[test]
fn a_host_whose_clock_is_a_day_off_is_repaired_all_the_same() {
    let stage = Stage::new("faults-clock");
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    // A fake `date`, as all hosts here share one clock.
    stage.as_root("printf '#!/bin/sh\necho $(($(/usr/bin/stat -c %%X /proc/self) - 86400))\n' >/tmp/date; chmod 755 /tmp/date; mount --bind /tmp/date /usr/bin/date");
    let operator = stage.start_operator();
    wait_until("it is rolled out, and the clock is told", || {
        operator.log().contains("rolled out") && operator.log().contains("ClockSkew")
    });
    stage.on_host("docker rm -f $(docker ps -aqf label=com.docker.compose.service=backend)");
    wait_until("it is healed", || {
        stage.on_host("docker ps --format '{{.Names}} {{.Status}}'").lines().any(|line| {
            line.starts_with("tt-staging-app-backend-")
                && line.contains(" Up ")
                && line.ends_with("(healthy)")
        })
    });
    assert!(!operator.is_ready("staging"), "a clock that is off is no fault any more");
    stage.as_root("umount /usr/bin/date");
    // The host itself is checked on the slow schedule: the next connection checks at once.
    operator.stop();
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    operator.stop();
}

#[test]
fn a_host_that_loses_its_power_in_the_middle_of_an_apply_comes_back_to_the_wanted_release() {
    let stage = Stage::new("faults-power");
    let write = |revision: &str| stage.write_stack("staging.yaml", &stage.stack("staging", revision, SOAK));
    write("r1");
    stage.apply();
    let data = || stage.as_root("stat -c %i /var/lib/docker/volumes/tt-staging-app-data/_data/tasks.db");
    let volume = data();
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    for revision in ["r2", "r1", "r2"] {
        write(revision);
        wait_until("an apply is under way", || ledger(&stage)["intent"]["desiredHash"].is_string());
        stage.host.power_off().unwrap();
        wait_until("the host is missed", || {
            operator.metric("tasktracker_host_reachable", &["app-1"]) == Some(0.0)
        });
        stage.host.start_docker().unwrap();
        stage.host.start_sshd().unwrap();
        wait_until(format_args!("{revision} serves: {}", operator.said()), || {
            operator.is_ready("staging") && stage.http(3500, "GET /api/health").1.contains(revision)
        });
        let after = ledger(&stage);
        assert!(after["intent"].is_null() && after["failed"].is_null(), "{after:#}");
        assert_eq!(data(), volume);
        assert_eq!(stage.on_host("find /opt/tasktracker -name '.staging*' -o -name '*.new'"), "");
    }
    operator.stop();
    assert_eq!(stage.json(&["status"]).0, 0);
}

/// Requests of users in some twenty seconds: two hundred a second.
const TWENTY_SECONDS: usize = 4_000;

#[test]
fn users_are_served_while_the_daemon_is_away_and_leaves_containers_running() {
    let dockerd_arguments = vec!["--live-restore".to_owned()];
    let stage = Stage::with("faults-live", HostOptions { dockerd_arguments, ..HostOptions::default() });
    stage.write_stack("staging.yaml", &stage.stack("staging", "r1", SOAK));
    let operator = stage.start_operator();
    operator.wait_until_ready("staging");
    let ids = || stage.on_host("docker ps --format '{{.ID}} {{.Names}}' | sort");
    let before = ids();
    let users = Users::start(stage.page(), "live-restore");
    users.wait_for_requests(100);
    stage.host.stop_docker().unwrap();
    users.wait_for_requests(TWENTY_SECONDS);
    let seen = users.stop();
    assert_eq!(seen.failures, [""; 0]);
    let (count, pause) = (seen.latencies.len(), seen.longest_silence());
    println!("{count} requests while the daemon was away: none failed, the longest pause {pause:?}");
    // A daemon that comes back makes its packet filter anew: there is a moment in which nothing leads to the ports.
    let users = Users::start(stage.page(), "daemon-comes-back");
    users.wait_for_requests(100);
    stage.host.start_docker().unwrap();
    users.wait_for_requests(400);
    let seen = users.stop();
    assert!(seen.failures.iter().all(|one| one.contains("Connection refused")), "{:?}", seen.failures);
    let (count, refused) = (seen.latencies.len(), seen.failures.len());
    println!("{refused} of {count} connections were refused when it came back");
    operator.wait_until_ready("staging");
    assert_eq!(ids(), before);
    // A container that is made anew is at another address, which the files say then.
    stage.on_host("docker rm -f tt-staging-app-backend-1");
    operator.wait_for_checks("staging", "app-1", 2);
    operator.wait_until_ready("staging");
    let address = "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' $(docker ps -qf label=com.docker.compose.service=backend)";
    wait_until(format_args!("the file has its address: {}", operator.said()), || {
        stage.on_host("ls /opt/tasktracker/staging/app/files/edge/addresses/backend")
            == stage.on_host(address)
    });
    operator.stop();
}
