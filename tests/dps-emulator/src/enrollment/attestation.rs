//! How an entry knows its devices: the `attestation` of a record (contract section 3).

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Kind;
use crate::certificate::Certificate;
use crate::ids;
use crate::refusal::Refusal;

/// Primary and secondary place of something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slots<T> {
    pub(crate) primary: Option<T>,
    pub(crate) secondary: Option<T>,
}

impl<T> Slots<T> {
    /// Contents of the slots, primary first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.primary.iter().chain(&self.secondary)
    }
}

/// The attestation that an entry accepts. The variants hold exactly what the service needs to
/// decide.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Attestation {
    /// `x509.clientCertificates`: leaves of one device.
    Client(Slots<Certificate>),
    /// `x509.signingCertificates`: authorities of a group.
    Signing(Slots<Certificate>),
    /// `x509.caReferences`: names of CA certificates.
    References(Slots<String>),
    /// `symmetricKey`: kept, never used here to authenticate.
    SymmetricKey(Slots<String>),
    /// `tpm` and `none`: kept as sent.
    Other(Value),
}

const SLOTS: [&str; 2] = ["primary", "secondary"];

impl Attestation {
    /// Read `attestation` of a record of `kind`. `old` is what the record holds now: a slot that
    /// comes with `info` only keeps its certificate (contract section 3).
    pub(crate) fn read(kind: Kind, sent: &Value, old: Option<&Self>) -> Result<Self, Refusal> {
        match sent.get("type").and_then(Value::as_str) {
            Some("x509") => read_x509(kind, sent.get("x509").unwrap_or(&Value::Null), old),
            Some("symmetricKey") => Ok(read_symmetric_key(sent, old)),
            Some("tpm") if kind == Kind::Individual => Ok(Self::Other(sent.clone())),
            Some("none") => Ok(Self::Other(sent.clone())),
            _ => Err(Refusal::bad_request(
                "attestation.type is missing or does not fit",
            )),
        }
    }

    /// The certificates in the slots.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let slots = match self {
            Self::Client(slots) | Self::Signing(slots) => Some(slots),
            _ => None,
        };
        slots.into_iter().flat_map(Slots::iter)
    }

    /// Names of referenced CA certificates.
    pub(crate) fn references(&self) -> impl Iterator<Item = &String> {
        let slots = match self {
            Self::References(slots) => Some(slots),
            _ => None,
        };
        slots.into_iter().flat_map(Slots::iter)
    }

    /// The attestation as records show it: certificates by their `info`, keys not at all.
    /// `sent` supplies the members that the emulator does not know.
    pub(crate) fn shown(&self, sent: &Value) -> Value {
        let mut shown = sent.clone();
        match self {
            Self::Client(slots) => show_certificates(&mut shown, "clientCertificates", slots),
            Self::Signing(slots) => show_certificates(&mut shown, "signingCertificates", slots),
            Self::SymmetricKey(_) => shown["symmetricKey"] = json!({}),
            Self::References(_) | Self::Other(_) => {}
        }
        shown
    }

    /// The attestation as `attestationmechanism` shows it: with keys, still without certificates.
    pub(crate) fn mechanism(&self, sent: &Value) -> Value {
        let mut shown = self.shown(sent);
        if let Self::SymmetricKey(slots) = self {
            shown["symmetricKey"] = json!({
                "primaryKey": slots.primary, "secondaryKey": slots.secondary,
            });
        }
        shown
    }
}

fn read_x509(kind: Kind, x509: &Value, old: Option<&Attestation>) -> Result<Attestation, Refusal> {
    let given = |member: &str| x509.get(member).filter(|value| !value.is_null());
    let client = given("clientCertificates");
    let signing = given("signingCertificates");
    let references = given("caReferences");
    match (kind, client, signing, references) {
        (Kind::Individual, Some(slots), None, None) => {
            read_certificates(slots, old).map(Attestation::Client)
        }
        (Kind::Group, None, Some(slots), None) => {
            read_certificates(slots, old).map(Attestation::Signing)
        }
        (_, None, None, Some(slots)) => read_references(slots).map(Attestation::References),
        _ => Err(Refusal::bad_request(
            "attestation.x509 must hold exactly one member that fits the enrollment",
        )),
    }
}

fn read_certificates(
    slots: &Value,
    old: Option<&Attestation>,
) -> Result<Slots<Certificate>, Refusal> {
    let [primary, secondary] = SLOTS.map(|slot| match slots.get(slot) {
        None | Some(Value::Null) => Ok(None),
        Some(sent) => read_certificate(slot, sent, old).map(Some),
    });
    non_empty(Slots {
        primary: primary?,
        secondary: secondary?,
    })
}

fn read_certificate(
    slot: &str,
    sent: &Value,
    old: Option<&Attestation>,
) -> Result<Certificate, Refusal> {
    match sent.get("certificate") {
        Some(Value::String(text)) if !text.is_empty() => {
            Certificate::from_text(text).map_err(|error| Refusal::bad_request(error.to_string()))
        }
        None | Some(Value::Null) => kept_certificate(slot, sent, old).ok_or_else(|| {
            Refusal::bad_request("a slot without certificate must be one that the record holds")
        }),
        Some(_) => Err(Refusal::bad_request("certificate must be a text")),
    }
}

/// The certificate that an info-only slot stands for: found by SHA-256, so that it may change
/// slots; without a thumbprint, the one in the same slot (moving is UNCONFIRMED, contract section
/// 3).
fn kept_certificate(slot: &str, sent: &Value, old: Option<&Attestation>) -> Option<Certificate> {
    let info = sent.get("info")?;
    let (Attestation::Client(held) | Attestation::Signing(held)) = old? else {
        return None;
    };
    match info.get("sha256Thumbprint").and_then(Value::as_str) {
        Some(wanted) => held
            .iter()
            .find(|own| own.sha256().eq_ignore_ascii_case(wanted))
            .cloned(),
        None if slot == SLOTS[0] => held.primary.clone(),
        None => held.secondary.clone(),
    }
}

fn read_references(slots: &Value) -> Result<Slots<String>, Refusal> {
    let [primary, secondary] = SLOTS.map(|slot| match slots.get(slot) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if ids::is_ca_name(name) => Ok(Some(name.clone())),
        Some(_) => Err(Refusal::bad_request(
            "caReferences must name CA certificates",
        )),
    });
    non_empty(Slots {
        primary: primary?,
        secondary: secondary?,
    })
}

fn non_empty<T>(slots: Slots<T>) -> Result<Slots<T>, Refusal> {
    let holds_any = slots.iter().next().is_some();
    match holds_any {
        true => Ok(slots),
        false => Err(Refusal::bad_request(
            "attestation.x509 holds no certificate",
        )),
    }
}

/// Keys that are left out are the old ones, or new ones that the service makes.
fn read_symmetric_key(sent: &Value, old: Option<&Attestation>) -> Attestation {
    let held = match old {
        Some(Attestation::SymmetricKey(slots)) => Some(slots),
        _ => None,
    };
    let key = |member: &str, held: Option<&String>| {
        let sent = sent["symmetricKey"].get(member).and_then(Value::as_str);
        Some(
            sent.map(str::to_owned)
                .or_else(|| held.cloned())
                .unwrap_or_else(fresh_key),
        )
    };
    Attestation::SymmetricKey(Slots {
        primary: key("primaryKey", held.and_then(|slots| slots.primary.as_ref())),
        secondary: key(
            "secondaryKey",
            held.and_then(|slots| slots.secondary.as_ref()),
        ),
    })
}

/// A fresh symmetric key in base64, for records and for access policies.
pub(crate) fn fresh_key() -> String {
    let mut key = [0; 32];
    rand::fill(&mut key).expect("the system's random source works");
    STANDARD.encode(key)
}

fn show_certificates(shown: &mut Value, member: &str, slots: &Slots<Certificate>) {
    let both = [&slots.primary, &slots.secondary];
    for (slot, certificate) in SLOTS.into_iter().zip(both) {
        let Some(certificate) = certificate else {
            continue;
        };
        let sent = shown["x509"][member][slot].as_object().cloned();
        let mut slot_shown: Map<String, Value> = sent.unwrap_or_default();
        slot_shown.remove("certificate");
        slot_shown.insert("info".to_owned(), certificate.info());
        shown["x509"][member][slot] = Value::Object(slot_shown);
    }
}
