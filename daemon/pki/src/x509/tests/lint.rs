//! The lint finds every single thing that is not as it was asked for.

use super::{Authority, NOW, SoftwareKey, YEAR, expectation, name};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::CERTIFICATE_BYTES_MAX;
use crate::x509::crl_partition::CrlPartitions;
use crate::x509::issuer::Distribution;
use crate::x509::key::{KeyType, PublicKey, SignatureAlgorithm};
use crate::x509::lint::{Expectation, ExpectedIssuer, lint};
use crate::x509::name::{Subject, SubjectAttributes};
use crate::x509::name_constraints::KeptConstraints;
use crate::x509::oid;
use crate::x509::profile::{
    CertificatePolicy, CustomExtension, End, ExtendedKeyUsage, KeyUsage, Kind, Profile,
    SubjectAlternativeNames,
};
use crate::x509::san::{HardwareModule, NameKind, SubjectAlternativeName};
use crate::x509::serial::SerialNumber;
use crate::x509::tbs::{BuildRefusal, CertificateContent, ToBeSigned, build};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

/// Everything that a request is made of, owned.
#[derive(Clone, Debug)]
struct Order {
    profile: Profile,
    subject: Subject,
    key: PublicKey,
    names: Vec<SubjectAlternativeName>,
    serial: SerialNumber,
    now: UnixSeconds,
    distribution: Distribution,
    constraints: Option<KeptConstraints>,
}

static AUTHORITY: LazyLock<Authority> =
    LazyLock::new(|| Authority::root(KeyType::P256, &Profile::authority(Some(3), 40 * YEAR)));

static OTHER_AUTHORITY: LazyLock<Authority> =
    LazyLock::new(|| Authority::root(KeyType::P256, &Profile::authority(Some(3), 41 * YEAR)));

static KEYS: LazyLock<[PublicKey; 3]> = LazyLock::new(|| {
    [KeyType::P256, KeyType::Ed25519, KeyType::P384]
        .map(|key_type| SoftwareKey::generate(key_type).public_key())
});

const POLICIES: &str =
    r#"["1.3.6.1.4.1.32473.1", { oid = "1.3.6.1.4.1.32473.7", cps = "https://pki.example/cps" }]"#;

const EXTENSIONS: &str = r#"[
    { oid = "1.3.6.1.4.1.32473.3", utf8_string = "Käfer" },
    { oid = "1.3.6.1.4.1.32473.4", integer = -129, critical = true },
    { oid = "1.3.6.1.4.1.32473.5", boolean = false },
    { oid = "1.3.6.1.4.1.32473.6", octet_string = "00ff" },
    { oid = "1.3.6.1.5.5.7.48.1.5", null = true },
    { oid = "1.3.6.1.5.5.7.1.24", der = "3003020105" },
]"#;

fn policies(list: &str) -> Vec<CertificatePolicy> {
    read(list)
}

fn extensions(list: &str) -> Vec<CustomExtension> {
    read(list)
}

fn read<T: serde::de::DeserializeOwned>(list: &str) -> Vec<T> {
    let table: BTreeMap<String, Vec<T>> =
        toml::from_str(&format!("list = {list}")).expect("is a list");
    table.into_values().next().expect("has one")
}

fn named(kind: NameKind, text: &str) -> SubjectAlternativeName {
    SubjectAlternativeName::from_text(kind, text).expect("is a name")
}

fn order() -> Order {
    let profile = Profile {
        validity_seconds: YEAR,
        extended_key_usage: vec![
            ExtendedKeyUsage::ClientAuth,
            ExtendedKeyUsage::ServerAuth,
            ExtendedKeyUsage::Other(oid::COMMON_NAME),
        ],
        certificate_policies: policies(POLICIES),
        subject_alternative_names: SubjectAlternativeNames::dns_and_ip(),
        extensions: extensions(EXTENSIONS),
        ..Profile::verification()
    };
    Order {
        profile,
        subject: name("device-7"),
        key: KEYS[0].clone(),
        names: vec![
            SubjectAlternativeName::dns("gateway.example.net").expect("is a name"),
            SubjectAlternativeName::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            named(NameKind::Uri, "urn:dev:press-7"),
            named(NameKind::Email, "line@plant.example"),
            SubjectAlternativeName::HardwareModule(
                HardwareModule::new(oid::COMMON_NAME, b"SN-7").expect("is one"),
            ),
        ],
        serial: SerialNumber::from_random(UnixSeconds::new(0), [3; 12]),
        now: NOW,
        distribution: Distribution {
            crl_url: Some("http://ca.example.net/crl/line.crl".to_owned()),
            crl_partitions: None,
            ca_issuers_url: Some("http://ca.example.net/ca/line.cer".to_owned()),
            ocsp_url: Some("http://ca.example.net/ocsp/line".to_owned()),
        },
        constraints: Some(KeptConstraints {
            value: b"\x30\x09\xa1\x07\x30\x05\x82\x03org".to_vec().into(),
            critical: true,
        }),
    }
}

impl Order {
    fn request(&self) -> CertificateContent<'_> {
        CertificateContent {
            profile: &self.profile,
            subject: &self.subject,
            public_key: &self.key,
            subject_alternative_names: &self.names,
            name_constraints: self.constraints.as_ref(),
            serial: &self.serial,
            now: self.now,
        }
    }

    fn build(&self) -> ToBeSigned {
        let issuer = AUTHORITY
            .issuer()
            .with_distribution(self.distribution.clone());
        build(&issuer, &self.request()).expect("builds")
    }

    fn expectation(&self) -> Expectation<'_> {
        Expectation {
            distribution: Some(&self.distribution),
            ..expectation(
                ExpectedIssuer::Certificate(&AUTHORITY.reading),
                &self.request(),
            )
        }
    }
}

/// The ids of what the lint finds in what `built` makes when `asked` was asked for.
fn findings(built: &Order, asked: &Order) -> Vec<&'static str> {
    match lint(built.build(), &asked.expectation()) {
        Ok(_) => Vec::new(),
        Err(failures) => failures
            .findings()
            .iter()
            .map(|finding| finding.id)
            .collect(),
    }
}

#[test]
fn what_is_as_asked_passes() {
    let order = order();
    let linted = lint(order.build(), &order.expectation()).expect("passes");
    assert_eq!(linted.serial(), &order.serial);
    assert_eq!(linted.validity(), (NOW - 300, NOW + YEAR.cast_signed()));
}

/// The longest names that a CSR of 16 KiB can ask for, and the longest values of a profile.
#[test]
fn a_certificate_that_no_reader_would_take_is_not_built() {
    let uri = |number: usize, length: usize| {
        let text = format!("urn:x:{number:03}:");
        named(
            NameKind::Uri,
            &(text.clone() + &"a".repeat(length - text.len())),
        )
    };
    let issuer = AUTHORITY.issuer();
    let mut order = order();
    order.names = (0..31).map(|it| uri(it, 512)).collect();
    assert_eq!(
        build(&issuer, &order.request()),
        Err(BuildRefusal::TooLarge)
    );
    order.names.truncate(28);
    let built = build(&issuer, &order.request()).expect("builds");
    assert!(built.bytes().len() < CERTIFICATE_BYTES_MAX - 600);
}

/// Verifiers of time stamps accept the extension critical alone (RFC 3161 2.3).
#[test]
fn the_purpose_of_time_stamps_is_critical() {
    let mut order = order();
    order.profile.extended_key_usage = vec![ExtendedKeyUsage::TimeStamping];
    let linted = lint(order.build(), &order.expectation()).expect("passes");
    // extKeyUsage, and TRUE.
    let critical = b"\x06\x03\x55\x1d\x25\x01\x01\xff";
    let bytes = linted.bytes();
    assert!(bytes.windows(critical.len()).any(|it| it == critical));
}

/// Each change alone, and the finding that must name it.
#[test]
fn every_single_departure_is_found() {
    type Change = fn(&mut Order);
    let changes: [(&str, Change); 35] = [
        ("extensions", |order| order.constraints = None),
        ("extensions", |order| {
            let kept = order.constraints.as_mut().expect("has some");
            kept.critical = false;
        }),
        ("name_constraints", |order| {
            let kept = order.constraints.as_mut().expect("has some");
            kept.value = b"\x30\x09\xa0\x07\x30\x05\x82\x03org".to_vec().into();
        }),
        ("common_name", |order| order.subject = name("device-8")),
        ("subject", |order| {
            let attributes: SubjectAttributes =
                toml::from_str("organization = \"Example\"").expect("is a table");
            let other = attributes.with_common_name("device-7");
            order.subject = other.expect("is a name").into();
        }),
        ("not_after", |order| order.profile.validity_seconds += 1),
        ("not_before", |order| order.profile.backdate_seconds -= 1),
        ("not_before", |order| order.now = order.now + 1),
        ("extended_key_usage", |order| {
            order.profile.extended_key_usage.pop();
        }),
        ("extended_key_usage", |order| {
            order.profile.extended_key_usage.reverse()
        }),
        ("extensions", |order| {
            order.profile.extended_key_usage.clear()
        }),
        ("extended_key_usage", |order| {
            order.profile.extended_key_usage[2] = ExtendedKeyUsage::Other(oid::COUNTRY);
        }),
        ("not_after", |order| order.profile.end = End::Never),
        ("not_after", |order| {
            order.profile.end = End::At(NOW + YEAR.cast_signed() - 1);
        }),
        ("not_after", |order| order.profile.end = End::WholeDays),
        ("certificate_policies", |order| {
            order.profile.certificate_policies.reverse()
        }),
        ("certificate_policies", |order| {
            order.profile.certificate_policies.truncate(1);
        }),
        ("extensions", |order| {
            order.profile.certificate_policies.clear()
        }),
        ("certificate_policies", |order| {
            let other = POLICIES.replace("example/cps", "example/cpt");
            order.profile.certificate_policies = policies(&other);
        }),
        ("extensions", |order| {
            order.profile.extensions.pop();
        }),
        ("extensions", |order| {
            let other = EXTENSIONS.replace("-129, critical = true", "-129");
            order.profile.extensions = extensions(&other);
        }),
        ("further_extension", |order| {
            order.profile.extensions = extensions(&EXTENSIONS.replace("Käfer", "Kafer"));
        }),
        ("further_extension", |order| {
            order.profile.extensions = extensions(&EXTENSIONS.replace("-129", "129"));
        }),
        ("subject_alternative_name", |order| {
            let module = HardwareModule::new(oid::COMMON_NAME, b"SN-8");
            order.names[4] = SubjectAlternativeName::HardwareModule(module.expect("is one"));
        }),
        ("key_usage", |order| {
            order.profile.key_usage.insert(KeyUsage::KeyAgreement);
        }),
        ("key_usage", |order| {
            order.profile.key_usage.insert(KeyUsage::KeyCertSign);
        }),
        ("basic_constraints", |order| {
            order.profile.kind = Kind::Authority {
                path_length: Some(0),
            };
        }),
        ("spki", |order| order.key = KEYS[1].clone()),
        ("serial", |order| {
            order.serial = SerialNumber::from_random(UnixSeconds::new(0), [4; 12])
        }),
        ("subject_alternative_name", |order| order.names.reverse()),
        ("extensions", |order| order.names.clear()),
        ("extensions", |order| order.distribution.crl_url = None),
        ("crl_distribution_points", |order| {
            order.distribution.crl_url = Some("http://evil.example/crl".to_owned());
        }),
        ("crl_distribution_points", |order| {
            order.distribution.crl_partitions = Some(CrlPartitions {
                count: 8,
                address: "http://ca.example.net/crl/line-1".to_owned(),
            });
        }),
        ("authority_information_access", |order| {
            order.distribution.ocsp_url = None
        }),
    ];
    for (index, (id, change)) in changes.into_iter().enumerate() {
        let mut built = order();
        change(&mut built);
        let found = findings(&built, &order());
        assert!(found.contains(&id), "change {index} ({id}): {found:?}");
    }
}

#[test]
fn another_issuer_is_found() {
    let order = order();
    let expected = Expectation {
        issuer: ExpectedIssuer::Certificate(&OTHER_AUTHORITY.reading),
        ..order.expectation()
    };
    let failures = lint(order.build(), &expected).expect_err("is refused");
    let ids: Vec<_> = failures
        .findings()
        .iter()
        .map(|finding| finding.id)
        .collect();
    // Both roots have the same name and differ only in the key.
    assert_eq!(ids, ["authority_key_identifier"]);
    let as_root = Expectation {
        issuer: ExpectedIssuer::SelfSigned,
        ..order.expectation()
    };
    assert!(lint(order.build(), &as_root).is_err());
}

#[test]
fn a_failure_says_what_and_where() {
    let mut built = order();
    built.subject = name("device-8");
    let failures = lint(built.build(), &order().expectation()).expect_err("is refused");
    let text = failures.to_string();
    assert!(
        text.contains("[common_name]") && text.contains("device-8"),
        "{text}"
    );
}

#[test]
fn labels_must_agree_with_the_bytes() {
    let order = order();
    type Change = fn(&mut ToBeSigned);
    let changes: [(&str, Change); 3] = [
        ("serial_label", |tbs| {
            tbs.serial = SerialNumber::from_random(UnixSeconds::new(0), [5; 12])
        }),
        ("signature_label", |tbs| {
            tbs.signature_algorithm = SignatureAlgorithm::Ed25519
        }),
        ("validity_label", |tbs| tbs.validity.1 = tbs.validity.1 + 1),
    ];
    for (id, change) in changes {
        let mut tbs = order.build();
        change(&mut tbs);
        let failures = lint(tbs, &order.expectation()).expect_err(id);
        let ids: Vec<_> = failures
            .findings()
            .iter()
            .map(|finding| finding.id)
            .collect();
        assert_eq!(ids, [id]);
    }
}

#[test]
fn bytes_after_the_end_are_found() {
    let order = order();
    let mut tbs = order.build();
    tbs.bytes = [&*tbs.bytes, &[0]].concat().into();
    assert!(lint(tbs, &order.expectation()).is_err());
}

prop_compose! {
    fn orders()(
        common_name in "[a-z0-9._:-]{1,64}",
        random in any::<[u8; 12]>(),
        key in 0..3_usize,
        // Across 2049, to where both forms of time appear.
        age in 600..30 * YEAR.cast_signed(),
        validity_seconds in 1..9 * YEAR,
        backdate_seconds in 0..86_400_u64,
        path_length in proptest::option::of(proptest::option::of(0..3_u8)),
        purposes in proptest::sample::subsequence(
            vec![ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth], 1..=2),
        names in 0..6_usize,
        policies in 0..3_usize,
        further in 0..7_usize,
        end in 0..4_u8,
    ) -> Order {
        let leaf = order();
        let profile = match path_length {
            Some(path_length) => Profile::authority(path_length.or(Some(1)), validity_seconds),
            None => Profile {
                validity_seconds,
                extended_key_usage: purposes,
                ..leaf.profile.clone()
            },
        };
        let now = NOW + age;
        let mut profile = profile;
        profile.certificate_policies.truncate(policies);
        profile.extensions.truncate(further);
        profile.end = match end {
            0 if validity_seconds >= 86_400 => End::WholeDays,
            1 => End::At(now + validity_seconds.cast_signed()),
            2 => End::Never,
            _ => End::AfterValidity,
        };
        Order {
            profile: Profile { backdate_seconds, ..profile },
            subject: name(&common_name),
            key: KEYS[key].clone(),
            serial: SerialNumber::from_random(UnixSeconds::new(0), random),
            names: leaf.names[..names.min(leaf.names.len())].to_vec(),
            now,
            ..leaf
        }
    }
}

proptest! {
    #[test]
    fn what_was_asked_for_is_built_and_passes(order in orders()) {
        prop_assert_eq!(order.profile.check(), Ok(()));
        prop_assert_eq!(findings(&order, &order), Vec::<&str>::new());
    }

    #[test]
    fn two_different_orders_do_not_pass_for_each_other(built in orders(), asked in orders()) {
        prop_assert!(!findings(&built, &asked).is_empty());
    }
}

/// The bits are few enough to try every one.
#[test]
fn every_flipped_bit_is_found() {
    let order = order();
    let bits = 8 * order.build().bytes.len();
    let unseen: BTreeSet<usize> = (0..bits)
        .filter(|bit| {
            let mut tbs = order.build();
            let mut bytes = Vec::from(tbs.bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
            tbs.bytes = bytes.into();
            lint(tbs, &order.expectation()).is_ok()
        })
        .collect();
    assert_eq!(unseen, BTreeSet::new());
}
