//! Jobs that run beside the main thread: downloads, builds that only later steps need, lints.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, ensure};

use crate::{progress::say, times::Times};

/// The work of a job; its argument takes progress lines.
type Work = Box<dyn FnOnce(&mut dyn FnMut(&str)) -> Result<()> + Send>;

/// One job.
pub(crate) struct Job {
    name: &'static str,
    work: Work,
}

impl Job {
    /// A job under the name that [`Background::wait`] takes. Without progress lines it counts as warm.
    pub(crate) fn new(
        name: &'static str,
        work: impl FnOnce(&mut dyn FnMut(&str)) -> Result<()> + Send + 'static,
    ) -> Self {
        Self { name, work: Box::new(work) }
    }
}

/// A finished job.
struct Done {
    name: &'static str,
    lines: Vec<String>,
    result: Result<()>,
}

/// Jobs that run one after the other in a thread; a failure ends them. Progress lines appear when a job is done, so that
/// they do not mix with those of the main thread.
pub(crate) struct Background {
    done: Receiver<Done>,
    finished: Vec<&'static str>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The job that is never cut off: its end is awaited also after a failure elsewhere.
    uninterruptible: Option<&'static str>,
}

impl Background {
    /// Starts the jobs.
    pub(crate) fn start(times: &Times, jobs: Vec<Job>) -> Self {
        let (sender, done) = channel();
        let stopped = Arc::<AtomicBool>::default();
        let (times, stop) = (times.clone(), Arc::clone(&stopped));
        let thread = thread::spawn(move || run(&times, jobs, &stop, &sender));
        Self { done, finished: Vec::new(), stopped, thread: Some(thread), uninterruptible: None }
    }

    /// Dropping this waits for the end of that job: `apt-get` leaves a broken system when it is cut off.
    pub(crate) fn finish_always(mut self, job: &'static str) -> Self {
        self.uninterruptible = Some(job);
        self
    }

    /// Waits for a job.
    ///
    /// # Errors
    /// When it, or one before it, failed.
    pub(crate) fn wait(&mut self, job: &str) -> Result<()> {
        while !self.finished.contains(&job) {
            let done = self.done.recv().with_context(|| format!("{job}: not run after a failure"))?;
            self.finish(done)?;
        }
        Ok(())
    }

    /// Waits for every job.
    ///
    /// # Errors
    /// When one failed.
    pub(crate) fn wait_all(&mut self) -> Result<()> {
        while let Ok(done) = self.done.recv() {
            self.finish(done)?;
        }
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        ensure!(ended.is_ok(), "a background job panicked");
        Ok(())
    }

    /// Whether a job is done, without waiting.
    ///
    /// # Errors
    /// When any job failed.
    pub(crate) fn is_done(&mut self, job: &str) -> Result<bool> {
        while let Ok(done) = self.done.try_recv() {
            self.finish(done)?;
        }
        Ok(self.finished.contains(&job))
    }

    fn finish(&mut self, done: Done) -> Result<()> {
        let Done { name, lines, result } = done;
        say(&format!("==> {name}: {}", if result.is_ok() { "done" } else { "failed" }));
        for line in &lines {
            say(line);
        }
        self.finished.push(name);
        result.with_context(|| name)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        let Some(job) = self.uninterruptible else { return };
        // A job that has not begun is not begun any more.
        while !self.finished.contains(&job)
            && let Ok(done) = self.done.recv()
        {
            if let Err(error) = self.finish(done) {
                say(&format!("{error:#}"));
            }
        }
    }
}

fn run(times: &Times, jobs: Vec<Job>, stopped: &AtomicBool, sender: &Sender<Done>) {
    for Job { name, work } in jobs {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let mut lines = Vec::new();
        let result = times.record(name, |cache| {
            let result = work(&mut |line| lines.push(line.to_owned()));
            cache.push_str(if lines.is_empty() { "warm" } else { "cold" });
            result
        });
        let failed = result.is_err();
        // Without a receiver the command is over.
        if sender.send(Done { name, lines, result }).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(name: &'static str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Job {
        Job::new(name, move |_| work())
    }

    #[test]
    fn a_failure_ends_the_jobs_and_names_the_one_that_failed() {
        let third = Arc::<AtomicBool>::default();
        let ran = Arc::clone(&third);
        let jobs = vec![
            job("first", || Ok(())),
            job("second", || anyhow::bail!("no network")),
            job("third", move || {
                ran.store(true, Ordering::Release);
                Ok(())
            }),
        ];
        let mut background = Background::start(&Times::new("test"), jobs);
        background.wait("first").unwrap();
        assert_eq!(format!("{:#}", background.wait("second").unwrap_err()), "second: no network");
        assert!(background.wait("third").unwrap_err().to_string().contains("not run after a failure"));
        assert!(!third.load(Ordering::Acquire));
    }

    #[test]
    fn asking_for_a_job_reports_the_failure_of_another() {
        let (go, gate) = channel::<()>();
        let jobs = vec![
            job("slow", move || Ok(gate.recv()?)),
            job("broken", || anyhow::bail!("no network")),
            job("last", || Ok(())),
        ];
        let mut background = Background::start(&Times::new("test"), jobs);
        assert!(!background.is_done("slow").unwrap());
        go.send(()).unwrap();
        background.wait("slow").unwrap();
        let failure = (0..2000).find_map(|_| {
            thread::sleep(Duration::from_millis(5));
            background.is_done("last").err()
        });
        assert_eq!(format!("{:#}", failure.unwrap()), "broken: no network");
    }

    #[test]
    fn a_panic_is_a_failure() {
        let mut background = Background::start(&Times::new("test"), vec![job("job", || panic!("bug"))]);
        assert!(background.wait_all().unwrap_err().to_string().contains("panicked"));
    }

    #[test]
    fn dropping_waits_for_the_job_that_is_never_cut_off() {
        let ended = Arc::<AtomicBool>::default();
        let end = Arc::clone(&ended);
        let ((go, gate), (began, begun)) = (channel::<()>(), channel());
        let jobs = vec![job("apt", move || {
            began.send(())?;
            gate.recv()?;
            end.store(true, Ordering::Release);
            Ok(())
        })];
        let background = Background::start(&Times::new("test"), jobs).finish_always("apt");
        begun.recv().unwrap();
        let opener = thread::spawn(move || go.send(()));
        drop(background);
        assert!(ended.load(Ordering::Acquire));
        opener.join().unwrap().unwrap();
    }
}
