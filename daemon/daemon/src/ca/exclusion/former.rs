//! Revokes and releases certificates that are known by their serial number alone, from the import
//! of an adopted authority's index or list.

use super::Exclusions;
use super::certificate_name::CertificateName;
use super::holding::{HeldLeaf, final_revocation};
use super::revoke::RevokedLeaf;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::{Code, Error};
use crate::ids::GenerationNumber;
use crate::store::{FormerRevocation, FormerSerial};
use crate::x509::revocation::RevocationReason;

/// The consequence of a certificate whose file is missing.
pub const ONLY_ITS_SERIAL: &str = "only the serial number is known, from the import: the \
     revocation list has it, and nothing is known of its key or of a device; import its file \
     to exclude those, too";

impl Exclusions {
    /// Returns the certificate of this name that is known by its serial number alone, if no other
    /// one has the name.
    pub(in crate::ca) fn former(
        &self,
        name: &CertificateName,
    ) -> Result<Option<FormerSerial>, Error> {
        let CertificateName::Serial { serial, authority } = name else {
            return Ok(None);
        };
        let authority = authority.as_deref();
        let mut former = self.store.former_serials(serial.as_bytes(), authority)?;
        let others = self
            .store
            .certificates_by_serial(serial.as_bytes(), authority)?;
        // A serial number is unique among the certificates of one issuer only (RFC 5280, section
        // 4.1.2.2), and authorities from elsewhere may have given the same ones.
        if former.len() + others.len() > 1 {
            let message = format!(
                "several certificates have serial number {serial}; name the authority, or the \
                 SHA-256"
            );
            return Err(Error::conflict(Code::CertificateAmbiguous, message));
        }
        Ok(former.pop())
    }

    /// Lifts the hold of a certificate that is known by its serial number alone.
    pub(super) fn release_former(
        &self,
        permission: &Authorized<Operate>,
        name: &CertificateName,
        cause: &str,
    ) -> Result<HeldLeaf, Error> {
        let former = self.former(name)?;
        let former = former.ok_or_else(|| {
            Error::missing(
                Code::CertificateUnknown,
                "the certificate was imported since",
            )
        })?;
        if let Some((since, reason)) = former.revoked.filter(|(_, it)| it.is_final()) {
            return Err(final_revocation(&former.serial, since, reason, None));
        }
        let (former, changed) = self.store.release_former(FormerRevocation {
            generation: former.generation,
            serial: former.serial.clone(),
            reason: RevocationReason::CertificateHold,
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            cause: cause.to_owned(),
        })?;
        if changed {
            let subject = former.subject.as_deref().unwrap_or_default();
            let serial = hex::encode_upper(&former.serial);
            tracing::info!(subject, serial, "hold of a certificate lifted");
            self.issuer.wake();
        }
        Ok(HeldLeaf {
            since: former.revoked.map(|(since, _)| since),
            held_by: Vec::new(),
            changed,
            notices: vec![ONLY_ITS_SERIAL.to_owned()],
            serial: former.serial,
            sha256: None,
            subject: former.subject,
            profile: None,
            role: None,
            issuer: former.generation,
        })
    }

    pub(super) fn revoke_former(
        &self,
        permission: &Authorized<Operate>,
        former: &FormerSerial,
        reason: RevocationReason,
        cause: &str,
    ) -> Result<RevokedLeaf, Error> {
        let (former, changed) = self.store.revoke_former(FormerRevocation {
            generation: former.generation,
            serial: former.serial.clone(),
            reason,
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            cause: cause.to_owned(),
        })?;
        let (since, reason) = former.revoked.unwrap_or((self.issuer.now(), reason));
        if changed {
            let subject = former.subject.as_deref().unwrap_or_default();
            let serial = hex::encode_upper(&former.serial);
            tracing::info!(
                subject,
                serial,
                reason = reason.name(),
                "certificate revoked"
            );
            self.issuer.wake();
        }
        let hierarchy = self.issuer.hierarchy();
        let issuer = hierarchy.generation(former.generation);
        Ok(RevokedLeaf {
            is_subordinate: false,
            authority: issuer.map_or_else(String::new, |it| it.authority.clone()),
            generation: issuer.map_or(GenerationNumber::START, |it| it.number),
            notices: vec![ONLY_ITS_SERIAL.to_owned()],
            serial: former.serial,
            sha256: None,
            subject: former.subject,
            profile: None,
            role: None,
            not_after: former.not_after,
            issuer: former.generation,
            since,
            reason,
            was_revoked: !changed,
            by: None,
            cause: None,
        })
    }
}
