//! Fluent Bit: reads what containers of the stack write, makes documents of it, and sends them to the log store.

mod config;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use tasktracker_crds::{
    HostLog, HostSpec, LogOutputSpec, LoggingSpec, Role, SecretKeySpec,
    line_pattern::{LinePattern, line_patterns},
};

use self::config::{Config, Section, Syntax};
use crate::{
    component::{prometheus::private_address, service_labels},
    model::ComponentName,
    project::{
        Endpoint, Expect, File, HttpProbe, Project, Readiness, SECRETS_FOLDER, SecretFile, Service,
        Validation, Volume, VolumeRole,
        compose::{self, Limits, Mount},
    },
    secret::{Form, SecretSource},
    source::Stack,
};

/// The service.
pub(crate) const FLUENT_BIT: &str = "fluent-bit";
/// Port inside the container for its own health and metrics.
pub(super) const PORT: u16 = 2020;
/// Port inside the container at which others of the stack send it what they have to tell: what it is, says the path.
pub(crate) const SENT_PORT: u16 = 9880;
/// Path of the messages of Alertmanager, and the function of the script for them.
pub(crate) const ALERTS: &str = "alerts";
/// The same of the operator's audit lines.
pub(crate) const AUDIT: &str = "audit";
/// What lines of containers are marked with, and the function of the script for them.
const CONTAINER: &str = "container";
/// What is marked for which only the time counts.
const TICK: &str = "tick";
/// What the host's own log is marked with.
const HOST: &str = "host";
/// What is replaced in every line: passwords in URLs and in headers.
const MASKS: [(&str, &str); 3] = [
    (r#"://[^/ ":@]*:[^/ "]+@"#, "://***:***@"),
    ("[Bb]earer [A-Za-z0-9._~+/-]+=*", "Bearer ***"),
    ("[Bb]asic [A-Za-z0-9+/]{4,}=*", "Basic ***"),
];
/// Where it tells of itself.
pub(super) const METRICS: &str = "/api/v1/metrics/prometheus";
/// Who sends documents.
const SHIPPER: &str = "shipper";
/// Key of the Secret with that one's password.
const PASSWORD: &str = "shipperPassword";
/// The variable with the password, which its configuration names.
const VARIABLE: &str = "LOG_STORE_PASSWORD";
/// Name of its configuration, without the ending.
const CONFIG: &str = "fluent-bit";
/// The same without secrets, which are not there when it is checked.
const CHECKED: &str = "checked";
/// Its parsers, in the format that wants them in a file.
const PARSERS: &str = "parsers.conf";
/// The parser of Docker's records.
const DOCKER: &str = "docker-json";
/// How long that check may take.
const VALIDATION_LIMIT: Duration = Duration::from_secs(30);
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
    let config = config(stack, logging, syntax);
    let parsers = (syntax == Syntax::Classic).then(|| config.parsers_file());
    let path = format!("files/{FLUENT_BIT}/{PARSERS}");
    project.files.extend(parsers.map(|text| (path, File::new(text))));
    let name = |what: &str| format!("{what}.{}", ending(syntax));
    let file = |name: &str| format!("files/{FLUENT_BIT}/{name}");
    project.files.insert(file(&name(CONFIG)), File::new(config.render(syntax)));
    let checked = Config { includes: Vec::new(), ..config };
    project.files.insert(file(&name(CHECKED)), File::new(checked.render(syntax)));
    project.files.insert(file(SCRIPT), File::new(script(stack, host, logging)));
    let volume = format!("{}-{STATE}", project.name);
    let volume = Volume { name: volume, role: VolumeRole::Cache, owner: None };
    project.volumes.insert(STATE.to_owned(), volume);
    let path = |name: String| format!("{SECRETS_FOLDER}/{FLUENT_BIT}/{name}");
    project.secrets.extend(secrets(logging, syntax).into_iter().map(|(name, file)| (path(name), file)));
    let service = service(stack, logging, &name(CONFIG), &name(CHECKED));
    project.services.insert(FLUENT_BIT.to_owned(), service);
}

/// What the names of files end with.
fn ending(syntax: Syntax) -> &'static str {
    match syntax {
        Syntax::Yaml => "yaml",
        Syntax::Classic => "conf",
    }
}

/// Its configuration.
fn config(stack: &Stack, logging: &LoggingSpec, syntax: Syntax) -> Config {
    let state = |name: &str| format!("{STATE_INSIDE}/{name}");
    let parsers_file =
        (syntax == Syntax::Classic).then(|| ("parsers_file", format!("{FILES_INSIDE}/{PARSERS}")));
    let service = Section::new(parsers_file.into_iter().chain([
        ("flush", "1".to_owned()),
        ("grace", "10".to_owned()),
        ("log_level", "warn".to_owned()),
        ("http_server", "on".to_owned()),
        ("http_listen", "0.0.0.0".to_owned()),
        ("http_port", PORT.to_string()),
        ("health_check", "on".to_owned()),
        ("storage.path", state("buffer")),
        ("storage.metrics", "on".to_owned()),
        // As many as it has tasks: of those beyond, 1.8 sends none any more.
        ("storage.max_chunks_up", "2048".to_owned()),
        ("storage.backlog.mem_limit", "8M".to_owned()),
        ("scheduler.base", "1".to_owned()),
        ("scheduler.cap", "15".to_owned()),
    ]));
    let docker = Section::new([
        ("name", DOCKER.to_owned()),
        ("format", "json".to_owned()),
        ("time_key", "time".to_owned()),
        ("time_format", "%Y-%m-%dT%H:%M:%S.%L".to_owned()),
    ]);
    let containers = Section::new([
        ("name", "tail".to_owned()),
        // One for all files: each tag has chunks of its own, and there are not many.
        ("tag", CONTAINER.to_owned()),
        ("path", format!("{CONTAINERS}/*/*-json.log")),
        // Its own joining of pieces mixes those of files that are read in turns: the script does that.
        ("parser", DOCKER.to_owned()),
        ("db", state("containers.db")),
        ("read_from_head", "on".to_owned()),
        ("refresh_interval", "1".to_owned()),
        ("rotate_wait", "30".to_owned()),
        ("buffer_chunk_size", "64k".to_owned()),
        ("buffer_max_size", "512k".to_owned()),
        ("skip_long_lines", "on".to_owned()),
        ("storage.type", "filesystem".to_owned()),
    ]);
    // By which the script knows that time passes, and that nothing follows a trace.
    let ticks = Section::new([
        ("name", "dummy".to_owned()),
        ("tag", TICK.to_owned()),
        ("dummy", "{\"tick\": true}".to_owned()),
        ("rate", "5".to_owned()),
        // Traces are sent on with it.
        ("storage.type", "filesystem".to_owned()),
    ]);
    let documents = |tags: &[&str], function: &str| {
        Section::new([
            ("name", "lua".to_owned()),
            ("match_regex", format!("^({})$", tags.join("|"))),
            ("script", format!("{FILES_INSIDE}/{SCRIPT}")),
            ("call", function.to_owned()),
            ("time_as_table", "on".to_owned()),
        ])
    };
    // Whoever sends to it says with the path what it is.
    let http = Section::new([
        ("name", "http".to_owned()),
        ("listen", "0.0.0.0".to_owned()),
        ("port", SENT_PORT.to_string()),
        ("buffer_max_size", "8M".to_owned()),
        ("storage.type", "filesystem".to_owned()),
    ]);
    let (host_log, function) = host_log(logging);
    let mut filters = vec![documents(&[CONTAINER, TICK], CONTAINER)];
    filters.extend(function.map(|function| documents(&[HOST], function)));
    filters.extend([ALERTS, AUDIT].map(|sent| documents(&[sent], sent)));
    let secrets = secrets(logging, syntax).into_keys();
    Config {
        includes: secrets.map(|name| format!("{SECRETS_INSIDE}/{name}")).collect(),
        service,
        parsers: vec![docker],
        inputs: [containers, ticks, http].into_iter().chain(host_log).collect(),
        filters,
        outputs: store(stack, logging).into_iter().chain(extra_outputs(logging)).collect(),
    }
}

/// The host's own log, and the function that makes documents of it.
fn host_log(logging: &LoggingSpec) -> (Option<Section>, Option<&'static str>) {
    let input = |own: &[(&'static str, &str)]| {
        let common = [("tag", HOST), ("storage.type", "filesystem")];
        let options = own.iter().chain(&common).map(|(name, value)| (*name, (*value).to_owned()));
        Section::new(options)
    };
    match logging.fluent_bit.host_log {
        HostLog::Journal => {
            let db = format!("{STATE_INSIDE}/journal.db");
            let journal = [
                ("name", "systemd"),
                ("db", db.as_str()),
                ("read_from_tail", "on"),
                ("strip_underscores", "on"),
            ];
            (Some(input(&journal)), Some("journal"))
        }
        HostLog::Files => {
            let db = format!("{STATE_INSIDE}/host.db");
            let files = [
                ("name", "tail"),
                ("path", "/var/log/syslog,/var/log/messages,/var/log/auth.log,/var/log/secure"),
                ("db", db.as_str()),
                ("refresh_interval", "1"),
                ("rotate_wait", "30"),
                ("buffer_max_size", "512k"),
                ("skip_long_lines", "on"),
            ];
            (Some(input(&files)), Some("syslog"))
        }
        HostLog::None => (None, None),
    }
}

/// What it mounts for that.
fn host_mounts(logging: &LoggingSpec) -> Vec<Mount> {
    let same = |path: &&str| Mount::folder(*path, *path);
    match logging.fluent_bit.host_log {
        // The journal is in one of the two, below a name that is told in the file.
        HostLog::Journal => ["/var/log", "/run/log", "/etc/machine-id"].iter().map(same).collect(),
        HostLog::Files => ["/var/log"].iter().map(same).collect(),
        HostLog::None => Vec::new(),
    }
}

/// Of what documents are made: what else somebody sends to it goes nowhere.
fn sent() -> String {
    format!("^({})$", [CONTAINER, TICK, HOST, ALERTS, AUDIT].join("|"))
}

/// Where documents are sent, too, as the spec names it.
fn extra_outputs(logging: &LoggingSpec) -> impl Iterator<Item = Section> + use<'_> {
    let outputs = logging.fluent_bit.extra_outputs.iter().enumerate();
    outputs.map(|(place, LogOutputSpec { plugin, options, secret_options })| {
        let own = [("name".to_owned(), plugin.to_string()), ("match_regex".to_owned(), sent())];
        let plain = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let secret = secret_options.keys().enumerate();
        let secret =
            secret.map(|(number, name)| (name.to_string(), format!("${{{}}}", variable(place, number))));
        Section::new(own.into_iter().chain(plain).chain(secret))
    })
}

/// The variable with a secret option of an output.
fn variable(output: usize, option: usize) -> String {
    format!("OUTPUT_{output}_{option}")
}

/// Its secrets, by the names of their files: each sets a variable.
fn secrets(logging: &LoggingSpec, syntax: Syntax) -> BTreeMap<String, SecretFile> {
    let file = |name: &str, variable: String, source: SecretKeySpec| {
        let form = Form::FluentBitVariable { name: variable, yaml: syntax == Syntax::Yaml };
        let source = SecretSource { form: Some(form), ..SecretSource::from(source) };
        (format!("{name}.{}", ending(syntax)), SecretFile::new(source))
    };
    let secret = logging.credentials_secret_ref.name.clone();
    let own = file("password", VARIABLE.to_owned(), SecretKeySpec { secret, key: PASSWORD.to_owned() });
    let outputs = logging.fluent_bit.extra_outputs.iter().enumerate();
    let others = outputs.flat_map(|(place, output)| {
        let options = output.secret_options.values().enumerate();
        options.map(move |(number, source)| {
            file(&format!("output-{place}-{number}"), variable(place, number), source.clone())
        })
    });
    [own].into_iter().chain(others).collect()
}

/// Where documents are sent: each has its ID, so that one that is sent twice is there once.
fn store(stack: &Stack, logging: &LoggingSpec) -> Option<Section> {
    let host = stack.spec.hosts_with(Role::Logging).next()?;
    Some(Section::new([
        ("name", "es".to_owned()),
        ("match_regex", sent()),
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
fn script(stack: &Stack, host: &HostSpec, logging: &LoggingSpec) -> String {
    // What is no expression was refused before.
    let patterns = |expression: &str| line_patterns(expression).unwrap_or_default();
    let own_masks = logging.fluent_bit.mask.iter();
    let masks = own_masks.map(|mask| (mask.pattern.as_str(), mask.replacement.as_str())).chain(MASKS);
    let masks = masks.flat_map(|(expression, replacement)| {
        let replacement = replacement.replace('%', "%%");
        let made = patterns(expression).into_iter();
        made.map(move |LinePattern { literal, pattern }| {
            [quoted(&literal), quoted(&pattern), quoted(replacement.as_bytes())].join(", ")
        })
    });
    let drops = logging.fluent_bit.drop.iter().flat_map(|drop| {
        let service = drop.service.as_ref().map_or("nil".to_owned(), |name| quoted(name.as_str().as_bytes()));
        let made = patterns(drop.pattern.as_str()).into_iter();
        made.map(move |LinePattern { literal, pattern }| {
            [quoted(&literal), quoted(&pattern), service.clone()].join(", ")
        })
    });
    let rows = |rows: Vec<String>| rows.iter().map(|row| format!("    {{ {row} }},\n")).collect::<String>();
    let (masks, drops) = (rows(masks.collect()), rows(drops.collect()));
    let own = [
        ("stack", stack.key.to_string()),
        ("environment", stack.spec.environment.to_string()),
        ("host", host.name.to_string()),
        ("reader", FLUENT_BIT.to_owned()),
    ];
    let own: String =
        own.iter().map(|(name, value)| format!("  {name} = {},\n", quoted(value.as_bytes()))).collect();
    format!("OWN = {{\n{own}  masks = {{\n{masks}  }},\n  drops = {{\n{drops}  }},\n}}\n{DOCUMENT}")
}

/// A text as Lua writes it.
fn quoted(text: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for byte in text {
        // Writing to a string does not fail.
        let _: std::fmt::Result = match byte {
            b' '..=b'~' if !b"\"\\".contains(byte) => write!(quoted, "{}", char::from(*byte)),
            _ => write!(quoted, "\\{byte:03}"),
        };
    }
    quoted + "\""
}

fn service(stack: &Stack, logging: &LoggingSpec, config: &str, checked: &str) -> Service {
    let spec = &logging.fluent_bit;
    let image = spec.image.to_string();
    let compose = compose::Service {
        entrypoint: Some(vec![PROGRAM.to_owned()]),
        command: Some(vec!["-c".to_owned(), format!("{FILES_INSIDE}/{config}")]),
        // Docker's files are root's, and nobody else's.
        user: Some("0:0".to_owned()),
        volumes: [
            Mount::folder(format!("./files/{FLUENT_BIT}"), FILES_INSIDE),
            Mount::folder(format!("./{SECRETS_FOLDER}/{FLUENT_BIT}"), SECRETS_INSIDE),
            Mount::folder(CONTAINERS, CONTAINERS),
            Mount::owned_volume(STATE, STATE_INSIDE),
        ]
        .into_iter()
        .chain(host_mounts(logging))
        .collect(),
        labels: service_labels(stack, ComponentName::Agents, &image),
        stop_grace_period: "20s".to_owned(),
        ..compose::Service::new(image, Limits::new(&spec.resources.limits))
    };
    let check = [PROGRAM, "--dry-run", "-c", &format!("{FILES_INSIDE}/{checked}")];
    Service {
        validations: vec![Validation { argv: check.map(str::to_owned).to_vec(), limit: VALIDATION_LIMIT }],
        readiness: Readiness::Http(HttpProbe {
            endpoint: Endpoint::new(PORT, "/"),
            credentials: None,
            expect: Expect::Status(200),
        }),
        ..Service::new(compose)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tasktracker_crds::validation::read_stack;

    use super::*;

    fn agents(options: &str) -> Project {
        let text = include_str!("../../../../../examples/staging.yaml").replace("[app]", "[app, logging]");
        let text = format!("{text}  logging: {{fluentBit: {{{options}}}}}\n");
        let stack = Stack::new(read_stack(&text).unwrap(), PathBuf::new());
        crate::component::project(&stack, &stack.spec.hosts[0], ComponentName::Agents).unwrap()
    }

    #[test]
    fn every_combination_of_options_is_written_in_both_formats() {
        let output = "extraOutputs: [{plugin: http, options: {host: logs.example.com, tls: 'on'}, secretOptions: {http_passwd: {secret: logs, key: password}}}]";
        for (name, image) in [("classic", "fluent/fluent-bit:1.8.15"), ("yaml", "fluent/fluent-bit:5.1.1")] {
            let mut all = String::new();
            for (log, more) in
                ["Journal", "Files", "None"].into_iter().flat_map(|log| ["", output].map(|more| (log, more)))
            {
                let project = agents(&format!("image: '{image}', hostLog: {log}, {more}"));
                let mine = project.files.iter().filter(|(path, _)| path.starts_with("files/fluent-bit/"));
                for (path, file) in mine.filter(|(path, _)| !path.ends_with(SCRIPT)) {
                    // Writing to a string does not fail.
                    let _: std::fmt::Result = writeln!(all, "=== {log} {more} {path}\n{}", file.content);
                }
                let secrets: Vec<&String> =
                    project.secrets.keys().filter(|path| path.contains("/fluent-bit/")).collect();
                let _: std::fmt::Result = writeln!(all, "{secrets:?}");
            }
            insta::assert_snapshot!(name, all);
        }
    }

    #[test]
    fn what_is_masked_and_dropped_stands_in_the_script_as_lua_reads_it() {
        let options = "mask: [{pattern: 'a\"\\\\é|b', replacement: '100%'}], drop: [{service: edge, pattern: ' c'}, {pattern: d}]";
        let project = agents(options);
        let script = &project.files["files/fluent-bit/document.lua"].content;
        let own: String =
            script.lines().take_while(|line| *line != "}").map(|line| format!("{line}\n")).collect();
        insta::assert_snapshot!(own);
    }
}
