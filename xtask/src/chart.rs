//! The chart's README, from the comments of its values.

use anyhow::{Result, ensure};

/// The chart's values, with a comment `# -- …` above each that a user may set.
pub(crate) const VALUES: &str = "charts/tasktracker-operator/values.yaml";
/// What is written.
pub(crate) const README: &str = "charts/tasktracker-operator/README.md";

/// What stands above the table.
const HEAD: &str = include_str!("chart_readme.md");

/// The whole page.
///
/// # Errors
/// Where a value has no comment.
pub(crate) fn readme(values: &str) -> Result<String> {
    let mut page = format!("{HEAD}\n| value | default | what it does |\n| --- | --- | --- |\n");
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let (mut told, mut within) = (None, None);
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(comment) = text.strip_prefix("# -- ") {
            told = Some(comment);
            continue;
        }
        let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with('#')) else { continue };
        // What belongs to a value that was told of as a whole.
        if within.is_some_and(|within| indent > within) {
            continue;
        }
        within = None;
        parents.retain(|(of, _)| *of < indent);
        let path: Vec<&str> = parents.iter().map(|(_, name)| *name).chain([key]).collect();
        let path = path.join(".");
        match (told.take(), value.trim()) {
            (Some(told), value) => {
                let value = if value.is_empty() { "see values.yaml" } else { value };
                page.push_str(&format!("| `{path}` | `{value}` | {} |\n", told.replace('|', "\\|")));
                within = Some(indent);
            }
            (None, "") => parents.push((indent, key)),
            (None, _) => ensure!(false, "{VALUES}: expected a comment `# -- …` above {path}, found none"),
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::root;

    #[test]
    fn the_page_is_current() {
        let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_default();
        assert!(
            read(README) == readme(&read(VALUES)).unwrap(),
            "{README} is stale: run `cargo xtask generate`"
        );
    }

    #[test]
    fn the_charts_definition_of_the_resource_is_current() {
        let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_default();
        let copy = read("charts/tasktracker-operator/files/tasktrackerstacks.yaml");
        assert!(
            copy == read("crds/tasktrackerstacks.yaml"),
            "the chart's copy is stale: run `cargo xtask generate`"
        );
    }

    #[test]
    fn nested_values_are_told_and_one_without_a_comment_is_refused() {
        let page = readme(
            "# a file\na:\n  # -- One.\n  b: 1\n  c:\n    # -- Two.\n    d: {}\n# -- All.\ne:\n  f: 1\n",
        )
        .unwrap();
        let rows: Vec<&str> = page.lines().rev().take(3).collect();
        assert_eq!(
            rows,
            ["| `e` | `see values.yaml` | All. |", "| `a.c.d` | `{}` | Two. |", "| `a.b` | `1` | One. |"]
        );
        assert!(readme("a: 1\n").unwrap_err().to_string().contains("above a"));
    }
}
