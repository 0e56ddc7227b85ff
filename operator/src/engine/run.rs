//! `run` on a folder: follows its files, and keeps a worker for each host of the stacks in them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Memory,
    absence::AbsenceTracker,
    stacks::{Parts, Stacks, tell_refused},
};
use crate::{
    metrics::Metrics,
    server::{self, Health, ServerState},
    source::{Folder, Secrets, Stack, StackFile, StackFiles},
};

/// How long the folder may not be checked before that is a defect.
const STUCK: Duration = Duration::from_mins(2);
/// How often the folder is checked.
const FOLDER_PAUSE: Duration = Duration::from_secs(1);

/// What `run` needs.
pub struct Settings {
    /// Where the stacks are.
    pub folder: Folder,
    /// Where the secrets are.
    pub secrets: Secrets,
    /// The operator's own folder.
    pub memory: Memory,
    /// Where metrics and health are served.
    pub listen: SocketAddr,
}

/// Runs until `stop` resolves; then lets every worker finish what it does.
///
/// # Errors
/// When metrics cannot be served or made.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let ready = Arc::new(AtomicBool::new(false));
    let health = Arc::new(Health::new(STUCK));
    let state =
        ServerState { metrics: metrics.clone(), ready: ready.clone(), health: health.clone(), access: None };
    let server = tokio::spawn(server::serve(settings.listen, state));
    let mut follower = Follower::new(Parts {
        source: Arc::new(settings.folder.clone()),
        secrets: settings.secrets,
        memory: Arc::new(settings.memory),
        metrics,
        listener: None,
    });
    tokio::select! {
        result = server => { result??; }
        () = follower.follow(&settings.folder, &ready, &health) => {}
        () = stop => tracing::info!("stopping: what is being done is finished"),
    }
    follower.stacks.end().await;
    follower.stacks.shared.memory.flush().await;
    Ok(())
}

/// Follows a folder, with an eye on what is gone from it.
struct Follower {
    stacks: Stacks,
    gone_stacks: AbsenceTracker<String>,
}

impl Follower {
    fn new(parts: Parts) -> Self {
        Self { stacks: Stacks::new(parts), gone_stacks: AbsenceTracker::default() }
    }

    async fn follow(&mut self, folder: &Folder, ready: &AtomicBool, health: &Health) {
        let beat = health.watch("stacks");
        let mut stamp = None;
        let mut last_error = String::new();
        let mut known: Option<StackFiles> = None;
        loop {
            beat.now();
            let read = folder.read_changed(stamp.clone()).await.map(|changed| {
                if let Some((new, read)) = changed {
                    tell_skipped(known.as_ref(), &read);
                    self.upsert(&read.files);
                    known = Some(read);
                    stamp = Some(new);
                    ready.store(true, Ordering::Relaxed);
                }
            });
            let error = read.as_ref().err().map(ToString::to_string).unwrap_or_default();
            if !error.is_empty() && error != last_error {
                tracing::error!("{error}; the last stacks stay in force");
            }
            self.stacks.shared.watcher.metrics().source_synced(error.is_empty());
            last_error = error;
            if let Some(known) = &known {
                self.see_what_is_gone(known, read.is_ok(), Instant::now());
            }
            tokio::time::sleep(FOLDER_PAUSE).await;
        }
    }

    /// Starts and updates workers so that they match the files. A file with mistakes leaves its stack as it was.
    fn upsert(&mut self, files: &[StackFile]) {
        for file in files {
            let place = file.path.display().to_string();
            match &file.content {
                Ok(stack) => {
                    if let Err(rules) = self.stacks.upsert(stack.clone(), None) {
                        tell_refused(&place, &[rules]);
                    }
                }
                Err(mistakes) => {
                    tell_refused(&place, mistakes);
                    let kept = self.stacks.in_force().filter(|stack| stack.origin == file.path);
                    kept.for_each(|stack| self.stacks.set_refused(&stack.key, true));
                }
            }
        }
    }

    /// Stacks without a file, and hosts that their stacks name no longer. They count only when that lasts, and the
    /// folder can be relied on: it reads well, is not empty, and no file in it has mistakes, for that may be theirs.
    fn see_what_is_gone(&mut self, known: &StackFiles, read: bool, now: Instant) {
        let reliable = read && known.is_reliable();
        let files = &known.files;
        let asked: BTreeMap<String, &Stack> =
            files.iter().flat_map(|file| &file.content).map(|stack| (stack.key.to_string(), stack)).collect();
        let known = self.stacks.known();
        let gone = known.iter().filter(|key| !asked.contains_key(*key)).cloned().collect();
        for key in self.gone_stacks.expired(gone, reliable, now) {
            if self.stacks.unfollow(&key) {
                tracing::warn!(stack = %key, "its file is gone: it is no longer reconciled");
            }
            let hosts = self.stacks.shared.memory.deployed(&key).map(|known| known.hosts).unwrap_or_default();
            self.stacks.retire(&key, hosts.into_values());
        }
        self.stacks.reconcile_retained_hosts(&known, &asked, reliable, now);
    }
}

/// Tells once what in the folder is no stack.
fn tell_skipped(before: Option<&StackFiles>, now: &StackFiles) {
    for skipped in &now.skipped {
        if before.is_none_or(|before| !before.skipped.contains(skipped)) {
            tracing::info!(file = %skipped.path.display(), "skipped: found {}", skipped.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        path::{Path, PathBuf},
    };

    use tasktracker_crds::{Deletion, TaskTrackerStackStatus, validation};

    use super::*;
    use crate::{
        engine::{left::Retiring, retire::Why},
        model::ComponentName,
        release::Prepared,
        source::{DELETE_HOST_ANNOTATION, ProjectKey},
    };

    const TEXT: &str = include_str!("../../../examples/staging.yaml");

    fn file(text: &str) -> StackFile {
        let text = format!("{text}\n  policy: {{deletion: Down}}\n");
        let resource = validation::read_stack(&text).unwrap();
        StackFile { path: "staging.yaml".into(), content: Ok(Stack::new(resource, "staging.yaml".into())) }
    }

    fn release() -> crate::release::Release {
        let stack = Stack::new(validation::read_stack(TEXT).unwrap(), PathBuf::new());
        let project = crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap());
        Prepared::new(project, BTreeMap::new(), BTreeMap::new()).release
    }

    /// The stack on another host than it is deployed on.
    fn files(file: StackFile) -> StackFiles {
        StackFiles { files: vec![file], skipped: Vec::new() }
    }

    fn moved(text: &str) -> StackFile {
        file(&text.replace("name: app-1", "name: app-9").replace("address: ", "address: other."))
    }

    /// A follower to which the example is known to be deployed, and that follows it already.
    fn follower(folder: &Path) -> Follower {
        let memory = Arc::new(Memory::take(folder).unwrap());
        let stack = file(TEXT);
        if let Ok(stack) = &stack.content {
            memory.record(stack, &stack.spec.hosts[0], &release(), None);
        }
        let mut follower = Follower::new(Parts {
            source: Arc::new(Folder::new(folder.to_owned(), Vec::new())),
            secrets: Secrets::default(),
            memory,
            metrics: Arc::new(Metrics::new().unwrap()),
            listener: None,
        });
        follower.upsert(&[stack]);
        follower
    }

    /// What is taken away when the source says this for longer than a minute.
    fn retired(follower: &mut Follower, file: StackFile, read: bool) -> Vec<String> {
        let (files, now) = (files(file), Instant::now());
        follower.upsert(&files.files);
        follower.see_what_is_gone(&files, read, now);
        follower.see_what_is_gone(&files, read, now + Duration::from_secs(61));
        follower.stacks.retiring.keys().map(|(stack, host)| format!("{stack} {host}")).collect()
    }

    #[tokio::test]
    async fn a_host_is_taken_from_a_stack_only_by_a_spec_that_is_in_force() {
        let (folder, none) = (tempfile::tempdir().unwrap(), Vec::<String>::new());
        let mut follower = follower(folder.path());
        assert_eq!(retired(&mut follower, file(TEXT), true), none);
        let refused = moved(&TEXT.replace("environment: staging", "environment: another"));
        assert_eq!(retired(&mut follower, refused, true), none, "an update that was refused");
        assert_eq!(retired(&mut follower, moved(TEXT), false), none, "a folder that cannot be read");
        assert_eq!(retired(&mut follower, moved(TEXT), true), ["default/staging app-1"]);
        // What a person has forgotten, nobody takes away.
        let known = follower.stacks.shared.memory.deployed("default/staging").unwrap();
        follower.stacks.shared.memory.forget("default/staging", "app-1");
        let (gone, now) = (files(moved(TEXT)), Instant::now());
        follower.see_what_is_gone(&gone, true, now);
        tokio::task::yield_now().await;
        follower.see_what_is_gone(&gone, true, now);
        assert!(follower.stacks.retiring.is_empty());
        // Named again, it is let alone.
        follower.stacks.shared.memory.record(
            &Stack::new(known.resource, PathBuf::new()),
            &known.hosts["app-1"].spec,
            &release(),
            None,
        );
        assert_eq!(retired(&mut follower, moved(TEXT), true), ["default/staging app-1"]);
        let (back, now) = (files(file(TEXT)), Instant::now());
        follower.upsert(&back.files);
        follower.see_what_is_gone(&back, true, now);
        tokio::task::yield_now().await;
        follower.see_what_is_gone(&back, true, now);
        assert!(follower.stacks.retiring.is_empty());
    }

    #[tokio::test]
    async fn a_worker_whose_host_is_not_asked_for_waits_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let shared = follower(folder.path()).stacks.shared.clone();
        let stack = file(TEXT).content.unwrap();
        let gone = ProjectKey {
            stack: stack.key.clone(),
            host: "gone".to_owned(),
            component: ComponentName::default(),
        };
        let (sender, receiver) = tokio::sync::watch::channel(Some(Arc::new(stack)));
        let mut worker = std::pin::pin!(super::super::worker::work(shared, gone, receiver));
        assert!(
            futures::poll!(&mut worker).is_pending(),
            "a host that comes back in this instant has no worker"
        );
        sender.send_replace(None);
        assert!(futures::poll!(&mut worker).is_ready());
    }

    #[tokio::test]
    async fn a_policy_that_changes_while_a_host_is_retained_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = follower(folder.path());
        let with = |deletion: &str| {
            let mut file = moved(TEXT);
            if let Ok(stack) = &mut file.content {
                let mut resource = stack.resource.clone();
                resource.spec.policy.deletion = serde_json::from_value(deletion.into()).unwrap();
                *stack = Stack::new(resource, "staging.yaml".into());
            }
            file
        };
        assert_eq!(retired(&mut follower, with("Retain"), true), Vec::<String>::new());
        let (files, now) = (files(with("Down")), Instant::now() + Duration::from_secs(62));
        follower.upsert(&files.files);
        follower.see_what_is_gone(&files, true, now);
        let retiring: Vec<String> = follower.stacks.retiring.keys().map(|(_, host)| host.clone()).collect();
        assert_eq!(retiring, ["app-1"], "the request is later than the absence");
        // It goes on, and is not begun again.
        let began = follower.stacks.retiring.values().map(Retiring::task_id).collect::<Vec<_>>();
        follower.see_what_is_gone(&files, true, now + Duration::from_secs(1));
        assert_eq!(follower.stacks.retiring.values().map(Retiring::task_id).collect::<Vec<_>>(), began);
    }

    #[tokio::test]
    async fn a_requested_removal_goes_on_while_its_annotation_is_present() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = follower(folder.path());
        let mut see = |requested: &str, generation: i64| {
            let mut resource = moved(TEXT).content.unwrap().resource;
            resource.metadata.uid = Some("u".to_owned());
            resource.metadata.generation = Some(generation);
            resource.metadata.annotations =
                Some([(DELETE_HOST_ANNOTATION.to_owned(), requested.to_owned())].into());
            let stack = Stack::of_object(resource, PathBuf::new());
            let files = files(StackFile { path: "staging.yaml".into(), content: Ok(stack) });
            follower.upsert(&files.files);
            // Long enough for the policy, too.
            for seconds in [0, 61] {
                follower.see_what_is_gone(&files, true, Instant::now() + Duration::from_secs(seconds));
            }
            let why = follower.stacks.retiring.values().map(|one| one.why).collect::<Vec<_>>();
            let known = follower.stacks.shared.memory.deployed("default/staging");
            (why, known.is_some_and(|known| known.hosts.contains_key("app-1")))
        };
        let with_volumes = || (vec![Why::Requested(Deletion::DownAndVolumes)], true);
        assert_eq!(see("app-1@u@7/volumes", 7), with_volumes());
        let policy = (vec![Why::Left], true);
        assert_eq!(see("app-2@u@7/volumes", 7), policy, "the policy says that it goes, and volumes stay");
        assert_eq!(see("app-1@u@7/volumes", 7), with_volumes());
        assert_eq!(see("app-1@u@7/volumes", 8), policy, "it was for another spec");
        assert_eq!(see("app-1@u@8/volumes", 8).0, with_volumes().0);
        // Its data is the newest: the stack is in force on no other host yet.
        assert_eq!(see("app-1@u@8", 8), (vec![], true), "volumes are not asked for any more");
        assert_eq!(see("app-1@u@8/forget", 8), (vec![], false));
    }

    #[tokio::test]
    async fn a_deleted_stack_is_taken_from_every_host_whatever_was_begun_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = follower(folder.path());
        assert_eq!(retired(&mut follower, moved(TEXT), true), ["default/staging app-1"]);
        let stack = moved(TEXT).content.unwrap();
        follower.stacks.remove(&stack, &TaskTrackerStackStatus::default());
        assert_eq!(follower.stacks.left(&stack.key), ["app-1", "app-9"]);
        assert!(follower.stacks.retiring.values().all(|one| one.why == Why::Deleted(Deletion::Down)));
    }
}
