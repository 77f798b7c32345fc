//! The reading of bytes that a key is asked to sign.

use super::{Authority, NOW, YEAR, build_and_lint, name, request};
use crate::crl_number::CrlNumber;
use crate::x509::crl::{self, CrlContent, Scope};
use crate::x509::key::{KeyType, SignatureAlgorithm};
use crate::x509::lint::ExpectedIssuer;
use crate::x509::lint::signable::{CertificateFacts, NotSignable, Signable};
use crate::x509::profile::{ExtendedKeyUsage, KeyUsage, Preset, Profile};
use crate::x509::serial::SerialNumber;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Instant;

const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::EcdsaSha256;

static ROOT: LazyLock<Authority> =
    LazyLock::new(|| Authority::root(KeyType::P256, &Profile::authority(Some(3), 40 * YEAR)));

/// The to-be-signed bytes of a certificate by the root.
fn certificate(profile: &Profile) -> Vec<u8> {
    let subject = name("Line 1");
    let key = super::SoftwareKey::generate(KeyType::P256).public_key();
    let serial = SerialNumber::from_random(NOW, [9; 12]);
    let request = request(profile, &subject, &key, &serial);
    let issuer = ExpectedIssuer::Certificate(&ROOT.reading);
    build_and_lint(&ROOT.issuer(), issuer, &request)
        .bytes()
        .to_vec()
}

fn facts(tbs: &[u8]) -> CertificateFacts<'_> {
    match Signable::read(tbs, ALGORITHM) {
        Ok(Signable::Certificate(facts)) => facts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_says_whose_it_is_and_what_its_holder_may_do() {
    let leaf = certificate(&Profile::verification());
    let leaf = facts(&leaf);
    assert_eq!(leaf.issuer, &**ROOT.certificate.subject_der());
    assert_eq!(leaf.subject, &*name("Line 1").to_der());
    assert_eq!(leaf.not_after.seconds_since(NOW), 86_400);
    assert!(!leaf.is_authority && !leaf.answers_for_issuer);
    let authority = certificate(&Profile::authority(Some(0), YEAR));
    assert!(facts(&authority).is_authority);
    let responder = certificate(&Preset::Ocsp.profile());
    assert!(facts(&responder).answers_for_issuer);
    assert!(!facts(&responder).is_authority);
}

/// keyCertSign or cRLSign without cA, which some verifiers accept.
#[test]
fn a_leaf_that_could_sign_for_others_counts_as_an_authority() {
    let leaf = certificate(&Profile {
        extended_key_usage: vec![ExtendedKeyUsage::ClientAuth],
        ..Profile::verification()
    });
    // BIT STRING of digitalSignature, in KeyUsage.
    let usage = b"\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x07\x80";
    let at = leaf.windows(usage.len()).position(|it| it == usage);
    let at = at.expect("the usage of a leaf") + usage.len() - 2;
    for (unused, bits) in [(2, 0x84), (1, 0x82)] {
        let mut signs = leaf.clone();
        (signs[at], signs[at + 1]) = (unused, bits);
        assert!(facts(&signs).is_authority, "{bits:#x}");
    }
    let profile = Profile::authority(None, YEAR);
    let both = BTreeSet::from([KeyUsage::KeyCertSign, KeyUsage::CrlSign]);
    assert_eq!(profile.key_usage, both);
}

#[test]
fn a_list_and_a_request_are_distinguished_from_certificates() {
    let scope = Scope {
        point: None,
        base: None,
        delta_url: None,
    };
    let list = crl::build(
        &ROOT.issuer(),
        &CrlContent {
            number: CrlNumber::START.next(),
            this_update: NOW,
            next_update: NOW + 86_400,
            entries: &[],
            released: &[],
            scope: &scope,
        },
    );
    let list = list.expect("builds");
    let Ok(Signable::List(facts)) = Signable::read(&list.bytes, ALGORITHM) else {
        panic!("no list");
    };
    assert_eq!(facts.issuer, &**ROOT.certificate.subject_der());
    assert_eq!(facts.next_update.seconds_since(facts.this_update), 86_400);

    let key = ROOT.key.public_key();
    let subject = name("Plant").to_der();
    let asked = crate::x509::request::build(&subject, &key, Some(0)).expect("builds");
    let spki = &**key.spki_der();
    assert_eq!(
        Signable::read(&asked, ALGORITHM),
        Ok(Signable::Request { spki })
    );
}

#[test]
fn other_bytes_are_refused_with_the_reason() {
    let leaf = certificate(&Profile::verification());
    let cut = &leaf[..leaf.len() - 1];
    let long = [&leaf[..], b"\0"].concat();
    for bytes in [cut, &long, b"", b"arbitrary", b"\x30\x80\0\0"] {
        let refused = Signable::read(bytes, ALGORITHM);
        assert_eq!(refused, Err(NotSignable::NotCanonical));
    }
    for bytes in [&b"\x30\x03\x02\x01\x05"[..], b"\x04\x01a", b"\x30\x00"] {
        assert_eq!(Signable::read(bytes, ALGORITHM), Err(NotSignable::Unknown));
    }
    let other = Signable::read(&leaf, SignatureAlgorithm::EcdsaSha384);
    assert_eq!(other, Err(NotSignable::Algorithm));
}

/// On the path of each signature. In a release build it takes about a microsecond.
#[test]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "the number is what is asked for")]
fn the_time_of_reading_a_leaf() {
    const TIMES: u32 = 2_000;
    let leaf = certificate(&Profile::verification());
    let begun = Instant::now();
    for _ in 0..TIMES {
        assert!(Signable::read(std::hint::black_box(&leaf), ALGORITHM).is_ok());
    }
    let each = begun.elapsed() / TIMES;
    println!("{} octets in {each:?}", leaf.len());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Signable::read(&bytes, ALGORITHM);
    }

    /// One octet changed in a leaf: it is read or refused, and never taken for another structure.
    #[test]
    fn a_damaged_leaf_is_a_certificate_or_refused(at in 0usize..2_000, octet in any::<u8>()) {
        let mut leaf = certificate(&Profile::verification());
        let length = leaf.len();
        leaf[at % length] = octet;
        let read = Signable::read(&leaf, ALGORITHM);
        prop_assert!(matches!(read, Ok(Signable::Certificate(_)) | Err(_)));
    }
}
