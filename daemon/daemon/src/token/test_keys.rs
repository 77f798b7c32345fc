//! Records the test keys and secrets that are made on a token, and deletes them afterwards.
//!
//! [`TestKeys`] wraps the token for the contract check and the benchmark. It records each key until
//! the key is deleted; [`clean_up`](TestKeys::clean_up) deletes the rest, whatever went wrong.

use super::operation::{Answer, Operation, Token};
use super::{KeyDescription, KeyReference, KeySpecification, TokenError};

/// Returns a new key id.
pub(super) fn random_id() -> Vec<u8> {
    let mut id = vec![0; 16];
    aws_lc_rs::rand::fill(&mut id).expect("aws-lc's generator has passed its self-test");
    id
}

/// A token, and the keys and secrets that were made on it.
pub(super) struct TestKeys<'a> {
    token: &'a mut dyn Token,
    keys: Vec<KeyReference>,
    /// Keys that the token may have made although it returned an error.
    doubtful: Vec<KeySpecification>,
    secrets: Vec<String>,
}

impl<'a> TestKeys<'a> {
    pub(super) fn new(token: &'a mut dyn Token) -> Self {
        TestKeys {
            token,
            keys: Vec::new(),
            doubtful: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// Deletes what is left. Returns what could not be deleted, with the reason.
    pub(super) fn clean_up(mut self) -> Vec<String> {
        let mut left = Vec::new();
        for specification in std::mem::take(&mut self.doubtful) {
            let found = self
                .token
                .ask::<Option<KeyDescription>>(Operation::FindById(specification.id.clone()));
            match found {
                Ok(Some(key)) => self.keys.push(key.reference()),
                Ok(None) => {}
                Err(error) => left.push(named(
                    "key",
                    &specification.label,
                    &specification.id,
                    &error,
                )),
            }
        }
        for key in std::mem::take(&mut self.keys) {
            match self.token.perform(&Operation::Destroy(key.clone())) {
                // An earlier deletion succeeded although the token had returned an error.
                Ok(_) | Err(TokenError::Key { .. }) => {}
                Err(error) => left.push(named("key", &key.label, &key.id, &error)),
            }
        }
        for label in std::mem::take(&mut self.secrets) {
            match self.token.perform(&Operation::DestroySecret(label.clone())) {
                Ok(_) => {}
                Err(error) => left.push(named("secret", &label, &[], &error)),
            }
        }
        left
    }
}

fn named(what: &str, label: &str, id: &[u8], error: &TokenError) -> String {
    let id = match id {
        [] => String::new(),
        id => format!(", id {}", hex::encode(id)),
    };
    format!("{what} {label:?}{id}: {error}")
}

/// Returns true if the token may have done it although it returned `error`.
fn is_doubtful(error: &TokenError) -> bool {
    matches!(
        error,
        TokenError::Unavailable { .. } | TokenError::Deadline { .. }
    )
}

impl Token for TestKeys<'_> {
    fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError> {
        let outcome = self.token.perform(operation);
        self.note(operation, &outcome);
        outcome
    }
}

impl TestKeys<'_> {
    fn note(&mut self, operation: &Operation, outcome: &Result<Answer, TokenError>) {
        match (operation, outcome) {
            (Operation::Generate(_), Ok(Answer::Key(key))) => self.keys.push(key.reference()),
            (Operation::Generate(specification), Err(error)) if is_doubtful(error) => {
                self.doubtful.push(specification.clone());
            }
            (Operation::Destroy(key), Ok(_)) => self.keys.retain(|made| made.spki != key.spki),
            (Operation::ImportSecret { label, .. }, outcome) => {
                let may_be_there = outcome.as_ref().err().is_none_or(is_doubtful);
                if may_be_there && !self.secrets.contains(label) {
                    self.secrets.push(label.clone());
                }
            }
            (Operation::DestroySecret(label), Ok(_)) => self.secrets.retain(|made| made != label),
            _ => {}
        }
    }
}
