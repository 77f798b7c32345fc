//! Signatures and keys of requests from the field.

use super::*;

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

/// Programs on microcontrollers put signatures together by hand.
#[test]
fn what_is_wrong_with_the_form_of_a_signature_is_named() {
    let draft = Draft::default();
    let info = draft.info(&KEY.spki_der());
    // A signature with numbers of which each begins with a one.
    let (good, r, s) = loop {
        let good = KEY.sign(&info);
        if let [0x30, 0x46, 2, 33, 0, rest @ ..] = &good[..] {
            break (good.clone(), rest[..32].to_vec(), rest[35..].to_vec());
        }
    };
    let number = |prefix: &[u8], octets: &[u8]| tlv(2, &[prefix, octets].concat());
    let signed = |signature: &[u8]| draft.with_signature(&info, signature);
    let pair = |prefix: &[u8]| sequence(&[&number(prefix, &r), &number(prefix, &s)]);
    assert!(Csr::parse(&signed(&pair(&[0]))).is_ok());
    let bare = [&r[..], &s].concat();
    refused(
        &signed(&bare),
        Code::CsrBadSignature,
        "two numbers one behind the other",
    );
    for other in [
        pair(&[]),
        pair(&[0, 0]),
        [&good[..], &[0, 0, 0]].concat(),
        tlv(4, &good),
        Vec::new(),
        [&bare[..], &[0]].concat(),
    ] {
        refused(&signed(&other), Code::CsrBadSignature, "negative or has");
    }
    let others = KEY.sign(b"something else");
    refused(&signed(&others), Code::CsrBadSignature, "does not match");
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
    let modulus = &rsa[9..265];
    let rsa_key = |modulus: &[u8], exponent: &[u8]| {
        let numbers = sequence(&[&tlv(2, modulus), &tlv(2, exponent)]);
        let algorithm = sequence(&[&identifier("1.2.840.113549.1.1.1"), NULL]);
        sequence(&[&algorithm, &bits(&numbers)])
    };
    let padded = |octets: &[u8], zeros: usize| [&vec![0; zeros][..], octets].concat();
    let f4 = [1, 0, 1];
    assert!(PublicKey::from_spki_der(&rsa_key(&padded(modulus, 1), &f4)).is_ok());
    let ed25519 = identifier("1.3.101.112");
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
        (rsa_key(modulus, &f4), "a negative number"),
        (rsa_key(&padded(modulus, 2), &f4), "another key in it"),
        (
            rsa_key(&padded(modulus, 1), &padded(&f4, 1)),
            "another key in it",
        ),
        (
            sequence(&[&sequence(&[&ed25519, NULL]), &bits(&[7; 32])]),
            "has parameters",
        ),
        (
            sequence(&[&sequence(&[&ed25519]), &bits(&tlv(4, &[7; 32]))]),
            "32 bytes, not 34",
        ),
        (
            sequence(&[&sequence(&[&ec, &identifier("1.3.132.0.10")]), &bits(point)]),
            "curve secp256k1",
        ),
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
            let names = csr.names().certified_by(&server(), &VALUES).unwrap_or_default();
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
