//! Makes the key pair of a leaf where the profile says so, and the caller may have the leaf.

use super::Issuer;
use super::issue::{IssueRequest, Issued};
use crate::ca::authorize::{Authorized, Issue};
use crate::ca::generated_key::GeneratedKey;
use crate::ca::{Code, Error};
use crate::x509::csr::{Csr, CsrRefusal};
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::requested_names::{RequestedNames, UnprovenCsr};

impl Issuer {
    /// Makes the key pair of a leaf. All that is refused here would also be refused by the issuance
    /// cycle, but a refused caller costs no key. Without `key_type` it is the first of the profile.
    pub fn generate_key(
        &self,
        permission: &Authorized<Issue>,
        request: &IssueRequest,
        key_type: Option<KeyType>,
    ) -> Result<GeneratedKey, Error> {
        let profile = self.profile(&request.profile)?;
        let name = &request.registration_id;
        if !permission.renews_itself(profile, name) {
            permission.covers(self.stations(), profile, name, request.moves)?;
        }
        if !profile.generate_keys {
            let message = format!(
                "no keys are made for profile {:?}: its holders make their own, and send a CSR; or \
                 set generate_keys in the [[profile]] and reload",
                profile.name
            );
            return Err(Error::forbidden(Code::KeyGenerationForbidden, message));
        }
        let key_types = &profile.certificate.key_types;
        let key_type = key_type.or_else(|| key_types.first().copied());
        let key_type = key_type
            .filter(|it| key_types.contains(it))
            .ok_or_else(|| {
                let known: Vec<_> = key_types.iter().map(|it| it.name()).collect();
                let message = format!(
                    "profile {:?} has no keys of this type; use {}",
                    profile.name,
                    known.join(", ")
                );
                Error::invalid(Code::KeyTypeForbidden, message)
            })?;
        GeneratedKey::generate(key_type)
    }
}

impl IssueRequest {
    /// Step 3: the CSR; or a generated key, with the names of the CSR, if there is one (RFC 7030
    /// 4.4.1).
    pub(super) fn read_csr(&self) -> Result<Csr, CsrRefusal> {
        let Some(key) = &self.generated else {
            return Csr::parse(&self.csr);
        };
        let names = if self.csr.is_empty() {
            RequestedNames::none()
        } else {
            UnprovenCsr::read(&self.csr)?.names
        };
        Ok(Csr::of_generated_key(key.clone(), names))
    }

    /// Refuses the answer to an earlier request: the key of its certificate is not kept.
    pub(super) fn refuse_lost_key(&self, issued: Issued) -> Result<Issued, Error> {
        let is_own = |key: &PublicKey| issued.certificate.spki_der() == key.spki_der();
        if self.generated.as_ref().is_none_or(is_own) {
            return Ok(issued);
        }
        let message = format!(
            "this request was answered with certificate {}, and its key is not kept; if the answer \
             was lost, revoke the certificate and take a new idempotency key",
            issued.certificate.serial()
        );
        Err(Error::conflict(Code::GeneratedKeyGone, message))
    }
}
