//! Fluent Bit: reads what containers of the stack write, makes documents of it, and sends them to the log store.

mod config;

use tasktracker_crds::{HostSpec, LoggingSpec, Role, SecretKeySpec};

use self::config::{Config, Section, Syntax};
use crate::{
    component::{prometheus::private_address, service_labels},
    model::ComponentName,
    project::{
        Endpoint, Expect, File, HttpProbe, Project, Readiness, SECRETS_FOLDER, SecretFile, Service, Volume,
        VolumeRole,
        compose::{self, Limits, Mount},
    },
    secret::{Form, SecretSource},
    source::Stack,
};

/// The service.
pub(super) const FLUENT_BIT: &str = "fluent-bit";
/// Port inside the container for its own health and metrics.
pub(super) const PORT: u16 = 2020;
/// Who sends documents.
const SHIPPER: &str = "shipper";
/// Key of the Secret with that one's password.
const PASSWORD: &str = "shipperPassword";
/// The variable with the password, which its configuration names.
const VARIABLE: &str = "LOG_STORE_PASSWORD";
/// Its script, among its files.
const SCRIPT: &str = "document.lua";
/// Where it sees its files.
const FILES_INSIDE: &str = "/fluent-bit/etc/tasktracker";
/// Where it sees its secrets.
const SECRETS_INSIDE: &str = "/run/secrets";
/// Where it keeps how far it has read, and what is not sent yet.
const STATE_INSIDE: &str = "/fluent-bit/state";
/// Name inside the project of the volume with that.
const STATE: &str = "fluent-bit";
/// Docker's files, by container.
const CONTAINERS: &str = "/var/lib/docker/containers";
/// The program in its image.
const PROGRAM: &str = "/fluent-bit/bin/fluent-bit";
/// How much of what is not sent it keeps.
const KEPT: &str = "1G";
/// How it makes documents; see the file.
const DOCUMENT: &str = include_str!("document.lua");

/// Adds the service with its files and secrets.
pub(super) fn add(project: &mut Project, stack: &Stack, host: &HostSpec, logging: &LoggingSpec) {
    let syntax = Syntax::of(logging.fluent_bit.image.as_str());
    let (name, text) = config(stack, logging, syntax);
    let file = |name: &str| format!("files/{FLUENT_BIT}/{name}");
    project.files.insert(file(&name), File::new(text));
    project.files.insert(file(SCRIPT), File::new(script(stack, host)));
    let volume = format!("{}-{STATE}", project.name);
    let volume = Volume { name: volume, role: VolumeRole::Cache, owner: None };
    project.volumes.insert(STATE.to_owned(), volume);
    let secret = logging.credentials_secret_ref.name.clone();
    let source = SecretSource::from(SecretKeySpec { secret, key: PASSWORD.to_owned() });
    let form = Form::FluentBitVariable { name: VARIABLE.to_owned(), yaml: syntax == Syntax::Yaml };
    let password = SecretFile::new(SecretSource { form: Some(form), ..source });
    project.secrets.insert(format!("{SECRETS_FOLDER}/{FLUENT_BIT}/{}", password_file(syntax)), password);
    project.services.insert(FLUENT_BIT.to_owned(), service(stack, logging, &name));
}

/// File that sets the variable with the password, among its secrets.
fn password_file(syntax: Syntax) -> &'static str {
    match syntax {
        Syntax::Yaml => "password.yaml",
        Syntax::Classic => "password.conf",
    }
}

/// Name and text of its configuration.
fn config(stack: &Stack, logging: &LoggingSpec, syntax: Syntax) -> (String, String) {
    let state = |name: &str| format!("{STATE_INSIDE}/{name}");
    let service = Section::new([
        ("flush", "1".to_owned()),
        ("grace", "10".to_owned()),
        ("log_level", "warn".to_owned()),
        ("http_server", "on".to_owned()),
        ("http_listen", "0.0.0.0".to_owned()),
        ("http_port", PORT.to_string()),
        ("health_check", "on".to_owned()),
        ("storage.path", state("buffer")),
        ("storage.metrics", "on".to_owned()),
        ("storage.max_chunks_up", "16".to_owned()),
        ("storage.backlog.mem_limit", "8M".to_owned()),
        ("scheduler.base", "1".to_owned()),
        ("scheduler.cap", "15".to_owned()),
    ]);
    let containers = Section::new([
        ("name", "tail".to_owned()),
        ("tag", "container".to_owned()),
        ("path", format!("{CONTAINERS}/*/*-json.log")),
        ("multiline.parser", "docker".to_owned()),
        ("db", state("containers.db")),
        ("read_from_head", "on".to_owned()),
        ("refresh_interval", "1".to_owned()),
        ("rotate_wait", "30".to_owned()),
        ("buffer_chunk_size", "64k".to_owned()),
        ("buffer_max_size", "512k".to_owned()),
        ("skip_long_lines", "on".to_owned()),
        ("storage.type", "filesystem".to_owned()),
    ]);
    let documents = Section::new([
        ("name", "lua".to_owned()),
        ("match", "container".to_owned()),
        ("script", format!("{FILES_INSIDE}/{SCRIPT}")),
        ("call", "container".to_owned()),
        ("time_as_table", "on".to_owned()),
    ]);
    let config = Config {
        includes: vec![format!("{SECRETS_INSIDE}/{}", password_file(syntax))],
        service,
        inputs: vec![containers],
        filters: vec![documents],
        outputs: store(stack, logging).into_iter().collect(),
    };
    let name = match syntax {
        Syntax::Yaml => "fluent-bit.yaml",
        Syntax::Classic => "fluent-bit.conf",
    };
    (name.to_owned(), config.render(syntax))
}

/// Where documents are sent: each has its ID, so that one that is sent twice is there once.
fn store(stack: &Stack, logging: &LoggingSpec) -> Option<Section> {
    let host = stack.spec.hosts_with(Role::Logging).next()?;
    Some(Section::new([
        ("name", "es".to_owned()),
        ("match", "*".to_owned()),
        ("host", private_address(host)),
        ("port", logging.elasticsearch.port.to_string()),
        ("http_user", SHIPPER.to_owned()),
        ("http_passwd", format!("${{{VARIABLE}}}")),
        ("logstash_format", "on".to_owned()),
        ("logstash_prefix", "tasktracker-logs-unknown".to_owned()),
        ("logstash_prefix_key", "$index".to_owned()),
        ("logstash_dateformat", "%Y.%m.%d".to_owned()),
        ("time_key", "@timestamp".to_owned()),
        ("time_key_nanos", "on".to_owned()),
        ("id_key", "id".to_owned()),
        ("suppress_type_name", "on".to_owned()),
        ("buffer_size", "false".to_owned()),
        ("retry_limit", "no_limits".to_owned()),
        ("trace_error", "on".to_owned()),
        ("storage.total_limit_size", KEPT.to_owned()),
    ]))
}

/// The script, with what is the same for all documents of a host.
fn script(stack: &Stack, host: &HostSpec) -> String {
    let own = [
        ("stack", stack.key.to_string()),
        ("environment", stack.spec.environment.to_string()),
        ("host", host.name.to_string()),
        ("reader", FLUENT_BIT.to_owned()),
    ];
    let own: String = own.iter().map(|(name, value)| format!("  {name} = {value:?},\n")).collect();
    format!("OWN = {{\n{own}  masks = {{}},\n}}\n{DOCUMENT}")
}

fn service(stack: &Stack, logging: &LoggingSpec, config: &str) -> Service {
    let spec = &logging.fluent_bit;
    let image = spec.image.to_string();
    let compose = compose::Service {
        entrypoint: Some(vec![PROGRAM.to_owned()]),
        command: Some(vec!["-c".to_owned(), format!("{FILES_INSIDE}/{config}")]),
        // Docker's files are root's, and nobody else's.
        user: Some("0:0".to_owned()),
        volumes: vec![
            Mount::folder(format!("./files/{FLUENT_BIT}"), FILES_INSIDE),
            Mount::folder(format!("./{SECRETS_FOLDER}/{FLUENT_BIT}"), SECRETS_INSIDE),
            Mount::folder(CONTAINERS, CONTAINERS),
            Mount::owned_volume(STATE, STATE_INSIDE),
        ],
        labels: service_labels(stack, ComponentName::Agents, &image),
        stop_grace_period: "20s".to_owned(),
        ..compose::Service::new(image, Limits::new(&spec.resources.limits))
    };
    Service {
        readiness: Readiness::Http(HttpProbe {
            endpoint: Endpoint::new(PORT, "/"),
            credentials: None,
            expect: Expect::Status(200),
        }),
        ..Service::new(compose)
    }
}
