//! Adoption: an authority that existed before this daemon, taken over by a ceremony with its key
//! and its certificate.
//!
//! The same is asked of it as of one that is made here, as far as it can be: the certificate is an
//! authority's, is valid and fits under its issuer, and the key under the URI is the certificate's
//! and signs. Where the key came from cannot be known; the transcript says so. Nothing on the token
//! is changed.

mod entry;

pub use entry::{Adoption, REASON_CHARS_MAX};

use super::ceremony::{AuthoritySpecification, Ceremonies};
use super::hierarchy::Generation;
use super::issuer::generation::Shape;
use super::signing_request::Signer;
use super::transcript::TranscriptEntry;
use super::{Code, Error};
use crate::der_bytes::Der;
use crate::ids::GenerationId;
use crate::store::{AuditEntry, PlannedGeneration};
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::key_uri::{KeyUri, without_nul};
use crate::token::{KeyDescription, KeyReference, TokenDescription};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::render_chain;
use crate::x509::certificate::Certificate;
use crate::x509::issuer::IssuerFields;
use crate::x509::key::PublicKey;
use crate::x509::path;
use entry::Adopted;

/// A key that was found, and what a person has to know of it.
struct Found {
    key: KeyDescription,
    remarks: Vec<String>,
}

impl Ceremonies {
    /// Takes the authority over, after all checks.
    pub(super) fn adopt(
        &self,
        specification: &AuthoritySpecification,
        adoption: &Adoption,
        token: &str,
        actor: &str,
    ) -> Result<TranscriptEntry, Error> {
        let name = &specification.name;
        let refused = |reason: String| refusal(name, reason);
        let fits = |it: &Certificate| self.fits(name, it);
        let Adopted { certificate, above } = adoption
            .read(specification.issuer.as_deref(), &fits)
            .map_err(refused)?;
        let public_key = certificate
            .public_key()
            .map_err(|error| refused(error.to_string()))?;
        let hierarchy = self.issuer.hierarchy();
        let parent = match &specification.issuer {
            Some(issuer) => Some(hierarchy.signing(issuer)?),
            None => None,
        };
        may_be_an_authority(&certificate).map_err(refused)?;
        fits(&certificate).map_err(refused)?;
        if above.is_empty() {
            check_issuer(&certificate, &public_key, parent.map(AsRef::as_ref)).map_err(refused)?;
        }
        let on_record = parent.map(|it| hierarchy.certificates_above(it.id));
        let chain = [&certificate].into_iter().chain(&above);
        if let Some(limit) = path::objection(chain.chain(on_record.into_iter().flatten()), 0) {
            return Err(refused(limit));
        }
        self.can_be_rolled(&certificate, &public_key, parent.map(AsRef::as_ref))
            .map_err(refused)?;
        let mut found = self.find_adopted(adoption, &certificate, token, name)?;
        found.remarks.extend(outlived(&certificate, &above));
        let plan = PlannedGeneration {
            authority: name.clone(),
            parent: parent.map(|it| it.id),
            token: token.to_owned(),
            key_type: public_key.key_type(),
            key_id: found.key.id.clone(),
        };
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: actor.to_owned(),
            action: "authority.adopted",
            subject: name.clone(),
            detail: adoption.audit_detail(&certificate, &found),
        };
        let mut adopted = adoption.generation(plan, &certificate, &found);
        adopted.above = (!above.is_empty()).then(|| render_chain(&above));
        self.issuer.store().adopt_generation(adopted, entry)?;
        self.issuer.reload_hierarchy()?;
        self.adopted_entry(name, found)
    }

    /// Fails unless the certificate is valid now, and verifiers accept leaves below it.
    fn fits(&self, authority: &str, certificate: &Certificate) -> Result<(), String> {
        check_valid(certificate, self.issuer.now())?;
        let limit = self.issuer.constraint(authority, [certificate]);
        limit.map_or(Ok(()), Err)
    }

    fn adopted_entry(&self, name: &str, found: Found) -> Result<TranscriptEntry, Error> {
        let hierarchy = self.issuer.hierarchy();
        let serving = hierarchy.serving(name).ok_or_else(|| {
            let message = format!("authority {name} does not serve after all");
            Error::stop(Code::CeremonyFailed, message)
        })?;
        let mut entry = TranscriptEntry::new(serving, "adopted", &found.key);
        entry.remarks = found.remarks;
        Ok(entry)
    }

    /// Fails if no certificate with this subject could be made: the successor has the same one,
    /// octet by octet.
    fn can_be_rolled(
        &self,
        certificate: &Certificate,
        public_key: &PublicKey,
        parent: Option<&Generation>,
    ) -> Result<(), String> {
        let shortest = 1;
        let mut shape = Shape::of(certificate, shortest)?;
        let root = IssuerFields::self_signed(&shape.subject, public_key);
        let key = KeyReference {
            spki: Der::default(),
            label: String::new(),
            id: Vec::new(),
            wrapped: None,
        };
        let signer = match parent {
            Some(parent) => {
                let hierarchy = self.issuer.hierarchy();
                shape.path_length = hierarchy
                    .path_length_below(parent.id, shape.path_length)
                    .ok_or("the path lengths above it allow no authority here")?;
                Signer::from(parent)
            }
            None => Signer {
                generation: GenerationId::new(0),
                authority: "",
                token: "",
                key: &key,
                issuer: &root,
                certificate: None,
                distribution: None,
            },
        };
        self.issuer
            .try_certificate(&shape, public_key, signer)
            .map_err(|error| format!("it could not be rolled: {}", error.message))
    }

    /// The key under the URI, which must be the certificate's, and sign.
    fn find_adopted(
        &self,
        adoption: &Adoption,
        certificate: &Certificate,
        token: &str,
        name: &str,
    ) -> Result<Found, Error> {
        let client = &self.issuer.token(token)?.client;
        let refused = |reason: String| refusal(name, reason);
        check_token(&adoption.key, &client.describe(LOOKUP_DEADLINE)?).map_err(refused)?;
        let find = |label: &str| {
            let reference = adoption.reference(certificate, label);
            client.find(&reference, LOOKUP_DEADLINE)
        };
        // The label may have its NULs on the token, too.
        let label = adoption.key.object.as_deref().unwrap_or_default();
        let key = find(label)
            .or_else(|error| match without_nul(label) {
                plain if plain != label => find(plain),
                _ => Err(error),
            })
            .map_err(|error| match Error::from(error) {
                error if error.code == Code::TokenKey => refused(format!(
                    "{}: no key under {} has the public key of the certificate, together with its \
                     public half",
                    error.message, adoption.key
                )),
                other => other,
            })?;
        let remarks = adoption.check_key(&key).map_err(refused)?;
        client.prove(&key, LOOKUP_DEADLINE)?;
        Ok(Found { key, remarks })
    }
}

fn refusal(authority: &str, reason: String) -> Error {
    let message = format!("authority {authority} is not adopted: {reason}");
    Error::invalid(Code::AdoptionRefused, message)
}

/// Fails unless the certificate may sign certificates and revocation lists.
pub(super) fn may_be_an_authority(certificate: &Certificate) -> Result<(), String> {
    IssuerFields::from_certificate(certificate).map_err(|error| error.to_string())?;
    let serial = certificate.serial().check();
    serial.map_err(|error| format!("its serial number is not as RFC 5280 has it: {error}"))?;
    if certificate.may_sign_crls() {
        return Ok(());
    }
    Err("its key usage lacks cRLSign, so it could never revoke anything".into())
}

fn check_valid(certificate: &Certificate, now: UnixSeconds) -> Result<(), String> {
    if certificate.not_before() <= now && now < certificate.not_after() {
        return Ok(());
    }
    Err(format!(
        "the certificate of {:?} is not valid now",
        certificate.subject()
    ))
}

/// Fails unless the issuer on record, or its own key, has signed the certificate.
fn check_issuer(
    certificate: &Certificate,
    public_key: &PublicKey,
    parent: Option<&Generation>,
) -> Result<(), String> {
    let (above, key) = match parent {
        Some(parent) => (parent.certificate.subject_der(), &parent.public_key),
        None => (certificate.subject_der(), public_key),
    };
    if certificate.issuer_der() != above {
        return Err(format!(
            "its certificate was issued by {:?}: name the authority of that name as `issuer`, and \
             adopt that first, or, if its key is elsewhere, put the certificates above into \
             `certificate`, up to the self-signed one",
            certificate.issuer()
        ));
    }
    certificate
        .verify_issued_by(key)
        .map_err(|error| format!("its certificate does not verify with its issuer's key: {error}"))
}

/// Warns of a certificate above that ends first: from then on verifiers refuse what is below.
fn outlived(certificate: &Certificate, above: &[Certificate]) -> Option<String> {
    let first = above.iter().min_by_key(|it| it.not_after())?;
    (first.not_after() < certificate.not_after()).then(|| {
        format!(
            "WARNING: the certificate of {:?}, above it, ends first, at {}",
            first.subject(),
            first.not_after()
        )
    })
}

/// The token attributes of the URI must match the configured token.
fn check_token(uri: &KeyUri, token: &TokenDescription) -> Result<(), String> {
    for (what, asked, is) in [
        ("token", &uri.token, &token.label),
        ("serial", &uri.serial, &token.serial),
        ("manufacturer", &uri.manufacturer, &token.manufacturer),
        ("model", &uri.model, &token.model),
    ] {
        if let Some(asked) = asked.as_ref().filter(|asked| *asked != is) {
            return Err(format!(
                "the URI says {what}={asked:?}, and the configured token has {is:?}"
            ));
        }
    }
    Ok(())
}
