//! Builds and reads the distinguished names of certified subjects.
//!
//! Only subjects are built here. An issuer's name is always the subject of the issuer's
//! certificate, byte for byte: names that look equal and are encoded differently break chains. For
//! the same reason the next certificate of an authority has the subject of the one before, also if
//! that was made elsewhere, with attributes and string types that are not built here.

use super::oid;
use super::subject::{self, SubjectValues};
use crate::der_bytes::Der;
use der::asn1::{Any, ObjectIdentifier, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::{Decode, Encode, Tag, Tagged};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

/// `ub-common-name`, `ub-organization-name` and `ub-organizational-unit-name` (RFC 5280 appendix
/// A.1), in characters.
pub const VALUE_CHARACTERS_MAX: usize = 64;

/// The attributes of a subject besides its common name, in the order of encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct SubjectAttributes(BTreeMap<AttributeKind, String>);

/// A subject with exactly one common name, encoded in the order C, ST, L, O, OU, serialNumber, CN.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct DistinguishedName {
    attributes: SubjectAttributes,
    common_name: String,
}

/// The subject of a certificate to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A name that is encoded here.
    Built(DistinguishedName),
    /// The subject of an earlier certificate of the same holder, octet by octet.
    Kept(KeptName),
}

/// A name that was made elsewhere, with its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptName {
    der: Der,
    label: String,
}

/// An attribute type of a subject, in the order of encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeKind {
    /// C, two letters (ISO 3166), PrintableString.
    Country,
    /// ST, stateOrProvinceName.
    State,
    Locality,
    Organization,
    OrganizationalUnit,
    /// The serial number of a device, PrintableString (IEEE 802.1AR).
    SerialNumber,
    CommonName,
}

/// The reason why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefusal {
    /// The common name is missing.
    #[error("a subject needs a common_name")]
    NoCommonName,
    /// A common name is given where the registration id takes its place.
    #[error("common_name cannot be set here: it is the registration id")]
    CommonNameNotAllowed,
    /// The value is empty or too long.
    #[error("{attribute} must have 1 to {VALUE_CHARACTERS_MAX} characters, not {characters}")]
    Length {
        /// The attribute's key in the configuration.
        attribute: &'static str,
        /// The length in characters.
        characters: usize,
    },
    /// The value has control characters, or spaces around it.
    #[error("{attribute} must not contain control characters, nor begin or end with a space")]
    Characters {
        /// The attribute's key in the configuration.
        attribute: &'static str,
    },
    /// A request has more than one common name.
    #[error("the subject has more than one common name; send exactly one, or none")]
    ManyCommonNames,
    /// The common name is no text in any string type.
    #[error("the common name cannot be read as text; write it in UTF-8 (openssl req: -utf8)")]
    CommonNameType,
    /// The encoding differs from ours.
    #[error("the name was not made here: its attributes or their encoding are others")]
    NotOurs,
    /// An authority has no name by which certificates could name their issuer.
    #[error("the subject is empty, and that of an authority must not be (RFC 5280, 4.1.2.6)")]
    Empty,
    /// The country is not two upper-case letters.
    #[error("country must be two upper-case letters (ISO 3166), such as DE")]
    Country,
    /// The serial number is no PrintableString.
    #[error("serial_number may have letters, digits, spaces and ' ( ) + , - . / : = ? only")]
    SerialNumber,
}

impl SubjectAttributes {
    /// Checks and combines attributes and a common name.
    pub fn with_common_name(&self, common_name: &str) -> Result<DistinguishedName, NameRefusal> {
        check_value(AttributeKind::CommonName, common_name)?;
        Ok(DistinguishedName {
            attributes: self.clone(),
            common_name: common_name.to_owned(),
        })
    }

    /// Returns the DER `Name` of these attributes alone.
    pub(super) fn to_der(&self) -> Der {
        encoded(self.iter())
    }

    /// Sets one attribute, checked. The common name is none of them.
    pub(super) fn set(&mut self, kind: AttributeKind, value: &str) -> Result<(), NameRefusal> {
        check_value(kind, value)?;
        self.0.insert(kind, value.to_owned());
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (AttributeKind, &str)> {
        self.0.iter().map(|(kind, value)| (*kind, value.as_str()))
    }
}

impl DistinguishedName {
    /// Returns a subject that has only a common name.
    pub fn from_common_name(common_name: &str) -> Result<DistinguishedName, NameRefusal> {
        SubjectAttributes::default().with_common_name(common_name)
    }

    /// Reads the subject of a certificate that was built here. Its encoding is byte for byte the
    /// same, so the next certificate of an authority has the same name.
    pub fn from_der(der: &[u8]) -> Result<DistinguishedName, NameRefusal> {
        let name = Name::from_der(der).map_err(|_| NameRefusal::NotOurs)?;
        let mut table = Table::default();
        for attribute in name.iter() {
            let value = directory_string(&attribute.value).ok_or(NameRefusal::NotOurs)?;
            let kind = AttributeKind::from_oid(attribute.oid).ok_or(NameRefusal::NotOurs)?;
            table.0.insert(kind, value.to_owned());
        }
        let read = DistinguishedName::try_from(table)?;
        if *read.to_der() == *der {
            Ok(read)
        } else {
            Err(NameRefusal::NotOurs)
        }
    }

    /// Returns the common name.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Returns the attributes besides the common name.
    pub fn attributes(&self) -> &SubjectAttributes {
        &self.attributes
    }

    /// Returns the attributes in the order of encoding, the common name last.
    pub fn iter(&self) -> impl Iterator<Item = (AttributeKind, &str)> {
        let common_name = (AttributeKind::CommonName, self.common_name.as_str());
        self.attributes.iter().chain([common_name])
    }

    /// Returns the DER `Name` (RFC 5280 4.1.2.4), one attribute in each RelativeDistinguishedName.
    pub fn to_der(&self) -> Der {
        encoded(self.iter())
    }
}

impl Subject {
    /// Reads the subject of an authority's certificate for the next one, which gets the same
    /// octets.
    pub fn of_predecessor(der: &[u8]) -> Result<Subject, NameRefusal> {
        if let Ok(built) = DistinguishedName::from_der(der) {
            return Ok(Subject::Built(built));
        }
        let values = SubjectValues::read(der).map_err(|_| NameRefusal::NotOurs)?;
        if values.is_empty() {
            return Err(NameRefusal::Empty);
        }
        let common_name = values.common_name().ok().flatten();
        let label = common_name.or_else(|| subject::text(der));
        Ok(Subject::Kept(KeptName {
            der: der.into(),
            label: label.ok_or(NameRefusal::NotOurs)?,
        }))
    }

    /// Returns the common name, or the whole name as text (RFC 4514) where it has no single one.
    pub fn label(&self) -> &str {
        match self {
            Subject::Built(name) => name.common_name(),
            Subject::Kept(name) => &name.label,
        }
    }

    /// Returns the DER `Name`.
    pub fn to_der(&self) -> Der {
        match self {
            Subject::Built(name) => name.to_der(),
            Subject::Kept(name) => name.der.clone(),
        }
    }
}

impl KeptName {
    /// Returns the DER `Name`.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl From<DistinguishedName> for Subject {
    fn from(name: DistinguishedName) -> Subject {
        Subject::Built(name)
    }
}

impl AttributeKind {
    pub(super) const ALL: [AttributeKind; 7] = [
        AttributeKind::Country,
        AttributeKind::State,
        AttributeKind::Locality,
        AttributeKind::Organization,
        AttributeKind::OrganizationalUnit,
        AttributeKind::SerialNumber,
        AttributeKind::CommonName,
    ];

    fn from_oid(oid: ObjectIdentifier) -> Option<AttributeKind> {
        Self::ALL.into_iter().find(|it| it.oid() == oid)
    }

    /// Returns the attribute with this key in the configuration.
    pub(super) fn from_key(key: &str) -> Option<AttributeKind> {
        Self::ALL.into_iter().find(|it| it.key() == key)
    }

    pub(super) fn oid(self) -> ObjectIdentifier {
        match self {
            AttributeKind::Country => oid::COUNTRY,
            AttributeKind::State => oid::STATE,
            AttributeKind::Locality => oid::LOCALITY,
            AttributeKind::Organization => oid::ORGANIZATION,
            AttributeKind::OrganizationalUnit => oid::ORGANIZATIONAL_UNIT,
            AttributeKind::SerialNumber => oid::SERIAL_NUMBER,
            AttributeKind::CommonName => oid::COMMON_NAME,
        }
    }

    /// Encodes the value as UTF8String, country and serial number as PrintableString (RFC 5280
    /// appendix A.1).
    fn encode(self, value: &str) -> der::Result<Any> {
        match self {
            AttributeKind::Country | AttributeKind::SerialNumber => {
                Ok(Any::from(PrintableStringRef::new(value)?))
            }
            _ => Ok(Any::from(Utf8StringRef::new(value)?)),
        }
    }

    /// Returns the key in the configuration.
    pub(super) fn key(self) -> &'static str {
        match self {
            AttributeKind::Country => "country",
            AttributeKind::State => "state",
            AttributeKind::Locality => "locality",
            AttributeKind::Organization => "organization",
            AttributeKind::OrganizationalUnit => "organizational_unit",
            AttributeKind::SerialNumber => "serial_number",
            AttributeKind::CommonName => "common_name",
        }
    }
}

/// Writes the most specific attribute first (RFC 4514).
impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = rdn_sequence(self.iter()).map_err(|_| fmt::Error)?;
        names.fmt(f)
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistinguishedName({self})")
    }
}

/// A subject as the configuration gives it, unchecked.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Table(BTreeMap<AttributeKind, String>);

impl TryFrom<Table> for SubjectAttributes {
    type Error = NameRefusal;

    fn try_from(Table(values): Table) -> Result<SubjectAttributes, NameRefusal> {
        if values.contains_key(&AttributeKind::CommonName) {
            return Err(NameRefusal::CommonNameNotAllowed);
        }
        for (kind, value) in &values {
            check_value(*kind, value)?;
        }
        Ok(SubjectAttributes(values))
    }
}

impl TryFrom<Table> for DistinguishedName {
    type Error = NameRefusal;

    fn try_from(mut table: Table) -> Result<DistinguishedName, NameRefusal> {
        let common_name = table.0.remove(&AttributeKind::CommonName);
        let common_name = common_name.ok_or(NameRefusal::NoCommonName)?;
        SubjectAttributes::try_from(table)?.with_common_name(&common_name)
    }
}

impl From<SubjectAttributes> for Table {
    fn from(attributes: SubjectAttributes) -> Table {
        Table(attributes.0)
    }
}

impl From<DistinguishedName> for Table {
    fn from(name: DistinguishedName) -> Table {
        let mut table = Table::from(name.attributes);
        table.0.insert(AttributeKind::CommonName, name.common_name);
        table
    }
}

/// Controls, and characters that change the order in which others are shown, or have no width: a
/// name with them is read as another one.
fn is_not_shown(character: char) -> bool {
    let has_no_width = matches!(
        character,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
    );
    has_no_width || character.is_control()
}

/// Encodes a `Name` of checked values.
fn encoded<'a>(values: impl Iterator<Item = (AttributeKind, &'a str)>) -> Der {
    rdn_sequence(values)
        .and_then(|names| names.to_der())
        .expect("values were checked to be encodable, and short")
        .into()
}

/// One attribute in each RelativeDistinguishedName.
fn rdn_sequence<'a>(
    values: impl Iterator<Item = (AttributeKind, &'a str)>,
) -> der::Result<RdnSequence> {
    let mut names = RdnSequence::default();
    for (kind, value) in values {
        let attribute = AttributeTypeAndValue {
            oid: kind.oid(),
            value: kind.encode(value)?,
        };
        let set = SetOfVec::try_from([attribute])?;
        names.push(RelativeDistinguishedName::from(set));
    }
    Ok(names)
}

fn directory_string(value: &Any) -> Option<&str> {
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(value.value()).ok(),
        Tag::PrintableString => PrintableStringRef::new(value.value())
            .ok()
            .map(|text| text.as_str()),
        _ => None,
    }
}

/// Fails if no subject may have this value of an attribute.
pub fn check_value(kind: AttributeKind, value: &str) -> Result<(), NameRefusal> {
    let attribute = kind.key();
    let characters = value.chars().count();
    if characters == 0 || characters > VALUE_CHARACTERS_MAX {
        return Err(NameRefusal::Length {
            attribute,
            characters,
        });
    }
    if value.chars().any(is_not_shown) || value.trim() != value {
        return Err(NameRefusal::Characters { attribute });
    }
    let two_letters = value.len() == 2 && value.bytes().all(|octet| octet.is_ascii_uppercase());
    if kind == AttributeKind::Country && !two_letters {
        return Err(NameRefusal::Country);
    }
    if kind == AttributeKind::SerialNumber && PrintableStringRef::new(value).is_err() {
        return Err(NameRefusal::SerialNumber);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from_toml(text: &str) -> Result<DistinguishedName, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_becomes_a_name_in_rfc_4514_order() {
        let name = from_toml(
            r#"common_name = "Line 7, Root"
               organization = "Example"
               organizational_unit = "Pumps"
               country = "DE""#,
        )
        .expect("is a name");
        assert_eq!(
            name.to_string(),
            r"CN=Line 7\, Root,OU=Pumps,O=Example,C=DE"
        );
        let kinds: Vec<AttributeKind> = name.iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds[0], AttributeKind::Country);
        assert_eq!(kinds[3], AttributeKind::CommonName);
    }

    #[test]
    fn the_country_is_printable_and_the_rest_utf8() {
        let name = from_toml("common_name = \"x\"\ncountry = \"DE\"").expect("is a name");
        let expected = b"\x30\x19\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02DE\
                         \x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01x";
        assert_eq!(hex::encode(name.to_der()), hex::encode(expected));
    }

    #[test]
    fn what_cannot_be_certified_is_refused_with_its_reason() {
        for (text, reason) in [
            ("organization = \"x\"", "needs a common_name"),
            ("common_name = \"\"", "1 to 64 characters, not 0"),
            ("common_name = \"a\\u0000b\"", "control characters"),
            ("common_name = \" a\"", "begin or end with a space"),
            (
                "common_name = \"a\"\ncountry = \"de\"",
                "upper-case letters",
            ),
            (
                "common_name = \"a\"\nserial_number = \"b_1\"",
                "serial_number may have",
            ),
            ("common_name = \"a\"\nstreet = \"b\"", "unknown variant"),
        ] {
            let error = from_toml(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        let attributes = toml::from_str::<SubjectAttributes>("common_name = \"x\"");
        assert!(attributes.is_err(), "attributes have no common name");
    }

    proptest! {
        #[test]
        fn names_within_limits_encode_and_survive_serde(common_name in "[^\\p{C} ]{1,64}") {
            prop_assume!(common_name.trim() == common_name);
            let name = DistinguishedName::from_common_name(&common_name).expect("is within limits");
            prop_assert!(!name.to_der().is_empty());
            prop_assert_eq!(&DistinguishedName::from_der(&name.to_der()).expect("is ours"), &name);
            let json = serde_json::to_string(&name).expect("serializes");
            let read: DistinguishedName = serde_json::from_str(&json).expect("reads back");
            prop_assert_eq!(read, name);
        }

        #[test]
        fn longer_names_are_refused(common_name in "[a-z]{65,200}") {
            prop_assert!(DistinguishedName::from_common_name(&common_name).is_err());
        }
    }
}
