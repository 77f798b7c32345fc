//! Tests the whole module with software keys in place of a token.

mod authority_csr;
mod bundle;
mod certificate;
mod chain;
mod crl;
mod cross;
mod csr;
mod field_certificate;
mod field_csr;
mod idevid;
mod kept_name;
mod key;
mod lint;
mod name_constraints;
mod ocsp;
mod path;
mod profile;
mod profile_refusals;
mod requested_names;
mod signable;
mod weak;

use super::certificate::{Certificate, assemble};
use super::issuer::IssuerFields;
use super::key::{KeyType, PublicKey};
use super::lint::{Expectation, ExpectedIssuer, IssuerReading, LintedTbs, lint};
use super::name::{DistinguishedName, Subject};
use super::profile::Profile;
use super::serial::SerialNumber;
use super::tbs::{CertificateContent, build};
use super::template::Values;
use crate::unix_seconds::UnixSeconds;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as signing, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, RsaSignatureEncoding,
};

pub(super) const NOW: UnixSeconds = UnixSeconds::new(1_767_225_600);

/// The values of a request for a device.
pub(super) const VALUES: Values<'_> = Values {
    id: "device-7",
    line: "line-1",
    station: None,
    now: NOW,
    csr: None,
};

/// Seconds of a year, as `y` in a profile means it.
pub(super) const YEAR: u64 = 31_557_600;

/// A private key that a test may hold; the product never does.
pub(super) enum SoftwareKey {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SoftwareKey {
    pub(super) fn generate(key_type: KeyType) -> SoftwareKey {
        let ecdsa =
            |algorithm| SoftwareKey::Ecdsa(EcdsaKeyPair::generate(algorithm).expect("makes a key"));
        let rsa = |size| SoftwareKey::Rsa(RsaKeyPair::generate(size).expect("makes a key"));
        match key_type {
            KeyType::P256 => ecdsa(&signing::ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyType::P384 => ecdsa(&signing::ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyType::P521 => ecdsa(&signing::ECDSA_P521_SHA512_ASN1_SIGNING),
            KeyType::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyType::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyType::Rsa4096 => rsa(KeySize::Rsa4096),
            KeyType::Ed25519 => {
                SoftwareKey::Ed25519(Ed25519KeyPair::generate().expect("makes a key"))
            }
        }
    }

    pub(super) fn spki_der(&self) -> Vec<u8> {
        let der: Result<PublicKeyX509Der<'_>, _> = match self {
            SoftwareKey::Ecdsa(pair) => pair.public_key().as_der(),
            SoftwareKey::Rsa(pair) => pair.public_key().as_der(),
            SoftwareKey::Ed25519(pair) => pair.public_key().as_der(),
        };
        der.expect("encodes").as_ref().to_vec()
    }

    pub(super) fn public_key(&self) -> PublicKey {
        PublicKey::from_spki_der(&self.spki_der()).expect("is a good key")
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            SoftwareKey::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).expect("signs");
                signature.as_ref().to_vec()
            }
            SoftwareKey::Rsa(pair) => sign_rsa(pair, &signing::RSA_PKCS1_SHA256, message),
            SoftwareKey::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

pub(super) fn sign_rsa(
    pair: &RsaKeyPair,
    encoding: &'static RsaSignatureEncoding,
    message: &[u8],
) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
        .expect("signs");
    signature
}

/// An authority with its key in the open.
pub(super) struct Authority {
    pub(super) key: SoftwareKey,
    pub(super) certificate: Certificate,
    pub(super) reading: IssuerReading,
}

impl Authority {
    fn new(key: SoftwareKey, certificate: Certificate) -> Authority {
        let reading = IssuerReading::new(&certificate);
        Authority {
            key,
            certificate,
            reading,
        }
    }

    pub(super) fn root(key_type: KeyType, profile: &Profile) -> Authority {
        let key = SoftwareKey::generate(key_type);
        let subject = name("Test Root");
        let public_key = key.public_key();
        let issuer = IssuerFields::self_signed(&subject, &public_key);
        let serial = SerialNumber::from_random(UnixSeconds::new(0), [7; 12]);
        let request = request(profile, &subject, &public_key, &serial);
        let linted = build_and_lint(&issuer, ExpectedIssuer::SelfSigned, &request);
        let certificate = signed(&linted, &key);
        Authority::new(key, certificate)
    }

    pub(super) fn subordinate(
        &self,
        common_name: &str,
        key_type: KeyType,
        profile: &Profile,
    ) -> Authority {
        let key = SoftwareKey::generate(key_type);
        let certificate = self.certify(common_name, &key.public_key(), profile);
        Authority::new(key, certificate)
    }

    pub(super) fn certify(
        &self,
        common_name: &str,
        public_key: &PublicKey,
        profile: &Profile,
    ) -> Certificate {
        let subject = name(common_name);
        let serial = SerialNumber::from_random(UnixSeconds::new(0), [9; 12]);
        let request = request(profile, &subject, public_key, &serial);
        let expected_issuer = ExpectedIssuer::Certificate(&self.reading);
        signed(
            &build_and_lint(&self.issuer(), expected_issuer, &request),
            &self.key,
        )
    }

    pub(super) fn issuer(&self) -> IssuerFields {
        IssuerFields::from_certificate(&self.certificate).expect("is an authority")
    }
}

pub(super) fn name(common_name: &str) -> Subject {
    let name = DistinguishedName::from_common_name(common_name);
    name.expect("is a name").into()
}

pub(super) fn request<'a>(
    profile: &'a Profile,
    subject: &'a Subject,
    public_key: &'a PublicKey,
    serial: &'a SerialNumber,
) -> CertificateContent<'a> {
    CertificateContent {
        profile,
        subject,
        public_key,
        subject_alternative_names: &[],
        name_constraints: None,
        serial,
        now: NOW,
    }
}

pub(super) fn expectation<'a>(
    issuer: ExpectedIssuer<'a>,
    request: &CertificateContent<'a>,
) -> Expectation<'a> {
    Expectation {
        issuer,
        distribution: None,
        profile: request.profile,
        common_name: request.subject.label(),
        subject: request.subject,
        public_key: request.public_key,
        subject_alternative_names: request.subject_alternative_names,
        name_constraints: request.name_constraints,
        serial: request.serial,
        now: request.now,
    }
}

fn build_and_lint(
    issuer: &IssuerFields,
    expected: ExpectedIssuer<'_>,
    request: &CertificateContent<'_>,
) -> LintedTbs {
    let tbs = build(issuer, request).expect("builds");
    lint(tbs, &expectation(expected, request)).expect("passes the lint")
}

pub(super) fn signed(linted: &LintedTbs, key: &SoftwareKey) -> Certificate {
    let signature = key.sign(linted.bytes());
    let certificate = assemble(linted.bytes(), linted.signature_algorithm(), &signature);
    certificate.expect("assembles")
}
