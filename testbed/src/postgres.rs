//! A real PostgreSQL server on loopback, for as long as it is wanted.

use std::{
    fs::{self, File},
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{process, wait};

/// How long the server may take to start.
const START: Duration = Duration::from_mins(1);
/// Where Debian and Ubuntu keep the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user that Debian's package makes: the server refuses to run as root.
const USER: &str = "postgres";
/// What the server's user is asked for.
const PASSWORD: &str = "canary-of-the-database";

/// A server of its own, with an empty folder of data; it ends, and its data goes, with this.
#[derive(Debug)]
pub struct PostgresServer {
    folder: TempDir,
    address: SocketAddr,
    programs: PathBuf,
    child: Option<Child>,
    databases: AtomicU32,
}

impl PostgresServer {
    /// Makes a server and starts it on a free port of loopback; whoever connects must know the password.
    ///
    /// # Errors
    /// When `PostgreSQL` is not installed, or the server does not start.
    pub fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same at another address of this machine, such as [`crate::SandboxHost::gateway`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(address: IpAddr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind((address, 0))?.local_addr()?;
        let programs = programs()?;
        let mut server = Self { folder, address, programs, child: None, databases: AtomicU32::new(1) };
        let password = server.path("password");
        fs::write(&password, PASSWORD)?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644))?;
        fs::set_permissions(server.folder.path(), fs::Permissions::from_mode(0o777))?;
        let mut command = server.program("initdb");
        command.args([
            "--auth=scram-sha-256",
            "--username=postgres",
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
        ]);
        process::run(command.arg("--pwfile").arg(&password).arg("-D").arg(server.path("data")))?;
        let mut allowed = File::options().append(true).open(server.path("data/pg_hba.conf"))?;
        writeln!(allowed, "host all all all scram-sha-256")?;
        server.go_on()?;
        Ok(server)
    }

    /// Starts it again after [`Self::stop`], with the same data, on the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn go_on(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.path("data")).arg("-k").arg(self.folder.path());
        command.args(["-h", &self.address.ip().to_string(), "-p", &self.address.port().to_string(), "-F"]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.context("starting postgres")?);
        let answers = || process::succeeds(self.program("pg_isready").args(self.client()));
        wait::until("postgres", START, answers)
            .with_context(|| fs::read_to_string(self.path("log")).unwrap_or_default())
    }

    /// Ends the server at once, as a crash would, and keeps its data.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop(&mut self) -> Result<()> {
        // A stopped process handles no signal.
        let _: Result<()> = self.resume();
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // SIGQUIT ends every process of the server.
        process::signal(&child, "QUIT")?;
        child.wait()?;
        Ok(())
    }

    /// Stops every process of the server, as on a machine that is too busy, until [`Self::resume`].
    ///
    /// # Errors
    /// When they cannot be stopped.
    pub fn pause(&self) -> Result<()> {
        self.signal_all("STOP")
    }

    /// Continues all processes after [`Self::pause`].
    ///
    /// # Errors
    /// When they cannot be continued.
    pub fn resume(&self) -> Result<()> {
        self.signal_all("CONT")
    }

    fn signal_all(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().context("the server does not run")?;
        // The parent first, which starts the others.
        process::signal(child, name)?;
        process::run(Command::new("pkill").args([&format!("-{name}"), "-P", &child.id().to_string()]))?;
        Ok(())
    }

    /// Makes an empty database and returns its URL.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn database(&self) -> Result<String> {
        let name = format!("database{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let statement = format!("CREATE DATABASE {name}");
        let mut command = self.program("psql");
        command
            .env("PGPASSWORD", PASSWORD)
            .args(self.client())
            .args(["-U", USER, "-d", "postgres", "-c", &statement]);
        process::run(&mut command)?;
        Ok(format!("postgres://{USER}:{PASSWORD}@{}/{name}", self.address))
    }

    /// Has a database do something, of which nothing is to be known but whether it did.
    ///
    /// # Errors
    /// When it does not.
    pub fn execute(&self, url: &str, statements: &str) -> Result<()> {
        process::run(self.program("psql").args([url, "-v", "ON_ERROR_STOP=1", "-c", statements])).map(drop)
    }

    /// The whole log of the server.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("log"))?)
    }

    /// The password in each URL.
    pub fn password() -> &'static str {
        PASSWORD
    }

    fn client(&self) -> [String; 4] {
        ["-h".into(), self.address.ip().to_string(), "-p".into(), self.address.port().to_string()]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        if !process::is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL", "--"])
            .arg(program);
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.stop().is_err()
            && let Some(child) = &mut self.child
        {
            let _ = child.kill();
        }
    }
}

/// The folder of the newest version's programs.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter_map(|path| Some((number(&path)?, path))).max();
    match newest {
        Some((_, path)) => Ok(path.join("bin")),
        None => bail!("PostgreSQL: expected it in {VERSIONS}, found nothing; apt-get install postgresql"),
    }
}
