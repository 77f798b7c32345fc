//! Name constraints along a chain, judged here and by OpenSSL.

mod strategies;

use crate::x509::bundle::render_chain;
use crate::x509::certificate::Certificate;
use crate::x509::constraints;
use crate::x509::issuer::IssuerFields;
use crate::x509::path::{Misfit, above, objection};
use crate::x509::profile::{Profile, SubjectTemplate};
use crate::x509::san::SubjectAlternativeName;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use strategies::{leaf, links};

const EMAIL: u8 = 0x81;
const HOST: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;
const DIRECTORY: u8 = 0xa4;

/// A subtree: the tag of the form, and the base.
type Subtree = (u8, Vec<u8>);

#[derive(Clone, Debug, Default)]
struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
    critical: bool,
}

/// The names of a certificate: attributes in their order, and alternative names.
#[derive(Clone, Debug, Default)]
struct Names {
    subject: Vec<(DnType, DnValue)>,
    alternative: Vec<SanType>,
}

/// An authority of a chain.
#[derive(Clone, Debug)]
struct Link {
    names: Names,
    constraints: Option<Constraints>,
}

static KEYS: LazyLock<Vec<KeyPair>> = LazyLock::new(|| {
    let key = |_| KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("makes a key");
    (0..4).map(key).collect()
});

fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u8::try_from(contents.len()).expect("is short");
    let long: &[u8] = if length < 0x80 { &[] } else { &[0x81] };
    [&[tag], long, &[length], contents].concat()
}

fn encoded(constraints: &Constraints) -> Vec<u8> {
    let list = |tag: u8, subtrees: &[Subtree]| match subtrees {
        [] => Vec::new(),
        _ => {
            let each = subtrees
                .iter()
                .map(|(tag, base)| tlv(0x30, &tlv(*tag, base)));
            tlv(tag, &each.collect::<Vec<_>>().concat())
        }
    };
    let permitted = list(0xa0, &constraints.permitted);
    tlv(
        0x30,
        &[permitted, list(0xa1, &constraints.excluded)].concat(),
    )
}

fn parameters(names: &Names) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in &names.subject {
        parameters
            .distinguished_name
            .push(kind.clone(), value.clone());
    }
    parameters.subject_alt_names = names.alternative.clone();
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn authority(link: &Link) -> CertificateParams {
    let mut parameters = parameters(&link.names);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Some(constraints) = &link.constraints {
        let mut extension =
            CustomExtension::from_oid_content(&[2, 5, 29, 30], encoded(constraints));
        extension.set_criticality(constraints.critical);
        parameters.custom_extensions.push(extension);
    }
    parameters
}

/// A chain: the leaf first, and the root last.
fn chain(links: &[Link], leaf: &Names) -> Vec<Certificate> {
    let read = |made: rcgen::Certificate| Certificate::parse(made.der()).expect("is read");
    let root = authority(&links[0]);
    let made = root.self_signed(&KEYS[0]).expect("signs");
    let mut chain = vec![read(made)];
    let mut issuer = rcgen::Issuer::new(root, &KEYS[0]);
    for (number, link) in links.iter().enumerate().skip(1) {
        let own = authority(link);
        chain.push(read(own.signed_by(&KEYS[number], &issuer).expect("signs")));
        issuer = rcgen::Issuer::new(own, &KEYS[number]);
    }
    let leaf = parameters(leaf);
    chain.push(read(leaf.signed_by(&KEYS[3], &issuer).expect("signs")));
    chain.reverse();
    chain
}

/// Returns what OpenSSL says against the leaf, by name constraints.
fn openssl_objection(chain: &[Certificate]) -> Option<String> {
    let folder = tempfile::tempdir().expect("makes a folder");
    let write = |file: &str, chain: &[Certificate]| {
        fs::write(folder.path().join(file), render_chain(chain)).expect("writes");
    };
    let (root, below) = chain.split_last().expect("has a root");
    write("root", std::slice::from_ref(root));
    write("between", &below[1..]);
    write("leaf", &below[..1]);
    let verdict = verified(folder.path());
    if let Some(verdict) = &verdict {
        let known = ["subtree violation", "name syntax"];
        assert!(known.iter().any(|it| verdict.contains(it)), "{verdict}");
    }
    verdict
}

fn verified(folder: &Path) -> Option<String> {
    let arguments = "verify -x509_strict -CAfile root -untrusted between leaf";
    let mut command = Command::new("openssl");
    let output = command
        .args(arguments.split(' '))
        .current_dir(folder)
        .output();
    let output = output.expect("openssl is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(said)
}

/// Returns what we say: on the authorities as they are adopted, then on the leaf to be signed.
fn our_objection(chain: &[Certificate], leaf: &Names) -> Option<String> {
    let (own, above) = (&chain[1], &chain[2..]);
    let on_authorities = objection(&chain[1..], 0);
    on_authorities.or_else(|| {
        let issuer = IssuerFields::from_certificate(own).expect("is an authority");
        let alternative: Vec<SubjectAlternativeName> = leaf.alternative.iter().map(ours).collect();
        let issuer = issuer.with_constraints_of(above);
        issuer.objection_to(chain[0].subject_der(), &alternative, true)
    })
}

fn ours(name: &SanType) -> SubjectAlternativeName {
    match name {
        SanType::DnsName(name) => SubjectAlternativeName::Dns(name.as_str().to_owned()),
        SanType::IpAddress(address) => SubjectAlternativeName::Ip(*address),
        other => panic!("{other:?} is in no leaf"),
    }
}

fn text(kind: DnType, value: &str) -> (DnType, DnValue) {
    (kind, DnValue::Utf8String(value.to_owned()))
}

fn printable(kind: DnType, value: &str) -> (DnType, DnValue) {
    let value = value.try_into().expect("is printable");
    (kind, DnValue::PrintableString(value))
}

fn mailbox(value: &str) -> (DnType, DnValue) {
    let kind = DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]);
    (
        kind,
        DnValue::Ia5String(value.try_into().expect("is ASCII")),
    )
}

fn host(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("is ASCII"))
}

fn address(text: &str) -> SanType {
    SanType::IpAddress(text.parse().expect("is an address"))
}

fn range(text: &str) -> Vec<u8> {
    let octets = |it: &str| match it.parse().expect("is an address") {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    };
    text.split('/').flat_map(octets).collect()
}

/// A DER `Name` of attributes of 2.5.4, by their last arc, string tag and value.
fn directory(attributes: &[(u8, u8, &str)]) -> Vec<u8> {
    let set = |(arc, tag, value): &(u8, u8, &str)| {
        let kind = tlv(0x06, &[0x55, 0x04, *arc]);
        let value = tlv(*tag, value.as_bytes());
        tlv(0x31, &tlv(0x30, &[kind, value].concat()))
    };
    let sets: Vec<u8> = attributes.iter().flat_map(set).collect();
    tlv(0x30, &sets)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn openssl_comes_to_the_same_answer(links in links(), leaf in leaf()) {
        let chain = chain(&links, &leaf);
        let theirs = openssl_objection(&chain);
        let ours = our_objection(&chain, &leaf);
        prop_assert_eq!(ours.is_some(), theirs.is_some(), "we: {:?}, OpenSSL: {:?}", ours, theirs);
        let of_authorities = objection(&chain[1..], 0).is_none();
        for others in [chain[2..].to_vec(), chain[2..].iter().rev().cloned().collect()] {
            let found = above(&chain[1], &others, 0, &|_| Ok(()));
            prop_assert_eq!(found.is_ok(), of_authorities, "{:?}", found);
        }
    }

    #[test]
    fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = crate::x509::name_constraints::NameConstraints::read(&octets, true, "");
    }
}

fn named(common_name: &str) -> Names {
    Names {
        subject: vec![text(DnType::CommonName, common_name)],
        alternative: Vec::new(),
    }
}

/// A root with the constraints, as they are encoded, and an authority below it.
fn below(constraints: &[u8], critical: bool) -> Vec<Certificate> {
    let mut root = authority(&Link {
        names: named("root"),
        constraints: None,
    });
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], constraints.to_vec());
    extension.set_criticality(critical);
    root.custom_extensions.push(extension);
    let made = root.self_signed(&KEYS[0]).expect("signs");
    let root_der = made.der().to_vec();
    let issuer = rcgen::Issuer::new(root, &KEYS[0]);
    let own = authority(&Link {
        names: named("own"),
        constraints: None,
    });
    let own = own.signed_by(&KEYS[1], &issuer).expect("signs");
    let read = |der: &[u8]| Certificate::parse(der).expect("is read");
    vec![read(own.der()), read(&root_der)]
}

/// Critical constraints of an unknown form make verifiers refuse everything (RFC 5280 4.2.1.10);
/// uncritical ones matter to names of that form alone.
#[test]
fn constraints_that_cannot_be_evaluated_are_refused_with_their_reason() {
    let one = |subtree: &[u8]| tlv(0x30, &tlv(0xa0, &tlv(0x30, subtree)));
    let identifier = tlv(0x88, &[0x2a, 0x03]);
    let other_name = tlv(
        0xa0,
        &[tlv(0x06, &[0x2a, 0x03]), tlv(0xa0, &tlv(0x0c, b"x"))].concat(),
    );
    let with_maximum = [tlv(HOST, b"a"), tlv(0x81, &[2])].concat();
    let with_minimum = [tlv(HOST, b"a"), tlv(0x80, &[1])].concat();
    for (constraints, words) in [
        (one(&identifier), "RID:1.2.3"),
        (one(&other_name), "otherName:1.2.3"),
        (one(&tlv(0xa3, b"x")), "X400Name"),
        (one(&with_maximum), "minimum or maximum"),
        (one(&with_minimum), "minimum or maximum"),
        (one(&tlv(ADDRESS, &[10, 0, 0, 0])), "cannot be read"),
        (one(&tlv(HOST, b"\xff")), "cannot be read"),
        (one(&tlv(DIRECTORY, b"x")), "cannot be read"),
        (tlv(0x30, b""), "empty"),
        (tlv(0x30, &tlv(0x0c, b"x")), "cannot be read"),
    ] {
        let chain = below(&constraints, true);
        let refusal = above(&chain[0], &chain[1..], 0, &|_| Ok(())).expect_err(words);
        assert_eq!(refusal.misfit, Misfit::NameConstraints, "{refusal}");
        assert!(refusal.reason.contains(words), "{refusal}");
        let refused = constraints::objection(&chain[1], &[]).expect("is read");
        assert!(refused.is_some_and(|it| it.contains(words)), "{words}");
        let issuer = IssuerFields::from_certificate(&chain[0]).expect("is an authority");
        let issuer = issuer.with_constraints_of(&chain[1..]);
        let refused = issuer.objection_to(chain[0].subject_der(), &[], true);
        assert!(refused.is_some_and(|it| it.contains(words)), "{words}");
    }
    for constraints in [
        one(&identifier),
        one(&[tlv(HOST, b"a"), tlv(0x80, &[0])].concat()),
    ] {
        let chain = below(&constraints, false);
        assert_eq!(objection(&chain, 0), None);
        assert_eq!(constraints::objection(&chain[1], &[]), Ok(None));
    }
}

/// Constraints that every leaf of a profile would violate are known before one is requested.
#[test]
fn a_profile_whose_leaves_cannot_fit_is_refused() {
    let profile = |subject: &str| Profile {
        subject: toml::from_str::<SubjectTemplate>(subject).expect("are attributes"),
        ..Profile::verification()
    };
    let works = directory(&[(10, 0x0c, "works")]);
    let line = directory(&[(10, 0x0c, "works"), (11, 0x0c, "Line")]);
    let one_device = directory(&[(10, 0x0c, "works"), (3, 0x0c, "press")]);
    let refused = |list: u8, base: &[u8], subject: &str| {
        let subtree = tlv(0x30, &tlv(DIRECTORY, base));
        let chain = below(&tlv(0x30, &tlv(list, &subtree)), true);
        let judged = constraints::objection(&chain[1], &[&profile(subject)]);
        judged.expect("is read").is_some()
    };
    for (base, subject, is_refused) in [
        (&works, "organization = 'Works'", false),
        (
            &works,
            "organization = 'Works'\norganizational_unit = 'Line'",
            false,
        ),
        (&works, "organization = 'Other'", true),
        (&works, "", true),
        (&line, "organization = 'Works'", true),
        (&one_device, "organization = 'Works'", false),
        (
            &one_device,
            "organization = 'Works'\norganizational_unit = 'Line'",
            true,
        ),
    ] {
        assert_eq!(refused(0xa0, base, subject), is_refused, "{subject}");
    }
    for (base, subject, is_refused) in [
        (&works, "organization = 'Works'", true),
        (
            &works,
            "organization = 'Works'\norganizational_unit = 'Line'",
            true,
        ),
        (&works, "organization = 'Other'", false),
        (&line, "organization = 'Works'", false),
        (&one_device, "organization = 'Works'", false),
    ] {
        assert_eq!(refused(0xa1, base, subject), is_refused, "{subject}");
    }
}
