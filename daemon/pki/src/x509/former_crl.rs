//! Reads a revocation list that was made elsewhere: the last one of an authority before it was
//! adopted.

use super::crl::{Entry, RevocationList};
use super::key::PublicKey;
use super::revocation::RevocationReason;
use super::serial::SerialNumber;
use super::{oid, pem};
use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};

/// The longest list that is read, in bytes: some 400,000 entries.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The label of a list in PEM (RFC 7468 7).
const PEM_LABEL: &str = "X509 CRL";

/// A list with all that is on record of it afterwards.
#[derive(Clone, Debug)]
pub struct FormerList {
    /// The list as it is published.
    pub der: Der,
    pub this_update: UnixSeconds,
    /// `None` if it does not say when the next one is due.
    pub next_update: Option<UnixSeconds>,
    pub number: Option<CrlNumber>,
    /// The revoked serial numbers.
    pub entries: Vec<Entry>,
    /// Remarks for the operator: what could not be taken over as it is.
    pub remarks: Vec<String>,
}

/// The reason why bytes are not the list of an authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormerListRefusal {
    #[error("the revocation list has {0} bytes; at most {LIST_BYTES_MAX} are read")]
    TooLarge(usize),
    #[error("it is no revocation list, as PEM (X509 CRL) or DER")]
    Malformed,
    #[error("it is a list of {0:?}, not of this authority")]
    OtherIssuer(String),
    #[error("this authority's key has not signed it")]
    OtherKey,
    /// A delta list, or one for some certificates only.
    #[error("it is a delta list or a part of a list; give the last complete one")]
    NotFull,
}

impl FormerList {
    /// Reads the list of the issuer with this name and key.
    pub fn read(
        bytes: &[u8],
        issuer_der: &[u8],
        key: &PublicKey,
    ) -> Result<FormerList, FormerListRefusal> {
        if bytes.len() > LIST_BYTES_MAX {
            return Err(FormerListRefusal::TooLarge(bytes.len()));
        }
        let der = unarmored(bytes).ok_or(FormerListRefusal::Malformed)?;
        let signed = RevocationList::read(&der).map_err(|_| FormerListRefusal::Malformed)?;
        let Ok(([], list)) = CertificateRevocationList::from_der(&der) else {
            return Err(FormerListRefusal::Malformed);
        };
        if list.tbs_cert_list.issuer.as_raw() != issuer_der {
            let issuer = list.tbs_cert_list.issuer.to_string();
            return Err(FormerListRefusal::OtherIssuer(issuer));
        }
        let verified = signed.verify_issued_by(key);
        verified.map_err(|_| FormerListRefusal::OtherKey)?;
        let partial = [oid::DELTA_CRL_INDICATOR, oid::ISSUING_DISTRIBUTION_POINT];
        let is_partial = list.extensions().iter().any(|it| {
            let id = it.oid.to_id_string();
            partial.iter().any(|known| known.to_string() == id)
        });
        if is_partial {
            return Err(FormerListRefusal::NotFull);
        }
        let seconds = |time: x509_parser::time::ASN1Time| UnixSeconds::new(time.timestamp());
        let mut former = FormerList {
            this_update: seconds(list.last_update()),
            next_update: list.next_update().map(seconds),
            der: der.clone(),
            number: None,
            entries: Vec::new(),
            remarks: Vec::new(),
        };
        if let Some(number) = list.crl_number() {
            former.number = CrlNumber::from_magnitude(&number.to_bytes_be()).ok();
            if former.number.is_none() {
                let remark = format!("the list's number {number} is too large, and is not kept");
                former.remarks.push(remark);
            }
        }
        for entry in list.iter_revoked_certificates() {
            match read_entry(entry) {
                Ok(entry) => former.entries.push(entry),
                Err(remark) => former.remarks.push(remark),
            }
        }
        Ok(former)
    }
}

fn unarmored(bytes: &[u8]) -> Option<Der> {
    if bytes.first() == Some(&0x30) {
        return Some(bytes.into());
    }
    let blocks = pem::blocks(bytes).ok()?;
    let mut lists = blocks.into_iter().filter(|it| it.label == PEM_LABEL);
    match (lists.next(), lists.next()) {
        (Some(list), None) => list.der().ok(),
        _ => None,
    }
}

fn read_entry(entry: &RevokedCertificate<'_>) -> Result<Entry, String> {
    let text = entry.raw_serial_as_string();
    let serial = SerialNumber::from_der_contents(entry.raw_serial())
        .map_err(|error| format!("the entry with serial number {text} is left out: {error}"))?;
    let reason = match entry.reason_code() {
        None => RevocationReason::Unspecified,
        // removeFromCRL belongs to delta lists.
        Some((_, code)) => {
            RevocationReason::from_code(code.0.into()).unwrap_or(RevocationReason::Unspecified)
        }
    };
    Ok(Entry {
        serial,
        revoked_at: UnixSeconds::new(entry.revocation_date.timestamp()),
        reason,
    })
}
