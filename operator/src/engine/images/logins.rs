//! Logins that registries refused: each is tried once, by one at a time, until it was accepted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::REMEMBERED;
use crate::{
    model::sha256,
    registry::{Login, Refusal},
};

/// What is known of each login that was used lately.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<BTreeMap<LoginKey, Used>>);

/// What is known of a login, and when it was used last.
type Used = (Arc<AsyncMutex<Known>>, Instant);

/// Namespace, registry, and SHA-256 of user and password.
type LoginKey = (String, String, String);

#[derive(Clone, Debug, Default)]
enum Known {
    /// It was not used yet: whoever uses it first is waited for.
    #[default]
    Nothing,
    Accepted,
    /// It is not used again: an account may be locked after a few wrong passwords.
    Refused(Refusal),
}

impl Logins {
    /// Asks a registry with a login, unless it refused that one before.
    ///
    /// # Errors
    /// What the registry says, or said then.
    pub(super) async fn ask<T>(
        &self,
        (namespace, registry): (&str, &str),
        login: Option<&Login>,
        asked: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let Some(login) = login else { return asked.await.map_err(Refusal::without_login) };
        let entry = self.entry((namespace, registry), login, Instant::now());
        let mut known = entry.lock().await;
        match &*known {
            Known::Refused(refusal) => return Err(refusal.clone()),
            Known::Accepted => {
                drop(known);
                let said = asked.await;
                if let Err(refusal) = &said
                    && refusal.is_of_login()
                {
                    *entry.lock().await = Known::Refused(refusal.clone());
                }
                return said;
            }
            Known::Nothing => {}
        }
        let said = asked.await;
        match &said {
            Ok(_) => *known = Known::Accepted,
            Err(refusal) if refusal.is_of_login() => *known = Known::Refused(refusal.clone()),
            Err(_) => {}
        }
        said
    }

    /// What is known of a login; logins that nobody used for a while are forgotten, as those that a command makes anew each
    /// time.
    fn entry(
        &self,
        (namespace, registry): (&str, &str),
        login: &Login,
        now: Instant,
    ) -> Arc<AsyncMutex<Known>> {
        let secret = [login.username.as_bytes(), b"\0", login.password.reveal()].concat();
        let key = (namespace.to_owned(), registry.to_owned(), sha256(&secret));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, used)| *used + REMEMBERED > now);
        let (entry, used) = known.entry(key).or_insert_with(|| (Arc::default(), now));
        *used = now;
        entry.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::secret::Secret;

    fn login(password: &str) -> Login {
        Login { username: "u".to_owned(), password: Secret::new(password.as_bytes().to_vec()) }
    }

    #[tokio::test]
    async fn a_refused_login_is_used_once_however_many_images_need_it() {
        let (logins, asked) = (Logins::default(), AtomicUsize::new(0));
        let ask = |password: &'static str, said: Result<(), Refusal>| {
            let (logins, asked) = (&logins, &asked);
            async move {
                let login = login(password);
                let request = async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    said
                };
                logins.ask(("default", "r.example"), Some(&login), request).await
            }
        };
        let wrong = Refusal::judge(Some(401), "unauthorized: authentication required");
        let all = (0..5).map(|_| ask("wrong", Err(wrong.clone())));
        let said = futures::future::join_all(all).await;
        assert!(said.iter().all(|said| said.as_ref() == Err(&wrong)), "{said:?}");
        assert_eq!(asked.swap(0, Ordering::Relaxed), 1);
        // Another password is another login; one that was accepted keeps nobody waiting, until it is refused.
        assert_eq!(ask("right", Ok(())).await, Ok(()));
        let missing = Refusal::judge(Some(404), "manifest unknown");
        assert_eq!(ask("right", Err(missing.clone())).await, Err(missing));
        assert_eq!(ask("right", Err(wrong.clone())).await, Err(wrong.clone()));
        assert_eq!(ask("right", Ok(())).await, Err(wrong.clone()));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        // What one namespace was refused is no other one's business, and without a login none is wrong.
        let right = login("right");
        let elsewhere = logins.ask(("other", "r.example"), Some(&right), async { Ok(()) });
        assert_eq!(elsewhere.await, Ok(()));
        for _ in 0..2 {
            let refused = logins.ask(("default", "r.example"), None, async { Err::<(), _>(wrong.clone()) });
            assert!(!refused.await.unwrap_err().is_of_login());
        }
    }

    #[test]
    fn a_login_that_nobody_used_for_a_while_is_forgotten() {
        let (logins, now) = (Logins::default(), Instant::now());
        let first = logins.entry(("default", "r.example"), &login("first"), now);
        let later = now + REMEMBERED;
        logins.entry(("default", "r.example"), &login("second"), later);
        assert_eq!(logins.0.lock().unwrap().len(), 1);
        assert!(!Arc::ptr_eq(&first, &logins.entry(("default", "r.example"), &login("first"), later)));
    }
}
