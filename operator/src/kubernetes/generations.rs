//! Whether specs go forward: an API server whose data was restored from an older state has specs that were replaced long
//! ago. They are not carried out before somebody changes them again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tasktracker_crds::conditions::reasons;

use crate::{
    model::Hold,
    source::{Stack, StackKey},
};

/// What was seen of one object.
#[derive(Debug)]
struct Seen {
    uid: Option<String>,
    newest: i64,
    /// The older one that came after it.
    back: Option<i64>,
}

/// The newest generation of each stack that was seen.
#[derive(Debug, Default)]
pub(super) struct Generations(Mutex<BTreeMap<StackKey, Seen>>);

impl Generations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StackKey, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A spec of a stack came.
    pub(super) fn saw(&self, stack: &Stack) {
        let metadata = &stack.resource.metadata;
        let generation = metadata.generation.unwrap_or_default();
        let fresh = || Seen { uid: metadata.uid.clone(), newest: generation, back: None };
        let mut all = self.lock();
        let seen = all.entry(stack.key.clone()).or_insert_with(fresh);
        if seen.uid != metadata.uid || seen.back.is_some_and(|back| generation > back) {
            // Another object, or somebody changed it since.
            *seen = fresh();
        } else if generation < seen.newest {
            seen.back = Some(generation);
        } else {
            seen.newest = generation;
        }
    }

    /// Forgets stacks that are there no longer.
    pub(super) fn retain(&self, there: &BTreeSet<StackKey>) {
        self.lock().retain(|key, _| there.contains(key));
    }

    /// Why nothing but repairs is begun for a stack.
    pub(super) fn bar(&self, stack: &StackKey) -> Option<Hold> {
        let all = self.lock();
        let seen = all.get(stack)?;
        let back = seen.back?;
        let message = format!(
            "the spec went back: expected generation {} or a newer one, found {back}, as after a restore of the API server's data; look at it, and change it",
            seen.newest
        );
        Some(Hold { reason: reasons::SPEC_WENT_BACK, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(uid: &str, generation: i64) -> Stack {
        let text = include_str!("../../../examples/staging.yaml");
        let mut resource = tasktracker_crds::validation::read_stack(text).unwrap();
        resource.metadata.uid = Some(uid.to_owned());
        resource.metadata.generation = Some(generation);
        Stack::of_object(resource, std::path::PathBuf::new())
    }

    #[test]
    fn an_older_spec_is_not_carried_out_before_somebody_changes_it() {
        let generations = Generations::default();
        let bar = |uid: &str, generation: i64| {
            let stack = stack(uid, generation);
            generations.saw(&stack);
            generations.bar(&stack.key).map(|bar| bar.reason)
        };
        assert_eq!([bar("a", 1), bar("a", 5), bar("a", 5)], [None, None, None]);
        assert_eq!([bar("a", 3), bar("a", 3)], [Some("SpecWentBack"); 2]);
        assert_eq!([bar("a", 4), bar("a", 4)], [None, None], "somebody changed it");
        assert_eq!(bar("a", 3), Some("SpecWentBack"));
        assert_eq!(bar("b", 1), None, "another object");
    }
}
