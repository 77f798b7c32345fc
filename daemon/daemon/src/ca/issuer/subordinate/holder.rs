//! Says what the subject of a request for a subordinate certificate holds already.

use crate::ca::{Code, Error};
use crate::store::{CertificateRow, KeyRefusal};
use crate::x509::authority_csr::AuthorityCsr;
use crate::x509::certificate::Certificate;

/// Valid certificates that have the subject of a request.
#[derive(Default)]
pub(super) struct Holder {
    /// The serial number of the newest one with its key.
    pub(super) renews: Option<String>,
    /// The serial numbers of those with other keys.
    pub(super) beside: Vec<String>,
}

impl Holder {
    /// Reads it from certificates, the newest first. One on hold counts: the hold may be lifted.
    pub(super) fn among(csr: &AuthorityCsr, rows: &[CertificateRow]) -> Result<Self, Error> {
        let mut holder = Self::default();
        for row in rows {
            let certificate = read(row)?;
            if !csr.has_subject_of(&certificate) {
                continue;
            }
            let serial = hex::encode_upper(&row.serial);
            if certificate.spki_der() != csr.public_key().spki_der() {
                holder.beside.push(serial);
            } else if holder.renews.is_none() {
                holder.renews = Some(serial);
            }
        }
        Ok(holder)
    }

    /// Returns the holder if it may have another certificate. Fails if its key is that of another
    /// subject, if a certificate with the key is on hold, or if the subject has another key and
    /// the operator does not say that it has a new one.
    pub(super) fn permitted(
        csr: &AuthorityCsr,
        rows: &[CertificateRow],
        rekey: bool,
    ) -> Result<Self, Error> {
        for row in rows {
            let certificate = read(row)?;
            if certificate.spki_der() != csr.public_key().spki_der() {
                continue;
            }
            // The store compares common names alone.
            if !csr.has_subject_of(&certificate) {
                let refusal = KeyRefusal::OfAnother(row.subject.clone());
                return Err(Error::invalid(refusal.code(), refusal.to_string()));
            }
            if row.is_on_hold() {
                let serial = hex::encode_upper(&row.serial);
                let message = format!(
                    "the certificate of {:?} with this key (serial {serial}) is on hold: lift the \
                     hold (`hallmark certificate release {serial}`), or have its holder make a new \
                     key",
                    row.subject
                );
                return Err(Error::conflict(Code::SubordinateOnHold, message));
            }
        }
        let holder = Self::among(csr, rows)?;
        match holder.beside.first() {
            Some(serial) if holder.renews.is_none() && !rekey => {
                let message = format!(
                    "{:?} has a valid certificate with another key (serial {serial}); make sure \
                     that its holder has made a new key, and repeat with `--rekey`",
                    csr.subject().label()
                );
                Err(Error::conflict(Code::SubordinateOtherKey, message))
            }
            _ => Ok(holder),
        }
    }
}

fn read(row: &CertificateRow) -> Result<Certificate, Error> {
    Certificate::parse(&row.der)
        .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))
}
