//! Reads subject alternative names of every kind (RFC 5280 4.2.1.6).
//!
//! A profile says which kinds are certified. The others are read to be named where they are left
//! out, so nothing in them is a reason to refuse a request.

use super::oid;
use super::san::{HardwareModule, NameKind, SanRefusal, SubjectAlternativeName};
use super::wire::{Element, elements};
use der::asn1::ObjectIdentifier;
use der::{Decode, Tag};
use std::fmt;
use x509_cert::name::Name;

const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`: the value of an otherName.
const EXPLICIT: u8 = 0xa0;

/// One requested name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AlternativeName {
    /// A name that a certificate may have.
    Fit(SubjectAlternativeName),
    /// A name that is none of its kind, such as an iPAddress that is no address.
    Unfit {
        kind: NameKind,
        text: String,
        why: SanRefusal,
    },
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
            0x82 => Self::of_kind(NameKind::Dns, "DNS", text(octets)),
            0x87 => Self::address(octets),
            0x81 => Self::of_kind(NameKind::Email, "email", text(octets)),
            0x86 => Self::of_kind(NameKind::Uri, "URI", text(octets)),
            0x88 => other("RID", identifier(octets)),
            0xa0 => hardware_module(octets).map_or_else(
                || other("otherName", other_name(octets)),
                |it| AlternativeName::Fit(SubjectAlternativeName::HardwareModule(it)),
            ),
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

    fn of_kind(kind: NameKind, word: &str, text: String) -> AlternativeName {
        match SubjectAlternativeName::from_text(kind, &text) {
            Ok(name) => AlternativeName::Fit(name),
            Err(why) => AlternativeName::Unfit {
                kind,
                text: format!("{word}:{text}"),
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
                let kind = NameKind::Ip;
                AlternativeName::Unfit { kind, text, why }
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

fn hardware_module(octets: &[u8]) -> Option<HardwareModule> {
    let [kind, value] = elements(octets).ok()?[..] else {
        return None;
    };
    let is_one = kind.value == oid::HARDWARE_MODULE_NAME.as_bytes() && value.tag == EXPLICIT;
    HardwareModule::read(value.value).filter(|_| is_one)
}

/// The type of an otherName; its value has a form of its own for each.
fn other_name(octets: &[u8]) -> String {
    let kind = elements(octets).ok().and_then(|it| it.first().copied());
    kind.map_or_else(|| hex::encode(octets), |it| identifier(it.value))
}

fn directory_name(octets: &[u8]) -> String {
    Name::from_der(octets).map_or_else(|_| hex::encode(octets), |it| it.to_string())
}
