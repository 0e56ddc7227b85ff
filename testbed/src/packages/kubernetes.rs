//! A Kubernetes control plane, and what works on charts.

use super::{go::GoProgram, unpack};
use anyhow::Result;
use std::path::PathBuf;

const API_SERVER: GoProgram = GoProgram {
    name: "kube-apiserver",
    module: "k8s.io/kubernetes",
    version: "1.34.4",
    package: "cmd/kube-apiserver",
    values: &[
        "k8s.io/component-base/version.gitVersion=v1.34.4",
        "k8s.io/component-base/version.gitMajor=1",
        "k8s.io/component-base/version.gitMinor=34",
    ],
    staging: Some(("k8s.io/", "0.34.4")),
    tags: "",
    has_c: false,
};

const HELM: GoProgram = GoProgram {
    name: "helm",
    module: "helm.sh/helm/v4",
    version: "4.3.1",
    package: "cmd/helm",
    values: &[],
    staging: None,
    tags: "",
    has_c: false,
};

const KUBECONFORM: GoProgram = GoProgram {
    name: "kubeconform",
    module: "github.com/yannh/kubeconform",
    version: "0.8.0",
    package: "cmd/kubeconform",
    values: &[],
    staging: None,
    tags: "",
    has_c: false,
};

/// The API server itself: built with Go at its first use, which takes some ten minutes.
///
/// # Errors
/// When Go cannot be installed, or the build fails.
pub fn api_server(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    API_SERVER.built(say)
}

/// Helm: built with Go at its first use, which takes some minutes.
///
/// # Errors
/// As [`api_server`].
pub fn helm(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    HELM.built(say)
}

/// `kubeconform`, which compares manifests with schemas.
///
/// # Errors
/// As [`api_server`].
pub fn kubeconform(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    KUBECONFORM.built(say)
}

/// etcd, unpacked and not installed.
///
/// # Errors
/// Where `apt-get` cannot download from Debian 13.
pub fn etcd(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    Ok(unpack::unpacked("etcd-trixie", &["etcd-server/trixie"], say)?.join("usr/bin/etcd"))
}

/// `kubectl`: the machine's own, or Debian 13's, unpacked and not installed.
///
/// # Errors
/// As [`etcd`].
pub fn kubectl(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let installed = PathBuf::from("/usr/bin/kubectl");
    if installed.exists() {
        return Ok(installed);
    }
    Ok(unpack::unpacked("kubectl-trixie", &["kubernetes-client/trixie"], say)?.join("usr/bin/kubectl"))
}

/// A library that gives a program another time, for `LD_PRELOAD`.
///
/// # Errors
/// As [`etcd`].
pub fn faketime(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let tree = unpack::unpacked("faketime", &["libfaketime"], say)?;
    Ok(tree.join(format!("usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH)))
}
