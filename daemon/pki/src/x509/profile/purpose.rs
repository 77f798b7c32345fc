//! The purposes of a key: keyUsage and extKeyUsage (RFC 5280 4.2.1.3 and 4.2.1.12).

use crate::x509::oid;
use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The bits of keyUsage that a profile may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUsage {
    /// Signatures other than on certificates and revocation lists.
    DigitalSignature,
    KeyEncipherment,
    KeyAgreement,
    KeyCertSign,
    /// Signatures on revocation lists.
    CrlSign,
}

/// A purpose that a profile may name. There is no `anyExtendedKeyUsage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ExtendedKeyUsage {
    /// TLS client, such as a device at the provisioning service.
    ClientAuth,
    ServerAuth,
    CodeSigning,
    EmailProtection,
    TimeStamping,
    /// Delegated OCSP responder (RFC 6960 4.2.2.2).
    OcspSigning,
    /// A purpose without a name here.
    Other(ObjectIdentifier),
}

impl ExtendedKeyUsage {
    const NAMED: [(ExtendedKeyUsage, &'static str, ObjectIdentifier); 6] = [
        (Self::ClientAuth, "client_auth", oid::CLIENT_AUTH),
        (Self::ServerAuth, "server_auth", oid::SERVER_AUTH),
        (Self::CodeSigning, "code_signing", oid::CODE_SIGNING),
        (
            Self::EmailProtection,
            "email_protection",
            oid::EMAIL_PROTECTION,
        ),
        (Self::TimeStamping, "time_stamping", oid::TIME_STAMPING),
        (Self::OcspSigning, "ocsp_signing", oid::OCSP_SIGNING),
    ];

    /// Returns the key purpose id (RFC 5280 4.2.1.12).
    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Other(purpose) => purpose,
            named => {
                let row = Self::NAMED.iter().find(|(it, ..)| *it == named);
                row.map(|(_, _, id)| *id).expect("each name has a row")
            }
        }
    }
}

impl TryFrom<String> for ExtendedKeyUsage {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some((purpose, ..)) = Self::NAMED.iter().find(|(_, name, _)| *name == text) {
            return Ok(*purpose);
        }
        let names = Self::NAMED.map(|(_, name, _)| name).join(", ");
        let id = oid::parse(&text).ok_or_else(|| {
            format!(
                "extended_key_usage {text:?} is no purpose; use {names}, or an object \
                 identifier: {}",
                oid::WRITTEN_FORM
            )
        })?;
        if id == oid::ANY_EXTENDED_KEY_USAGE {
            return Err(
                "extended_key_usage cannot be anyExtendedKeyUsage, which is good for every \
                 purpose; name the purposes"
                    .to_owned(),
            );
        }
        let named = Self::NAMED.iter().find(|(.., it)| *it == id);
        Ok(named.map_or(Self::Other(id), |(purpose, ..)| *purpose))
    }
}

/// As it is written in the configuration.
impl fmt::Display for ExtendedKeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(id) => id.fmt(f),
            named => {
                let row = Self::NAMED.iter().find(|(it, ..)| it == named);
                f.write_str(row.map_or("", |(_, name, _)| name))
            }
        }
    }
}

impl From<ExtendedKeyUsage> for String {
    fn from(purpose: ExtendedKeyUsage) -> String {
        purpose.to_string()
    }
}
