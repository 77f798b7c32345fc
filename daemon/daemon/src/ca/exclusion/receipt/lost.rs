//! Says in receipts what a restore has made unknown.
//!
//! Leaves and enrollments that came after the backup are not on record. Where a place can be
//! observed without a record, it is: an enrollment excludes a device by its registration id, and a
//! scan lists every enrollment. The rest is open.

use crate::ca::Error;
use crate::ca::exclusion::Exclusions;
use crate::ca::exclusion::place::{Place, PlaceCode};
use crate::store::{HubCause, LostPeriod};
use serde_json::{Value, json};

impl Exclusions {
    /// Returns the open place of leaves that no revocation list can have. `whose` are they.
    pub(in crate::ca::exclusion) fn unknown_leaves(
        &self,
        whose: &str,
    ) -> Result<Option<Place>, Error> {
        let lost = self.store.lost_period()?;
        Ok(lost.map(|lost| {
            let (since, until, mut parameters) = described(lost);
            parameters["subject"] = json!(whose);
            let answer = format!(
                "leaves of {whose} that were issued between {since} and {until} are not on record, \
                 so no revocation list has them: have whatever reads the lists refuse {whose} by \
                 name until they have expired"
            );
            Place::crl(PlaceCode::LeavesUnknown, parameters, answer)
        }))
    }

    /// Returns the places of a service, and of its hub, where devices below a group or an authority
    /// may have access by what is not on record.
    pub(in crate::ca::exclusion) fn unknown_places(
        &self,
        cause: HubCause,
        service: &str,
    ) -> Result<Vec<Place>, Error> {
        let enrollments = self.unknown_enrollments(service)?.into_iter();
        let identities = self.unknown_identities(&[cause], service)?;
        Ok(enrollments.chain(identities).collect())
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
                "{} of {} groups were asked for the registrations of devices that are not on record",
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
    pub(super) fn unknown_enrollments(&self, service: &str) -> Result<Option<Place>, Error> {
        let is_configured = self.services.names.iter().any(|it| it == service);
        if !is_configured || self.store.lost_period()?.is_none() {
            return Ok(None);
        }
        if !self.store.is_compared_since_restore(service)? {
            let answer = format!(
                "the enrollments at {service} were not compared with the record since the restore"
            );
            let code = PlaceCode::EnrollmentsNotCompared;
            return Ok(Some(Place::service(service, code, json!({}), answer)));
        }
        let unknown = self.store.may_admit_unknown(service)?;
        if unknown.total == 0 {
            return Ok(None);
        }
        let named = unknown.names.join(", ");
        let more = match unknown.total - unknown.names.len() as i64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let answer = format!(
            "{} enrollments may admit devices by certificates that are not on record: {named}{more}; \
             `hallmark enrollment list --unknown` lists them: compromise or block each device by its \
             name, or adopt or remove the enrollment",
            unknown.total
        );
        let parameters = json!({ "total": unknown.total, "names": unknown.names });
        let code = PlaceCode::EnrollmentsUnknown;
        Ok(Some(Place::service(service, code, parameters, answer)))
    }
}

/// The ends of the period, and parameters with them.
fn described(lost: LostPeriod) -> (String, String, Value) {
    let since = lost.since.to_string();
    let until = lost.until.to_string();
    let parameters = json!({ "since": since, "until": until });
    (since, until, parameters)
}
