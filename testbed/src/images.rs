//! Images, built by a host's own Docker daemon and kept as archives for `docker load`. No registry is involved.

use crate::demo::DemoHost;
use crate::process::run;
use crate::{cache, packages};
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tag of the image that [`caddy`] builds.
pub const CADDY: &str = "caddy:2.6.2";
/// The tag of the image that [`prometheus`] builds.
pub const PROMETHEUS: &str = "prom/prometheus:v3.16.0";
/// The tag of the image that [`prometheus_2`] builds.
pub const PROMETHEUS_2: &str = "prom/prometheus:v2.53.3";
/// The tag of the image that [`alertmanager`] builds.
pub const ALERTMANAGER: &str = "prom/alertmanager:v0.28.1";
/// The tag of the image that [`node_exporter`] builds.
pub const NODE_EXPORTER: &str = "prom/node-exporter:v1.9.0";
/// The tag of the image that [`blackbox_exporter`] builds.
pub const BLACKBOX_EXPORTER: &str = "prom/blackbox-exporter:v0.26.0";
/// The tag of the image that [`elasticsearch`] builds.
pub const ELASTICSEARCH: &str = "docker.elastic.co/elasticsearch/elasticsearch:8.19.21";
/// The tag of the image that [`fluent_bit`] builds.
pub const FLUENT_BIT: &str = "fluent/fluent-bit:1.8.15";

/// One `docker build`.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// The folder of the Dockerfile, and that `COPY` copies from.
    pub context: &'a Path,
    /// What the image is called.
    pub tag: &'a str,
    /// Build arguments.
    pub arguments: &'a [(&'a str, &'a str)],
}

/// Runs a real `docker build` on a host (with the classic builder, which needs no plugin) and saves the image.
///
/// # Errors
/// When Docker refuses; the error carries its words.
pub fn build(host: &dyn DemoHost, build: &Build<'_>, archive: &Path) -> Result<()> {
    let mut command = host.docker_command();
    command.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--force-rm", "--tag", build.tag]);
    for (name, value) in build.arguments {
        command.arg("--build-arg").arg(format!("{name}={value}"));
    }
    run(command.arg(build.context)).with_context(|| format!("building the image {}", build.tag))?;
    save(host, build.tag, archive)
}

/// `docker save` into a file, which appears when it is complete.
///
/// # Errors
/// When Docker refuses or the file cannot be written.
pub fn save(host: &dyn DemoHost, tag: &str, archive: &Path) -> Result<()> {
    let folder = cache::make(archive.parent().context("an archive is in a folder")?)?;
    let draft = tempfile::NamedTempFile::new_in(folder)?;
    run(host.docker_command().args(["save", "--output"]).arg(draft.path()).arg(tag))
        .with_context(|| format!("saving the image {tag}"))?;
    // docker save puts a file of its own in place of the draft
    fs::rename(draft.path(), archive).with_context(|| format!("writing {}", archive.display()))
}

/// An archive of a Caddy image with the upstream image's paths, environment and command, made of Debian's packages.
/// It is built on `host` once and kept in the cache folder.
///
/// # Errors
/// When the packages cannot be downloaded or Docker refuses.
pub fn caddy(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let tree = packages::ensure_caddy(say)?;
    imported(host, CADDY, include_str!("images/caddy.sh"), &[&tree], say)
}

/// The same of today's Prometheus, with `promtool` and a shell: its programs are built with Go at their first use.
///
/// # Errors
/// As [`caddy`], or when a build fails.
pub fn prometheus(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let programs = packages::monitoring::prometheus(say)?;
    of_prometheus(host, PROMETHEUS, Some(&programs), say)
}

/// The same of Debian's Prometheus, of the version before.
///
/// # Errors
/// As [`caddy`].
pub fn prometheus_2(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    of_prometheus(host, PROMETHEUS_2, None, say)
}

/// The same of Alertmanager, with `amtool`.
///
/// # Errors
/// As [`caddy`].
pub fn alertmanager(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    of_prometheus(host, ALERTMANAGER, None, say)
}

/// The same of the node exporter.
///
/// # Errors
/// As [`caddy`].
pub fn node_exporter(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    of_prometheus(host, NODE_EXPORTER, None, say)
}

/// The same of the blackbox exporter.
///
/// # Errors
/// As [`caddy`].
pub fn blackbox_exporter(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    of_prometheus(host, BLACKBOX_EXPORTER, None, say)
}

/// The same of Elasticsearch, of Elastic's build for integration tests: see `images/elasticsearch/Gaps.java` for what it
/// lacks. It is made with Maven and Java.
///
/// # Errors
/// As [`caddy`], or when that build cannot be had.
pub fn elasticsearch(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let tree = packages::logging::for_elasticsearch(say)?;
    let archive = packages::logging::elasticsearch(say)?;
    let script = concat!(
        "gaps=$(cat <<'JAVA'\n",
        include_str!("images/elasticsearch/Gaps.java"),
        "\nJAVA\n)\n",
        include_str!("images/elasticsearch.sh")
    );
    imported(host, ELASTICSEARCH, script, &[&tree, &archive], say)
}

/// The same of Fluent Bit, which is built at its first use.
///
/// # Errors
/// As [`caddy`], or when the build fails.
pub fn fluent_bit(host: &dyn DemoHost, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let tree = packages::logging::for_elasticsearch(say)?;
    let program = packages::logging::fluent_bit(say)?;
    imported(host, FLUENT_BIT, include_str!("images/fluent-bit.sh"), &[&tree, &program], say)
}

/// An archive of an image of a program of Prometheus' project: Debian's, or one of the given folder.
fn of_prometheus(
    host: &dyn DemoHost,
    tag: &str,
    programs: Option<&Path>,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let tree = packages::monitoring::of_debian(say)?;
    let debian = tree.join("usr/bin");
    let folders = [tree.as_path(), programs.unwrap_or(&debian)];
    imported(host, tag, include_str!("images/prometheus.sh"), &folders, say)
}

/// An archive of the image that a script makes of folders. What was kept is of this recipe.
fn imported(
    host: &dyn DemoHost,
    tag: &str,
    script: &str,
    folders: &[&Path],
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let mut recipe = DefaultHasher::new();
    script.hash(&mut recipe);
    let name = tag.replace(['/', ':'], "-");
    let archive = crate::cache_folder()?.join(format!("images/{name}-{:016x}.tar", recipe.finish()));
    if !archive.exists() {
        say(&format!("building the image {tag}"));
        let root = tempfile::tempdir_in(crate::cache_folder()?)?;
        let docker = host.docker_command();
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).args(folders).arg(root.path()).arg(tag);
        command.arg(docker.get_program()).args(docker.get_args());
        run(&mut command).with_context(|| format!("building the image {tag}"))?;
        save(host, tag, &archive)?;
    }
    Ok(archive)
}

/// `docker load`, unless every image of the archive is there already.
pub(crate) fn load(mut docker: Command, archive: &Path) -> Result<()> {
    let manifest = run(Command::new("tar").arg("-xOf").args([archive, Path::new("manifest.json")]))
        .with_context(|| format!("reading the image archive {}", archive.display()))?;
    let images = images_of(&manifest);
    let id_of = |tag: &str| {
        let mut command = Command::new(docker.get_program());
        command.args(docker.get_args()).args(["image", "inspect", "--format", "{{.Id}}", tag]);
        command.envs(docker.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(&mut command).unwrap_or_default()
    };
    if !images.is_empty() && images.iter().all(|(tag, id)| id_of(tag).trim() == format!("sha256:{id}")) {
        return Ok(());
    }
    run(docker.args(["load", "--quiet", "--input"]).arg(archive)).map(drop)
}

/// Tags and image IDs in the manifest of a `docker save`: `[{"Config":"ID.json","RepoTags":["TAG"],…}]`, where newer
/// engines write `blobs/sha256/ID`.
fn images_of(manifest: &str) -> Vec<(String, String)> {
    let entries = manifest.split("\"Config\":\"").skip(1);
    let images = entries.filter_map(|entry| {
        let (config, rest) = entry.split_once('"')?;
        let id = config.trim_end_matches(".json").rsplit('/').next()?;
        let (_, tags) = rest.split_once("\"RepoTags\":[")?;
        let tag = tags.split(']').next()?.split('"').nth(1)?;
        Some((tag.to_owned(), id.to_owned()))
    });
    images.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_manifest_are_read() {
        let old = r#"[{"Config":"ab12.json","RepoTags":["caddy:2.6.2"],"Layers":["1/layer.tar"]}]"#;
        assert_eq!(images_of(old), [("caddy:2.6.2".to_owned(), "ab12".to_owned())]);
        let new = r#"[{"Config":"blobs/sha256/cd34","RepoTags":["a/b:1"],"Layers":["blobs/sha256/ef"]}]"#;
        assert_eq!(images_of(new), [("a/b:1".to_owned(), "cd34".to_owned())]);
    }
}
