//! Revocation by an operator: certificates that are no longer good, and holds that are lifted.
//!
//! The store decides what a revocation may change; here it gets a permission and a cause, and what
//! follows is brought about: callers are refused, a generation signs no more, and a new revocation
//! list is signed. The provisioning service reads no such list, so this alone excludes no device
//! there.

use super::Exclusions;
use super::receipt::Receipt;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::profile::Role;
use crate::ca::{Code, Error};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::{
    CertificateRow, FormerRevocation, FormerSerial, Revocation, RevocationTarget, Revoked,
    RevokedCertificate, Store,
};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::parse_first;
use crate::x509::revocation::RevocationReason;
use crate::x509::serial::SerialNumber;

/// Digits of a SHA-256; a serial number has 40 at most.
const SHA256_DIGITS: usize = 64;

/// The consequence of a certificate whose file is missing.
const ONLY_ITS_SERIAL: &str = "only the serial number is known, from the import: the revocation \
     list has it, and nothing is known of its key or of a device; import its file to exclude those, too";

/// How an operator names a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// By its serial number, and its authority if it is named.
    Serial {
        serial: SerialNumber,
        /// The authority that issued it.
        authority: Option<String>,
    },
    /// By the SHA-256 of its DER.
    Sha256([u8; 32]),
}

/// A certificate that an operator has revoked. Of one whose file was not imported, only the serial
/// number is known for certain.
#[derive(Clone, Debug)]
pub struct RevokedLeaf {
    pub serial: Vec<u8>,
    pub sha256: Option<[u8; 32]>,
    pub subject: Option<String>,
    pub profile: Option<String>,
    pub role: Option<Role>,
    pub not_after: Option<UnixSeconds>,
    /// The generation that issued it.
    pub issuer: GenerationId,
    /// The authority that issued it.
    pub authority: String,
    /// Which generation of the authority.
    pub generation: GenerationNumber,
    /// Unix seconds: the first date of its revocation.
    pub since: UnixSeconds,
    /// The reason on record.
    pub reason: RevocationReason,
    /// Whether it was revoked before, and nothing has changed.
    pub was_revoked: bool,
    /// The consequences for the operator.
    pub notices: Vec<String>,
}

impl CertificateName {
    /// From hexadecimal digits as OpenSSL and others write them.
    pub fn of_serial(text: &str, authority: Option<String>) -> Result<Self, Error> {
        let serial = Self::serial(text)?;
        Ok(Self::Serial { serial, authority })
    }

    /// From hexadecimal digits.
    pub fn of_sha256(text: &str) -> Result<Self, Error> {
        Self::sha256(text).map(Self::Sha256)
    }

    /// Reads a serial number from hexadecimal digits as OpenSSL and others write them.
    pub fn serial(text: &str) -> Result<SerialNumber, Error> {
        digits(text).parse().map_err(|error| {
            let message = format!("{text:?} is no serial number: {error}");
            Error::invalid(Code::SerialInvalid, message)
        })
    }

    /// Reads a SHA-256 from hexadecimal digits.
    pub fn sha256(text: &str) -> Result<[u8; 32], Error> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(digits(text), &mut sha256).map_err(|_| {
            let message = format!("{text:?} is no SHA-256: that has 64 hexadecimal digits");
            Error::invalid(Code::Sha256Invalid, message)
        })?;
        Ok(sha256)
    }

    /// From a serial number or a SHA-256, which is longer than every serial number.
    pub fn of_digits(text: &str, authority: Option<String>) -> Result<Self, Error> {
        if digits(text).len() == SHA256_DIGITS {
            return Self::of_sha256(text);
        }
        Self::of_serial(text, authority)
    }

    /// From the certificate: DER, base64 of DER, or PEM, whose first certificate counts.
    pub fn of_certificate(bytes: &[u8]) -> Result<Self, Error> {
        let certificate = parse_first(bytes).map_err(|error| {
            let message = format!("send a certificate as PEM or base64 of DER: {error}");
            Error::invalid(Code::CertificateMalformed, message)
        })?;
        Ok(Self::Sha256(certificate.sha256()))
    }

    /// Finds the certificate that has this name, and no other.
    pub(in crate::ca) fn find(&self, store: &Store) -> Result<CertificateRow, Error> {
        let (mut found, what) = match self {
            CertificateName::Serial { serial, authority } => {
                let authority = authority.as_deref();
                let found = store.certificates_by_serial(serial.as_bytes(), authority)?;
                let by = authority.map_or(String::new(), |it| format!(" by authority {it:?}"));
                (found, format!("serial number {serial}{by}"))
            }
            CertificateName::Sha256(sha256) => {
                let found = store.certificate_by_sha256(sha256)?;
                let sha256 = hex::encode_upper(sha256);
                (Vec::from_iter(found), format!("SHA-256 {sha256}"))
            }
        };
        match (found.pop(), found.len()) {
            (Some(row), 0) => Ok(row),
            (Some(_), _) => Err(Error::conflict(
                Code::CertificateAmbiguous,
                format!("several certificates have {what}; name the authority, or the SHA-256"),
            )),
            (None, _) => Err(Error::missing(
                Code::CertificateUnknown,
                format!("this daemon has issued no certificate with {what}"),
            )),
        }
    }
}

/// Hexadecimal digits, two for each octet, without what tools write between and before them.
fn digits(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let mut digits = text.replace([':', ' '], "");
    if digits.len() % 2 == 1 {
        digits.insert(0, '0');
    }
    digits
}

impl Exclusions {
    /// Revokes one certificate that this daemon has issued, whatever its role. From the return on
    /// its holder is refused, on kept-alive connections and resumed sessions, too. An already
    /// revoked certificate keeps its date and its reason, unless a hold is made final.
    ///
    /// Fails with `certificate_unknown`, `certificate_ambiguous`, or `certificate_of_authority`: an
    /// authority is excluded with all that it signed, by a compromise or a block.
    pub fn revoke_leaf(
        &self,
        permission: &Authorized<Operate>,
        name: &CertificateName,
        reason: RevocationReason,
        cause: &str,
    ) -> Result<RevokedLeaf, Error> {
        if let Some(former) = self.former(name)? {
            return self.revoke_former(permission, &former, reason, cause);
        }
        let row = name.find(&self.store)?;
        self.refuse_authority(&row)?;
        let target = RevocationTarget::Sha256(row.sha256);
        let revoked = self.revoke(permission, target, reason, cause)?;
        let was_revoked = revoked.changed.is_empty();
        let mut stands = revoked.changed.iter().chain(&revoked.unchanged);
        let (since, reason) = stands.find_map(|it| it.revoked).ok_or_else(|| {
            Error::stop(
                Code::Internal,
                "a certificate is not revoked although it was",
            )
        })?;
        let hierarchy = self.issuer.hierarchy();
        let issuer = hierarchy.generation(row.issuer);
        Ok(RevokedLeaf {
            authority: issuer.map_or_else(String::new, |it| it.authority.clone()),
            generation: issuer.map_or(GenerationNumber::START, |it| it.number),
            notices: self.revocation_notices(&row)?,
            serial: row.serial,
            sha256: Some(row.sha256),
            subject: Some(row.subject),
            profile: Some(row.profile),
            role: row.role,
            not_after: Some(row.not_after),
            issuer: row.issuer,
            since,
            reason,
            was_revoked,
        })
    }

    /// Returns the certificate of this name that is known by its serial number alone, if no other
    /// one has the name.
    fn former(&self, name: &CertificateName) -> Result<Option<FormerSerial>, Error> {
        let CertificateName::Serial { serial, authority } = name else {
            return Ok(None);
        };
        let authority = authority.as_deref();
        let mut former = self.store.former_serials(serial.as_bytes(), authority)?;
        let others = self
            .store
            .certificates_by_serial(serial.as_bytes(), authority)?;
        if former.len() + others.len() > 1 {
            let message = format!(
                "several certificates have serial number {serial}; name the authority, or the SHA-256"
            );
            return Err(Error::conflict(Code::CertificateAmbiguous, message));
        }
        Ok(former.pop())
    }

    fn revoke_former(
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
        })
    }

    /// Returns whether the revocation list of the generation that issued the certificate says that
    /// it is revoked.
    pub fn revocation_receipt(
        &self,
        issuer: GenerationId,
        since: UnixSeconds,
    ) -> Result<Receipt, Error> {
        let says = format!("revoked since {}", since);
        Ok(vec![self.listed_place([issuer].into_iter(), &says)?].into())
    }

    /// Revokes the target's certificates; those that are revoked already stay as they are.
    pub fn revoke(
        &self,
        permission: &Authorized<Operate>,
        target: RevocationTarget,
        reason: RevocationReason,
        cause: &str,
    ) -> Result<Revoked, Error> {
        let revocation = self.revocation(permission, target, cause);
        let revoked = self.store.revoke(revocation, reason)?;
        self.follow_revocation(&revoked)?;
        Ok(revoked)
    }

    fn refuse_authority(&self, row: &CertificateRow) -> Result<(), Error> {
        let hierarchy = self.issuer.hierarchy();
        let thumbprint = Thumbprint::from_bytes(row.sha256);
        let Some(generation) = hierarchy.with_certificate(thumbprint) else {
            return Ok(());
        };
        let name = &generation.authority;
        let number = generation.number;
        let message = format!(
            "this is the certificate of generation {number} of authority {name}, and all that it \
             signed is excluded with it: `hallmark roll start --authority {name} --generation \
             {number} --reason compromise` for good, or `hallmark authority block {name} \
             --generation {number}` until you lift the block"
        );
        Err(Error::conflict(Code::CertificateOfAuthority, message))
    }

    fn revocation_notices(&self, row: &CertificateRow) -> Result<Vec<String>, Error> {
        let mut notices = Vec::new();
        let has_expired = row.not_after < self.issuer.now();
        if has_expired {
            notices.push(format!(
                "it expired at {}, so nothing accepts it in any case",
                row.not_after
            ));
        }
        if row.role != Some(Role::Device) || has_expired || self.services.names.is_empty() {
            return Ok(notices);
        }
        let id = &row.subject;
        let device = self.store.device(id)?;
        let is_current = device.is_some_and(|it| *it.certificate.as_bytes() == row.sha256);
        let which = if is_current {
            "the device's current leaf"
        } else {
            "this leaf"
        };
        notices.push(format!(
            "DPS and its hub read no revocation list and go on accepting {which}: `hallmark roll \
             start {id} --reason compromise` excludes it there until the device has a new one, \
             `hallmark device block {id}` until you lift the block"
        ));
        Ok(notices)
    }

    /// Lifts `certificateHold` from the target's certificates; other reasons are final.
    pub fn unrevoke(
        &self,
        permission: &Authorized<Operate>,
        target: RevocationTarget,
        cause: &str,
    ) -> Result<Revoked, Error> {
        let revoked = self
            .store
            .unrevoke(self.revocation(permission, target, cause))?;
        self.follow_revocation(&revoked)?;
        Ok(revoked)
    }

    /// Returns all leaves of a device that have not expired. A station or an operator may have the
    /// same name, and keeps its certificates.
    pub fn leaves_of_device(&self, registration_id: &str) -> RevocationTarget {
        RevocationTarget::Leaves {
            subject: registration_id.to_owned(),
        }
    }

    /// Brings about what follows from a changed revocation; call it after each one. The hierarchy
    /// is read and verified again only if the certificate of a generation changed.
    pub(super) fn follow_revocation(&self, revoked: &Revoked) -> Result<(), Error> {
        if revoked.changed.is_empty() {
            return Ok(());
        }
        for it in &revoked.changed {
            let serial = hex::encode_upper(&it.serial);
            let subject = it.subject.as_str();
            match it.revoked {
                Some((_, reason)) => {
                    tracing::info!(
                        subject,
                        serial,
                        reason = reason.name(),
                        "certificate revoked"
                    );
                }
                None => tracing::info!(subject, serial, "hold of a certificate lifted"),
            }
        }
        let is_authority = |revoked: &RevokedCertificate| {
            self.issuer.hierarchy().iter().any(|it| {
                it.parent.unwrap_or(it.id) == revoked.issuer
                    && it.certificate.serial().as_bytes() == revoked.serial
            })
        };
        if revoked.changed.iter().any(is_authority) {
            self.issuer.reload_hierarchy()?;
        }
        self.issuer.wake();
        Ok(())
    }

    fn revocation(
        &self,
        permission: &Authorized<Operate>,
        target: RevocationTarget,
        cause: &str,
    ) -> Revocation {
        Revocation {
            target,
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            cause: cause.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_as_tools_write_it() {
        let serial = CertificateName::of_serial("0AFF", None).unwrap();
        for text in ["0a:ff", "0x0aff", " AFF ", "0A FF"] {
            assert_eq!(CertificateName::of_serial(text, None).unwrap(), serial);
        }
        let sha256 = CertificateName::Sha256([0xab; 32]);
        for text in ["ab".repeat(32), vec!["AB"; 32].join(":")] {
            assert_eq!(CertificateName::of_sha256(&text).unwrap(), sha256);
        }
        for (text, code) in [("", Code::SerialInvalid), ("00", Code::SerialInvalid)] {
            assert_eq!(
                CertificateName::of_serial(text, None).unwrap_err().code,
                code
            );
        }
        for text in ["", "abcd", &"zz".repeat(32), &"ab".repeat(33)] {
            let refused = CertificateName::of_sha256(text).unwrap_err();
            assert_eq!(refused.code, Code::Sha256Invalid);
        }
        let refused = CertificateName::of_certificate(b"no certificate").unwrap_err();
        assert_eq!(refused.code, Code::CertificateMalformed);
    }
}
