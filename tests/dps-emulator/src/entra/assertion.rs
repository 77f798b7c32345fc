//! Client assertions: a JWT signed with the key of a certificate (contract section 8.2).

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::certificate::Certificate;

const LENGTH_MAX: usize = 16 * 1024;

/// Why an assertion proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the assertion is not a signed JWT")]
    Malformed,
    #[error("the algorithm must be RS256 or PS256")]
    Algorithm,
    #[error("x5t or x5t#S256 must name the registered certificate")]
    OtherCertificate,
    #[error("the signature does not match")]
    Signature,
    #[error("aud, iss or sub is not as expected")]
    Claims,
    #[error("the assertion has expired")]
    Expired,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    x5t: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
}

/// Dates are floating-point: msal writes them so.
#[derive(Debug, Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    sub: String,
    exp: f64,
}

/// A JWT, parsed and not yet believed.
#[derive(Debug)]
pub(super) struct Assertion<'a> {
    header: Header,
    claims: Claims,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Assertion<'a> {
    /// Read three parts of base64url.
    pub(super) fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > LENGTH_MAX {
            return Err(Refused::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refused::Malformed)?;
        Ok(Self {
            header: part(header)?,
            claims: part(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| Refused::Malformed)?,
        })
    }

    /// Believe it, for this client of this tenant at `now` (Unix seconds).
    pub(super) fn check(
        &self,
        certificate: &Certificate,
        tenant: &str,
        client_id: &str,
        now: i64,
    ) -> Result<(), Refused> {
        if !self.names(certificate) {
            return Err(Refused::OtherCertificate);
        }
        self.check_signature(certificate)?;
        let endpoint = format!("/{tenant}/oauth2/v2.0/token").to_ascii_lowercase();
        let for_us = self.claims.aud.to_ascii_lowercase().ends_with(&endpoint);
        if !for_us || self.claims.iss != client_id || self.claims.sub != client_id {
            return Err(Refused::Claims);
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds since 1970 are far below 2^52"
        )]
        let now = now as f64;
        match self.claims.exp > now {
            true => Ok(()),
            false => Err(Refused::Expired),
        }
    }

    fn names(&self, certificate: &Certificate) -> bool {
        let fits = |sent: &Option<String>, own: String| {
            let own = hex::decode(own).expect("thumbprints are hex");
            sent.as_ref()
                .map(|sent| URL_SAFE_NO_PAD.decode(sent.trim_end_matches('=')) == Ok(own))
        };
        let sha1 = fits(&self.header.x5t, certificate.sha1());
        let sha256 = fits(&self.header.x5t_s256, certificate.sha256());
        sha256.or(sha1).unwrap_or(false)
    }

    fn check_signature(&self, certificate: &Certificate) -> Result<(), Refused> {
        let algorithm: &'static RsaParameters = match self.header.alg.as_str() {
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            _ => return Err(Refused::Algorithm),
        };
        let key = certificate.public_key().ok_or(Refused::Signature)?;
        let key = UnparsedPublicKey::new(algorithm, key.bits);
        key.verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| Refused::Signature)
    }
}

fn part<T: DeserializeOwned>(text: &str) -> Result<T, Refused> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refused::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[A-Za-z0-9_.-]{0,200}") {
            let _ = Assertion::parse(&text);
        }

        #[test]
        fn no_claims_make_the_parser_panic(claims in ".{0,100}") {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
            let text = format!("{header}.{}.AA", URL_SAFE_NO_PAD.encode(claims));
            let _ = Assertion::parse(&text);
        }
    }
}
