//! Where the time of a command goes: a table, and the same as JSON.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::progress::{say, step, target};

/// Step times of one command. Clones share them.
#[derive(Clone)]
pub(crate) struct Times {
    command: &'static str,
    started: Instant,
    steps: Arc<Mutex<Vec<Step>>>,
}

struct Step {
    name: String,
    /// Whether it found results of an earlier run: `cold`, `warm`, or what it had to do.
    cache: String,
    start: Duration,
    duration: Duration,
    passed: bool,
}

impl Times {
    /// The clock starts now.
    pub(crate) fn new(command: &'static str) -> Self {
        Self { command, started: Instant::now(), steps: Arc::default() }
    }

    /// Announces a step and records its time, also when it fails. The step may say in its argument whether it found
    /// results of an earlier run.
    pub(crate) fn step<T>(&self, name: &str, work: impl FnOnce(&mut String) -> Result<T>) -> Result<T> {
        step(name);
        self.record(name, work)
    }

    /// Records the time of a step that runs in the background.
    pub(crate) fn record<T>(&self, name: &str, work: impl FnOnce(&mut String) -> Result<T>) -> Result<T> {
        let start = self.started.elapsed();
        let mut cache = String::new();
        let result = work(&mut cache);
        let duration = self.started.elapsed().saturating_sub(start);
        let step = Step { name: name.to_owned(), cache, start, duration, passed: result.is_ok() };
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        result
    }

    /// Prints the table and writes `times/COMMAND.json` below the target folder.
    pub(crate) fn report(&self) -> Result<()> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.sort_by_key(|step| step.start);
        say(&table(&steps, self.started.elapsed()));
        let steps: Vec<Value> = steps.iter().map(Step::json).collect();
        write(
            &file(self.command),
            &json!({"command": self.command, "seconds": seconds(self.started.elapsed()), "steps": steps}),
        )
    }
}

impl Step {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "start": seconds(self.start),
            "seconds": seconds(self.duration),
            "cache": self.cache,
            "passed": self.passed,
        })
    }
}

/// The file `times/NAME.json` below the target folder.
pub(crate) fn file(name: &str) -> PathBuf {
    target().join("times").join(name).with_extension("json")
}

/// Writes a file of times.
pub(crate) fn write(path: &Path, content: &Value) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    fs::write(path, format!("{content:#}\n")).with_context(|| format!("writing {}", path.display()))
}

/// Reads what [`write`] wrote, if it is there.
pub(crate) fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Seconds with one decimal.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

fn table(steps: &[Step], total: Duration) -> String {
    let mut text = format!("\n{:<44}{:>8}{:>10}  cache\n", "step", "start s", "seconds");
    for step in steps {
        let failed = if step.passed { "" } else { "  FAILED" };
        text.push_str(&format!(
            "{:<44}{:>8.0}{:>10.1}  {}{failed}",
            step.name,
            step.start.as_secs_f64(),
            step.duration.as_secs_f64(),
            step.cache,
        ));
        text = text.trim_end().to_owned() + "\n";
    }
    text + &format!("{:<52}{:>10.1}", "total", total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_steps_by_start_and_marks_failures() {
        let times = Times::new("table");
        times
            .record("build", |cache| {
                cache.push_str("cold");
                Ok(())
            })
            .unwrap();
        times.record::<()>("tests", |_| anyhow::bail!("no")).unwrap_err();
        let steps = times.steps.lock().unwrap();
        let text = table(&steps, Duration::from_secs(61));
        let lines: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines,
            [
                vec!["step", "start", "s", "seconds", "cache"],
                vec!["build", "0", "0.0", "cold"],
                vec!["tests", "0", "0.0", "FAILED"],
                vec!["total", "61.0"],
            ]
        );
        assert_eq!(steps[1].json()["passed"], json!(false));
    }
}
