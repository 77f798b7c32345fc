//! The ceremony file's entry for an authority that is adopted: reads its certificates, and judges
//! the key that was found for it.

use super::Found;
use crate::ca::Code;
use crate::ca::external::chain_above;
use crate::ca::hierarchy::Generation;
use crate::ca::transcript::NOT_LOCAL;
use crate::crl_number::CrlNumber;
use crate::files;
use crate::store::{AdoptedGeneration, PlannedGeneration};
use crate::token::credential::is_credential;
use crate::token::key_uri::{KeyUri, without_nul};
use crate::token::{KeyDescription, KeyReference};
use crate::x509::bundle::{BUNDLE_BYTES_MAX, parse_bundle};
use crate::x509::certificate::Certificate;
use crate::x509::certs_only;
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

/// Of a key that may have left its token once.
const NOT_ALWAYS_KEPT: &str = "WARNING: the token does not tell that this key never could leave it \
                               (CKA_NEVER_EXTRACTABLE is false)";

/// The certificate of an adopted authority, and those above it if its issuer is elsewhere.
pub(super) struct Adopted {
    pub(super) certificate: Certificate,
    /// Its issuer's first, the last one self-signed.
    pub(super) above: Vec<Certificate>,
}

impl Adoption {
    /// Reads the certificate and, without an issuer on record, the chain of one that is not
    /// self-signed. Each certificate of the chain fits the condition.
    pub(super) fn read(
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
    pub(in crate::ca) fn read_certificates(
        &self,
    ) -> Result<(Certificate, Vec<Certificate>), String> {
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
    pub(in crate::ca) fn differs_from(&self, existing: &Generation) -> Option<&'static str> {
        match self.read_certificates() {
            Ok((certificate, _)) if certificate.der() != existing.certificate.der() => {
                Some("another certificate")
            }
            _ => None,
        }
    }

    pub(super) fn generation(
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

    pub(super) fn audit_detail(&self, certificate: &Certificate, found: &Found) -> Value {
        json!({
            "serial": certificate.serial().to_string(),
            "sha256": hex::encode(certificate.sha256()),
            "key": self.key.to_string(),
            "remarks": found.remarks,
        })
    }

    /// Where to look: the public key decides, label and id are hints.
    pub(super) fn reference(&self, certificate: &Certificate, label: &str) -> KeyReference {
        KeyReference {
            spki: certificate.spki_der().clone(),
            label: label.to_owned(),
            id: self.key.id.clone().unwrap_or_default(),
            wrapped: None,
        }
    }

    /// Whether the key is the one that is meant, and may be an authority's. Gives what a person has
    /// to know.
    pub(super) fn check_key(&self, key: &KeyDescription) -> Result<Vec<String>, String> {
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
                "its key can leave the token (sensitive={sensitive} extractable={extractable}); \
                 make another authority, or say in `accept` why this one is taken all the same"
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
            .check_key(&key())
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
            let error = adoption("pkcs11:id=%01", None)
                .check_key(&leaky)
                .unwrap_err();
            assert!(error.contains("accept"), "{error}");
            let accepted = adoption("pkcs11:id=%01", Some("see ticket 7"));
            let remarks = accepted.check_key(&leaky).unwrap();
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
        assert!(adoption(plain, None).check_key(&padded).is_ok());
        assert!(
            adoption(&format!("{plain}%00"), None)
                .check_key(&key())
                .is_ok()
        );
    }

    #[test]
    fn another_label_or_id_is_another_key() {
        for uri in [
            "pkcs11:object=other;id=%01",
            "pkcs11:object=Old%20Root;id=%02",
        ] {
            assert!(adoption(uri, None).check_key(&key()).is_err(), "{uri}");
        }
        let credential = KeyDescription {
            label: "hallmark-credential x".into(),
            ..key()
        };
        assert!(
            adoption("pkcs11:id=%01", None)
                .check_key(&credential)
                .is_err()
        );
    }
}
