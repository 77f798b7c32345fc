//! Parses PKCS#11 URIs (RFC 7512) that name one private key on one token.
//!
//! An attribute that the parser does not know is refused, because it might narrow the search. A PIN
//! in the URI, or a path to one, is refused too: PINs come from credential files.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::fmt;
use std::str::FromStr;

/// Longest URI.
pub const URI_BYTES_MAX: usize = 1024;

/// Longest value of one attribute, decoded.
pub const VALUE_BYTES_MAX: usize = 255;

const SCHEME: &str = "pkcs11:";

/// Characters besides letters and digits that need no encoding (RFC 7512 2.3, `pk11-pchar`).
const PLAIN: &[u8] = b"-._~:[]@!$'()*+,=&";

/// The set of bytes that we percent-encode.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The attributes that a key must have; `None` means any value. `object` or `id` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `serial`: the token's serial number.
    pub serial: Option<String>,
    /// `manufacturer` of the token.
    pub manufacturer: Option<String>,
    /// `model` of the token.
    pub model: Option<String>,
    pub object: Option<String>,
    pub id: Option<Vec<u8>>,
}

/// Why text does not name a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyUriRefusal {
    /// Longer than [`URI_BYTES_MAX`], or a value longer than [`VALUE_BYTES_MAX`].
    #[error(
        "a PKCS#11 URI has at most {URI_BYTES_MAX} bytes, and each value at most {VALUE_BYTES_MAX}"
    )]
    TooLong,
    /// Another scheme than `pkcs11:`.
    #[error("it must begin with \"pkcs11:\"")]
    Scheme,
    /// A query: PINs and modules are not named here.
    #[error(
        "a query (?…) is refused: the PIN is in the token's credential file, and the module in its \
         configuration"
    )]
    Query,
    #[error("{0:?} is not `name=value`")]
    Attribute(String),
    #[error("{0:?} occurs twice: remove one")]
    Twice(String),
    /// An attribute that is unknown, or not of a key.
    #[error("{0:?} is not one of token, serial, manufacturer, model, object, id and type")]
    Unknown(String),
    /// `type` of something else.
    #[error("type must be private, where it is given")]
    Type,
    /// A character that must be percent-encoded, a broken encoding, or no text.
    #[error("the value of {0:?} must be UTF-8, with other characters percent-encoded (%20)")]
    Value(String),
    /// Neither `object` nor `id` is given.
    #[error("it names no key: give object or id")]
    NoObject,
}

impl FromStr for KeyUri {
    type Err = KeyUriRefusal;

    fn from_str(text: &str) -> Result<Self, KeyUriRefusal> {
        if text.len() > URI_BYTES_MAX {
            return Err(KeyUriRefusal::TooLong);
        }
        let path = text.strip_prefix(SCHEME).ok_or(KeyUriRefusal::Scheme)?;
        if path.contains('?') {
            return Err(KeyUriRefusal::Query);
        }
        let mut uri = KeyUri::default();
        let mut seen = Vec::new();
        for part in path.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| KeyUriRefusal::Attribute(part.to_owned()))?;
            if seen.contains(&name) {
                return Err(KeyUriRefusal::Twice(name.to_owned()));
            }
            seen.push(name);
            uri.set(name, value)?;
        }
        match (&uri.object, &uri.id) {
            (None, None) => Err(KeyUriRefusal::NoObject),
            _ => Ok(uri),
        }
    }
}

impl KeyUri {
    fn set(&mut self, name: &str, value: &str) -> Result<(), KeyUriRefusal> {
        let place = match name {
            "token" => &mut self.token,
            "serial" => &mut self.serial,
            "manufacturer" => &mut self.manufacturer,
            "model" => &mut self.model,
            "object" => &mut self.object,
            "id" => {
                let id = decoded(name, value)?;
                self.id = (!id.is_empty()).then_some(id);
                return Ok(());
            }
            "type" if value == "private" => return Ok(()),
            "type" => return Err(KeyUriRefusal::Type),
            other => return Err(KeyUriRefusal::Unknown(other.to_owned())),
        };
        let text = String::from_utf8(decoded(name, value)?);
        *place = Some(text.map_err(|_| KeyUriRefusal::Value(name.to_owned()))?);
        Ok(())
    }
}

fn decoded(name: &str, value: &str) -> Result<Vec<u8>, KeyUriRefusal> {
    let wrong = || KeyUriRefusal::Value(name.to_owned());
    let bytes = value.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || PLAIN.contains(byte);
        let is_encoded = *byte == b'%'
            && bytes
                .get(at + 1..at + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if !is_plain && !is_encoded {
            return Err(wrong());
        }
    }
    let decoded: Vec<u8> = percent_decode_str(value).collect();
    match decoded.len() {
        ..=VALUE_BYTES_MAX => Ok(decoded),
        _ => Err(KeyUriRefusal::TooLong),
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| text.clone().map(String::into_bytes);
        let attributes = [
            ("token", text(&self.token)),
            ("manufacturer", text(&self.manufacturer)),
            ("model", text(&self.model)),
            ("serial", text(&self.serial)),
            ("object", text(&self.object)),
            ("id", self.id.clone()),
        ];
        f.write_str(SCHEME)?;
        let given = attributes
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        for (index, (name, value)) in given.enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(f, "{separator}{name}={}", percent_encode(&value, ENCODED))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uri_as_other_programs_print_it_is_read() {
        let uri: KeyUri = "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;\
             serial=636c12d654f4201c;token=factory;id=%0a%0B;object=Old%20Root;type=private"
            .parse()
            .expect("p11tool prints it so");
        assert_eq!(uri.token.as_deref(), Some("factory"));
        assert_eq!(uri.model.as_deref(), Some("SoftHSM v2"));
        assert_eq!(uri.object.as_deref(), Some("Old Root"));
        assert_eq!(uri.id.as_deref(), Some(&[0x0a, 0x0b][..]));
    }

    #[test]
    fn unknown_and_malformed_attributes_are_refused() {
        use KeyUriRefusal::*;
        for (text, refusal) in [
            ("object=a", Scheme),
            ("pkcs11:object=a?pin-value=1234", Query),
            ("pkcs11:object", Attribute("object".into())),
            ("pkcs11:object=a;object=b", Twice("object".into())),
            ("pkcs11:object=a;slot-id=1", Unknown("slot-id".into())),
            ("pkcs11:object=a;x-vendor=1", Unknown("x-vendor".into())),
            ("pkcs11:object=a;type=cert", Type),
            ("pkcs11:object=a b", Value("object".into())),
            ("pkcs11:object=%4", Value("object".into())),
            ("pkcs11:object=%zz", Value("object".into())),
            ("pkcs11:object=%ff", Value("object".into())),
            ("pkcs11:token=a", NoObject),
            ("pkcs11:id=", NoObject),
            ("pkcs11:", NoObject),
        ] {
            assert_eq!(text.parse::<KeyUri>(), Err(refusal), "{text}");
        }
        let long = format!("pkcs11:object={}", "a".repeat(VALUE_BYTES_MAX + 1));
        assert_eq!(long.parse::<KeyUri>(), Err(TooLong));
        let longer = format!("pkcs11:object={}", "a".repeat(URI_BYTES_MAX));
        assert_eq!(longer.parse::<KeyUri>(), Err(TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_text_makes_it_panic(text in "(pkcs11:)?\\PC{0,80}", value in "[a-z;=%0-9A-F?]{0,60}") {
            let _ = text.parse::<KeyUri>();
            let _ = format!("{SCHEME}{value}").parse::<KeyUri>();
        }

        #[test]
        fn what_is_written_is_read(
            token in proptest::option::of("\\PC{0,32}"), object in "\\PC{1,32}",
            id in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..32)),
        ) {
            let uri = KeyUri { token, object: Some(object), id, ..KeyUri::default() };
            prop_assert_eq!(uri.to_string().parse(), Ok(uri));
        }
    }
}
