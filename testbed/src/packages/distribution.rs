//! Which distribution this is, and where its packages come from.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// The release whose packages are newer than those of Debian 12.
pub(super) const NEWER_SUITE: &str = "trixie";

/// A Debian or Ubuntu release. The default stands for any other system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    id: String,
    codename: String,
}

impl Distribution {
    pub(super) fn of_this_machine() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
        let distribution = Self::parse(&text);
        match distribution.id.as_str() {
            "debian" | "ubuntu" => Ok(distribution),
            other => bail!("packages can be installed on Debian and Ubuntu, this is {other:?}"),
        }
    }

    fn parse(os_release: &str) -> Self {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        Self { id: value("ID"), codename: value("VERSION_CODENAME") }
    }

    pub(super) fn is_debian_12(&self) -> bool {
        self.id == "debian" && self.codename == "bookworm"
    }

    /// The package with the `docker` program.
    pub(super) fn docker_client(&self) -> &'static str {
        if self.id == "debian" && !self.is_debian_12() { "docker-cli" } else { "docker.io" }
    }

    /// The package with Compose v2.
    pub(super) fn compose(&self) -> &'static str {
        match self.id.as_str() {
            "ubuntu" => "docker-compose-v2",
            _ if self.is_debian_12() => "docker-compose/trixie",
            _ => "docker-compose",
        }
    }

    /// A source for [`NEWER_SUITE`] from the mirror that is configured for this release, for `sources.list.d`.
    pub(super) fn newer_source(&self) -> Result<String> {
        let configured = source_files().into_iter().find_map(|file| {
            let text = fs::read_to_string(&file).ok()?;
            let is_deb822 = file.extension().is_some_and(|extension| extension == "sources");
            if is_deb822 { self.source_in_deb822(&text) } else { self.source_in_one_line(&text) }
        });
        configured.with_context(|| {
            format!("found no package source for {} in /etc/apt to add {NEWER_SUITE} from", self.codename)
        })
    }

    fn source_in_deb822(&self, text: &str) -> Option<String> {
        text.split("\n\n").find_map(|stanza| {
            let has = |key: &str, word: &str| {
                field(stanza, key).is_some_and(|value| value.split_whitespace().any(|found| found == word))
            };
            let fits = has("Types", "deb") && has("Suites", &self.codename) && has("Components", "main");
            let mirror = field(stanza, "URIs").filter(|_| fits && !has("Enabled", "no"))?;
            Some(source(mirror.trim(), field(stanza, "Signed-By").as_deref()))
        })
    }

    fn source_in_one_line(&self, text: &str) -> Option<String> {
        text.lines().find_map(|line| {
            let line = line.trim().strip_prefix("deb ")?.trim();
            let (options, rest) = match line.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", line),
            };
            let mut words = rest.split_whitespace();
            let (mirror, suite) = (words.next()?, words.next()?);
            let fits = suite == self.codename && words.any(|component| component == "main");
            let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            fits.then(|| source(mirror, key))
        })
    }
}

fn source(mirror: &str, key: Option<&str>) -> String {
    let key = key.map_or_else(String::new, |key| format!("Signed-By: {}\n", key.trim_start_matches(' ')));
    format!("Types: deb\nURIs: {mirror}\nSuites: {NEWER_SUITE}\nComponents: main\n{key}")
}

/// A field of a stanza with its continuation lines.
fn field(stanza: &str, key: &str) -> Option<String> {
    let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
    let first = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let continued = lines.take_while(|line| line.starts_with([' ', '\t']));
    Some(continued.fold(first.to_owned(), |value, line| value + "\n" + line))
}

fn source_files() -> Vec<PathBuf> {
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let has_name = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    };
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.path()).filter(has_name).collect();
    files.sort();
    files.insert(0, Path::new("/etc/apt/sources.list").to_owned());
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookworm() -> Distribution {
        Distribution::parse("NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n")
    }

    #[test]
    fn the_mirror_of_a_deb822_file_is_used_again() {
        let text = "Types: deb\nURIs: https://other.example/\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\n# https://elsewhere.example\nURIs: https://mirror.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/a.gpg\n";
        let expected = "Types: deb\nURIs: https://mirror.example/debian\nSuites: trixie\nComponents: main\n\
                        Signed-By: /usr/share/keyrings/a.gpg\n";
        assert_eq!(bookworm().source_in_deb822(text).unwrap(), expected);
    }

    #[test]
    fn a_key_inside_a_source_stays_whole() {
        let text = "Types: deb\nURIs: https://a.example\nSuites: bookworm\nComponents: main\nSigned-By:\n BEGIN\n .\n END\n";
        assert!(bookworm().source_in_deb822(text).unwrap().ends_with("Signed-By: \n BEGIN\n .\n END\n"));
    }

    #[test]
    fn the_mirror_of_a_one_line_file_is_used_again() {
        let text = "# deb https://no.example bookworm main\ndeb-src https://no.example bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main contrib\n";
        let expected = "Types: deb\nURIs: https://mirror.example/debian\nSuites: trixie\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(bookworm().source_in_one_line(text).unwrap(), expected);
        assert!(bookworm().source_in_one_line("deb https://mirror.example/debian sid main\n").is_none());
    }

    #[test]
    fn each_release_has_its_own_name_for_compose() {
        assert_eq!(bookworm().compose(), "docker-compose/trixie");
        assert_eq!(Distribution::parse("ID=debian\nVERSION_CODENAME=trixie\n").compose(), "docker-compose");
        assert_eq!(Distribution::parse("ID=ubuntu\nVERSION_CODENAME=noble\n").compose(), "docker-compose-v2");
    }
}
