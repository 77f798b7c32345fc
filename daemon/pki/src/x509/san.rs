//! Checks subject alternative names (RFC 5280 4.2.1.6).
//!
//! Names come from requests or are made of their values, so each is checked here before a
//! certificate has it.

use super::oid;
use der::Sequence;
use der::asn1::{Any, AnyRef, Ia5String, ObjectIdentifier, OctetStringRef};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

/// Most names in one certificate.
pub const NAMES_MAX: usize = 32;

/// Longest DNS name and longest label, in octets (RFC 1034 3.1).
const DNS_NAME_OCTETS_MAX: usize = 253;
const DNS_LABEL_OCTETS_MAX: usize = 63;

/// Longest mailbox (RFC 5321 4.5.3.1.3, without the brackets) and its longest user (4.5.3.1.1).
const EMAIL_OCTETS_MAX: usize = 254;
const EMAIL_USER_OCTETS_MAX: usize = 64;

const URI_OCTETS_MAX: usize = 512;

/// Longest serial number of a hardware module, in octets.
const HARDWARE_SERIAL_OCTETS_MAX: usize = 64;

/// The kinds of names that a request may ask for, in the order of RFC 5280.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    Email,
    Dns,
    Uri,
    Ip,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubjectAlternativeName {
    /// dNSName, lower case, no wildcard.
    Dns(String),
    Ip(IpAddr),
    /// uniformResourceIdentifier: absolute, and with a host where it has an authority.
    Uri(String),
    /// rfc822Name: `user@host` in ASCII.
    Email(String),
    HardwareModule(HardwareModule),
}

/// The otherName of a hardware module (RFC 4108 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HardwareModule {
    pub(super) kind: ObjectIdentifier,
    pub(super) serial: Vec<u8>,
}

/// `HardwareModuleName` (RFC 4108 5).
#[derive(Sequence)]
pub(super) struct HardwareModuleName<'a> {
    pub(super) kind: ObjectIdentifier,
    pub(super) serial: &'a OctetStringRef,
}

/// The reason why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SanRefusal {
    /// The text is no host name.
    #[error(
        "{0:?} is not a host name: letters, digits and hyphens, no underscore, no wildcard and no \
         final dot; other letters in their xn-- form, and an IP address as one, not as dns"
    )]
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
    /// The text is no address.
    #[error("{0:?} is not an IP address, such as 192.0.2.7 or 2001:db8::7")]
    NotAddress(String),
    /// The text is no URI.
    #[error(
        "{0:?} is not a URI of at most {URI_OCTETS_MAX} characters: a scheme, a colon and more, in \
         ASCII without spaces; after // comes a host name or an IP address"
    )]
    NotUri(String),
    /// The text is no mailbox.
    #[error("{0:?} is not an email address: user@host, in ASCII")]
    NotEmail(String),
    /// The serial number of a hardware module is empty or too long.
    #[error(
        "the serial number of a hardware module has 1 to {HARDWARE_SERIAL_OCTETS_MAX} bytes, not \
         {0}"
    )]
    HardwareSerial(usize),
}

impl SubjectAlternativeName {
    /// Returns the name as a dNSName, checked.
    pub fn dns(name: &str) -> Result<SubjectAlternativeName, SanRefusal> {
        if is_host_name(name) && !ends_in_number(name) {
            Ok(SubjectAlternativeName::Dns(name.to_ascii_lowercase()))
        } else {
            Err(SanRefusal::NotHostName(shortened(name)))
        }
    }

    /// Returns the octets of an iPAddress as a name.
    pub(super) fn ip(octets: &[u8]) -> Result<SubjectAlternativeName, SanRefusal> {
        ip_address(octets).map(SubjectAlternativeName::Ip)
    }

    /// Returns the text as a name of this kind, checked.
    pub fn from_text(kind: NameKind, text: &str) -> Result<SubjectAlternativeName, SanRefusal> {
        match kind {
            NameKind::Dns => Self::dns(text),
            NameKind::Ip => text
                .parse()
                .map(SubjectAlternativeName::Ip)
                .map_err(|_| SanRefusal::NotAddress(shortened(text))),
            NameKind::Uri if is_uri(text) => Ok(SubjectAlternativeName::Uri(text.to_owned())),
            NameKind::Uri => Err(SanRefusal::NotUri(shortened(text))),
            NameKind::Email if is_mailbox(text) => {
                Ok(SubjectAlternativeName::Email(text.to_owned()))
            }
            NameKind::Email => Err(SanRefusal::NotEmail(shortened(text))),
        }
    }

    /// Returns the kind, if a request may ask for it.
    pub fn kind(&self) -> Option<NameKind> {
        match self {
            SubjectAlternativeName::Dns(_) => Some(NameKind::Dns),
            SubjectAlternativeName::Ip(_) => Some(NameKind::Ip),
            SubjectAlternativeName::Uri(_) => Some(NameKind::Uri),
            SubjectAlternativeName::Email(_) => Some(NameKind::Email),
            SubjectAlternativeName::HardwareModule(_) => None,
        }
    }

    pub(super) fn to_general_name(&self) -> der::Result<GeneralName> {
        Ok(match self {
            SubjectAlternativeName::Dns(name) => GeneralName::DnsName(Ia5String::new(name)?),
            SubjectAlternativeName::Ip(address) => GeneralName::from(*address),
            SubjectAlternativeName::Uri(uri) => {
                GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?)
            }
            SubjectAlternativeName::Email(mailbox) => {
                GeneralName::Rfc822Name(Ia5String::new(mailbox)?)
            }
            SubjectAlternativeName::HardwareModule(module) => {
                let name = HardwareModuleName {
                    kind: module.kind,
                    serial: OctetStringRef::new(&module.serial)?,
                };
                GeneralName::OtherName(OtherName {
                    type_id: oid::HARDWARE_MODULE_NAME,
                    value: Any::encode_from(&name)?,
                })
            }
        })
    }
}

impl HardwareModule {
    /// Checks type and serial number.
    pub fn new(kind: ObjectIdentifier, serial: &[u8]) -> Result<HardwareModule, SanRefusal> {
        if serial.is_empty() || serial.len() > HARDWARE_SERIAL_OCTETS_MAX {
            return Err(SanRefusal::HardwareSerial(serial.len()));
        }
        Ok(HardwareModule {
            kind,
            serial: serial.to_vec(),
        })
    }

    /// Reads the value of an otherName.
    pub(super) fn read(value: &[u8]) -> Option<HardwareModule> {
        let value = AnyRef::try_from(value).ok()?;
        let name: HardwareModuleName<'_> = value.decode_as().ok()?;
        HardwareModule::new(name.kind, name.serial.as_bytes()).ok()
    }
}

/// With the words of OpenSSL, because operators write them.
impl fmt::Display for SubjectAlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubjectAlternativeName::Dns(name) => write!(f, "DNS:{name}"),
            SubjectAlternativeName::Ip(address) => write!(f, "IP:{address}"),
            SubjectAlternativeName::Uri(uri) => write!(f, "URI:{uri}"),
            SubjectAlternativeName::Email(mailbox) => write!(f, "email:{mailbox}"),
            SubjectAlternativeName::HardwareModule(module) => {
                let serial = hex::encode(&module.serial);
                write!(
                    f,
                    "otherName:{};{};{serial}",
                    oid::HARDWARE_MODULE_NAME,
                    module.kind
                )
            }
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(DNS_LABEL_OCTETS_MAX).collect()
}

fn is_host_name(name: &str) -> bool {
    name.len() <= DNS_NAME_OCTETS_MAX && name.split('.').all(is_label)
}

/// Returns true for a name that verifiers mistake for an address and refuse.
pub(super) fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|it| it.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    (1..=DNS_LABEL_OCTETS_MAX).contains(&label.len())
        && label
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// RFC 5321 4.1.2, without quoted strings and address literals.
fn is_mailbox(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else {
        return false;
    };
    let is_atom = |it: &str| {
        let fits =
            |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet);
        !it.is_empty() && it.bytes().all(fits)
    };
    text.len() <= EMAIL_OCTETS_MAX
        && user.len() <= EMAIL_USER_OCTETS_MAX
        && user.split('.').all(is_atom)
        && is_host_name(host)
}

/// RFC 5280 4.2.1.6: absolute, with a scheme and more, and a host where it has an authority.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let in_scheme = |it: u8| it.is_ascii_alphanumeric() || b"+-.".contains(&it);
    let is_scheme =
        scheme.starts_with(|it: char| it.is_ascii_alphabetic()) && scheme.bytes().all(in_scheme);
    let fits = |it: u8| it.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&it);
    is_scheme
        && !rest.is_empty()
        && text.len() <= URI_OCTETS_MAX
        && text.bytes().all(fits)
        && escapes_are_whole(rest)
        && rest.strip_prefix("//").is_none_or(has_host)
}

/// RFC 3986 2.1.
fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    })
}

/// RFC 3986 3.2: `user@host:port`, up to a path.
fn has_host(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    if let Some(inside) = host.strip_prefix('[') {
        let Some((address, port)) = inside.split_once(']') else {
            return false;
        };
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().is_ok() && is_port;
    }
    match host.split_once(':') {
        Some((host, port)) => is_host_name(host) && is_port(port),
        None => is_host_name(host),
    }
}

/// RFC 3986 3.2.3: digits, or none; no sign, which `parse` takes.
fn is_port(text: &str) -> bool {
    text.bytes().all(|it| it.is_ascii_digit()) && (text.is_empty() || text.parse::<u16>().is_ok())
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
    use der::{Tag, Tagged};
    use proptest::prelude::*;

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
            "192.0.2.7",
            "press.7",
            "ä",
            &long_label,
            &long_name,
        ] {
            assert!(SubjectAlternativeName::dns(name).is_err(), "{name}");
        }
    }

    #[test]
    fn names_of_other_kinds_are_taken_or_refused_as_a_whole() {
        let long = format!("urn:{}", "a".repeat(URI_OCTETS_MAX));
        let user = format!("{}@example.net", "a".repeat(EMAIL_USER_OCTETS_MAX + 1));
        for (kind, good, bad) in [
            (
                NameKind::Uri,
                &[
                    "urn:dev:ops:32473-press-7",
                    "https://a.example/x?y#z",
                    "https://a.example:/x",
                    "opc.tcp://192.0.2.7:4840/server",
                    "coaps://[2001:db8::7]:5684/x",
                    "spiffe://plant/line%201",
                ][..],
                &[
                    "",
                    "urn:",
                    "press-7",
                    "1a:b",
                    "https://",
                    "https:///x",
                    "https://a_b/x",
                    "https://a:port/",
                    "https://a:+80/",
                    "https://a:65536/",
                    "https://[2001:db8::7",
                    "urn:a b",
                    "urn:ä",
                    "urn:%4",
                    "urn:<a>",
                    &long,
                ][..],
            ),
            (
                NameKind::Email,
                &["line.1+x@plant.example", "a@b"],
                &[
                    "",
                    "a",
                    "@b",
                    "a@",
                    "a@b@",
                    "a..b@c",
                    ".a@b",
                    "a b@c",
                    "ä@b",
                    "a@b_c",
                    "\"a\"@b",
                    "a@[192.0.2.7]",
                    &user,
                ],
            ),
            (
                NameKind::Ip,
                &["192.0.2.7", "2001:db8::7"],
                &["", "192.0.2", "192.0.2.0/24", "[2001:db8::7]", "localhost"],
            ),
        ] {
            for text in good {
                let name = SubjectAlternativeName::from_text(kind, text);
                assert_eq!(name.map(|it| it.kind()), Ok(Some(kind)), "{text}");
            }
            for text in bad {
                let name = SubjectAlternativeName::from_text(kind, text);
                assert!(name.is_err(), "{kind:?} {text}");
            }
        }
    }

    #[test]
    fn a_hardware_module_is_read_as_it_was_written() {
        let module = HardwareModule::new(oid::COMMON_NAME, b"SN-7").expect("is one");
        let name = SubjectAlternativeName::HardwareModule(module.clone());
        let Ok(GeneralName::OtherName(written)) = name.to_general_name() else {
            panic!("{name} is an otherName");
        };
        assert_eq!(written.value.tag(), Tag::Sequence);
        let der = der::Encode::to_der(&written.value).expect("encodes");
        assert_eq!(HardwareModule::read(&der), Some(module));
        assert!(HardwareModule::new(oid::COMMON_NAME, b"").is_err());
        assert!(HardwareModule::new(oid::COMMON_NAME, &[1; 65]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_or_octets_make_it_panic(
            text in "\\PC{0,60}", octets in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            for kind in [NameKind::Dns, NameKind::Ip, NameKind::Uri, NameKind::Email] {
                let _ = SubjectAlternativeName::from_text(kind, &text);
            }
            let _ = HardwareModule::read(&octets);
        }
    }
}
