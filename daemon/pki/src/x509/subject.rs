//! Reads the subjects of requests and certificates, in every string type that libraries write.
//!
//! Only values are read here. Subjects of new certificates are built by [`super::name`].

use super::name::{AttributeKind, NameRefusal, check_value};
use super::oid;
use super::wire::{Element, elements};
use der::asn1::ObjectIdentifier;
use der::{Decode, Tag};
use std::fmt;
use x509_cert::name::Name;

/// Identifier octets of string types (X.680 8.6).
pub(super) const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const TELETEX_STRING: u8 = 0x14;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const VISIBLE_STRING: u8 = 0x1a;
pub(super) const UNIVERSAL_STRING: u8 = 0x1c;
pub(super) const BMP_STRING: u8 = 0x1e;

const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// The relative distinguished names of a subject, each with its attributes in one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SubjectValues(Vec<Vec<Attribute>>);

/// One attribute. The string type of its value does not count, because libraries differ in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attribute {
    /// The contents of its identifier.
    kind: Vec<u8>,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Text(String),
    /// Its octets.
    Other(Vec<u8>),
}

impl SubjectValues {
    /// Reads a DER `Name` (RFC 5280 4.1.2.4).
    pub(super) fn read(der: &[u8]) -> der::Result<SubjectValues> {
        let [name] = elements(der)?[..] else {
            return Err(Tag::Sequence.value_error().into());
        };
        let sets = elements(contents(name, SEQUENCE)?)?;
        sets.into_iter()
            .map(read_attributes)
            .collect::<der::Result<_>>()
            .map(SubjectValues)
    }

    /// Returns an empty subject.
    pub(super) fn none() -> SubjectValues {
        SubjectValues(Vec::new())
    }

    /// Returns a subject with every attribute that a profile may take.
    pub(super) fn example() -> SubjectValues {
        let attribute = |kind: &AttributeKind| {
            let text = match kind {
                AttributeKind::Country => "XX",
                _ => "EXAMPLE",
            };
            vec![Attribute {
                kind: kind.oid().as_bytes().to_vec(),
                value: Value::Text(text.to_owned()),
            }]
        };
        let kinds = AttributeKind::ALL.iter();
        SubjectValues(kinds.map(attribute).collect())
    }

    /// Returns the common name, if there is one.
    pub(super) fn common_name(&self) -> Result<Option<String>, NameRefusal> {
        let mut values = self.iter().filter(|it| it.is_common_name());
        let first = values.next();
        if values.next().is_some() {
            return Err(NameRefusal::ManyCommonNames);
        }
        match first.map(|it| &it.value) {
            None => Ok(None),
            Some(Value::Other(_)) => Err(NameRefusal::CommonNameType),
            Some(Value::Text(text)) => {
                check_value(AttributeKind::CommonName, text)?;
                Ok(Some(text.clone()))
            }
        }
    }

    /// Returns the text of the attribute of this type, if the subject has it once.
    pub(super) fn text_of(&self, kind: ObjectIdentifier) -> Option<&str> {
        let mut values = self.iter().filter(|it| it.kind == kind.as_bytes());
        match (values.next().map(|it| &it.value), values.next()) {
            (Some(Value::Text(text)), None) => Some(text),
            _ => None,
        }
    }

    /// Returns the attributes besides the common name, in their order.
    pub(super) fn others(&self) -> impl Iterator<Item = &Attribute> {
        self.iter().filter(|it| !it.is_common_name())
    }

    /// Returns true if there is no relative distinguished name.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Attribute> {
        self.0.iter().flatten()
    }
}

/// Returns a DER `Name` as text (RFC 4514). Values of string types that RFC 4514 leaves as octets
/// are text, too.
pub(super) fn text(der: &[u8]) -> Option<String> {
    if let Ok(name) = Name::from_der(der) {
        let text = name.to_string();
        // Of a value that it does not read it shows the octets.
        if !text.contains("=#") {
            return Some(text);
        }
    }
    let sets = SubjectValues::read(der).ok()?.0;
    let sets = sets.iter().rev().map(|set| {
        let attributes: Vec<String> = set.iter().map(Attribute::escaped).collect();
        attributes.join("+")
    });
    Some(sets.collect::<Vec<String>>().join(","))
}

impl Attribute {
    /// RFC 4514 2.4, with a replacement for characters that are not shown.
    fn escaped(&self) -> String {
        let kind = oid::known_name(&self.kind).map(str::to_ascii_uppercase);
        let kind = kind.unwrap_or_else(|| oid::name_of_octets(&self.kind));
        let value = match &self.value {
            Value::Other(octets) => format!("#{}", hex::encode(octets)),
            Value::Text(text) => {
                let mut escaped = String::new();
                for character in text.chars() {
                    if matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
                        escaped.push('\\');
                    }
                    let is_shown = !character.is_control();
                    escaped.push(if is_shown {
                        character
                    } else {
                        char::REPLACEMENT_CHARACTER
                    });
                }
                escaped
            }
        };
        format!("{kind}={value}")
    }

    fn is_common_name(&self) -> bool {
        self.kind == oid::COMMON_NAME.as_bytes()
    }
}

/// As OpenSSL writes it, such as `O=Example`.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The names are those of LDAP, which ignores case.
        match oid::name_of_octets(&self.kind) {
            short if short.len() <= 2 => write!(f, "{}=", short.to_ascii_uppercase())?,
            name => write!(f, "{name}=")?,
        }
        match &self.value {
            Value::Text(text) => f.write_str(text),
            Value::Other(octets) => write!(f, "#{}", hex::encode(octets)),
        }
    }
}

/// `RelativeDistinguishedName`
fn read_attributes(set: Element<'_>) -> der::Result<Vec<Attribute>> {
    let mut attributes = elements(contents(set, SET)?)?
        .into_iter()
        .map(|attribute| {
            let [kind, value] = elements(contents(attribute, SEQUENCE)?)?[..] else {
                return Err(Tag::Sequence.value_error().into());
            };
            Ok(Attribute {
                kind: identifier(kind)?.to_vec(),
                value: Value::of(value),
            })
        })
        .collect::<der::Result<Vec<_>>>()?;
    attributes.sort();
    Ok(attributes)
}

fn identifier(element: Element<'_>) -> der::Result<&[u8]> {
    let contents = contents(element, OBJECT_IDENTIFIER)?;
    if oid::is_identifier(contents) {
        Ok(contents)
    } else {
        Err(Tag::ObjectIdentifier.value_error().into())
    }
}

fn contents(element: Element<'_>, tag: u8) -> der::Result<&[u8]> {
    if element.tag == tag {
        Ok(element.value)
    } else {
        Err(Tag::Sequence.value_error().into())
    }
}

impl Value {
    fn of(element: Element<'_>) -> Value {
        let octets = element.value;
        let text = match element.tag {
            UTF8_STRING => std::str::from_utf8(octets).ok().map(str::to_owned),
            // Old writers put characters into these types that the types lack, such as `_`. In
            // T61String OpenSSL writes Latin-1 and others T.61: only ASCII is the same in both.
            NUMERIC_STRING | PRINTABLE_STRING | TELETEX_STRING | IA5_STRING | VISIBLE_STRING => {
                octets
                    .is_ascii()
                    .then(|| octets.iter().copied().map(char::from).collect())
            }
            BMP_STRING => utf16(octets),
            UNIVERSAL_STRING => utf32(octets),
            _ => None,
        };
        text.map_or_else(|| Value::Other(octets.to_vec()), Value::Text)
    }
}

pub(super) fn utf16(octets: &[u8]) -> Option<String> {
    let (units, rest) = octets.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|_| rest.is_empty())
}

pub(super) fn utf32(octets: &[u8]) -> Option<String> {
    let (units, rest) = octets.as_chunks::<4>();
    let units = units
        .iter()
        .map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
    let text: Option<String> = units.collect();
    text.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A `Name` of these attributes, each in a set of its own: last arc below 2.5.4, tag, octets.
    fn name(attributes: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let value = |tag: u8, contents: &[u8]| {
            let length = u8::try_from(contents.len()).expect("is short");
            [&[tag, length], contents].concat()
        };
        let set = |(arc, tag, octets): &(u8, u8, &[u8])| {
            let kind = [0x06, 0x03, 0x55, 0x04, *arc];
            let attribute = [&kind[..], &value(*tag, octets)].concat();
            value(SET, &value(SEQUENCE, &attribute))
        };
        value(
            SEQUENCE,
            &attributes.iter().flat_map(set).collect::<Vec<_>>(),
        )
    }

    fn common_name(tag: u8, octets: &[u8]) -> Result<Option<String>, NameRefusal> {
        let der = name(&[(3, tag, octets)]);
        SubjectValues::read(&der).expect("is a name").common_name()
    }

    #[test]
    fn every_string_type_is_the_same_text() {
        let wide: Vec<u8> = "a_1".bytes().flat_map(|it| [0, it]).collect();
        let wider: Vec<u8> = "a_1".bytes().flat_map(|it| [0, 0, 0, it]).collect();
        for (tag, octets) in [
            (UTF8_STRING, &b"a_1"[..]),
            (NUMERIC_STRING, b"a_1"),
            (PRINTABLE_STRING, b"a_1"),
            (TELETEX_STRING, b"a_1"),
            (IA5_STRING, b"a_1"),
            (VISIBLE_STRING, b"a_1"),
            (BMP_STRING, &wide),
            (UNIVERSAL_STRING, &wider),
        ] {
            assert_eq!(
                common_name(tag, octets),
                Ok(Some("a_1".to_owned())),
                "{tag:#x}"
            );
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_no_common_name() {
        for (tag, octets) in [
            (UTF8_STRING, &b"\xff"[..]),
            (TELETEX_STRING, b"M\xfcller"),
            (PRINTABLE_STRING, b"M\xc3\xbcller"),
            (BMP_STRING, b"\x00a\x00"),
            (BMP_STRING, b"\xd8\x00\x00a"),
            (UNIVERSAL_STRING, b"\x00\x00\x00"),
            (UNIVERSAL_STRING, b"\x00\x11\x00\x00"),
            (0x04, b"a"),
            (0x1b, b"a"),
        ] {
            let refusal = common_name(tag, octets).expect_err("is no text");
            assert_eq!(refusal, NameRefusal::CommonNameType, "{tag:#x} {octets:x?}");
        }
        for (octets, words) in [
            (&b""[..], "1 to 64"),
            (b"a\0", "control"),
            (b" a", "a space"),
        ] {
            let refusal = common_name(UTF8_STRING, octets).expect_err("is refused");
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
    }

    #[test]
    fn attributes_are_shown_as_openssl_writes_them() {
        let der = name(&[
            (10, UTF8_STRING, b"Example"),
            (3, BMP_STRING, b"\0a"),
            (99, 0x04, b"\x01"),
        ]);
        let subject = SubjectValues::read(&der).expect("is a name");
        let others: Vec<String> = subject.others().map(ToString::to_string).collect();
        assert_eq!(others, ["O=Example", "2.5.4.99=#01"]);
        let twice = name(&[(3, UTF8_STRING, b"a"), (3, UTF8_STRING, b"a")]);
        let twice = SubjectValues::read(&twice)
            .expect("is a name")
            .common_name();
        assert_eq!(twice, Err(NameRefusal::ManyCommonNames));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SubjectValues::read(&octets).map(|it| it.common_name());
        }

        #[test]
        fn text_in_two_or_four_octets_a_character_is_that_text(text in "[^\\p{C}\\p{Z}]{1,20}") {
            let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let wider: Vec<u8> = text.chars().flat_map(|it| u32::from(it).to_be_bytes()).collect();
            prop_assert_eq!(common_name(BMP_STRING, &wide), Ok(Some(text.clone())));
            prop_assert_eq!(common_name(UNIVERSAL_STRING, &wider), Ok(Some(text)));
        }
    }
}
