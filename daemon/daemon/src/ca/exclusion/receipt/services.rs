//! Reports how far provisioning services are with the exclusion of an authority.
//!
//! Every service counts that holds a group or a CA certificate of the authority on record, whether
//! or not the configuration still has it: what the daemon wrote there admits devices there.

use super::Receipt;
use crate::ca::Error;
use crate::ca::exclusion::Exclusions;
use crate::ca::exclusion::place::{Place, PlaceCode};
use crate::enrollment::roll::RollState;
use crate::ids::{GenerationId, RollId};
use crate::store::{
    CaCertificateRow, EnrollmentRow, HubCause, IndividualsBelow, RollRow, RollSubject,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The places of each service that do not exclude the authority yet.
type Late = BTreeMap<String, Vec<Place>>;

impl Exclusions {
    /// Returns the answers of all places to the compromise of an authority and those below it.
    pub fn authority_receipt(&self, rolls: &[RollId]) -> Result<Receipt, Error> {
        let read = || -> Result<Vec<RollRow>, Error> {
            let rows = rolls.iter().map(|id| self.store.roll(*id));
            Ok(rows.collect::<Result<_, _>>()?)
        };
        // A rollover may take a step at the same time. Services are read first, then rollovers,
        // then hubs: each step moves its work from an earlier one of these to a later one.
        let mut late = self.late_services(&read()?)?;
        let rolls = read()?;
        let mut places = Vec::from_iter(self.crl_place_of_authority(&rolls)?);
        for roll in &rolls {
            if let RollSubject::Authority { old_generation, .. } = roll.subject {
                places.extend(self.elsewhere_place(old_generation));
            }
        }
        let is_excluded = |roll: &RollRow| roll.state != RollState::Excluding;
        let hubs_are_due = rolls.iter().all(is_excluded);
        let mut services: BTreeSet<String> = self.services.names.iter().cloned().collect();
        services.extend(late.keys().cloned());
        services.extend(self.store.services_with_unknown(None)?);
        let causes = Vec::from_iter(rolls.iter().map(|it| HubCause::Roll(it.id)));
        services.extend(self.store.services_with_deletions(&causes, None)?);
        for service in services {
            let unknown = self.unknown_enrollments(&service)?;
            match late.remove(&service) {
                Some(open) => places.extend(open),
                None if unknown.is_some() => {}
                // Its hub has open deletions; nothing was observed at the service.
                None if !self.services.names.contains(&service) => {}
                None => places.push(self.settled_service_place(&rolls, &service)?),
            }
            places.extend(unknown);
            if hubs_are_due {
                places.extend(self.unknown_identities(&causes, &service)?);
            }
            places.extend(self.hubs_places(&rolls, &service, hubs_are_due)?);
        }
        Ok(places.into())
    }

    /// Returns the answer of a service at which nothing is left to do. A group above may admit the
    /// certificate all the same: an operator has removed its blocking group.
    fn settled_service_place(&self, rolls: &[RollRow], service: &str) -> Result<Place, Error> {
        for roll in rolls {
            let RollSubject::Authority { old_generation, .. } = roll.subject else {
                continue;
            };
            let authority = roll.subject.name();
            if let Some(place) = self.admitted_place(service, old_generation, authority)? {
                return Ok(place);
            }
        }
        let answer = "accepts nothing below it";
        let code = PlaceCode::AuthorityExcluded;
        Ok(Place::service(service, code, json!({}), answer))
    }

    /// Returns the open place of a service at which a group admits what an excluded generation of
    /// `authority` signed.
    pub(in crate::ca::exclusion) fn admitted_place(
        &self,
        service: &str,
        generation: GenerationId,
        authority: &str,
    ) -> Result<Option<Place>, Error> {
        let Some(group) = self.admitting_group(service, generation)? else {
            return Ok(None);
        };
        let answer = format!(
            "group {group} admits what the excluded certificate of {authority} signed: disable it, \
             or add a disabled group that holds that certificate"
        );
        let parameters = json!({ "group": group, "authority": authority });
        let code = PlaceCode::AuthorityAdmitted;
        Ok(Some(Place::service(service, code, parameters, answer)))
    }

    /// Returns the group by which a service admits devices below a generation. DPS takes the first
    /// one that holds a certificate of the chain, a disabled one before others (contract, sections
    /// 10 and 13). A group by reference excludes only by a CA certificate that the service was
    /// observed to hold verified.
    pub(in crate::ca::exclusion) fn admitting_group(
        &self,
        service: &str,
        generation: GenerationId,
    ) -> Result<Option<String>, Error> {
        let mut groups = self.store.groups()?;
        groups.retain(|it| it.provisioning == service);
        let certificates = self.store.ca_certificates()?;
        let hierarchy = self.issuer.hierarchy();
        for above in hierarchy.upwards(generation) {
            let named = certificates
                .iter()
                .find(|it| it.provisioning == service && it.generation == above.id);
            let is_verified = named.is_some_and(CaCertificateRow::is_verified);
            let mut holding = groups.clone();
            holding.retain(|it| it.slots.held().contains(&above.thumbprint()));
            let excludes = |it: &EnrollmentRow| {
                !it.enabled && !it.leaving && (!it.by_reference || is_verified)
            };
            if holding.iter().any(excludes) {
                return Ok(None);
            }
            let admits =
                |it: &&EnrollmentRow| may_admit(it) && (!it.by_reference || named.is_some());
            if let Some(group) = holding.iter().find(admits) {
                return Ok(Some(group.name.clone()));
            }
        }
        Ok(None)
    }

    /// Returns whether the issuer's revocation list has the compromised certificate.
    fn crl_place_of_authority(&self, rolls: &[RollRow]) -> Result<Option<Place>, Error> {
        let Some(RollSubject::Authority {
            name,
            old_generation,
            ..
        }) = rolls.first().map(|it| &it.subject)
        else {
            return Ok(None);
        };
        let hierarchy = self.issuer.hierarchy();
        let generation = hierarchy.generation(*old_generation);
        let parameters = json!({ "authority": name });
        Ok(Some(match generation.and_then(|it| it.parent) {
            Some(issuer) => self.listed_place(
                [issuer].into_iter(),
                "the certificate is revoked, and so is all that it signed",
            )?,
            // An issuer elsewhere has its own place.
            None if generation.is_some_and(|it| !it.foreign.is_empty()) => return Ok(None),
            None => Place::crl(
                PlaceCode::RootRevoked,
                parameters,
                "a root is on no revocation list; it signs nothing any more",
            ),
        }))
    }

    /// Returns the places of services that do not exclude the compromised certificates yet.
    fn late_services(&self, rolls: &[RollRow]) -> Result<Late, Error> {
        let mut late = Late::new();
        for roll in rolls {
            let authority = roll.subject.name();
            let mut groups = self.store.groups_of(authority)?;
            groups.extend(self.store.blocking_groups_of(authority)?);
            for group in &groups {
                self.add_late_group(&mut late, group);
            }
            for place in self.yet_to_leave(roll)? {
                add(&mut late, place);
            }
        }
        self.add_late_groups_below(&mut late, rolls)?;
        self.add_late_individuals(&mut late, rolls)?;
        for service in &self.services.names {
            for place in self.unknown_removals(service)? {
                add(&mut late, place);
            }
        }
        let below = self.below(rolls);
        for held in self.store.ca_certificates()? {
            if held.removed && below.contains(&held.generation) {
                add(&mut late, self.ca_certificate_place(&held));
            }
        }
        Ok(late)
    }

    /// Adds the groups of authorities below that do not roll for the compromise: they may hold a
    /// certificate by the compromised one beside a good one.
    fn add_late_groups_below(&self, late: &mut Late, rolls: &[RollRow]) -> Result<(), Error> {
        let below = self.below(rolls);
        let rolled: BTreeSet<_> = rolls.iter().map(|it| it.subject.name()).collect();
        for group in self.groups_holding(&below)? {
            let authority = group.authority.as_deref().unwrap_or_default();
            if !rolled.contains(authority) {
                self.add_late_group(late, &group);
            }
        }
        Ok(())
    }

    /// Returns the compromised generations and all below them.
    fn below(&self, rolls: &[RollRow]) -> BTreeSet<GenerationId> {
        let hierarchy = self.issuer.hierarchy();
        let subtrees = rolls.iter().filter_map(|roll| match roll.subject {
            RollSubject::Authority { old_generation, .. } => {
                Some(hierarchy.subtree(old_generation))
            }
            _ => None,
        });
        subtrees.flatten().collect()
    }

    /// Adds the services that do not follow yet in the individual enrollments of devices below,
    /// which take precedence over every group.
    fn add_late_individuals(&self, late: &mut Late, rolls: &[RollRow]) -> Result<(), Error> {
        let below = self.below(rolls);
        for it in self.store.individuals_below(&below, self.issuer.now())? {
            if it.may_admit() || !self.services.names.contains(&it.provisioning) {
                for place in self.individuals_places(&it) {
                    add(late, place);
                }
            }
        }
        Ok(())
    }

    /// Returns how far a service follows in many individual enrollments, and in each of those that
    /// wait for the operator.
    pub(in crate::ca) fn individuals_places(&self, them: &IndividualsBelow) -> Vec<Place> {
        let is_configured = self.services.names.contains(&them.provisioning);
        let stuck = them.stuck.iter().filter(|_| is_configured);
        let mut places: Vec<Place> = stuck.map(|it| self.enrollment_place(it)).collect();
        // Enrollments that wait for the operator have lines of their own.
        if places.is_empty() || them.pending > 0 {
            places.insert(0, self.individuals_place(them));
        }
        places
    }

    fn individuals_place(&self, them: &IndividualsBelow) -> Place {
        let service = &them.provisioning;
        let total = them.total;
        let settled = total - them.open;
        let mut parameters = json!({ "done": settled, "total": total });
        if !self.services.names.contains(service) {
            let answer = format!(
                "{service} is not configured, so nothing is written or observed there: change \
                 {total} individual enrollments at the service, or configure the service again"
            );
            return Place::service(service, PlaceCode::ServiceNotConfigured, parameters, answer);
        }
        let code = match them.pending {
            0 => PlaceCode::IndividualsSettled,
            _ => PlaceCode::IndividualsPending,
        };
        let mut answer = format!("{settled} of {total} individual enrollments are as desired");
        if code == PlaceCode::IndividualsSettled && settled < total {
            answer.push_str("; the others were changed outside Hallmark, and admit nothing of it");
        }
        if let Some(error) = &them.last_error {
            answer = format!("{answer}: {error}");
            parameters["reason"] = json!(error);
        }
        Place::service(service, code, parameters, answer)
    }

    fn add_late_group(&self, late: &mut Late, group: &EnrollmentRow) {
        let is_configured = self.services.names.contains(&group.provisioning);
        if group.mark.is_some() || group.drift.is_some() || !is_configured {
            add(late, self.enrollment_place(group));
        }
    }

    /// Returns the place of a CA certificate that is to be deleted, and is still on record.
    fn ca_certificate_place(&self, held: &CaCertificateRow) -> Place {
        let service = &held.provisioning;
        let name = &held.name;
        let mut parameters = json!({ "ca_certificate": name });
        if self.services.names.contains(service) {
            let error = held.mark.as_ref().and_then(|it| it.last_error.as_deref());
            let why = error.unwrap_or("not answered yet");
            parameters["reason"] = json!(error);
            if held.mark.as_ref().is_some_and(|it| it.parked) {
                let answer = format!(
                    "the deletion of CA certificate {name} was rejected: {why}; fix the cause, \
                     then `hallmark push retry {name}`"
                );
                let code = PlaceCode::CaCertificateParked;
                return Place::service(service, code, parameters, answer);
            }
            let answer = format!("CA certificate {name} is being deleted: {why}");
            let code = PlaceCode::AuthorityExclusionPending;
            return Place::service(service, code, parameters, answer);
        }
        let answer = format!(
            "{service} is not configured, so nothing is deleted there: delete CA certificate \
             {name} at the service, or configure the service again"
        );
        Place::service(service, PlaceCode::ServiceNotConfigured, parameters, answer)
    }

    /// Returns the place of an enrollment, as last observed.
    pub(in crate::ca) fn enrollment_place(&self, row: &EnrollmentRow) -> Place {
        Place::enrollment(row, self.services.names.contains(&row.provisioning))
    }

    /// Groups that are disabled because they hold the compromised certificate and nothing else,
    /// below groups that would accept it. The service takes a certificate in one enrollment only:
    /// when the next one takes its place, no enrollment holds the compromised one for a moment,
    /// until a disabled group of its own has it.
    fn yet_to_leave(&self, roll: &RollRow) -> Result<Vec<Place>, Error> {
        let RollSubject::Authority {
            name,
            old_generation,
            ..
        } = &roll.subject
        else {
            return Ok(Vec::new());
        };
        let is_over = matches!(roll.state, RollState::Done | RollState::Aborted);
        if is_over || !self.has_groups_above(*old_generation)? {
            return Ok(Vec::new());
        }
        let holding = self
            .store
            .groups_of(name)?
            .into_iter()
            .filter(|it| it.slots.held().contains(&roll.old_certificate) && !it.leaving)
            .filter(|it| self.services.names.contains(&it.provisioning));
        let waits = holding.map(|group| {
            let answer = format!(
                "group {} is disabled; when the next generation takes its place there, groups \
                 above may admit devices for a moment, which is then undone",
                group.name
            );
            Place::service(
                &group.provisioning,
                PlaceCode::AuthorityExclusionPending,
                json!({ "group": group.name }),
                answer,
            )
        });
        Ok(waits.collect())
    }

    fn hubs_places(
        &self,
        rolls: &[RollRow],
        service: &str,
        is_due: bool,
    ) -> Result<Vec<Place>, Error> {
        if !is_due && self.services.hubs.contains_key(service) {
            let answer = "identities are deleted when the provisioning service has answered";
            let code = PlaceCode::IdentitiesAfterService;
            return Ok(vec![Place::hub(service, code, json!({}), answer)]);
        }
        let causes: Vec<HubCause> = rolls.iter().map(|it| HubCause::Roll(it.id)).collect();
        self.hub_places(&causes, service)
    }
}

/// Whether a group may be enabled at the service: one that is being removed may be as it was.
fn may_admit(group: &EnrollmentRow) -> bool {
    group.overlay_of.is_none() && (group.enabled || group.leaving)
}

fn add(late: &mut Late, place: Place) {
    let service = place.service_name().unwrap_or_default().to_owned();
    late.entry(service).or_default().push(place);
}
