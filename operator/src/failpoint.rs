//! Places at which tests end the operator where it stands. Without the feature `failpoints` there are none.

/// Ends the process at once when the variable `TASKTRACKER_FAILPOINT` names this place: nothing is cleaned up, as
/// after a power cut.
#[cfg(feature = "failpoints")]
pub fn reached(place: &str) {
    if std::env::var("TASKTRACKER_FAILPOINT").is_ok_and(|wanted| wanted == place) {
        tracing::warn!(place, "ended at a failpoint");
        std::process::abort();
    }
}

/// Nothing, outside of tests.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reached(_place: &str) {}

/// A defect where the variable `TASKTRACKER_DEFECT` names this.
///
/// # Panics
/// Then.
#[cfg(feature = "failpoints")]
pub fn defect(name: &str) {
    assert!(std::env::var("TASKTRACKER_DEFECT").as_deref() != Ok(name), "a defect that a test wants");
}

/// Nothing, outside of tests.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn defect(_name: &str) {}

/// Ends the process while something is under way, as [`reached`] does.
#[cfg(feature = "failpoints")]
pub async fn during<T>(place: &str, what: impl Future<Output = T>) -> T {
    let ended = async {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        reached(place);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = what => result,
        () = ended => unreachable!("it is pending"),
    }
}

/// The thing itself, outside of tests.
#[cfg(not(feature = "failpoints"))]
pub async fn during<T>(_place: &str, what: impl Future<Output = T>) -> T {
    what.await
}
