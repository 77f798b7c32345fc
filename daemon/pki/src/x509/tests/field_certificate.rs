//! Certificates of authorities elsewhere, as tools in the field make them: read, or refused with
//! the true reason.

use super::field_csr::{ECDSA_SHA256, KEY, SET, identifier, long_identifiers, sequence, tlv};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::parse_first;
use crate::x509::certificate::Certificate;
use crate::x509::constraints;
use crate::x509::name::Subject;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A root, to be changed before it is signed. Each field is whole.
struct Draft {
    version: Vec<u8>,
    serial: Vec<u8>,
    algorithm: Vec<u8>,
    name: Vec<u8>,
    validity: Vec<u8>,
    /// Fields between the public key and the extensions.
    before_extensions: Vec<u8>,
    extensions: Vec<Vec<u8>>,
    after_extensions: Vec<u8>,
}

impl Default for Draft {
    fn default() -> Self {
        let extension = |id, value: &[u8]| sequence(&[&identifier(id), &tlv(4, value)]);
        Draft {
            version: tlv(0xa0, &tlv(2, &[2])),
            serial: tlv(2, &[9]),
            algorithm: sequence(&[ECDSA_SHA256]),
            name: name(&identifier("2.5.4.3"), &tlv(0x0c, b"Old Root")),
            validity: validity((UTC_TIME, "200101000000Z"), (UTC_TIME, "491231235959Z")),
            before_extensions: Vec::new(),
            extensions: vec![
                extension("2.5.29.19", &sequence(&[&tlv(1, &[0xff])])),
                extension("2.5.29.15", &tlv(3, &[1, 6])),
                extension("2.5.29.14", &tlv(4, &[7; 20])),
            ],
            after_extensions: Vec::new(),
        }
    }
}

fn name(kind: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[&tlv(SET, &sequence(&[kind, value]))])
}

fn validity(begin: (u8, &str), end: (u8, &str)) -> Vec<u8> {
    sequence(
        &[begin, end]
            .map(|(tag, text)| tlv(tag, text.as_bytes()))
            .each_ref()
            .map(|it| &it[..]),
    )
}

impl Draft {
    fn der(&self) -> Vec<u8> {
        let signed = sequence(&[
            &self.version,
            &self.serial,
            &self.algorithm,
            &self.name,
            &self.validity,
            &self.name,
            &KEY.spki_der(),
            &self.before_extensions,
            &tlv(0xa3, &sequence(&[&self.extensions.concat()])),
            &self.after_extensions,
        ]);
        let signature = tlv(3, &[&[0], &KEY.sign(&signed)[..]].concat());
        sequence(&[&signed, &self.algorithm, &signature])
    }

    fn read(&self) -> Certificate {
        let read = Certificate::parse(&self.der()).expect("is a certificate");
        assert_eq!(read.verify_issued_by(&KEY.public_key()), Ok(()));
        assert!(read.may_sign_certificates() && read.may_sign_crls());
        read
    }

    fn is_refused(&self, words: &str) {
        let refusal = parse_first(&self.der()).expect_err(words).to_string();
        assert!(refusal.contains(words), "{words}: {refusal}");
    }
}

/// A clock without a battery begins in 1970, and some authorities wrote earlier years on purpose.
#[test]
fn dates_before_1970_are_read() {
    let end = (UTC_TIME, "491231235959Z");
    for (begin, seconds) in [
        ((UTC_TIME, "700101000000Z"), 0),
        ((UTC_TIME, "691231235959Z"), -1),
        ((UTC_TIME, "500101000000Z"), -631_152_000),
        ((GENERALIZED_TIME, "19000228120000Z"), -2_203_934_400),
        ((GENERALIZED_TIME, "16010101000000Z"), -11_644_473_600),
        ((UTC_TIME, "200229000000Z"), 1_582_934_400),
    ] {
        let draft = Draft {
            validity: validity(begin, end),
            ..Draft::default()
        };
        let read = draft.read();
        assert_eq!(read.not_before(), UnixSeconds::new(seconds), "{begin:?}");
        assert_eq!(read.not_after(), UnixSeconds::new(2_524_607_999));
    }
    for begin in [
        (UTC_TIME, "2001010000Z"),
        (UTC_TIME, "200101000000"),
        (UTC_TIME, "200101000000+0000"),
        (UTC_TIME, "200230000000Z"),
        (UTC_TIME, "201301000000Z"),
        (UTC_TIME, "200101240000Z"),
        (UTC_TIME, "200101000060Z"),
        (UTC_TIME, "2001010000.0Z"),
        (GENERALIZED_TIME, "20200101000000.5Z"),
        (GENERALIZED_TIME, "200101000000Z"),
        (0x0c, "200101000000Z"),
    ] {
        let draft = Draft {
            validity: validity(begin, end),
            ..Draft::default()
        };
        draft.is_refused("its validity is not");
    }
}

/// The names of an authority, and its extensions, are its own affair.
#[test]
fn identifiers_and_string_types_of_every_kind_are_read() {
    let wide: Vec<u8> = "Werk".bytes().flat_map(|it| [0, it]).collect();
    let wider: Vec<u8> = "Werk".bytes().flat_map(|it| [0, 0, 0, it]).collect();
    let common_name = identifier("2.5.4.3");
    for (tag, octets) in [
        (0x0c, &b"Werk"[..]),
        (0x12, b"Werk"),
        (0x13, b"Werk"),
        (0x14, b"Werk"),
        (0x16, b"Werk"),
        (0x1a, b"Werk"),
        (0x1c, &wider),
        (0x1e, &wide),
    ] {
        let draft = Draft {
            name: name(&common_name, &tlv(tag, octets)),
            ..Draft::default()
        };
        let read = draft.read();
        assert_eq!(read.subject(), "CN=Werk", "{tag:#x}");
        assert_eq!(read.issuer(), "CN=Werk", "{tag:#x}");
        // The next certificate of the authority has this name.
        let kept = Subject::of_predecessor(read.subject_der()).expect("is kept");
        assert_eq!(kept.to_der(), *read.subject_der());
    }
    for id in long_identifiers() {
        let mut draft = Draft {
            name: name(&id, &tlv(0x0c, b"a, b")),
            ..Draft::default()
        };
        let extension = |critical: &[u8]| sequence(&[&id, critical, &tlv(4, &[])]);
        draft.extensions.push(extension(&[]));
        let read = draft.read();
        assert!(read.subject().ends_with("=a\\, b"), "{}", read.subject());
        assert!(Subject::of_predecessor(read.subject_der()).is_ok());
        assert_eq!(constraints::objection(&read, &[]), Ok(None));
        draft.extensions.push(extension(&tlv(1, &[0xff])));
        let objection = constraints::objection(&draft.read(), &[]).expect("is read");
        let objection = objection.expect("verifiers refuse all below it");
        assert!(objection.contains("(critical)"), "{objection}");
    }
}

#[test]
fn unique_identifiers_are_no_obstacle_and_unknown_fields_are_named() {
    let both = [tlv(0x81, &[0, 1]), tlv(0x82, &[0, 2])].concat();
    let with = |before: Vec<u8>, after: Vec<u8>| Draft {
        before_extensions: before,
        after_extensions: after,
        ..Draft::default()
    };
    with(both, Vec::new()).read();
    let unknown = "a field that RFC 5280 does not have";
    for (before, after) in [
        (tlv(5, &[]), Vec::new()),
        (Vec::new(), tlv(5, &[])),
        (Vec::new(), tlv(0xa3, &sequence(&[]))),
        (tlv(0x82, &[0]).repeat(2), Vec::new()),
        ([tlv(0x82, &[0]), tlv(0x81, &[0])].concat(), Vec::new()),
        (tlv(0xa4, &sequence(&[])), Vec::new()),
    ] {
        with(before, after).is_refused(unknown);
    }
}

#[test]
fn the_field_that_cannot_be_read_is_named() {
    let wrong = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::default();
        change(&mut draft);
        draft
    };
    for (draft, words) in [
        (
            wrong(&|it| it.version = tlv(0xa0, &tlv(2, &[3]))),
            "its version is",
        ),
        (wrong(&|it| it.version = tlv(0xa0, &[])), "its version is"),
        (wrong(&|it| it.serial = tlv(2, &[])), "serial number"),
        (wrong(&|it| it.serial = tlv(4, &[1])), "serial number"),
        (wrong(&|it| it.serial = tlv(2, &[0, 9])), "serial number"),
        (
            wrong(&|it| it.name = sequence(&[&tlv(2, &[1])])),
            "its subject is",
        ),
        (
            wrong(&|it| it.extensions.push(tlv(SET, &[]))),
            "its list of extensions is",
        ),
        (
            wrong(&|it| it.extensions.push(it.extensions[0].clone())),
            "its basic constraints are",
        ),
    ] {
        draft.is_refused(words);
    }
    let der = Draft::default().der();
    let indefinite = [&[0x30, 0x80], &der[4..], &[0, 0]].concat();
    let long = [&[0x30, 0x83, 0], &der[2..]].concat();
    for der in [indefinite, long] {
        let refusal = parse_first(&der).expect_err("is no DER").to_string();
        assert!(refusal.contains("in another way"), "{refusal}");
    }
}
