//! Extensions that a profile adds by object identifier.

use crate::der_bytes::Der;
use crate::x509::lint::canonical;
use crate::x509::oid;
use der::Encode;
use der::asn1::{Null, ObjectIdentifier, OctetStringRef};
use serde::{Deserialize, Serialize};

/// Most further extensions of one certificate.
pub const EXTENSIONS_MAX: usize = 16;

/// Longest value of one and of all together, in bytes of DER: a certificate has room for them
/// ([`crate::x509::certificate::CERTIFICATE_BYTES_MAX`]).
pub(super) const VALUE_BYTES_MAX: usize = 4_096;

/// Extensions that have members of their own, or that the daemon sets.
const RESERVED: [(ObjectIdentifier, &str); 21] = [
    (oid::SUBJECT_KEY_IDENTIFIER, "the daemon sets it"),
    (oid::AUTHORITY_KEY_IDENTIFIER, "the daemon sets it"),
    (oid::BASIC_CONSTRAINTS, "use kind and path_length"),
    (oid::KEY_USAGE, "use key_usage"),
    (oid::EXTENDED_KEY_USAGE, "use extended_key_usage"),
    (oid::SUBJECT_ALT_NAME, "use subject_alternative_names"),
    (oid::CERTIFICATE_POLICIES, "use certificate_policies"),
    (oid::NAME_CONSTRAINTS, "it is for authorities"),
    (oid::POLICY_CONSTRAINTS, "it is for authorities"),
    (oid::CRL_DISTRIBUTION_POINTS, "use [listen] public_http"),
    (
        oid::AUTHORITY_INFORMATION_ACCESS,
        "use [listen] public_http",
    ),
    (oid::POLICY_MAPPINGS, "it is for authorities"),
    (oid::INHIBIT_ANY_POLICY, "it is for authorities"),
    (oid::PROXY_CERTIFICATE, "no proxies are certified"),
    (oid::NETSCAPE_CERTIFICATE_TYPE, "use extended_key_usage"),
    (oid::CRL_NUMBER, OF_LISTS),
    (oid::CRL_REASON, OF_LISTS),
    (oid::INVALIDITY_DATE, OF_LISTS),
    (oid::DELTA_CRL_INDICATOR, OF_LISTS),
    (oid::ISSUING_DISTRIBUTION_POINT, OF_LISTS),
    (oid::CERTIFICATE_ISSUER, OF_LISTS),
];

const OF_LISTS: &str = "it is for revocation lists";

/// Extensions that must not be critical (RFC 5280 4.2.1.8, 4.2.1.15, 4.2.2.2).
const NEVER_CRITICAL: [ObjectIdentifier; 3] = [
    oid::SUBJECT_DIRECTORY_ATTRIBUTES,
    oid::FRESHEST_CRL,
    oid::SUBJECT_INFORMATION_ACCESS,
];

/// An extension with a value that is the same in every certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ExtensionTable", into = "ExtensionTable")]
pub struct CustomExtension {
    pub(crate) id: ObjectIdentifier,
    pub(crate) critical: bool,
    /// As it is written; the lint encodes it a second time.
    pub(crate) value: ExtensionValue,
    /// The value as the builder encodes it, once.
    pub(crate) encoded: Der,
}

/// The value of a further extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExtensionValue {
    Utf8String(String),
    Integer(i64),
    Boolean(bool),
    Null,
    OctetString(Vec<u8>),
    /// One DER value, as it is.
    Der(Der),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtensionTable {
    oid: String,
    #[serde(default)]
    critical: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    utf8_string: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    integer: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boolean: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    null: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    octet_string: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    der: Option<String>,
}

impl CustomExtension {
    /// Adds those of `others` that are not among `own`.
    pub(super) fn over(mut own: Vec<Self>, others: Vec<Self>) -> Vec<Self> {
        let is_new = |it: &Self| own.iter().all(|known| known.id != it.id);
        let new: Vec<Self> = others.into_iter().filter(is_new).collect();
        own.extend(new);
        own
    }

    /// Makes an extension whose value is NULL.
    pub(super) fn null(id: ObjectIdentifier) -> CustomExtension {
        let value = ExtensionValue::Null;
        CustomExtension {
            id,
            critical: false,
            encoded: value.encode().expect("NULL is encodable"),
            value,
        }
    }
}

impl TryFrom<ExtensionTable> for CustomExtension {
    type Error = String;

    fn try_from(table: ExtensionTable) -> Result<Self, String> {
        let id = oid::parse(&table.oid).ok_or_else(|| {
            format!(
                "extension {:?}: its oid is no object identifier that is read here: {}",
                table.oid,
                oid::WRITTEN_FORM
            )
        })?;
        if let Some((_, instead)) = RESERVED.iter().find(|(it, _)| *it == id) {
            return Err(format!("extension {id} cannot be set here: {instead}"));
        }
        if table.critical && NEVER_CRITICAL.contains(&id) {
            return Err(format!(
                "extension {id} must not be critical (RFC 5280); remove critical"
            ));
        }
        let of_extension = |why: String| format!("extension {id}: {why}");
        let critical = table.critical;
        let value = table.value().map_err(of_extension)?;
        let encoded = value
            .encode()
            .map_err(|_| of_extension("its value cannot be encoded; shorten it".to_owned()))?;
        if encoded.len() > VALUE_BYTES_MAX {
            return Err(of_extension(format!(
                "its value has {} bytes, and at most {VALUE_BYTES_MAX} are allowed; shorten it",
                encoded.len()
            )));
        }
        Ok(CustomExtension {
            id,
            critical,
            value,
            encoded,
        })
    }
}

impl ExtensionTable {
    /// The one value.
    fn value(self) -> Result<ExtensionValue, String> {
        let octets = |member: &str, text: &str| {
            hex::decode(text).map_err(|_| {
                format!("{member} must be hexadecimal digits, two for each byte, such as \"0a0b\"")
            })
        };
        let octet_string = self.octet_string.as_deref();
        let octet_string = octet_string
            .map(|it| octets("octet_string", it))
            .transpose()?;
        let der = self.der.as_deref();
        let der = der.map(|it| octets("der", it)).transpose()?;
        if der.as_ref().is_some_and(|it| !canonical::is_one_value(it)) {
            return Err(
                "der must be one DER value, complete, in its one encoding (X.690, 10 and 11) and \
                 with nothing after it"
                    .to_owned(),
            );
        }
        let mut values = [
            self.utf8_string.map(ExtensionValue::Utf8String),
            self.integer.map(ExtensionValue::Integer),
            self.boolean.map(ExtensionValue::Boolean),
            self.null.map(|_| ExtensionValue::Null),
            octet_string.map(ExtensionValue::OctetString),
            der.map(|it| ExtensionValue::Der(it.into())),
        ]
        .into_iter()
        .flatten();
        match (values.next(), values.next()) {
            (Some(ExtensionValue::Null), None) if self.null == Some(false) => {
                Err("null can only be true; remove it, and give another value".to_owned())
            }
            (Some(value), None) => Ok(value),
            _ => Err(
                "give its value once: utf8_string, integer, boolean, null, octet_string or der"
                    .to_owned(),
            ),
        }
    }
}

impl From<CustomExtension> for ExtensionTable {
    fn from(extension: CustomExtension) -> ExtensionTable {
        let mut table = ExtensionTable {
            oid: extension.id.to_string(),
            critical: extension.critical,
            ..ExtensionTable::default()
        };
        match extension.value {
            ExtensionValue::Utf8String(text) => table.utf8_string = Some(text),
            ExtensionValue::Integer(number) => table.integer = Some(number),
            ExtensionValue::Boolean(it) => table.boolean = Some(it),
            ExtensionValue::Null => table.null = Some(true),
            ExtensionValue::OctetString(octets) => table.octet_string = Some(hex::encode(octets)),
            ExtensionValue::Der(der) => table.der = Some(hex::encode(&*der)),
        }
        table
    }
}

impl ExtensionValue {
    fn encode(&self) -> der::Result<Der> {
        Ok(match self {
            ExtensionValue::Utf8String(text) => text.as_str().to_der()?.into(),
            ExtensionValue::Integer(number) => number.to_der()?.into(),
            ExtensionValue::Boolean(it) => it.to_der()?.into(),
            ExtensionValue::Null => Null.to_der()?.into(),
            ExtensionValue::OctetString(octets) => OctetStringRef::new(octets)?.to_der()?.into(),
            ExtensionValue::Der(der) => der.clone(),
        })
    }
}
