//! The app is broken in real ways: whoever is named for that is told, and nobody else is.

use std::{
    collections::BTreeSet,
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tasktracker_testbed::{PostgresServer, Recorder, Taken, http, images};

use super::{TOLD, mailbox::Mailbox, query, stage, sum};
use crate::stage::{Running, Stage, elapse, phase, wait_until, wait_until_within};

/// A full disk, for root to make on a host.
pub(super) const SMALL_DISK: &str =
    "dd if=/dev/zero of=/var/lib/small bs=1M count=16 2>/dev/null; mkfs.ext4 -q /var/lib/small
    mkdir -p /srv/small; mount -o loop /var/lib/small /srv/small
    dd if=/dev/zero of=/srv/small/full bs=1M 2>/dev/null || true";
/// Its end.
pub(super) const NO_SMALL_DISK: &str = "umount -l /srv/small; rm /var/lib/small";
/// A person's wish that nothing be written, and its end.
const HOLD: &str = "echo 'a test' >/opt/tasktracker/staging/app/HOLD";
const NO_HOLD: &str = "rm /opt/tasktracker/staging/app/HOLD";
/// How often a user makes a task.
const PAUSE: Duration = Duration::from_millis(600);

/// Alerts that would have to hold for five minutes hold for some seconds; one is of another severity, for whom mail is sent.
const SOONER: &str = "override: {InstanceHighCpuUsage: {for: 15s}, ServiceDown: {for: 15s}, HighErrorRate: {for: 15s}, HighLatencyP95: {for: 15s}, DatabaseConnectionFailures: {threshold: 35, for: 0s}, InstanceDiskSpaceLow: {for: 15s}, ContainerOomKilled: {severity: info}}";
/// What other tests beside this one make of the machine, and that it is looked at only for minutes.
const OF_THE_MACHINE: &str = "InstanceHighCpuUsage, InstanceHighMemoryUsage, InstanceHighDiskIo, InstanceDiskFullSoon, ClockSkew, InfoInhibitor";

/// Who takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Receiver {
    Pager,
    Chat,
    Mail,
}

/// A host with an app, what watches it, and whom that calls.
struct Scene {
    stage: Stage,
    operator: Option<Running>,
    database: PostgresServer,
    url: String,
    pager: Recorder,
    chat: Recorder,
    mailbox: Mailbox,
}

/// A way in which something is broken.
struct Way {
    name: &'static str,
    begins: fn(&mut Scene),
    ends: fn(&mut Scene),
    told: (Receiver, &'static str),
}

impl Scene {
    fn start(name: &str, prometheus: &str, disabled: &str) -> Self {
        let stage = stage(name);
        if prometheus == images::PROMETHEUS_2 {
            stage.load(&["prometheus-2"]);
        }
        let gateway = stage.host.gateway();
        let database = PostgresServer::start_at(gateway).unwrap();
        let url = database.database().unwrap();
        let (pager, chat) = (Recorder::start_at(gateway).unwrap(), Recorder::start_at(gateway).unwrap());
        let mailbox = Mailbox::start_at(gateway);
        stage.write_value("tasks", "url", url.as_bytes());
        stage.write_value("pager", "routingKey", b"canary-of-the-pager");
        stage.write_value("slack", "url", format!("http://{}/canary-of-slack", chat.address).as_bytes());
        let receivers = format!(
            "receivers: {{pagerduty: {{routingKeySecretRef: {{name: pager}}, url: \"http://{}/v2/enqueue\"}}, slack: {{webhookSecretRef: {{name: slack}}}}, email: {{to: [ops@example.com], from: alerts@example.com, smarthost: \"{}\", requireTls: false}}}}",
            pager.address, mailbox.address
        );
        let text = super::stack(&stage, prometheus, "replicas: 1", &receivers);
        let text = text.replace("tasktracker,", "tasktracker, database: {postgres: {urlSecret: tasks}},");
        // Whoever asks three times a second is most of those who do.
        let text = text.replace("interval: 300ms", "interval: 5s");
        let text = text
            .replace("monitoring: {", &format!("monitoring: {{rules: {{{SOONER}, disable: [{disabled}]}}, "));
        stage.write_stack("staging.yaml", &text);
        let operator = stage.start_operator();
        operator.wait_until_ready("staging");
        let scene = Self { stage, operator: Some(operator), database, url, pager, chat, mailbox };
        wait_until("the backend is known", || sum(&scene.stage, "up{job=\"backend\"}") > 0.0);
        scene
    }

    /// What was told so far: to whom, and the name of the alert.
    fn told(&self) -> BTreeSet<(Receiver, String)> {
        // `[FIRING:1] NAME (ENVIRONMENT)`
        let name = |title: &str| {
            let name = title.strip_prefix("[FIRING")?.split_once("] ")?.1.split(' ').next()?;
            Some(name.to_owned())
        };
        let pages = self.pager.taken().into_iter();
        let pages = pages
            .filter_map(|event| Some((Receiver::Pager, name(event.body["payload"]["summary"].as_str()?)?)));
        let messages = self.chat.taken().into_iter();
        let messages = messages.filter_map(|taken| {
            Some((Receiver::Chat, name(taken.body["attachments"][0]["title"].as_str()?)?))
        });
        let mails = self.mailbox.taken.lock().unwrap().clone().into_iter();
        let mails = mails.filter_map(|mail| Some((Receiver::Mail, name(&mail.subject())?)));
        pages.chain(messages).chain(mails).collect()
    }

    /// What there is to know, as it is when it is shown.
    fn said(&self) -> impl Display + '_ {
        std::fmt::from_fn(|formatter| {
            let ask = |of: &str| query(&self.stage, of);
            let log = self.operator.as_ref().map(Running::log).unwrap_or_default();
            write!(
                formatter,
                "told {:?}; {}; firing {:?}; requests {:?}; {log}",
                self.told(),
                self.stage.on_host("docker logs --tail 5 tt-staging-monitoring-alertmanager-1 2>&1"),
                ask("ALERTS"),
                ask("sum by (route, status) (increase(http_requests_total[5m]))")
            )
        })
    }

    /// Breaks some things at once, waits until each is told, and mends them; then, of everything, only these were told.
    fn go_through(&mut self, groups: &[&[Way]]) {
        let mut expected = self.told();
        for ways in groups {
            phase(&ways.iter().map(|way| way.name).collect::<Vec<_>>().join(", "));
            let began = Instant::now();
            for way in *ways {
                (way.begins)(self);
            }
            for Way { name, told: (receiver, alert), .. } in *ways {
                let told = (*receiver, (*alert).to_owned());
                wait_until_within(TOLD, format_args!("{told:?}: {}", self.said()), || {
                    self.told().contains(&told)
                });
                println!("{name}: {alert} told after {:.0} s", began.elapsed().as_secs_f64());
                expected.insert(told);
            }
            for way in *ways {
                (way.ends)(self);
            }
            assert_eq!(self.told(), expected);
        }
    }
}

/// Docker's name of the one container of a service.
fn container(service: &str) -> String {
    format!("$(docker ps -qf label=com.docker.compose.service={service} | head -n 1)")
}

const OF_THE_HOST: [Way; 3] = [
    Way {
        name: "a full disk",
        begins: |scene| {
            scene.stage.as_root(SMALL_DISK);
        },
        ends: |scene| {
            scene.stage.as_root(NO_SMALL_DISK);
        },
        told: (Receiver::Pager, "InstanceDiskSpaceLow"),
    },
    Way {
        name: "no memory left for a container",
        begins: |scene| {
            scene.stage.as_root(&super::containers::out_of_memory("backend"));
        },
        ends: |_| {},
        told: (Receiver::Mail, "ContainerOomKilled"),
    },
    Way {
        name: "a container that ends again and again",
        begins: |scene| {
            let stage = &scene.stage;
            // The operator would make another container, whose restarts are counted anew.
            stage.on_host(HOLD);
            let process = || {
                stage
                    .as_root(&format!(
                        "docker inspect -f '{{{{.State.Pid}}}}' {} 2>/dev/null || true",
                        container("frontend")
                    ))
                    .trim()
                    .to_owned()
            };
            for _ in 0..6 {
                let before = process();
                stage.as_root(&format!("kill -KILL {before} || true"));
                wait_until("Docker starts it again", || {
                    let now = process();
                    now != before && now != "0" && !now.is_empty()
                });
            }
        },
        ends: |scene| {
            scene.stage.on_host(NO_HOLD);
        },
        told: (Receiver::Chat, "ContainerCrashLooping"),
    },
];

const DRIFT: [Way; 1] = [Way {
    name: "a file that somebody changes again whenever it is put right",
    begins: |scene| {
        scene.stage.on_host(
            "at=/opt/tasktracker/staging/app/files/edge/Caddyfile
            (while [ ! -e /tmp/enough ]; do grep -q '^# mine' $at || echo '# mine' >>$at; sleep 0.2; done) </dev/null >/dev/null 2>&1 &",
        );
    },
    ends: |scene| {
        scene.stage.on_host("touch /tmp/enough; sleep 1");
        assert!(scene.stage.command(&["retry", "staging"]).status.success());
    },
    told: (Receiver::Pager, "DriftNotHealing"),
}];

const STOPPED: [Way; 1] = [Way {
    name: "a backend that nobody may start again",
    begins: |scene| {
        scene.stage.on_host(HOLD);
        scene.stage.on_host(&format!("docker stop -t 1 {}", container("backend")));
    },
    ends: |scene| {
        scene.stage.on_host(NO_HOLD);
    },
    told: (Receiver::Pager, "ServiceDown"),
}];

/// Something that the database does whenever a task is made.
fn whenever_a_task_is_made(scene: &mut Scene, what: &str) {
    let function = format!(
        "CREATE OR REPLACE FUNCTION whenever() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what} RETURN NEW; END $$;"
    );
    let trigger =
        "CREATE OR REPLACE TRIGGER whenever BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION whenever();";
    scene.database.execute(&scene.url, &format!("{function} {trigger}")).unwrap();
}

fn as_ever(scene: &mut Scene) {
    whenever_a_task_is_made(scene, "");
}

const ERRORS: [Way; 1] = [Way {
    // One in ten: more than a twentieth of all, and too few to be taken for a database that is away.
    name: "requests that end in errors",
    begins: |scene| {
        whenever_a_task_is_made(scene, "IF NEW.title LIKE 'often%' THEN RAISE EXCEPTION 'no'; END IF;");
    },
    ends: as_ever,
    told: (Receiver::Pager, "HighErrorRate"),
}];

const SLOW: [Way; 1] = [Way {
    name: "slow answers",
    begins: |scene| whenever_a_task_is_made(scene, "PERFORM pg_sleep_for('1500 ms');"),
    ends: as_ever,
    told: (Receiver::Chat, "HighLatencyP95"),
}];

const DATABASE: [Way; 1] = [Way {
    name: "a database that is gone",
    begins: |scene| scene.database.stop().unwrap(),
    ends: |scene| scene.database.go_on().unwrap(),
    told: (Receiver::Pager, "DatabaseConnectionFailures"),
}];

const OPERATOR: [Way; 1] = [Way {
    name: "an operator that is gone",
    begins: |scene| scene.operator.take().unwrap().kill(),
    ends: |_| {},
    told: (Receiver::Pager, "ReconcileStale"),
}];

#[test]
fn faults_of_a_host_and_its_containers_call_whoever_is_named_for_them_and_nobody_else() {
    let mut scene = Scene::start("alerts", images::PROMETHEUS_2, OF_THE_MACHINE);
    scene.go_through(&[&STOPPED]);

    phase("what a page says, and what it does not");
    let Taken { path, body: event, .. } = scene.pager.taken().remove(0);
    assert_eq!((path.as_str(), &event["event_action"]), ("/v2/enqueue", &"trigger".into()), "{event:#}");
    assert_eq!(event["routing_key"], "canary-of-the-pager");
    let payload = &event["payload"];
    assert_eq!(payload["summary"], "[FIRING:1] ServiceDown (test)", "{event:#}");
    assert_eq!(payload["severity"], "critical");
    let told = payload["custom_details"]["alerts"].as_str().unwrap();
    assert!(
        told.contains("No instance of the backend answers.") && told.contains("/ServiceDown"),
        "{event:#}"
    );
    assert_eq!(event["links"][0]["href"], "https://tasktracker.dev/runbooks/ServiceDown");
    let shown = scene.stage.on_host("ps -eo args; docker ps -aq | xargs docker inspect; cat /opt/tasktracker/staging/monitoring/files/*/*");
    assert!(!shown.contains("canary"));

    scene.operator.as_ref().unwrap().wait_until_ready("staging");
    scene.go_through(&[&OF_THE_HOST, &DRIFT]);
    let mail = scene.mailbox.taken.lock().unwrap()[0].clone();
    assert_eq!(mail.recipients, ["ops@example.com"]);
    assert!(
        mail.text.contains("ran out of memory") && mail.text.contains("/ContainerOomKilled"),
        "{}",
        mail.text
    );
    scene.operator.take().unwrap().stop();
}

#[test]
#[ignore = "needs a machine that has nothing else to do: `cargo xtask soak monitoring`"]
fn soak_a_busy_processor_calls_whoever_is_named_for_it() {
    let busy = Way {
        name: "a busy processor",
        begins: |scene| {
            scene.stage.as_root("for each in $(seq $(nproc)); do timeout 240 sh -c 'while :; do :; done' >/dev/null 2>&1 & done");
        },
        ends: |scene| {
            scene.stage.as_root("pkill -f '[w]hile :; do :; done'");
        },
        told: (Receiver::Chat, "InstanceHighCpuUsage"),
    };
    let mut scene =
        Scene::start("busy", images::PROMETHEUS, "InstanceHighDiskIo, InstanceDiskFullSoon, ClockSkew");
    scene.go_through(&[&[busy]]);
    scene.operator.take().unwrap().stop();
}

#[test]
#[ignore = "takes long: `cargo xtask soak monitoring`"]
fn soak_faults_of_the_app_call_whoever_is_named_for_them() {
    // What looks hours back sees these minutes alone.
    let disabled = format!("{OF_THE_MACHINE}, ErrorBudgetBurnsFast, ErrorBudgetBurnsSlowly");
    let mut scene = Scene::start("faults", images::PROMETHEUS, &disabled);
    let (page, done) = (scene.stage.page(), Arc::<AtomicBool>::default());
    let is_over = done.clone();
    let users = thread::spawn(move || {
        for number in 0_u32.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let title = if number.is_multiple_of(10) { "often" } else { "task" };
            let _: Option<(u16, String)> =
                http(page, &format!("POST /api/tasks\n{{\"title\": \"{title} {number}\"}}"));
            elapse(PAUSE);
        }
    });
    scene.go_through(&[&ERRORS, &SLOW, &DATABASE, &OPERATOR]);
    done.store(true, Ordering::Relaxed);
    users.join().unwrap();
}
