//! The figures of a benchmark: a table for people, and JSON for programs.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

/// Samples of one row, with their unit.
pub(crate) struct Row {
    unit: &'static str,
    samples: Vec<f64>,
}

pub(crate) type Rows = BTreeMap<&'static str, Row>;

pub(crate) fn add(rows: &mut Rows, key: &'static str, milliseconds: f64) {
    put(rows, key, "ms", milliseconds);
}

pub(crate) fn put(rows: &mut Rows, key: &'static str, unit: &'static str, sample: f64) {
    rows.entry(key).or_insert_with(|| Row { unit, samples: Vec::new() }).samples.push(sample);
}

impl Row {
    /// The sample that this share of the samples does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a short list"
        )]
        let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
        sorted[index]
    }

    fn json(&self) -> Value {
        json!({
            "unit": self.unit, "n": self.samples.len(), "min": self.quantile(0.0), "median": self.quantile(0.5),
            "p99": self.quantile(0.99), "max": self.quantile(1.0),
        })
    }
}

/// Prints the table and writes `NAME.json`.
pub(crate) fn report(name: &str, rows: &Rows, ratios: &BTreeMap<&'static str, f64>) -> Result<()> {
    println!("{:<22} {:>4} {:>10} {:>10} {:>10} {:>10}", name, "n", "min", "median", "p99", "max");
    for (key, row) in rows {
        let figure = |share| format!("{:.2}", row.quantile(share));
        println!(
            "{key:<22} {:>4} {:>10} {:>10} {:>10} {:>10}",
            row.samples.len(),
            figure(0.0),
            figure(0.5),
            figure(0.99),
            figure(1.0)
        );
    }
    for (key, ratio) in ratios {
        println!("{key:<22} {ratio:>10.2}");
    }
    let folder =
        PathBuf::from(std::env::var("TASKTRACKER_BENCH").unwrap_or_else(|_| "target/bench".to_owned()));
    fs::create_dir_all(&folder)?;
    let rows: BTreeMap<_, _> = rows.iter().map(|(key, row)| (key, row.json())).collect();
    let document = json!({ "bench": name, "machine": machine(), "rows": rows, "ratios": ratios });
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(&document)?)?;
    println!("wrote {}", path.display());
    Ok(())
}

fn machine() -> Value {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = text("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({ "cpu": model, "cores": cores, "kernel": text("/proc/sys/kernel/osrelease").trim() })
}
