//! Requests as devices and tools in the field make them, and their neighbours: taken, or refused
//! with the true reason. The files are in `tests/cases/csr`; the others are encoded here.

mod file;
mod name;
mod signature;

use super::{SoftwareKey, VALUES, sign_rsa};
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
pub(super) const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;
pub(super) const ECDSA_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const NULL: &[u8] = b"\x05\x00";
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";

fn file(name: &str) -> Vec<u8> {
    fs::read(format!("{FOLDER}/{name}")).expect("is a file of the cases")
}

/// Tag, length, contents.
pub(super) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let low = |shift: usize| u8::try_from(length >> shift & 0xff).expect("is an octet");
    let header = match length {
        0..0x80 => vec![tag, low(0)],
        0x80..0x100 => vec![tag, 0x81, low(0)],
        _ => vec![tag, 0x82, low(8), low(0)],
    };
    [header, contents.to_vec()].concat()
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

pub(super) fn identifier(dotted: &str) -> Vec<u8> {
    ObjectIdentifier::new_unwrap(dotted)
        .to_der()
        .expect("encodes")
}

/// Identifiers whose numbers are beyond what libraries count to: that of a UUID (X.667), and a long
/// one.
pub(super) fn long_identifiers() -> [Vec<u8>; 3] {
    let uuid = "6983f09da7ebcfdee0c7a1a7b2c0948cc8f9d776";
    let long = [&[0x2b, 6, 1, 4, 1][..], &[0x83, 0xf4, 0x48].repeat(12)].concat();
    let wide = "2b06010401a4e5c0ad6a";
    let of_hex = |it| hex::decode(it).expect("is hex");
    [of_hex(uuid), long, of_hex(wide)].map(|contents| tlv(6, &contents))
}

pub(super) static KEY: LazyLock<SoftwareKey> =
    LazyLock::new(|| SoftwareKey::generate(KeyType::P256));

/// A request for `device-7`, to be changed before it is signed.
struct Draft {
    version: Vec<u8>,
    common_name: (u8, Vec<u8>),
    /// More sets of the subject.
    more_names: Vec<u8>,
    /// The whole field, or nothing.
    attributes: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            version: tlv(2, &[0]),
            common_name: (0x0c, b"device-7".to_vec()),
            more_names: Vec::new(),
            attributes: tlv(ATTRIBUTES, &[]),
            algorithm: sequence(&[ECDSA_SHA256]),
        }
    }
}

impl Draft {
    fn info(&self, spki: &[u8]) -> Vec<u8> {
        let name = tlv(self.common_name.0, &self.common_name.1);
        let common_name = tlv(SET, &sequence(&[COMMON_NAME, &name]));
        let subject = sequence(&[&common_name, &self.more_names]);
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
        subject_alternative_names: SubjectAlternativeNames::dns_and_ip(),
        ..Profile::verification()
    }
}

fn device() -> Profile {
    Profile::verification()
}

fn certified(csr: &[u8], profile: &Profile) -> Result<Vec<String>, CsrRefusal> {
    let names = Csr::parse(csr)?.names().certified_by(profile, &VALUES)?;
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
        assert_eq!(csr.names().certified_by(&device(), &VALUES), Ok(Vec::new()));
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
        assert_eq!(csr.names().certified_by(&device(), &VALUES), Ok(Vec::new()));
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
            "damaged in its attributes",
        );
    }
    let damaged = Draft::with_attributes(&[(RFC, &[&tlv(4, b"x")])]);
    refused(
        &damaged.der(),
        Code::CsrMalformed,
        "damaged in its requested extensions",
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

/// Attributes, names and extensions of an organisation's own are left out, by any identifier.
#[test]
fn identifiers_of_every_size_are_taken() {
    for id in long_identifiers() {
        let text = tlv(0x0c, b"x");
        let attribute = sequence(&[&id, &tlv(SET, &text)]);
        let extension = sequence(&[&id, &tlv(4, &text)]);
        let with_extensions = Draft::with_attributes(&[(
            RFC,
            &[&extensions(&[&extension, &san(&[&dns("gate.example")])])],
        )]);
        let server_names = certified(&with_extensions.der(), &server());
        assert_eq!(server_names, Ok(vec!["DNS:gate.example".to_owned()]));
        for draft in [
            with_extensions,
            Draft {
                attributes: tlv(ATTRIBUTES, &attribute),
                ..Draft::default()
            },
            Draft {
                more_names: tlv(SET, &sequence(&[&id, &text])),
                ..Draft::default()
            },
        ] {
            let csr = Csr::parse(&draft.der()).expect("is a request");
            assert_eq!(csr.common_name(), Some("device-7"));
            let left_out = dropped(&draft.der());
            assert!(left_out.iter().all(|it| !it.contains('#')), "{left_out:?}");
        }
    }
    let uuid = Draft {
        more_names: tlv(SET, &sequence(&[&long_identifiers()[0], &tlv(0x0c, b"x")])),
        ..Draft::default()
    };
    let shown = "2.25.329800735698586629295641978511506172918=x";
    assert_eq!(dropped(&uuid.der()), [shown]);
}

/// `critical` has two values. Readers of BER take others for TRUE.
#[test]
fn extensions_of_another_form_are_refused() {
    let part = |more: &[u8]| sequence(&[&identifier("1.2.3"), more, &tlv(4, b"x")]);
    for good in [part(&[]), part(b"\x01\x01\xff"), part(b"\x01\x01\x00")] {
        let draft = Draft::with_attributes(&[(RFC, &[&extensions(&[&good])])]);
        assert!(Csr::parse(&draft.der()).is_ok());
    }
    let damaged = "damaged in its requested extensions";
    for (bad, code, words) in [
        (
            part(b"\x01\x01\x01"),
            Code::CsrNotCanonical,
            "as PKCS #10 prescribes",
        ),
        (part(b"\x01\x00"), Code::CsrMalformed, damaged),
        (part(b"\x02\x01\x00"), Code::CsrMalformed, damaged),
        (part(&tlv(4, b"y").repeat(2)), Code::CsrMalformed, damaged),
        (
            sequence(&[&identifier("1.2.3"), &sequence(&[])]),
            Code::CsrMalformed,
            damaged,
        ),
        (
            sequence(&[&tlv(6, &[0x81]), &tlv(4, b"x")]),
            Code::CsrMalformed,
            damaged,
        ),
        (tlv(SET, &part(&[])[2..]), Code::CsrMalformed, damaged),
    ] {
        let draft = Draft::with_attributes(&[(RFC, &[&extensions(&[&bad])])]);
        refused(&draft.der(), code, words);
    }
}
