//! Rolls: started by an operator, by a renewal, by policy or by another roll; advanced whenever
//! what they wait for has come.
//!
//! One engine for all: this module starts, aborts, advances and lists rollovers; the file of the
//! subject has its steps, [`leaf`], [`leaf_compromise`], [`authority_compromise`], [`group`] or
//! [`authority`], and [`report`] their sentences. Advancing takes no input and may be called at any
//! time: each step is one transaction that is refused if its subject has changed in between.

mod authority;
mod authority_compromise;
pub mod canary;
mod certificate_compromise;
mod estimate;
mod evidence;
mod group;
mod leaf;
mod leaf_compromise;
mod policy;
mod report;
mod service_limits;
pub(in crate::ca) mod successor;
mod verification;
mod waits;
mod window;

pub use authority_compromise::CompromisedAuthority;
pub use certificate_compromise::ExcludedCertificate;
pub use estimate::{EstimateCode, EstimatedRest};
pub(super) use evidence::certificate_in;
pub use evidence::{AuthorityDetail, CanaryFailure};
pub use group::UnderGroup;
pub use leaf_compromise::{CompromisedDevice, LeafCompromise, NewLeaf};
pub use policy::{DeviceNotification, NotifyBy, RollPolicy};
pub use report::Reissue;
pub use waits::{WaitCode, Waits};

use super::authorize::{Authorized, Caller, Operate};
use super::ceremony::Ceremonies;
use super::exclusion::Exclusions;
use super::services::Services;
use super::{Error, Issuer};
use crate::ca::authority_policy::AuthorityPolicy;
use crate::ids::RollId;
use crate::store::{AuditEntry, RollRow, RollSubject, Store};
use crate::unix_seconds::UnixSeconds;
use serde_json::Value;
use std::sync::Arc;

/// Pause after a failed step of a rollover, in seconds.
const RETRY_SECONDS: i64 = 5;

/// Replaces certificates that end or are compromised, step by step.
pub struct Rollovers {
    issuer: Arc<Issuer>,
    /// Makes the next generations, one ceremony at a time.
    ceremonies: Arc<Ceremonies>,
    exclusions: Arc<Exclusions>,
    services: Arc<Services>,
    store: Store,
    rolling: RollPolicy,
    authority_policy: AuthorityPolicy,
}

/// The settings of rollovers.
#[derive(Clone, Debug, Default)]
pub struct RolloverSettings {
    /// How leaves are rolled.
    pub leaves: RollPolicy,
    /// When authorities are rolled, and what that needs.
    pub authorities: AuthorityPolicy,
}

impl Rollovers {
    pub(super) fn new(
        exclusions: Arc<Exclusions>,
        ceremonies: Arc<Ceremonies>,
        settings: RolloverSettings,
    ) -> Self {
        let issuer = exclusions.issuer();
        Self {
            store: issuer.store().clone(),
            issuer,
            ceremonies,
            services: exclusions.services(),
            exclusions,
            rolling: settings.leaves,
            authority_policy: settings.authorities,
        }
    }

    /// Aborts a roll: the certificate that serves stays. `overriding` says why a guard is
    /// overridden.
    pub fn abort_roll(
        &self,
        permission: &Authorized<Operate>,
        roll: RollId,
        overriding: Option<String>,
    ) -> Result<RollRow, Error> {
        let row = self.store.roll(roll)?;
        match row.subject {
            RollSubject::Enrollment { id, .. } => {
                self.abort_leaf_roll(permission.caller(), &row, id, overriding)?;
            }
            RollSubject::Authority { .. } => {
                self.abort_authority_roll(permission.caller(), &row)?;
            }
        }
        self.issuer.wake();
        Ok(self.store.roll(roll)?)
    }

    /// Makes every step whose time has come. Returns when the next one can come, in Unix seconds.
    pub fn advance_rolls(&self) -> Result<Option<UnixSeconds>, Error> {
        let now = self.issuer.now();
        let mut next_due = earlier(self.start_due_rolls(now)?, self.roll_due_authorities()?);
        let retirement = self.store.next_retirement()?;
        next_due = earlier(next_due, retirement.map(|end| end.saturating_add(1)));
        for roll in self.store.open_rolls(now, self.rolling.retire_proven)? {
            let due = match roll.subject {
                RollSubject::Enrollment { id, .. } => self.advance_leaf_roll(&roll, id, now),
                RollSubject::Authority { .. } => self.advance_authority_roll(&roll, now),
            };
            // A failure delays no other rollover: the next one may be an exclusion.
            let due = due.unwrap_or_else(|error| {
                tracing::warn!(
                    roll = roll.id.get(),
                    code = error.code.name(),
                    %error,
                    "rollover step failed, retrying",
                );
                Some(now + RETRY_SECONDS)
            });
            next_due = earlier(next_due, due);
        }
        Ok(earlier(next_due, self.announce_renewals(now)?))
    }

    fn roll_entry(
        &self,
        caller: &Caller,
        action: &'static str,
        subject: &str,
        detail: Value,
    ) -> AuditEntry {
        AuditEntry {
            at: self.issuer.now(),
            actor: caller.to_string(),
            action,
            subject: subject.to_owned(),
            detail,
        }
    }
}

fn earlier(one: Option<UnixSeconds>, other: Option<UnixSeconds>) -> Option<UnixSeconds> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
