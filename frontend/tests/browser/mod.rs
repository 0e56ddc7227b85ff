//! A real Chromium for a test: starts chromedriver on a free port, connects a session, and ends both.
//!
//! Other crates' tests may include this file with `#[path]`. It needs the packages `chromium` and
//! `chromium-driver`, and of crates: anyhow, fantoccini, hyper-util (`client-legacy`), `serde_json`, tempfile,
//! tokio.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Chromium without a screen, without a sandbox of its own (tests may run as root in a container), and
/// silent towards the network.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,1000",
];

/// A browser with an open session. [`stop`](Browser::stop) ends it; when a test fails before, dropping it
/// does.
pub(crate) struct Browser {
    /// Drives the browser.
    pub(crate) client: Client,
    driver: Child,
    port: u16,
    profile: TempDir,
}

impl Browser {
    /// Starts chromedriver and Chromium with a fresh profile.
    pub(crate) async fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start chromedriver; it is in the package chromium-driver")?;
        let port =
            timeout(START_TIMEOUT, port(&mut driver)).await.context("chromedriver names no port")??;
        let client = connect(port, &profile).await?;
        Ok(Self { client, driver, port, profile })
    }

    /// What the browser logged since the last call: errors of scripts, refused loads, violations of the
    /// content security policy.
    pub(crate) async fn log(&self) -> Result<Vec<Value>> {
        let entries = self.command("se/log", &json!({"type": "browser"})).await?;
        Ok(entries.as_array().cloned().unwrap_or_default())
    }

    /// Sends a command that the client has no function for; `path` is below the session's address.
    pub(crate) async fn command(&self, path: &str, body: &Value) -> Result<Value> {
        let session = self.client.session_id().await?.context("the session is closed")?;
        let answer =
            timeout(START_TIMEOUT, post(self.port, &format!("/session/{session}/{path}"), body)).await??;
        match answer.pointer("/value/error") {
            Some(error) => bail!("chromedriver refused {path}: {error}"),
            None => Ok(answer["value"].clone()),
        }
    }

    /// Closes the browser and ends chromedriver.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.client.clone().close().await?;
        self.driver.kill().await?;
        Ok(())
    }
}

impl Drop for Browser {
    /// Chromium outlives a chromedriver that is killed; its processes are known by their profile.
    fn drop(&mut self) {
        let Some(profile) = self.profile.path().to_str() else {
            return;
        };
        for process in processes_naming(profile) {
            let _ = std::process::Command::new("kill").args(["-KILL", &process]).status();
        }
    }
}

/// Reads the port that chromedriver chose from what it prints.
async fn port(driver: &mut Child) -> Result<u16> {
    let mut lines = BufReader::new(driver.stdout.take().context("no output to read")?).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            // Its later lines have to go somewhere, or it blocks.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(port.trim_end_matches('.').parse()?);
        }
    }
    bail!("chromedriver ended at once")
}

async fn connect(port: u16, profile: &TempDir) -> Result<Client> {
    let profile = format!("--user-data-dir={}", profile.path().display());
    let arguments: Vec<_> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
    let capabilities = json!({
        "goog:chromeOptions": {"args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"},
    });
    let Value::Object(capabilities) = capabilities else { bail!("capabilities are an object") };
    let mut builder = ClientBuilder::new(HttpConnector::new());
    let connecting = builder.capabilities(capabilities);
    let session = timeout(START_TIMEOUT, connecting.connect(&format!("http://127.0.0.1:{port}"))).await;
    session.context("Chromium does not start in time")?.context("cannot start Chromium")
}

/// One HTTP request on a connection of its own, and the JSON it is answered with.
async fn post(port: u16, path: &str, body: &Value) -> Result<Value> {
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?;
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    // Chromedriver keeps the connection open whatever it is asked, so its end cannot be waited for.
    let mut json = vec![0; length];
    answer.read_exact(&mut json).await?;
    Ok(serde_json::from_slice(&json)?)
}

/// The ids of the processes whose command line names `text`.
fn processes_naming(text: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_match = |process: &String| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        process.bytes().all(|byte| byte.is_ascii_digit()) && String::from_utf8_lossy(&line).contains(text)
    };
    names.filter(is_match).collect()
}
