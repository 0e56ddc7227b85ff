//! Runs tests as processes, some at a time, and records how long each took.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    progress::say,
    times::{self, seconds},
};

/// How many of the slowest are printed.
const SLOWEST: usize = 15;
/// How often processes are asked whether they are done.
const POLL: Duration = Duration::from_millis(20);

/// One process to run.
pub(crate) struct Process {
    /// What the reader of the log knows it by.
    pub(crate) name: String,
    /// The program and its arguments.
    pub(crate) command: Command,
    /// The background job that it needs.
    pub(crate) needs: Option<&'static str>,
    /// Whether it takes so much of the machine that it never runs beside another such one.
    pub(crate) is_heavy: bool,
}

/// How processes are run.
pub(crate) struct Runner<'a> {
    /// How many at a time.
    pub(crate) slots: usize,
    /// How long one may take.
    pub(crate) limit: Duration,
    /// The folder of their output, one file each.
    pub(crate) logs: PathBuf,
    /// The file with the times of the last run, which decide the order; replaced by those of this run.
    pub(crate) record: PathBuf,
    /// Whether a background job is done; an error ends the run.
    pub(crate) is_done: &'a mut dyn FnMut(&str) -> Result<bool>,
}

struct Running {
    name: String,
    is_heavy: bool,
    log: PathBuf,
    started: Instant,
    child: KilledOnDrop,
}

struct KilledOnDrop(Child);

/// One that ended.
struct Finished {
    name: String,
    duration: Duration,
    /// Why it failed.
    failure: Option<String>,
    log: PathBuf,
}

impl Runner<'_> {
    /// Runs all of them, also after a failure.
    ///
    /// # Errors
    /// When one failed, or a background job did.
    pub(crate) fn run(&mut self, processes: Vec<Process>) -> Result<()> {
        fs::create_dir_all(&self.logs)?;
        let count = processes.len();
        let mut waiting = longest_first(processes, times::read(&self.record).as_ref());
        let (mut running, mut finished): (Vec<Running>, Vec<Finished>) = Default::default();
        while finished.len() < count {
            while running.len() < self.slots
                && let Some(next) = self.next(&mut waiting, running.iter().any(|process| process.is_heavy))?
            {
                running.push(start(next, &self.logs)?);
            }
            for ended in self.take_ended(&mut running)? {
                finished.push(ended);
                if let Some(ended) = finished.last() {
                    ended.say(finished.len(), count);
                }
            }
            thread::sleep(POLL);
        }
        report(&finished, &self.record)
    }

    /// The first whose background job is done, and that may run beside what runs.
    fn next(&mut self, waiting: &mut Vec<Process>, a_heavy_one_runs: bool) -> Result<Option<Process>> {
        for index in 0..waiting.len() {
            let Process { needs, is_heavy, .. } = waiting[index];
            // The job is asked for also where none is needed: a failure is reported at once.
            let is_ready = (self.is_done)(needs.unwrap_or_default())? || needs.is_none();
            if is_ready && !(is_heavy && a_heavy_one_runs) {
                return Ok(Some(waiting.remove(index)));
            }
        }
        Ok(None)
    }

    fn take_ended(&self, running: &mut Vec<Running>) -> Result<Vec<Finished>> {
        let mut ended = Vec::new();
        for index in (0..running.len()).rev() {
            let status = running[index].child.0.try_wait()?;
            let late = running[index].started.elapsed() > self.limit;
            let failure = match status {
                None if !late => continue,
                None => Some(format!("still running after {} s", self.limit.as_secs())),
                Some(status) => (!status.success()).then(|| status.to_string()),
            };
            let Running { name, log, started, .. } = running.swap_remove(index);
            ended.push(Finished { name, duration: started.elapsed(), failure, log });
        }
        Ok(ended)
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _: Result<(), _> = self.0.kill();
        let _: Result<_, _> = self.0.wait();
    }
}

impl Finished {
    fn say(&self, number: usize, count: usize) {
        let word = if self.failure.is_some() { "FAILED" } else { "ok" };
        say(&format!("{number:>4}/{count} {word:<6} {:>7.1} s  {}", seconds(self.duration), self.name));
    }
}

fn start(process: Process, logs: &Path) -> Result<Running> {
    let Process { name, mut command, is_heavy, .. } = process;
    let log = logs.join(format!("{}.log", name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")));
    let file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    Ok(Running { name, is_heavy, log, started: Instant::now(), child: KilledOnDrop(child) })
}

/// Those that took longest in the last run come first, so that none of them is the last one to end; and heavy ones of
/// which no run is known, as they go one by one.
fn longest_first(mut processes: Vec<Process>, record: Option<&Value>) -> Vec<Process> {
    let seconds: HashMap<&str, f64> = record
        .and_then(|record| record["tests"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|test| Some((test["name"].as_str()?, test["seconds"].as_f64()?)))
        .collect();
    let unknown = |process: &Process| if process.is_heavy { f64::INFINITY } else { 0.0 };
    let of =
        |process: &Process| seconds.get(process.name.as_str()).copied().unwrap_or_else(|| unknown(process));
    processes.sort_by(|one, other| of(other).total_cmp(&of(one)));
    processes
}

/// Prints and records the times of the slowest and prints the output of those that failed.
fn report(finished: &[Finished], record: &Path) -> Result<()> {
    let mut slowest: Vec<&Finished> = finished.iter().collect();
    slowest.sort_by_key(|test| std::cmp::Reverse(test.duration));
    say("\nslowest tests");
    for test in slowest.iter().take(SLOWEST) {
        say(&format!("{:>9.1} s  {}", seconds(test.duration), test.name));
    }
    let tests: Vec<Value> = slowest
        .iter()
        .map(|test| json!({"name": test.name, "seconds": seconds(test.duration), "passed": test.failure.is_none()}))
        .collect();
    times::write(record, &json!({ "tests": tests }))?;
    let failed: Vec<&Finished> = finished.iter().filter(|test| test.failure.is_some()).collect();
    for test in &failed {
        let log = String::from_utf8_lossy(&fs::read(&test.log)?).into_owned();
        let why = test.failure.as_deref().unwrap_or_default();
        say(&format!("\n---- {} ({why}), {}\n{log}", test.name, test.log.display()));
    }
    ensure!(failed.is_empty(), "failed: {}", names(&failed));
    Ok(())
}

fn names(tests: &[&Finished]) -> String {
    tests.iter().map(|test| test.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn process(name: &str, script: &str, needs: Option<&'static str>) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process { name: name.to_owned(), command, needs, is_heavy: false }
    }

    fn run(
        processes: Vec<Process>,
        limit: Duration,
        is_done: &mut dyn FnMut(&str) -> Result<bool>,
    ) -> (Result<()>, tempfile::TempDir) {
        let logs = tempfile::tempdir().unwrap();
        let mut runner = Runner {
            slots: 2,
            limit,
            logs: logs.path().to_owned(),
            record: logs.path().join("times.json"),
            is_done,
        };
        (runner.run(processes), logs)
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn all_run_and_the_failed_ones_are_named() {
        let processes = vec![
            process("good", "echo out; echo err >&2", None),
            process("bad", "exit 3", None),
            process("after it", "echo ran", None),
        ];
        let (result, logs) = run(processes, LONG, &mut |_| Ok(true));
        assert_eq!(result.unwrap_err().to_string(), "failed: bad");
        let log = |name: &str| fs::read_to_string(logs.path().join(name)).unwrap();
        assert_eq!(log("good.log"), "out\nerr\n");
        assert_eq!(log("after-it.log"), "ran\n");
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let (result, _logs) =
            run(vec![process("hangs", "exec sleep 600", None)], Duration::from_millis(50), &mut |_| Ok(true));
        assert_eq!(result.unwrap_err().to_string(), "failed: hangs");
    }

    #[test]
    fn one_that_needs_a_background_job_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let path = mark.display();
        let needing = process("needing", &format!("test -e {path}"), Some("build"));
        // The job is done as soon as the other test has made the file.
        let other = process("other", &format!("touch {path}"), None);
        let (result, _logs) = run(vec![needing, other], LONG, &mut |job| Ok(job == "build" && mark.exists()));
        result.unwrap();
    }

    #[test]
    fn heavy_ones_run_one_by_one_and_others_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (claim, mark) = (path("claim"), path("mark"));
        // Each waits for the light one, which comes last: with two slots it runs only beside a heavy one.
        let script = format!(
            "mkdir {claim} && until test -e {mark}; do sleep 0.01; done && sleep 0.1 && rmdir {claim}"
        );
        let heavy = |name: &str| Process { is_heavy: true, ..process(name, &script, None) };
        let light = process("light", &format!("touch {mark}"), None);
        let (result, _logs) = run(vec![heavy("one"), heavy("other"), light], LONG, &mut |_| Ok(true));
        result.unwrap();
    }

    #[test]
    fn a_failed_background_job_ends_the_run() {
        let (result, _logs) =
            run(vec![process("one", "exec sleep 600", None)], LONG, &mut |_| bail!("go: no network"));
        assert_eq!(result.unwrap_err().to_string(), "go: no network");
    }

    #[test]
    fn the_longest_of_the_last_run_come_first() {
        let record = json!({"tests": [{"name": "b", "seconds": 2.0}, {"name": "c", "seconds": 90.5}]});
        let mut processes = ["a", "b", "c", "d", "e"].map(|name| process(name, "", None));
        processes[4].is_heavy = true;
        let order: Vec<String> =
            longest_first(processes.into(), Some(&record)).into_iter().map(|process| process.name).collect();
        assert_eq!(order, ["e", "c", "b", "a", "d"]);
    }
}
