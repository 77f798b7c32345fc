//! Starts, aborts, approves and advances the rollovers of authorities.
//!
//! The decisions are those of `enrollment::authority_roll`; [`super::evidence`] gathers what they
//! need, and here they are recorded. An authority that was rolled brings about the rolls of those
//! it has signed: each is a roll of its own, and begins when the one above has cut over.

use super::super::authority_policy::ApprovalStep;
use super::super::authorize::{Authorized, Caller, Operate};
use super::super::hierarchy::Generation;
use super::super::issuer::generation::new_key_id;
use super::super::issuer::pace::Source;
use super::super::{Code, Error, crash_point};
use super::evidence::{Approval, AuthorityDetail};
use super::{RETRY_SECONDS, Rollovers, earlier};
use crate::enrollment::authority_roll::{Change, Evidence, Step, Wait, next_step};
use crate::enrollment::roll::{RollReason, RollState};
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{GenerationId, GenerationNumber, RollId};
use crate::store::{
    AuthorityStep, GenerationRow, NewAuthorityRoll, PlannedGeneration, RollRow, RollSubject,
};
use crate::token::KeyDescription;
use crate::unix_seconds::UnixSeconds;
use serde_json::json;
use std::sync::Arc;

/// Poll interval for reissued devices, in seconds; issuance does not wake the rollover.
const LOOK_SECONDS: i64 = 5;

impl Rollovers {
    /// Starts the expiry roll of an authority: its next generation is made, published, tried, and
    /// signs in the end.
    pub fn start_authority_roll(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        detail: &AuthorityDetail,
    ) -> Result<RollRow, Error> {
        let hierarchy = self.issuer.hierarchy();
        let has_key =
            hierarchy.serving(authority).is_some() || hierarchy.waiting().any(|it| it == authority);
        if !has_key && self.issuer.token_of(authority).is_err() {
            let message =
                format!("there is no authority {authority:?}; `hallmark authority list` has all");
            return Err(Error::missing(Code::AuthorityUnknown, message));
        }
        self.begin_authority_roll(permission.caller(), authority, detail, None)
    }

    pub(super) fn begin_authority_roll(
        &self,
        caller: &Caller,
        authority: &str,
        detail: &AuthorityDetail,
        parent: Option<RollId>,
    ) -> Result<RollRow, Error> {
        let hierarchy = self.issuer.hierarchy();
        let old = hierarchy.signing(authority)?;
        self.check_successor(old, detail, RollReason::Expiry)?;
        self.within_limits(authority)?;
        let new = NewAuthorityRoll {
            authority: authority.to_owned(),
            old_generation: old.id,
            old_certificate: old.thumbprint(),
            detail: detail.to_value()?,
        };
        let detail = json!({ "reason": "expiry", "generation": old.number, "parent": parent });
        let entry = self.roll_entry(caller, "roll.started", authority, detail);
        let row = self.store.start_authority_roll(new, parent, entry)?;
        self.issuer.wake();
        Ok(row)
    }

    /// Aborts an expiry rollover before its cut-over.
    pub(super) fn abort_authority_roll(
        &self,
        caller: &Caller,
        roll: &RollRow,
    ) -> Result<(), Error> {
        let authority = roll.subject.name();
        let mut changes = Vec::new();
        for group in self.store.groups_of(authority)? {
            // A group that is not staged has not got the next certificate yet. None is draining,
            // because the rollover has not cut over.
            if let Slots::Staged { .. } = group.slots {
                let to = group.slots.clone().abort();
                changes.push(Change {
                    group: group.id,
                    to: to
                        .map_err(|refusal| Error::conflict(refusal.code(), refusal.to_string()))?,
                    from: group.slots,
                    was_enabled: group.enabled,
                    enabled: group.enabled,
                });
            }
        }
        let entry = self.roll_entry(
            caller,
            "roll.aborted",
            authority,
            json!({ "roll": roll.id }),
        );
        self.store.abort_authority_roll(roll.id, changes, entry)?;
        self.issuer.reload_hierarchy()
    }

    /// Approves the next step of an authority's rollover that needs it. With a reason, the
    /// guard of that step is overridden: the canary's before the cut-over, the proof of the devices
    /// before the retirement.
    pub fn approve_roll(
        &self,
        permission: &Authorized<Operate>,
        roll: RollId,
        overriding: Option<String>,
    ) -> Result<RollRow, Error> {
        let row = self.store.roll(roll)?;
        let RollSubject::Authority { .. } = row.subject else {
            let message = "a leaf's roll needs no approval";
            return Err(Error::invalid(Code::RollNotApprovable, message));
        };
        let step = match row.state {
            // It may be given before the next generation exists: no step has to wait for it then.
            RollState::Requested | RollState::Staged => ApprovalStep::CutOver,
            RollState::Draining => ApprovalStep::Retire,
            state => {
                let message = format!("roll {roll} is {}: no step needs an approval", state.name());
                return Err(Error::conflict(Code::RollNotApprovable, message));
            }
        };
        let mut detail = AuthorityDetail::of(&row)?;
        let caller = permission.caller();
        let asked = json!({ "roll": roll, "gate": step, "override": overriding });
        let entry = self.roll_entry(caller, "roll.approved", row.subject.name(), asked);
        let approval = Approval {
            by: caller.to_string(),
            at: self.issuer.now(),
            overriding,
        };
        detail.approved.insert(step, approval);
        if !self
            .store
            .amend_roll(&row, detail.to_value()?, Some(entry))?
        {
            let message = "the roll has changed in between; look at it and decide again";
            return Err(Error::conflict(Code::StateConflict, message));
        }
        self.issuer.wake();
        Ok(self.store.roll(roll)?)
    }

    /// The next step of an authority's roll, if its time has come. Returns when to look again.
    pub(super) fn advance_authority_roll(
        &self,
        roll: &RollRow,
        now: UnixSeconds,
    ) -> Result<Option<UnixSeconds>, Error> {
        let evidence = self.authority_evidence(roll, now)?;
        self.roll_those_below(roll, &evidence);
        let due = match next_step(roll.state, &evidence) {
            Ok(step) => return self.make_authority_step(roll, &evidence, step, now),
            Err(Wait::Retirement(_)) => Some(roll.old_not_after + 1),
            Err(Wait::Reissue(_)) => Some(now + LOOK_SECONDS),
            Err(_) => None,
        };
        // The exclusion comes first; the successor, which may wait for its token, comes second.
        match evidence.replacement() {
            Ok(step) if roll.reason == RollReason::Compromise => {
                let again = self.make_authority_step(roll, &evidence, step, now)?;
                Ok(earlier(due, again))
            }
            // The count of groups wakes no rollover.
            Err(Wait::GroupRoom(_)) => Ok(earlier(due, Some(now + LOOK_SECONDS))),
            _ => Ok(due),
        }
    }

    fn make_authority_step(
        &self,
        roll: &RollRow,
        evidence: &Evidence,
        step: Step,
        now: UnixSeconds,
    ) -> Result<Option<UnixSeconds>, Error> {
        if step == Step::Make {
            return self.make_next_generation(roll, evidence, now);
        }
        if let Err(error) = self.next_key_signs(roll, evidence, &step) {
            self.note_failure(roll, Some(error.to_string()))?;
            tracing::warn!(
                roll = roll.id.get(),
                code = error.code.name(),
                %error,
                "the next key does not sign",
            );
            return Ok(Some(now + RETRY_SECONDS));
        }
        // Before the step: from its commit on the rollover waits for these tasks, and without any
        // it would be done at once. After a crash in between they are queued again.
        if step == Step::Enter(RollState::Clearing) {
            self.queue_identities(roll)?;
        }
        let (next, action) = self.recorded_step(roll, evidence, step)?;
        crash_point(action);
        crash_point(&format!("{action}-{}", roll.subject.name()));
        let detail = json!({ "roll": roll.id, "from": roll.state, "to": next.to });
        let entry = self.roll_entry(&Caller::Daemon, action, roll.subject.name(), detail);
        let serves = next.serve.is_some();
        if self.store.step_authority_roll(next, entry)? {
            self.note_failure(&self.store.roll(roll.id)?, None)?;
            if serves {
                self.issuer.reload_hierarchy()?;
            }
            self.issuer.wake();
        }
        Ok(None)
    }

    /// A step that puts the next generation in place needs its key: the key must sign at this
    /// moment. A generation that signs already has shown it; but the rollover of a compromise is
    /// done only when leaves can be issued again.
    fn next_key_signs(
        &self,
        roll: &RollRow,
        evidence: &Evidence,
        step: &Step,
    ) -> Result<(), Error> {
        let needs_it = match step {
            Step::Stage(_) | Step::CutOver(_) | Step::Replace(_) => !evidence.next_serves,
            Step::Enter(RollState::Done) => roll.reason == RollReason::Compromise,
            _ => false,
        };
        let hierarchy = self.issuer.hierarchy();
        let next = evidence.next.and_then(|it| hierarchy.with_certificate(it));
        match next.filter(|_| needs_it).cloned() {
            Some(next) => self.issuer.prove_generation(&next).map(drop),
            None => Ok(()),
        }
    }

    /// Writes down why the roll goes no further, or that it does.
    fn note_failure(&self, roll: &RollRow, failure: Option<String>) -> Result<(), Error> {
        let mut detail = AuthorityDetail::of(roll)?;
        if detail.failure != failure {
            detail.failure = failure;
            self.store.amend_roll(roll, detail.to_value()?, None)?;
        }
        Ok(())
    }

    /// A step as the store takes it, and what the journal calls it.
    fn recorded_step(
        &self,
        roll: &RollRow,
        evidence: &Evidence,
        step: Step,
    ) -> Result<(AuthorityStep, &'static str), Error> {
        let RollSubject::Authority {
            old_generation,
            new_generation,
            ..
        } = roll.subject
        else {
            return Err(Error::stop(
                Code::Internal,
                "a leaf's roll has no such steps",
            ));
        };
        let mut next = AuthorityStep::of(roll, roll.state);
        next.next = evidence.next;
        // Groups that were added late follow a generation that signs already.
        let serve = new_generation.filter(|_| !evidence.next_serves);
        let action = match step {
            Step::Make => "roll.generation",
            Step::Stage(groups) => {
                (next.to, next.groups) = (RollState::Staged, groups);
                "roll.staged"
            }
            Step::CutOver(groups) => {
                (next.to, next.groups, next.serve) = (RollState::Draining, groups, serve);
                if roll.state == RollState::Staged {
                    next.hub = self.notify_tasks_below(old_generation)?;
                }
                "roll.cut_over"
            }
            Step::Replace(groups) => {
                (next.groups, next.serve) = (groups, serve);
                next.block = self.number_of(old_generation).map(|it| (evidence.old, it));
                if self.exclusions.has_groups_above(old_generation)? {
                    // Until the block is confirmed, they accept leaves below the old certificate.
                    next.to = RollState::Excluding;
                }
                "roll.replaced"
            }
            Step::Retire(groups) => {
                next.groups = groups;
                "roll.retired"
            }
            Step::Withdraw => {
                next.withdraw = Some(old_generation);
                "roll.withdrawn"
            }
            Step::Enter(RollState::Clearing) => {
                next.to = RollState::Clearing;
                "roll.excluded"
            }
            Step::Enter(state) => {
                next.to = state;
                match state {
                    RollState::Reissuing => "roll.cleared",
                    RollState::Draining => "roll.reissued",
                    _ => "roll.done",
                }
            }
        };
        Ok((next, action))
    }

    fn number_of(&self, generation: GenerationId) -> Option<GenerationNumber> {
        Some(self.issuer.hierarchy().generation(generation)?.number)
    }

    /// A failure is no error of the roll: it is written down, and tried again.
    fn make_next_generation(
        &self,
        roll: &RollRow,
        evidence: &Evidence,
        now: UnixSeconds,
    ) -> Result<Option<UnixSeconds>, Error> {
        let made = match self.ceremonies.running.try_lock() {
            Ok(_alone) => self.next_generation(roll, evidence.old),
            Err(_) => Err(Error::later(
                5,
                Code::CeremonyUnderWay,
                "a ceremony is under way",
            )),
        };
        // The failure that the pause follows is on record.
        if made
            .as_ref()
            .is_err_and(|it| it.code == Code::SigningPaused)
        {
            return Ok(Some(now + RETRY_SECONDS));
        }
        // To wait for the one above is no failure.
        let failure = made
            .as_ref()
            .err()
            .filter(|it| it.code != Code::IssuerRevoked);
        let waits_elsewhere = failure.is_some_and(|it| it.code == Code::AuthorityWaiting);
        let failure = failure.map(ToString::to_string);
        if waits_elsewhere && AuthorityDetail::of(roll)?.failure == failure {
            // The installation of the certificate wakes the roll.
            return Ok(None);
        }
        self.note_failure(roll, failure)?;
        if let Err(error) = made {
            tracing::warn!(
                roll = roll.id.get(),
                code = error.code.name(),
                %error,
                "next generation not made, retrying",
            );
            return Ok(Some(now + RETRY_SECONDS));
        }
        self.issuer.wake();
        Ok(None)
    }

    fn next_generation(&self, roll: &RollRow, old: Thumbprint) -> Result<(), Error> {
        let hierarchy = self.issuer.hierarchy();
        let Some(old) = hierarchy.with_certificate(old).cloned() else {
            return Err(Error::stop(
                Code::HierarchyBroken,
                "the old generation is gone",
            ));
        };
        let above = hierarchy.parent_authority(&old);
        let parent = above.map(|it| hierarchy.signing(it).cloned()).transpose()?;
        drop(hierarchy);
        if !old.foreign.is_empty() && self.ceremonies.is_requested(&old.authority)? {
            return Err(super::super::external::waiting(&old.authority));
        }
        let detail = AuthorityDetail::of(roll)?;
        let plan = PlannedGeneration {
            authority: old.authority.clone(),
            parent: parent.as_ref().map(|parent: &Arc<Generation>| parent.id),
            token: self.issuer.token_of(&old.authority)?.to_owned(),
            key_type: self.next_key_type(&old, &detail, roll.reason)?,
            key_id: new_key_id()?,
        };
        let row = self
            .store
            .plan_rolled_generation(roll.id, plan, self.issuer.now())?;
        crash_point("roll-generation-planned");
        if row.certificate.is_some() {
            return Ok(());
        }
        let key = self.make_next_key(&row)?;
        crash_point("roll-generation-keyed");
        if !old.foreign.is_empty() {
            return self.request_next_certificate(&old, row.id);
        }
        let hierarchy = self.issuer.hierarchy();
        let shape = self.next_shape(&hierarchy, &old, parent.as_deref(), &detail, roll.reason)?;
        drop(hierarchy);
        self.issuer
            .make_certificate(&shape, &row, &key, &Caller::Daemon.to_string())?;
        crash_point("roll-generation-staged");
        Ok(())
    }

    /// Makes the key, or finds it. A key that does not sign is thrown away, and the next one is
    /// made after a pause: a token has room for so many, whatever wakes the rollover.
    fn make_next_key(&self, row: &GenerationRow) -> Result<KeyDescription, Error> {
        let source = Source::Key(row.id);
        self.issuer.may_have_signed(source)?;
        let made = self.issuer.make_key(row);
        let does_not_sign = made.as_ref().is_err_and(|it| it.code == Code::TokenKey);
        self.issuer.note_signature(source, !does_not_sign);
        made
    }

    /// The issuer is elsewhere: the roll goes on when its certificate was installed.
    fn request_next_certificate(&self, old: &Generation, next: GenerationId) -> Result<(), Error> {
        let rows = self.store.generations()?;
        let find = |id| rows.iter().find(|it| it.id == id);
        let (Some(before), Some(row)) = (find(old.id), find(next)) else {
            return Err(Error::stop(Code::HierarchyBroken, "a generation is gone"));
        };
        if row.request.as_ref().is_none_or(|it| it.der.is_none()) {
            let path_length = match &before.request {
                Some(request) => request.path_length,
                // It was adopted with its chain.
                None => old.certificate.path_length(),
            };
            let subject = old.certificate.subject_der();
            let actor = Caller::Daemon.to_string();
            self.ceremonies
                .request_certificate(row, subject, path_length, &actor)?;
        }
        Err(super::super::external::waiting(&old.authority))
    }

    /// Starts the rolls of those that still sign under the old certificate, each once.
    fn roll_those_below(&self, roll: &RollRow, evidence: &Evidence) {
        if roll.state != RollState::Draining && roll.state != RollState::Reissuing {
            return;
        }
        for name in &evidence.behind {
            if let Err(error) = self.roll_below(roll, name) {
                let code = error.code.name();
                tracing::warn!(
                    roll = roll.id.get(),
                    authority = name,
                    code,
                    %error,
                    "rollover not started, retrying",
                );
            }
        }
    }

    fn roll_below(&self, roll: &RollRow, name: &str) -> Result<(), Error> {
        let below = self.store.child_rolls(roll.id)?;
        let known = below.iter().any(|it| it.subject.name() == name);
        if known || self.store.open_authority_roll(name)?.is_some() {
            return Ok(());
        }
        let detail = AuthorityDetail::default();
        self.begin_authority_roll(&Caller::Daemon, name, &detail, Some(roll.id))?;
        Ok(())
    }
}
