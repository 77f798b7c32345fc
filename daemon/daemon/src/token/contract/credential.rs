//! Checks what every token must do with credentials' keys, unless it reports that it does not
//! support them.

use super::key::{destroy, make_labelled, must_lack, sign};
use super::{Failure, Outcome, ensure};
use crate::token::credential::{self, SECRET_BYTES, SecretBytes};
use crate::token::key_proof::TEST_KEY_LABEL;
use crate::token::operation::{Operation, Token};
use crate::token::test_keys::random_id;
use crate::token::{KeyReference, TokenError, key_proof};
use crate::x509::key::{KeyType, SignatureAlgorithm};
use aws_lc_rs::hmac;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use secrecy::SecretSlice;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

type CredentialCheck = fn(&mut dyn Token) -> Outcome;

/// The checks and their names.
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
    credential::label(TEST_KEY_LABEL).expect("letters and hyphens make a name")
}

fn keeps_a_secret(token: &mut dyn Token) -> Outcome {
    let label = &label();
    let secret = [random_id(), random_id()].concat();
    debug_assert!(SECRET_BYTES.contains(&secret.len()));
    import(token, label, secret.clone())?;
    let outcome = computes(token, label, &secret);
    token.perform(&Operation::DestroySecret(label.clone()))?;
    outcome?;
    let gone = hmac_sha256(token, label, &shared_access_text());
    must_lack(gone, "a deleted secret still computes")
}

fn computes(token: &mut dyn Token, label: &str, secret: &[u8]) -> Outcome {
    let text = shared_access_text();
    let code = hmac_sha256(token, label, &text)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let is_right = hmac::verify(&key, &text, &code).is_ok();
    ensure(is_right, "its HMAC is not that of the secret")?;
    match import(token, label, random_id()) {
        Err(TokenError::Refused { .. }) => Ok(()),
        Ok(()) => Err(Failure::Broken("a second secret has its label".to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn import(token: &mut dyn Token, label: &str, secret: Vec<u8>) -> Result<(), TokenError> {
    token.ask(Operation::ImportSecret {
        label: label.to_owned(),
        secret: SecretBytes::new(&SecretSlice::from(secret)),
    })
}

fn hmac_sha256(token: &mut dyn Token, label: &str, text: &[u8]) -> Result<Vec<u8>, TokenError> {
    token.ask(Operation::Hmac {
        label: label.to_owned(),
        text: text.to_vec(),
    })
}

fn signs_assertions_only(token: &mut dyn Token) -> Outcome {
    let key = make_labelled(token, KeyType::Rsa2048, &label())?;
    let outcome = assertion_verifies(token, &key.reference(), &key.spki).and_then(|()| {
        let algorithm = SignatureAlgorithm::RsaSha256;
        let signed = sign(token, &key.reference(), algorithm, &key_proof::challenge());
        must_lack(signed, "a credential key signed something else")
    });
    destroy(token, &key.reference())?;
    outcome
}

fn assertion_verifies(token: &mut dyn Token, key: &KeyReference, spki: &[u8]) -> Outcome {
    let input = assertion_input();
    let signature: Vec<u8> = token.ask(sign_assertion(key, &input))?;
    let verifies = key_proof::verifies(spki, SignatureAlgorithm::RsaSha256, &input, &signature);
    ensure(verifies, "its assertion does not verify")
}

fn sign_assertion(key: &KeyReference, input: &[u8]) -> Operation {
    Operation::SignAssertion {
        key: key.clone(),
        input: input.to_vec(),
    }
}

fn signs_no_assertion(token: &mut dyn Token) -> Outcome {
    let key = make_labelled(token, KeyType::Rsa2048, TEST_KEY_LABEL)?;
    // A false label in the request must not help.
    let claimed = KeyReference {
        label: label(),
        ..key.reference()
    };
    let outcomes = [key.reference(), claimed].map(|reference| {
        match token.perform(&sign_assertion(&reference, &assertion_input())) {
            Err(TokenError::Refused { .. }) => Ok(()),
            signed => must_lack(signed, "it signed an assertion"),
        }
    });
    destroy(token, &key.reference())?;
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

/// Returns the Unix time of a minute from now.
fn soon() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs() + 60
}
