//! Assembles certificates from signed bytes and signature, and reads their fields.
//!
//! The certificates read here were issued by us or by an authority that we trust. Reading is no
//! path validation (RFC 5280 6): nothing here authenticates a peer.

use super::certificate_fields::{CertificateFields, SignedFields, unreadable};
use super::comparable_name::ComparableName;
use super::extension::Extension;
use super::key::{KeyRefusal, PublicKey, SignatureAlgorithm, digest_of};
use super::name_constraints::{KeptConstraints, NameConstraints};
use super::profile::{CertificatePolicy, PolicyLimits};
use super::read_extensions::ReadExtensions;
use super::serial::{SerialNumber, SerialRefusal};
use super::signature::{self, SignatureRefusal};
use super::subject::{self, SubjectValues};
use super::{ber, foreign_key, oid, pem, wire};
use crate::der_bytes::Der;
use crate::unix_seconds::UnixSeconds;
use aws_lc_rs::digest;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Encode, Tag, Tagged};
use spki::AlgorithmIdentifierRef;
use std::fmt;
use std::ops::Range;
use x509_cert::ext::pkix::certpolicy;

/// Longest certificate that is accepted.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// The label of a certificate in PEM (RFC 7468 5.1).
pub(super) const PEM_LABEL: &str = "CERTIFICATE";

/// An X.509 version 3 certificate with the fields that are used here.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Der,
    sha256: [u8; 32],
    tbs: Range<usize>,
    algorithm_der: Der,
    signature: Vec<u8>,
    serial: SerialNumber,
    issuer_der: Der,
    /// As text (RFC 4514).
    subject: String,
    subject_der: Der,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
    spki_der: Der,
    /// 1 to 3.
    version: u8,
    extensions: ReadExtensions,
}

/// The reason why bytes are no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    /// Larger than [`CERTIFICATE_BYTES_MAX`].
    #[error(
        "{bytes} bytes are too many for a certificate; at most {CERTIFICATE_BYTES_MAX} are read"
    )]
    TooLarge { bytes: usize },
    /// The bytes are no DER certificate.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// Only version 3 has extensions (RFC 5280 4.1.2.9); relying parties refuse others with them.
    #[error(
        "the certificate has extensions, and says that it is of version {0}, which has none; only \
         its issuer can mend that, with another certificate"
    )]
    Version(u8),
    /// The outer signature algorithm differs from the signed one (RFC 5280 4.1.1.2).
    #[error("the certificate names two different signature algorithms")]
    TwoAlgorithms,
    /// The serial number is invalid.
    #[error(transparent)]
    Serial(#[from] SerialRefusal),
}

/// Returns a certificate as one PEM block.
pub fn render_pem(der: &[u8]) -> String {
    pem::encode(PEM_LABEL, der)
}

/// Assembles a certificate from the signed bytes and their signature.
///
/// The signature is not verified: see [`Certificate::verify_issued_by`].
pub fn assemble(
    tbs: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Result<Certificate, CertificateRefusal> {
    let certificate = wire::Signed {
        to_be_signed: AnyRef::from_der(tbs)?,
        signature_algorithm: AnyRef::from_der(algorithm.identifier_der())?,
        signature: BitStringRef::from_bytes(signature)?,
    };
    Certificate::parse(&certificate.to_der()?)
}

/// Joins the signed bytes and what follows them, signature algorithm and signature, to the DER of a
/// certificate (RFC 5280 4.1).
pub fn join(tbs: &[u8], signature: &[u8]) -> Der {
    let length = tbs.len() + signature.len();
    let octets = length.to_be_bytes();
    let octets = &octets[length.leading_zeros() as usize / 8..];
    let mut der = Vec::with_capacity(2 + octets.len() + length);
    der.push(ber::SEQUENCE);
    match length {
        ..0x80 => der.push(length as u8),
        _ => {
            der.push(0x80 | octets.len() as u8);
            der.extend_from_slice(octets);
        }
    }
    der.extend_from_slice(tbs);
    der.extend_from_slice(signature);
    der.into()
}

/// Returns what follows the signed bytes `tbs` in a DER certificate; `None` if it has others.
pub fn signature_behind<'d>(der: &'d [u8], tbs: &[u8]) -> Option<&'d [u8]> {
    let outer = AnyRef::from_der(der).ok()?;
    let contents = outer.value().strip_prefix(tbs)?;
    (outer.tag() == Tag::Sequence && !tbs.is_empty() && !contents.is_empty()).then_some(contents)
}

impl Certificate {
    /// Reads a DER certificate. Trailing bytes are an error.
    pub fn parse(der: &[u8]) -> Result<Certificate, CertificateRefusal> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateRefusal::TooLarge { bytes: der.len() });
        }
        let fields = CertificateFields::read(der).map_err(CertificateRefusal::Malformed)?;
        let signed = fields.signed_fields;
        if signed.algorithm != fields.outer_algorithm {
            return Err(CertificateRefusal::TwoAlgorithms);
        }
        if signed.extensions.is_some() && signed.version != 3 {
            return Err(CertificateRefusal::Version(signed.version));
        }
        let malformed = |field: &str| CertificateRefusal::Malformed(unreadable(field));
        let extensions = signed.extensions.unwrap_or_default();
        let subject = subject::text(signed.subject).ok_or_else(|| malformed("subject"))?;
        Ok(Certificate {
            der: der.into(),
            sha256: digest_of(&digest::SHA256, der),
            tbs: tbs_range(der, fields.signed.len())?,
            algorithm_der: signed.algorithm.into(),
            signature: fields
                .signature
                .ok_or_else(|| malformed("signature"))?
                .to_vec(),
            serial: SerialNumber::from_elsewhere(signed.serial)?,
            issuer_der: signed.issuer.into(),
            subject_der: signed.subject.into(),
            not_before: signed.not_before,
            not_after: signed.not_after,
            spki_der: signed.spki.into(),
            version: signed.version,
            extensions: ReadExtensions::read(&extensions, &subject).map_err(malformed)?,
            subject,
        })
    }

    /// Returns the DER of the certificate.
    pub fn der(&self) -> &Der {
        &self.der
    }

    /// Returns the signed bytes.
    pub fn tbs_bytes(&self) -> &[u8] {
        &self.der[self.tbs.clone()]
    }

    /// Returns the contents of the signature's BIT STRING.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Returns the serial number.
    pub fn serial(&self) -> &SerialNumber {
        &self.serial
    }

    /// Returns the issuer as text (RFC 4514).
    pub fn issuer(&self) -> String {
        subject::text(&self.issuer_der).unwrap_or_else(|| "unreadable".to_owned())
    }

    /// Returns the issuer as DER, byte for byte.
    pub fn issuer_der(&self) -> &Der {
        &self.issuer_der
    }

    /// Returns the subject as DER, byte for byte.
    pub fn subject_der(&self) -> &Der {
        &self.subject_der
    }

    /// Returns the subject as text (RFC 4514).
    pub fn subject(&self) -> String {
        self.subject.clone()
    }

    /// Returns the common name of the subject, if there is exactly one and it is text.
    pub fn common_name(&self) -> Option<String> {
        let subject = SubjectValues::read(&self.subject_der).ok()?;
        subject.common_name().ok().flatten()
    }

    /// Returns the first second of the validity, in Unix seconds.
    pub fn not_before(&self) -> UnixSeconds {
        self.not_before
    }

    /// Returns the last second of the validity, in Unix seconds.
    pub fn not_after(&self) -> UnixSeconds {
        self.not_after
    }

    /// Returns the DER SubjectPublicKeyInfo, unchecked.
    pub fn spki_der(&self) -> &Der {
        &self.spki_der
    }

    /// Returns the public key. Fails for key types that only outside authorities use.
    pub fn public_key(&self) -> Result<PublicKey, KeyRefusal> {
        PublicKey::from_spki_der(&self.spki_der)
    }

    /// Returns the subject key identifier: the authority key identifier of certificates below.
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.extensions.subject_key_identifier.as_deref()
    }

    /// Returns the authority key identifier.
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        self.extensions.authority_key.key_identifier.as_deref()
    }

    /// Returns the part of the authority key identifier (RFC 5280 4.2.1.1) that names another
    /// certificate than `issuer`, if one does.
    pub fn names_another_issuer_than(&self, issuer: &Certificate) -> Option<&'static str> {
        let named = &self.extensions.authority_key;
        let key = issuer.subject_key_identifier();
        let differs = |named: Option<&[u8]>, is: &[u8]| named.is_some_and(|named| named != is);
        if key.is_some_and(|key| differs(named.key_identifier.as_deref(), key)) {
            Some("key identifier")
        } else if differs(named.serial.as_deref(), &issuer.serial.der_contents()) {
            Some("serial number")
        } else if differs(named.issuer_der.as_deref(), &issuer.issuer_der) {
            Some("issuer")
        } else {
            None
        }
    }

    /// Returns true if relying parties read the same subject in both (RFC 5280 7.1).
    pub fn has_subject_of(&self, other: &Certificate) -> bool {
        let [own, other] = [self, other].map(|it| ComparableName::read(it.subject_der()));
        own.is_ok_and(|own| other.is_ok_and(|other| own == other))
    }

    /// Returns true if basicConstraints has cA.
    pub fn is_ca(&self) -> bool {
        self.extensions.basic_constraints.is_some_and(|it| it.ca)
    }

    /// Returns pathLenConstraint; `None` if unlimited. A greater one than 255 is 255.
    pub fn path_length(&self) -> Option<u8> {
        self.extensions.basic_constraints?.path_length
    }

    /// Returns the name constraints, or why they cannot be judged by.
    pub fn name_constraints(&self) -> Option<Result<&NameConstraints, &str>> {
        let constraints = self.extensions.name_constraints.as_ref()?;
        Some(constraints.as_ref().map_err(String::as_str))
    }

    /// Returns the extension of the name constraints, for the next certificate of its authority.
    pub fn kept_constraints(&self) -> Option<KeptConstraints> {
        let extension = self.extension(oid::NAME_CONSTRAINTS)?;
        Some(KeptConstraints {
            value: extension.value.into(),
            critical: extension.critical,
        })
    }

    /// Returns the policies, for the next certificate of its authority: none where one has more
    /// than the address of a statement.
    pub fn policies(&self) -> Vec<CertificatePolicy> {
        let extension = self.extension(oid::CERTIFICATE_POLICIES);
        let policies = extension.and_then(|it| CertificatePolicy::read(it.value));
        policies.unwrap_or_default()
    }

    /// Returns the identifiers of the policies: anyPolicy if the extension cannot be read, so that
    /// it is no reason to refuse anything.
    pub(super) fn policy_ids(&self) -> Vec<ObjectIdentifier> {
        let Some(extension) = self.extension(oid::CERTIFICATE_POLICIES) else {
            return Vec::new();
        };
        let read = certpolicy::CertificatePolicies::from_der(extension.value);
        read.map_or_else(
            |_| vec![oid::ANY_POLICY],
            |it| it.0.into_iter().map(|it| it.policy_identifier).collect(),
        )
    }

    /// Returns policyConstraints and inhibitAnyPolicy, or `None` if one cannot be read.
    pub fn policy_limits(&self) -> Option<PolicyLimits> {
        let constraints = self.extension(oid::POLICY_CONSTRAINTS);
        let any = self.extension(oid::INHIBIT_ANY_POLICY);
        PolicyLimits::read(constraints.map(|it| it.value), any.map(|it| it.value))
    }

    pub(super) fn extension(&self, id: ObjectIdentifier) -> Option<Extension<'_>> {
        self.all_extensions().into_iter().find(|it| it.is(id))
    }

    /// Returns its extensions, undecoded.
    pub(super) fn all_extensions(&self) -> Vec<Extension<'_>> {
        let fields = SignedFields::read(self.tbs_bytes());
        fields.ok().and_then(|it| it.extensions).unwrap_or_default()
    }

    /// Returns true if the key may sign certificates.
    pub fn may_sign_certificates(&self) -> bool {
        self.is_ca() && self.extensions.key_usage.is_some_and(|it| it.key_cert_sign)
    }

    /// Returns true if the key may sign certificates, or if keyUsage does not say: RFC 5280 6.1.4
    /// (n) lets a relying party accept both.
    pub fn does_not_deny_signing_certificates(&self) -> bool {
        self.extensions.key_usage.is_none_or(|it| it.key_cert_sign)
    }

    /// Returns true if the key may sign revocation lists.
    pub fn may_sign_crls(&self) -> bool {
        self.extensions.key_usage.is_some_and(|it| it.crl_sign)
    }

    /// Returns true if it is of version 1 or 2, which have no extensions.
    pub fn has_no_extensions_by_its_version(&self) -> bool {
        self.version != 3
    }

    /// Returns true if issuer and subject are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.issuer_der == self.subject_der
    }

    /// Returns the SHA-256 of the DER: the thumbprint of the provisioning service.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Verifies the signature with the issuer's key. Names and validity are not checked.
    pub fn verify_issued_by(&self, issuer: &PublicKey) -> Result<(), SignatureRefusal> {
        let algorithm = AlgorithmIdentifierRef::from_der(&self.algorithm_der)
            .map_err(|_| SignatureRefusal::UnsupportedAlgorithm("unreadable".to_owned()))?;
        signature::verify(issuer, algorithm, self.tbs_bytes(), &self.signature)
    }

    /// Verifies the signature with the key of the issuer's certificate, which may be of a kind that
    /// only outside authorities have. Names and validity are not checked.
    pub fn verify_issued_by_key_of(&self, spki_der: &[u8]) -> Result<(), String> {
        match PublicKey::from_spki_der(spki_der) {
            Ok(key) => self
                .verify_issued_by(&key)
                .map_err(|refusal| refusal.to_string()),
            Err(refusal) => foreign_key::verify(
                spki_der,
                &self.algorithm_der,
                self.tbs_bytes(),
                &self.signature,
            )
            .unwrap_or_else(|| Err(refusal.to_string())),
        }
    }

    /// Returns the certificate as one PEM block.
    pub fn to_pem(&self) -> String {
        render_pem(&self.der)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} serial {})", self.subject, self.serial)
    }
}

/// Returns the range of the to-be-signed bytes: they follow the header of the outer SEQUENCE.
pub(super) fn tbs_range(der: &[u8], tbs_length: usize) -> der::Result<Range<usize>> {
    let start = der.len() - AnyRef::from_der(der)?.value().len();
    Ok(start..start + tbs_length)
}

pub(super) fn signature_octets(bits: &BitStringRef<'_>) -> Result<Vec<u8>, CertificateRefusal> {
    bits.as_bytes()
        .map(<[u8]>::to_vec)
        .ok_or_else(|| CertificateRefusal::Malformed("the signature has unused bits".to_owned()))
}

impl From<der::Error> for CertificateRefusal {
    fn from(error: der::Error) -> CertificateRefusal {
        CertificateRefusal::Malformed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lengths around each change of the form of a DER length (X.690 8.1.3).
    #[test]
    fn what_is_joined_is_found_again() {
        for length in [1, 60, 125, 126, 127, 253, 254, 255, 65_533, 65_534, 65_535] {
            let (tbs, signature) = (vec![7; length], [8, 9]);
            let der = join(&tbs, &signature);
            let outer = AnyRef::from_der(&der).expect("canonical DER");
            assert_eq!(outer.tag(), Tag::Sequence);
            assert_eq!(outer.value(), [&tbs[..], &signature].concat());
            assert_eq!(signature_behind(&der, &tbs), Some(&signature[..]));
            assert_eq!(signature_behind(&der, &[&tbs[1..], &[6]].concat()), None);
            assert_eq!(signature_behind(&der, &[]), None, "nothing was signed");
            assert_eq!(signature_behind(&der, outer.value()), None, "no signature");
            assert_eq!(signature_behind(&der[..der.len() - 1], &tbs), None, "cut");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            der in proptest::collection::vec(any::<u8>(), 0..64),
            tbs in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            if let Some(signature) = signature_behind(&der, &tbs) {
                prop_assert_eq!(&join(&tbs, signature)[..], &der[..]);
            }
        }
    }
}
