//! Excludes a compromised authority and all below it, and replaces them with new certificates.
//!
//! The exclusion is one transaction: the certificate is revoked, so that nothing signs under it;
//! groups drop its certificate or are disabled; CA certificates are marked for deletion; open
//! rollovers end. Making the successors, which needs tokens, comes afterwards.

use super::super::authorize::{Authorized, Operate};
use super::super::hierarchy::Generation;
use super::super::{CertificateAuthority, Code, Error, crash_point};
use super::evidence::AuthorityDetail;
use crate::enrollment::authority_roll::Change;
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::{
    CompromisedAuthority, EnrollmentRow, HubAction, HubCause, NewAuthorityRoll, NewHubTask,
    Revocation, RevocationTarget, RollRow, RollSubject,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most devices that are put on one list.
pub(super) const DEVICES_LISTED_MAX: u32 = 1_000_000;

/// How many devices are put on the queue of the hubs in one transaction.
const IDENTITIES_PER_CHUNK: usize = 500;

/// How often a report of a compromise is tried that others have come before.
const ATTEMPTS_MAX: u32 = 8;

impl CertificateAuthority {
    /// Starts the compromise rolls of an authority and all below it; that of the authority comes
    /// first. `generation` is the compromised one, the one in service if none is named.
    pub fn start_authority_compromise(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        generation: Option<i64>,
        detail: &AuthorityDetail,
        overriding: Option<&str>,
    ) -> Result<Vec<RollRow>, Error> {
        // A rollover or a block that takes a step at this moment must not prevent the exclusion.
        for _ in 1..ATTEMPTS_MAX {
            let begun = self.shut_out_all(permission, authority, generation, detail, overriding);
            match begun {
                Err(error) if error.code == Code::StateConflict => {}
                done => return done,
            }
        }
        self.shut_out_all(permission, authority, generation, detail, overriding)
    }

    fn shut_out_all(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        generation: Option<i64>,
        detail: &AuthorityDetail,
        overriding: Option<&str>,
    ) -> Result<Vec<RollRow>, Error> {
        let newest_group = self.store.newest_group()?;
        let compromised = self.compromised(authority, generation)?;
        self.issuer.token_of(authority)?;
        let caller = permission.caller();
        let void = self.hierarchy().subtree(compromised.id);
        let mut list = vec![self.shut_out(&compromised, &void, None, detail)?];
        list[0].blocking = self.blocking_groups(&compromised, &void)?;
        self.list_those_below(&compromised, &void, 0, &mut list)?;
        let names: Vec<&str> = list.iter().map(|it| it.roll.authority.as_str()).collect();
        if overriding.is_none() {
            self.groups_within_limits(&names)?;
        }
        let told = json!({
            "reason": "compromise", "generation": compromised.number, "below": names[1..],
            "override": overriding,
        });
        let entry = self.roll_entry(caller, "roll.started", authority, told);
        let revocation = Revocation {
            target: RevocationTarget::Generation {
                generation: compromised.id,
            },
            at: entry.at,
            actor: entry.actor.clone(),
            cause: "the authority is compromised".into(),
        };
        let rows =
            self.store
                .start_authority_compromise(list, Some(newest_group), revocation, entry)?;
        crash_point("roll-compromise-recorded");
        self.issuer.reload_hierarchy()?;
        self.wake();
        Ok(rows)
    }

    fn compromised(&self, authority: &str, number: Option<i64>) -> Result<Arc<Generation>, Error> {
        let hierarchy = self.hierarchy();
        let found = match number {
            None => hierarchy.serving(authority),
            Some(number) => hierarchy
                .iter()
                .find(|it| it.authority == authority && it.number == number),
        };
        found.cloned().ok_or_else(|| {
            let message = format!(
                "there is no such generation of {authority:?}; `hallmark authority show` shows all"
            );
            Error::missing(Code::AuthorityUnknown, message)
        })
    }

    /// The generations that serve below a compromised generation, issuers first. `void` are all
    /// generations below the one that the compromise began with.
    fn list_those_below(
        &self,
        above: &Generation,
        void: &BTreeSet<i64>,
        place: usize,
        list: &mut Vec<CompromisedAuthority>,
    ) -> Result<(), Error> {
        let hierarchy = self.hierarchy();
        let children = hierarchy.children(&above.authority).into_iter().cloned();
        let below: Vec<Arc<Generation>> =
            children.filter(|it| it.parent == Some(above.id)).collect();
        drop(hierarchy);
        for child in below {
            let detail = AuthorityDetail::default();
            list.push(self.shut_out(&child, void, Some(place), &detail)?);
            self.list_those_below(&child, void, list.len() - 1, list)?;
        }
        Ok(())
    }

    fn shut_out(
        &self,
        compromised: &Generation,
        void: &BTreeSet<i64>,
        above: Option<usize>,
        detail: &AuthorityDetail,
    ) -> Result<CompromisedAuthority, Error> {
        let groups = self.store.groups_of(&compromised.authority)?;
        let hierarchy = self.hierarchy();
        let own = hierarchy
            .iter()
            .filter(|it| it.authority == compromised.authority && void.contains(&it.id));
        let void: Vec<Thumbprint> = own.map(|it| it.thumbprint()).collect();
        drop(hierarchy);
        let holding = groups
            .into_iter()
            .filter(|it| it.slots.held().iter().any(|held| void.contains(held)));
        Ok(CompromisedAuthority {
            roll: NewAuthorityRoll {
                authority: compromised.authority.clone(),
                old_generation: compromised.id,
                old_certificate: compromised.thumbprint(),
                detail: detail.to_value()?,
            },
            above,
            blocking: Vec::new(),
            groups: holding
                .filter_map(|group| without(&group, &void).transpose())
                .collect::<Result<_, _>>()?,
        })
    }

    /// Queues the hubs' work once the services exclude the authority: delete the identity of every
    /// device that may have registered with a leaf below it, the most recently observed first. In
    /// chunks; waiting tasks are left unchanged, and finished ones are done again.
    pub(super) fn queue_identities(&self, roll: &RollRow) -> Result<(), Error> {
        let groups = self.store.groups_of(roll.subject.name())?;
        let groups: BTreeMap<&str, i64> = groups
            .iter()
            .map(|group| (group.provisioning.as_str(), group.id))
            .collect();
        let generations = self.generations_to_clear(roll)?;
        // Once for all rolls of a compromise.
        let strangers = roll.parent.is_none();
        let devices = self
            .store
            .devices_to_clear(&generations, strangers, DEVICES_LISTED_MAX)?;
        for chunk in devices.chunks(IDENTITIES_PER_CHUNK) {
            let mut tasks = Vec::with_capacity(chunk.len() * self.hubs.len());
            for device in chunk {
                tasks.extend(self.hubs.keys().map(|service| NewHubTask {
                    provisioning: service.clone(),
                    device: device.clone(),
                    action: HubAction::Delete,
                    enrollment: groups.get(service.as_str()).copied(),
                }));
            }
            let cause = HubCause::Roll(roll.id);
            self.store.queue_hub_tasks(cause, tasks, self.now())?;
        }
        Ok(())
    }

    /// All generations below the authority, the good ones too: with a compromised key a leaf can be
    /// forged for a device that is on the next generation already. The rollovers below clear their
    /// own devices, unless groups above have accepted devices further below before the block was
    /// confirmed.
    fn generations_to_clear(&self, roll: &RollRow) -> Result<Vec<i64>, Error> {
        let hierarchy = self.hierarchy();
        let below = |authority: &str| -> BTreeSet<i64> {
            let own = hierarchy.iter().filter(|it| it.authority == authority);
            own.flat_map(|it| hierarchy.subtree(it.id)).collect()
        };
        let mut generations = below(roll.subject.name());
        if let RollSubject::Authority { old_generation, .. } = roll.subject
            && roll.new_certificate.is_some()
            && self.has_groups_above(old_generation)?
        {
            return Ok(generations.into_iter().collect());
        }
        for child in self.store.child_rolls(roll.id)? {
            for theirs in below(child.subject.name()) {
                generations.remove(&theirs);
            }
        }
        Ok(generations.into_iter().collect())
    }
}

/// A group without the revoked certificates. A group that names a revoked CA certificate and no
/// other is left unchanged: that certificate is deleted, DPS accepts nothing below it, and the
/// service takes no record that names a missing certificate.
fn without(group: &EnrollmentRow, void: &[Thumbprint]) -> Result<Option<Change>, Error> {
    let left = group
        .slots
        .clone()
        .shut_out(void, None)
        .map_err(|refusal| Error::conflict(refusal.code(), refusal.to_string()))?;
    if group.by_reference && left.slots == group.slots {
        return Ok(None);
    }
    Ok(Some(Change {
        group: group.id,
        from: group.slots.clone(),
        to: left.slots,
        was_enabled: group.enabled,
        enabled: left.enabled && group.enabled,
    }))
}
