//! The silences of the spec: Alertmanager gives them names itself, and people make others beside them.

use serde_json::{Value, json};
use tasktracker_crds::{MonitoringSpec, SilenceSpec, scalars::AlertMatcher};

use super::{ALERTMANAGER, PORT};
use crate::{
    component::prometheus,
    project::{ApiCollection, HttpProbe, Listed, ListedObject},
    source::Stack,
};

/// Who made those of the spec.
const AUTHOR: &str = "tasktracker-operator";
/// When they began: Alertmanager takes the moment at which it hears of one instead of an earlier one.
const BEGIN: &str = "2000-01-01T00:00:00Z";

/// Those that there should be, beside whatever people made.
pub(super) fn collection(stack: &Stack, monitoring: &MonitoringSpec) -> ApiCollection {
    let HttpProbe { endpoint, credentials, .. } =
        prometheus::ready(monitoring, ALERTMANAGER, PORT, "/api/v2/silences");
    let silences = &monitoring.alertmanager.silences;
    ApiCollection {
        service: ALERTMANAGER.to_owned(),
        credentials,
        endpoint,
        item: "/api/v2/silence/".to_owned(),
        wanted: Listed {
            ours: json!({ "createdBy": AUTHOR }),
            over: json!({ "status": { "state": "expired" } }),
            objects: silences.iter().filter_map(|silence| object(stack, silence)).collect(),
        },
    }
}

/// A silence is about alerts of its own stack alone.
fn object(stack: &Stack, silence: &SilenceSpec) -> Option<ListedObject> {
    let until = silence.until.timestamp()?;
    let own = [("namespace", stack.key.namespace.as_str()), ("stack", stack.key.name.as_str())];
    let own = own.map(|(label, value)| matcher((label, true, false, value))).into_iter();
    let named = silence.matchers.iter().map(AlertMatcher::parts).map(matcher);
    Some(ListedObject {
        body: json!({
            "matchers": named.chain(own).collect::<Vec<Value>>(),
            "endsAt": until.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
            "createdBy": AUTHOR,
            "comment": silence.reason.as_str(),
        }),
        only_sent: json!({ "startsAt": BEGIN }),
        until: Some(until),
    })
}

fn matcher((name, is_equal, is_pattern, value): (&str, bool, bool, &str)) -> Value {
    json!({ "name": name, "value": value, "isRegex": is_pattern, "isEqual": is_equal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_about_its_own_stack_and_ends() {
        let text = include_str!("../../../../../examples/staging.yaml");
        let stack =
            Stack::new(tasktracker_crds::validation::read_stack(text).unwrap(), "staging.yaml".into());
        let silence =
            r#"{matchers: ['host=~"app-.*"'], until: "2027-01-31T18:00:00+01:00", reason: new disks}"#;
        let spec = format!("alertmanager: {{silences: [{silence}]}}");
        let all = collection(&stack, &serde_saphyr::from_str(&spec).unwrap());
        let object = &all.wanted.objects[0];
        assert_eq!(object.body["endsAt"], "2027-01-31T17:00:00.000Z");
        assert_eq!(object.until, Some("2027-01-31T17:00:00Z".parse().unwrap()));
        let matchers: Vec<String> = object.body["matchers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{}{}", one["name"], one["value"]))
            .collect();
        assert_eq!(matchers, [r#""host""app-.*""#, r#""namespace""default""#, r#""stack""staging""#]);
        assert_eq!(object.body["comment"], "new disks");
    }
}
