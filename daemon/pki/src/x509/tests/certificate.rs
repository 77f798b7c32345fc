//! Reading certificates, chains and bundles.

use super::{Authority, NOW, YEAR};
use crate::x509::bundle::{
    BUNDLE_CERTIFICATES_MAX, BundleRefusal, OtherFile, parse_bundle, parse_first, render_chain,
    trust_anchors,
};
use crate::x509::certificate::Certificate;
use crate::x509::key::KeyType;
use crate::x509::profile::Profile;
use proptest::prelude::*;
use std::sync::LazyLock;

static ROOT: LazyLock<Certificate> = LazyLock::new(|| {
    Authority::root(KeyType::P256, &Profile::authority(Some(2), 20 * YEAR)).certificate
});

#[test]
fn what_was_built_is_read_back() {
    let root = &*ROOT;
    assert_eq!(root.subject(), "CN=Test Root");
    assert_eq!(root.common_name().as_deref(), Some("Test Root"));
    assert_eq!(root.not_before(), NOW - 300);
    assert_eq!(root.not_after(), NOW + 20 * YEAR.cast_signed());
    assert_eq!(root.path_length(), Some(2));
    assert!(root.may_sign_certificates() && root.may_sign_crls() && root.is_self_issued());
    let key = root.public_key().expect("is a key");
    assert_eq!(
        root.subject_key_identifier(),
        Some(&key.key_identifier()[..])
    );
    assert_eq!(root.authority_key_identifier(), None);
    assert_eq!(root.verify_issued_by(&key), Ok(()));
}

#[test]
fn a_stranger_did_not_issue_it() {
    let stranger = super::SoftwareKey::generate(KeyType::P256).public_key();
    assert!(ROOT.verify_issued_by(&stranger).is_err());
}

/// It is no attribute certificate either, which has three parts, too.
#[test]
fn a_certificate_with_a_fourth_part_is_damaged() {
    let der = ROOT.der();
    let parts = [&der[4..], &[0x05, 0x00]].concat();
    let length = u16::try_from(parts.len()).expect("is short").to_be_bytes();
    let longer = [&[0x30, 0x82], &length[..], &parts].concat();
    assert_eq!(der[..2], longer[..2]);
    assert_eq!(
        parse_first(&longer),
        Err(BundleRefusal::Other(OtherFile::Damaged))
    );
}

#[test]
fn a_chain_survives_pem() {
    let chain = [ROOT.clone(), ROOT.clone()];
    let pem = render_chain(&chain);
    assert_eq!(parse_bundle(pem.as_bytes()), Ok(chain.to_vec()));
    let too_many = ROOT.to_pem().repeat(BUNDLE_CERTIFICATES_MAX + 1);
    let number = BUNDLE_CERTIFICATES_MAX + 1;
    assert_eq!(
        parse_bundle(too_many.as_bytes()),
        Err(BundleRefusal::TooMany {
            number,
            max: BUNDLE_CERTIFICATES_MAX
        })
    );
    assert_eq!(
        parse_bundle(b"nothing"),
        Err(BundleRefusal::Other(OtherFile::Text))
    );
}

#[test]
fn trailing_bytes_are_refused() {
    let trailing = [ROOT.der().as_ref(), &[0]].concat();
    assert!(Certificate::parse(&trailing).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Certificate::parse(&bytes);
        let _ = (parse_bundle(&bytes), parse_first(&bytes), trust_anchors(&bytes));
    }

    #[test]
    fn a_flipped_bit_does_not_make_it_panic(bit in 0..8 * ROOT.der().len()) {
        let mut flipped = ROOT.der().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(certificate) = Certificate::parse(&flipped) {
            let _ = (certificate.subject(), certificate.common_name(), certificate.public_key());
        }
    }
}
