//! Reads HTTP Basic authentication (RFC 7617) from the head of a request.
//!
//! Only requests for certificates take it, and only over TLS (RFC 7030, section 3.2.3).

use crate::ca::device_credential::PresentedCredential;
use crate::ca::{Advice, Code, Error};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use zeroize::Zeroizing;

/// The longest value of the header, in bytes: the longest registration id and secret need fewer.
const VALUE_BYTES_MAX: usize = 512;
/// The scheme and the space behind it.
const SCHEME: &str = "basic ";

/// Returns what the client presents; `None` if it presents nothing.
pub(super) fn presented(headers: &HeaderMap) -> Result<Option<PresentedCredential>, Error> {
    let values: Vec<_> = headers.get_all(AUTHORIZATION).into_iter().collect();
    match values[..] {
        [] => Ok(None),
        [value] if value.len() <= VALUE_BYTES_MAX => {
            read(value.as_bytes()).map(Some).ok_or_else(malformed)
        }
        _ => Err(malformed()),
    }
}

fn read(value: &[u8]) -> Option<PresentedCredential> {
    let (scheme, encoded) = value.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim_ascii()).ok()?);
    let text = str::from_utf8(&decoded).ok()?;
    let (registration_id, secret) = text.split_once(':')?;
    Some(PresentedCredential {
        registration_id: registration_id.to_owned(),
        secret: SecretString::from(secret),
    })
}

fn malformed() -> Error {
    let message = "the header Authorization is not read: send one, as `Basic` and the base64 of \
                   registration id, colon and secret";
    Error::new(Advice::Authenticate, Code::CredentialRefused, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a header");
            headers.append(AUTHORIZATION, value);
        }
        headers
    }

    #[test]
    fn what_is_not_basic_or_too_long_is_refused() {
        let long = format!("Basic {}", "A".repeat(VALUE_BYTES_MAX));
        for value in [
            "",
            "Basic",
            "Basic ",
            "Bearer YTpi",
            "Basic YQ==",
            "Basic %%%",
            &long,
        ] {
            let refused = presented(&headers(&[value.as_bytes()])).unwrap_err();
            assert_eq!(refused.code, Code::CredentialRefused, "{value}");
        }
        assert!(presented(&headers(&[b"Basic YTpi", b"Basic YTpi"])).is_err());
        assert!(presented(&HeaderMap::new()).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(value in proptest::collection::vec(0x20..0x7f_u8, 0..600)) {
            let _ = presented(&headers(&[&value]));
        }

        #[test]
        fn a_name_and_a_secret_are_read_as_they_were_sent(
            name in "[a-z0-9-]{1,64}",
            secret in ".{0,64}",
        ) {
            let value = format!("bAsIc {}", STANDARD.encode(format!("{name}:{secret}")));
            prop_assume!(value.len() <= VALUE_BYTES_MAX);
            let read = presented(&headers(&[value.as_bytes()])).unwrap().unwrap();
            prop_assert_eq!(read.registration_id, name);
            prop_assert_eq!(read.secret.expose_secret(), secret);
        }
    }
}
