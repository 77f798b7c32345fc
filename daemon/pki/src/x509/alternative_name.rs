//! Reads subject alternative names of every kind (RFC 5280 4.2.1.6).
//!
//! Only host names and addresses are ever certified. The others are read to be named where they are
//! left out, so nothing in them is a reason to refuse a request.

use super::san::{SanRefusal, SubjectAlternativeName};
use super::wire::{Element, elements};
use der::asn1::ObjectIdentifier;
use der::{Decode, Tag};
use std::fmt;
use x509_cert::name::Name;

const SEQUENCE: u8 = 0x30;

/// One requested name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AlternativeName {
    /// A host name or an address.
    Fit(SubjectAlternativeName),
    /// A dNSName that is no host name, or an iPAddress that is no address.
    Unfit { text: String, why: SanRefusal },
    /// A kind that is never certified, as text.
    OtherKind(String),
}

impl AlternativeName {
    /// Reads the value of the extension, in its order.
    pub(super) fn read_list(der: &[u8]) -> der::Result<Vec<AlternativeName>> {
        let [list @ Element { tag: SEQUENCE, .. }] = elements(der)?[..] else {
            return Err(Tag::Sequence.value_error().into());
        };
        let names = elements(list.value)?.into_iter();
        Ok(names.map(|it| Self::of(it.tag, it.value)).collect())
    }

    /// The kinds are tags of their own. OpenSSL's words are used, because operators write them.
    fn of(tag: u8, octets: &[u8]) -> AlternativeName {
        let other = |kind: &str, text: String| AlternativeName::OtherKind(format!("{kind}:{text}"));
        match tag {
            0x82 => Self::dns(&text(octets)),
            0x87 => Self::address(octets),
            0x81 => other("email", text(octets)),
            0x86 => other("URI", text(octets)),
            0x88 => other("RID", identifier(octets)),
            0xa0 => other("otherName", other_name(octets)),
            0xa4 => other("dirName", directory_name(octets)),
            0xa3 => other("X400Name", hex::encode(octets)),
            0xa5 => other("EdiPartyName", hex::encode(octets)),
            tag => other("unknown", format!("{tag:02x}{}", hex::encode(octets))),
        }
    }

    /// Returns the name with this tag and these octets as text.
    pub(super) fn shown(tag: u8, octets: &[u8]) -> String {
        Self::of(tag, octets).to_string()
    }

    fn dns(name: &str) -> AlternativeName {
        match SubjectAlternativeName::dns(name) {
            Ok(name) => AlternativeName::Fit(name),
            Err(why) => AlternativeName::Unfit {
                text: format!("DNS:{name}"),
                why,
            },
        }
    }

    fn address(octets: &[u8]) -> AlternativeName {
        match SubjectAlternativeName::ip(octets) {
            Ok(address) => AlternativeName::Fit(address),
            Err(why) => {
                let text = match &why {
                    SanRefusal::AddressText(address) => format!("IP:{address}"),
                    _ => format!("IP:{}", hex::encode(octets)),
                };
                AlternativeName::Unfit { text, why }
            }
        }
    }
}

impl fmt::Display for AlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AlternativeName::Fit(name) => name.fmt(f),
            AlternativeName::Unfit { text, .. } | AlternativeName::OtherKind(text) => {
                f.write_str(text)
            }
        }
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn identifier(octets: &[u8]) -> String {
    ObjectIdentifier::from_bytes(octets).map_or_else(|_| hex::encode(octets), |it| it.to_string())
}

/// The type of an otherName; its value has a form of its own for each.
fn other_name(octets: &[u8]) -> String {
    let kind = elements(octets).ok().and_then(|it| it.first().copied());
    kind.map_or_else(|| hex::encode(octets), |it| identifier(it.value))
}

fn directory_name(octets: &[u8]) -> String {
    Name::from_der(octets).map_or_else(|_| hex::encode(octets), |it| it.to_string())
}
