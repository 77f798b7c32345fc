//! Answers for a revoked subordinate certificate: the revocation list, and the provisioning
//! services that accept what its holder signed.
//!
//! Its devices are on record with its holder, and not here. So nothing is excluded at a service by
//! this: the receipt names the group that admits them, and what the operator can do.

use super::Exclusions;
use super::place::{Place, PlaceCode};
use super::receipt::Receipt;
use crate::ca::Error;
use crate::store::{CertificateRow, StoreError};
use crate::unix_seconds::UnixSeconds;
use serde_json::json;
use std::collections::BTreeSet;

impl Exclusions {
    /// Returns what each place does with certificates below a revoked subordinate certificate.
    pub fn subordinate_receipt(
        &self,
        sha256: &[u8; 32],
        since: UnixSeconds,
    ) -> Result<Receipt, Error> {
        let row = self.store.certificate_by_sha256(sha256)?;
        let row = row.ok_or_else(|| StoreError::Missing("certificate with this SHA-256".into()))?;
        let mut places = self.revocation_receipt(row.issuer, since)?.places;
        if row.not_after < self.issuer.now() {
            return Ok(places.into());
        }
        let mut services: BTreeSet<String> = self.services.names.iter().cloned().collect();
        let groups = self.store.groups()?;
        services.extend(groups.into_iter().map(|it| it.provisioning));
        services.extend(self.store.services_with_unknown(None)?);
        for service in services {
            places.push(self.place_of_subordinate(&service, &row)?);
            places.extend(self.unknown_enrollments(&service)?);
        }
        Ok(places.into())
    }

    fn place_of_subordinate(&self, service: &str, row: &CertificateRow) -> Result<Place, Error> {
        let authority = &row.subject;
        let Some(group) = self.admitting_group(service, row.issuer)? else {
            let answer = "accepts nothing below it";
            let code = PlaceCode::AuthorityExcluded;
            return Ok(Place::service(service, code, json!({}), answer));
        };
        let answer = format!(
            "group {group} admits devices below {authority} until {}: add a disabled group that \
             holds the certificate of {authority} there, or disable {group} with all its devices \
             (`hallmark enrollment block --group {group}`); delete at the hub the devices that \
             have registered",
            row.not_after
        );
        let parameters = json!({ "group": group, "authority": authority });
        let code = PlaceCode::AuthorityAdmitted;
        Ok(Place::service(service, code, parameters, answer))
    }
}
