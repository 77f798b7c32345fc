//! Renews the certificate of a station, auditor, approver or server at its holder's request.
//!
//! The next certificate has the same name, profile and
//! alternative names, and a new key; it is issued near the end of the present one. Devices renew by
//! rules of their own ([`super::station`], `store::leaf`), and operators may ask for anything. It
//! must never let a holder obtain a role, a name or a profile that the present certificate has not.

use super::Issuer;
use crate::ca::authorize::Caller;
use crate::ca::profile::IssuanceProfile;
use crate::ca::{Code, Error};
use crate::store::CertificateRow;
use crate::x509::certificate::Certificate;
use crate::x509::csr::Csr;
use crate::x509::profile::End;
use crate::x509::template::Values;

/// How many valid certificates of one name and profile end self-renewal: answers may be lost, and a
/// holder that asks without end has to see an operator.
const VALID_MAX: usize = 4;
/// How many certificates of the name are read, newest first.
const CERTIFICATES_SEEN: u32 = 64;

impl Issuer {
    /// Returns the serial number of the certificate that `csr` renews, or why its holder may not
    /// renew it by `profile` now. The caller has that name, and that profile on record.
    pub(super) fn check_renewal(
        &self,
        caller: &Caller,
        profile: &IssuanceProfile,
        csr: &Csr,
        values: &Values<'_>,
    ) -> Result<String, Error> {
        let (present, certificate) = self.presented(caller)?;
        if present.role != Some(profile.role) {
            let message = format!(
                "profile {:?} is for role {} now, and your certificate was issued for another \
                 one; ask an operator for a new certificate",
                profile.name, profile.role
            );
            return Err(Error::forbidden(Code::RenewalRoleChanged, message));
        }
        self.check_window(profile, &present)?;
        check_names(profile, csr, values, &certificate)?;
        self.check_earlier(&present, csr)?;
        Ok(hex::encode_upper(&present.serial))
    }

    /// The client certificate by which the request came.
    pub(super) fn presented(
        &self,
        caller: &Caller,
    ) -> Result<(CertificateRow, Certificate), Error> {
        let row = match caller.requester() {
            Some(requester) => self.store.certificate_by_sha256(&requester.sha256)?,
            None => None,
        };
        let row = row.ok_or_else(|| {
            let message = "present the certificate that is to be renewed";
            Error::forbidden(Code::RenewalForbidden, message)
        })?;
        let certificate = Certificate::parse(&row.der)
            .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))?;
        Ok((row, certificate))
    }

    fn check_window(
        &self,
        profile: &IssuanceProfile,
        present: &CertificateRow,
    ) -> Result<(), Error> {
        let Some(window) = profile.self_renewal_seconds() else {
            let message = format!(
                "holders of profile {:?} do not renew by themselves; ask an operator, or set \
                 self_renewal in the [[profile]]",
                profile.name
            );
            return Err(Error::forbidden(Code::RenewalForbidden, message));
        };
        if matches!(profile.certificate.end, End::At(end) if end <= present.not_after) {
            let message = format!(
                "the next certificate would end like this one, at {}: profile {:?} has a fixed \
                 end; set a later not_after in it and reload",
                present.not_after, profile.name
            );
            return Err(Error::conflict(Code::RenewalTooEarly, message));
        }
        let opens = present.not_after.saturating_sub(window);
        if self.now() >= opens {
            return Ok(());
        }
        let message = format!(
            "this certificate is valid until {}, and may be renewed from {}; try again then",
            present.not_after, opens
        );
        Err(Error::conflict(Code::RenewalTooEarly, message))
    }

    /// The key is a new one: a copy of an old key is of no use once its certificate has ended. And
    /// there are not too many certificates already.
    fn check_earlier(&self, present: &CertificateRow, key: &Csr) -> Result<(), Error> {
        let mut earlier = self
            .store
            .certificates_of(&present.subject, CERTIFICATES_SEEN)?;
        earlier.retain(|it| it.role == present.role);
        let spki = key.public_key().spki_der();
        let has_key = |it: &CertificateRow| {
            let certificate = Certificate::parse(&it.der);
            certificate.is_ok_and(|it| it.spki_der() == spki)
        };
        if earlier.iter().any(has_key) {
            let message = "the CSR has the key of an earlier certificate; make a new key";
            return Err(Error::invalid(Code::RenewalSameKey, message));
        }
        let now = self.now();
        earlier.retain(|it| it.profile == present.profile);
        earlier.retain(|it| it.not_after > now && it.revoked_at.is_none());
        if earlier.len() < VALID_MAX {
            return Ok(());
        }
        let message = format!(
            "there are {} valid certificates of {:?} by profile {:?}; use the newest, or have an \
             operator revoke those that are not used",
            earlier.len(),
            present.subject,
            present.profile
        );
        Err(Error::conflict(Code::RenewalLimit, message))
    }
}

/// The holder has all names and attributes of the subject that the profile takes from the CSR.
pub(super) fn check_names(
    profile: &IssuanceProfile,
    csr: &Csr,
    values: &Values<'_>,
    certificate: &Certificate,
) -> Result<(), Error> {
    let are_those = csr
        .names()
        .has_other_names_of(certificate, &profile.certificate, values)
        .map_err(|it| Error::invalid(it.code(), it.to_string()))?;
    if are_those {
        return Ok(());
    }
    let message = "a renewal is for the names that the certificate has; copy its subject \
                   alternative names into the CSR, and the attributes of its subject that the \
                   profile takes from the CSR";
    Err(Error::invalid(Code::CsrOtherNames, message))
}
