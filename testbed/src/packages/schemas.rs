//! Schemas of what an API server takes, for `kubeconform`: those of Kubernetes itself in several versions, and those of the
//! Prometheus operator.

use super::{GO, Package, go::go, unpack};
use crate::cache;
use crate::process::{run, succeeds};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python package that carries Kubernetes' schemas.
const KUBERNETES: &str = "kubernetes-validate==1.37.0";
/// The versions of Kubernetes that are kept, oldest first.
pub const VERSIONS: [&str; 3] = ["1.30.0", "1.34.0", "1.37.0"];
/// The Go module that carries those of the Prometheus operator.
const MONITORING: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

/// A folder with one for each of [`VERSIONS`], and `monitoring`.
///
/// # Errors
/// When one of the packages cannot be downloaded.
pub fn schemas(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let parent = cache::make(&crate::cache_folder()?.join("packages"))?;
    let place = parent.join("kubernetes-schemas-1.37.0");
    if place.exists() {
        return Ok(place);
    }
    say("downloading the schemas of Kubernetes and of the Prometheus operator");
    let draft = tempfile::tempdir_in(&parent)?;
    let schemas = draft.path().join("schemas");
    fs::create_dir(&schemas)?;
    kubernetes(draft.path(), &schemas, say).context("the schemas of Kubernetes")?;
    monitoring(draft.path(), &schemas, say).context("the schemas of the Prometheus operator")?;
    unpack::finish(&schemas, &place)?;
    Ok(place)
}

fn kubernetes(draft: &Path, schemas: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    if !succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        super::ensure(&[Package { name: "python3-pip", files: &["/usr/bin/pip3"] }], say)?;
    }
    let python = || {
        let mut command = Command::new("python3");
        command.current_dir(draft);
        command
    };
    run(python().args(["-m", "pip", "download", "--quiet", "--no-deps", KUBERNETES]))?;
    run(python()
        .args(["-c", "import glob, zipfile; zipfile.ZipFile(glob.glob('*.whl')[0]).extractall('wheel')"]))?;
    for version in VERSIONS {
        let from =
            draft.join(format!("wheel/kubernetes_validate/kubernetes-json-schema/v{version}-local-strict"));
        let to = schemas.join(version);
        fs::create_dir(&to)?;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let mut schema: Value = serde_json::from_slice(&fs::read(&path)?)?;
            localize(&mut schema);
            fs::write(to.join(path.file_name().context("a file has a name")?), schema.to_string())?;
        }
    }
    Ok(())
}

/// Makes references lead to files beside it, where they lead to a server.
fn localize(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("$id").is_some_and(Value::is_string) {
                fields.remove("$id");
            }
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                *reference = reference.replace("/api/_definitions.json", "_definitions.json");
            }
            fields.values_mut().for_each(localize);
        }
        Value::Array(items) => items.iter_mut().for_each(localize),
        _ => {}
    }
}

fn monitoring(draft: &Path, schemas: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    super::ensure(&[GO], say)?;
    fs::write(draft.join("go.mod"), "module download\n\ngo 1.24\n")?;
    let told: Value = serde_json::from_str(&run(go(draft).args(["mod", "download", "-json", MONITORING]))?)?;
    let folder = Path::new(told["Dir"].as_str().context("go did not say where it is")?)
        .join("example/prometheus-operator-crd");
    let place = schemas.join("monitoring");
    fs::create_dir(&place)?;
    for name in ["servicemonitors", "prometheusrules"] {
        let text = fs::read_to_string(folder.join(format!("monitoring.coreos.com_{name}.yaml")))?;
        let crd: Value =
            serde_saphyr::from_str(&text).with_context(|| format!("the definition of {name}"))?;
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_lowercase();
        for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            close(&mut schema);
            let file = format!("{kind}-monitoring-{}.json", version["name"].as_str().unwrap_or_default());
            fs::write(place.join(file), schema.to_string())?;
        }
    }
    Ok(())
}

/// Refuses fields that are not named, as a strict API server does.
fn close(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let preserves = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if fields.contains_key("properties") && !fields.contains_key("additionalProperties") && !preserves {
        fields.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        close_all(properties);
    }
    for key in ["items", "additionalProperties"] {
        fields.get_mut(key).into_iter().for_each(close);
    }
}

fn close_all(properties: &mut Map<String, Value>) {
    properties.values_mut().for_each(close);
}
