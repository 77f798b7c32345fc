//! Adoption: an authority that existed before this daemon, taken over by a ceremony with its key
//! and its certificate.
//!
//! The same is asked of it as of one that is made here, as far as it can be: the certificate is an
//! authority's, is valid and fits under its issuer, and the key under the URI is the certificate's
//! and signs. Where the key came from cannot be known; the transcript says so. Nothing on the token
//! is changed.

use super::ceremony::{AuthoritySpecification, Ceremonies};
use super::hierarchy::Generation;
use super::transcript::{NOT_LOCAL, TranscriptEntry};
use super::{Code, Error};
use crate::files;
use crate::ids::CrlNumber;
use crate::store::{AdoptedGeneration, AuditEntry, PlannedGeneration};
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::credential::is_credential;
use crate::token::key_uri::{KeyUri, without_nul};
use crate::token::{KeyDescription, KeyReference, TokenDescription};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::{BUNDLE_BYTES_MAX, parse_bundle};
use crate::x509::certificate::Certificate;
use crate::x509::issuer::Issuer;
use crate::x509::key::PublicKey;
use crate::x509::name::DistinguishedName;
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
    pub crl_number: u32,
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
        let certificate = adoption.read_certificate().map_err(refused)?;
        let public_key = certificate
            .public_key()
            .map_err(|error| refused(error.to_string()))?;
        let hierarchy = self.issuer.hierarchy();
        let parent = match &specification.issuer {
            Some(issuer) => Some(hierarchy.signing(issuer)?.as_ref()),
            None => None,
        };
        check_certificate(&certificate, &public_key, parent, self.issuer.now()).map_err(refused)?;
        if let Some(limit) = self.issuer.constraint(name, [&certificate]) {
            return Err(refused(limit));
        }
        let mut found = self.find_adopted(adoption, &certificate, token, name)?;
        if DistinguishedName::from_der(certificate.subject_der()).is_err() {
            found.remarks.push(NOT_OUR_NAME.to_owned());
        }
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
        let adopted = adoption.generation(plan, &certificate, &found);
        self.issuer.store.adopt_generation(adopted, entry)?;
        self.issuer.reload_hierarchy()?;
        self.adopted_entry(name, found)
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

/// Of a certificate whose subject this daemon cannot write.
const NOT_OUR_NAME: &str = "WARNING: its subject has attributes that are not written here; it serves, and cannot be rolled under this name";

/// Fails unless the certificate may sign certificates and revocation lists.
pub(super) fn may_be_an_authority(certificate: &Certificate) -> Result<(), String> {
    Issuer::from_certificate(certificate).map_err(|error| error.to_string())?;
    if certificate.may_sign_crls() {
        return Ok(());
    }
    Err("its key usage lacks cRLSign, so it could never revoke anything".into())
}

/// An authority's certificate, valid, with its own issuer's signature.
fn check_certificate(
    certificate: &Certificate,
    public_key: &PublicKey,
    parent: Option<&Generation>,
    now: UnixSeconds,
) -> Result<(), String> {
    may_be_an_authority(certificate)?;
    if now < certificate.not_before() || certificate.not_after() <= now {
        return Err("its certificate is not valid now".into());
    }
    let (above, key) = match parent {
        Some(parent) => (parent.certificate.subject_der(), &parent.public_key),
        None => (certificate.subject_der(), public_key),
    };
    if certificate.issuer_der() != above {
        return Err(format!(
            "its certificate was issued by {:?}: name the authority of that name as `issuer`, and adopt that first",
            certificate.issuer()
        ));
    }
    certificate.verify_issued_by(key).map_err(|error| {
        format!("its certificate does not verify with its issuer's key: {error}")
    })?;
    match parent.map(|parent| parent.certificate.path_length()) {
        Some(Some(0)) => Err("its issuer's path length allows no authority below".into()),
        _ => Ok(()),
    }
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

impl Adoption {
    /// Returns its certificate, from the ceremony file or the named file.
    pub(super) fn read_certificate(&self) -> Result<Certificate, String> {
        let text = if self.is_inline() {
            self.certificate.clone().into_bytes()
        } else {
            read_file(Path::new(&self.certificate))?
        };
        let mut certificates = parse_bundle(&text).map_err(|error| error.to_string())?;
        match (certificates.pop(), certificates.len()) {
            (Some(certificate), 0) => Ok(certificate),
            (_, more) => Err(format!(
                "`certificate` holds {} certificates, and must hold one, the authority's own",
                more + 1
            )),
        }
    }

    /// A path has one line; base64 without PEM is longer than any path.
    fn is_inline(&self) -> bool {
        let text = self.certificate.trim();
        text.contains("-----BEGIN") || text.contains('\n') || text.len() > PATH_BYTES_MAX
    }

    /// An authority on record must have this certificate. Its file may be gone now.
    pub(super) fn differs_from(&self, existing: &Generation) -> Option<&'static str> {
        match self.read_certificate() {
            Ok(certificate) if certificate.der() != existing.certificate.der() => {
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
            crl_number: CrlNumber::new(self.crl_number.into()),
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
            crl_number: 0,
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
