//! Checks the subject alternative names that a TLS server needs (RFC 5280 4.2.1.6).
//!
//! Names come from requests, so each is checked here before a profile may allow it.

use der::asn1::Ia5String;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use x509_cert::ext::pkix::name::GeneralName;

/// Most names in one certificate.
pub const NAMES_MAX: usize = 32;

/// Longest DNS name and longest label, in octets (RFC 1034 3.1).
const DNS_NAME_OCTETS_MAX: usize = 253;
const DNS_LABEL_OCTETS_MAX: usize = 63;

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectAlternativeName {
    /// dNSName, lower case, no wildcard.
    Dns(String),
    Ip(IpAddr),
}

/// The reason why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SanRefusal {
    /// The text is no host name.
    #[error("{0:?} is not a host name: letters, digits and hyphens, no wildcard")]
    NotHostName(String),
    /// The address has neither 4 nor 16 octets.
    #[error("an IP address has 4 or 16 bytes, not {0}: give an address without a network mask")]
    AddressLength(usize),
    /// The octets of the address are its text.
    #[error(
        "the IP address {0} is written as text, where its bytes belong; make the request with a \
         current library (openssl: subjectAltName=IP:{0})"
    )]
    AddressText(IpAddr),
}

impl SubjectAlternativeName {
    /// Returns the name as a dNSName, checked.
    pub fn dns(name: &str) -> Result<SubjectAlternativeName, SanRefusal> {
        let labels_fit = name.split('.').all(is_label);
        if name.len() > DNS_NAME_OCTETS_MAX || !labels_fit {
            let shortened = name.chars().take(DNS_LABEL_OCTETS_MAX).collect();
            return Err(SanRefusal::NotHostName(shortened));
        }
        Ok(SubjectAlternativeName::Dns(name.to_ascii_lowercase()))
    }

    /// Returns the octets of an iPAddress as a name.
    pub(super) fn ip(octets: &[u8]) -> Result<SubjectAlternativeName, SanRefusal> {
        ip_address(octets).map(SubjectAlternativeName::Ip)
    }

    pub(super) fn to_general_name(&self) -> der::Result<GeneralName> {
        Ok(match self {
            SubjectAlternativeName::Dns(name) => GeneralName::DnsName(Ia5String::new(name)?),
            SubjectAlternativeName::Ip(address) => GeneralName::from(*address),
        })
    }
}

impl fmt::Display for SubjectAlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubjectAlternativeName::Dns(name) => write!(f, "DNS:{name}"),
            SubjectAlternativeName::Ip(address) => write!(f, "IP:{address}"),
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=DNS_LABEL_OCTETS_MAX).contains(&label.len())
        && label
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn ip_address(octets: &[u8]) -> Result<IpAddr, SanRefusal> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    if let Ok(octets) = <[u8; 16]>::try_from(octets) {
        return Ok(Ipv6Addr::from(octets).into());
    }
    let text = std::str::from_utf8(octets).ok();
    Err(match text.and_then(|it| it.parse().ok()) {
        Some(address) => SanRefusal::AddressText(address),
        None => SanRefusal::AddressLength(octets.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_taken_in_lower_case() {
        let name = SubjectAlternativeName::dns("Gateway-7.Example.net");
        let expected = SubjectAlternativeName::Dns("gateway-7.example.net".to_owned());
        assert_eq!(name, Ok(expected));
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = ["a"; 130].join(".");
        for name in [
            "",
            "*.example.net",
            "a..b",
            "a.",
            "-a",
            "a-",
            "a b",
            "ä",
            &long_label,
            &long_name,
        ] {
            assert!(SubjectAlternativeName::dns(name).is_err(), "{name}");
        }
    }
}
