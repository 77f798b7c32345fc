//! Proof of possession: one verification certificate for each code that a service asked for.
//!
//! The reconciler learns the code and sends the certificate; it is signed here, by the issuance
//! cycle, and recorded like every other signature. A code is answered once (the store's unique
//! index), and the number of codes is bounded (`enrollment::ca_certificate`), so a service that
//! fails cannot have us sign for ever.

use super::Enrollments;
use crate::ca::authorize::Caller;
use crate::ca::hierarchy::Generation;
use crate::ca::pace::Source;
use crate::ca::signing_request::{Holder, Signer, SigningRequest};
use crate::ca::{Code, Error};
use crate::enrollment::ca_certificate::VerificationCode;
use crate::store::{AuditEntry, CaCertificateRow, OnIssued, Purpose};
use crate::x509::name::DistinguishedName;
use crate::x509::profile::Profile;
use serde_json::json;

impl Enrollments {
    /// Wants the certificates of verified authorities at each provisioning service: that of the
    /// generation that serves, and of the one that will; what is revoked is wanted nowhere.
    pub fn want_verified(&self) -> Result<(), Error> {
        let hierarchy = self.hierarchy();
        for (provisioning, authorities) in &self.services.verified {
            let serving = authorities.iter().filter_map(|it| hierarchy.serving(it));
            let staged = authorities.iter().filter_map(|it| hierarchy.staged(it));
            let good = serving
                .chain(staged)
                .filter(|it| hierarchy.revoked_above(it.id).is_none());
            for generation in good {
                self.want_at(provisioning, generation)?;
            }
        }
        Ok(())
    }

    fn want_at(&self, provisioning: &str, generation: &Generation) -> Result<(), Error> {
        let name = generation.name();
        let entry = AuditEntry {
            at: self.now(),
            actor: Caller::Daemon.to_string(),
            action: "ca_certificate.wanted",
            subject: name.clone(),
            detail: json!({ "provisioning": provisioning }),
        };
        let provisioning = provisioning.to_owned();
        if self
            .store
            .want_ca_certificate(provisioning, name, generation.id, entry)?
        {
            self.wake();
        }
        Ok(())
    }

    /// Signs a verification certificate for every waiting code. A failure delays no other code; the
    /// first failure is returned.
    pub fn prove_possession(&self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for (row, code) in &self.store.codes_to_sign()? {
            match self.sign_code(row, code) {
                Ok(()) => self.wake(),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    fn sign_code(&self, row: &CaCertificateRow, code: &VerificationCode) -> Result<(), Error> {
        let hierarchy = self.hierarchy();
        let generation = hierarchy.generation(row.generation).ok_or_else(|| {
            Error::stop(
                Code::HierarchyBroken,
                format!("CA certificate {} has no key", row.name),
            )
        })?;
        pollster::block_on(
            self.issuer.certify(SigningRequest {
                source: Source::Possession(row.id),
                signer: Signer::from(generation.as_ref()),
                purpose: Purpose::Possession,
                profile_name: "possession",
                profile: &Profile::verification(),
                subject: DistinguishedName::from_common_name(code.as_str())
                    .map_err(|error| Error::stop(Code::VerificationCode, error.to_string()))?,
                public_key: &generation.public_key,
                caller: Caller::Daemon.to_string(),
                holder: Holder::none(),
                on_issued: OnIssued::Possession {
                    ca_certificate: row.id,
                },
            }),
        )?;
        Ok(())
    }
}
