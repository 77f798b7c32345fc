//! Parses PKCS#11 URIs (RFC 7512) that name one private key on one token.
//!
//! An attribute that the parser does not know is refused, because it might narrow the search. A PIN
//! in the URI, or a path to one, is refused too: PINs come from credential files.
//!
//! Programs print the fields of a token as the module gives them: with the padding of their fixed
//! lengths, which is blanks, or NULs contrary to the specification. Padding does not count.

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
    #[error("its part {0} is not `name=value`")]
    Attribute(usize),
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
    /// An attribute of a slot or library.
    #[error(
        "{0:?} names a slot or a library, and the configuration of the token names its module: \
         remove it, and give token and serial"
    )]
    Place(String),
}

impl FromStr for KeyUri {
    type Err = KeyUriRefusal;

    fn from_str(text: &str) -> Result<Self, KeyUriRefusal> {
        if text.len() > URI_BYTES_MAX {
            return Err(KeyUriRefusal::TooLong);
        }
        let (scheme, path) = text
            .trim()
            .split_at_checked(SCHEME.len())
            .ok_or(KeyUriRefusal::Scheme)?;
        // Schemes have no case (RFC 3986, section 3.1).
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(KeyUriRefusal::Scheme);
        }
        if path.contains('?') {
            return Err(KeyUriRefusal::Query);
        }
        let mut uri = KeyUri::default();
        let mut seen = Vec::new();
        let parts = path.split(';').filter(|part| !part.is_empty());
        for (index, part) in parts.enumerate() {
            // The part itself may be a PIN that was misspelt.
            let (name, value) = part
                .split_once('=')
                .ok_or(KeyUriRefusal::Attribute(index + 1))?;
            if seen.contains(&name) {
                return Err(KeyUriRefusal::Twice(name.to_owned()));
            }
            seen.push(name);
            uri.set(name, value)?;
        }
        let has_label = uri
            .object
            .as_ref()
            .is_some_and(|it| !without_nul(it).is_empty());
        if !has_label && uri.id.is_none() {
            return Err(KeyUriRefusal::NoObject);
        }
        Ok(uri)
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
            "type" if is_private(&decoded(name, value)?) => return Ok(()),
            "type" => return Err(KeyUriRefusal::Type),
            _ if name.starts_with("slot-") || name.starts_with("library-") => {
                return Err(KeyUriRefusal::Place(name.to_owned()));
            }
            other => return Err(KeyUriRefusal::Unknown(other.to_owned())),
        };
        let text = String::from_utf8(decoded(name, value)?);
        let text = text.map_err(|_| KeyUriRefusal::Value(name.to_owned()))?;
        // A label is no field of fixed length: a blank may be its last character.
        let is_field = name != "object";
        let text = if is_field {
            text.trim_end_matches([' ', '\0'])
        } else {
            &text
        };
        *place = Some(text.to_owned());
        Ok(())
    }
}

fn is_private(kind: &[u8]) -> bool {
    kind.strip_prefix(b"private")
        .is_some_and(|padding| padding.iter().all(|it| b" \0".contains(it)))
}

/// Returns a label without the NULs that some programs write at its end.
pub fn without_nul(label: &str) -> &str {
    label.trim_end_matches('\0')
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
    fn padding_and_case_do_not_count() {
        let uri: KeyUri = " PKCS11:model=v3%00%00%00;manufacturer=piv_II%20%20%00;serial=%300%00\
             ;token=PIV%20II%20%20;id=%0a%0B%00;object=Key%20%00;type=private%00\n"
            .parse()
            .expect("as p11tool prints the fields of a module that pads with NUL");
        assert_eq!(uri.model.as_deref(), Some("v3"));
        assert_eq!(uri.manufacturer.as_deref(), Some("piv_II"));
        assert_eq!(uri.serial.as_deref(), Some("00"));
        assert_eq!(uri.token.as_deref(), Some("PIV II"));
        assert_eq!(
            uri.object.as_deref(),
            Some("Key \0"),
            "as it may be on the token"
        );
        assert_eq!(
            uri.id.as_deref(),
            Some(&[0x0a, 0x0b, 0][..]),
            "bytes of an id count"
        );
    }

    #[test]
    fn unknown_and_malformed_attributes_are_refused() {
        use KeyUriRefusal::*;
        for (text, refusal) in [
            ("object=a", Scheme),
            ("pkcs11:object=a?pin-value=1234", Query),
            ("pkcs11:object", Attribute(1)),
            ("pkcs11:object=a;pin-value:1234", Attribute(2)),
            (
                "pkcs11:object=a;pin-value=1234",
                Unknown("pin-value".into()),
            ),
            (
                "pkcs11:object=a;pin-source=file:/pin",
                Unknown("pin-source".into()),
            ),
            ("pkcs11", Scheme),
            ("pkcs11:object=a;object=b", Twice("object".into())),
            ("pkcs11:object=a;id=%01;id=%01", Twice("id".into())),
            ("pkcs11:object=a;slot-id=1", Place("slot-id".into())),
            (
                "pkcs11:object=a;library-version=2.6",
                Place("library-version".into()),
            ),
            ("pkcs11:object=a;Token=x", Unknown("Token".into())),
            ("pkcs11:object=a;x-vendor=1", Unknown("x-vendor".into())),
            ("pkcs11:object=a;type=cert", Type),
            ("pkcs11:object=a b", Value("object".into())),
            ("pkcs11:object=%4", Value("object".into())),
            ("pkcs11:object=%zz", Value("object".into())),
            ("pkcs11:object=%ff", Value("object".into())),
            ("pkcs11:token=a", NoObject),
            ("pkcs11:id=", NoObject),
            ("pkcs11:object=", NoObject),
            ("pkcs11:object=%00%00", NoObject),
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
        fn no_text_makes_it_panic(
            text in "(pkcs11:)?\\PC{0,80}",
            value in "[a-z;=%0-9A-F?]{0,60}",
        ) {
            let _ = text.parse::<KeyUri>();
            let _ = format!("{SCHEME}{value}").parse::<KeyUri>();
        }

        #[test]
        fn what_is_written_is_read(
            token in proptest::option::of("\\PC{0,31}[!-~]"), object in "\\PC{1,32}",
            id in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..32)),
        ) {
            let uri = KeyUri { token, object: Some(object), id, ..KeyUri::default() };
            prop_assert_eq!(uri.to_string().parse(), Ok(uri));
        }
    }
}
