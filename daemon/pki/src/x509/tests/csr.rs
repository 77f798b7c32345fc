//! Requests as devices send them, good and bad.

use super::{SoftwareKey, VALUES, sign_rsa};
use crate::error_code::Code;
use crate::x509::csr::{CSR_BYTES_MAX, Csr, CsrRefusal};
use crate::x509::key::KeyType;
use crate::x509::profile::{Profile, SubjectAlternativeNames};
use crate::x509::san::SubjectAlternativeName;
use aws_lc_rs::signature::{self as signing, RsaSignatureEncoding};
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, Sequence};
use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SigningKey};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

/// `CertificationRequest` of RFC 2986 4.2.
#[derive(Sequence)]
struct CertificationRequest<'a> {
    info: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

fn key_pair() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("makes a key")
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn der_of(params: &CertificateParams, key: &impl SigningKey) -> Vec<u8> {
    let request = params.serialize_request(key).expect("makes a request");
    request.der().to_vec()
}

/// One request for all property tests.
static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| der_of(&params("device-7"), &key_pair()));

fn names_let_through() -> Profile {
    Profile {
        subject_alternative_names: SubjectAlternativeNames::dns_and_ip(),
        ..Profile::verification()
    }
}

fn refusal(bytes: &[u8]) -> CsrRefusal {
    Csr::parse(bytes).expect_err("is refused")
}

#[test]
fn requests_of_every_kind_of_key_are_read() {
    for (algorithm, key_type) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, KeyType::P256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, KeyType::P384),
        (&rcgen::PKCS_ECDSA_P521_SHA512, KeyType::P521),
        (&rcgen::PKCS_RSA_SHA256, KeyType::Rsa2048),
        (&rcgen::PKCS_ED25519, KeyType::Ed25519),
    ] {
        let key = KeyPair::generate_for(algorithm).expect("makes a key");
        let csr = Csr::parse(&der_of(&params("device-7"), &key)).expect("is a request");
        assert_eq!(csr.public_key().key_type(), key_type);
        assert_eq!(csr.common_name(), Some("device-7"));
        assert_eq!(
            csr.names().certified_by(&Profile::verification(), &VALUES),
            Ok(vec![])
        );
    }
}

#[test]
fn pem_base64_and_der_are_the_same_request() {
    let der = REQUEST.clone();
    let strict = crate::x509::pem::encode("CERTIFICATE REQUEST", &der);
    let body: String = strict
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let columns: Vec<&str> = body
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).expect("is ASCII"))
        .collect();
    let forms = [
        strict.clone(),
        strict.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        strict.replace('\n', "\r\n"),
        format!("\n\nRequest of device-7:\n{strict}\n-- \nGateway"),
        format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{strict}"
        ),
        body.clone(),
        columns.join("\r\n"),
        body.trim_end_matches('=').to_owned(),
    ];
    let from_der = Csr::parse(&der).expect("is a request");
    for form in forms {
        assert_eq!(Csr::parse(form.as_bytes()), Ok(from_der.clone()), "{form}");
    }
    let twice = [strict.as_str(), &strict].concat();
    assert_eq!(refusal(twice.as_bytes()).code(), Code::CsrMalformed);
    let certificate = strict.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    assert_eq!(refusal(certificate.as_bytes()).code(), Code::CsrMalformed);
}

#[test]
fn size_garbage_and_trailing_bytes_are_refused() {
    assert_eq!(
        refusal(&[b'A'; CSR_BYTES_MAX + 1]).code(),
        Code::CsrTooLarge
    );
    assert_eq!(refusal(b"").code(), Code::CsrMalformed);
    assert_eq!(refusal(b"hello").code(), Code::CsrMalformed);
    assert_eq!(
        refusal(&[&REQUEST[..], &[0]].concat()).code(),
        Code::CsrMalformed
    );
}

#[test]
fn names_to_let_through_are_read_and_nothing_else_is() {
    let mut params = params("device-7");
    params.subject_alt_names = vec![
        rcgen::SanType::DnsName("Gateway.example.net".try_into().expect("is ASCII")),
        rcgen::SanType::DnsName("gateway.example.net".try_into().expect("is ASCII")),
        rcgen::SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        rcgen::SanType::Rfc822Name("x@example.net".try_into().expect("is ASCII")),
    ];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Any];
    let csr = Csr::parse(&der_of(&params, &key_pair())).expect("is a request");
    let expected = [
        SubjectAlternativeName::Dns("gateway.example.net".to_owned()),
        SubjectAlternativeName::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    ];
    let names = csr.names().certified_by(&names_let_through(), &VALUES);
    assert_eq!(names, Ok(expected.to_vec()));
}

#[test]
fn names_that_mislead_are_refused() {
    let mut wildcard = params("device-7");
    let name = "*.example.net".try_into().expect("is ASCII");
    wildcard.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
    let wildcard = Csr::parse(&der_of(&wildcard, &key_pair())).expect("is a request");
    let certified = wildcard.names().certified_by(&names_let_through(), &VALUES);
    assert_eq!(certified.expect_err("is refused").code(), Code::CsrBadName);
    for bad in [params("a\0b"), params(""), params(&"a".repeat(65))] {
        assert_eq!(refusal(&der_of(&bad, &key_pair())).code(), Code::CsrBadName);
    }
}

#[test]
fn a_request_without_common_name_is_taken_and_one_with_two_is_not() {
    let mut none = params("x");
    none.distinguished_name = rcgen::DistinguishedName::new();
    let csr = Csr::parse(&der_of(&none, &key_pair())).expect("is a request");
    assert_eq!(csr.common_name(), None);

    // rcgen keeps one common name; a second one is made of an OU by its object identifier.
    let mut two = params("device-7");
    two.distinguished_name
        .push(DnType::CustomDnType(vec![2, 5, 4, 11]), "device-8");
    let key = SoftwareKey::generate(KeyType::P256);
    let der = resigned(&der_of(&two, &key_pair()), &key, |info| {
        let unit = info
            .windows(3)
            .position(|octets| octets == [0x55, 0x04, 0x0b]);
        info[unit.expect("has an OU") + 2] = 0x03;
    });
    assert_eq!(refusal(&der).code(), Code::CsrBadName);
}

/// The request with its info changed and its key replaced, signed again with P-256 and SHA-256.
fn resigned(der: &[u8], key: &SoftwareKey, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let request = CertificationRequest::from_der(der).expect("is a request");
    let mut info = request.info.to_der().expect("encodes");
    let spki = key.spki_der();
    let start = info.windows(10).position(|octets| octets == &spki[..10]);
    let start = start.expect("has a key of the same kind");
    info[start..start + spki.len()].copy_from_slice(&spki);
    change(&mut info);
    let signature = key.sign(&info);
    CertificationRequest {
        info: AnyRef::from_der(&info).expect("is DER"),
        algorithm: request.algorithm,
        signature: BitStringRef::from_bytes(&signature).expect("is short"),
    }
    .to_der()
    .expect("encodes")
}

#[test]
fn possession_must_be_proven() {
    let request = CertificationRequest::from_der(&REQUEST).expect("is a request");
    let other = SoftwareKey::generate(KeyType::P256).sign(b"something else");
    let forged = CertificationRequest {
        signature: BitStringRef::from_bytes(&other).expect("is short"),
        ..request
    };
    assert_eq!(
        refusal(&forged.to_der().expect("encodes")).code(),
        Code::CsrBadSignature
    );
}

#[test]
fn sha_1_and_md5_are_refused() {
    let with_sha1 = b"\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01";
    let request = CertificationRequest::from_der(&REQUEST).expect("is a request");
    let weak = CertificationRequest {
        algorithm: AnyRef::from_der(with_sha1).expect("is DER"),
        ..request
    };
    let refusal = refusal(&weak.to_der().expect("encodes"));
    assert_eq!(refusal.code(), Code::CsrUnsupportedAlgorithm);
    assert!(refusal.to_string().contains("sign with ECDSA"), "{refusal}");
}

#[test]
fn rsa_signatures_of_every_taken_form_are_verified() {
    const PSS: &str = "1.2.840.113549.1.1.10";
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("makes a key");
    let der = der_of(&params("device-7"), &key);
    let request = CertificationRequest::from_der(&der).expect("is a request");
    let info = request.info.to_der().expect("encodes");
    let pair = aws_lc_rs::signature::RsaKeyPair::from_pkcs8(key.serialized_der()).expect("reads");
    let forms: [(&'static RsaSignatureEncoding, u8, u8); 3] = [
        (&signing::RSA_PSS_SHA256, 1, 0x20),
        (&signing::RSA_PSS_SHA384, 2, 0x30),
        (&signing::RSA_PSS_SHA512, 3, 0x40),
    ];
    for (encoding, hash, salt) in forms {
        let text = format!(
            "3041 06092a864886f70d01010a 3034 a00f300d060960864801650304020{hash}0500 \
             a11c301a06092a864886f70d010108300d060960864801650304020{hash}0500 a2030201{salt:02x}"
        );
        let algorithm = hex::decode(text.replace(' ', "")).expect("is hex");
        let signature = sign_rsa(&pair, encoding, &info);
        let signed = CertificationRequest {
            info: request.info,
            algorithm: AnyRef::from_der(&algorithm).expect("is DER"),
            signature: BitStringRef::from_bytes(&signature).expect("is short"),
        };
        assert!(
            Csr::parse(&signed.to_der().expect("encodes")).is_ok(),
            "{PSS} {hash}"
        );
    }
}

#[test]
fn der_with_liberties_is_refused() {
    // The outer length in three octets instead of two.
    let mut long = REQUEST.clone();
    assert_eq!(&long[..2], [0x30, 0x81], "a request of 128 to 255 octets");
    long.splice(1..2, [0x82, 0x00]);
    assert!([Code::CsrMalformed, Code::CsrNotCanonical].contains(&refusal(&long).code()));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Csr::parse(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(
        text in "(-----BEGIN |-----END |CERTIFICATE REQUEST-----|[A-Za-z0-9+/=\r\n -]){0,40}",
    ) {
        let _ = Csr::parse(text.as_bytes());
    }

    #[test]
    fn a_flipped_bit_is_refused_or_changes_nothing_that_is_certified(bit in 0..8 * REQUEST.len()) {
        let mut flipped = REQUEST.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(csr) = Csr::parse(&flipped) {
            prop_assert_eq!(Ok(csr), Csr::parse(&REQUEST));
        }
    }
}
