//! Requests for the certificates of authorities elsewhere, good and bad.

use super::{SoftwareKey, field_csr};
use crate::error_code::Code;
use crate::x509::authority_csr::{AuthorityCsr, SUBJECT_BYTES_MAX};
use crate::x509::csr::CSR_BYTES_MAX;
use crate::x509::key::KeyType;
use crate::x509::profile::{KeyUsage, Preset, Profile};
use field_csr::{ECDSA_SHA256, identifier, sequence, tlv};
use proptest::prelude::*;
use std::sync::LazyLock;

static KEY: LazyLock<SoftwareKey> = LazyLock::new(|| SoftwareKey::generate(KeyType::P256));

const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const KEY_USAGE: &str = "2.5.29.15";

fn common_name(text: &str) -> Vec<u8> {
    let value = tlv(0x0c, text.as_bytes());
    tlv(0x31, &sequence(&[&identifier("2.5.4.3"), &value]))
}

/// An extension with this DER value.
fn extension(id: &str, value: &[u8]) -> Vec<u8> {
    sequence(&[&identifier(id), &tlv(4, value)])
}

/// A signed request with this subject and these extensions.
fn request(subject: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let list = sequence(&[&extensions.concat()]);
    let attribute = sequence(&[&identifier("1.2.840.113549.1.9.14"), &tlv(0x31, &list)]);
    let attributes = tlv(0xa0, &attribute);
    let info = sequence(&[&tlv(2, &[0]), subject, &KEY.spki_der(), &attributes]);
    let signature = tlv(3, &[&[0], &KEY.sign(&info)[..]].concat());
    sequence(&[&info, &sequence(&[ECDSA_SHA256]), &signature])
}

fn named(extensions: &[Vec<u8>]) -> Vec<u8> {
    request(&sequence(&[&common_name("Gateway 7")]), extensions)
}

fn code(der: &[u8]) -> Code {
    AuthorityCsr::parse(der).expect_err("is refused").code()
}

fn ca(path_length: Option<u8>) -> Vec<u8> {
    let length = path_length.map_or_else(Vec::new, |it| tlv(2, &[it]));
    extension(BASIC_CONSTRAINTS, &sequence(&[&tlv(1, &[0xff]), &length]))
}

fn usage(bits: u8) -> Vec<u8> {
    extension(KEY_USAGE, &tlv(3, &[0, bits]))
}

#[test]
fn a_request_is_read_with_its_subject_octet_by_octet() {
    let subject = sequence(&[&tlv(
        0x31,
        &sequence(&[&identifier("2.5.4.3"), &tlv(0x1e, &[0, b'G', 0, b'7'])]),
    )]);
    let csr = AuthorityCsr::parse(&request(&subject, &[ca(Some(0))])).expect("is read");
    assert_eq!(*csr.subject().to_der(), *subject);
    assert_eq!(csr.subject().label(), "G7");
    assert_eq!(csr.conflict(&Preset::Intermediate.profile()), None);
    assert!(csr.left_out().is_empty());
}

#[test]
fn a_request_for_more_than_the_profile_gives_conflicts() {
    let profile = Preset::Intermediate.profile();
    let registry = Preset::AdrIntermediate.profile();
    let conflict = |extensions: &[Vec<u8>], profile: &Profile| {
        let csr = AuthorityCsr::parse(&named(extensions)).expect("is read");
        csr.conflict(profile)
    };
    let leaf = extension(BASIC_CONSTRAINTS, &sequence(&[]));
    for (extensions, words) in [
        (vec![leaf], Some("CA:FALSE")),
        (vec![ca(Some(1))], Some("path length 1")),
        (vec![ca(Some(127))], Some("path length 127")),
        (vec![usage(0x86)], Some("digital_signature")),
        (vec![usage(0x46)], Some("nonRepudiation")),
        (vec![usage(0x07)], Some("encipherOnly")),
        (vec![ca(Some(0)), usage(0x06)], None),
        (vec![ca(None), usage(0x04)], None),
        (Vec::new(), None),
    ] {
        let found = conflict(&extensions, &profile);
        assert_eq!(found.is_some(), words.is_some(), "{found:?} {words:?}");
        let found = found.unwrap_or_default();
        assert!(found.contains(words.unwrap_or_default()), "{found}");
    }
    assert!(registry.key_usage.contains(&KeyUsage::DigitalSignature));
    assert_eq!(conflict(&[usage(0x86)], &registry), None);
    let unlimited = Profile::authority(None, 86_400);
    assert_eq!(conflict(&[ca(Some(3))], &unlimited), None);
}

#[test]
fn what_no_profile_has_a_place_for_is_listed() {
    let unknown = |last: u8| extension(&format!("1.2.3.{last}"), &tlv(5, &[]));
    let names: Vec<Vec<u8>> = (0..20).map(unknown).collect();
    let csr = AuthorityCsr::parse(&named(&names)).expect("is read");
    assert_eq!(csr.left_out().len(), 17);
    assert_eq!(csr.left_out()[0], "1.2.3.0");
    assert_eq!(csr.left_out()[16], "and 4 more");
    let own = tlv(4, &KEY.public_key().key_identifier());
    let own = extension("2.5.29.14", &own);
    let csr = AuthorityCsr::parse(&named(&[own])).expect("is read");
    assert!(csr.left_out().is_empty());
}

#[test]
fn a_request_that_cannot_be_read_is_refused() {
    assert_eq!(code(&named(&[ca(None), ca(None)])), Code::CsrMalformed);
    assert_eq!(
        code(&named(&[extension(KEY_USAGE, &[1])])),
        Code::CsrMalformed
    );
    assert_eq!(code(&request(&sequence(&[]), &[])), Code::CsrBadName);
    let shown = |text: &str| request(&sequence(&[&common_name(text)]), &[]);
    assert_eq!(code(&shown("a\u{7}b")), Code::CsrBadName);
    assert_eq!(code(&shown(" ")), Code::CsrBadName);
    assert_eq!(
        code(&shown(&"x".repeat(SUBJECT_BYTES_MAX))),
        Code::CsrBadName
    );
    let mut other = named(&[]);
    let last = other.len() - 1;
    other[last] ^= 1;
    assert_eq!(code(&other), Code::CsrBadSignature);
    assert_eq!(code(&vec![0x30; CSR_BYTES_MAX + 1]), Code::CsrTooLarge);
}

proptest! {
    /// Whatever a request has as extensions and subject, it is read or refused, and a certificate
    /// is built of no more than the profile has.
    #[test]
    fn no_extension_makes_it_panic(
        ids in prop::collection::vec(
            prop::sample::select(vec![
                BASIC_CONSTRAINTS, KEY_USAGE, "2.5.29.14", "2.5.29.17", "2.5.29.30", "1.2.3",
            ]),
            0..5,
        ),
        value in prop::collection::vec(any::<u8>(), 0..24),
        subject in prop::collection::vec(any::<u8>(), 0..24),
        whole in any::<bool>(),
    ) {
        let list: Vec<Vec<u8>> = ids.iter().map(|id| extension(id, &value)).collect();
        let der = if whole {
            named(&list)
        } else {
            request(&subject, &list)
        };
        if let Ok(csr) = AuthorityCsr::parse(&der) {
            let _ = csr.conflict(&Preset::Intermediate.profile());
            prop_assert!(!csr.subject().label().chars().any(char::is_control));
        }
    }

    /// A changed octet anywhere is refused: the signature covers all that counts.
    #[test]
    fn no_changed_octet_is_accepted(at in 0_usize..260, bit in 0_u8..8) {
        let mut der = named(&[ca(Some(0)), usage(0x06)]);
        let at = at % der.len();
        der[at] ^= 1 << bit;
        prop_assert!(AuthorityCsr::parse(&der).is_err());
    }
}
