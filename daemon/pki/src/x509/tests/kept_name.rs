//! The next certificate of an authority has the subject of the one before, octet by octet.

use super::{NOW, SoftwareKey, YEAR, expectation, name, request, signed};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::issuer::IssuerFields;
use crate::x509::key::KeyType;
use crate::x509::lint::{ExpectedIssuer, IssuerReading, lint};
use crate::x509::name::{NameRefusal, Subject};
use crate::x509::profile::Profile;
use crate::x509::serial::SerialNumber;
use crate::x509::tbs::build;
use proptest::prelude::*;
use std::sync::LazyLock;

static KEY: LazyLock<SoftwareKey> = LazyLock::new(|| SoftwareKey::generate(KeyType::P256));

/// An attribute: its type (contents of the OBJECT IDENTIFIER), the string's tag and its contents.
type Attribute<'a> = (&'a [u8], u8, &'a [u8]);

const COMMON_NAME: &[u8] = b"\x55\x04\x03";
const EMAIL: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01";
const DOMAIN_COMPONENT: &[u8] = b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19";

fn value(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut header = vec![tag];
    match u8::try_from(contents.len()) {
        Ok(length @ ..=0x7f) => header.push(length),
        Ok(length) => header.extend([0x81, length]),
        Err(_) => {
            let [high, low] = u16::try_from(contents.len())
                .expect("is short")
                .to_be_bytes();
            header.extend([0x82, high, low]);
        }
    }
    [&header, contents].concat()
}

/// DER `Name`. The attributes of each set are sorted, as DER has them.
fn encoded(relative: &[Vec<Attribute<'_>>]) -> Vec<u8> {
    let sets = relative.iter().map(|attributes| {
        let pairs = attributes.iter().map(|(kind, tag, contents)| {
            value(0x30, &[value(0x06, kind), value(*tag, contents)].concat())
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort();
        pairs.dedup();
        value(0x31, &pairs.concat())
    });
    value(0x30, &sets.collect::<Vec<_>>().concat())
}

fn root_named(subject: &Subject) -> Certificate {
    let profile = Profile::authority(None, YEAR);
    let public_key = KEY.public_key();
    let serial = SerialNumber::from_random(UnixSeconds::new(0), [7; 12]);
    let issuer = IssuerFields::self_signed(subject, &public_key);
    let request = request(&profile, subject, &public_key, &serial);
    let built = build(&issuer, &request).expect("builds");
    let linted = lint(built, &expectation(ExpectedIssuer::SelfSigned, &request));
    signed(&linted.expect("passes the lint"), &KEY)
}

/// Asserts that a root of this name is made, and that a leaf below it names it.
fn is_kept(der: &[u8]) {
    let subject = Subject::of_predecessor(der).expect("is a name");
    assert_eq!(*subject.to_der(), *der);
    assert!(!subject.label().is_empty());
    let root = root_named(&subject);
    assert_eq!(hex::encode(root.subject_der()), hex::encode(der));
    assert_eq!(hex::encode(root.issuer_der()), hex::encode(der));
    let leaf = name("device-7");
    let key = SoftwareKey::generate(KeyType::P256).public_key();
    let serial = SerialNumber::from_random(UnixSeconds::new(0), [9; 12]);
    let profile = Profile::verification();
    let request = request(&profile, &leaf, &key, &serial);
    let issuer = IssuerFields::from_certificate(&root).expect("is an authority");
    let reading = IssuerReading::new(&root);
    let built = build(&issuer, &request).expect("builds");
    let expected = expectation(ExpectedIssuer::Certificate(&reading), &request);
    let linted = lint(built, &expected).expect("passes the lint");
    let leaf = signed(&linted, &KEY);
    assert_eq!(hex::encode(leaf.issuer_der()), hex::encode(der));
    assert!(leaf.not_before() <= NOW);
}

#[test]
fn names_of_every_kind_are_kept() {
    let printable: Attribute<'_> = (COMMON_NAME, 0x13, b"Old Root");
    for relative in [
        vec![vec![printable]],
        vec![vec![(COMMON_NAME, 0x14, b"T61 \xe9")]],
        vec![vec![(COMMON_NAME, 0x1e, b"\0B\0M\0P")]],
        vec![vec![(EMAIL, 0x16, b"ca@works.example")]],
        vec![
            vec![(DOMAIN_COMPONENT, 0x16, b"example")],
            vec![(DOMAIN_COMPONENT, 0x16, b"works")],
            vec![printable],
        ],
        vec![vec![
            printable,
            (EMAIL, 0x16, b"a@b"),
            (b"\x55\x04\x08", 0x0c, b"Bayern"),
        ]],
        vec![vec![printable], vec![(COMMON_NAME, 0x0c, b"Second")]],
        vec![vec![(b"\x55\x04\x0a", 0x0c, &[b'o'; 300])]],
        vec![vec![(b"\x55\x04\x06", 0x13, b"de")], vec![printable]],
        vec![vec![(COMMON_NAME, 0x0c, b" spaces ")]],
        vec![vec![(COMMON_NAME, 0x0c, b"")]],
    ] {
        is_kept(&encoded(&relative));
    }
    is_kept(&name("Ours").to_der());
}

#[test]
fn an_authority_without_a_name_has_no_successor() {
    assert_eq!(
        Subject::of_predecessor(b"\x30\x00"),
        Err(NameRefusal::Empty)
    );
}

#[test]
fn another_kept_name_is_found_by_the_lint() {
    let subject = |text: &[u8]| {
        let relative = vec![vec![(COMMON_NAME, 0x13_u8, text)]];
        Subject::of_predecessor(&encoded(&relative)).expect("is a name")
    };
    let (ours, other) = (subject(b"Old Root"), subject(b"Old root"));
    let profile = Profile::authority(None, YEAR);
    let public_key = KEY.public_key();
    let serial = SerialNumber::from_random(UnixSeconds::new(0), [7; 12]);
    let asked = request(&profile, &other, &public_key, &serial);
    let built = request(&profile, &ours, &public_key, &serial);
    let built = build(&IssuerFields::self_signed(&ours, &public_key), &built).expect("builds");
    let failures = lint(built, &expectation(ExpectedIssuer::SelfSigned, &asked));
    let failures = failures.expect_err("the name is another one");
    let found: Vec<_> = failures.findings().iter().map(|it| it.id).collect();
    assert_eq!(found, ["subject"]);
}

fn attribute() -> impl Strategy<Value = (Vec<u8>, u8, Vec<u8>)> {
    let kinds = [
        COMMON_NAME,
        EMAIL,
        DOMAIN_COMPONENT,
        b"\x55\x04\x08",
        b"\x2a\x03\x04",
    ];
    let text = prop_oneof![
        "[a-zA-Z0-9 ]{0,40}".prop_map(|it| (0x13, it.into_bytes())),
        "\\PC{0,40}".prop_map(|it| (0x0c, it.into_bytes())),
        "[ -~]{0,40}".prop_map(|it| (0x16, it.into_bytes())),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|it| (0x14, it)),
    ];
    (proptest::sample::select(kinds.to_vec()), text)
        .prop_map(|(kind, (tag, contents))| (kind.to_vec(), tag, contents))
}

proptest! {
    #[test]
    fn any_name_that_can_be_read_is_kept(
        relative in proptest::collection::vec(proptest::collection::vec(attribute(), 1..4), 1..6),
    ) {
        let relative: Vec<Vec<Attribute<'_>>> = relative
            .iter()
            .map(|set| set.iter().map(|(kind, tag, it)| (&kind[..], *tag, &it[..])).collect())
            .collect();
        let der = encoded(&relative);
        if Subject::of_predecessor(&der).is_ok_and(|it| !it.label().is_empty()) {
            is_kept(&der);
        }
    }
}
