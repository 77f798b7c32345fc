//! Reads the name of a device from the certificate that its manufacturer gave it: an IDevID (IEEE
//! 802.1AR), whose chain another module has verified.
//!
//! A certificate names a device by exactly one value in the place that the configuration says; two
//! values, or none, name no device.

use super::oid;
use super::wire::{Element, elements};
use der::asn1::ObjectIdentifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_SERIALNUMBER};
use x509_parser::prelude::FromDer;

/// The largest IDevID, in bytes.
pub const IDEVID_BYTES_MAX: usize = 16 * 1024;
/// The longest value that is read as a name, in bytes.
const VALUE_BYTES_MAX: usize = 128;

/// id-on-hardwareModuleName (RFC 4108, section 5).
const HARDWARE_MODULE_NAME: &str = "1.3.6.1.5.5.7.8.4";
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[0] EXPLICIT`, the value of an otherName.
const OTHER_NAME_VALUE: u8 = 0xa0;

/// Where an IDevID names its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePlace {
    /// The attribute serialNumber of the subject (IEEE 802.1AR, section 8.6).
    SerialNumber,
    CommonName,
    Dns,
    Uri,
    /// hwSerialNum of the hardwareModuleName with this hwType; its octets in lower hex.
    HardwareModule(HardwareType),
}

/// The type of a hardware module: serial numbers are unique among those of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardwareType(ObjectIdentifier);

impl HardwareType {
    /// Parses an object identifier with dots.
    pub fn parse(dotted: &str) -> Option<Self> {
        oid::parse(dotted).map(Self)
    }
}

/// Why a certificate names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoName {
    #[error("it has more than {IDEVID_BYTES_MAX} bytes")]
    TooLarge,
    #[error("it cannot be read")]
    Unreadable,
    #[error("it has no {0}")]
    None(&'static str),
    #[error("it has more than one {0}")]
    Several(&'static str),
    #[error("its {0} is longer than {VALUE_BYTES_MAX} bytes")]
    TooLong(&'static str),
}

/// Returns the serial number in hex, and the issuer as text, of a certificate in which
/// [`NamePlace::read`] finds a name.
pub fn serial_and_issuer(der: &[u8]) -> Option<(String, String)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let serial = hex::encode_upper(certificate.raw_serial());
    Some((serial, certificate.issuer().to_string()))
}

impl NamePlace {
    /// Returns the name in this place, in words.
    fn words(&self) -> &'static str {
        match self {
            NamePlace::SerialNumber => "serialNumber in its subject",
            NamePlace::CommonName => "common name in its subject",
            NamePlace::Dns => "DNS name",
            NamePlace::Uri => "URI",
            NamePlace::HardwareModule(_) => "hardwareModuleName of the configured type",
        }
    }

    /// Reads the value that names the device in a certificate (DER).
    pub fn read(&self, der: &[u8]) -> Result<String, NoName> {
        if der.len() > IDEVID_BYTES_MAX {
            return Err(NoName::TooLarge);
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NoName::Unreadable)?;
        if !rest.is_empty() {
            return Err(NoName::Unreadable);
        }
        let values = match self {
            NamePlace::SerialNumber => of_subject(&certificate, &OID_X509_SERIALNUMBER)?,
            NamePlace::CommonName => of_subject(&certificate, &OID_X509_COMMON_NAME)?,
            _ => self.of_alternative_names(&certificate)?,
        };
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (None, _) => Err(NoName::None(self.words())),
            (Some(_), Some(_)) => Err(NoName::Several(self.words())),
            (Some(value), None) if value.len() > VALUE_BYTES_MAX => {
                Err(NoName::TooLong(self.words()))
            }
            (Some(value), None) => Ok(value),
        }
    }

    fn of_alternative_names(
        &self,
        certificate: &X509Certificate<'_>,
    ) -> Result<Vec<String>, NoName> {
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| NoName::Unreadable)?;
        let names = names.iter().flat_map(|it| &it.value.general_names);
        let values = names.filter_map(|name| match (self, name) {
            (NamePlace::Dns, GeneralName::DNSName(name)) => Some((*name).to_owned()),
            (NamePlace::Uri, GeneralName::URI(uri)) => Some((*uri).to_owned()),
            (NamePlace::HardwareModule(of), GeneralName::OtherName(kind, value)) => {
                hardware_serial(of, kind, value)
            }
            _ => None,
        });
        Ok(values.collect())
    }
}

fn of_subject(
    certificate: &X509Certificate<'_>,
    attribute: &Oid<'_>,
) -> Result<Vec<String>, NoName> {
    let values = certificate.subject().iter_by_oid(attribute);
    let values = values.map(|it| it.as_str().map(str::to_owned));
    values
        .collect::<Result<_, _>>()
        .map_err(|_| NoName::Unreadable)
}

/// The serial number of a hardwareModuleName with the type `of`: a sequence of type and serial
/// number (RFC 4108, section 5).
fn hardware_serial(of: &HardwareType, kind: &Oid<'_>, value: &[u8]) -> Option<String> {
    if kind.to_id_string() != HARDWARE_MODULE_NAME {
        return None;
    }
    let module = only(value, OTHER_NAME_VALUE)?;
    let module = elements(only(module.value, SEQUENCE)?.value).ok()?;
    let [hardware_type, serial] = module[..] else {
        return None;
    };
    let is_of_type =
        hardware_type.tag == OBJECT_IDENTIFIER && hardware_type.value == of.0.as_bytes();
    (is_of_type && serial.tag == OCTET_STRING).then(|| hex::encode(serial.value))
}

/// The one value in `octets`, if it has this tag.
fn only(octets: &[u8], tag: u8) -> Option<Element<'_>> {
    match elements(octets).ok()?[..] {
        [element] if element.tag == tag => Some(element),
        _ => None,
    }
}
