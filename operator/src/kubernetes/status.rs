//! The status of stacks, written only where it is another one than the API server has.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kube::{
    Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use tasktracker_crds::TaskTrackerStackStatus;

use super::{
    ApiError, MANAGER,
    api::{key_of, stacks_api, status_of},
    limited,
};

/// What was written of each object last, by UID.
#[derive(Default)]
pub(super) struct Written(Mutex<BTreeMap<String, Last>>);

#[derive(Clone)]
struct Last {
    status: TaskTrackerStackStatus,
    version: u64,
}

/// A resource version as a number: they grow.
fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Written {
    /// What the API server has of an object, as far as that is known.
    pub(super) fn known(&self, object: &DynamicObject) -> TaskTrackerStackStatus {
        let last = self.last(object).filter(|last| last.version >= version(object));
        last.map_or_else(|| status_of(object), |last| last.status)
    }

    fn last(&self, object: &DynamicObject) -> Option<Last> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(object.metadata.uid.as_deref().unwrap_or_default()).cloned()
    }

    /// Forgets objects that are there no longer.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| is_there(uid));
    }

    /// Writes a status where the API server has another one; whether it did.
    ///
    /// # Errors
    /// Where the API server does not take it.
    pub(super) async fn write(
        &self,
        client: Client,
        object: &DynamicObject,
        status: TaskTrackerStackStatus,
    ) -> Result<bool, ApiError> {
        if is_same(&self.known(object), &status) {
            return Ok(false);
        }
        let key = key_of(object);
        let document = json!({
            "apiVersion": tasktracker_crds::API_VERSION,
            "kind": tasktracker_crds::KIND,
            "metadata": { "name": key.name, "namespace": key.namespace, "uid": object.metadata.uid },
            "status": status,
        });
        let api = stacks_api(client, Some(&key.namespace));
        let parameters = PatchParams::apply(MANAGER).force();
        let written = limited(api.patch_status(&key.name, &parameters, &Patch::Apply(&document))).await?;
        let last = Last { status, version: version(&written) };
        let uid = object.metadata.uid.clone().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, last);
        Ok(true)
    }
}

/// Whether nothing of ours differs: others may have conditions of their own beside them.
fn is_same(known: &TaskTrackerStackStatus, wanted: &TaskTrackerStackStatus) -> bool {
    let mut known = known.clone();
    let is_ours = |kind: &str| wanted.conditions.iter().any(|condition| condition.type_ == kind);
    known.conditions.retain(|condition| is_ours(&condition.type_));
    known.conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    let mut wanted = wanted.clone();
    wanted.conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    known == wanted
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;

    #[test]
    fn conditions_of_others_and_their_order_are_no_reason_to_write() {
        let condition = |kind: &str, status: &str| Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: "Succeeded".to_owned(),
            message: String::new(),
            observed_generation: Some(1),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        };
        let status = |conditions: Vec<Condition>| TaskTrackerStackStatus { conditions, ..Default::default() };
        let ours = status(vec![condition("Ready", "True"), condition("InSync", "True")]);
        let theirs = status(vec![
            condition("InSync", "True"),
            condition("Audited", "True"),
            condition("Ready", "True"),
        ]);
        assert!(is_same(&theirs, &ours));
        assert!(!is_same(&status(vec![condition("Ready", "False"), condition("InSync", "True")]), &ours));
        assert!(!is_same(&status(vec![condition("Ready", "True")]), &ours));
    }
}
