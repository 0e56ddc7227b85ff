//! What Docker said of networks and volumes: it holds while events are heard and none of them is about it.

use std::collections::BTreeMap;

use super::docker::{NetworkOrVolume, Subject};

/// A network or volume; nothing where there is none of that name.
type Answer = Option<NetworkOrVolume>;

/// The last answers over one connection.
#[derive(Default)]
pub(super) struct Answers {
    /// Whether the stream of events goes on.
    is_heard: bool,
    /// Events, and ends of the stream, after which an answer may be another one.
    events: u64,
    kept: BTreeMap<Name, Answer>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Network(String),
    Volume(String),
}

/// The moment at which something was asked; what happened since may not be in the answer.
#[derive(Clone, Copy)]
pub(super) struct Asked(u64);

impl Answers {
    /// The stream of events begins.
    pub(super) fn begin(&mut self) {
        self.forget_all();
        self.is_heard = true;
    }

    /// The stream of events ended: what happens from now on is not heard.
    pub(super) fn end(&mut self) {
        self.forget_all();
        self.is_heard = false;
    }

    /// Forgets what an event is about.
    pub(super) fn forget(&mut self, subject: Subject<'_>) {
        let name = match subject {
            Subject::Network(name, _) => Name::Network(name.to_owned()),
            Subject::Volume(name) => Name::Volume(name.to_owned()),
            Subject::Unknown => return self.forget_all(),
            Subject::Project(_) | Subject::Other => return,
        };
        self.events += 1;
        self.kept.remove(&name);
    }

    fn forget_all(&mut self) {
        self.events += 1;
        self.kept.clear();
    }

    /// To be called before an answer is asked for.
    pub(super) fn ask(&self) -> Asked {
        Asked(self.events)
    }

    /// Keeps an answer, unless something happened since it was asked for.
    pub(super) fn keep(&mut self, name: Name, answer: Answer, Asked(events): Asked) {
        if self.is_heard && self.events == events {
            self.kept.insert(name, answer);
        }
    }

    /// The last answer, where it still holds.
    pub(super) fn get(&self, name: &Name) -> Option<&Answer> {
        self.kept.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> Name {
        Name::Network(name.to_owned())
    }

    fn keep(answers: &mut Answers, name: &Name) {
        let asked = answers.ask();
        answers.keep(name.clone(), Some(NetworkOrVolume::default()), asked);
    }

    #[test]
    fn an_answer_holds_until_an_event_is_about_it_or_the_stream_ends() {
        let (ours, other) = (network("tt-a"), network("tt-b"));
        let mut answers = Answers::default();
        keep(&mut answers, &ours);
        assert_eq!(answers.get(&ours), None, "nothing is heard");
        answers.begin();
        for (subject, holds) in [
            (Subject::Project("tt-a"), true),
            (Subject::Volume("tt-a"), true),
            (Subject::Other, true),
            (Subject::Network("tt-a", None), false),
            (Subject::Unknown, false),
        ] {
            keep(&mut answers, &ours);
            answers.forget(subject);
            assert_eq!(answers.get(&ours).is_some(), holds, "{subject:?}");
        }
        keep(&mut answers, &other);
        answers.forget(Subject::Network("tt-a", None));
        assert!(answers.get(&other).is_some());
        answers.end();
        assert_eq!(answers.get(&other), None);
        keep(&mut answers, &other);
        assert_eq!(answers.get(&other), None);
    }

    #[test]
    fn an_answer_that_an_event_overtook_is_not_kept() {
        let mut answers = Answers::default();
        answers.begin();
        let asked = answers.ask();
        answers.forget(Subject::Network("tt-a", None));
        answers.keep(network("tt-a"), None, asked);
        assert_eq!(answers.get(&network("tt-a")), None);
        let asked = answers.ask();
        answers.keep(network("tt-a"), None, asked);
        assert_eq!(answers.get(&network("tt-a")), Some(&None));
    }
}
