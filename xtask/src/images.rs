//! Static binaries, and the images made of them by a real `docker build`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tasktracker_testbed::{DemoHost, HostOptions, LocalHost, SandboxHost, images, packages};

use crate::{
    compiler,
    progress::{cargo, output_of, root, say, step, target},
};

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

/// How the programs in the images are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Programs {
    /// What is released: static, small and optimized.
    Release,
    /// What Cargo builds for tests anyway, with the libraries that it is linked with: nothing is compiled for images alone.
    Development,
}

impl Programs {
    /// A program that was built.
    pub(crate) fn path(self, name: &str) -> PathBuf {
        match self {
            Self::Release => target().join(TRIPLE).join("dist").join(name),
            Self::Development => target().join("debug").join(name),
        }
    }

    /// Builds the programs; says in words how much of them was compiled.
    pub(crate) fn build(self) -> Result<String> {
        let mut command = cargo();
        command.args(["build", "--locked", "--bins"]);
        for (image, _, _) in IMAGES {
            command.args(["--package", &format!("tasktracker-{image}")]);
        }
        if self == Self::Release {
            command.args(["--profile", "dist", "--target", TRIPLE]).env("RUSTFLAGS", STATIC);
        }
        Ok(compiler::build(&mut command)?.compiled())
    }
}

/// `cargo xtask images`
pub(crate) fn run(revision: &str) -> Result<()> {
    packages::ensure_docker_host(&mut |line| say(line))?;
    step("building static programs");
    Programs::Release.build()?;
    step("building images");
    let host = any_host("images")?;
    for archive in build(host.as_ref(), Programs::Release, &[revision])? {
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

/// Where image archives are.
pub(crate) fn folder() -> PathBuf {
    target().join("images")
}

/// An image that is made of packages: its name here, and what makes its archive.
type OfPackages = (&'static str, fn(&dyn DemoHost, &mut dyn FnMut(&str)) -> Result<PathBuf>);

/// Images that nobody here programs.
const OF_PACKAGES: [OfPackages; 5] = [
    ("caddy", images::caddy),
    ("prometheus-2", images::prometheus_2),
    ("alertmanager", images::alertmanager),
    ("node-exporter", images::node_exporter),
    ("blackbox-exporter", images::blackbox_exporter),
];

/// The archive of such an image.
fn package_archive(name: &str) -> PathBuf {
    folder().join(format!("{name}.tar"))
}

/// The archive of an image.
fn archive(image: &str, revision: &str) -> PathBuf {
    folder().join(format!("{image}-{revision}.tar"))
}

/// The archives that [`build`] wrote.
pub(crate) fn archives(revisions: &[&str]) -> Vec<PathBuf> {
    let of =
        |(image, _, _): (&'static str, _, _)| revisions.iter().map(move |revision| archive(image, revision));
    let of_packages = OF_PACKAGES.into_iter().map(|(name, _)| package_archive(name));
    of_packages.chain(IMAGES.into_iter().flat_map(of)).collect()
}

/// Builds every image for every revision, those of packages too, and returns the archives.
pub(crate) fn build(host: &dyn DemoHost, programs: Programs, revisions: &[&str]) -> Result<Vec<PathBuf>> {
    for (name, image) in OF_PACKAGES {
        let archive = image(host, &mut |line| say(line))?;
        host.load_image(&archive)?;
        copy(&archive, &package_archive(name))?;
    }
    for (image, program, folders) in IMAGES {
        let context = stage(programs, image, program, folders)?;
        for revision in revisions {
            let tag = format!("{REGISTRY}/{image}:{revision}");
            let build = images::Build { context: &context, tag: &tag, arguments: &[("REVISION", revision)] };
            images::build(host, &build, &archive(image, revision))?;
            if programs == Programs::Release {
                check_size(host, &tag)?;
            }
        }
    }
    Ok(archives(revisions))
}

fn check_size(host: &dyn DemoHost, tag: &str) -> Result<()> {
    let size = host.docker(&["image", "inspect", "--format", "{{.Size}}", tag])?;
    let size: u64 = size.trim().parse().context("the size of an image")?;
    ensure!(size < LARGEST_IMAGE, "{tag}: expected less than {LARGEST_IMAGE} bytes, found {size}");
    Ok(())
}

/// The folder of an image's crate.
fn sources(image: &str) -> PathBuf {
    root().join(if image == TEST_IMAGE { "testbed/echo" } else { image })
}

/// The build context: the Dockerfile, the program, and the empty folders that the Dockerfile copies.
fn stage(programs: Programs, image: &str, program: &str, folders: &[&str]) -> Result<PathBuf> {
    let context = folder().join("context").join(image);
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    for folder in folders {
        fs::create_dir_all(context.join(folder))?;
    }
    fs::create_dir_all(&context)?;
    let built = programs.path(program);
    let dockerfile = sources(image).join("Dockerfile");
    let mut text = fs::read_to_string(&dockerfile).with_context(|| dockerfile.display().to_string())?;
    if programs == Programs::Development {
        // Without symbols it is a third of the size.
        output_of(Command::new("strip").arg("-o").arg(context.join(program)).arg(&built))?;
        for library in libraries(&output_of(Command::new("ldd").arg(&built))?) {
            copy(&library, &context.join("libraries").join(library.strip_prefix("/")?))?;
        }
        text = with_libraries(&text).with_context(|| dockerfile.display().to_string())?;
    } else {
        copy(&built, &context.join(program))?;
    }
    fs::write(context.join("Dockerfile"), text)?;
    Ok(context)
}

/// The Dockerfile of a static program, for one that needs libraries.
fn with_libraries(dockerfile: &str) -> Result<String> {
    let (before, after) =
        dockerfile.split_once("FROM scratch\n").context("expected a line `FROM scratch`")?;
    Ok(format!("{before}FROM scratch\nCOPY libraries /\n{after}"))
}

/// The files in what `ldd` prints: `NAME => PATH (ADDRESS)`, and the loader's `PATH (ADDRESS)`.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    ldd.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::copy(from, to).with_context(|| format!("copying {}", from.display())).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_files_that_ldd_finds() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2a)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f2b)\n";
        let found = libraries(ldd);
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
    }

    #[test]
    fn every_dockerfile_takes_libraries() {
        for (image, _, _) in IMAGES {
            let text = fs::read_to_string(sources(image).join("Dockerfile")).unwrap();
            let with = with_libraries(&text).unwrap();
            assert_eq!(with.replace("COPY libraries /\n", ""), text);
            assert!(with.find("COPY libraries").unwrap() < with.find("ENTRYPOINT").unwrap());
        }
        assert!(with_libraries("FROM debian\n").is_err());
    }
}
