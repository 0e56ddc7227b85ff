//! A folder of YAML files with stacks, and whatever else is there.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use tasktracker_crds::validation::{self, Document, MAX_FILE_BYTES, Mistake};

use futures::future::BoxFuture;
use tokio::task::spawn_blocking;

use super::{Source, Stack, StackKey, mistakes, rivals};
use tasktracker_crds::TaskTrackerStack;

/// One stack of a file, or what is wrong with it.
#[derive(Clone, Debug)]
pub struct StackFile {
    /// The file.
    pub path: PathBuf,
    /// The stack, or every mistake.
    pub content: Result<Stack, Vec<Mistake>>,
}

/// Something in the folder that is no stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file or folder.
    pub path: PathBuf,
    /// What it is, in words.
    pub found: String,
    /// Whether nothing is in it: it may be a stack's file while that is written.
    pub is_empty: bool,
}

impl fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: skipped, found {}", self.path.display(), self.found)
    }
}

/// What a folder has.
#[derive(Clone, Debug, Default)]
pub struct StackFiles {
    /// Stacks, and what is meant to be one.
    pub files: Vec<StackFile>,
    /// Whatever else is there.
    pub skipped: Vec<Skipped>,
}

impl StackFiles {
    /// Whether a stack that is not among them is really gone: something is there, all of it can be read, and no file is
    /// about to be written.
    pub fn is_reliable(&self) -> bool {
        let is_something = !(self.files.is_empty() && self.skipped.is_empty());
        is_something
            && self.files.iter().all(|file| file.content.is_ok())
            && self.skipped.iter().all(|skipped| !skipped.is_empty)
    }
}

/// What is wrong with a folder of stacks as a whole.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder or file cannot be read.
    #[error("stacks: expected a folder or file {}, found: {found}", .path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// Why it cannot be read.
        found: io::Error,
    },
}

/// A folder of stack files, or a single one.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    roots: Vec<PathBuf>,
}

/// Size and time of each file: equal stamps mean that nothing has to be read again.
pub type Stamp = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

impl Source for Folder {
    fn is_current<'a>(&'a self, stack: &'a Stack) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let folder = self.clone();
            let read = off_thread(&self.path, move || folder.read()).await.unwrap_or_default();
            read.files.iter().any(|file| file.content.as_ref().is_ok_and(|read| read == stack))
        })
    }
}

impl Folder {
    /// A folder whose stacks may only use folders of hosts below `roots`.
    pub fn new(path: PathBuf, roots: Vec<PathBuf>) -> Self {
        Self { path, roots }
    }

    /// The stack files there are, by path.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn stamp(&self) -> Result<Stamp, FolderError> {
        self.files()?
            .into_iter()
            .map(|path| {
                let metadata = fs::metadata(&path)
                    .map_err(|found| FolderError::Unreadable { path: path.clone(), found })?;
                Ok((path, (metadata.len(), metadata.modified().ok())))
            })
            .collect()
    }

    /// Reads every stack file where their stamp is another one than `known`; none where it is the same. Reading and
    /// parsing take their time: that is done on a thread for blocking work.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn read_changed(
        &self,
        known: Option<Stamp>,
    ) -> Result<Option<(Stamp, StackFiles)>, FolderError> {
        let folder = self.clone();
        off_thread(&self.path, move || {
            let stamp = folder.stamp()?;
            if known.as_ref() == Some(&stamp) {
                return Ok(None);
            }
            Ok(Some((stamp, folder.read()?)))
        })
        .await
    }

    /// Reads every stack of every file; the same stack twice is refused both times.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn read(&self) -> Result<StackFiles, FolderError> {
        let (paths, mut skipped) = self.entries()?;
        let mut files = Vec::new();
        for path in paths {
            match read_file(&path) {
                Err(mistakes) => files.push(StackFile { path, content: Err(mistakes) }),
                Ok(documents) => {
                    skipped.extend(others(&path, &documents));
                    let stacks = documents.into_iter().filter_map(|document| match document {
                        Document::Stack(content) => Some(content),
                        Document::Other(_) => None,
                    });
                    files.extend(stacks.map(|content| {
                        let content = content.and_then(|stack| self.accepted(*stack, &path));
                        StackFile { path: path.clone(), content }
                    }));
                }
            }
        }
        refuse_doubles(&mut files);
        refuse_neighbours(&mut files);
        Ok(StackFiles { files, skipped })
    }

    fn files(&self) -> Result<Vec<PathBuf>, FolderError> {
        Ok(self.entries()?.0)
    }

    /// The YAML files there are, and what somebody may take for one.
    fn entries(&self) -> Result<(Vec<PathBuf>, Vec<Skipped>), FolderError> {
        let unreadable = |found| FolderError::Unreadable { path: self.path.clone(), found };
        if fs::metadata(&self.path).map_err(unreadable)?.is_file() {
            return Ok((vec![self.path.clone()], Vec::new()));
        }
        let (mut paths, mut skipped) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
            let found = match extension.as_deref() {
                _ if hidden => continue,
                _ if path.is_dir() => "a folder; stacks are read from files beside it",
                Some("yaml" | "yml") if path.is_file() => {
                    paths.push(path);
                    continue;
                }
                Some("json") => "JSON; stacks are read from .yaml and .yml files",
                _ => continue,
            };
            skipped.push(Skipped { path, found: found.to_owned(), is_empty: false });
        }
        paths.sort();
        skipped.sort_by(|one, other| one.path.cmp(&other.path));
        Ok((paths, skipped))
    }

    /// A stack of a file, where nothing beyond its schema is wrong.
    fn accepted(&self, resource: TaskTrackerStack, path: &Path) -> Result<Stack, Vec<Mistake>> {
        let stack = Stack::new(resource, path.to_owned());
        let mistakes = mistakes(&stack, &self.roots);
        if mistakes.is_empty() { Ok(stack) } else { Err(mistakes) }
    }
}

fn read_file(path: &Path) -> Result<Vec<Document>, Vec<Mistake>> {
    let whole = |message: String| vec![Mistake { line: 0, column: 0, path: String::new(), message }];
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| whole(error.to_string()))?;
    let read = file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| whole(error.to_string()))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(whole(format!("expected at most {MAX_FILE_BYTES} bytes, found more")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        whole(format!("expected UTF-8, found other bytes after {} bytes", error.utf8_error().valid_up_to()))
    })?;
    validation::read_documents(&text).map_err(|mistake| vec![mistake])
}

/// What is in a file beside stacks.
fn others(path: &Path, documents: &[Document]) -> Option<Skipped> {
    let kinds: Vec<&str> = documents
        .iter()
        .filter_map(|document| if let Document::Other(kind) = document { Some(kind.as_str()) } else { None })
        .collect();
    let is_empty = documents.is_empty();
    let found = if is_empty { "nothing".to_owned() } else { kinds.join(", ") };
    (is_empty || !kinds.is_empty()).then(|| Skipped { path: path.to_owned(), found, is_empty })
}

/// Does blocking work beside the threads of async tasks.
async fn off_thread<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, FolderError> + Send + 'static,
) -> Result<T, FolderError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(FolderError::Unreadable { path: path.to_owned(), found: io::Error::other(error) })
    })
}

/// Stacks that would get in each other's way: both are refused.
fn refuse_neighbours(files: &mut [StackFile]) {
    let stacks: Vec<Stack> = files.iter().filter_map(|file| file.content.as_ref().ok().cloned()).collect();
    for file in files {
        let Ok(stack) = &file.content else { continue };
        let mistakes = rivals(stack, &stacks);
        if !mistakes.is_empty() {
            file.content = Err(mistakes);
        }
    }
}

/// The same stack at two places would take turns: neither is carried out.
fn refuse_doubles(files: &mut [StackFile]) {
    let mut places: BTreeMap<StackKey, Vec<(usize, PathBuf)>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        if let Ok(stack) = &file.content {
            places.entry(stack.key.clone()).or_default().push((index, file.path.clone()));
        }
    }
    for (index, file) in files.iter_mut().enumerate() {
        let Ok(stack) = &file.content else { continue };
        let others: Vec<String> = places[&stack.key]
            .iter()
            .filter(|(other, _)| *other != index)
            .map(|(_, path)| path.display().to_string())
            .collect();
        if !others.is_empty() {
            let message =
                format!("expected the stack {} once, found it also in {}", stack.key, others.join(", "));
            file.content =
                Err(vec![Mistake { line: 0, column: 0, path: "metadata.name".to_owned(), message }]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../examples/staging.yaml");

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let folder = Folder::new(directory.path().to_owned(), vec![PathBuf::from("/opt")]);
        (directory, folder)
    }

    fn told(folder: &Folder) -> Vec<String> {
        let files = folder.read().unwrap().files.into_iter();
        files
            .map(|file| {
                file.content.map_or_else(|mistakes| mistakes[0].to_string(), |stack| stack.key.to_string())
            })
            .collect()
    }

    #[test]
    fn only_yaml_files_are_read_and_one_bad_file_does_not_stop_the_others() {
        let (_directory, folder) =
            folder(&[("a.yaml", GOOD), ("b.yml", "x: ["), ("c.txt", "x"), (".d.yaml", "x")]);
        let told = told(&folder);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], "default/staging");
    }

    #[test]
    fn files_that_are_bad_in_any_way_are_told_in_a_line_each_and_the_good_one_is_read() {
        let (directory, folder) = folder(&[("good.yaml", GOOD)]);
        let anchors: String = (1..40)
            .map(|level| format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(9)))
            .collect();
        let utf16: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases: [(&str, Vec<u8>, &str); 12] = [
            ("large", vec![b'#'; 10 << 20], "expected at most 1048576 bytes"),
            ("deep", b"[".repeat(100_000), ""),
            ("deep-maps", "{a: ".repeat(50_000).into_bytes(), ""),
            ("bomb", format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{anchors}").into_bytes(), ""),
            ("cycle", b"a: &a [*a]".to_vec(), ""),
            ("twice", GOOD.replace("  revision:", "  revision: other\n  revision:").into_bytes(), "revision"),
            ("latin1", [GOOD.as_bytes(), b"# \xe9\n"].concat(), "expected UTF-8, found other bytes after"),
            ("utf16", [&b"\xff\xfe"[..], &utf16].concat(), "expected UTF-8, found other bytes after 0"),
            ("zero", [GOOD.as_bytes(), b"\0"].concat(), ""),
            ("half", GOOD.as_bytes()[..40].to_vec(), ""),
            ("tabs", GOOD.replace("  revision", "\trevision").into_bytes(), ""),
            ("cut", b"apiVersion: tas".to_vec(), "missing; expected 'TaskTrackerStack'"),
        ];
        for (name, bytes, _) in &cases {
            fs::write(directory.path().join(format!("{name}.yaml")), bytes).unwrap();
        }
        std::os::unix::fs::symlink("/nonexistent", directory.path().join("dangling.yaml")).unwrap();
        fs::create_dir(directory.path().join("folder.yaml")).unwrap();
        let read = folder.read().unwrap();
        assert_eq!((read.files.len(), read.is_reliable()), (cases.len() + 1, false));
        for file in read.files {
            let name = file.path.file_stem().unwrap().to_string_lossy().into_owned();
            let Some((_, _, wanted)) = cases.iter().find(|(case, _, _)| *case == name) else {
                assert_eq!(file.content.unwrap().key.to_string(), "default/staging");
                continue;
            };
            let mistakes = file.content.expect_err(&name);
            for mistake in &mistakes {
                let told = mistake.to_string();
                assert!(told.lines().count() == 1 && told.len() < 400, "{name}: {told}");
            }
            assert!(mistakes[0].to_string().contains(wanted), "{name}: {mistakes:?}");
        }
    }

    #[test]
    fn the_same_stack_twice_is_refused_in_both_files() {
        let (_directory, folder) = folder(&[("a.yaml", GOOD), ("b.yaml", GOOD)]);
        assert!(told(&folder).iter().all(|line| line.contains("expected the stack default/staging once")));
        let twice = format!("{GOOD}---\n{GOOD}");
        let (_directory, folder_of_one) = self::folder(&[("a.yaml", &twice)]);
        assert_eq!(told(&folder_of_one).len(), 2);
        assert!(
            told(&folder_of_one).iter().all(|line| line.contains("also in")),
            "{:?}",
            told(&folder_of_one)
        );
    }

    #[test]
    fn other_yaml_is_skipped_with_a_line_and_keeps_no_deletion_back() {
        let other = GOOD.replace("name: staging\n", "name: second\n");
        let several = format!("---\n{GOOD}---\napiVersion: v1\nkind: Secret\n---\n# nothing\n---\n{other}");
        let files = [
            ("kustomization.yaml", "resources: [staging.yaml]\n"),
            ("several.yml", several.as_str()),
            ("values.yaml", "image: {tag: r1}\n"),
            ("stack.json", "{}"),
        ];
        let (directory, folder) = folder(&files);
        fs::create_dir(directory.path().join("base")).unwrap();
        let read = folder.read().unwrap();
        assert_eq!(told(&folder), ["default/staging", "default/second"]);
        let found: Vec<&str> = read.skipped.iter().map(|skipped| skipped.found.as_str()).collect();
        let expected = [
            "a folder; stacks are read from files beside it",
            "JSON; stacks are read from .yaml and .yml files",
            "no kind",
            "Secret",
            "no kind",
        ];
        assert_eq!((found.as_slice(), read.is_reliable()), (expected.as_slice(), true));
        // What may be half of a stack's file is no evidence that the stack is gone.
        for text in
            ["", "# being written\n", "---\n", "kind: TaskTr", "metadata: {name: staging}\n", "apiVers"]
        {
            fs::write(directory.path().join("half.yaml"), text).unwrap();
            assert!(!folder.read().unwrap().is_reliable(), "{text:?}");
        }
        fs::write(directory.path().join("half.yaml"), "apiVersion: v1\nkind: ConfigMap\n").unwrap();
        assert!(folder.read().unwrap().is_reliable());
    }

    #[test]
    fn a_directory_outside_the_roots_is_refused() {
        let text = GOOD.replace("roles: [app]", "roles: [app]\n      directory: /etc/tasktracker");
        let (_directory, folder) = folder(&[("a.yaml", &text)]);
        assert!(told(&folder)[0].contains("expected a folder below /opt"));
    }

    #[test]
    fn stacks_that_would_share_a_project_or_disagree_on_a_folder_are_refused() {
        let other = GOOD.replace("name: staging\n", "name: staging\n  namespace: other\n");
        let (_directory, folder_of_two) = folder(&[("a.yaml", GOOD), ("b.yaml", &other)]);
        assert!(
            told(&folder_of_two).iter().all(|line| line.contains("on the same host")),
            "{:?}",
            told(&folder_of_two)
        );
        let elsewhere = GOOD
            .replace("name: staging\n", "name: other\n")
            .replace("roles: [app]", "roles: [app]\n      directory: /opt/other");
        let (_directory, folder_of_two) = folder(&[("a.yaml", GOOD), ("b.yaml", &elsewhere)]);
        assert!(
            told(&folder_of_two).iter().all(|line| line.contains("expected the directory")),
            "{:?}",
            told(&folder_of_two)
        );
    }

    #[test]
    fn a_cut_host_key_is_refused() {
        let (_directory, folder) = folder(&[("a.yaml", &GOOD.replace("AAAAAAAA\"]", "\"]"))]);
        assert!(told(&folder)[0].contains("cut or damaged"), "{:?}", told(&folder));
    }

    #[test]
    fn a_missing_folder_is_an_error_and_not_an_empty_one() {
        let folder = Folder::new(PathBuf::from("/nonexistent/stacks"), Vec::new());
        assert!(folder.read().is_err());
        assert!(folder.stamp().is_err());
    }

    #[tokio::test]
    async fn files_are_read_again_only_when_they_changed() {
        let (directory, folder) = folder(&[("a.yaml", GOOD)]);
        let (stamp, read) = folder.read_changed(None).await.unwrap().expect("nothing is known yet");
        let stack = read.files[0].content.clone().unwrap();
        assert!(folder.is_current(&stack).await);
        assert!(folder.read_changed(Some(stamp.clone())).await.unwrap().is_none());
        fs::write(directory.path().join("b.yaml"), "x: [").unwrap();
        let (_, read) = folder.read_changed(Some(stamp.clone())).await.unwrap().expect("a file came");
        assert_eq!(read.files.len(), 2);
        fs::remove_file(directory.path().join("a.yaml")).unwrap();
        assert!(!folder.is_current(&stack).await);
        drop(directory);
        assert!(folder.read_changed(Some(stamp)).await.is_err());
    }

    #[test]
    fn reading_keeps_no_other_task_waiting() {
        let (_directory, folder) = folder(&[("a.yaml", GOOD)]);
        let stack = folder.read().unwrap().files.remove(0).content.unwrap();
        // The one thread for blocking work is busy until another task says so.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime.spawn_blocking(move || receiver.recv());
        runtime.block_on(async {
            let mut current = folder.is_current(&stack);
            let mut changed = Box::pin(folder.read_changed(None));
            assert!(futures::poll!(&mut current).is_pending() && futures::poll!(&mut changed).is_pending());
            sender.send(()).unwrap();
            assert!(current.await && changed.await.unwrap().is_some());
        });
    }
}
