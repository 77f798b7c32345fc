//! Tests the keys that the key policy accepts and refuses.

use super::SoftwareKey;
use crate::x509::key::{KeyRefusal, KeyType, PublicKey};

fn refusal(spki: &[u8]) -> KeyRefusal {
    PublicKey::from_spki_der(spki).expect_err("is refused")
}

/// SubjectPublicKeyInfo of an RSA key with this modulus and exponent.
pub(super) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let tlv = |tag: u8, contents: &[u8]| {
        let length = u16::try_from(contents.len())
            .expect("is short")
            .to_be_bytes();
        let header = match length {
            [0, low @ ..0x80] => vec![tag, low],
            [0, low] => vec![tag, 0x81, low],
            [high, low] => vec![tag, 0x82, high, low],
        };
        [&header, contents].concat()
    };
    let unsigned = |number: &[u8]| tlv(0x02, &[&[0][..], number].concat());
    let key = tlv(0x30, &[unsigned(modulus), tlv(0x02, exponent)].concat());
    let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let bits = tlv(0x03, &[&[0][..], &key].concat());
    tlv(0x30, &[&algorithm[..], &bits].concat())
}

#[test]
fn every_kind_is_recognised_and_verifies_its_own_signatures() {
    for key_type in [
        KeyType::P256,
        KeyType::P384,
        KeyType::P521,
        KeyType::Rsa2048,
        KeyType::Ed25519,
    ] {
        let software = SoftwareKey::generate(key_type);
        let key = software.public_key();
        assert_eq!(key.key_type(), key_type);
        let signature = software.sign(b"message");
        let algorithm = key_type.signature_algorithm();
        assert!(key.verify(algorithm, b"message", &signature), "{key_type}");
        assert!(!key.verify(algorithm, b"massage", &signature), "{key_type}");
        let other = match key_type {
            KeyType::Ed25519 => KeyType::P256,
            _ => KeyType::Ed25519,
        };
        assert!(!key.verify(other.signature_algorithm(), b"message", &signature));
    }
}

#[test]
fn a_key_survives_serde_and_shows_only_its_hash() {
    let key = SoftwareKey::generate(KeyType::P256).public_key();
    let json = serde_json::to_string(&key).expect("serializes");
    assert_eq!(
        serde_json::from_str::<PublicKey>(&json).expect("reads back"),
        key
    );
    assert!(serde_json::from_str::<PublicKey>("[48, 0]").is_err());
    let shown = format!("{key:?}");
    assert_eq!(
        shown,
        format!("PublicKey(p256 {})", hex::encode(&key.sha256()[..6]))
    );
}

#[test]
fn points_off_the_curve_compressed_or_cut_are_refused() {
    let spki = SoftwareKey::generate(KeyType::P256).spki_der();
    let point = spki.len() - 65;
    let mut off_curve = spki.clone();
    *off_curve.last_mut().expect("is not empty") ^= 1;
    assert!(matches!(refusal(&off_curve), KeyRefusal::Malformed(_)));
    let mut odd_form = spki.clone();
    odd_form[point] = 0x05;
    assert!(matches!(refusal(&odd_form), KeyRefusal::Malformed(_)));
    for form in [0x02, 0x03, 0x06, 0x07] {
        let mut other_form = spki.clone();
        other_form[point] = form;
        assert!(matches!(
            refusal(&other_form),
            KeyRefusal::UnsupportedKey(_)
        ));
    }
    assert!(matches!(
        refusal(&spki[..spki.len() - 1]),
        KeyRefusal::Malformed(_)
    ));
    let trailing = [&spki[..], &[0]].concat();
    assert!(matches!(refusal(&trailing), KeyRefusal::Malformed(_)));
}

#[test]
fn other_curves_and_algorithms_are_named_in_the_refusal() {
    let mut spki = SoftwareKey::generate(KeyType::P256).spki_der();
    // secp256r1 is 1.2.840.10045.3.1.7; the last arc makes it prime239v1.
    spki[22] = 0x04;
    assert_eq!(
        refusal(&spki),
        KeyRefusal::UnsupportedKey("curve 1.2.840.10045.3.1.4".to_owned())
    );
    let mut spki = SoftwareKey::generate(KeyType::Ed25519).spki_der();
    // id-Ed448
    spki[8] = 0x71;
    assert_eq!(
        refusal(&spki),
        KeyRefusal::UnsupportedKey("id-Ed448".to_owned())
    );
}

#[test]
fn weak_and_odd_rsa_keys_are_refused() {
    let good_exponent = [1, 0, 1];
    let modulus = |octets: usize| vec![0xc5; octets];
    let good = super::weak::good_modulus(KeyType::Rsa2048);
    assert!(matches!(
        refusal(&rsa_spki(&modulus(128), &good_exponent)),
        KeyRefusal::WeakKey(_)
    ));
    assert!(matches!(
        refusal(&rsa_spki(&good, &[3])),
        KeyRefusal::WeakKey(_)
    ));
    // Another odd exponent would make a new key of a modulus that is compromised.
    for exponent in [[1, 0, 2], [1, 0, 3], [1, 0, 7]] {
        assert!(matches!(
            refusal(&rsa_spki(&good, &exponent)),
            KeyRefusal::WeakKey(_)
        ));
    }
    for (octets, exponent) in [
        (320, &good_exponent[..]),
        (1024, &good_exponent),
        (256, &[1; 5]),
    ] {
        let refusal = refusal(&rsa_spki(&modulus(octets), exponent));
        assert!(
            matches!(refusal, KeyRefusal::UnsupportedKey(_)),
            "{octets}: {refusal}"
        );
    }
    let mut even = good.clone();
    even[255] ^= 1;
    assert!(matches!(
        refusal(&rsa_spki(&even, &good_exponent)),
        KeyRefusal::Malformed(_) | KeyRefusal::WeakKey(_)
    ));
    assert!(PublicKey::from_spki_der(&rsa_spki(&good, &good_exponent)).is_ok());
}

#[test]
fn the_key_identifier_is_sha1_of_the_bits() {
    let spki = SoftwareKey::generate(KeyType::Ed25519).spki_der();
    let key = PublicKey::from_spki_der(&spki).expect("is a key");
    let bits = &spki[spki.len() - 32..];
    let sha1 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, bits);
    assert_eq!(key.key_identifier(), sha1.as_ref());
}
