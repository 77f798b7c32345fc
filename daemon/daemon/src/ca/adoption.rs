//! Adoption: an authority that existed before this daemon, taken over by a ceremony with its key
//! and its certificate.
//!
//! The same is asked of it as of one that is made here, as far as it can be: the certificate is an
//! authority's, is valid and fits under its issuer, and the key under the URI is the certificate's
//! and signs. Where the key came from cannot be known; the transcript says so. Nothing on the token
//! is changed.

use super::ceremony::{AuthoritySpecification, Ceremonies};
use super::external::chain_above;
use super::hierarchy::Generation;
use super::issuer::generation::Shape;
use super::signing_request::Signer;
use super::transcript::{NOT_LOCAL, TranscriptEntry};
use super::{Code, Error};
use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;
use crate::files;
use crate::ids::GenerationId;
use crate::store::{AdoptedGeneration, AuditEntry, PlannedGeneration};
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::credential::is_credential;
use crate::token::key_uri::{KeyUri, without_nul};
use crate::token::{KeyDescription, KeyReference, TokenDescription};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::{BUNDLE_BYTES_MAX, parse_bundle, render_chain};
use crate::x509::certificate::Certificate;
use crate::x509::certs_only;
use crate::x509::issuer::IssuerFields;
use crate::x509::key::PublicKey;
use crate::x509::path;
use serde_json::{Value, json};
use std::path::Path;

/// The longest reason for accepting a key that could leave its token.
pub const REASON_CHARS_MAX: usize = 512;

/// Longer text is no path: Linux has no longer ones in one call.
const PATH_BYTES_MAX: usize = 4096;

/// The ceremony file's entry for an authority that exists elsewhere.
#[derive(Clone, Debug)]
pub struct Adoption {
    pub key: KeyUri,
    /// Its certificate: PEM, or the absolute path of a PEM file.
    pub certificate: String,
    /// Why a key is taken although it could leave its token.
    pub accept: Option<String>,
    /// The number of the last revocation list that was published elsewhere: ours count on from it
    /// (RFC 5280 5.2.3).
    pub crl_number: CrlNumber,
}

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
                    "{}: no key under {} has the public key of the certificate, together with its public half",
                    error.message, adoption.key
                )),
                other => other,
            })?;
        let remarks = adoption.admit(&key).map_err(refused)?;
        client.prove(&key, LOOKUP_DEADLINE)?;
        Ok(Found { key, remarks })
    }
}

fn refusal(authority: &str, reason: String) -> Error {
    let message = format!("authority {authority} is not adopted: {reason}");
    Error::invalid(Code::AdoptionRefused, message)
}

/// Of a key that may have left its token once.
const NOT_ALWAYS_KEPT: &str = "WARNING: the token does not tell that this key never could leave it (CKA_NEVER_EXTRACTABLE is false)";

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

/// The certificate of an adopted authority, and those above it if its issuer is elsewhere.
struct Adopted {
    certificate: Certificate,
    /// Its issuer's first, the last one self-signed.
    above: Vec<Certificate>,
}

impl Adoption {
    /// Reads the certificate and, without an issuer on record, the chain of one that is not
    /// self-signed. Each certificate of the chain fits the condition.
    fn read(
        &self,
        issuer: Option<&str>,
        fits: &dyn Fn(&Certificate) -> Result<(), String>,
    ) -> Result<Adopted, String> {
        let (certificate, others) = self.read_certificates()?;
        if issuer.is_some() || others.is_empty() {
            return Ok(Adopted {
                certificate,
                above: Vec::new(),
            });
        }
        let fits = |it: &Certificate| fits(it).map_err(|reason| (Code::AdoptionRefused, reason));
        let above = chain_above(&certificate, &others, 0, &fits).map_err(|(_, reason)| reason)?;
        // EST has to hand out all of it, byte for byte.
        let all: Vec<&Certificate> = [&certificate].into_iter().chain(&above).collect();
        certs_only::to_base64(&all).map_err(|error| error.to_string())?;
        Ok(Adopted { certificate, above })
    }

    /// Returns its certificate and the others of the ceremony file or of the named file. Its own is
    /// the one that has issued none of the others.
    pub(super) fn read_certificates(&self) -> Result<(Certificate, Vec<Certificate>), String> {
        let text = if self.is_inline() {
            self.certificate.clone().into_bytes()
        } else {
            read_file(Path::new(&self.certificate))?
        };
        let mut certificates = parse_bundle(&text).map_err(|error| error.to_string())?;
        let has_issued = |it: &Certificate| {
            let mut others = certificates.iter().filter(|other| *other != it);
            others.any(|other| other.issuer_der() == it.subject_der())
        };
        let own = certificates.iter().position(|it| !has_issued(it));
        if certificates.is_empty() {
            return Err("`certificate` holds no certificate".into());
        }
        let certificate = certificates.remove(own.unwrap_or(0));
        Ok((certificate, certificates))
    }

    /// A path has one line; base64 without PEM is longer than any path.
    fn is_inline(&self) -> bool {
        let text = self.certificate.trim();
        text.contains("-----BEGIN") || text.contains('\n') || text.len() > PATH_BYTES_MAX
    }

    /// An authority on record must have this certificate. Its file may be gone now.
    pub(super) fn differs_from(&self, existing: &Generation) -> Option<&'static str> {
        match self.read_certificates() {
            Ok((certificate, _)) if certificate.der() != existing.certificate.der() => {
                Some("another certificate")
            }
            _ => None,
        }
    }

    fn generation(
        &self,
        plan: PlannedGeneration,
        certificate: &Certificate,
        found: &Found,
    ) -> AdoptedGeneration {
        AdoptedGeneration {
            plan,
            key_label: found.key.label.clone(),
            spki: found.key.spki.clone(),
            certificate: certificate.into(),
            above: None,
            crl_number: self.crl_number,
        }
    }

    fn audit_detail(&self, certificate: &Certificate, found: &Found) -> Value {
        json!({
            "serial": certificate.serial().to_string(),
            "sha256": hex::encode(certificate.sha256()),
            "key": self.key.to_string(),
            "remarks": found.remarks,
        })
    }

    /// Where to look: the public key decides, label and id are hints.
    fn reference(&self, certificate: &Certificate, label: &str) -> KeyReference {
        KeyReference {
            spki: certificate.spki_der().clone(),
            label: label.to_owned(),
            id: self.key.id.clone().unwrap_or_default(),
            wrapped: None,
        }
    }

    /// Whether the key is the one that is meant, and may be an authority's. Gives what a person has
    /// to know.
    fn admit(&self, key: &KeyDescription) -> Result<Vec<String>, String> {
        let asked = self.key.object.as_deref();
        let label = asked.is_none_or(|it| without_nul(it) == without_nul(&key.label));
        let id = self.key.id.as_ref().is_none_or(|it| *it == key.id);
        if !(label && id) {
            return Err(format!(
                "the key that has the certificate's public key has label {:?} and id {}",
                key.label,
                hex::encode(&key.id)
            ));
        }
        if is_credential(&key.label) {
            return Err("it is a credential's key and signs no certificates".into());
        }
        let mut remarks = Vec::new();
        if !key.local {
            remarks.push(NOT_LOCAL.to_owned());
        }
        if !key.never_extractable {
            remarks.push(NOT_ALWAYS_KEPT.to_owned());
        }
        remarks.extend(self.accepted(key)?);
        Ok(remarks)
    }

    /// Returns why a key that can leave its token is adopted all the same.
    fn accepted(&self, key: &KeyDescription) -> Result<Option<String>, String> {
        let sensitive = key.sensitive;
        let extractable = key.extractable;
        if sensitive && !extractable {
            return Ok(None);
        }
        match &self.accept {
            Some(reason) => Ok(Some(format!(
                "ACCEPTED although sensitive={sensitive} extractable={extractable}: {reason}"
            ))),
            None => Err(format!(
                "its key can leave the token (sensitive={sensitive} extractable={extractable}); make another \
                 authority, or say in `accept` why this one is taken all the same"
            )),
        }
    }
}

/// A file of the machine that the daemon runs on.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    if !path.is_absolute() {
        return Err(format!(
            "`certificate` {:?} is neither PEM nor an absolute path",
            path.display()
        ));
    }
    files::read(path, BUNDLE_BYTES_MAX as u64).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adoption(uri: &str, accept: Option<&str>) -> Adoption {
        Adoption {
            key: uri.parse().unwrap(),
            certificate: String::new(),
            accept: accept.map(str::to_owned),
            crl_number: CrlNumber::START,
        }
    }

    fn key() -> KeyDescription {
        KeyDescription {
            spki: Vec::new().into(),
            label: "Old Root".into(),
            id: vec![1],
            sensitive: true,
            extractable: false,
            never_extractable: false,
            local: false,
            wrapped: None,
        }
    }

    #[test]
    fn an_imported_key_is_taken_with_a_warning() {
        let remarks = adoption("pkcs11:object=Old%20Root", None)
            .admit(&key())
            .unwrap();
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(
            remarks.iter().all(|it| it.starts_with("WARNING")),
            "{remarks:?}"
        );
    }

    #[test]
    fn a_key_that_can_leave_its_token_is_taken_only_for_a_reason() {
        for leaky in [
            KeyDescription {
                extractable: true,
                ..key()
            },
            KeyDescription {
                sensitive: false,
                ..key()
            },
        ] {
            let error = adoption("pkcs11:id=%01", None).admit(&leaky).unwrap_err();
            assert!(error.contains("accept"), "{error}");
            let accepted = adoption("pkcs11:id=%01", Some("see ticket 7"));
            let remarks = accepted.admit(&leaky).unwrap();
            assert!(
                remarks.last().unwrap().contains("see ticket 7"),
                "{remarks:?}"
            );
        }
    }

    #[test]
    fn nuls_at_the_end_of_a_label_do_not_count() {
        let padded = KeyDescription {
            label: "Old Root\0\0".into(),
            ..key()
        };
        let plain = "pkcs11:object=Old%20Root";
        assert!(adoption(plain, None).admit(&padded).is_ok());
        assert!(adoption(&format!("{plain}%00"), None).admit(&key()).is_ok());
    }

    #[test]
    fn another_label_or_id_is_another_key() {
        for uri in [
            "pkcs11:object=other;id=%01",
            "pkcs11:object=Old%20Root;id=%02",
        ] {
            assert!(adoption(uri, None).admit(&key()).is_err(), "{uri}");
        }
        let credential = KeyDescription {
            label: "hallmark-credential x".into(),
            ..key()
        };
        assert!(adoption("pkcs11:id=%01", None).admit(&credential).is_err());
    }
}
