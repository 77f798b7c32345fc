//! A whole hierarchy, judged by OpenSSL.

use super::{Authority, SoftwareKey, YEAR, name, request};
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::render_chain;
use crate::x509::certificate::Certificate;
use crate::x509::csr::Csr;
use crate::x509::key::KeyType;
use crate::x509::profile::{KeyUsage, Profile};
use crate::x509::serial::SerialNumber;
use crate::x509::tbs::{BuildRefusal, build};
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::path::Path;
use std::process::Command;

fn leaf_profile() -> Profile {
    Profile {
        validity_seconds: YEAR,
        ..Profile::verification()
    }
}

/// root → intermediate → intermediate → leaf.
struct Hierarchy {
    root: Authority,
    upper: Authority,
    lower: Authority,
    leaf: Certificate,
}

fn hierarchy(key_types: [KeyType; 3]) -> Hierarchy {
    let [root, upper, lower] = key_types;
    let root = Authority::root(root, &Profile::authority(None, 30 * YEAR));
    let upper = root.subordinate("Upper", upper, &Profile::authority(Some(1), 20 * YEAR));
    let lower = upper.subordinate("Lower", lower, &Profile::authority(Some(0), 10 * YEAR));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("makes a key");
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .expect("makes a request");
    let csr = Csr::parse(csr.der()).expect("is a request");
    let leaf = lower.certify("device-7", csr.public_key(), &leaf_profile());
    Hierarchy {
        root,
        upper,
        lower,
        leaf,
    }
}

/// Verifies the leaf with the chain above it, and returns what OpenSSL says against it.
fn openssl_verify(hierarchy: &Hierarchy) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("makes a folder");
    let write = |file: &str, chain: &[Certificate]| {
        let path = folder.path().join(file);
        fs::write(&path, render_chain(chain)).expect("writes");
        path
    };
    let roots = write(
        "roots.pem",
        std::slice::from_ref(&hierarchy.root.certificate),
    );
    let between = [
        hierarchy.lower.certificate.clone(),
        hierarchy.upper.certificate.clone(),
    ];
    let between = write("between.pem", &between);
    let leaf = write("leaf.pem", std::slice::from_ref(&hierarchy.leaf));
    run_verify(&roots, &between, &leaf)
}

pub(super) fn run_verify(roots: &Path, between: &Path, leaf: &Path) -> Result<(), String> {
    let output = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-purpose",
            "sslclient",
            "-check_ss_sig",
        ])
        .args(["-attime", &(super::NOW + 60).get().to_string()])
        .arg("-CAfile")
        .arg(roots)
        .arg("-untrusted")
        .arg(between)
        .arg(leaf)
        .output()
        .expect("openssl is installed");
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn openssl_accepts_the_chain_in_every_kind_of_key() {
    use KeyType::{Ed25519, P256, P384, P521, Rsa2048};
    for key_types in [
        [P256, P256, P256],
        [P384, P384, P256],
        [P521, P521, P521],
        [Rsa2048, P256, Ed25519],
        [Ed25519, Rsa2048, Rsa2048],
    ] {
        let hierarchy = hierarchy(key_types);
        assert_eq!(openssl_verify(&hierarchy), Ok(()), "{key_types:?}");
    }
}

#[test]
fn each_certificate_verifies_under_the_one_above() {
    let Hierarchy {
        root,
        upper,
        lower,
        leaf,
    } = hierarchy([KeyType::P256; 3]);
    for (issuer, certificate) in [
        (&root, &upper.certificate),
        (&upper, &lower.certificate),
        (&lower, &leaf),
    ] {
        let key = issuer.key.public_key();
        assert_eq!(certificate.verify_issued_by(&key), Ok(()));
        assert_eq!(certificate.issuer_der(), issuer.certificate.subject_der());
        let above = issuer.certificate.subject_key_identifier();
        assert_eq!(certificate.authority_key_identifier(), above);
    }
    assert_eq!(leaf.common_name().as_deref(), Some("device-7"));
    assert!(!leaf.is_ca());
}

#[test]
fn what_must_not_be_signed_is_not_built() {
    let root = Authority::root(KeyType::P256, &Profile::authority(Some(1), 10 * YEAR));
    let lower = root.subordinate(
        "Lower",
        KeyType::P256,
        &Profile::authority(Some(0), 5 * YEAR),
    );
    let key = SoftwareKey::generate(KeyType::P256).public_key();
    let serial = SerialNumber::from_random(UnixSeconds::new(0), [1; 12]);
    let refusal = |issuer: &Authority, common_name: &str, profile: &Profile| {
        let subject = name(common_name);
        let request = request(profile, &subject, &key, &serial);
        build(&issuer.issuer(), &request).expect_err("is refused")
    };

    let too_long = Profile {
        validity_seconds: 5 * YEAR + 1,
        ..leaf_profile()
    };
    let outlives = refusal(&lower, "device-7", &too_long);
    assert!(matches!(outlives, BuildRefusal::OutlivesIssuer { .. }));
    assert!(outlives.to_string().contains("by 1 s"), "{outlives}");

    for (issuer, path_length) in [(&root, None), (&root, Some(1)), (&lower, Some(0))] {
        let refusal = refusal(issuer, "Deep", &Profile::authority(path_length, YEAR));
        assert!(
            matches!(refusal, BuildRefusal::PathLength { .. }),
            "{refusal}"
        );
    }

    let mut rsa_only = leaf_profile();
    rsa_only.key_types.retain(|key_type| key_type.is_rsa());
    assert_eq!(
        refusal(&lower, "device-7", &rsa_only),
        BuildRefusal::KeyType {
            asked: KeyType::P256,
            allowed: rsa_only.key_types.clone(),
        }
    );
    assert_eq!(
        refusal(&lower, "Lower", &leaf_profile()),
        BuildRefusal::IssuersName
    );
}

#[test]
fn a_leaf_or_a_crippled_authority_is_no_issuer() {
    use crate::x509::issuer::{IssuerFields, IssuerRefusal};
    let root = Authority::root(KeyType::P256, &Profile::authority(None, 10 * YEAR));
    let key = SoftwareKey::generate(KeyType::P256).public_key();
    let leaf = root.certify("device-7", &key, &leaf_profile());
    let refusal = IssuerFields::from_certificate(&leaf).expect_err("is refused");
    assert_eq!(
        refusal,
        IssuerRefusal::NotAnAuthority("CN=device-7".to_owned())
    );
    assert!(!leaf_profile().key_usage.contains(&KeyUsage::KeyCertSign));
}
