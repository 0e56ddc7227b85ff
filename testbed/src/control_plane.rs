//! A real Kubernetes control plane on loopback: etcd and kube-apiserver, with RBAC, CRDs, admission policies and an audit
//! log. There is no kubelet and no controller manager: a Deployment is stored and not run.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{
    packages::{kubernetes, quietly},
    process, wait,
};

/// How long a server may take to start.
const START: Duration = Duration::from_mins(2);
/// The administrator's token: everything on loopback that this process made may know it.
const ADMINISTRATOR: &str = "administrator";

/// How a control plane is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Users beside the administrator, without any rights: each one's token is its name.
    pub users: Vec<String>,
}

/// A control plane of its own, with nothing in it; it ends, and what is in it goes, with this.
#[derive(Debug)]
pub struct ControlPlane {
    folder: TempDir,
    address: SocketAddr,
    etcd_address: SocketAddr,
    etcd: Option<Child>,
    api_server: Option<Child>,
    kubectl: PathBuf,
}

impl ControlPlane {
    /// Starts etcd and an API server on free ports of loopback.
    ///
    /// # Errors
    /// When one of them cannot be had, or does not start.
    pub fn start(options: &Options) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tasktracker-cluster-").tempdir()?;
        let mut plane = Self {
            folder,
            address: free_port()?,
            etcd_address: free_port()?,
            etcd: None,
            api_server: None,
            kubectl: kubernetes::kubectl(&mut quietly)?,
        };
        let users = std::iter::once((ADMINISTRATOR, "system:masters"))
            .chain(options.users.iter().map(|user| (user.as_str(), "people")));
        let tokens: String = users.map(|(user, group)| format!("{user},{user},{user},{group}\n")).collect();
        fs::write(plane.path("tokens.csv"), tokens)?;
        fs::write(
            plane.path("audit.yaml"),
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n",
        )?;
        process::run(Command::new("openssl").args(["genrsa", "-out"]).arg(plane.path("sa.key")).arg("2048"))?;
        process::run(
            Command::new("openssl")
                .args(["rsa", "-pubout", "-in"])
                .arg(plane.path("sa.key"))
                .arg("-out")
                .arg(plane.path("sa.pub")),
        )?;
        plane.start_etcd()?;
        plane.go_on()?;
        Ok(plane)
    }

    /// A file in the control plane's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start_etcd(&mut self) -> Result<()> {
        let url = format!("http://{}", self.etcd_address);
        let peers = format!("http://{}", free_port()?);
        let mut command = Command::new(kubernetes::etcd(&mut quietly)?);
        command.arg("--data-dir").arg(self.path("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--unsafe-no-fsync"]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}"), "--force-new-cluster"]);
        self.etcd = Some(self.spawn(&mut command, "etcd.log")?);
        let address = self.etcd_address;
        let is_ready = || crate::http(address, "GET /health").is_some_and(|(status, _)| status == 200);
        wait::until("etcd", START, is_ready).with_context(|| self.log("etcd.log"))
    }

    /// Starts the API server again after [`Self::stop`], on the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn go_on(&mut self) -> Result<()> {
        let mut command = Command::new(kubernetes::api_server(&mut quietly)?);
        let path = |name: &str| self.path(name).display().to_string();
        command.args([
            format!("--etcd-servers=http://{}", self.etcd_address),
            format!("--secure-port={}", self.address.port()),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", path("certificates")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            format!("--audit-policy-file={}", path("audit.yaml")),
            format!("--audit-log-path={}", path("audit.log")),
            "--audit-log-mode=blocking".to_owned(),
        ]);
        self.api_server = Some(self.spawn(&mut command, "api-server.log")?);
        let kubeconfig = self.path("administrator.yaml");
        let certificate = self.path("certificates/apiserver.crt");
        wait::until("the API server's certificate", START, || certificate.exists())
            .with_context(|| self.log("api-server.log"))?;
        self.write_kubeconfig(&kubeconfig, ADMINISTRATOR)?;
        let is_ready = || process::succeeds(self.kubectl().args(["get", "--raw", "/readyz"]));
        wait::until("the API server", START, is_ready).with_context(|| self.log("api-server.log"))?;
        let has_namespace = || process::succeeds(self.kubectl().args(["get", "namespace", "default"]));
        wait::until("the namespace default", START, has_namespace)
    }

    /// Kills the API server, as a crash would; etcd goes on.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn stop(&mut self) -> Result<()> {
        kill(&mut self.api_server)
    }

    /// Sends the API server a signal: after `STOP` it takes connections and says nothing, until `CONT`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        process::signal(self.api_server.as_ref().context("the API server does not run")?, name)
    }

    /// Keeps everything that etcd has, under a name. The API server is away for a moment.
    ///
    /// # Errors
    /// When one of the two does not start again.
    pub fn snapshot(&mut self, name: &str) -> Result<()> {
        self.with_etcd_away(|plane| {
            process::run(Command::new("cp").arg("-a").arg(plane.path("etcd")).arg(plane.path(name))).map(drop)
        })
    }

    /// Puts what was kept in the place of what etcd has: resource versions go back, too.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub fn restore(&mut self, name: &str) -> Result<()> {
        self.with_etcd_away(|plane| {
            fs::remove_dir_all(plane.path("etcd"))?;
            process::run(Command::new("cp").arg("-a").arg(plane.path(name)).arg(plane.path("etcd"))).map(drop)
        })
    }

    fn with_etcd_away(&mut self, change: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.stop()?;
        kill(&mut self.etcd)?;
        change(self)?;
        self.start_etcd()?;
        self.go_on()
    }

    /// A kubeconfig of whoever has a token.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, token: &str) -> Result<PathBuf> {
        let name: String = token.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let path = self.path(&format!("{name}.yaml"));
        self.write_kubeconfig(&path, token)?;
        Ok(path)
    }

    fn write_kubeconfig(&self, path: &Path, token: &str) -> Result<()> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
             clusters: [{{name: test, cluster: {{server: \"https://{address}\", certificate-authority: {certificate}}}}}]\n\
             users: [{{name: test, user: {{token: {token}}}}}]\n",
            address = self.address,
            certificate = self.path("certificates/apiserver.crt").display(),
        );
        fs::write(path, text).context("writing a kubeconfig")
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.path("administrator.yaml")).env("HOME", self.folder.path());
        command
    }

    /// `kubectl` as whoever has a token.
    ///
    /// # Errors
    /// When the kubeconfig cannot be written.
    pub fn kubectl_as(&self, token: &str) -> Result<Command> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig(token)?).env("HOME", self.folder.path());
        Ok(command)
    }

    /// `kubectl apply` of a text, as the administrator: what it said.
    ///
    /// # Errors
    /// When the API server refuses it; the error has its words.
    pub fn apply(&self, text: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new_in(self.folder.path())?;
        fs::write(file.path(), text)?;
        process::run(self.kubectl().args(["apply", "-f"]).arg(file.path()))
    }

    /// What `user` did, by the audit log: verb, and resource with its group and subresource.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audited(&self, user: &str) -> Result<BTreeSet<(String, String)>> {
        let log = fs::read_to_string(self.path("audit.log"))?;
        let entries = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let of_user = entries.filter(|entry| entry["user"]["username"] == user);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let done = of_user.map(|entry| {
            let reference = &entry["objectRef"];
            let parts =
                [text(&reference["apiGroup"]), text(&reference["resource"]), text(&reference["subresource"])];
            let place = if parts[1].is_empty() { text(&entry["requestURI"]) } else { parts.join("/") };
            (text(&entry["verb"]), place)
        });
        Ok(done.collect())
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.path(log))?;
        // In a group of its own: a Ctrl-C is for us, and we end it.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("starting {}", process::shown(command)))
    }

    fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = kill(&mut self.api_server);
        let _ = kill(&mut self.etcd);
    }
}

fn kill(child: &mut Option<Child>) -> Result<()> {
    let Some(mut child) = child.take() else { return Ok(()) };
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
