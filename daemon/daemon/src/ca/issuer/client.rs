//! Identifies the holder of a client certificate.
//!
//! Name and dates come from the certificate, after the key of its issuing generation has verified
//! it. The role comes from the record, because the profile may have another one today. A row in the
//! database alone makes no caller: a certificate that no generation signed is unknown here, and so
//! is one whose role differs from the audit journal's. `docs/threats.md` has the remaining effects
//! of a changed row.

use super::Issuer;
use crate::ca::authorize::Caller;
use crate::ca::profile::Role;
use crate::ca::{Advice, Code, Error};
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::{ClientRow, Requester};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use aws_lc_rs::digest;

/// The holder of a client certificate that this daemon issued, good or not.
#[derive(Clone, Debug)]
pub struct KnownClient {
    pub(super) certificate: Requester,
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) profile: String,
    not_before: UnixSeconds,
    pub(super) not_after: UnixSeconds,
    is_revoked: bool,
    /// Its revocation can be lifted.
    is_on_hold: bool,
    /// The generation above that excludes it, in words.
    excluded_by: Option<String>,
    /// The revoked generation above it, in words. It excludes no device whose leaf is valid.
    revoked_above: Option<String>,
}

impl KnownClient {
    /// Returns true while what was found still holds; only the clock can change it then.
    pub fn is_current(&self, issuer: &Issuer) -> bool {
        self.certificate.revocations == issuer.store.revocations()
    }

    /// Returns role and name, for the journal.
    pub fn holder(&self) -> String {
        format!("{} {}", self.role, self.name)
    }

    /// Returns how the holder gets its next certificate without this one.
    fn way_back(&self) -> String {
        let name = &self.name;
        match self.role {
            Role::Device => format!(
                "make a new key, and have a station or an operator request the next certificate of \
                 {name:?} (EST simpleenroll, or POST /v1/certificates)"
            ),
            Role::Operator => "make a new key, and have another operator issue the next one, or a \
                               user of the daemon's machine by `hallmark issue`"
                .into(),
            _ => format!(
                "make a new key, and have an operator issue the next one: `hallmark issue \
                 --profile {} --id {name} --csr FILE`",
                self.profile
            ),
        }
    }

    /// Fails if the certificate is not accepted now; the error says what this client can do.
    fn is_accepted(&self, now: UnixSeconds) -> Result<(), Error> {
        let Self { role, name, .. } = self;
        if now < self.not_before {
            let message = format!(
                "the client certificate of {role} {name} is valid from {} on, and here it is {}; \
                 set the clock of this daemon right, or wait",
                self.not_before, now
            );
            return Err(unauthenticated(Code::ClientCertificateExpired, message));
        }
        if self.has_ended(now) {
            let message = format!(
                "the client certificate of {role} {name} ended at {}, so it renews nothing; {}",
                self.not_after,
                self.way_back()
            );
            return Err(unauthenticated(Code::ClientCertificateExpired, message));
        }
        self.is_not_excluded()
    }

    /// Returns true if its certificate is not valid any more.
    pub(super) fn has_ended(&self, now: UnixSeconds) -> bool {
        now > self.not_after
    }

    /// Fails if a generation above the certificate is revoked.
    pub(super) fn is_not_below_revoked(&self) -> Result<(), Error> {
        let Some(generation) = &self.revoked_above else {
            return Ok(());
        };
        let message = format!(
            "the client certificate of {} {} has ended, and was issued below {generation}, which \
             is revoked; {}",
            self.role,
            self.name,
            self.way_back()
        );
        Err(unauthenticated(Code::ClientCertificateRevoked, message))
    }

    /// Fails if its certificate is revoked, on hold, or below a generation that excludes it.
    pub(super) fn is_not_excluded(&self) -> Result<(), Error> {
        let Self { role, name, .. } = self;
        let excluded = if self.is_on_hold {
            Some("is on hold; have an operator lift the block, or issue another one".to_owned())
        } else if self.is_revoked {
            Some(format!("is revoked; {}", self.way_back()))
        } else {
            self.excluded_by.as_ref().map(|generation| {
                format!(
                    "was issued below {generation}, which is revoked or blocked; have an operator \
                     lift the block, or issue another one"
                )
            })
        };
        excluded.map_or(Ok(()), |why| {
            let message = format!("the client certificate of {role} {name} {why}");
            Err(unauthenticated(Code::ClientCertificateRevoked, message))
        })
    }
}

impl Issuer {
    /// Finds the holder of the client certificate `der`. Returns `None` if it is no client
    /// certificate of this daemon.
    pub fn find_client(&self, der: &[u8]) -> Result<Option<KnownClient>, Error> {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        let requester = Requester {
            sha256,
            revocations: self.store.revocations(),
        };
        let Some(row) = self.store.client(&sha256)? else {
            return Ok(None);
        };
        match self.genuine(&row, der) {
            Ok(certificate) => self.client(requester, row, &certificate),
            Err(reason) => {
                let serial = hex::encode_upper(&row.certificate.serial);
                tracing::error!(
                    serial,
                    reason,
                    "client certificate refused, its record is wrong"
                );
                Ok(None)
            }
        }
    }

    /// The certificate, if what is on record of it is true as far as it can be checked.
    fn genuine(&self, row: &ClientRow, der: &[u8]) -> Result<Certificate, String> {
        if *row.certificate.der != *der {
            return Err("the recorded bytes are others".into());
        }
        let certificate = Certificate::parse(der).map_err(|error| error.to_string())?;
        let hierarchy = self.hierarchy();
        let issuer = hierarchy.generation(row.certificate.issuer);
        let issuer = issuer.ok_or("the generation that issued it is not on record")?;
        certificate
            .verify_issued_by(&issuer.public_key)
            .map_err(|_| format!("the key of {} did not sign it", issuer.name()))?;
        if row.is_in_journal {
            return Ok(certificate);
        }
        Err("the audit journal has no such role for it".into())
    }

    fn client(
        &self,
        requester: Requester,
        row: ClientRow,
        certificate: &Certificate,
    ) -> Result<Option<KnownClient>, Error> {
        let (Some(role), Some(name)) = (row.certificate.role, certificate.common_name()) else {
            return Ok(None);
        };
        // Devices below a revoked generation come for new certificates, unless a block excludes
        // them.
        let excluded_by = if role == Role::Device && row.revoked_above.is_some() {
            self.blocked_generation_above(row.certificate.issuer)?
        } else {
            row.revoked_above.clone().map(in_words)
        };
        let revoked_above = row.revoked_above.map(in_words);
        let is_on_hold = row.certificate.is_on_hold();
        Ok(Some(KnownClient {
            certificate: requester,
            role,
            name,
            profile: row.certificate.profile,
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            is_revoked: row.certificate.revoked_at.is_some(),
            is_on_hold,
            excluded_by,
            revoked_above,
        }))
    }

    /// Names the caller, or says why the client certificate is not accepted now.
    pub fn identify(&self, client: Option<KnownClient>) -> Result<Caller, Error> {
        let Some(client) = client else {
            return Err(unauthenticated(
                Code::ClientCertificateUnknown,
                "this daemon did not issue the client certificate; present one that it issued, or \
                 have an operator issue one",
            ));
        };
        client.is_accepted(self.now())?;
        Ok(Caller::Certificate {
            role: client.role,
            name: client.name,
            profile: client.profile,
            certificate: client.certificate,
        })
    }

    /// The blocked generation from `issuer` upwards, in words. The holder of a leaf below it must
    /// not renew itself out of the block.
    fn blocked_generation_above(&self, issuer: GenerationId) -> Result<Option<String>, Error> {
        Ok(self.store.blocked_above(issuer)?.map(in_words))
    }
}

fn in_words((authority, number): (String, GenerationNumber)) -> String {
    format!("generation {number} of {authority}")
}

pub(in crate::ca) fn unauthenticated(code: Code, message: impl Into<String>) -> Error {
    Error::new(Advice::Authenticate, code, message)
}
