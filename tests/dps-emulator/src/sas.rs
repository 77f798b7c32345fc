//! Shared access signatures, verified (contract section 8.1).
//!
//! Expiry is judged by the machine's clock, never by the emulator's: a test that jumps a year ahead
//! to age a certificate must not lock its own client out.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// Longest token that is read.
const TOKEN_LENGTH_MAX: usize = 4096;

/// An access policy: a name and two keys, both valid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) primary: String,
    pub(crate) secondary: String,
}

/// The reason why a token is refused, for the log only.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthorized {
    #[error("not a shared access signature")]
    Malformed,
    #[error("no such policy")]
    UnknownPolicy,
    #[error("the token is for another resource")]
    OtherResource,
    #[error("the signature does not match")]
    WrongSignature,
    #[error("the token has expired")]
    Expired,
}

/// A token's fields, in whatever order they came.
#[derive(Debug, PartialEq, Eq)]
struct Token<'a> {
    /// As written in the token: these bytes were signed.
    resource: &'a str,
    signature: Vec<u8>,
    expiry: &'a str,
    policy: &'a str,
}

impl<'a> Token<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let fields = header.strip_prefix("SharedAccessSignature ")?.trim();
        if header.len() > TOKEN_LENGTH_MAX {
            return None;
        }
        let field = |name: &str| {
            let mut found = fields
                .split('&')
                .filter_map(|field| field.strip_prefix(name));
            found.next().filter(|_| found.next().is_none())
        };
        let signature = percent_decode_str(field("sig=")?).decode_utf8().ok()?;
        Some(Self {
            resource: field("sr=")?,
            signature: STANDARD.decode(signature.as_bytes()).ok()?,
            expiry: field("se=")?,
            policy: field("skn=")?,
        })
    }

    fn is_signed_with(&self, key: &str) -> bool {
        let Ok(key) = STANDARD.decode(key) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signed = format!("{}\n{}", self.resource, self.expiry);
        hmac::verify(&key, signed.as_bytes(), &self.signature).is_ok()
    }

    /// Scope is a prefix by whole segments; the host alone covers everything.
    fn covers(&self, host: &str, path: &str) -> bool {
        let Ok(resource) = percent_decode_str(self.resource).decode_utf8() else {
            return false;
        };
        let resource = resource.to_ascii_lowercase();
        let wanted = format!("{host}{path}").to_ascii_lowercase();
        let mut wanted = wanted.split('/').filter(|part| !part.is_empty());
        let mut given = resource
            .split('/')
            .filter(|part| !part.is_empty())
            .peekable();
        given.peek().is_some() && given.all(|part| wanted.next() == Some(part))
    }
}

/// Check an `Authorization` header for a request to `path` of the service called `host`.
/// `now` is the machine's time in Unix seconds.
pub(crate) fn check(
    header: &str,
    policy: &Policy,
    host: &str,
    path: &str,
    now: i64,
) -> Result<(), Unauthorized> {
    let token = Token::parse(header).ok_or(Unauthorized::Malformed)?;
    if token.policy != policy.name {
        return Err(Unauthorized::UnknownPolicy);
    }
    if !token.covers(host, path) {
        return Err(Unauthorized::OtherResource);
    }
    if ![&policy.primary, &policy.secondary]
        .into_iter()
        .any(|key| token.is_signed_with(key))
    {
        return Err(Unauthorized::WrongSignature);
    }
    match token.expiry.parse::<i64>() {
        Ok(expiry) if expiry > now => Ok(()),
        _ => Err(Unauthorized::Expired),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    const HOST: &str = "hallmark.azure-devices-provisioning.net";

    fn policy() -> Policy {
        Policy {
            name: "provisioningserviceowner".to_owned(),
            primary: STANDARD.encode([1; 32]),
            secondary: STANDARD.encode([2; 32]),
        }
    }

    fn signature(resource: &str, expiry: i64, key: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key).unwrap());
        let tag = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
        utf8_percent_encode(&STANDARD.encode(tag.as_ref()), NON_ALPHANUMERIC).to_string()
    }

    fn token(resource: &str, expiry: i64, key: &str) -> String {
        let sig = signature(resource, expiry, key);
        format!(
            "SharedAccessSignature sr={resource}&sig={sig}&skn=provisioningserviceowner&se={expiry}"
        )
    }

    fn judge(header: &str) -> Result<(), Unauthorized> {
        check(header, &policy(), HOST, "/enrollments/press-7", 1000)
    }

    #[test]
    fn either_key_and_any_order_of_fields_will_do() {
        assert_eq!(judge(&token(HOST, 1001, &policy().secondary)), Ok(()));
        let sig = signature(HOST, 1001, &policy().primary);
        let python = format!(
            "SharedAccessSignature sr={HOST}&sig={sig}&se=1001&skn=provisioningserviceowner"
        );
        assert_eq!(judge(&python), Ok(()));
    }

    #[test]
    fn scope_goes_by_whole_segments() {
        let key = policy().primary;
        let escaped = format!("{HOST}%2Fenrollments");
        assert_eq!(judge(&token(&escaped, 1001, &key)), Ok(()));
        let half = format!("{HOST}/enroll");
        assert_eq!(
            judge(&token(&half, 1001, &key)),
            Err(Unauthorized::OtherResource)
        );
        assert_eq!(
            judge(&token("", 1001, &key)),
            Err(Unauthorized::OtherResource)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let key = policy().primary;
        assert_eq!(judge(&token(HOST, 1000, &key)), Err(Unauthorized::Expired));
        let other = STANDARD.encode([3; 32]);
        assert_eq!(
            judge(&token(HOST, 1001, &other)),
            Err(Unauthorized::WrongSignature)
        );
        let altered = token(HOST, 1001, &key).replace("se=1001", "se=9001");
        assert_eq!(judge(&altered), Err(Unauthorized::WrongSignature));
        let twice = token(HOST, 1001, &key) + "&se=9001";
        assert_eq!(judge(&twice), Err(Unauthorized::Malformed));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(header in "(SharedAccessSignature )?.{0,200}") {
            let _ = judge(&header);
        }
    }
}
