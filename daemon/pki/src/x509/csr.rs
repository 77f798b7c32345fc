//! Reads certification requests (PKCS #10, RFC 2986) in the forms that devices send.
//!
//! A request supplies a public key with proof of possession, and names that a profile may allow.
//! Requested extensions are never copied: the profile alone decides the extensions.

use super::key::{KeyRefusal, PublicKey};
use super::name::NameRefusal;
use super::pem;
use super::pkcs10::Fields;
use super::requested_names::RequestedNames;
use super::san::SanRefusal;
use super::signature::{self, SignatureRefusal};
use super::template::TemplateRefusal;
use super::text;
use crate::der_bytes::Der;
use crate::error_code::Code;

/// Longest request that is accepted, in any encoding. RSA-4096 with many names needs 4 KiB.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// A well-formed request with a valid proof of possession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    public_key: PublicKey,
    names: RequestedNames,
}

/// The reason why a request is refused. Each message says how to correct the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefusal {
    #[error("the request has {bytes} bytes; at most {CSR_BYTES_MAX} are read")]
    TooLarge { bytes: usize },
    /// The bytes are no PKCS #10 request in a supported encoding.
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    /// The encoding is BER or otherwise not canonical DER.
    #[error(
        "the request is not encoded as PKCS #10 prescribes, so other programs may read something \
         else in it; make it with a current library, for example with `openssl req -new -key KEY`"
    )]
    NotCanonical,
    /// The proof of possession fails.
    #[error(
        "the request's signature does not match its public key; sign it with the private key of \
         the key pair to be certified"
    )]
    BadSignature,
    /// The signature has another form than requests have.
    #[error("the request's signature {0}")]
    SignatureForm(&'static str),
    /// The request is signed with an algorithm that is broken or unknown.
    #[error("the request is signed with {0}")]
    UnsupportedAlgorithm(String),
    /// The public key is refused.
    #[error(transparent)]
    Key(KeyRefusal),
    /// The subject or a subject alternative name is refused.
    #[error("the requested name is refused: {0}")]
    BadName(String),
    /// The certificate of a server would have no name that a client could compare.
    #[error(
        "the request has no host name and no IP address among its subject alternative names, and a \
         server's certificate needs one; add it (openssl req: -addext \
         \"subjectAltName=DNS:HOST\")"
    )]
    NoServerName,
    /// A text of the profile cannot be filled for this request.
    #[error(transparent)]
    Template(#[from] TemplateRefusal),
}

impl CsrRefusal {
    pub(super) fn damaged(field: &'static str) -> CsrRefusal {
        CsrRefusal::Malformed(format!(
            "it is damaged in its {field}; make it once more, for example with `openssl req -new \
             -key KEY`, and send all of it"
        ))
    }

    /// Returns the stable code of the API.
    pub fn code(&self) -> Code {
        match self {
            CsrRefusal::TooLarge { .. } => Code::CsrTooLarge,
            CsrRefusal::Malformed(_) | CsrRefusal::Key(KeyRefusal::Malformed(_)) => {
                Code::CsrMalformed
            }
            CsrRefusal::NotCanonical | CsrRefusal::Key(KeyRefusal::NotCanonical) => {
                Code::CsrNotCanonical
            }
            CsrRefusal::BadSignature | CsrRefusal::SignatureForm(_) => Code::CsrBadSignature,
            CsrRefusal::UnsupportedAlgorithm(_) => Code::CsrUnsupportedAlgorithm,
            CsrRefusal::Key(KeyRefusal::WeakKey(_)) => Code::CsrWeakKey,
            CsrRefusal::Key(KeyRefusal::UnsupportedKey(_)) => Code::CsrUnsupportedKey,
            CsrRefusal::BadName(_) => Code::CsrBadName,
            CsrRefusal::NoServerName => Code::CsrWithoutNames,
            CsrRefusal::Template(_) => Code::TemplateRefused,
        }
    }
}

impl Csr {
    /// Reads PEM, bare base64 or DER, and checks encoding, key, names and proof of possession.
    pub fn parse(bytes: &[u8]) -> Result<Csr, CsrRefusal> {
        if bytes.len() > CSR_BYTES_MAX {
            return Err(CsrRefusal::TooLarge { bytes: bytes.len() });
        }
        Csr::from_der(&unarmored(bytes)?)
    }

    /// Returns what a request says whose key pair was made here: there is no proof of possession to
    /// check.
    pub fn of_generated_key(public_key: PublicKey, names: RequestedNames) -> Csr {
        Csr { public_key, names }
    }

    fn from_der(der: &[u8]) -> Result<Csr, CsrRefusal> {
        let (fields, public_key) = read_proven(der)?;
        Ok(Csr {
            public_key,
            names: RequestedNames::read(fields.subject, &fields.extensions)?,
        })
    }

    /// Returns the public key, with possession of the private key proven.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Returns the requested names.
    pub fn names(&self) -> &RequestedNames {
        &self.names
    }

    /// Returns the common name of the requested subject.
    pub fn common_name(&self) -> Option<&str> {
        self.names.common_name()
    }
}

/// Returns the DER without its armour: PEM or base64 in any encoding of text. Some clients put one
/// armour into another: base64 of a PEM file, as Kubernetes does, or of a file in UTF-16.
pub(super) fn unarmored(bytes: &[u8]) -> Result<Der, CsrRefusal> {
    let inner = without_armor(bytes)?;
    if is_der(&inner) {
        return Ok(inner);
    }
    // Remarks around PEM may be in any encoding.
    let may_hold_one =
        |text: &str| text.contains("-----BEGIN ") || !text.contains(char::REPLACEMENT_CHARACTER);
    if text::decode(&inner).is_some_and(|it| may_hold_one(&it)) {
        return without_armor(&inner);
    }
    Err(CsrRefusal::Malformed(
        "its base64 holds no request; send the whole file as it was made".to_owned(),
    ))
}

fn without_armor(bytes: &[u8]) -> Result<Der, CsrRefusal> {
    let bytes = text::without_mark(bytes);
    if is_der(bytes) {
        return Ok(bytes.into());
    }
    let text = text::decode(without_nul(bytes)).ok_or_else(|| {
        CsrRefusal::Malformed(
            "it is neither DER nor text; send one PKCS #10 request as PEM, base64 or DER".into(),
        )
    })?;
    let blocks = pem::blocks(text.as_bytes())?;
    if blocks.is_empty() {
        return from_base64(&text);
    }
    let labels: Vec<&str> = blocks.iter().map(|block| block.label).collect();
    let labels = labels.join(", ");
    let mut requests = blocks
        .into_iter()
        .filter(|block| block.label.ends_with("CERTIFICATE REQUEST"));
    match (requests.next(), requests.next()) {
        (Some(request), None) => request.der().map_err(|refusal| explained(refusal, &text)),
        (None, _) => Err(CsrRefusal::Malformed(format!(
            "it holds {labels}, and no CERTIFICATE REQUEST; make one with `openssl req -new -key \
             KEY`"
        ))),
        (Some(_), Some(_)) => Err(CsrRefusal::Malformed(
            "it holds more than one request; send each in a request of its own".to_owned(),
        )),
    }
}

/// Programs in C send a string with its end, or the whole buffer that it is in. Two octets make a
/// character of UTF-16, whose high octet may be 0.
fn without_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|octet| *octet != 0);
    match end.map(|end| bytes.split_at(end + 1)) {
        Some((text, [_, _, ..])) => text,
        Some((text, [_])) if !text.contains(&0) => text,
        _ => bytes,
    }
}

/// Returns the key of a request, with its possession proven. Names are not read: an authority's may
/// be of any kind.
pub(super) fn proven_key(der: &[u8]) -> Result<PublicKey, CsrRefusal> {
    read_proven(der).map(|(_, public_key)| public_key)
}

pub(super) fn read_proven(der: &[u8]) -> Result<(Fields<'_>, PublicKey), CsrRefusal> {
    let fields = Fields::read(der)?;
    let public_key = PublicKey::from_spki_der(fields.spki).map_err(CsrRefusal::Key)?;
    verify_possession(&fields, &public_key)?;
    Ok((fields, public_key))
}

fn from_base64(text: &str) -> Result<Der, CsrRefusal> {
    if text.trim().is_empty() {
        return Err(CsrRefusal::Malformed("it is empty".to_owned()));
    }
    // No request in base64 lacks all other letters.
    if text
        .bytes()
        .all(|it| it.is_ascii_hexdigit() || it.is_ascii_whitespace())
    {
        return Err(CsrRefusal::Malformed(
            "it is written in hexadecimal digits; send it as PEM, base64 or DER".to_owned(),
        ));
    }
    // The alphabet of RFC 4648 5, which some programs use, and that of 4.
    let standard = text.replace('-', "+").replace('_', "/");
    pem::decode_base64(standard.as_bytes())
        .map(Der::from)
        .map_err(|refusal| explained(refusal, text))
}

/// Names what makes a text no base64: often a character that a copy through JSON, a form or a mail
/// has left behind.
fn explained(refusal: pem::PemRefusal, text: &str) -> CsrRefusal {
    if !matches!(refusal, pem::PemRefusal::NotBase64(_)) {
        return refusal.into();
    }
    let body = text
        .split_once("REQUEST-----")
        .map_or(text, |(_, rest)| rest);
    let body = body.split_once("-----END").map_or(body, |(body, _)| body);
    let is_odd = |it: &char| {
        !it.is_ascii_alphanumeric() && !it.is_ascii_whitespace() && !"+/=-_".contains(*it)
    };
    CsrRefusal::Malformed(match body.chars().find(is_odd) {
        Some(odd) => format!(
            "its text has the character {odd:?}, which is not base64; send the file as it was made"
        ),
        None => "it is neither PEM nor complete base64; send the whole file as it was made".into(),
    })
}

/// A request has at least 128 octets, so its length begins with an octet that begins no character:
/// no text looks like one.
fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x80..=0x84, ..])
}

fn verify_possession(fields: &Fields<'_>, public_key: &PublicKey) -> Result<(), CsrRefusal> {
    let signature = fields.signature.ok_or(CsrRefusal::BadSignature)?;
    signature::verify(public_key, fields.algorithm, fields.signed, signature).map_err(|refusal| {
        match refusal {
            SignatureRefusal::UnsupportedAlgorithm(why) => CsrRefusal::UnsupportedAlgorithm(why),
            SignatureRefusal::Form(why) => CsrRefusal::SignatureForm(why),
            SignatureRefusal::Mismatch => CsrRefusal::BadSignature,
        }
    })
}

impl From<pem::PemRefusal> for CsrRefusal {
    fn from(refusal: pem::PemRefusal) -> CsrRefusal {
        CsrRefusal::Malformed(refusal.to_string())
    }
}

impl From<NameRefusal> for CsrRefusal {
    fn from(refusal: NameRefusal) -> CsrRefusal {
        CsrRefusal::BadName(refusal.to_string())
    }
}

impl From<SanRefusal> for CsrRefusal {
    fn from(refusal: SanRefusal) -> CsrRefusal {
        CsrRefusal::BadName(refusal.to_string())
    }
}
