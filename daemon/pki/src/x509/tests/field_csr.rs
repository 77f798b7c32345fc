//! Requests as devices and tools in the field make them, and their neighbours: taken, or refused
//! with the true reason. The files are in `tests/cases/csr`; the others are encoded here.

use super::{SoftwareKey, sign_rsa};
use crate::der_bytes::Der;
use crate::error_code::Code;
use crate::x509::certificate::Certificate;
use crate::x509::csr::{Csr, CsrRefusal};
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::profile::{ExtendedKeyUsage, Profile, SubjectAlternativeNames};
use crate::x509::requested_names::UnprovenCsr;
use crate::x509::{oid, pem, wire};
use aws_lc_rs::signature::{self as signing, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Encode};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::sync::LazyLock;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cases/csr");

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;
const ECDSA_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const NULL: &[u8] = b"\x05\x00";
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";

fn file(name: &str) -> Vec<u8> {
    fs::read(format!("{FOLDER}/{name}")).expect("is a file of the cases")
}

/// Tag, length, contents.
fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let low = |shift: usize| u8::try_from(length >> shift & 0xff).expect("is an octet");
    let header = match length {
        0..0x80 => vec![tag, low(0)],
        0x80..0x100 => vec![tag, 0x81, low(0)],
        _ => vec![tag, 0x82, low(8), low(0)],
    };
    [header, contents.to_vec()].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

fn identifier(dotted: &str) -> Vec<u8> {
    ObjectIdentifier::new_unwrap(dotted)
        .to_der()
        .expect("encodes")
}

static KEY: LazyLock<SoftwareKey> = LazyLock::new(|| SoftwareKey::generate(KeyType::P256));

/// A request for `device-7`, to be changed before it is signed.
struct Draft {
    version: Vec<u8>,
    common_name: (u8, Vec<u8>),
    /// The whole field, or nothing.
    attributes: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            version: tlv(2, &[0]),
            common_name: (0x0c, b"device-7".to_vec()),
            attributes: tlv(ATTRIBUTES, &[]),
            algorithm: sequence(&[ECDSA_SHA256]),
        }
    }
}

impl Draft {
    fn info(&self, spki: &[u8]) -> Vec<u8> {
        let name = tlv(self.common_name.0, &self.common_name.1);
        let subject = sequence(&[&tlv(SET, &sequence(&[COMMON_NAME, &name]))]);
        sequence(&[&self.version, &subject, spki, &self.attributes])
    }

    fn der(&self) -> Vec<u8> {
        self.signed_by(&KEY)
    }

    fn signed_by(&self, key: &SoftwareKey) -> Vec<u8> {
        let info = self.info(&key.spki_der());
        self.with_signature(&info, &key.sign(&info))
    }

    fn with_signature(&self, info: &[u8], signature: &[u8]) -> Vec<u8> {
        let signature = tlv(3, &[&[0], signature].concat());
        sequence(&[info, &self.algorithm, &signature])
    }

    /// One attribute for each list of values.
    fn with_attributes(kinds_and_values: &[(&str, &[&[u8]])]) -> Draft {
        let attribute = |(kind, values): &(&str, &[&[u8]])| {
            sequence(&[&identifier(kind), &tlv(SET, &values.concat())])
        };
        let attributes: Vec<Vec<u8>> = kinds_and_values.iter().map(attribute).collect();
        Draft {
            attributes: tlv(ATTRIBUTES, &attributes.concat()),
            ..Draft::default()
        }
    }

    /// A request for these alternative names, each a whole GeneralName.
    fn with_names(names: &[&[u8]]) -> Draft {
        Draft::with_attributes(&[(RFC, &[&extensions(&[&san(names)])])])
    }
}

const RFC: &str = "1.2.840.113549.1.9.14";
const MICROSOFT: &str = "1.3.6.1.4.1.311.2.1.14";

fn extensions(list: &[&[u8]]) -> Vec<u8> {
    sequence(list)
}

fn san(names: &[&[u8]]) -> Vec<u8> {
    sequence(&[&identifier("2.5.29.17"), &tlv(4, &sequence(names))])
}

fn dns(name: &str) -> Vec<u8> {
    tlv(0x82, name.as_bytes())
}

/// The profile of servers, which certifies names; that of devices does not.
fn server() -> Profile {
    Profile {
        extended_key_usage: vec![ExtendedKeyUsage::ServerAuth],
        subject_alternative_names: SubjectAlternativeNames::DnsAndIp,
        ..Profile::verification()
    }
}

fn device() -> Profile {
    Profile::verification()
}

fn certified(csr: &[u8], profile: &Profile) -> Result<Vec<String>, CsrRefusal> {
    let names = Csr::parse(csr)?.names().certified_by(profile)?;
    Ok(names.iter().map(ToString::to_string).collect())
}

/// The names that a certificate for nothing but `device-7` lacks.
fn dropped(csr: &[u8]) -> Vec<String> {
    let key = KeyPair::generate().expect("makes a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "device-7");
    let certificate = params.self_signed(&key).expect("makes a certificate");
    let certificate = Certificate::parse(certificate.der()).expect("is a certificate");
    Csr::parse(csr)
        .expect("is a request")
        .names()
        .left_out_of(&certificate)
}

fn refused(csr: &[u8], code: Code, words: &str) {
    let refusal = Csr::parse(csr).expect_err(words);
    let text = refusal.to_string();
    assert_eq!(refusal.code(), code, "{text}");
    assert!(text.contains(words), "{words}: {text}");
    for jargon in ["ASN.1", "DER byte", "TLV", "expected", "OBJECT IDENTIFIER"] {
        assert!(!text.contains(jargon), "{text}");
    }
}

#[test]
fn requests_from_the_field_are_read() {
    for (name, common_name) in [
        ("a02-noattrs.csr", "a02-noattrs"),
        ("a03-bmp.csr", "a03-bmp"),
        ("a04-ecnull.csr", "a04-ecnull"),
        ("a11-san-cn.csr", "a11-san-cn"),
        ("a11_san_underscore.csr", "a11_san_underscore"),
        ("a12-bombase64.csr", "a12-bombase64"),
        ("b01-msext.csr", "web-1.plant.example"),
        ("b05-sanip.csr", "b05-sanip"),
        ("c01-pssdefault.csr", "c01-pssdefault"),
        ("c08_string.csr", "c08_string"),
    ] {
        let csr = Csr::parse(&file(name)).expect(name);
        assert_eq!(csr.common_name(), Some(common_name));
        assert_eq!(csr.names().certified_by(&device()), Ok(Vec::new()));
    }
    refused(
        &file("a08-version1.csr"),
        Code::CsrMalformed,
        "version is 1",
    );
    let names = certified(&file("b01-msext.csr"), &server());
    assert_eq!(names, Ok(vec!["DNS:web-1.plant.example".to_owned()]));
}

#[test]
fn ecdsa_signatures_with_null_parameters_are_verified() {
    let with_null = |arc: u8| Draft {
        algorithm: sequence(&[&ECDSA_SHA256[..9], &[arc], NULL]),
        ..Draft::default()
    };
    assert!(Csr::parse(&with_null(2).der()).is_ok());
    // The hash differs from the key's own: the signature cannot match, and the algorithm is read.
    for arc in [3, 4] {
        refused(
            &with_null(arc).der(),
            Code::CsrBadSignature,
            "does not match",
        );
    }
    let p384 = SoftwareKey::generate(KeyType::P384);
    assert!(Csr::parse(&with_null(3).signed_by(&p384)).is_ok());

    let other = Draft {
        algorithm: sequence(&[ECDSA_SHA256, &tlv(4, b"x")]),
        ..Draft::default()
    };
    refused(
        &other.der(),
        Code::CsrUnsupportedAlgorithm,
        "ecdsa-with-SHA256 and parameters",
    );
    let edwards = SoftwareKey::generate(KeyType::Ed25519);
    let ed25519 = |more: &[u8]| Draft {
        algorithm: sequence(&[b"\x06\x03\x2b\x65\x70", more]),
        ..Draft::default()
    };
    assert!(Csr::parse(&ed25519(b"").signed_by(&edwards)).is_ok());
    let with_null = ed25519(NULL).signed_by(&edwards);
    refused(
        &with_null,
        Code::CsrUnsupportedAlgorithm,
        "Ed25519 and parameters",
    );
    let rsa = SoftwareKey::generate(KeyType::Rsa2048);
    let without_null = Draft {
        algorithm: sequence(&[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"]),
        ..Draft::default()
    };
    assert!(Csr::parse(&without_null.signed_by(&rsa)).is_ok());
    let another = without_null.signed_by(&KEY);
    refused(
        &another,
        Code::CsrUnsupportedAlgorithm,
        "does not fit its p256 key",
    );
}

/// Certificates of outside authorities are signed by the same devices and libraries.
#[test]
fn certificates_with_null_parameters_are_verified() {
    let rcgen_key = KeyPair::generate().expect("makes a key");
    let certificate = CertificateParams::default().self_signed(&rcgen_key);
    let certificate = certificate.expect("makes a certificate");
    let read = wire::Signed::from_der(certificate.der()).expect("is a certificate");
    let tbs = read.to_be_signed.to_der().expect("encodes");
    let mut tbs = wire::TbsCertificate::from_der(&tbs).expect("is a certificate");
    let (algorithm, spki) = (sequence(&[ECDSA_SHA256, NULL]), KEY.spki_der());
    tbs.signature = AnyRef::from_der(&algorithm).expect("is DER");
    tbs.subject_public_key_info = AnyRef::from_der(&spki).expect("is DER");
    let tbs = tbs.to_der().expect("encodes");
    let signature = KEY.sign(&tbs);
    let signed = wire::Signed {
        to_be_signed: AnyRef::from_der(&tbs).expect("is DER"),
        signature_algorithm: AnyRef::from_der(&algorithm).expect("is DER"),
        signature: BitStringRef::from_bytes(&signature).expect("is short"),
    };
    let certificate = Certificate::parse(&signed.to_der().expect("encodes")).expect("is read");
    assert_eq!(certificate.verify_issued_by(&KEY.public_key()), Ok(()));
}

#[test]
fn a_common_name_of_every_string_type_is_read() {
    let named = |tag: u8, octets: &[u8]| Draft {
        common_name: (tag, octets.to_vec()),
        ..Draft::default()
    };
    let wide: Vec<u8> = "device_7".bytes().flat_map(|it| [0, it]).collect();
    let wider: Vec<u8> = "device_7".bytes().flat_map(|it| [0, 0, 0, it]).collect();
    for tag in [0x0c, 0x12, 0x13, 0x14, 0x16, 0x1a] {
        let csr = Csr::parse(&named(tag, b"device_7").der()).expect("is a request");
        assert_eq!(csr.common_name(), Some("device_7"), "{tag:#x}");
    }
    for (tag, octets) in [(0x1e, wide), (0x1c, wider)] {
        let csr = Csr::parse(&named(tag, &octets).der()).expect("is a request");
        assert_eq!(csr.common_name(), Some("device_7"), "{tag:#x}");
    }
    for (tag, octets) in [
        (0x14, &b"M\xfcller"[..]),
        (0x1e, b"a"),
        (0x1c, b"abc"),
        (0x0c, b"\xff"),
    ] {
        refused(
            &named(tag, octets).der(),
            Code::CsrBadName,
            "openssl req: -utf8",
        );
    }
}

#[test]
fn attributes_may_be_left_out_and_are_refused_by_name() {
    let with = |attributes: &[u8]| Draft {
        attributes: attributes.to_vec(),
        ..Draft::default()
    };
    let password = tlv(0x13, b"secret");
    let challenge = ("1.2.840.113549.1.9.7", &[&password[..]][..]);
    for draft in [
        with(&[]),
        with(&tlv(ATTRIBUTES, &[])),
        Draft::with_attributes(&[challenge]),
        Draft::with_attributes(&[challenge, challenge]),
        Draft::with_attributes(&[(RFC, &[])]),
        Draft::with_attributes(&[(RFC, &[&extensions(&[])])]),
    ] {
        let csr = Csr::parse(&draft.der()).expect("is a request");
        assert_eq!(csr.names().certified_by(&device()), Ok(Vec::new()));
    }
    for attributes in [
        tlv(SET, &[]),
        tlv(0x80, &[]),
        tlv(ATTRIBUTES, &tlv(SET, &[])),
        tlv(ATTRIBUTES, &[9]),
    ] {
        refused(
            &with(&attributes).der(),
            Code::CsrMalformed,
            "attributes is damaged",
        );
    }
    let damaged = Draft::with_attributes(&[(RFC, &[&tlv(4, b"x")])]);
    refused(
        &damaged.der(),
        Code::CsrMalformed,
        "requested extensions is damaged",
    );
    let two = [tlv(ATTRIBUTES, &[]), tlv(ATTRIBUTES, &[])].concat();
    refused(&with(&two).der(), Code::CsrMalformed, "no PKCS #10");
}

#[test]
fn a_version_other_than_0_is_refused_by_that_word() {
    for (version, words) in [
        (tlv(2, &[1]), "version is 1"),
        (tlv(2, &[2]), "version is 2"),
        (tlv(2, &[0xff]), "its version"),
        (tlv(2, &[1, 0]), "its version"),
        (tlv(2, &[]), "its version"),
        (tlv(4, &[0]), "no version"),
        (Vec::new(), "no version"),
    ] {
        let draft = Draft {
            version,
            ..Draft::default()
        };
        refused(&draft.der(), Code::CsrMalformed, words);
    }
}

/// `RSASSA-PSS-params` with these object identifiers.
fn pss(hash: &str, mask_hash: Option<&str>, salt: &[u8], more: &[u8]) -> Vec<u8> {
    let explicit = |tag: u8, contents: Vec<u8>| tlv(tag, &contents);
    let mask = |hash: &str| {
        let mgf1 = identifier("1.2.840.113549.1.1.8");
        sequence(&[&mgf1, &sequence(&[&identifier(hash), NULL])])
    };
    let parameters = sequence(&[
        &explicit(0xa0, sequence(&[&identifier(hash), more])),
        &mask_hash.map_or_else(Vec::new, |hash| explicit(0xa1, mask(hash))),
        &explicit(0xa2, tlv(2, salt)),
    ]);
    sequence(&[&identifier("1.2.840.113549.1.1.10"), &parameters])
}

#[test]
fn what_is_wrong_with_a_pss_signature_is_named() {
    const SHA1: &str = "1.3.14.3.2.26";
    let (sha256, sha384) = (oid::SHA256.to_string(), oid::SHA384.to_string());
    let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("makes a key");
    let key = SoftwareKey::Rsa(pair);
    let SoftwareKey::Rsa(pair) = &key else {
        unreachable!("it was made two lines above");
    };
    let signed = |algorithm: Vec<u8>| {
        let draft = Draft {
            algorithm,
            ..Draft::default()
        };
        let info = draft.info(&key.spki_der());
        draft.with_signature(&info, &sign_rsa(pair, &signing::RSA_PSS_SHA256, &info))
    };
    for without_null in [NULL, b""] {
        assert!(Csr::parse(&signed(pss(&sha256, Some(&sha256), &[32], without_null))).is_ok());
    }
    let other_salt = signed(pss(&sha256, Some(&sha256), &[20], NULL));
    refused(&other_salt, Code::CsrBadSignature, "does not match");
    for (algorithm, words) in [
        (
            pss(SHA1, Some(SHA1), &[32], NULL),
            "over id-sha1; sign over SHA-256",
        ),
        (pss(&sha256, Some(SHA1), &[32], NULL), "rsa_mgf1_md"),
        (pss(&sha256, Some(&sha384), &[32], NULL), "rsa_mgf1_md"),
        (pss(&sha256, None, &[32], NULL), "rsa_mgf1_md"),
        (
            sequence(&[&identifier("1.2.840.113549.1.1.10")]),
            "readable parameters",
        ),
        (
            sequence(&[&identifier("1.2.840.113549.1.1.10"), &sequence(&[])]),
            "over SHA-1",
        ),
        (
            sequence(&[&identifier("1.2.840.113549.1.1.5"), NULL]),
            "sha1WithRSAEncryption",
        ),
    ] {
        refused(&signed(algorithm), Code::CsrUnsupportedAlgorithm, words);
    }
}

#[test]
fn a_profile_without_names_takes_every_name_and_lists_it() {
    let upn = sequence(&[
        &identifier("1.3.6.1.4.1.311.20.2.3"),
        &tlv(0xa0, &tlv(0x0c, b"x")),
    ]);
    let directory = sequence(&[&tlv(SET, &sequence(&[COMMON_NAME, &tlv(0x0c, b"x")]))]);
    for (name, shown) in [
        (dns("device_7"), "DNS:device_7"),
        (dns("CN=device-7"), "DNS:CN=device-7"),
        (dns("*.example.net"), "DNS:*.example.net"),
        (dns("gate.example"), "DNS:gate.example"),
        (dns("a\nb\x1b"), "DNS:a\u{fffd}b\u{fffd}"),
        (tlv(0x82, b"\xff"), "DNS:\u{fffd}"),
        (tlv(0x87, &[10, 0, 0, 1]), "IP:10.0.0.1"),
        (
            tlv(0x87, &[10, 0, 0, 1, 255, 0, 0, 0]),
            "IP:0a000001ff000000",
        ),
        (tlv(0x87, b"10.0.0.7"), "IP:10.0.0.7"),
        (tlv(0x81, b"x@example.net"), "email:x@example.net"),
        (tlv(0x86, b"urn:x"), "URI:urn:x"),
        (tlv(0x88, &[0x2a, 3]), "RID:1.2.3"),
        (tlv(0xa0, &upn[2..]), "otherName:1.3.6.1.4.1.311.20.2.3"),
        (tlv(0xa4, &directory), "dirName:CN=x"),
        (tlv(0xa3, b""), "X400Name:"),
        (tlv(0xa5, b""), "EdiPartyName:"),
        (tlv(0x04, b"x"), "unknown:0478"),
    ] {
        let csr = Draft::with_names(&[&name]).der();
        assert_eq!(certified(&csr, &device()), Ok(Vec::new()));
        assert_eq!(dropped(&csr), [shown]);
    }
    let csr = Draft::with_names(&[]).der();
    assert_eq!(dropped(&csr), [""; 0]);
    let many: Vec<Vec<u8>> = (0..40).map(|number| dns(&format!("a-{number}"))).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let many = dropped(&Draft::with_names(&many).der());
    assert_eq!((many.len(), &many[32][..]), (33, "and 8 more"));
    let long = dropped(&Draft::with_names(&[&dns(&"a".repeat(500))]).der());
    assert_eq!(long[0].chars().count(), 129, "{long:?}");
}

#[test]
fn a_server_needs_a_name_that_can_be_certified() {
    let good = dns("Gate.example");
    let names = [
        &good[..],
        &tlv(0x81, b"x@example.net"),
        &tlv(0x87, &[10, 0, 0, 1]),
    ];
    let csr = Draft::with_names(&names).der();
    let both = vec!["DNS:gate.example".to_owned(), "IP:10.0.0.1".to_owned()];
    assert_eq!(certified(&csr, &server()), Ok(both));
    for name in [
        dns("device_7"),
        dns("*.example.net"),
        dns("CN=x"),
        tlv(0x87, &[1; 8]),
    ] {
        let refusal = certified(&Draft::with_names(&[&good, &name]).der(), &server());
        assert_eq!(refusal.expect_err("is refused").code(), Code::CsrBadName);
    }
    for csr in [
        Draft::default().der(),
        Draft::with_names(&[]).der(),
        Draft::with_names(&[&tlv(0x81, b"x@example.net")]).der(),
    ] {
        let refusal = certified(&csr, &server()).expect_err("is refused");
        assert_eq!(refusal.code(), Code::CsrWithoutNames);
        assert!(refusal.to_string().contains("-addext"), "{refusal}");
        assert_eq!(certified(&csr, &device()), Ok(Vec::new()));
    }
    let no_names = Profile {
        subject_alternative_names: SubjectAlternativeNames::None,
        ..server()
    };
    let refusal = certified(&Draft::with_names(&[&good]).der(), &no_names);
    let refusal = refusal.expect_err("is refused").to_string();
    assert!(refusal.contains("dns_and_ip"), "{refusal}");
    let both_sides = Profile {
        extended_key_usage: vec![ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth],
        ..no_names
    };
    assert_eq!(
        certified(&Draft::default().der(), &both_sides),
        Ok(Vec::new())
    );
}

#[test]
fn names_are_read_under_either_identifier_and_must_agree() {
    let one = extensions(&[&san(&[&dns("one.example")])]);
    let other = extensions(&[&san(&[&dns("two.example")])]);
    let usage = extensions(&[&sequence(&[
        &identifier("2.5.29.15"),
        &tlv(4, &tlv(3, &[7, 128])),
    ])]);
    let taken = Ok(vec!["DNS:one.example".to_owned()]);
    for attributes in [
        &[(RFC, &[&one[..]][..])][..],
        &[(MICROSOFT, &[&one])],
        &[(RFC, &[&one]), (MICROSOFT, &[&one])],
        &[(MICROSOFT, &[&one]), (RFC, &[&usage])],
        &[(RFC, &[&one]), (RFC, &[&one])],
        &[(RFC, &[&one, &usage])],
        &[(MICROSOFT, &[]), (RFC, &[&one])],
    ] {
        let csr = Draft::with_attributes(attributes).der();
        assert_eq!(certified(&csr, &server()), taken);
    }
    let twice_in_one = extensions(&[&san(&[&dns("one.example")]), &san(&[&dns("two.example")])]);
    for attributes in [
        &[(RFC, &[&one[..]][..]), (MICROSOFT, &[&other])][..],
        &[(RFC, &[&one]), (RFC, &[&other])],
        &[(RFC, &[&one, &other])],
        &[(RFC, &[&twice_in_one])],
    ] {
        let csr = Draft::with_attributes(attributes).der();
        let refusal = certified(&csr, &server()).expect_err("is refused");
        assert!(
            refusal.to_string().contains("two different lists"),
            "{refusal}"
        );
        assert_eq!(certified(&csr, &device()), Ok(Vec::new()));
        assert_eq!(dropped(&csr), ["DNS:one.example", "DNS:two.example"]);
    }
    let damaged = extensions(&[&sequence(&[&identifier("2.5.29.17"), &tlv(4, b"x")])]);
    let damaged = Draft::with_attributes(&[(RFC, &[&damaged])]).der();
    refused(&damaged, Code::CsrMalformed, "alternative names is damaged");
}

#[test]
fn a_request_is_read_from_every_kind_of_file() {
    let der = Draft::default().der();
    let expected = Csr::parse(&der);
    let pem = pem::encode("CERTIFICATE REQUEST", &der);
    let base64 = STANDARD.encode(&der);
    let with_headers = pem.replacen("-----\n", "-----\nComment: x\nKey-Slot: 9\n\n", 1);
    let low = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let high = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect::<Vec<u8>>()
    };
    let mark = |octets: &[u8]| [b"\xef\xbb\xbf", octets].concat();
    for bytes in [
        pem.clone().into_bytes(),
        mark(pem.as_bytes()),
        mark(base64.as_bytes()),
        mark(&der),
        [b"\xff\xfe", &low(&pem)[..]].concat(),
        [b"\xfe\xff", &high(&pem)[..]].concat(),
        low(&pem),
        high(&base64),
        [b"\xff\xfe", &low(&base64)[..]].concat(),
        pem.replace('\n', "\r\n").into_bytes(),
        pem.replace('\n', "\r").into_bytes(),
        pem.replace('\n', " ").into_bytes(),
        pem.replace("CERTIFICATE", "NEW CERTIFICATE").into_bytes(),
        [b"Anfrage M\xfcller\n", pem.as_bytes(), b"Gr\xfc\xdfe"].concat(),
        format!("0 Request:\n{pem}\n\x1a").into_bytes(),
        with_headers.clone().into_bytes(),
        with_headers.replace('\n', "\r\n").into_bytes(),
        URL_SAFE.encode(&der).into_bytes(),
        base64.trim_end_matches('=').as_bytes().to_vec(),
        format!(" \t\r\n{base64}\n\n").into_bytes(),
        STANDARD.encode(&pem).into_bytes(),
        STANDARD
            .encode([b"\xff\xfe", &low(&pem)[..]].concat())
            .into_bytes(),
    ] {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(Csr::parse(&bytes), expected, "{shown}");
        assert_eq!(
            UnprovenCsr::read(&bytes).expect("is read").der,
            Der::from(der.clone())
        );
    }
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let der = Draft::default().der();
    let pem = pem::encode("CERTIFICATE REQUEST", &der);
    let base64 = STANDARD.encode(&der);
    let certificate = CertificateParams::default()
        .self_signed(&KeyPair::generate().expect("makes a key"))
        .expect("makes a certificate");
    for (bytes, words) in [
        (Vec::new(), "it is empty"),
        (b"\xef\xbb\xbf\n".to_vec(), "it is empty"),
        (b"hello world".to_vec(), "neither PEM nor complete base64"),
        (b"\x01\x02\x00\x03".to_vec(), "neither DER nor text"),
        (der[..100].to_vec(), "it ends early"),
        ([&der[..], b"\n"].concat(), "1 bytes follow its end"),
        (
            STANDARD.encode([&der[..], b"xy"].concat()).into_bytes(),
            "2 bytes follow",
        ),
        (
            [&pem[..], &pem].concat().into_bytes(),
            "more than one request",
        ),
        (
            pem.replace("-----END", "----END").into_bytes(),
            "no END line",
        ),
        (
            pem::encode("CERTIFICATE", &der).into_bytes(),
            "it holds CERTIFICATE, and no",
        ),
        (
            pem::encode("EC PRIVATE KEY", b"x").into_bytes(),
            "it holds EC PRIVATE KEY, and no",
        ),
        (certificate.der().to_vec(), "no PKCS #10"),
        (
            pem.replace('\n', "\\n").into_bytes(),
            "the character '\\\\'",
        ),
        (base64.replace('o', "%").into_bytes(), "the character '%'"),
        (
            format!("{base64}A=").into_bytes(),
            "neither PEM nor complete base64",
        ),
    ] {
        refused(&bytes, Code::CsrMalformed, words);
    }
    // BER with an indefinite length.
    let indefinite = [&[SEQUENCE, 0x80], &der[3..], &[0, 0]].concat();
    refused(&indefinite, Code::CsrNotCanonical, "as PKCS #10 prescribes");
}

#[test]
fn what_is_wrong_with_a_key_is_named() {
    let refusal = |spki: &[u8]| {
        let refusal = PublicKey::from_spki_der(spki).expect_err("is refused");
        refusal.to_string()
    };
    let spki = KEY.spki_der();
    let point = &spki[spki.len() - 65..];
    let bits = |octets: &[u8]| tlv(3, &[&[0], octets].concat());
    let ec = identifier("1.2.840.10045.2.1");
    let p256 = identifier("1.2.840.10045.3.1.7");
    let compressed = [&[2], &point[1..33]].concat();
    let rsa = SoftwareKey::generate(KeyType::Rsa2048).spki_der();
    let rsa = &rsa[rsa.len() - 270..];
    for (spki, words) in [
        (
            sequence(&[&sequence(&[&ec, &p256]), &bits(&compressed)]),
            "compressed",
        ),
        (
            sequence(&[&sequence(&[&ec, &sequence(&[])]), &bits(point)]),
            "ec_param_enc:named_curve",
        ),
        (
            sequence(&[
                &sequence(&[&identifier("1.2.840.113549.1.1.1")]),
                &bits(rsa),
            ]),
            "NULL",
        ),
        (
            sequence(&[
                &sequence(&[&identifier("1.2.840.113549.1.1.10")]),
                &bits(rsa),
            ]),
            "RSASSA-PSS",
        ),
        (b"\x30\x00".to_vec(), "damaged"),
    ] {
        let refusal = refusal(&spki);
        assert!(refusal.contains(words), "{words}: {refusal}");
    }
}

proptest! {
    /// Whatever the attributes hold, a request that is taken is certified with readable names.
    #[test]
    fn attributes_of_every_content_are_taken_or_refused(
        octets in proptest::collection::vec(any::<u8>(), 0..80),
        kind in prop::sample::select(vec![RFC, MICROSOFT, "1.2.3"]),
        depth in 0..4,
    ) {
        let draft = match depth {
            0 => Draft { attributes: tlv(ATTRIBUTES, &octets), ..Draft::default() },
            1 => Draft::with_attributes(&[(kind, &[&octets])]),
            2 => Draft::with_attributes(&[(kind, &[&extensions(&[&octets])])]),
            _ => Draft::with_names(&[&octets]),
        };
        let der = draft.der();
        if let Ok(csr) = Csr::parse(&der) {
            prop_assert_eq!(csr.common_name(), Some("device-7"));
            let names = csr.names().certified_by(&server()).unwrap_or_default();
            for name in names {
                prop_assert!(name.to_string().chars().all(|it| !it.is_control()));
            }
            prop_assert_eq!(UnprovenCsr::read(&der).expect("is read").names, csr.names().clone());
        }
    }

    #[test]
    fn signature_algorithms_of_every_content_are_taken_or_refused(
        octets in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        for prefix in [ECDSA_SHA256, &identifier("1.2.840.113549.1.1.10")] {
            let draft = Draft { algorithm: sequence(&[prefix, &octets]), ..Draft::default() };
            let _ = Csr::parse(&draft.der());
        }
    }
}
