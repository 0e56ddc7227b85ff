//! One connection per host, however many stacks use it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    host::{Host, Target, TargetKey},
    source::StackKey,
};

/// The hosts in use.
#[derive(Default)]
pub struct Hosts {
    known: Mutex<BTreeMap<(String, TargetKey), Weak<Host>>>,
}

impl Hosts {
    /// The host of a target: an existing one where everything about the connection is the same. Those of another namespace
    /// may have shown the same public key without having the private one.
    pub fn get(&self, stack: &StackKey, target: Target) -> Arc<Host> {
        let key = (stack.namespace.clone(), target.key());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, host| host.strong_count() > 0);
        if let Some(host) = known.get(&key).and_then(Weak::upgrade) {
            return host;
        }
        let host = Arc::new(Host::new(target));
        known.insert(key, Arc::downgrade(&host));
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_target_is_the_same_host_while_it_is_used() {
        let hosts = Hosts::default();
        let stack = |namespace: &str| StackKey { namespace: namespace.to_owned(), name: "s".to_owned() };
        let get = |namespace: &str, port: u16| {
            hosts.get(&stack(namespace), Target::for_tests("a", "127.0.0.1", port))
        };
        let one = get("a", 22);
        assert!(Arc::ptr_eq(&one, &get("a", 22)));
        assert!(!Arc::ptr_eq(&one, &get("a", 23)));
        assert!(
            !Arc::ptr_eq(&one, &get("b", 22)),
            "whoever shows the same public key need not have the private one"
        );
    }
}
