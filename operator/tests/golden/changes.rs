//! Services of `sample.yaml` with one field changed, and what must differ then. Whoever includes this brings the types.

use super::*;

/// One change of a service.
pub(super) struct Change {
    /// The service.
    pub(super) service: &'static str,
    /// Fields of `inspect` that are other ones then.
    pub(super) fields: &'static [&'static str],
    /// The change itself.
    pub(super) make: fn(&mut compose::Service),
}

const fn change(
    service: &'static str,
    fields: &'static [&'static str],
    make: fn(&mut compose::Service),
) -> Change {
    Change { service, fields, make }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Changes of every field, each of them possible on a real host.
pub(super) const CHANGES: &[Change] = &[
    change("agent", &["entrypoint"], |agent| {
        agent.entrypoint = Some(words(&["/bin/sleep", "86401"]));
    }),
    change("agent", &["command"], |agent| agent.command = Some(words(&["1"]))),
    change("agent", &["group_add"], |agent| agent.group_add = words(&["44"])),
    change("agent", &["pid"], |agent| agent.pid = None),
    change("agent", &["network_mode", "networks/tt-sample", "networks/tt-sample/aliases"], |agent| {
        agent.network_mode = None;
    }),
    change("agent", &["environment/PRICE"], |agent| {
        agent.environment.insert("PRICE".to_owned(), "6$$".to_owned());
    }),
    change("agent", &["volumes//etc/agent", "volumes//etc/other"], |agent| {
        agent.volumes[0].target = "/etc/other".into();
    }),
    change("agent", &["volumes//host/sys"], |agent| agent.volumes[2].source = "/sys/kernel".into()),
    change("agent", &["volumes//host/root"], |agent| {
        agent.volumes[3].bind = Some(BindOptions { propagation: Propagation::Rshared });
    }),
    change("agent", &["volumes//var/lib/docker/containers"], |agent| agent.volumes[4].read_only = false),
    change("agent", &["restart"], |agent| agent.restart = "always".into()),
    change("agent", &["stop_grace_period"], |agent| agent.stop_grace_period = "2s".into()),
    change("store", &["command"], |store| {
        store.command = Some(words(&["echo $$PATH; exec sleep 86400"]));
    }),
    change("store", &["user"], |store| store.user = Some("1000:1001".to_owned())),
    change("store", &["ports/9200/tcp"], |store| {
        store.ports[0].host_ip = Some([127, 0, 0, 3].into());
    }),
    change("store", &["ports/9200/tcp"], |store| store.ports[1].host_ip = None),
    change("store", &["ports/5140/udp"], |store| store.ports[2].published = "5141".into()),
    change("store", &["tmpfs//tmp"], |store| store.tmpfs = words(&["/tmp:size=2m,mode=1777"])),
    change("store", &["networks/tt-sample/aliases"], |store| {
        store.networks.insert("default".to_owned(), Joined { aliases: words(&["search"]) });
    }),
    change("store", &["extra_hosts"], |store| {
        store.extra_hosts.insert("ledger".to_owned(), "192.0.2.9".to_owned());
    }),
    change("store", &["sysctls/net.ipv4.tcp_keepalive_time"], |store| {
        store.sysctls.insert("net.ipv4.tcp_keepalive_time".to_owned(), "601".to_owned());
    }),
    change("store", &["ulimits/memlock"], |store| {
        store.ulimits.insert("memlock".to_owned(), Ulimit { soft: 1_048_576, hard: 1_048_576 });
    }),
    change("store", &["ulimits/nofile"], |store| {
        store.ulimits.retain(|name, _| name != "nofile");
    }),
    change("web", &["healthcheck/interval"], |web| {
        if let Some(check) = &mut web.healthcheck {
            check.interval = "3s".into();
        }
    }),
    change(
        "web",
        &[
            "healthcheck/interval",
            "healthcheck/retries",
            "healthcheck/start_period",
            "healthcheck/test",
            "healthcheck/timeout",
        ],
        |web| web.healthcheck = None,
    ),
    change("web", &["labels/tasktracker.dev/environment"], |web| {
        web.labels.insert("tasktracker.dev/environment".to_owned(), "other".to_owned());
    }),
    change("web", &["mem_limit"], |web| web.limits.mem_limit = 33_554_432),
    change("web", &["memswap_limit"], |web| web.limits.memswap_limit = 134_217_728),
    change("web", &["cpus"], |web| web.limits.cpus = 0.5),
    change("web", &["pids_limit"], |web| web.limits.pids_limit = 128),
    change("web", &["read_only"], |web| web.limits.read_only = false),
    change("web", &["cap_drop"], |web| web.limits.cap_drop = words(&["MKNOD"])),
    change("web", &["cap_add"], |web| web.limits.cap_add = words(&["NET_RAW"])),
    change("web", &["security_opt"], |web| web.limits.security_opt.clear()),
    change("web", &["logging/options/labels"], |web| {
        web.logging.options.insert("labels".to_owned(), "mine".to_owned());
    }),
    change("web", &["logging/options/tag"], |web| drop(web.logging.options.remove("tag"))),
];
