//! What every token must do with credential keys, or say properly that it cannot.

use super::{Failure, LABEL, Outcome, ensure, make_labelled, must_lack, random_id};
use crate::token::credential::{self, SECRET_BYTES};
use crate::token::{KeyReference, Token, TokenError, key_proof};
use crate::x509::key::{KeyType, SignatureAlgorithm};
use aws_lc_rs::hmac;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use secrecy::SecretSlice;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

type CredentialCheck = fn(&mut dyn Token) -> Outcome;

/// The checks, by what is checked.
pub(super) const CHECKS: &[(&str, CredentialCheck)] = &[
    (
        "a secret is imported once, computes HMACs, and can be deleted",
        keeps_a_secret,
    ),
    (
        "a credential key signs assertions and nothing else",
        signs_assertions_only,
    ),
    (
        "a key that signs certificates signs no assertion",
        signs_no_assertion,
    ),
];

fn label() -> String {
    credential::label(LABEL).expect("letters and hyphens make a name")
}

fn keeps_a_secret(token: &mut dyn Token) -> Outcome {
    let label = &label();
    let secret = [random_id(), random_id()].concat();
    debug_assert!(SECRET_BYTES.contains(&secret.len()));
    token.import_secret(label, &SecretSlice::from(secret.clone()))?;
    let outcome = computes(token, label, &secret);
    token.destroy_secret(label)?;
    outcome?;
    let gone = token.hmac_sha256(label, &shared_access_text());
    must_lack(gone, "a deleted secret still computes")
}

fn computes(token: &mut dyn Token, label: &str, secret: &[u8]) -> Outcome {
    let text = shared_access_text();
    let code = token.hmac_sha256(label, &text)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let is_right = hmac::verify(&key, &text, &code).is_ok();
    ensure(is_right, "its HMAC is not that of the secret")?;
    match token.import_secret(label, &SecretSlice::from(random_id())) {
        Err(TokenError::Refused { .. }) => Ok(()),
        Ok(()) => Err(Failure::Broken("a second secret has its label".to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn signs_assertions_only(token: &mut dyn Token) -> Outcome {
    let key = make_labelled(token, KeyType::Rsa2048, &label())?;
    let outcome = assertion_verifies(token, &key.reference(), &key.spki).and_then(|()| {
        let algorithm = SignatureAlgorithm::RsaSha256;
        let signed = token.sign(&key.reference(), algorithm, &key_proof::challenge());
        must_lack(signed, "a credential key signed something else")
    });
    token.destroy(&key.reference())?;
    outcome
}

fn assertion_verifies(token: &mut dyn Token, key: &KeyReference, spki: &[u8]) -> Outcome {
    let input = assertion_input();
    let signature = token.sign_assertion(key, &input)?;
    let verifies = key_proof::verifies(spki, SignatureAlgorithm::RsaSha256, &input, &signature);
    ensure(verifies, "its assertion does not verify")
}

fn signs_no_assertion(token: &mut dyn Token) -> Outcome {
    let key = make_labelled(token, KeyType::Rsa2048, LABEL)?;
    // A caller that lies about the label gets no further than one that does not.
    let claimed = KeyReference {
        label: label(),
        ..key.reference()
    };
    let outcomes = [key.reference(), claimed].map(|reference| {
        match token.sign_assertion(&reference, &assertion_input()) {
            Err(TokenError::Refused { .. }) => Ok(()),
            signed => must_lack(signed, "it signed an assertion"),
        }
    });
    token.destroy(&key.reference())?;
    outcomes.into_iter().collect()
}

fn shared_access_text() -> Vec<u8> {
    format!("contract.example\n{}", soon()).into_bytes()
}

fn assertion_input() -> Vec<u8> {
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "RS256" }));
    format!("{header}.{}", part(json!({ "exp": soon() }))).into_bytes()
}

/// A minute from now, in Unix seconds.
fn soon() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs() + 60
}
