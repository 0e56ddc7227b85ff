//! Elasticsearch and Fluent Bit.

use super::{Package, go::lock, unpack};
use crate::cache;
use crate::process::run;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of [`elasticsearch`].
pub const ELASTICSEARCH_VERSION: &str = "8.19.21";
/// The version of [`fluent_bit`].
pub const FLUENT_BIT_VERSION: &str = "1.8.15";

/// Elastic's build for integration tests: the core, with security.
const ELASTICSEARCH: &str = "org.elasticsearch.distribution.integ-test-zip:elasticsearch";
const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";
/// A package with the whole source of Fluent Bit in it, which nobody else's registry has; not the Fluent project's own.
const FLUENT_BIT: &str = "fluent-bit@0.0.3";
/// Its digest, as `npm pack` tells it.
const FLUENT_BIT_SHA256: &str = "0827e9dee7f83efa92939956e264f73afebc2da704cd15ea6eef0da8aa219a78";

/// What the image of Elasticsearch is made with.
const JAVA: [Package; 2] = [
    Package { name: "maven", files: &["/usr/bin/mvn"] },
    Package { name: "openjdk-17-jdk-headless", files: &["/usr/bin/jlink"] },
];
/// What Fluent Bit is built with.
const FOR_C: [Package; 8] = [
    Package { name: "npm", files: &["/usr/bin/npm", "/usr/local/bin/npm"] },
    Package { name: "cmake", files: &["/usr/bin/cmake"] },
    Package { name: "make", files: &["/usr/bin/make"] },
    Package { name: "g++", files: &["/usr/bin/g++"] },
    Package { name: "flex", files: &["/usr/bin/flex"] },
    Package { name: "bison", files: &["/usr/bin/bison"] },
    Package { name: "libssl-dev", files: &["/usr/include/openssl/ssl.h"] },
    Package { name: "libonig-dev", files: &["/usr/include/oniguruma.h"] },
];

/// Parts that take long to build and that nothing here is read from or written to with.
const LEFT_OUT: [&str; 28] = [
    "EXAMPLES",
    "SHARED_LIB",
    "PROXY_GO",
    "CUSTOM_CALYPTIA",
    "STREAM_PROCESSOR",
    "OUT_AZURE",
    "OUT_AZURE_BLOB",
    "OUT_BIGQUERY",
    "OUT_CALYPTIA",
    "OUT_CLOUDWATCH_LOGS",
    "OUT_DATADOG",
    "OUT_GELF",
    "OUT_INFLUXDB",
    "OUT_KAFKA_REST",
    "OUT_KINESIS_FIREHOSE",
    "OUT_KINESIS_STREAMS",
    "OUT_LOGDNA",
    "OUT_NATS",
    "OUT_NRLOGS",
    "OUT_S3",
    "OUT_SLACK",
    "OUT_SPLUNK",
    "OUT_STACKDRIVER",
    "OUT_TD",
    "OUT_WEBSOCKET",
    "FILTER_AWS",
    "FILTER_GEOIP2",
    "FILTER_KUBERNETES",
];

/// In the place of the missing source of Onigmo: Debian's Oniguruma, which it stems from and which has the same functions.
const ONIGMO: &str = "#!/bin/sh
set -eu
for argument; do case $argument in --prefix=*) prefix=${argument#--prefix=} ;; esac; done
mkdir -p \"$prefix/include\" \"$prefix/lib\"
cp /usr/include/oniguruma.h \"$prefix/include/onigmo.h\"
printf 'INPUT(-lonig)\\n' >\"$prefix/lib/libonigmo.a\"
printf 'all install:\\n' >Makefile
";

/// Has both.
///
/// # Errors
/// As [`fluent_bit`] and [`elasticsearch`].
pub fn ensure(say: &mut dyn FnMut(&str)) -> Result<()> {
    elasticsearch(say)?;
    for_elasticsearch(say)?;
    fluent_bit(say).map(drop)
}

/// The archive of Elasticsearch's build for integration tests.
///
/// # Errors
/// When Maven or Java cannot be installed, or the archive cannot be downloaded.
pub fn elasticsearch(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    super::ensure(&JAVA, say)?;
    let packages = cache::make(&crate::cache_folder()?.join("packages"))?;
    let name = format!("elasticsearch-{ELASTICSEARCH_VERSION}.zip");
    let place = packages.join(&name);
    if place.exists() {
        return Ok(place);
    }
    say(&format!("downloading Elasticsearch {ELASTICSEARCH_VERSION}"));
    let draft = tempfile::tempdir_in(&packages)?;
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", MAVEN_COPY, "-Dmdep.useBaseVersion=true"]);
    maven.arg(format!("-Dartifact={ELASTICSEARCH}:{ELASTICSEARCH_VERSION}:zip"));
    run(maven.arg(format!("-DoutputDirectory={}", draft.path().display())))?;
    unpack::finish(&draft.path().join(name), &place)?;
    Ok(place)
}

/// What [`elasticsearch`] is run with: Debian's C library, shell and tools, unpacked into the cache folder: the root folder of
/// that tree.
///
/// # Errors
/// As [`super::ensure_caddy`].
pub fn for_elasticsearch(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let packages = ["libc6", "bash", "libtinfo6", "zlib1g", "libstdc++6", "libgcc-s1", "busybox-static"];
    unpack::unpacked("for-elasticsearch", &packages, say)
}

/// Fluent Bit, built into the cache folder at its first use, which takes some minutes.
///
/// # Errors
/// When a compiler cannot be installed, the source cannot be downloaded, or the build fails.
pub fn fluent_bit(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let packages = cache::make(&crate::cache_folder()?.join("packages"))?;
    let program = packages.join(format!("fluent-bit-{FLUENT_BIT_VERSION}"));
    if program.exists() {
        return Ok(program);
    }
    super::ensure(&FOR_C, say)?;
    let _lock = lock(&packages.join("fluent-bit.lock"))?;
    if !program.exists() {
        say(&format!("building Fluent Bit {FLUENT_BIT_VERSION}: some minutes"));
        let draft = tempfile::tempdir_in(&packages)?;
        let built = build_fluent_bit(draft.path())
            .with_context(|| format!("building Fluent Bit {FLUENT_BIT_VERSION}"))?;
        unpack::finish(&built, &program)?;
    }
    Ok(program)
}

/// Builds it in a folder: where the program is.
fn build_fluent_bit(folder: &Path) -> Result<PathBuf> {
    run(Command::new("npm").args(["pack", "--ignore-scripts", "--silent", FLUENT_BIT]).current_dir(folder))?;
    let archive = "fluent-bit-0.0.3.tgz";
    let check =
        format!("echo '{FLUENT_BIT_SHA256}  {archive}' | sha256sum --check --quiet && tar -xzf {archive}");
    run(Command::new("sh").args(["-c", &check]).current_dir(folder))?;
    let source = folder.join("package/src/fluent-bit");
    let onigmo = source.join("lib/onigmo");
    fs::create_dir_all(&onigmo)?;
    fs::write(onigmo.join("configure"), ONIGMO)?;
    run(Command::new("chmod").arg("755").arg(onigmo.join("configure")))?;
    let build = folder.join("build");
    let mut configure = Command::new("nice");
    configure.args(["-n", "10", "cmake", "-DFLB_RELEASE=On", "-S"]).arg(&source).arg("-B").arg(&build);
    run(configure.args(LEFT_OUT.map(|part| format!("-DFLB_{part}=Off"))))?;
    let mut make = Command::new("nice");
    make.args(["-n", "10", "make", "--jobs", "2", "--silent", "-C"]).arg(&build);
    run(make.arg("fluent-bit-bin"))?;
    Ok(build.join("bin/fluent-bit"))
}
