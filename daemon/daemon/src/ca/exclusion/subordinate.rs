//! Answers for a revoked subordinate certificate: the revocation list, and the provisioning
//! services that accept what its holder signed.
//!
//! Its devices are on record with its holder, and not here. So nothing is excluded at a service by
//! this: the receipt names the group that admits them, and what the operator can do.

use super::Exclusions;
use super::place::{Place, PlaceCode};
use super::receipt::Receipt;
use crate::ca::{Code, Error};
use crate::der_bytes::Der;
use crate::enrollment::record::Record;
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::{CertificateRow, EnrollmentKind, StoreError};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use serde_json::json;
use std::collections::BTreeSet;

/// The most enrollments that are looked through, of all services.
const UNKNOWN_LISTED_MAX: u32 = 100_000;

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
        let code = PlaceCode::AuthorityExcluded;
        let Some(group) = self.admitting_group(service, row.issuer)? else {
            let answer = "accepts nothing below it";
            return Ok(Place::service(service, code, json!({}), answer));
        };
        let missing = self.certificates_without_group(service, row)?;
        if missing.is_empty() {
            let answer = "accepts nothing below it: a disabled group that is not on record was \
                          observed with its certificate, and takes precedence";
            return Ok(Place::service(service, code, json!({}), answer));
        }
        let answer = format!(
            "group {group} admits devices below {authority} until {}: add a disabled group there \
             for each certificate of its key (serial {}; `hallmark certificate export`), which the \
             next scan finds, or disable {group} with all its devices \
             (`hallmark enrollment block --group {group}`); delete at the hub the devices that \
             have registered",
            row.not_after,
            missing.join(", ")
        );
        let parameters = json!({ "group": group, "authority": authority });
        let code = PlaceCode::AuthorityAdmitted;
        Ok(Place::service(service, code, parameters, answer))
    }

    /// Returns the serial numbers of the certificates of the same key that no disabled group of the
    /// service holds. Devices present whichever of them they like. A blocking group that an
    /// operator has added is no enrollment on record; a scan has observed it.
    fn certificates_without_group(
        &self,
        service: &str,
        row: &CertificateRow,
    ) -> Result<Vec<String>, Error> {
        let mut held = BTreeSet::new();
        for it in self.store.unknown_enrollments(0, UNKNOWN_LISTED_MAX)? {
            let found = it.found;
            let is_group = found.provisioning == service && found.kind == EnrollmentKind::Group;
            if is_group
                && !found.enabled
                && let Ok(record) = Record::parse(found.record)
            {
                let (primary, secondary) = record.thumbprints();
                held.extend(primary.into_iter().chain(secondary));
            }
        }
        let key = spki(row)?;
        let mut missing = Vec::new();
        for it in self.store.subordinates(self.issuer.now())? {
            let is_held = held.contains(&Thumbprint::from_bytes(it.sha256));
            if !is_held && spki(&it)? == key {
                missing.push(hex::encode_upper(&it.serial));
            }
        }
        Ok(missing)
    }
}

fn spki(row: &CertificateRow) -> Result<Der, Error> {
    let certificate = Certificate::parse(&row.der)
        .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))?;
    Ok(certificate.spki_der().clone())
}
