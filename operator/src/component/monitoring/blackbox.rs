//! What asks for the app as users do, by its public URL: whether it answers, how fast, and how long its certificate holds.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tasktracker_crds::{HostSpec, MonitoringSpec, TlsMode, scalars::Origin};

use super::super::{prometheus, service_labels};
use crate::{
    model::{ComponentName, sha256},
    project::{
        Expect, HttpProbe, LoadedProbe, Readiness, Reload, SECRETS_FOLDER, Service, Validation,
        compose::{self, Limits, Mount},
    },
    source::Stack,
};

/// The service.
pub(super) const BLACKBOX_EXPORTER: &str = "blackbox-exporter";
/// Its configuration, from the project's folder.
pub(super) const CONFIG: &str = "files/blackbox-exporter/blackbox.yml";
/// Where it sees that.
const FOLDER: &str = "/etc/blackbox_exporter";
/// Port inside the container; it is not published.
const PORT: u16 = 9115;
/// Series of one answer, at most.
const SAMPLES: u32 = 200;
/// How long the check of a configuration may take.
const VALIDATION_LIMIT: Duration = Duration::from_secs(30);

/// What users ask for, where it is to be asked for.
pub(super) fn url(stack: &Stack, monitoring: &MonitoringSpec) -> Option<String> {
    let app = stack.spec.app.as_ref().filter(|_| monitoring.blackbox_exporter.enabled)?;
    app.public_url.as_ref().map(Origin::canonical)
}

/// The text of its configuration file, and the name of its one module, which follows the content: it shows by that what it
/// has loaded.
pub(super) fn config(stack: &Stack) -> (String, String) {
    let mode = stack.spec.app.as_ref().map_or(TlsMode::Off, |app| app.tls.mode);
    let module = json!({
        "prober": "http",
        "timeout": "10s",
        "http": {
            "valid_status_codes": [200],
            "preferred_ip_protocol": "ip4",
            // Nobody vouches for what the edge makes itself.
            "tls_config": { "insecure_skip_verify": mode == TlsMode::Internal },
        },
    });
    let name = format!("public-{}", &sha256(module.to_string().as_bytes())[..16]);
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let config = json!({ "modules": { name.as_str(): module } });
    let text = crate::json::serialized(serde_saphyr::to_string_with_options(&config, options));
    (format!("# Written by tasktracker-operator; changes made here are taken back.\n{text}"), name)
}

/// The job that has it ask.
pub(super) fn job(
    url: String,
    module: String,
    host: &HostSpec,
    global: &prometheus::Global,
    monitoring: &MonitoringSpec,
) -> prometheus::ScrapeConfig {
    let mut labels = global.external_labels.clone();
    labels.extend([("host", host.name.to_string()), ("instance", url.clone())]);
    let targets = vec![format!("{BLACKBOX_EXPORTER}:{PORT}")];
    prometheus::ScrapeConfig {
        metrics_path: Some("/probe"),
        params: BTreeMap::from([("module", vec![module]), ("target", vec![url])]),
        static_configs: vec![prometheus::StaticConfig { targets, labels }],
        ..prometheus::ScrapeConfig::of_monitoring("public", SAMPLES, monitoring)
    }
}

/// The service.
pub(super) fn service(stack: &Stack, monitoring: &MonitoringSpec, module: &str) -> Service {
    let spec = &monitoring.blackbox_exporter;
    let image = spec.image.to_string();
    let command = vec![
        format!("--config.file={FOLDER}/blackbox.yml"),
        format!("--web.config.file={}/{}", prometheus::SECRETS_INSIDE, prometheus::WEB_CONFIG),
    ];
    let compose = compose::Service {
        command: Some(command),
        user: Some(format!("{}:{}", prometheus::USER.uid, prometheus::USER.gid)),
        volumes: vec![
            Mount::folder(format!("./files/{BLACKBOX_EXPORTER}"), FOLDER),
            Mount::folder(format!("./{SECRETS_FOLDER}/{BLACKBOX_EXPORTER}"), prometheus::SECRETS_INSIDE),
        ],
        labels: service_labels(stack, ComponentName::Monitoring, &image),
        ..compose::Service::new(image, Limits::new(&spec.resources.limits))
    };
    let check =
        ["/bin/blackbox_exporter", "--config.check", "--config.file=/etc/blackbox_exporter/blackbox.yml"];
    let ready = |path| prometheus::ready(monitoring, BLACKBOX_EXPORTER, PORT, path);
    let loaded = HttpProbe { expect: Expect::Text(module.to_owned()), ..ready("/config") };
    Service {
        reload: Reload::Signal("SIGHUP".to_owned()),
        readiness: Readiness::Http(ready("/-/healthy")),
        validations: vec![Validation { argv: check.map(str::to_owned).to_vec(), limit: VALIDATION_LIMIT }],
        loaded: vec![LoadedProbe { what: CONFIG.to_owned(), probe: loaded }],
        ..Service::new(compose)
    }
}
