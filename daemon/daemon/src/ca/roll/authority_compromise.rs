//! Starts the rolls of a compromised authority and of all authorities below it.
//!
//! The exclusion is one transaction ([`Exclusions::exclude`]): the certificate is revoked, so that
//! nothing is signed under it; groups lose it or are disabled; CA certificates are to be deleted;
//! rolls under way end. Making the successors, which needs tokens, comes afterwards.
//!
//! [`Exclusions::exclude`]: crate::ca::exclusion::Exclusions::exclude

use super::super::authorize::{Authorized, Operate};
use super::super::hierarchy::{Generation, Hierarchy};
use super::super::{Code, Error};
use super::Rollovers;
use super::evidence::AuthorityDetail;
use crate::enrollment::roll::HubPolicy;
use crate::enrollment::roll::RollState;
use crate::enrollment::slots::SlotName;
use crate::ids::{EnrollmentId, GenerationId, GenerationNumber};
use crate::store::{Cause, Excluded, HubAction, HubCause, NewHubTask, RollRow, RollSubject};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most devices on one list.
pub(super) const DEVICES_LISTED_MAX: u32 = 1_000_000;

/// How long after a compromise the next one of the same authority must name its generation, in
/// seconds: a week, in which a report may be sent again.
const RECENT_SECONDS: i64 = 7 * 86_400;

/// How many devices are queued for the hubs in one transaction.
const IDENTITIES_PER_CHUNK: usize = 500;

/// An authority that was excluded with all below it.
#[derive(Debug)]
pub struct CompromisedAuthority {
    /// The authority's own first.
    pub rolls: Vec<RollRow>,
    /// Parts of the request that could not be used.
    pub problems: Vec<Error>,
}

impl Rollovers {
    /// Starts the compromise rolls of an authority and all below it; that of the authority comes
    /// first. `generation` is the compromised one; by default the one that serves. The exclusion
    /// comes first: a service that has no room for a blocking group is a problem to report.
    pub fn start_authority_compromise(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        generation: Option<GenerationNumber>,
        detail: &AuthorityDetail,
    ) -> Result<CompromisedAuthority, Error> {
        if generation.is_none() {
            self.refuse_unnamed_generation(authority)?;
        }
        let compromised = self
            .exclusions
            .generation_or_serving(authority, generation)?;
        let mut names = vec![authority.to_owned()];
        list_those_below(&self.issuer.hierarchy(), &compromised, &mut names);
        let problems = Vec::from_iter(self.groups_within_limits(&names).err());
        let number = compromised.number;
        let detail_of_entry = json!({
            "reason": "compromise", "generation": number, "below": names[1..],
        });
        let caller = permission.caller();
        let entry = self.roll_entry(caller, "roll.started", authority, detail_of_entry);
        let cause = Cause::Compromise {
            slots: SlotName::BOTH.into(),
            detail: detail.to_value()?,
        };
        let subject = Excluded::Generation(authority.to_owned(), number);
        // The deletions of devices on record follow when the services exclude the authority
        // (`queue_identities`).
        let exclusions = &self.exclusions;
        let recorded = exclusions.exclude(subject, cause, HubPolicy::Delete, entry)?;
        let rolls = recorded.rolls;
        Ok(CompromisedAuthority { rolls, problems })
    }

    /// Refuses a compromise that names no generation soon after another one: a repeated command
    /// would exclude the successor.
    fn refuse_unnamed_generation(&self, authority: &str) -> Result<(), Error> {
        let Some(last) = self.store.last_compromise(authority)? else {
            return Ok(());
        };
        let is_over = matches!(last.state, RollState::Done | RollState::Aborted);
        if is_over && last.started_at < self.issuer.now() - RECENT_SECONDS {
            return Ok(());
        }
        let RollSubject::Authority { old_generation, .. } = last.subject else {
            return Ok(());
        };
        let hierarchy = self.issuer.hierarchy();
        let number =
            |it: Option<&Arc<Generation>>| it.map_or(GenerationNumber::START, |it| it.number);
        let excluded = number(hierarchy.generation(old_generation));
        let serving = number(hierarchy.serving(authority));
        let message = format!(
            "nothing is excluded by this command: roll {} reports the compromise of generation \
             {excluded} of {authority} since {}, and generation {serving} serves now; if that one \
             is compromised, too, repeat the command with --generation {serving}",
            last.id, last.started_at
        );
        Err(Error::conflict(Code::RollGenerationRequired, message))
    }

    /// Queues deletions at the hubs once the services exclude the authority: of the identity of
    /// every device that may have registered with a leaf below it, those seen last first. In
    /// chunks; a task that waits stays as it is, and a task that is done is done again.
    pub(super) fn queue_identities(&self, roll: &RollRow) -> Result<(), Error> {
        let groups = self.store.groups_of(roll.subject.name())?;
        let groups: BTreeMap<&str, EnrollmentId> = groups
            .iter()
            .map(|group| (group.provisioning.as_str(), group.id))
            .collect();
        let generations = self.generations_to_clear(roll)?;
        // Once for all rolls of a compromise: unknown certificates belong to no single authority.
        let strangers = roll.parent.is_none();
        let devices = self
            .store
            .devices_to_clear(&generations, strangers, DEVICES_LISTED_MAX)?;
        let hubs = self.store.services_with_hub()?;
        for chunk in devices.chunks(IDENTITIES_PER_CHUNK) {
            let mut tasks = Vec::with_capacity(chunk.len() * hubs.len());
            for device in chunk {
                tasks.extend(hubs.iter().map(|service| NewHubTask {
                    provisioning: service.clone(),
                    device: device.clone(),
                    action: HubAction::Delete,
                    enrollment: groups.get(service.as_str()).copied(),
                }));
            }
            let cause = HubCause::Roll(roll.id);
            self.store
                .queue_hub_tasks(cause, tasks, self.issuer.now())?;
        }
        self.store
            .repeat_unknown_deletions(HubCause::Roll(roll.id), self.issuer.now())?;
        if strangers {
            let services = hubs.into_iter().collect();
            let cause = HubCause::Roll(roll.id);
            self.store
                .queue_group_registrations(cause, services, self.issuer.now())?;
        }
        Ok(())
    }

    /// Returns all generations below the authority, the good ones too: a compromised key can sign a
    /// leaf for a device that is on the next generation already. Without those that rolls below
    /// clear, unless groups above admitted devices further below before the blocking group was in
    /// place.
    fn generations_to_clear(&self, roll: &RollRow) -> Result<Vec<GenerationId>, Error> {
        let hierarchy = self.issuer.hierarchy();
        let name = roll.subject.name();
        let own = hierarchy.iter().filter(|it| it.authority == name);
        let mut generations: BTreeSet<GenerationId> =
            own.flat_map(|it| hierarchy.subtree(it.id)).collect();
        let admitted_above = match roll.subject {
            RollSubject::Authority { old_generation, .. } if roll.new_certificate.is_some() => {
                self.exclusions.has_groups_above(old_generation)?
            }
            _ => false,
        };
        if !admitted_above {
            let cleared_below = AuthorityDetail::of(roll)?.cleared_below;
            generations.retain(|it| !cleared_below.contains(it));
        }
        Ok(generations.into_iter().collect())
    }
}

/// Lists the authorities that sign by a generation below this one, each after its issuer.
fn list_those_below(hierarchy: &Hierarchy, above: &Generation, names: &mut Vec<String>) {
    let children = hierarchy.children(&above.authority);
    for child in children.iter().filter(|it| it.parent == Some(above.id)) {
        names.push(child.authority.clone());
        list_those_below(hierarchy, child, names);
    }
}
