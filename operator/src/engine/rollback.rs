//! Going back to a release that a host keeps: a person's wish, which holds until the spec's next change.

use super::{Evaluation, ProjectContext, now};
use crate::{
    apply,
    diff::{self, Change, ChangeItem, certificate},
    host::{self, HostLock},
    ledger::Ledger,
    observe::{ImageAvailability, Observed},
    plan::{self, Approval, PeerFailure},
    release::Release,
    secret::Seals,
};

/// What keeps a rollback from being done.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// There is no such release to go back to.
    #[error(
        "release {wanted}: expected one of those that the host keeps beside the current one ({kept}), found none; see `history`"
    )]
    NotKept {
        /// The release asked for, or words for the one before.
        wanted: String,
        /// Those that are kept.
        kept: String,
    },
    /// Nothing may be written, or the release would do harm.
    #[error("{found}")]
    Refused {
        /// Why.
        found: String,
    },
    /// The host, or what was done on it.
    #[error(transparent)]
    Apply(#[from] apply::Error),
}

impl From<host::Error> for RollbackError {
    fn from(error: host::Error) -> Self {
        Self::Apply(error.into())
    }
}

impl ProjectContext<'_> {
    /// Pulls what a kept release needs and the host does not have any more. It may take long: before the host's lock is
    /// asked for. What does not come of it is told where the release is gone back to.
    ///
    /// # Errors
    /// When there is no such release, or the host cannot be asked.
    pub async fn bring_images_back(
        &self,
        evaluation: &Evaluation,
        wanted: Option<&str>,
    ) -> Result<(), RollbackError> {
        let release = self.kept_release(evaluation, wanted).await?;
        Ok(self.bring_images(&release).await?)
    }

    /// Goes back to a kept release, or to the one before the current one, and holds there until the spec changes.
    ///
    /// # Errors
    /// When there is no such release, or it does not serve: then the current one stays in force.
    pub async fn rollback(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        wanted: Option<&str>,
        who: &str,
    ) -> Result<apply::Outcome, RollbackError> {
        let cause = apply::RollbackCause::Requested(evaluation.project.hash(&Seals::new()));
        self.go_back(lock, evaluation, wanted, who, cause).await
    }

    /// Goes back to the release before, since what is in force failed on another host; that is not tried again here.
    ///
    /// # Errors
    /// When there is no release before, or it does not serve.
    pub async fn rollback_for_peer(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        found: &PeerFailure,
        who: &str,
    ) -> Result<apply::Outcome, RollbackError> {
        self.go_back(lock, evaluation, None, who, apply::RollbackCause::FailedOnPeer(found.clone())).await
    }

    async fn go_back(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        wanted: Option<&str>,
        who: &str,
        cause: apply::RollbackCause,
    ) -> Result<apply::Outcome, RollbackError> {
        let release = self.kept_release(evaluation, wanted).await?;
        let policy = &self.stack.spec.policy;
        let mut secrets = evaluation.observed.secrets.clone();
        self.secrets.of(&self.stack.key).add(&mut secrets, &release.project.references()).await;
        // What the spec asks for beyond that is not what is brought back, and it needs no room that is not taken already.
        let observed = Observed {
            secrets,
            availability: ImageAvailability::default(),
            facts: None,
            ..evaluation.observed.clone()
        };
        let observed = certificate::without_unusable(&release.project, observed, now());
        let change = change_to(&release, &observed);
        let project = release.project.clone();
        let mut plan =
            plan::plan(&evaluation.drift, Some(change), &project, &observed, policy, Approval::GoingBack);
        plan.hold.clone_from(&evaluation.plan.hold);
        let refused = plan.hold.as_ref().map(|hold| format!("nothing is written: {}", hold.message));
        let refused = refused.or_else(|| plan.waiting.as_ref().map(|waiting| waiting.message.clone()));
        if let Some(found) = refused {
            return Err(RollbackError::Refused { found });
        }
        let back = apply::Back { images: release.images, cause };
        let back_to = Evaluation { project, observed, drift: evaluation.drift.clone(), plan };
        Ok(self.act_on(lock, &back_to, who, Some(back)).await?)
    }

    /// The release to go back to, as the host keeps it.
    async fn kept_release(
        &self,
        evaluation: &Evaluation,
        wanted: Option<&str>,
    ) -> Result<Release, RollbackError> {
        let ledger = evaluation.observed.ledger.as_ref();
        let current = ledger.and_then(|ledger| ledger.current.clone());
        let kept = ledger.map(Ledger::kept).unwrap_or_default();
        // Where a failed release was left in place, the one in force is what is gone back to.
        let is_left = ledger.and_then(Ledger::held_failure).is_some();
        let is_other = |id: &String| is_left || Some(id) != current.as_ref();
        let kept: Vec<String> = kept.into_iter().filter(is_other).collect();
        let before = ledger.and_then(|ledger| ledger.previous.clone());
        let before = if is_left { current.clone() } else { before };
        let chosen = match wanted {
            Some(wanted) => kept.iter().find(|id| *id == wanted).cloned(),
            None => before.filter(|id| kept.contains(id)),
        };
        let Some(id) = chosen else {
            let wanted = wanted.unwrap_or("before the current one").to_owned();
            let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
            return Err(RollbackError::NotKept { wanted, kept });
        };
        let path = format!("{}/releases/{id}/manifest.json", evaluation.project.folder);
        let text = self.host.content(std::slice::from_ref(&path)).await?.remove(&path).unwrap_or_default();
        let damaged = |found: String| host::Error::ReleaseDamaged { path: path.clone(), found };
        let release = Release::read(&text).map_err(damaged)?;
        if release.id != id || release.project.owner != evaluation.project.owner {
            let found = format!("release {} of another owner", release.id);
            return Err(damaged(crate::text::printable(&found)).into());
        }
        Ok(release)
    }
}

/// What going back to a release changes: the same desired state with other images is another release, too.
fn change_to(release: &Release, observed: &Observed) -> Change {
    let current = observed.applied.as_ref();
    diff::change(&release.project, observed).unwrap_or_else(|| Change {
        desired_hash: release.desired_hash.clone(),
        from_release: current.map(|applied| applied.id.clone()),
        from_revision: current.map(|applied| applied.project.version().to_owned()),
        to_revision: release.project.version().to_owned(),
        items: vec![ChangeItem {
            service: None,
            path: "images".to_owned(),
            from: current.map(|applied| applied.id.clone()).unwrap_or_default(),
            to: release.id.clone(),
        }],
        adopts: Vec::new(),
        restarts: None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{release::Prepared, source::Stack};

    fn release(revision: &str, image: &str) -> Release {
        let text = include_str!("../../../examples/staging.yaml").replace("3f2c1ab", revision);
        let stack = Stack::new(tasktracker_crds::validation::read_stack(&text).unwrap(), "s.yaml".into());
        let project = crate::component::app_project(&stack, stack.spec.app.as_ref().unwrap());
        let images = BTreeMap::from([("backend".to_owned(), image.to_owned())]);
        Prepared::new(project, images, BTreeMap::new()).release
    }

    #[test]
    fn the_same_desired_state_with_other_images_is_something_to_go_back_to() {
        let observed = Observed { applied: Some(release("r1", "sha256:new")), ..Observed::default() };
        let back = release("r1", "sha256:old");
        let change = change_to(&back, &observed);
        assert_eq!((change.items.len(), change.items[0].path.as_str()), (1, "images"));
        assert_eq!(change.desired_hash, back.desired_hash);
        let paths = change_to(&release("r0", "sha256:old"), &observed).items;
        assert!(paths.iter().any(|item| item.path == "image"), "{paths:?}");
    }
}
