//! Names what a token signs here: certificates, revocation lists and requests to an issuer.
//!
//! `issue::sign_and_verify` handles them alike: assemble, compare with the recorded bytes, verify.

use crate::x509::certificate::{self, Certificate};
use crate::x509::crl::{self, RevocationList};
use crate::x509::key::{PublicKey, SignatureAlgorithm};
use crate::x509::request::{self, SignedRequest};

/// A structure made of recorded bytes and a token's signature over them.
pub(super) trait Signed: Sized {
    /// The name in messages.
    const NAME: &'static str;
    /// The crash point after the token's answer.
    const SIGNED: &'static str;
    /// The crash point after verification.
    const VERIFIED: &'static str;

    fn assemble(
        tbs: &[u8],
        algorithm: SignatureAlgorithm,
        signature: &[u8],
    ) -> Result<Self, String>;

    /// The bytes that the signature covers, as they are in the assembled structure.
    fn tbs_bytes(&self) -> &[u8];

    /// Verifies the signature with the signer's public key.
    fn verify(&self, signer: &PublicKey) -> Result<(), String>;
}

fn other_key(error: impl ToString) -> String {
    format!(
        "the authority's key did not sign this: {}",
        error.to_string()
    )
}

impl Signed for Certificate {
    const NAME: &'static str = "certificate";
    const SIGNED: &'static str = "cycle-8";
    const VERIFIED: &'static str = "cycle-9";

    fn assemble(
        tbs: &[u8],
        algorithm: SignatureAlgorithm,
        signature: &[u8],
    ) -> Result<Self, String> {
        certificate::assemble(tbs, algorithm, signature).map_err(|error| error.to_string())
    }

    fn tbs_bytes(&self) -> &[u8] {
        Certificate::tbs_bytes(self)
    }

    fn verify(&self, signer: &PublicKey) -> Result<(), String> {
        self.verify_issued_by(signer).map_err(other_key)
    }
}

impl Signed for RevocationList {
    const NAME: &'static str = "revocation list";
    const SIGNED: &'static str = "crl-answered";
    const VERIFIED: &'static str = "crl-signed";

    fn assemble(
        tbs: &[u8],
        algorithm: SignatureAlgorithm,
        signature: &[u8],
    ) -> Result<Self, String> {
        crl::assemble(tbs, algorithm, signature).map_err(|error| error.to_string())
    }

    fn tbs_bytes(&self) -> &[u8] {
        RevocationList::tbs_bytes(self)
    }

    fn verify(&self, signer: &PublicKey) -> Result<(), String> {
        self.verify_issued_by(signer).map_err(other_key)
    }
}

impl Signed for SignedRequest {
    const NAME: &'static str = "request";
    const SIGNED: &'static str = "request-answered";
    const VERIFIED: &'static str = "request-signed";

    fn assemble(
        tbs: &[u8],
        algorithm: SignatureAlgorithm,
        signature: &[u8],
    ) -> Result<Self, String> {
        request::assemble(tbs, algorithm, signature).map_err(|error| error.to_string())
    }

    fn tbs_bytes(&self) -> &[u8] {
        SignedRequest::tbs_bytes(self)
    }

    /// Assembling has verified the signature with the key in the request.
    fn verify(&self, signer: &PublicKey) -> Result<(), String> {
        if self.public_key() == signer {
            return Ok(());
        }
        Err("the request carries another key".into())
    }
}
