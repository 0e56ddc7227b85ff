//! What is done on a host, step by step: the only way in which anything there is written.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Error, Exit, Output, archive, shell};
use crate::{model::sha256, secret::Secret};

/// Takes and stages what is to be done.
const APPLY: &str = include_str!("programs/apply.sh");
/// Does it, apart from the session.
const STEPS: &str = include_str!("programs/steps.sh");
/// How long all steps that are not docker's may take together.
const OWN_LIMIT: Duration = Duration::from_mins(1);
/// How long removing one image may take.
const FORGET_LIMIT: Duration = Duration::from_secs(30);
/// What docker may take beyond its time limit until it is killed.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// How long one extraction may take: its commands of docker, each with its time limit in the program.
const EXTRACT_LIMIT: Duration = Duration::from_secs(5 * 70);
/// Name under which a volume or a folder is mounted for an extraction.
const VOLUME: &str = "volume";

/// One step, carried out after those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Puts a file into its place. All files of an apply are staged and verified before its first step.
    Place(Placement),
    /// Makes a folder where it is not there, and gives it its permission bits.
    Folder {
        /// Path from the project's folder.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Gives what is there its permission bits.
    Mode {
        /// Path from the project's folder.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Removes a file, and nothing else.
    Remove {
        /// Path from the project's folder.
        path: String,
    },
    /// Makes sure that the files so far are on the disk.
    Sync,
    /// Renames what stands at a path to `PATH.moved-TIME`; an empty folder is removed.
    SetAside {
        /// Path from the project's folder.
        path: String,
        /// Letters, digits and `-`: what makes the new name another one.
        time: String,
    },
    /// Removes every stored release but these.
    KeepReleases {
        /// IDs of the releases.
        ids: Vec<String>,
    },
    /// Removes images by their digests, but for those that a stored release of any project names and those that a
    /// container has. One that stays is no failure.
    ForgetImages {
        /// `REPOSITORY@DIGEST` of each.
        references: Vec<String>,
    },
    /// Extracts an archive as root, which gives files the owners that the SSH user cannot give them.
    ///
    /// Made by [`Step::owned_files`] and [`Step::own_volume`].
    Extract(Extraction),
    /// Runs `docker` with nothing of the user's environment but `PATH`, `HOME` and the Docker configuration.
    Docker {
        /// Its arguments.
        arguments: Vec<String>,
        /// How long it may take.
        limit: Duration,
    },
}

/// One file to put into a project's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Path from the project's folder.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
    /// Where the content comes from.
    pub source: Source,
}

/// Where the content of a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From here.
    Inline(Vec<u8>),
    /// From here, and nobody is shown it.
    Secret(Secret),
    /// From a copy on the host, by its path from the project's folder.
    Copy(String),
}

/// A file that belongs to another user than the one of SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFile {
    /// Its name within its folder, at most 100 bytes. The host refuses a path.
    pub name: String,
    /// Its content.
    pub content: Secret,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What [`Step::Extract`] extracts, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extraction {
    image: String,
    destination: Destination,
    /// Names in the archive, each with the attributes that the host verifies.
    entries: Vec<(String, String)>,
    archive: Secret,
}

/// Where an archive is extracted to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    /// A folder, by its path from the project's folder.
    Folder(String),
    /// Such a folder itself, whatever is in it.
    FolderItself(String),
    /// A volume, by its name.
    Volume(String),
}

impl Extraction {
    fn line(&self) -> String {
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        let (kind, destination) = match &self.destination {
            Destination::Folder(path) => ('f', path),
            Destination::FolderItself(path) => ('o', path),
            Destination::Volume(name) => ('v', name),
        };
        let archive = self.archive.reveal();
        let mut line = format!(
            "X {} 600 {} {} {kind} {}",
            encoded(destination),
            sha256(archive),
            BASE64_STANDARD.encode(archive),
            encoded(&self.image)
        );
        for (name, attributes) in &self.entries {
            line.push_str(&format!(" {} {attributes}", encoded(name)));
        }
        line
    }
}

impl Step {
    /// Writes files with owners of their own into a folder that exists, where each replaces the one of its name at once.
    ///
    /// Docker extracts them, through a container of `image` that is created, never started, and removed. The image must
    /// be on the host; any will do, also one without programs. `folder` is a path from the project's folder.
    pub fn owned_files(image: &str, folder: &str, files: &[OwnedFile]) -> Self {
        let attributes = |file: &OwnedFile| {
            format!("{}:{}:{:o}:{}", file.uid, file.gid, file.mode, file.content.reveal().len())
        };
        Self::Extract(Extraction {
            image: image.to_owned(),
            destination: Destination::Folder(folder.to_owned()),
            entries: files.iter().map(|file| (file.name.clone(), attributes(file))).collect(),
            archive: archive::of_files(files),
        })
    }

    /// Gives a folder that exists its owner and its mode, by its path from the project's folder. What is in it stays as it
    /// is.
    ///
    /// It takes the same way as [`Step::owned_files`].
    pub fn own_folder(image: &str, path: &str, uid: u32, gid: u32, mode: u32) -> Self {
        Self::Extract(Extraction {
            image: image.to_owned(),
            destination: Destination::FolderItself(path.to_owned()),
            entries: vec![(VOLUME.to_owned(), format!("{uid}:{gid}:{mode:o}:0"))],
            archive: archive::of_folder(VOLUME, mode, uid, gid),
        })
    }

    /// Gives the root folder of a volume that exists its owner and its mode. What is in the volume stays as it is.
    ///
    /// It takes the same way as [`Step::owned_files`].
    pub fn own_volume(image: &str, volume: &str, uid: u32, gid: u32, mode: u32) -> Self {
        Self::Extract(Extraction {
            image: image.to_owned(),
            destination: Destination::Volume(volume.to_owned()),
            entries: vec![(VOLUME.to_owned(), format!("{uid}:{gid}:{mode:o}:0"))],
            archive: archive::of_folder(VOLUME, mode, uid, gid),
        })
    }

    /// `docker` with these arguments.
    pub fn docker(arguments: &[&str], limit: Duration) -> Self {
        Self::Docker { arguments: arguments.iter().map(|&word| word.to_owned()).collect(), limit }
    }

    /// The step as a line for the programs.
    fn line(&self) -> String {
        let encoded = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        match self {
            Self::Place(Placement { path, mode, sha256, source }) => {
                let (verb, data) = match source {
                    Source::Inline(content) => ('F', encoded(content)),
                    Source::Secret(secret) => ('F', encoded(secret.reveal())),
                    Source::Copy(path) => ('C', encoded(path.as_bytes())),
                };
                format!("{verb} {} {mode:o} {sha256} {data}", encoded(path.as_bytes()))
            }
            Self::Folder { path, mode } => format!("M {} {mode:o}", encoded(path.as_bytes())),
            Self::Mode { path, mode } => format!("P {} {mode:o}", encoded(path.as_bytes())),
            Self::Remove { path } => format!("R {}", encoded(path.as_bytes())),
            Self::Sync => "S".to_owned(),
            Self::SetAside { path, time } => format!("A {} {time}", encoded(path.as_bytes())),
            Self::KeepReleases { ids } => format!("K {}", ids.join(" ")),
            Self::ForgetImages { references } => {
                let all: Vec<String> = references.iter().map(|one| encoded(one.as_bytes())).collect();
                format!("I {}", all.join(" "))
            }
            Self::Extract(extraction) => extraction.line(),
            Self::Docker { arguments, limit } => {
                let words: Vec<String> = arguments.iter().map(|word| encoded(word.as_bytes())).collect();
                format!("D {} {}", limit.as_secs().max(1), words.join(" "))
            }
        }
    }
}

/// The command line that takes steps for a project, or for the host where `project` is empty.
pub(super) fn command(directory: &str, project: &str, epoch: &str) -> String {
    shell::named("tasktracker-apply", APPLY, &[STEPS, directory, project, epoch])
}

/// What that program reads.
pub(super) fn input(steps: &[Step]) -> Vec<u8> {
    let lines = steps.iter().map(Step::line).chain(["END".to_owned()]);
    lines.flat_map(|line| [line, "\n".to_owned()]).collect::<String>().into_bytes()
}

/// How long all of them may take.
pub(super) fn limit(steps: &[Step]) -> Duration {
    let docker = steps.iter().map(|step| match step {
        Step::Docker { limit, .. } => *limit + KILL_LIMIT,
        Step::ForgetImages { references } => {
            FORGET_LIMIT.saturating_mul(u32::try_from(references.len()).unwrap_or(u32::MAX))
        }
        Step::Extract(_) => EXTRACT_LIMIT,
        _ => Duration::ZERO,
    });
    docker.sum::<Duration>() + OWN_LIMIT
}

/// What it means that they ended so.
pub(super) fn failure(output: &Output) -> Error {
    let words = output.last_words();
    let doing = |doing: &str, found: String| Error::Failed { doing: doing.to_owned(), found };
    match output.exit {
        Exit::Exited(75) => Error::Locked,
        Exit::Exited(76) => Error::Overtaken { found: words },
        Exit::Exited(74) => {
            let (path, found) = words.split_once(": ").unwrap_or(("a file", &words));
            Error::ReleaseDamaged { path: path.to_owned(), found: found.to_owned() }
        }
        Exit::Exited(1) => Error::docker(by_docker(output, &words)),
        Exit::Exited(code) => doing("writing on the host", format!("exit status {code}: {words}")),
        Exit::Signalled | Exit::Lost => doing("writing on the host", format!("ended by a signal: {words}")),
    }
}

/// Which command it was, how it ended, and its last words.
fn by_docker(output: &Output, words: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or_default();
    let first = match line.rsplit_once(": exit status ") {
        Some((command, "124" | "137")) => format!("{command}: ended by its time limit"),
        _ => line.to_owned(),
    };
    if said.lines().count() > 4 { format!("{first}: {words}") } else { words.replacen(line, &first, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_whatever_is_in_it() {
        let file =
            |source| Placement { path: "a\nb".to_owned(), mode: 0o644, sha256: "00".to_owned(), source };
        let steps = [
            Step::Place(file(Source::Inline(b"END\n".to_vec()))),
            Step::Place(file(Source::Copy("c".to_owned()))),
            Step::Folder { path: "s".to_owned(), mode: 0o700 },
            Step::Mode { path: "s/x".to_owned(), mode: 0o444 },
            Step::Remove { path: "s/x".to_owned() },
            Step::Sync,
            Step::SetAside { path: "x y".to_owned(), time: "20260131".to_owned() },
            Step::KeepReleases { ids: vec!["0a".to_owned()] },
            Step::ForgetImages { references: vec!["a@sha256:0".to_owned(), "b@sha256:0".to_owned()] },
            Step::own_volume("sha256:0a", "data", 1000, 0, 0o750),
            Step::docker(&["compose", "up\n"], Duration::from_secs(7)),
        ];
        let text = String::from_utf8(input(&steps)).unwrap();
        let verbs: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(verbs, ["F", "C", "M", "P", "R", "S", "A", "K", "I", "X", "D", "END"]);
        let own = OWN_LIMIT + 2 * FORGET_LIMIT + EXTRACT_LIMIT;
        assert_eq!(limit(&steps), own + KILL_LIMIT + Duration::from_secs(7));
    }

    #[test]
    fn an_extraction_names_what_the_host_verifies_and_hides_the_content() {
        let content = Secret::new(b"canary".to_vec());
        let file = OwnedFile { name: "a b".to_owned(), content, mode: 0o400, uid: 1000, gid: 7 };
        let step = Step::owned_files("sha256:0a", "secrets/elasticsearch", &[file]);
        assert!(
            !format!("{step:?}").contains("canary") && !format!("{step:?}").contains("99, 97"),
            "{step:?}"
        );
        let line = step.line();
        let words: Vec<&str> = line.split(' ').collect();
        let ["X", destination, "600", hash, archive, "f", image, name, attributes] = words.as_slice() else {
            panic!("{line}");
        };
        let decoded = |text: &str| BASE64_STANDARD.decode(text).unwrap();
        assert_eq!(decoded(destination), b"secrets/elasticsearch");
        assert_eq!(*hash, sha256(&decoded(archive)));
        assert_eq!((decoded(image), decoded(name)), (b"sha256:0a".to_vec(), b"a b".to_vec()));
        assert_eq!(*attributes, "1000:7:400:6");
    }
}
