//! Objects to which a service gives names itself, beside those that it should have.

use jiff::Timestamp;
use serde_json::Value;

use super::probes::other_field;
use crate::project::{Listed, ListedObject};

/// What is otherwise in a list than it should be.
#[derive(Debug, PartialEq)]
pub struct ListDifferences<'a> {
    /// What is wanted and not there.
    pub missing: Vec<&'a ListedObject>,
    /// Identifiers of those of ours that are not wanted.
    pub superfluous: Vec<&'a str>,
}

impl<'a> ListDifferences<'a> {
    /// Compares what should be there at a moment with what a service lists; none where it lists nothing.
    pub fn of(wanted: &'a Listed, found: &'a Value, now: Timestamp) -> Option<Self> {
        let found = found.as_array()?;
        let has = |object: &Value, fields: &Value| other_field(fields, Some(object), String::new()).is_none();
        let lasting: Vec<&Value> = found.iter().filter(|object| !has(object, &wanted.over)).collect();
        let asked = wanted.objects.iter().filter(|object| object.until.is_none_or(|until| until > now));
        let asked: Vec<&ListedObject> = asked.collect();
        let missing = asked.iter().filter(|one| !lasting.iter().any(|object| has(object, &one.body)));
        let ours = lasting.iter().filter(|object| has(object, &wanted.ours));
        let superfluous = ours.filter(|object| !asked.iter().any(|one| has(object, &one.body)));
        Some(Self {
            missing: missing.copied().collect(),
            superfluous: superfluous.filter_map(|object| object["id"].as_str()).collect(),
        })
    }

    /// What differs, for people; none where nothing does. No value is in it.
    pub fn words(&self) -> Option<String> {
        let counted = [(self.missing.len(), "missing"), (self.superfluous.len(), "more than wanted")];
        let told =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ours_are_taken_away_and_only_what_lasts_is_wanted() {
        let now: Timestamp = "2026-05-01T00:00:00Z".parse().unwrap();
        let object = |name: &str, until: &str| ListedObject {
            body: json!({ "by": "us", "name": name }),
            only_sent: json!({ "from": "then" }),
            until: Some(until.parse().unwrap()),
        };
        let wanted = Listed {
            ours: json!({ "by": "us" }),
            over: json!({ "state": "over" }),
            objects: vec![
                object("there", "2026-06-01T00:00:00Z"),
                object("gone", "2026-06-01T00:00:00Z"),
                object("over", "2026-06-01T00:00:00Z"),
                object("past", "2026-05-01T00:00:00Z"),
            ],
        };
        let found = json!([
            { "id": "1", "by": "us", "name": "there", "state": "active", "more": 1 },
            { "id": "2", "by": "us", "name": "there", "state": "active" },
            { "id": "3", "by": "somebody", "name": "other", "state": "active" },
            { "id": "4", "by": "us", "name": "over", "state": "over" },
            { "id": "5", "by": "us", "name": "past", "state": "active" },
            { "id": "6", "by": "us", "name": "unknown", "state": "active" },
        ]);
        let differences = ListDifferences::of(&wanted, &found, now).unwrap();
        let missing: Vec<&Value> = differences.missing.iter().map(|object| &object.body["name"]).collect();
        assert_eq!(missing, ["gone", "over"]);
        assert_eq!(differences.superfluous, ["5", "6"]);
        assert_eq!(differences.words().unwrap(), "2 missing, 2 more than wanted");
        let nothing = Listed { objects: Vec::new(), ..wanted.clone() };
        assert_eq!(ListDifferences::of(&nothing, &json!([]), now).unwrap().words(), None);
        assert_eq!(ListDifferences::of(&wanted, &json!({}), now), None);
    }
}
