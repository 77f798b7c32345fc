//! Compares distinguished names as relying parties do, not octet by octet (RFC 5280 7.1).
//!
//! The string type of a value, the case of ASCII letters and the number of spaces do not count.
//! These are the rules of OpenSSL, so that both come to the same answer.

use super::ber::SEQUENCE;
use super::oid;
use super::subject::{
    BMP_STRING, IA5_STRING, PRINTABLE_STRING, TELETEX_STRING, UNIVERSAL_STRING, UTF8_STRING,
    VISIBLE_STRING, utf16, utf32,
};
use super::wire::{Element, elements};
use der::Tag;

const SET: u8 = 0x31;

/// The relative distinguished names of a name, each with its attributes in one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ComparableName(Vec<Vec<Attribute>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    /// The object identifier, DER.
    kind: Vec<u8>,
    /// The tag of a value that is no text; that of UTF8String for every text.
    tag: u8,
    value: Vec<u8>,
}

impl ComparableName {
    /// Reads a DER `Name` (RFC 5280 4.1.2.4).
    pub(super) fn read(der: &[u8]) -> der::Result<ComparableName> {
        let compared = |set: Vec<_>| {
            let mut set: Vec<Attribute> = set.into_iter().map(Attribute::of).collect();
            set.sort();
            set
        };
        Ok(ComparableName(
            sets(der)?.into_iter().map(compared).collect(),
        ))
    }

    /// Returns true if this is the name of an entry in the subtree below `base`.
    pub(super) fn is_within(&self, base: &ComparableName) -> bool {
        self.0.starts_with(&base.0)
    }

    /// Returns true if this name, completed by one common name, can be in the subtree below `base`.
    pub(super) fn can_get_within(&self, base: &ComparableName) -> bool {
        match base.0.strip_prefix(self.0.as_slice()) {
            Some([]) => true,
            Some([last]) => matches!(&last[..], [one] if one.kind == oid::COMMON_NAME.as_bytes()),
            Some(_) => false,
            None => self.is_within(base),
        }
    }
}

/// Returns all attributes of a DER `Name`, each with its kind and its value.
pub(super) fn attributes(der: &[u8]) -> der::Result<Vec<(Element<'_>, Element<'_>)>> {
    Ok(sets(der)?.into_iter().flatten().collect())
}

fn sets<'a>(der: &'a [u8]) -> der::Result<Vec<Vec<(Element<'a>, Element<'a>)>>> {
    let malformed = || der::Error::from(Tag::Sequence.value_error());
    let [name] = elements(der)?[..] else {
        return Err(malformed());
    };
    let set_of = |set: Element<'a>| {
        let attributes = elements(set.value)?.into_iter();
        attributes
            .map(|it| match elements(it.value)?[..] {
                [kind, value] if it.tag == SEQUENCE && set.tag == SET => Ok((kind, value)),
                _ => Err(malformed()),
            })
            .collect()
    };
    match name.tag {
        SEQUENCE => elements(name.value)?.into_iter().map(set_of).collect(),
        _ => Err(malformed()),
    }
}

impl Attribute {
    fn of((kind, value): (Element<'_>, Element<'_>)) -> Attribute {
        let text = text(value);
        Attribute {
            kind: kind.value.to_vec(),
            tag: text.as_ref().map_or(value.tag, |_| UTF8_STRING),
            value: text.map_or_else(|| value.value.to_vec(), |it| folded(&it).into_bytes()),
        }
    }
}

/// Returns the text of a value. The octets of the old string types are read as Latin-1.
pub(super) fn text(value: Element<'_>) -> Option<String> {
    let octets = value.value;
    match value.tag {
        UTF8_STRING => std::str::from_utf8(octets).ok().map(str::to_owned),
        PRINTABLE_STRING | TELETEX_STRING | IA5_STRING | VISIBLE_STRING => {
            Some(octets.iter().copied().map(char::from).collect())
        }
        BMP_STRING => utf16(octets),
        UNIVERSAL_STRING => utf32(octets),
        _ => None,
    }
}

/// Returns the text in lower case, without spaces around it, and with one space for many.
fn folded(text: &str) -> String {
    let is_space = |it: char| matches!(it, ' ' | '\t'..='\r');
    let words: Vec<&str> = text.split(is_space).filter(|it| !it.is_empty()).collect();
    words.join(" ").to_ascii_lowercase()
}
