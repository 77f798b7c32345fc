//! Makes receipts: the answer of each place to an exclusion.
//!
//! A provisioning service reads no revocation list, a hub knows one leaf by its thumbprint, and
//! neither knows of the other. So each place gets its own change, and has its own line. A receipt
//! must never call a place done that was not observed. A place that cannot be observed from here is
//! open: the receipt names it and says what the operator must do.

mod hub;
mod lost;
mod services;

use self::hub::hub_policy;
use super::Exclusions;
use super::place::{Place, PlaceCode, PlaceState};
use crate::ca::Error;
use crate::ca::hierarchy::Generation;
use crate::ca::issuer_list::is_revoked_by_its_issuer;
use crate::enrollment::roll::{HubPolicy, RollReason};
use crate::enrollment::slots::Slots;
use crate::ids::{GenerationId, RollId};
use crate::store::{EnrollmentKind, RollSubject};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The answer of each place.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Receipt {
    /// Whether every place was observed in the desired state.
    pub complete: bool,
    pub places: Vec<Place>,
}

impl Receipt {
    /// Returns true if a place can answer later without the operator.
    pub fn is_pending(&self) -> bool {
        self.places.iter().any(|it| it.state == PlaceState::Pending)
    }
}

impl From<Vec<Place>> for Receipt {
    fn from(places: Vec<Place>) -> Self {
        Self {
            complete: places.iter().all(|it| it.state == PlaceState::Done),
            places,
        }
    }
}

impl Exclusions {
    /// Returns the answers of all places to the compromise of a device.
    pub fn compromise_receipt(
        &self,
        device: &str,
        rolls: &[RollId],
        hub: HubPolicy,
    ) -> Result<Receipt, Error> {
        let mut places = self.crl_places(device)?;
        let mut own = BTreeSet::new();
        let mut since = self.issuer.now();
        for roll in rolls {
            let roll = self.store.roll(*roll)?;
            let RollSubject::Enrollment { id, .. } = roll.subject else {
                continue;
            };
            let enrollment = self.store.enrollment(id)?;
            places.push(self.enrollment_place(&enrollment));
            places.extend(self.hub_places_of(&roll, &enrollment)?);
            since = since.min(roll.started_at);
            own.insert(enrollment.provisioning);
        }
        // Enrollments without a roll: their service was not configured, or they came later.
        for row in self.store.enrollments_named(device)? {
            let service = &row.provisioning;
            if row.kind != EnrollmentKind::Individual || own.contains(service) {
                continue;
            }
            let is_configured = self.services.names.contains(service);
            if is_configured && self.store.has_compromise(row.id, since)? {
                own.insert(row.provisioning);
            } else if row.slots != Slots::Empty {
                places.push(self.enrollment_place(&row));
            }
        }
        places.extend(self.hub_places_without_roll(device, hub, &own)?);
        places.extend(self.unknown_places_of_device(device)?);
        Ok(places.into())
    }

    /// Returns the answers of all places to a roll by compromise, and those to the rolls below it.
    pub fn roll_receipt(&self, roll: RollId) -> Result<Option<Receipt>, Error> {
        let row = self.store.roll(roll)?;
        if row.reason != RollReason::Compromise {
            return Ok(None);
        }
        if let RollSubject::Enrollment { name, .. } = &row.subject {
            let hub = hub_policy(&row);
            return self.compromise_receipt(name, &[roll], hub).map(Some);
        }
        let mut rolls = vec![roll];
        let mut next = 0;
        while let Some(parent) = rolls.get(next) {
            let below = self.store.child_rolls(*parent)?;
            let below = below
                .iter()
                .filter(|it| it.reason == RollReason::Compromise);
            rolls.extend(below.map(|it| it.id));
            next += 1;
        }
        self.authority_receipt(&rolls).map(Some)
    }

    /// Returns the place of a generation whose issuer is elsewhere: open until a list of that
    /// issuer that revokes its certificate was brought here.
    pub(super) fn elsewhere_place(&self, generation: GenerationId) -> Option<Place> {
        let hierarchy = self.issuer.hierarchy();
        let generation = hierarchy.generation(generation)?;
        let issuer = generation.foreign.first()?.certificate.subject();
        let serial = generation.certificate.serial().to_string();
        let authority = &generation.authority;
        let parameters = json!({ "authority": authority, "serial": serial, "issuer": issuer });
        if is_revoked_by_its_issuer(&self.store, generation) {
            let answer = format!("its list revokes the certificate of {authority}");
            return Some(Place::issuer(
                &issuer,
                PlaceCode::IssuerRevoked,
                parameters,
                answer,
            ));
        }
        let answer = format!(
            "have it revoke the certificate of {authority} with serial {serial}: nothing here is \
             on its list"
        );
        Some(Place::issuer(
            &issuer,
            PlaceCode::IssuerElsewhere,
            parameters,
            answer,
        ))
    }

    /// Returns what revocation lists have of the leaves of an excluded device, and what they cannot
    /// have since a restore.
    pub(super) fn crl_places(&self, device: &str) -> Result<Vec<Place>, Error> {
        let unknown = self.unknown_leaves(device)?;
        let has_none = || Ok::<_, Error>(self.living_leaves(device)?.is_empty());
        let mut places = Vec::new();
        if unknown.is_none() || !has_none()? {
            places.push(self.crl_place(device)?);
        }
        places.extend(unknown);
        Ok(places)
    }

    /// Returns whether a device's leaves are on the revocation lists of their issuers. That alone
    /// excludes it nowhere.
    pub(super) fn crl_place(&self, device: &str) -> Result<Place, Error> {
        let living = self.living_leaves(device)?;
        let revoked: Vec<_> = living.iter().filter(|it| it.revoked_at.is_some()).collect();
        let says = format!(
            "{} of {} leaves that have not expired are revoked",
            revoked.len(),
            living.len()
        );
        self.listed_place(living.iter().map(|leaf| leaf.issuer), &says)
    }

    /// Returns whether the revocation lists of these generations say what is on record.
    pub(super) fn listed_place(
        &self,
        generations: impl Iterator<Item = GenerationId>,
        says: &str,
    ) -> Result<Place, Error> {
        let hierarchy = self.issuer.hierarchy();
        let mut lists = Vec::new();
        let mut names = Vec::new();
        for id in generations.collect::<BTreeSet<GenerationId>>() {
            // An issuer that has expired or is revoked signs no more lists, and none of its leaves
            // is valid.
            let living = |it: &&Arc<Generation>| {
                it.certificate.not_after() >= self.issuer.now()
                    && hierarchy.revoked_above(it.id).is_none()
            };
            let Some(generation) = hierarchy.generation(id).filter(living) else {
                continue;
            };
            let name = format!("{}-{}", generation.authority, generation.number);
            if !self.crls.is_listed(id)? {
                let answer = format!("{says}; the list of {name} is yet to be signed");
                let parameters = json!({ "generation": name });
                return Ok(Place::crl(PlaceCode::CrlNotSigned, parameters, answer));
            }
            if let Some(list) = self.crls.summary(generation) {
                lists.push(format!("list {} of {name}", list.number));
            }
            names.push(name);
        }
        let answer = if lists.is_empty() {
            says.to_owned()
        } else {
            format!("{says}; {} says so", lists.join(", "))
        };
        let parameters = json!({ "generations": names });
        Ok(Place::crl(PlaceCode::CrlSigned, parameters, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_complete_if_every_place_is_done() {
        let place = |code| Place::service("factory", code, json!({}), "");
        let done = PlaceCode::EnrollmentDisabled;
        let open = PlaceCode::ServiceNotConfigured;
        let pending = PlaceCode::EnrollmentPending;
        for (codes, complete, is_pending) in [
            (vec![done], true, false),
            (vec![done, open], false, false),
            (vec![done, pending, open], false, true),
        ] {
            let receipt = Receipt::from(codes.into_iter().map(place).collect::<Vec<_>>());
            assert_eq!(receipt.complete, complete);
            assert_eq!(receipt.is_pending(), is_pending);
        }
    }
}
