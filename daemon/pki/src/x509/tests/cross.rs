//! Cross-certificates of a root's rollover (RFC 4210 4.4), judged by OpenSSL and by the lint.

use super::chain::run_verify;
use super::{Authority, SoftwareKey, YEAR, expectation, request, signed};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::render_chain;
use crate::x509::certificate::Certificate;
use crate::x509::issuer::IssuerFields;
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::lint::{ExpectedIssuer, LintFailures, lint};
use crate::x509::name::Subject;
use crate::x509::profile::{CertificatePolicy, Profile};
use crate::x509::serial::SerialNumber;
use crate::x509::tbs::{BuildRefusal, ToBeSigned, build};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose};
use std::fs;

/// Two generations of a root: one name, two keys.
fn roots(path_length: Option<u8>) -> [Authority; 2] {
    let profile = Profile::authority(path_length, 20 * YEAR);
    [KeyType::P256, KeyType::P384].map(|key_type| Authority::root(key_type, &profile))
}

fn profile(path_length: Option<u8>) -> Profile {
    Profile {
        certificate_policies: vec![CertificatePolicy::any()],
        ..Profile::authority(path_length, 10 * YEAR)
    }
}

fn name_of(root: &Authority) -> Subject {
    Subject::of_predecessor(root.certificate.subject_der()).expect("is a name")
}

fn serial() -> SerialNumber {
    SerialNumber::from_random(UnixSeconds::new(0), [7; 12])
}

/// The certificate of `of` by `by`, to be signed.
fn built(by: &Authority, of: &Authority, profile: &Profile) -> Result<ToBeSigned, BuildRefusal> {
    build_for(by, of, profile, &name_of(of), &of.key.public_key())
}

fn build_for(
    by: &Authority,
    of: &Authority,
    profile: &Profile,
    subject: &Subject,
    key: &PublicKey,
) -> Result<ToBeSigned, BuildRefusal> {
    let issuer = by.issuer().cross_certifying(&of.issuer());
    build(&issuer, &request(profile, subject, key, &serial()))
}

fn linted(
    tbs: ToBeSigned,
    of: &Authority,
    profile: &Profile,
    expected: ExpectedIssuer<'_>,
) -> Result<crate::x509::lint::LintedTbs, LintFailures> {
    let (subject, key, serial) = (name_of(of), of.key.public_key(), serial());
    let request = request(profile, &subject, &key, &serial);
    lint(tbs, &expectation(expected, &request))
}

fn cross(by: &Authority, of: &Authority, profile: &Profile) -> Certificate {
    let expected = ExpectedIssuer::Cross {
        issuer: &by.reading,
        subject: &of.reading,
    };
    let tbs = built(by, of, profile).expect("is built");
    signed(
        &linted(tbs, of, profile, expected).expect("passes"),
        &by.key,
    )
}

/// OpenSSL, which knows the other root alone, accepts what is below by the cross-certificate, also
/// where path length 1 leaves room for one authority: a self-issued one is not counted.
#[test]
fn a_path_leads_from_either_root() {
    let roots = roots(Some(1));
    let leaf_profile = Profile {
        validity_seconds: YEAR,
        ..Profile::verification()
    };
    for (trusted, other) in [(0, 1), (1, 0)] {
        let (trusted, other) = (&roots[trusted], &roots[other]);
        let cross = cross(trusted, other, &profile(Some(1)));
        assert_eq!(cross.subject_der(), cross.issuer_der());
        assert!(cross.is_self_issued());
        let ends = [
            cross.subject_key_identifier(),
            cross.authority_key_identifier(),
        ];
        let asked = [other, trusted].map(|it| it.certificate.subject_key_identifier());
        assert_eq!(ends, asked);
        let line = other.subordinate(
            "Line",
            KeyType::P256,
            &Profile::authority(Some(0), 5 * YEAR),
        );
        let key = SoftwareKey::generate(KeyType::P256).public_key();
        let leaf = line.certify("device-7", &key, &leaf_profile);
        let folder = tempfile::tempdir().expect("makes a folder");
        let write = |file: &str, chain: &[Certificate]| {
            let path = folder.path().join(file);
            fs::write(&path, render_chain(chain)).expect("writes");
            path
        };
        let root = write("root.pem", std::slice::from_ref(&trusted.certificate));
        let without = write("without.pem", std::slice::from_ref(&line.certificate));
        let with = write("with.pem", &[line.certificate.clone(), cross]);
        let leaf = write("leaf.pem", &[leaf]);
        assert!(run_verify(&root, &without, &leaf).is_err());
        run_verify(&root, &with, &leaf).expect("a path leads there");
    }
}

/// A root from elsewhere may have another key identifier than the digest of its key, and what is
/// below it points to that.
#[test]
fn the_key_identifier_of_the_certified_root_is_kept() {
    let [by, _] = roots(None);
    let mut of = CertificateParams::default();
    of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    of.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    of.key_identifier_method = KeyIdMethod::PreSpecified(b"elsewhere".to_vec());
    of.distinguished_name = Default::default();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("makes a key");
    let of = of.self_signed(&key).expect("signs itself");
    let of = Certificate::parse(of.der()).expect("is a certificate");
    let of = IssuerFields::from_certificate(&of).expect("is an authority");
    let issuer = by.issuer().cross_certifying(&of);
    let (subject, serial) = (name_of(&by), serial());
    let tbs = build(
        &issuer,
        &request(&profile(None), &subject, of.public_key(), &serial),
    );
    let tbs = tbs.expect("is built");
    let found = tbs.bytes().windows(9).any(|it| it == b"elsewhere");
    assert!(found, "the key identifier is that of its own certificate");
}

#[test]
fn another_name_the_same_key_and_a_longer_path_are_refused() {
    let [old, new] = &roots(Some(1));
    let key = new.key.public_key();
    let other = super::name("Other");
    for (subject, key, profile) in [
        (&other, &key, profile(Some(1))),
        (&name_of(new), &old.key.public_key(), profile(Some(1))),
        (&name_of(new), &key, Profile::verification()),
    ] {
        let refused = build_for(old, new, &profile, subject, key);
        assert_eq!(refused, Err(BuildRefusal::NotCross));
    }
    for length in [None, Some(2)] {
        let refused = built(old, new, &profile(length));
        assert!(
            matches!(refused, Err(BuildRefusal::PathLength { .. })),
            "{refused:?}"
        );
    }
}

/// The lint finds a cross-certificate where none was asked for, one of another root, and what is
/// none where one was asked for.
#[test]
fn the_lint_tells_cross_certificates_from_others() {
    let [old, new] = &roots(Some(1));
    let third = Authority::root(KeyType::P256, &Profile::authority(Some(1), 20 * YEAR));
    let ids = |failures: LintFailures| {
        let ids = failures.findings().iter().map(|it| it.id);
        ids.collect::<Vec<_>>()
    };
    let profile = profile(Some(1));
    let tbs = built(old, new, &profile).expect("is built");
    let as_usual = ExpectedIssuer::Certificate(&old.reading);
    let found = linted(tbs.clone(), new, &profile, as_usual).expect_err("is refused");
    assert_eq!(ids(found), ["self_issued", "path_length"]);
    let of_another = ExpectedIssuer::Cross {
        issuer: &old.reading,
        subject: &third.reading,
    };
    let found = linted(tbs.clone(), new, &profile, of_another).expect_err("is refused");
    assert_eq!(ids(found), ["subject_key_identifier"]);
    let by_another = ExpectedIssuer::Cross {
        issuer: &third.reading,
        subject: &new.reading,
    };
    let found = linted(tbs, new, &profile, by_another).expect_err("is refused");
    assert_eq!(ids(found), ["authority_key_identifier"]);
}
