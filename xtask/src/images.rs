//! Static binaries, and the images made of them by a real `docker build`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tasktracker_testbed::{DemoHost, HostOptions, LocalHost, SandboxHost, images, packages};

use crate::progress::{cargo, root, run as run_program, say, step, target};

/// What static binaries are built for.
pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// How they are linked.
pub(crate) const STATIC: &str = "-C target-feature=+crt-static";
/// No image may be larger, in bytes.
const LARGEST_IMAGE: u64 = 25_000_000;
/// Registry and path in front of the images' names, as in the examples.
pub(crate) const REGISTRY: &str = "registry.example.com/tasktracker";

/// The image of the service that exists only for tests.
const TEST_IMAGE: &str = "echo";

/// One image: package, binary, empty folders beside it.
const IMAGES: [(&str, &str, &[&str]); 4] = [
    ("backend", "backend", &["data"]),
    (TEST_IMAGE, "echo", &["data"]),
    ("frontend", "frontend", &[]),
    ("operator", "tasktracker-operator", &[]),
];

/// `cargo xtask images`
pub(crate) fn run(revision: &str) -> Result<()> {
    packages::ensure_docker_host(&mut |line| say(line))?;
    build_binaries()?;
    let host = any_host("images")?;
    for archive in build(host.as_ref(), &[revision])? {
        say(&format!("{}  {} MB", archive.display(), fs::metadata(&archive)?.len() / 1_000_000));
    }
    Ok(())
}

/// The machine's own Docker where there is one, a sandbox host otherwise.
pub(crate) fn any_host(name: &str) -> Result<Box<dyn DemoHost>> {
    if LocalHost::is_possible() {
        return Ok(Box::new(LocalHost::start()?));
    }
    let options = HostOptions { reuse: Some(name.to_owned()), ..HostOptions::default() };
    Ok(Box::new(SandboxHost::start(name, &options)?))
}

/// Builds the static binaries.
pub(crate) fn build_binaries() -> Result<()> {
    step("building static binaries");
    let mut command = cargo();
    command.args(["build", "--locked", "--profile", "dist", "--target", TRIPLE]);
    command.args([
        "--package",
        "tasktracker-backend",
        "--package",
        "tasktracker-echo",
        "--package",
        "tasktracker-frontend",
        "--package",
        "tasktracker-operator",
    ]);
    run_program(command.env("RUSTFLAGS", STATIC))
}

/// A static binary that [`build_binaries`] built.
pub(crate) fn binary(name: &str) -> PathBuf {
    target().join(TRIPLE).join("dist").join(name)
}

/// Where image archives are.
pub(crate) fn folder() -> PathBuf {
    target().join("images")
}

/// Builds every image for every revision, Caddy's test image too, and returns the archives.
pub(crate) fn build(host: &dyn DemoHost, revisions: &[&str]) -> Result<Vec<PathBuf>> {
    step("building images");
    let mut archives = vec![images::caddy(host, &mut |line| say(line))?];
    host.load_image(&archives[0])?;
    for (image, program, folders) in IMAGES {
        let context = stage(image, program, folders)?;
        for revision in revisions {
            let archive = folder().join(format!("{image}-{revision}.tar"));
            let tag = format!("{REGISTRY}/{image}:{revision}");
            let dockerfile = sources(image).join("Dockerfile");
            let build = images::Build {
                context: &context,
                dockerfile: Some(&dockerfile),
                tag: &tag,
                arguments: &[("REVISION", revision)],
            };
            images::build(host, &build, &archive)?;
            let size = host.docker(&["image", "inspect", "--format", "{{.Size}}", &tag])?;
            let size: u64 = size.trim().parse().context("the size of an image")?;
            ensure!(size < LARGEST_IMAGE, "{tag}: expected less than {LARGEST_IMAGE} bytes, found {size}");
            archives.push(archive);
        }
    }
    let caddy = folder().join("caddy.tar");
    fs::copy(&archives[0], &caddy)?;
    Ok(archives)
}

/// The folder of an image's crate.
fn sources(image: &str) -> PathBuf {
    root().join(if image == TEST_IMAGE { "testbed/echo" } else { image })
}

/// The build context: the static binary and the empty folders that the Dockerfile copies.
fn stage(image: &str, program: &str, folders: &[&str]) -> Result<PathBuf> {
    let context = folder().join("context").join(image);
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    for folder in folders {
        fs::create_dir_all(context.join(folder))?;
    }
    fs::create_dir_all(&context)?;
    copy(&binary(program), &context.join(program))?;
    Ok(context)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display())).map(drop)
}
