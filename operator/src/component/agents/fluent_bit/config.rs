//! A configuration of Fluent Bit, in either of its two formats.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// How a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// As versions from 3.2 on prefer it.
    Yaml,
    /// As every version reads it.
    Classic,
}

impl Syntax {
    /// The one for the version that an image is of; the newer one where its name does not tell.
    pub(super) fn of(image: &str) -> Self {
        let image = image.split('@').next().unwrap_or(image);
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag).trim_start_matches('v');
        let mut numbers = tag.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), minor) if (major, minor.unwrap_or(2)) < (3, 2) => Self::Classic,
            _ => Self::Yaml,
        }
    }
}

/// What every file begins with.
const WRITTEN_BY: &str = "# Written by tasktracker-operator; changes made here are taken back.\n";

/// Options of one part, in their order.
#[derive(Clone, Debug)]
pub(super) struct Section(Vec<(String, String)>);

impl Section {
    pub(super) fn new<N: Into<String>>(options: impl IntoIterator<Item = (N, String)>) -> Self {
        Self(options.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    fn value(&self) -> Value {
        let options = self.0.iter().map(|(name, value)| (name.clone(), json!(value)));
        Value::Object(options.collect::<Map<_, _>>())
    }
}

/// A configuration.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// Files that are read before, by their paths.
    pub(super) includes: Vec<String>,
    pub(super) service: Section,
    pub(super) parsers: Vec<Section>,
    pub(super) inputs: Vec<Section>,
    pub(super) filters: Vec<Section>,
    pub(super) outputs: Vec<Section>,
}

impl Config {
    pub(super) fn render(&self, syntax: Syntax) -> String {
        let text = match syntax {
            Syntax::Yaml => self.yaml(),
            Syntax::Classic => self.classic(),
        };
        format!("{WRITTEN_BY}{text}")
    }

    /// The file with its parsers, which the older format wants apart.
    pub(super) fn parsers_file(&self) -> String {
        format!("{WRITTEN_BY}{}", sections(&[("PARSER", &self.parsers)]))
    }

    fn yaml(&self) -> String {
        let values = |sections: &[Section]| sections.iter().map(Section::value).collect::<Vec<_>>();
        let config = json!({
            "includes": self.includes,
            "service": self.service.value(),
            "parsers": values(&self.parsers),
            "pipeline": {
                "inputs": values(&self.inputs),
                "filters": values(&self.filters),
                "outputs": values(&self.outputs),
            },
        });
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        crate::json::serialized(serde_saphyr::to_string_with_options(&config, options))
    }

    fn classic(&self) -> String {
        let mut text = String::new();
        for path in &self.includes {
            // Writing to a string does not fail.
            let _: std::fmt::Result = writeln!(text, "@INCLUDE {path}");
        }
        text + &sections(&[
            ("SERVICE", std::slice::from_ref(&self.service)),
            ("INPUT", &self.inputs),
            ("FILTER", &self.filters),
            ("OUTPUT", &self.outputs),
        ])
    }
}

/// Parts by their kinds, in the older format.
fn sections(parts: &[(&str, &[Section])]) -> String {
    let mut text = String::new();
    for (kind, sections) in parts {
        for Section(options) in *sections {
            // Writing to a string does not fail.
            let _: std::fmt::Result = write!(text, "\n[{kind}]\n");
            for (name, value) in options {
                let _: std::fmt::Result = writeln!(text, "    {name} {value}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_the_version_of_the_image() {
        for (image, expected) in [
            ("fluent/fluent-bit:1.8.15", Syntax::Classic),
            ("fluent/fluent-bit:v3.1.9-debug", Syntax::Classic),
            ("registry.example.com:5000/fluent-bit:3.2", Syntax::Yaml),
            ("fluent/fluent-bit:5.1.1", Syntax::Yaml),
            ("registry.example.com:5000/fluent-bit", Syntax::Yaml),
            ("fluent/fluent-bit@sha256:22", Syntax::Yaml),
            ("fluent/fluent-bit:1.8.15@sha256:22", Syntax::Classic),
            ("fluent/fluent-bit:2", Syntax::Classic),
            ("fluent/fluent-bit:3", Syntax::Yaml),
        ] {
            assert_eq!(Syntax::of(image), expected, "{image}");
        }
    }
}
