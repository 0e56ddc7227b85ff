//! What a list request asks for.

use crate::problem::FieldError;

use super::TaskId;

/// How many tasks a page holds at most: 1 to 200, 50 unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit(u16);

impl PageLimit {
    /// The largest page.
    pub const MAX: u16 = 200;

    /// The limit as a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(50)
    }
}

impl TryFrom<&str> for PageLimit {
    type Error = String;

    fn try_from(written: &str) -> Result<Self, String> {
        let limit = written.parse().ok().filter(|limit| (1..=Self::MAX).contains(limit));
        limit.map(Self).ok_or_else(|| format!("must be a number from 1 to {}", Self::MAX))
    }
}

/// What a list request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only tasks that are done, or only those that are not.
    pub completed: Option<bool>,
    /// How many at most.
    pub limit: PageLimit,
    /// Only tasks that come after this one in the list.
    pub after: Option<TaskId>,
}

impl TryFrom<&[(String, String)]> for ListQuery {
    type Error = Vec<FieldError>;

    fn try_from(pairs: &[(String, String)]) -> Result<Self, Vec<FieldError>> {
        let mut query = Self::default();
        let mut errors = Vec::new();
        for (index, (name, value)) in pairs.iter().enumerate() {
            let repeated = pairs[..index].iter().any(|(earlier, _)| earlier == name);
            let taken =
                if repeated { Err("is given more than once".to_owned()) } else { query.take(name, value) };
            errors.extend(taken.err().map(|message| FieldError::new(name, message)));
        }
        if errors.is_empty() { Ok(query) } else { Err(errors) }
    }
}

impl ListQuery {
    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "completed" => self.completed = Some(value.parse().map_err(|_| "must be true or false")?),
            "limit" => self.limit = PageLimit::try_from(value)?,
            "after" => self.after = Some(TaskId(value.parse().map_err(|_| "must be the id of a task")?)),
            _ => return Err("is no parameter of this list".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<ListQuery, Vec<FieldError>> {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ListQuery::try_from(pairs.as_slice())
    }

    #[test]
    fn nothing_asked_means_the_defaults() {
        assert_eq!(parse(&[]), Ok(ListQuery { completed: None, limit: PageLimit(50), after: None }));
    }

    #[test]
    fn everything_asked() {
        let asked = parse(&[("after", "7"), ("limit", "200"), ("completed", "false")]);
        let expected = ListQuery { completed: Some(false), limit: PageLimit(200), after: Some(TaskId(7)) };
        assert_eq!(asked, Ok(expected));
    }

    #[test]
    fn each_wrong_parameter_is_named() {
        let errors =
            parse(&[("limit", "0"), ("limit", "5"), ("after", "x"), ("completed", "1"), ("page", "2")]);
        let told: Vec<_> = errors.unwrap_err().iter().map(|e| format!("{} {}", e.field, e.message)).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        limit must be a number from 1 to 200
        limit is given more than once
        after must be the id of a task
        completed must be true or false
        page is no parameter of this list
        ");
        assert!(parse(&[("limit", "201")]).is_err());
    }
}
