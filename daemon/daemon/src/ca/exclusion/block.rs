//! Excludes devices, groups and generations at every place at once: blocks them until an operator
//! lifts the block, and brings about what follows from a compromise.
//!
//! One command reaches the revocation lists, the provisioning services and their hubs, and its
//! receipt says what each of them answered. `sweep` does the part that goes device by device.

use super::Exclusions;
use super::place::{Place, PlaceCode, PlaceState};
use super::receipt::Receipt;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::hierarchy::Generation;
use crate::ca::{Code, Error, crash_point};
use crate::enrollment::roll::HubPolicy;
use crate::ids::{BlockId, GenerationId, GenerationNumber};
use crate::store::{
    AuditEntry, BlockKind, BlockRow, Cause, EnrollmentKind, EnrollmentRow, Excluded, Exclusion,
    HubCause, IndividualsBelow, RecordedExclusion, RestrictedEnrollment,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A block in force, as it is shown.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ActiveBlock {
    /// The kind of its subject.
    pub kind: BlockKind,
    /// Registration id, group id or authority.
    pub name: String,
    pub generation: Option<GenerationNumber>,
    pub reason: String,
    pub by: String,
    pub since: String,
}

impl From<BlockRow> for ActiveBlock {
    fn from(row: BlockRow) -> Self {
        Self {
            kind: row.kind,
            name: row.name,
            generation: row.generation,
            reason: row.reason,
            by: row.blocked_by,
            since: row.blocked_at.to_string(),
        }
    }
}

/// Returns the groups that a block of a group names, as they were when it came.
fn groups_of(block: &BlockRow) -> impl Iterator<Item = &RestrictedEnrollment> {
    let restricted = block.restricted.iter();
    restricted
        .filter(|it| it.kind == EnrollmentKind::Group && it.name.eq_ignore_ascii_case(&block.name))
}

impl Exclusions {
    /// Excludes the subject until [`unblock`](Self::unblock).
    pub fn block(
        &self,
        permission: &Authorized<Operate>,
        subject: &Excluded,
        reason: &str,
    ) -> Result<BlockRow, Error> {
        let entry = self.block_entry(permission, "block.started", subject, reason);
        let mut subject = subject.clone();
        match &mut subject {
            Excluded::Device(id) => *id = self.named_device(id)?,
            Excluded::Group(id) => self.refuse_blocking_group(id)?,
            Excluded::Generation(authority, number) => {
                self.generation_named(authority, *number)?;
            }
        }
        let cause = Cause::Block(reason.to_owned());
        let recorded = self.exclude(subject, cause, HubPolicy::Delete, entry)?;
        let block = recorded.block;
        block.ok_or_else(|| Error::stop(Code::Internal, "a block was not recorded"))
    }

    /// Excludes the subject at every provisioning service, and an excluded device at their hubs.
    pub(in crate::ca) fn exclude(
        &self,
        subject: Excluded,
        cause: Cause,
        hub: HubPolicy,
        entry: AuditEntry,
    ) -> Result<RecordedExclusion, Error> {
        let recorded_point = match cause {
            Cause::Block(_) => "roll-block-recorded",
            Cause::Compromise { .. } => "roll-compromise-recorded",
        };
        let placeholder = match &subject {
            Excluded::Device(device) => self.placeholder_if_needed(device)?,
            _ => None,
        };
        let exclusion = Exclusion {
            subject,
            placeholder,
            services: self.services.names.clone(),
            hub,
            cause,
        };
        let recorded = self.store.exclude(exclusion, entry)?;
        crash_point(recorded_point);
        self.issuer.wake();
        self.follow_revocation(&recorded.revoked)?;
        Ok(recorded)
    }

    /// Readmits the subject. A device goes back to its group, unless that group would admit a
    /// compromised leaf. Returns the block that was lifted.
    pub fn unblock(
        &self,
        permission: &Authorized<Operate>,
        subject: &Excluded,
        reason: &str,
    ) -> Result<BlockRow, Error> {
        let block = self.active_block(subject)?;
        let entry = self.block_entry(permission, "block.lifted", subject, reason);
        let revoked = self.store.readmit(block.id, entry)?;
        crash_point("roll-block-lifted");
        self.issuer.wake();
        self.follow_revocation(&revoked)?;
        Ok(self.store.block(block.id)?)
    }

    /// Returns the block of this subject that is in force.
    pub fn active_block(&self, subject: &Excluded) -> Result<BlockRow, Error> {
        let (kind, name, generation) = subject.key();
        let active = self.store.active_block(kind, name, generation)?;
        active.ok_or_else(|| {
            let message = format!("{name} is not blocked; `hallmark block list` has all");
            Error::missing(Code::BlockUnknown, message)
        })
    }

    /// Returns what each place answered to a block, or to its end.
    pub fn block_receipt(&self, id: BlockId) -> Result<Receipt, Error> {
        let block = self.store.block(id)?;
        let left = self.left_to_do(&block)?;
        let is_in_force = block.lifted_at.is_none();
        let mut places = self.crl_places_of_block(&block, left.as_deref())?;
        if let Some(number) = block.generation.filter(|_| is_in_force) {
            let generation = self.generation_named(&block.name, number)?;
            places.extend(self.elsewhere_place(generation.id));
        }
        let restricted = self.restricted_places(&block)?;
        let services = restricted.iter().filter_map(Place::service_name);
        let mut services: BTreeSet<String> = services.map(str::to_owned).collect();
        if block.kind != BlockKind::Group {
            // A device may have an identity at a hub although no enrollment admits it any more.
            services.extend(self.services.names.iter().cloned());
        }
        if is_in_force {
            // A service or a hub may have left the configuration since.
            services.extend(
                self.store
                    .services_with_deletions(&[HubCause::Block(id)], None)?,
            );
            places.extend(self.admitted_places(&block, &restricted, &services)?);
            for service in self.services_in_doubt(&block, &services)? {
                places.extend(self.unknown_enrollments(&service)?);
            }
            if block.kind == BlockKind::Device {
                places.extend(self.unknown_places_of_device(&block.name)?);
            }
        }
        places.extend(restricted);
        for service in services.iter().filter(|_| is_in_force) {
            // Read before the identities: what is found there becomes work at the hub.
            if block.kind != BlockKind::Device {
                places.extend(self.unknown_places(HubCause::Block(id), service)?);
            }
            let answers = self.hub_places(&[HubCause::Block(id)], service)?;
            places.extend(answers.into_iter().map(|place| match &left {
                Some(left) if place.state == PlaceState::Done => {
                    let code = PlaceCode::DevicesRemaining;
                    Place::hub(service, code, place.parameters, left.as_str())
                }
                _ => place,
            }));
        }
        Ok(places.into())
    }

    /// Returns the services that follow in every enrollment and admit a blocked generation, or the
    /// devices of a blocked group, all the same: another program has deleted the CA certificate by
    /// which a group excluded it.
    fn admitted_places(
        &self,
        block: &BlockRow,
        restricted: &[Place],
        services: &BTreeSet<String>,
    ) -> Result<Vec<Place>, Error> {
        let mut places = Vec::new();
        for service in services {
            let is_its = |it: &&Place| it.service_name() == Some(service.as_str());
            let mut its = restricted.iter().filter(is_its);
            if its.any(|it| it.state != PlaceState::Done) {
                continue;
            }
            for generation in self.blocked_generations(block, service)? {
                let authority = &generation.authority;
                places.extend(self.admitted_place(service, generation.id, authority)?);
            }
        }
        Ok(places)
    }

    /// Returns the generations whose devices a service must not admit: the blocked one, or those of
    /// the authority of the blocked group there.
    fn blocked_generations(
        &self,
        block: &BlockRow,
        service: &str,
    ) -> Result<Vec<Arc<Generation>>, Error> {
        if let Some(number) = block.generation {
            return Ok(vec![self.generation_named(&block.name, number)?]);
        }
        let here: Vec<_> = groups_of(block)
            .filter(|it| it.provisioning == service)
            .collect();
        if here.is_empty() {
            return Ok(Vec::new());
        }
        let signed = self.store.signed_generations(self.issuer.now())?;
        let hierarchy = self.issuer.hierarchy();
        let own = hierarchy.iter().filter(|it| {
            let is_its =
                |group: &&RestrictedEnrollment| group.authority.as_ref() == Some(&it.authority);
            signed.contains(&it.id) && here.iter().any(is_its)
        });
        Ok(own.cloned().collect())
    }

    fn crl_places_of_block(
        &self,
        block: &BlockRow,
        left: Option<&str>,
    ) -> Result<Vec<Place>, Error> {
        let is_in_force = block.lifted_at.is_none();
        match (block.kind, left) {
            (BlockKind::Device, _) if is_in_force => self.crl_places(&block.name),
            (BlockKind::Device, _) => Ok(vec![self.crl_place(&block.name)?]),
            (BlockKind::Group, Some(left)) => {
                let parameters = json!({ "group": block.name });
                let code = PlaceCode::DevicesRemaining;
                Ok(vec![Place::crl(code, parameters, left)])
            }
            _ => {
                let signers = self.signers_of(block)?;
                let listed = self.listed_place(signers.into_iter(), &self.held_in_words(block))?;
                // A generation is on the list of its issuer with all that it signed.
                let is_of_leaves = is_in_force && block.kind == BlockKind::Group;
                let whose = format!("devices of {}", block.name);
                let unknown = is_of_leaves.then(|| self.unknown_leaves(&whose));
                Ok([listed]
                    .into_iter()
                    .chain(unknown.transpose()?.flatten())
                    .collect())
            }
        }
    }

    /// Returns the places of the enrollments that a block concerns: one by one, but the individual
    /// ones beside a group or below a generation by their number.
    fn restricted_places(&self, block: &BlockRow) -> Result<Vec<Place>, Error> {
        let mut places = Vec::new();
        let mut rows = match block.kind {
            BlockKind::Group => self.groups_named(&block.name)?,
            _ => Vec::new(),
        };
        for it in &block.restricted {
            let is_counted = it.kind == EnrollmentKind::Individual;
            if is_counted && block.kind != BlockKind::Device || rows.iter().any(|row| it.is(row)) {
                continue;
            }
            match self.store.find_enrollment(it.id)?.filter(|row| it.is(row)) {
                Some(row) => rows.push(row),
                // The row goes when the service was observed without the enrollment.
                None => places.push(Place::deleted_enrollment(it)),
            }
        }
        places.extend(rows.iter().map(|row| self.enrollment_place(row)));
        for it in self.individuals_of(block)? {
            for place in self.individuals_places(&it) {
                // They have a line of their own if the service has no other, or if they are not
                // done.
                let has_line = places.iter().any(|it| it.place == place.place);
                if !has_line || place.state != PlaceState::Done {
                    places.push(place);
                }
            }
        }
        Ok(places)
    }

    /// Counts the individual enrollments that a block of a group or a generation concerns.
    fn individuals_of(&self, block: &BlockRow) -> Result<Vec<IndividualsBelow>, Error> {
        match block.generation {
            Some(number) => {
                let blocked = self.generation_named(&block.name, number)?;
                let below = self.issuer.hierarchy().subtree(blocked.id);
                Ok(self.store.individuals_below(&below, self.issuer.now())?)
            }
            None if block.kind == BlockKind::Group => {
                let groups = groups_of(block);
                let below = self.fleet_of(block)?.generations.into_iter().collect();
                let mut beside = self.store.individuals_beside(&block.name, &below)?;
                let services: BTreeSet<&String> = groups.map(|it| &it.provisioning).collect();
                beside.retain(|it| services.contains(&it.provisioning));
                Ok(beside)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Returns the generations whose revocation lists show a block: the issuer of a blocked
    /// generation, or those of the devices of a group.
    fn signers_of(&self, block: &BlockRow) -> Result<BTreeSet<GenerationId>, Error> {
        if let Some(number) = block.generation {
            let generation = self.generation_named(&block.name, number)?;
            return Ok([generation.parent.unwrap_or(generation.id)].into());
        }
        // The groups may be gone since.
        let authorities = groups_of(block).filter_map(|it| it.authority.as_ref());
        let authorities: BTreeSet<&String> = authorities.collect();
        let hierarchy = self.issuer.hierarchy();
        let of_group = hierarchy.iter().filter(|generation| {
            let mut above = hierarchy.upwards(generation.id);
            above.any(|it| authorities.contains(&it.authority))
        });
        Ok(of_group.map(|generation| generation.id).collect())
    }

    fn held_in_words(&self, block: &BlockRow) -> String {
        let verb = match block.lifted_at {
            None => "on hold",
            Some(_) => "no longer on hold",
        };
        match block.generation {
            Some(number) => format!("generation {number} of {} is {verb}", block.name),
            None => format!("the leaves of the devices of {} are {verb}", block.name),
        }
    }

    /// A blocking group excludes already. Its block would put all devices of the authority on hold.
    fn refuse_blocking_group(&self, id: &str) -> Result<(), Error> {
        let groups = self.groups_named(id)?;
        if groups.is_empty() {
            let message = format!(
                "nothing is excluded: there is no group {id:?}; `hallmark enrollment list` has all"
            );
            return Err(Error::missing(Code::EnrollmentUnknown, message));
        }
        if groups.iter().any(|it| it.overlay_of.is_none()) {
            return Ok(());
        }
        let message = format!("{id} is a blocking group: it is disabled, and excludes already");
        Err(Error::conflict(Code::StateConflict, message))
    }

    pub(super) fn groups_named(&self, id: &str) -> Result<Vec<EnrollmentRow>, Error> {
        let mut groups = self.store.groups()?;
        groups.retain(|row| row.name.eq_ignore_ascii_case(id));
        Ok(groups)
    }

    pub(in crate::ca) fn generation_named(
        &self,
        authority: &str,
        number: GenerationNumber,
    ) -> Result<Arc<Generation>, Error> {
        let hierarchy = self.issuer.hierarchy();
        let found = hierarchy
            .iter()
            .find(|it| it.authority == authority && it.number == number);
        found.cloned().ok_or_else(|| {
            let message = format!(
                "nothing is excluded: authority {authority:?} has no generation {number}; \
                 `hallmark authority list` has all"
            );
            Error::missing(Code::AuthorityUnknown, message)
        })
    }

    fn block_entry(
        &self,
        permission: &Authorized<Operate>,
        action: &'static str,
        subject: &Excluded,
        reason: &str,
    ) -> AuditEntry {
        let (kind, name, generation) = subject.key();
        AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action,
            subject: name.to_owned(),
            detail: json!({ "kind": kind, "generation": generation, "reason": reason }),
        }
    }
}
