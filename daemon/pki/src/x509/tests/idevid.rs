//! Tests how a device is read from the certificate of its manufacturer.

use crate::x509::idevid::{HardwareType, IDEVID_BYTES_MAX, NamePlace, NoName};
use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, OtherNameValue, SanType};

const TYPE: &str = "1.3.6.1.4.1.99999.7";

/// A certificate whose subject has these values of `attribute`, and these alternative names.
fn certificate(attribute: &DnType, values: &[&str], names: Vec<SanType>) -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    for value in values {
        subject.push(attribute.clone(), *value);
    }
    parameters.distinguished_name = subject;
    parameters.subject_alt_names = names;
    let key = KeyPair::generate().unwrap();
    parameters.self_signed(&key).unwrap().der().to_vec()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn serial_number() -> DnType {
    DnType::CustomDnType(vec![2, 5, 4, 5])
}

#[test]
fn one_value_in_its_place_names_the_device() {
    let names = || vec![dns("press-7.example"), uri("urn:dev:7")];
    let by_serial = certificate(&serial_number(), &["press-7"], names());
    let by_name = certificate(&DnType::CommonName, &["press-8"], names());
    for (place, certificate, expected) in [
        (NamePlace::SerialNumber, &by_serial, Ok("press-7")),
        (NamePlace::CommonName, &by_name, Ok("press-8")),
        (NamePlace::Dns, &by_serial, Ok("press-7.example")),
        (NamePlace::Uri, &by_serial, Ok("urn:dev:7")),
        (NamePlace::SerialNumber, &by_name, Err(())),
        (NamePlace::CommonName, &by_serial, Err(())),
    ] {
        let found = place.read(certificate);
        let found = found.as_deref().map_err(|refused| {
            assert!(matches!(refused, NoName::None(_)), "{refused}");
        });
        assert_eq!(found, expected);
    }
    let two = certificate(
        &serial_number(),
        &[],
        vec![dns("a.example"), dns("b.example")],
    );
    assert!(matches!(NamePlace::Dns.read(&two), Err(NoName::Several(_))));
    let long = certificate(&serial_number(), &[&"x".repeat(129)], Vec::new());
    assert!(matches!(
        NamePlace::SerialNumber.read(&long),
        Err(NoName::TooLong(_))
    ));
    let large = vec![0x30; IDEVID_BYTES_MAX + 1];
    assert_eq!(NamePlace::Dns.read(&large), Err(NoName::TooLarge));
}

#[test]
fn an_other_name_that_is_no_hardware_module_names_none() {
    let value = OtherNameValue::Utf8String("press-7".into());
    let oid = vec![1, 3, 6, 1, 5, 5, 7, 8, 4];
    let other = certificate(
        &serial_number(),
        &[],
        vec![SanType::OtherName((oid, value))],
    );
    let place = NamePlace::HardwareModule(HardwareType::parse(TYPE).unwrap());
    assert!(matches!(place.read(&other), Err(NoName::None(_))));
    assert!(HardwareType::parse("1.3.six").is_none());
}

/// Every place.
fn places() -> [NamePlace; 5] {
    [
        NamePlace::SerialNumber,
        NamePlace::CommonName,
        NamePlace::Dns,
        NamePlace::Uri,
        NamePlace::HardwareModule(HardwareType::parse(TYPE).unwrap()),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for place in places() {
            let _ = place.read(&bytes);
        }
    }

    #[test]
    fn a_changed_certificate_is_read_within_the_limits_or_refused(
        at in 0..400_usize,
        byte in any::<u8>(),
    ) {
        let mut changed = certificate(
            &serial_number(),
            &["press-7"],
            vec![dns("press-7.example"), uri("urn:dev:7")],
        );
        if let Some(octet) = changed.get_mut(at) {
            *octet = byte;
        }
        for place in places() {
            if let Ok(value) = place.read(&changed) {
                prop_assert!(value.len() <= 128);
            }
        }
    }
}
