//! Checks what every token must do with the keys that sign certificates.

use super::{Failure, Outcome, ensure};
use crate::token::key_proof::{self, TEST_KEY_LABEL};
use crate::token::operation::{Operation, Token};
use crate::token::test_keys::random_id;
use crate::token::{KeyDescription, KeyReference, KeySpecification, TokenError};
use crate::x509::key::{KeyType, SignatureAlgorithm};
use std::sync::Arc;

/// Longer than the parts in which a token may take a message.
const LONG_MESSAGE_BYTES: usize = 100_000;

/// The test key of a check.
struct Subject {
    key: KeyDescription,
    key_type: KeyType,
    /// The type of a second key, where a check needs one: the first type that the token supports.
    spare: KeyType,
    tells_local: bool,
}

type KeyCheck = fn(&mut dyn Token, &Subject) -> Outcome;

const KEY_CHECKS: &[(&str, KeyCheck)] = &[
    (
        "a new key is sensitive and can never be extracted",
        never_leaves,
    ),
    ("a new key is reported as made on the token", is_local),
    (
        "a key is found by id, by label, and only with its public key",
        is_found,
    ),
    ("an id that is taken makes no second key", id_is_unique),
    (
        "two keys with one label are distinguished",
        shares_its_label,
    ),
    (
        "its signatures verify, of short and of long messages",
        signs,
    ),
    (
        "it does not sign in another algorithm",
        signs_in_one_algorithm,
    ),
    ("a deleted key is gone, and signs no more", is_destroyed),
    ("the id of a deleted key is free again", frees_its_id),
];

pub(super) fn check_key_type(
    token: &mut dyn Token,
    key_type: KeyType,
    spare: &mut Option<KeyType>,
    tells_local: bool,
    note: &mut dyn FnMut(&'static str, Outcome),
) {
    let key = match make_key(token, key_type) {
        Ok(key) => key,
        Err(failure) => return note("a key can be made", Err(failure)),
    };
    note("a key can be made", Ok(()));
    let subject = Subject {
        key,
        key_type,
        spare: *spare.get_or_insert(key_type),
        tells_local,
    };
    for (operation, check) in KEY_CHECKS {
        note(operation, check(token, &subject));
    }
}

fn make_key(token: &mut dyn Token, key_type: KeyType) -> Result<KeyDescription, Failure> {
    make_labelled(token, key_type, TEST_KEY_LABEL)
}

pub(super) fn make_labelled(
    token: &mut dyn Token,
    key_type: KeyType,
    label: &str,
) -> Result<KeyDescription, Failure> {
    let specification = KeySpecification {
        key_type,
        label: label.to_owned(),
        id: random_id(),
    };
    let key: KeyDescription = token.ask(Operation::Generate(specification.clone()))?;
    ensure(
        key.label == label && key.id == specification.id,
        "label or id is another",
    )?;
    let algorithm = key_proof::algorithm_of(&key.spki);
    ensure(
        algorithm == Some(key_type.signature_algorithm()),
        "its public key is of another kind",
    )?;
    Ok(key)
}

fn never_leaves(_: &mut dyn Token, Subject { key, .. }: &Subject) -> Outcome {
    ensure(key.sensitive, "it is not sensitive")?;
    ensure(!key.extractable, "it is extractable")?;
    ensure(key.never_extractable, "it was extractable once")
}

fn is_local(_: &mut dyn Token, subject: &Subject) -> Outcome {
    if !subject.tells_local {
        let reason = "its family does not set CKA_LOCAL reliably";
        return Err(Failure::NotSupported(reason.to_owned()));
    }
    ensure(subject.key.local, "it was not made on the token")
}

fn is_found(token: &mut dyn Token, Subject { key, .. }: &Subject) -> Outcome {
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
        ensure(find(token, reference)? == *key, "another key was found")?;
    }
    let kept_inside = key.wrapped.is_none().then_some(key);
    ensure(
        find_by_id(token, &key.id)?.as_ref() == kept_inside,
        "its id alone finds another",
    )?;
    ensure(
        find_by_id(token, &random_id())?.is_none(),
        "an unknown id finds a key",
    )?;
    let other_key = KeyReference {
        spki: other_public_key(&key.spki).into(),
        ..whole
    };
    must_lack(
        find(token, &other_key),
        "a key with another public key was found",
    )
}

/// Returns a public key that differs from this one in its last byte.
fn other_public_key(spki: &[u8]) -> Vec<u8> {
    let mut other = spki.to_vec();
    if let Some(last) = other.last_mut() {
        *last ^= 1;
    }
    other
}

fn id_is_unique(token: &mut dyn Token, subject: &Subject) -> Outcome {
    if subject.key.wrapped.is_some() {
        let reason = "its keys are kept outside, so it knows of no ids";
        return Err(Failure::NotSupported(reason.to_owned()));
    }
    let specification = KeySpecification {
        key_type: subject.key_type,
        label: TEST_KEY_LABEL.to_owned(),
        id: subject.key.id.clone(),
    };
    match token.perform(&Operation::Generate(specification)) {
        Err(TokenError::Refused { .. }) => Ok(()),
        Ok(_) => Err(Failure::Broken("a second key has its id".to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn shares_its_label(token: &mut dyn Token, subject: &Subject) -> Outcome {
    let second = make_key(token, subject.spare)?;
    let outcome = prove(token, &subject.key).and_then(|()| prove(token, &second));
    destroy(token, &second.reference())?;
    outcome
}

fn prove(token: &mut dyn Token, key: &KeyDescription) -> Outcome {
    Ok(key_proof::prove("", key, |key, algorithm, message| {
        sign(token, key, algorithm, message)
    })?)
}

fn signs(token: &mut dyn Token, Subject { key, .. }: &Subject) -> Outcome {
    let algorithm = key_proof::algorithm_of(&key.spki)
        .ok_or_else(|| Failure::Broken("its kind is not supported".to_owned()))?;
    let long = [key_proof::challenge(), vec![0x5a; LONG_MESSAGE_BYTES]].concat();
    for message in [key_proof::challenge(), long] {
        let signature = sign(token, &key.reference(), algorithm, &message)?;
        let verifies = key_proof::verifies(&key.spki, algorithm, &message, &signature);
        ensure(
            verifies,
            &format!("a signature of {} bytes does not verify", message.len()),
        )?;
    }
    Ok(())
}

fn signs_in_one_algorithm(token: &mut dyn Token, Subject { key, .. }: &Subject) -> Outcome {
    let other = match key_proof::algorithm_of(&key.spki) {
        Some(SignatureAlgorithm::RsaSha256) => SignatureAlgorithm::EcdsaSha256,
        _ => SignatureAlgorithm::RsaSha256,
    };
    match sign(token, &key.reference(), other, &key_proof::challenge()) {
        Err(TokenError::Key { .. } | TokenError::Refused { .. }) => Ok(()),
        Ok(_) => Err(Failure::Broken(format!("it signed in {other:?}"))),
        Err(error) => Err(Failure::Broken(format!("not refused, but: {error}"))),
    }
}

fn is_destroyed(token: &mut dyn Token, subject: &Subject) -> Outcome {
    destroy(token, &subject.key.reference())?;
    // A key that is kept outside goes with its reference.
    let reference = KeyReference {
        wrapped: None,
        ..subject.key.reference()
    };
    must_lack(find(token, &reference), "it is still found")?;
    let algorithm = subject.key_type.signature_algorithm();
    must_lack(
        sign(token, &reference, algorithm, &key_proof::challenge()),
        "it still signs",
    )
}

/// Checks that a new key may have the id of a deleted key, and that both lookups find the new one.
fn frees_its_id(token: &mut dyn Token, subject: &Subject) -> Outcome {
    let specification = KeySpecification {
        key_type: subject.key_type,
        label: TEST_KEY_LABEL.to_owned(),
        id: subject.key.id.clone(),
    };
    let next: KeyDescription = token.ask(Operation::Generate(specification))?;
    let found = find(token, &next.reference()).and_then(|found| {
        let kept_inside = next.wrapped.is_none().then_some(&next);
        let by_id = find_by_id(token, &next.id)?;
        Ok(found == next && by_id.as_ref() == kept_inside)
    });
    let outcome = prove(token, &next);
    destroy(token, &next.reference())?;
    outcome?;
    ensure(found?, "another key was found under its id")?;
    ensure(next.spki != subject.key.spki, "it is the deleted key")
}

fn find(token: &mut dyn Token, key: &KeyReference) -> Result<KeyDescription, TokenError> {
    token.ask(Operation::Find(key.clone()))
}

fn find_by_id(token: &mut dyn Token, id: &[u8]) -> Result<Option<KeyDescription>, TokenError> {
    token.ask(Operation::FindById(id.to_vec()))
}

pub(super) fn sign(
    token: &mut dyn Token,
    key: &KeyReference,
    algorithm: SignatureAlgorithm,
    message: &[u8],
) -> Result<Vec<u8>, TokenError> {
    token.ask(Operation::Sign {
        key: Arc::new(key.clone()),
        algorithm,
        message: message.to_vec(),
    })
}

pub(super) fn destroy(token: &mut dyn Token, key: &KeyReference) -> Result<(), TokenError> {
    token.ask(Operation::Destroy(key.clone()))
}

/// Checks that the token reports a missing key, and no other error.
pub(super) fn must_lack<T>(outcome: Result<T, TokenError>, otherwise: &str) -> Outcome {
    match outcome {
        Err(TokenError::Key { .. }) => Ok(()),
        Ok(_) => Err(Failure::Broken(otherwise.to_owned())),
        Err(error) => Err(Failure::Broken(format!("not a missing key, but: {error}"))),
    }
}
