//! The process that outlives us by a moment: it removes what it made as soon as we are gone, however we went.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A script that prints `ready …` once, lives until its stdin is closed, and then cleans up.
#[derive(Debug)]
pub(crate) struct Supervisor {
    child: Child,
}

impl Supervisor {
    /// Starts a script and returns what it said after `ready`.
    pub(crate) fn start(script: &str, variables: &[(&str, &OsStr)]) -> Result<(Self, String)> {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).envs(variables.iter().copied()).process_group(0);
        command.env("PATH", PATH).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut supervisor = Self { child: command.spawn().context("starting bash")? };
        let answer = supervisor.first_line()?;
        match answer.strip_prefix("ready ") {
            Some(answer) => Ok((supervisor, answer.trim().to_owned())),
            None => bail!("{}", supervisor.failure()),
        }
    }

    fn first_line(&mut self) -> Result<String> {
        let stdout = self.child.stdout.as_mut().context("the supervisor has no output")?;
        let mut line = String::new();
        BufReader::with_capacity(64, stdout).read_line(&mut line).context("reading from the supervisor")?;
        Ok(line)
    }

    fn failure(&mut self) -> String {
        drop(self.child.stdin.take());
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        said.trim().to_owned()
    }
}

impl Drop for Supervisor {
    /// Closes the lifeline and waits until everything is removed.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
