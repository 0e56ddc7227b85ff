//! Specs that were validated: what triggers a reconciliation is mostly a new status, and needs no validation.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use kube::api::DynamicObject;
use tasktracker_crds::{TaskTrackerStack, validation::Mistake};

use super::api;
use crate::{
    json,
    model::sha256,
    source::{self, Stack},
};

/// The newest spec of each object with what its validation found, by UID.
pub(super) struct Specs {
    /// Folders of hosts below which a stack's `directory` may lie.
    roots: Vec<PathBuf>,
    validated: Mutex<BTreeMap<String, Arc<Validated>>>,
}

struct Validated {
    generation: Option<i64>,
    /// SHA-256 of the spec. Compared, too: an API server that was restored gives a generation to another spec.
    spec: String,
    result: Result<TaskTrackerStack, Vec<Mistake>>,
}

impl Specs {
    pub(super) fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, validated: Mutex::default() }
    }

    /// The stack of an object, by every rule that looks at it alone.
    ///
    /// # Errors
    /// Every mistake.
    pub(super) fn read(&self, object: &DynamicObject) -> Result<Stack, Vec<Mistake>> {
        let mut resource = self.validated(object).result.clone()?;
        resource.metadata = api::metadata_of(object);
        Ok(Stack::of_object(resource, PathBuf::new()))
    }

    /// Forgets objects that are there no longer.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.validated.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| is_there(uid));
    }

    fn validated(&self, object: &DynamicObject) -> Arc<Validated> {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let known = self.validated.lock().unwrap_or_else(PoisonError::into_inner).get(&uid).cloned();
        let spec = sha256(&json::to_vec(&object.data["spec"]));
        if let Some(known) = known
            && known.generation == object.metadata.generation
            && known.spec == spec
        {
            return known;
        }
        let (generation, result) = (object.metadata.generation, self.validate(object));
        let validated = Arc::new(Validated { generation, spec, result });
        self.validated.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, validated.clone());
        validated
    }

    fn validate(&self, object: &DynamicObject) -> Result<TaskTrackerStack, Vec<Mistake>> {
        let stack = api::read(object)?;
        let mut mistakes = source::mistakes(&stack, &self.roots);
        mistakes.extend(command(&stack));
        if mistakes.is_empty() { Ok(stack.resource) } else { Err(mistakes) }
    }
}

/// A program that a stack would have run beside the operator: whoever may write a stack is not whoever runs the operator.
fn command(stack: &Stack) -> Option<Mistake> {
    let auth = &stack.spec.app.as_ref()?.registry_auth;
    let _: &Vec<_> = auth.as_ref()?.command.as_ref()?;
    let message = "expected secret or hostHelper, found a command, which would run with the rights of the operator's pod";
    let path = "spec.app.registryAuth.command".to_owned();
    Some(Mistake { line: 0, column: 0, path, message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{super::fake, *};

    fn specs() -> Specs {
        Specs::new(vec![PathBuf::from("/opt")])
    }

    #[test]
    fn a_spec_is_validated_once() {
        let (specs, mut object) = (specs(), fake::stack("staging"));
        let first = specs.validated(&object);
        object.metadata.resource_version = Some("2".to_owned());
        object.data["status"] = serde_json::json!({ "revision": "r1" });
        object.metadata.annotations = Some([("tasktracker.dev/retry".to_owned(), "1".to_owned())].into());
        assert!(Arc::ptr_eq(&first, &specs.validated(&object)));
        // A new generation, or another spec of the same one.
        object.metadata.generation = Some(2);
        let second = specs.validated(&object);
        assert!(!Arc::ptr_eq(&first, &second));
        object.data["spec"]["revision"] = "4d8e2f0".into();
        assert!(!Arc::ptr_eq(&second, &specs.validated(&object)));
        assert_eq!(specs.read(&object).unwrap().spec.revision.as_str(), "4d8e2f0");
    }

    #[test]
    fn mistakes_are_found_again_without_validation() {
        let (specs, mut object) = (specs(), fake::stack("staging"));
        object.data["spec"]["revision"] = "not a revision".into();
        let first = specs.validated(&object);
        let mistakes = specs.read(&object).unwrap_err();
        assert_eq!(mistakes[0].path, "spec.revision");
        assert_eq!(specs.read(&object).unwrap_err(), mistakes);
        assert!(Arc::ptr_eq(&first, &specs.validated(&object)));
    }

    #[test]
    fn a_stack_has_the_newest_metadata() {
        let (specs, mut object) = (specs(), fake::stack("staging"));
        specs.read(&object).unwrap();
        for annotations in [None, Some([("tasktracker.dev/retry".to_owned(), "1".to_owned())].into())] {
            object.metadata.annotations = annotations;
            assert_eq!(specs.read(&object).unwrap(), api::read(&object).unwrap());
        }
        assert_eq!(specs.read(&object).unwrap().annotation("tasktracker.dev/retry"), Some("1"));
    }

    #[test]
    fn objects_that_are_gone_are_forgotten() {
        let (specs, object) = (specs(), fake::stack("staging"));
        specs.read(&object).unwrap();
        specs.retain(|_| false);
        assert!(specs.validated.lock().unwrap().is_empty());
    }
}
