//! Encodes values that the lint compares with the bytes (X.690 8.1.3 and 10.1).
//!
//! The builder uses a library for this; a mistake of either is a difference.

use super::canonical::{INTEGER, OBJECT_IDENTIFIER, SEQUENCE};
use crate::x509::profile::{CertificatePolicy, ExtensionValue, PolicyLimits};
use crate::x509::san::SubjectAlternativeName;
use std::net::IpAddr;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const UTF8_STRING: u8 = 0x0c;
const IA5_STRING: u8 = 0x16;

/// `id-qt-cps` (RFC 5280 4.2.1.4) and `id-on-hardwareModuleName` (RFC 4108 5), contents.
const CPS: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x02\x01";
const HARDWARE_MODULE_NAME: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x08\x04";

/// Returns a value with its header. Values here are shorter than 64 KiB.
pub(super) fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    let [.., high, low] = contents.len().to_be_bytes();
    match (high, low) {
        (0, ..=0x7f) => element.push(low),
        (0, _) => element.extend([0x81, low]),
        _ => element.extend([0x82, high, low]),
    }
    element.extend(contents);
    element
}

/// Returns the value of a further extension.
pub(super) fn extension_value(value: &ExtensionValue) -> Vec<u8> {
    match value {
        ExtensionValue::Utf8String(text) => element(UTF8_STRING, text.as_bytes()),
        ExtensionValue::Integer(number) => element(INTEGER, &integer(*number)),
        ExtensionValue::Boolean(true) => element(BOOLEAN, &[0xff]),
        ExtensionValue::Boolean(false) => element(BOOLEAN, &[0]),
        ExtensionValue::Null => element(NULL, &[]),
        ExtensionValue::OctetString(octets) => element(OCTET_STRING, octets),
        ExtensionValue::Der(der) => der.to_vec(),
    }
}

/// Returns the fewest octets of two's complement (X.690 8.3.2): an octet in front that only repeats
/// the sign is left out.
fn integer(number: i64) -> Vec<u8> {
    let octets = number.to_be_bytes();
    let repeats_sign = |pair: &[u8]| matches!(pair, [0, 0..=0x7f] | [0xff, 0x80..=0xff]);
    let spare = octets.windows(2).take_while(|it| repeats_sign(it)).count();
    octets[spare..].to_vec()
}

/// Returns the contents of `certificatePolicies`.
pub(super) fn policies(policies: &[CertificatePolicy]) -> Vec<u8> {
    let policy = |policy: &CertificatePolicy| {
        let mut information = element(OBJECT_IDENTIFIER, policy.id.as_bytes());
        if let Some(cps) = &policy.cps {
            let id = element(OBJECT_IDENTIFIER, CPS);
            let statement = element(IA5_STRING, cps.as_bytes());
            let qualifier = element(SEQUENCE, &[id, statement].concat());
            information.extend(element(SEQUENCE, &qualifier));
        }
        element(SEQUENCE, &information)
    };
    policies.iter().flat_map(policy).collect()
}

/// Returns the contents of `policyConstraints`.
pub(super) fn policy_constraints(limits: PolicyLimits) -> Vec<u8> {
    let Some(constraints) = limits.constraints else {
        return Vec::new();
    };
    let members = [
        (0x80, constraints.require_explicit_policy),
        (0x81, constraints.inhibit_policy_mapping),
    ];
    let members = members.into_iter().filter_map(|(tag, number)| {
        let contents = integer(number?.into());
        Some(element(tag, &contents))
    });
    members.flatten().collect()
}

/// Returns the contents of `inhibitAnyPolicy`.
pub(super) fn inhibit_any_policy(limits: PolicyLimits) -> Vec<u8> {
    let number = limits.inhibit_any_policy.map(i64::from);
    number.map_or_else(Vec::new, integer)
}

/// Returns a `GeneralName` (RFC 5280 4.2.1.6).
pub(super) fn general_name(name: &SubjectAlternativeName) -> Vec<u8> {
    match name {
        SubjectAlternativeName::Email(mailbox) => element(0x81, mailbox.as_bytes()),
        SubjectAlternativeName::Dns(host) => element(0x82, host.as_bytes()),
        SubjectAlternativeName::Uri(uri) => element(0x86, uri.as_bytes()),
        SubjectAlternativeName::Ip(IpAddr::V4(address)) => element(0x87, &address.octets()),
        SubjectAlternativeName::Ip(IpAddr::V6(address)) => element(0x87, &address.octets()),
        SubjectAlternativeName::HardwareModule(module) => {
            let kind = element(OBJECT_IDENTIFIER, module.kind.as_bytes());
            let serial = element(OCTET_STRING, &module.serial);
            let value = element(SEQUENCE, &[kind, serial].concat());
            let id = element(OBJECT_IDENTIFIER, HARDWARE_MODULE_NAME);
            element(0xa0, &[id, element(0xa0, &value)].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_integers_are_minimal() {
        for (length, header) in [
            (0, &b"\x04\x00"[..]),
            (127, b"\x04\x7f"),
            (128, b"\x04\x81\x80"),
            (255, b"\x04\x81\xff"),
            (256, b"\x04\x82\x01\x00"),
            (4_096, b"\x04\x82\x10\x00"),
        ] {
            let value = element(OCTET_STRING, &vec![7; length]);
            assert_eq!(value.strip_suffix(&vec![7; length][..]), Some(header));
        }
        for (number, octets) in [
            (0, &b"\x00"[..]),
            (127, b"\x7f"),
            (128, b"\x00\x80"),
            (-1, b"\xff"),
            (-128, b"\x80"),
            (-129, b"\xff\x7f"),
            (i64::MAX, b"\x7f\xff\xff\xff\xff\xff\xff\xff"),
            (i64::MIN, b"\x80\x00\x00\x00\x00\x00\x00\x00"),
        ] {
            assert_eq!(integer(number), octets, "{number}");
        }
    }
}
