//! What every token must do, as checks that can be run: by tests against each backend, and by
//! `hallmark token check` against the operator's own.
//!
//! The checks make keys of their own, labelled [`LABEL`] or as a credential of that name, and delete
//! those and no others. What a
//! token cannot do at all (no such mechanism) is reported as not supported, which is no failure.

mod credential;

use super::client::{ClientToken, TokenClient};
use super::{KeyDescription, KeyReference, KeySpecification, Token, TokenError, proof};
use crate::x509::key::{KeyType, SignatureAlgorithm};

/// `CKA_LABEL` of the keys that the checks make; what a broken check left behind is found by it.
pub const LABEL: &str = "hallmark-contract-check";

/// Longer than what a token takes in one piece, if it takes messages in pieces.
const LONG_MESSAGE_BYTES: usize = 100_000;

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// The token cannot do it, and says so properly.
    NotSupported(String),
}

/// One check that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked, with the kind of key where it matters.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// Runs the contract through a worker, with a key of each of `key_types`.
pub fn check_client(client: &TokenClient, key_types: &[KeyType]) -> Vec<Check> {
    check(&mut ClientToken(client), key_types)
}

/// Runs the contract against `token`, with a key of each of `key_types`.
pub fn check(token: &mut dyn Token, key_types: &[KeyType]) -> Vec<Check> {
    let mut checks = vec![Check {
        name: "the token says what it is".to_owned(),
        verdict: verdict(describes_itself(token)),
    }];
    for key_type in key_types {
        checks.extend(check_key_type(token, *key_type));
    }
    checks.extend(credential::check(token));
    checks
}

/// Why a check does not hold.
enum Failure {
    Broken(String),
    NotSupported(String),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Refused { reason, .. } => Failure::NotSupported(reason),
            other => Failure::Broken(other.to_string()),
        }
    }
}

type Outcome = Result<(), Failure>;

fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(Failure::Broken(reason)) => Verdict::Failed(reason),
        Err(Failure::NotSupported(reason)) => Verdict::NotSupported(reason),
    }
}

fn ensure(holds: bool, otherwise: &str) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failure::Broken(otherwise.to_owned()))
    }
}

fn describes_itself(token: &mut dyn Token) -> Outcome {
    let description = token.describe()?;
    ensure(!description.label.is_empty(), "its label is empty")?;
    ensure(!description.serial.is_empty(), "its serial number is empty")?;
    ensure(!description.mechanisms.is_empty(), "it lists no mechanism")
}

/// A check with a key that was made for it.
type KeyCheck = fn(&mut dyn Token, &KeyDescription) -> Outcome;

const KEY_CHECKS: &[(&str, KeyCheck)] = &[
    (
        "a new key is sensitive, local and can never be extracted",
        never_leaves,
    ),
    (
        "a key is found by id, by label, and only with its public key",
        is_found,
    ),
    ("an id that is taken makes no second key", id_is_unique),
    ("two keys with one label are told apart", shares_its_label),
    (
        "its signatures verify, of empty and of long messages",
        signs,
    ),
    (
        "it does not sign in another algorithm",
        signs_in_one_algorithm,
    ),
    ("a deleted key is gone, and signs no more", is_destroyed),
];

fn check_key_type(token: &mut dyn Token, key_type: KeyType) -> Vec<Check> {
    let named = |name: &str, verdict| Check {
        name: format!("{name} ({key_type:?})"),
        verdict,
    };
    let key = match make_key(token, key_type) {
        Ok(key) => key,
        Err(failure) => return vec![named("a key can be made", verdict(Err(failure)))],
    };
    let mut checks = Vec::new();
    for (name, check) in KEY_CHECKS {
        checks.push(named(name, verdict(check(token, &key))));
    }
    checks
}

fn make_key(token: &mut dyn Token, key_type: KeyType) -> Result<KeyDescription, Failure> {
    make_labelled(token, key_type, LABEL)
}

fn make_labelled(
    token: &mut dyn Token,
    key_type: KeyType,
    label: &str,
) -> Result<KeyDescription, Failure> {
    let specification = KeySpecification {
        key_type,
        label: label.to_owned(),
        id: random_id(),
    };
    let key = token.generate(&specification)?;
    ensure(
        key.label == label && key.id == specification.id,
        "label or id is another",
    )?;
    let algorithm = proof::algorithm_of(&key.spki);
    ensure(
        algorithm == Some(key_type.signature_algorithm()),
        "its public key is of another kind",
    )?;
    Ok(key)
}

fn random_id() -> Vec<u8> {
    let mut id = vec![0; 16];
    aws_lc_rs::rand::fill(&mut id).expect("aws-lc's generator has passed its self-test");
    id
}

fn never_leaves(_: &mut dyn Token, key: &KeyDescription) -> Outcome {
    ensure(key.sensitive, "it is not sensitive")?;
    ensure(!key.extractable, "it is extractable")?;
    ensure(key.never_extractable, "it was extractable once")?;
    ensure(key.local, "it was not made on the token")
}

fn is_found(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    let whole = key.reference();
    let by_id = KeyReference {
        label: "another".to_owned(),
        ..whole.clone()
    };
    let by_label = KeyReference {
        id: random_id(),
        ..whole.clone()
    };
    for reference in [&whole, &by_id, &by_label] {
        ensure(token.find(reference)? == *key, "another key was found")?;
    }
    let kept_inside = key.wrapped.is_none().then_some(key);
    ensure(
        token.find_by_id(&key.id)?.as_ref() == kept_inside,
        "its id alone finds another",
    )?;
    ensure(
        token.find_by_id(&random_id())?.is_none(),
        "an unknown id finds a key",
    )?;
    let other_key = KeyReference {
        spki_sha256: [0; 32],
        ..whole
    };
    must_lack(
        token.find(&other_key),
        "a key with another public key was found",
    )
}

fn id_is_unique(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    if key.wrapped.is_some() {
        let reason = "its keys are kept outside, so it knows of no ids";
        return Err(Failure::NotSupported(reason.to_owned()));
    }
    let specification = KeySpecification {
        key_type: KeyType::P256,
        label: LABEL.to_owned(),
        id: key.id.clone(),
    };
    match token.generate(&specification) {
        Err(TokenError::Refused { .. }) => Ok(()),
        Ok(_) => Err(Failure::Broken("a second key has its id".to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn shares_its_label(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    let key_type = KeyType::P256;
    let second = make_key(token, key_type)?;
    let outcome = prove(token, key).and_then(|()| prove(token, &second));
    token.destroy(&second.reference())?;
    outcome
}

fn prove(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    Ok(proof::prove("", key, |key, algorithm, message| {
        token.sign(key, algorithm, message)
    })?)
}

fn signs(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    let algorithm = proof::algorithm_of(&key.spki)
        .ok_or_else(|| Failure::Broken("its kind is not supported".to_owned()))?;
    for message in [vec![], proof::challenge(), vec![0x5a; LONG_MESSAGE_BYTES]] {
        let signature = token.sign(&key.reference(), algorithm, &message)?;
        let verifies = proof::verifies(&key.spki, algorithm, &message, &signature);
        ensure(
            verifies,
            &format!("a signature of {} bytes does not verify", message.len()),
        )?;
    }
    Ok(())
}

fn signs_in_one_algorithm(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    let other = match proof::algorithm_of(&key.spki) {
        Some(SignatureAlgorithm::RsaSha256) => SignatureAlgorithm::EcdsaSha256,
        _ => SignatureAlgorithm::RsaSha256,
    };
    match token.sign(&key.reference(), other, &proof::challenge()) {
        Err(TokenError::Key { .. } | TokenError::Refused { .. }) => Ok(()),
        Ok(_) => Err(Failure::Broken(format!("it signed in {other:?}"))),
        Err(error) => Err(Failure::Broken(format!("not refused, but: {error}"))),
    }
}

fn is_destroyed(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    token.destroy(&key.reference())?;
    // A key that is kept outside goes with its reference.
    let reference = KeyReference {
        wrapped: None,
        ..key.reference()
    };
    must_lack(token.find(&reference), "it is still found")?;
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    must_lack(
        token.sign(&reference, algorithm, &proof::challenge()),
        "it still signs",
    )
}

/// The key must be missing, and the token must say just that.
fn must_lack<T>(outcome: Result<T, TokenError>, otherwise: &str) -> Outcome {
    match outcome {
        Err(TokenError::Key { .. }) => Ok(()),
        Ok(_) => Err(Failure::Broken(otherwise.to_owned())),
        Err(error) => Err(Failure::Broken(format!("not a missing key, but: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::memory::MemoryToken;

    #[test]
    fn the_memory_token_keeps_the_contract() {
        let key_types = [
            KeyType::P256,
            KeyType::P384,
            KeyType::Rsa2048,
            KeyType::Rsa3072,
            KeyType::Ed25519,
        ];
        for Check { name, verdict } in check(&mut MemoryToken::new("memory"), &key_types) {
            assert_eq!(verdict, Verdict::Passed, "{name}");
        }
    }
}
