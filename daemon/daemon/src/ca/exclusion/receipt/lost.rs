//! Says in receipts what is unknown: what a restore has lost, and what another program has added at
//! a service.
//!
//! Leaves and enrollments that came after the backup are not on record. Where a place can be
//! observed without a record, it is: an enrollment excludes a device by its registration id, and a
//! scan lists every enrollment. The rest is open.

use crate::ca::Error;
use crate::ca::exclusion::Exclusions;
use crate::ca::exclusion::place::{Place, PlaceCode};
use crate::ca::profile::Role;
use crate::store::{BlockKind, BlockRow, HubCause, LostPeriod, MayAdmit};
use crate::unix_seconds::UnixSeconds;
use crate::x509::profile::NO_END;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl Exclusions {
    /// Returns the open place of leaves that no revocation list can have, until the last of them
    /// has expired. `whose` are they.
    pub(in crate::ca::exclusion) fn unknown_leaves(
        &self,
        whose: &str,
    ) -> Result<Option<Place>, Error> {
        let Some(lost) = self.store.lost_period()? else {
            return Ok(None);
        };
        // Those without an end have the last moment there is (RFC 5280 4.1.2.5).
        let end = self.end_of_lost_leaves(lost)?.min(NO_END);
        if end < self.issuer.now() {
            return Ok(None);
        }
        let (since, until, mut parameters) = described(lost);
        parameters["subject"] = json!(whose);
        parameters["ends_at"] = json!(end.to_string());
        let answer = format!(
            "leaves of {whose} that were issued between {since} and {until} are not on record, so \
             no revocation list has them: have whatever reads the lists refuse {whose} by name \
             until they have expired, by {end} at the latest"
        );
        let code = PlaceCode::LeavesUnknown;
        Ok(Some(Place::crl(code, parameters, answer)))
    }

    /// Returns when the last leaf from the lost period has expired: by the longest validity of a
    /// device's leaf that a profile gives now, or that is on record.
    fn end_of_lost_leaves(&self, lost: LostPeriod) -> Result<UnixSeconds, Error> {
        let longest = self.store.longest_leaf_seconds()?;
        let on_record = lost.until.saturating_add_unsigned(longest);
        let by_profile = self
            .issuer
            .profiles()
            .values()
            .filter(|it| it.role == Role::Device)
            .map(|it| it.certificate.not_after(lost.until));
        Ok(by_profile.fold(on_record, UnixSeconds::max))
    }

    /// Returns the places of a service, and of its hub, where devices below a group or an authority
    /// may have access by what is not on record.
    pub(in crate::ca::exclusion) fn unknown_places(
        &self,
        cause: HubCause,
        service: &str,
    ) -> Result<Vec<Place>, Error> {
        let enrollments = self.unknown_enrollments(service)?.into_iter();
        let removals = self.unknown_removals(service)?.into_iter();
        let identities = self.unknown_identities(&[cause], service)?;
        Ok(enrollments.chain(removals).chain(identities).collect())
    }

    /// Returns the places of the enrollments of a service that are being removed, and of which
    /// nothing else is on record.
    pub(super) fn unknown_removals(&self, service: &str) -> Result<Vec<Place>, Error> {
        let rows = self.store.unknown_being_removed(service)?;
        Ok(rows.iter().map(|row| self.enrollment_place(row)).collect())
    }

    /// Returns the services without a restriction by this block at which enrollments that are not
    /// on record may admit what it excludes: every one for a generation, and for a group those that
    /// have it, or were not compared since a restore.
    pub(in crate::ca::exclusion) fn services_in_doubt(
        &self,
        block: &BlockRow,
        restricted: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Error> {
        let mut services = BTreeSet::new();
        match block.kind {
            BlockKind::Device => {}
            BlockKind::Group => {
                services.extend(self.store.services_with_unknown(Some(&block.name))?);
                for service in &self.services.names {
                    if !self.store.is_compared_since_restore(service)? {
                        services.insert(service.clone());
                    }
                }
            }
            BlockKind::Generation => {
                services.extend(self.services.names.iter().cloned());
                services.extend(self.store.services_with_unknown(None)?);
            }
        }
        services.retain(|it| !restricted.contains(it));
        Ok(services)
    }

    /// Returns the places of services at which an enrollment that is not on record may admit an
    /// excluded device: a scan has found it after the exclusion, or it is being removed.
    pub(in crate::ca::exclusion) fn unknown_places_of_device(
        &self,
        device: &str,
    ) -> Result<Vec<Place>, Error> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (service, name) in self.store.unknown_enrollments_for(device)? {
            found.entry(service).or_default().push(name);
        }
        let place = |(service, names): (String, Vec<String>)| {
            let answer = format!(
                "enrollments that are not on record may admit {device}: {}; repeat the compromise, \
                 or lift the block and repeat it, and the device is excluded here, too",
                names.join(", ")
            );
            let parameters = json!({ "total": names.len(), "names": names });
            let code = PlaceCode::EnrollmentsUnknown;
            Place::service(&service, code, parameters, answer)
        };
        let mut places = Vec::from_iter(found.into_iter().map(place));
        let removed = self.store.unknown_being_removed_for(device)?;
        places.extend(removed.iter().map(|row| self.enrollment_place(row)));
        Ok(places)
    }

    /// Returns the place of a hub that may have identities of devices that are not on record: until
    /// the registrations of every group were listed, or for good if the exclusion is older than the
    /// restore.
    pub(super) fn unknown_identities(
        &self,
        causes: &[HubCause],
        service: &str,
    ) -> Result<Option<Place>, Error> {
        let lost = self.store.lost_period()?;
        let Some(lost) = lost.filter(|_| self.services.hubs.contains_key(service)) else {
            return Ok(None);
        };
        let groups = self.store.groups_listed(causes, service)?;
        let (since, until, mut parameters) = described(lost);
        if groups.listed < groups.total {
            parameters["done"] = json!(groups.listed);
            parameters["total"] = json!(groups.total);
            let answer = format!(
                "{} of {} groups were asked for the registrations of devices that are not on \
                 record",
                groups.listed, groups.total
            );
            let code = PlaceCode::RegistrationsPending;
            return Ok(Some(Place::hub(service, code, parameters, answer)));
        }
        if groups.total > 0 {
            return Ok(None);
        }
        let answer = format!(
            "devices that registered first between {since} and {until} are not on record, so their \
             identities were not deleted: repeat the compromise, or lift the block and repeat it"
        );
        let code = PlaceCode::IdentitiesUnknown;
        Ok(Some(Place::hub(service, code, parameters, answer)))
    }

    /// Returns the place of enrollments by which a service may admit devices, and of which nothing
    /// is on record.
    pub(in crate::ca::exclusion) fn unknown_enrollments(
        &self,
        service: &str,
    ) -> Result<Option<Place>, Error> {
        let is_configured = self.services.names.iter().any(|it| it == service);
        if is_configured && !self.store.is_compared_since_restore(service)? {
            let answer = format!(
                "the enrollments at {service} were not compared with the record since the restore"
            );
            let code = PlaceCode::EnrollmentsNotCompared;
            return Ok(Some(Place::service(service, code, json!({}), answer)));
        }
        let unknown = self.store.may_admit_unknown(service)?;
        Ok((unknown.total > 0).then(|| place_of_unknown(service, &unknown)))
    }
}

fn place_of_unknown(service: &str, unknown: &MayAdmit) -> Place {
    let named = unknown.names.join(", ");
    let more = match unknown.total - unknown.names.len() as i64 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let answer = format!(
        "{} enrollments that are not on record may admit devices: {named}{more}; \
         `hallmark enrollment list --unknown` lists them: compromise or block each device by its \
         name, or adopt or remove the enrollment",
        unknown.total
    );
    let parameters = json!({ "total": unknown.total, "names": unknown.names });
    Place::service(service, PlaceCode::EnrollmentsUnknown, parameters, answer)
}

/// The ends of the period, and parameters with them.
fn described(lost: LostPeriod) -> (String, String, Value) {
    let since = lost.since.to_string();
    let until = lost.until.to_string();
    let parameters = json!({ "since": since, "until": until });
    (since, until, parameters)
}
