//! A task, and the checks a new or changed one has to pass.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::problem::FieldError;

const TITLE_LIMIT_CHARS: usize = 200;
const DESCRIPTION_LIMIT_CHARS: usize = 4000;

/// Identifies a task. Never used twice, and growing with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = i64, example = 1)]
pub struct TaskId(pub i64);

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A task as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Identifies the task.
    pub id: TaskId,
    /// What is to be done.
    #[schema(example = "Water the plants")]
    pub title: String,
    /// More about it; may be empty.
    #[schema(example = "The fern too.")]
    pub description: String,
    /// Whether it is done.
    pub completed: bool,
    /// When it was made, RFC 3339 in UTC.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed, RFC 3339 in UTC.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// A title: 1 to 200 characters after trimming, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(String);

impl TryFrom<String> for Title {
    type Error = String;

    fn try_from(written: String) -> Result<Self, String> {
        let title = written.trim();
        if title.is_empty() {
            return Err("must not be empty".to_owned());
        }
        let length = title.chars().count();
        if length > TITLE_LIMIT_CHARS {
            return Err(format!("must have at most {TITLE_LIMIT_CHARS} characters, has {length}"));
        }
        if title.chars().any(char::is_control) {
            return Err("must not contain line breaks or other control characters".to_owned());
        }
        Ok(Self(title.to_owned()))
    }
}

impl AsRef<str> for Title {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A description: 0 to 4000 characters, kept as written. NUL is refused, since not every database can
/// store it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description(String);

impl TryFrom<String> for Description {
    type Error = String;

    fn try_from(written: String) -> Result<Self, String> {
        let length = written.chars().count();
        if length > DESCRIPTION_LIMIT_CHARS {
            return Err(format!("must have at most {DESCRIPTION_LIMIT_CHARS} characters, has {length}"));
        }
        if written.contains('\0') {
            return Err("must not contain the character NUL".to_owned());
        }
        Ok(Self(written))
    }
}

impl AsRef<str> for Description {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The body that makes a task, before it is checked.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTask)]
pub struct NewTaskBody {
    /// What is to be done: 1 to 200 characters after trimming, no control characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(
        required = true,
        nullable = false,
        min_length = 1,
        max_length = 200,
        example = "Water the plants"
    )]
    pub title: Option<String>,
    /// More about it: 0 to 4000 characters, kept as written.
    #[serde(default, deserialize_with = "present")]
    #[schema(required = false, nullable = false, max_length = 4000, example = "The fern too.")]
    pub description: Option<String>,
    /// Whether it is done already.
    #[serde(default, deserialize_with = "present")]
    #[schema(required = false, nullable = false)]
    pub completed: Option<bool>,
}

/// A task that passed the checks and can be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// What is to be done.
    pub title: Title,
    /// More about it.
    pub description: Description,
    /// Whether it is done already.
    pub completed: bool,
}

impl TryFrom<NewTaskBody> for NewTask {
    type Error = Vec<FieldError>;

    fn try_from(body: NewTaskBody) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        if body.title.is_none() {
            errors.push(FieldError::new("title", "is required"));
        }
        let title = accept("title", body.title, &mut errors);
        let description = accept("description", body.description, &mut errors);
        let completed = body.completed.unwrap_or_default();
        match (title, errors.is_empty()) {
            (Some(title), true) => {
                Ok(Self { title, description: description.unwrap_or_default(), completed })
            }
            _ => Err(errors),
        }
    }
}

/// The body that changes a task, before it is checked. What is absent stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TaskChange)]
pub struct TaskChangeBody {
    /// What is to be done: 1 to 200 characters after trimming, no control characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(
        required = false,
        nullable = false,
        min_length = 1,
        max_length = 200,
        example = "Water the plants"
    )]
    pub title: Option<String>,
    /// More about it: 0 to 4000 characters, kept as written.
    #[serde(default, deserialize_with = "present")]
    #[schema(required = false, nullable = false, max_length = 4000, example = "The fern too.")]
    pub description: Option<String>,
    /// Whether it is done.
    #[serde(default, deserialize_with = "present")]
    #[schema(required = false, nullable = false)]
    pub completed: Option<bool>,
}

/// A change that passed the checks. `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// What is to be done.
    pub title: Option<Title>,
    /// More about it.
    pub description: Option<Description>,
    /// Whether it is done.
    pub completed: Option<bool>,
}

impl TryFrom<TaskChangeBody> for TaskChange {
    type Error = Vec<FieldError>;

    fn try_from(body: TaskChangeBody) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let title = accept("title", body.title, &mut errors);
        let description = accept("description", body.description, &mut errors);
        let change = Self { title, description, completed: body.completed };
        if errors.is_empty() { Ok(change) } else { Err(errors) }
    }
}

/// Checks a field if it was written, and notes what is wrong with it.
fn accept<T>(field: &str, written: Option<String>, errors: &mut Vec<FieldError>) -> Option<T>
where
    T: TryFrom<String, Error = String>,
{
    match T::try_from(written?) {
        Ok(value) => Some(value),
        Err(message) => {
            errors.push(FieldError::new(field, message));
            None
        }
    }
}

/// Reads a field that may be absent but not null.
fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        let longest = "ä".repeat(200);
        let accepted = [("a", "a"), ("  two words\t", "two words"), (longest.as_str(), longest.as_str())];
        for (written, kept) in accepted {
            assert_eq!(Title::try_from(written.to_owned()).unwrap().as_ref(), kept);
        }
        let refused = ["", " \n ", "one\ntwo", "bell\u{7}", "next\u{85}line", &"ä".repeat(201)];
        for written in refused {
            assert!(Title::try_from(written.to_owned()).is_err(), "{written:?}");
        }
    }

    #[test]
    fn descriptions_are_kept_as_written() {
        for written in ["", "  two\r\n\tlines  ", &"𝄞".repeat(4000)] {
            assert_eq!(Description::try_from(written.to_owned()).unwrap().as_ref(), written);
        }
        for written in ["nul\0", &"x".repeat(4001)] {
            assert!(Description::try_from(written.to_owned()).is_err());
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let body = NewTaskBody { title: Some(" ".into()), description: Some("\0".into()), completed: None };
        let fields: Vec<_> =
            NewTask::try_from(body).unwrap_err().into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["title", "description"]);
    }
}
