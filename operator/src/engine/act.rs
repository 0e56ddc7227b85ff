//! Carries out what was planned, checks again, and keeps an account of it.

use tasktracker_crds::conditions::reasons;
use tokio::time::Instant;

use super::{CheckOptions, Evaluation, ProjectContext, now};
use crate::{
    apply,
    host::HostLock,
    ledger::Tried,
    observe::Depth,
    state::audit::{BEGAN, Entry, State},
};

impl ProjectContext<'_> {
    /// Carries out what was planned for one project, checks again, and keeps what did not hold; all of it is in the audit
    /// log.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub async fn act(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        who: &str,
    ) -> Result<apply::Outcome, apply::Error> {
        self.act_on(lock, evaluation, who, None).await
    }

    /// The same, and where `back` is given, as the way back to an earlier release.
    pub(super) async fn act_on(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        who: &str,
        back: Option<apply::Back>,
    ) -> Result<apply::Outcome, apply::Error> {
        let context = apply::Context { back, ..self.context(lock, evaluation, who) };
        let started = Instant::now();
        let before = evaluation.observed.applied.as_ref();
        let why = evaluation.plan.why();
        let entry = Entry {
            what: evaluation.plan.words(),
            plan: Some(evaluation.plan.hash()),
            ..self.entry(&context, evaluation, &why)
        };
        self.memory.audit(&entry).await;
        let outcome = Box::pin(self.carry_out(evaluation, &context)).await;
        let done = outcome.as_ref().ok();
        let is_planned = evaluation.plan.repairs_now().next().is_some() && evaluation.plan.rollout.is_none();
        let beyond = done.filter(|_| !is_planned).into_iter().flat_map(|done| done.repaired.clone());
        let after = done.and_then(|done| done.rolled_out.as_ref()).or(before);
        self.memory
            .audit(&Entry {
                what: entry.what.iter().cloned().chain(beyond).collect(),
                after: Some(State::of(after)),
                result: outcome.as_ref().map_or_else(apply::Error::reason, |_| reasons::SUCCEEDED),
                seconds: started.elapsed().as_secs_f64(),
                ..entry
            })
            .await;
        outcome
    }

    /// Forgets what failed, what did not hold, and that a release was gone back to, so that all is tried again; whether
    /// there was any.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn retry(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        who: &str,
    ) -> Result<bool, apply::Error> {
        let Some(ledger) = &evaluation.observed.ledger else { return Ok(false) };
        let failed = ledger.failed.as_ref().map(|failed| format!("try revision {} again", failed.revision));
        let attempts = (!ledger.attempts.is_empty()).then(|| "try again what did not hold".to_owned());
        let held = ledger.held.as_ref().map(|held| format!("hold release {} no longer", held.release));
        let what: Vec<String> = failed.into_iter().chain(attempts).chain(held).collect();
        if what.is_empty() || (ledger.intent.is_some() && ledger.held_failure().is_none()) {
            return Ok(false);
        }
        let context = self.context(lock, evaluation, who);
        let entry = Entry { what, ..self.entry(&context, evaluation, "a person asks for it") };
        self.audited(evaluation, entry, apply::retry(self.host, ledger, &context)).await?;
        Ok(true)
    }

    /// Records in the ledger that a request was acknowledged, as the ledger of the evaluation says already.
    pub(super) async fn acknowledge(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        who: &str,
    ) -> Result<(), apply::Error> {
        let Some(ledger) = &evaluation.observed.ledger else { return Ok(()) };
        let context = self.context(lock, evaluation, who);
        let what = vec!["record that a request was acknowledged".to_owned()];
        let entry = Entry { what, ..self.entry(&context, evaluation, "an annotation asks for something") };
        self.audited(evaluation, entry, apply::record_acknowledgement(self.host, ledger, &context)).await
    }

    /// Keeps that the plan of a evaluation may be carried out, as a person says.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn approve(
        &self,
        lock: &HostLock,
        evaluation: &Evaluation,
        who: &str,
    ) -> Result<(), apply::Error> {
        let context = self.context(lock, evaluation, who);
        let what = vec![format!("keep that plan {} is approved", evaluation.plan.hash())];
        let entry = Entry { what, ..self.entry(&context, evaluation, "a person approves it") };
        let done = apply::approve(self.host, &evaluation.plan, &evaluation.observed, who, &context);
        Box::pin(self.audited(evaluation, entry, async { done.await.map(drop) })).await
    }

    /// Does something that concerns the ledger alone.
    async fn audited(
        &self,
        evaluation: &Evaluation,
        entry: Entry<'_>,
        work: impl Future<Output = Result<(), apply::Error>>,
    ) -> Result<(), apply::Error> {
        self.memory.audit(&entry).await;
        let started = Instant::now();
        let done = work.await;
        self.memory
            .audit(&Entry {
                after: Some(State::of(evaluation.observed.applied.as_ref())),
                result: done.as_ref().map_or_else(apply::Error::reason, |()| reasons::SUCCEEDED),
                seconds: started.elapsed().as_secs_f64(),
                ..entry
            })
            .await;
        done
    }

    fn context<'a>(
        &'a self,
        lock: &'a HostLock,
        evaluation: &'a Evaluation,
        who: &str,
    ) -> apply::Context<'a> {
        apply::Context {
            lock,
            project: &evaluation.project,
            rollout: &self.stack.spec.policy.rollout,
            owner: evaluation.project.owner.clone(),
            stack: self.stack.key.to_string(),
            who: who.to_owned(),
            now: now(),
            back: None,
        }
    }

    fn entry<'a>(
        &'a self,
        context: &'a apply::Context<'_>,
        evaluation: &'a Evaluation,
        why: &'a str,
    ) -> Entry<'a> {
        Entry {
            when: context.now,
            who: &context.who,
            why,
            stack: &context.stack,
            host: self.spec.name.as_str(),
            component: evaluation.project.component.as_str(),
            what: Vec::new(),
            plan: None,
            before: State::of(evaluation.observed.applied.as_ref()),
            after: None,
            result: BEGAN,
            seconds: 0.0,
        }
    }

    async fn carry_out(
        &self,
        evaluation: &Evaluation,
        context: &apply::Context<'_>,
    ) -> Result<apply::Outcome, apply::Error> {
        if evaluation.plan.rollout.is_some() {
            let outcome =
                Box::pin(apply::apply(self.host, &evaluation.plan, &evaluation.observed, context)).await?;
            if let Some(release) = &outcome.rolled_out {
                self.memory.rolled_out(self.stack, self.spec, release);
            }
            return Box::pin(self.finish(outcome, evaluation, context)).await;
        }
        let plan = Box::pin(apply::open_part(self.host, &evaluation.plan, &evaluation.observed)).await?;
        let outcome = Box::pin(apply::apply(self.host, &plan, &evaluation.observed, context)).await;
        if outcome.is_ok() {
            self.memory.keep_repaired(&self.key(&evaluation.project), &plan.causes(), Instant::now());
        }
        let tried = outcome.as_ref().map_or_else(apply::Error::tried, |_| Some(Tried::Done));
        let Some(tried) = tried.filter(|_| plan.repairs_now().next().is_some()) else { return outcome };
        let remembered = async {
            let after = self.check_again(evaluation, context).await?;
            apply::remember(self.host, (&plan, tried), &after.observed, &after.drift, context).await
        };
        // What went wrong first is what is told.
        let remembered = remembered.await;
        outcome.and_then(|outcome| remembered.map(|()| outcome))
    }

    /// A rollout leaves alone what is as the release wants it by its definition. What differs all the same, such as a
    /// mount that leads to a folder that is gone, is repaired at once.
    async fn finish(
        &self,
        rolled_out: apply::Outcome,
        evaluation: &Evaluation,
        context: &apply::Context<'_>,
    ) -> Result<apply::Outcome, apply::Error> {
        let after = self.check_again(evaluation, context).await?;
        if !after.has_work() || after.plan.rollout.is_some() {
            return Ok(rolled_out);
        }
        let plan = Box::pin(apply::open_part(self.host, &after.plan, &after.observed)).await?;
        let repaired = Box::pin(apply::apply(self.host, &plan, &after.observed, context)).await?;
        Ok(apply::Outcome { repaired: repaired.repaired, ..rolled_out })
    }

    /// What is there after something was done.
    async fn check_again(
        &self,
        evaluation: &Evaluation,
        context: &apply::Context<'_>,
    ) -> Result<Evaluation, apply::Error> {
        let options = CheckOptions { lock: Some(context.lock), ..CheckOptions::read_only(Depth::Whole) };
        Ok(self.check(&evaluation.project, options).await?)
    }
}
