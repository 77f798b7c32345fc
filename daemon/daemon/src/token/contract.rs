//! Checks what every token must do: in tests with each backend, and by `hallmark token check` with
//! the operator's token.
//!
//! The checks make test keys, labelled [`TEST_KEY_LABEL`] or as a credential of that name, and
//! delete those and no others. An operation that the token does not support (no such mechanism) is
//! reported so, and is not a failure.

mod credential;
mod key;

use super::client::{ClientToken, TokenClient};
use super::operation::{Operation, Token};
use super::test_keys::TestKeys;
use super::{TokenDescription, TokenError};
use crate::x509::key::KeyType;
use serde::Serialize;

/// The scope of the checks.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The types of test keys.
    pub key_types: &'a [KeyType],
    /// True if the token's family reports which keys were made on the token.
    pub tells_local: bool,
}

/// The verdict of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// The token keeps the contract.
    Passed,
    /// The token violates the contract, with the reason.
    Failed(String),
    /// The token does not support the operation and reports that correctly.
    NotSupported(String),
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The rule that was checked.
    pub operation: &'static str,
    /// The type of the test key, if there was one.
    pub key_type: Option<KeyType>,
    /// Whether the token keeps the rule.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The results of all checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks, in their order.
    pub checks: Vec<Check>,
    /// Test keys and secrets that could not be deleted, with the reason.
    pub left_behind: Vec<String>,
}

impl Report {
    /// Returns true if no check failed and every test key was deleted.
    pub fn is_good(&self) -> bool {
        let failed = |check: &Check| matches!(check.verdict, Verdict::Failed(_));
        self.left_behind.is_empty() && !self.checks.iter().any(failed)
    }
}

/// Checks the token of `client`, and passes each result to `report`.
pub fn check_client(
    client: &TokenClient,
    scope: Scope<'_>,
    report: &mut dyn FnMut(&Check),
) -> Report {
    check(&mut ClientToken(client), scope, report)
}

/// Checks `token`, and passes each result to `report`.
fn check(token: &mut dyn Token, scope: Scope<'_>, report: &mut dyn FnMut(&Check)) -> Report {
    let mut test_keys = TestKeys::new(token);
    let mut checks = Vec::new();
    let mut note = |operation, key_type, outcome| {
        let check = Check {
            operation,
            key_type,
            verdict: verdict(outcome),
        };
        report(&check);
        checks.push(check);
    };
    note(
        "the token describes itself",
        None,
        describes_itself(&mut test_keys),
    );
    let mut spare = None;
    for key_type in scope.key_types {
        let mut note = |operation, outcome| note(operation, Some(*key_type), outcome);
        key::check_key_type(
            &mut test_keys,
            *key_type,
            &mut spare,
            scope.tells_local,
            &mut note,
        );
    }
    for (operation, check) in credential::CHECKS {
        note(operation, None, check(&mut test_keys));
    }
    Report {
        checks,
        left_behind: test_keys.clean_up(),
    }
}

/// Why a check failed.
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
    let description: TokenDescription = token.ask(Operation::Describe)?;
    ensure(!description.label.is_empty(), "its label is empty")?;
    ensure(!description.serial.is_empty(), "its serial number is empty")?;
    ensure(!description.mechanisms.is_empty(), "it lists no mechanism")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::key_proof::TEST_KEY_LABEL;
    use crate::token::operation::Answer;
    use hallmark_worker::memory::MemoryToken;

    const SCOPE: Scope<'_> = Scope {
        key_types: &[
            KeyType::P256,
            KeyType::P384,
            KeyType::P521,
            KeyType::Rsa2048,
            KeyType::Rsa3072,
            KeyType::Ed25519,
        ],
        tells_local: true,
    };

    #[test]
    fn the_memory_token_keeps_the_contract() {
        let report = check(&mut MemoryToken::new("memory"), SCOPE, &mut |_| {});
        for check in &report.checks {
            assert_eq!(check.verdict, Verdict::Passed, "{check:?}");
        }
        assert!(report.is_good(), "{report:?}");
    }

    /// A token that makes wrong signatures and refuses the first deletions.
    struct Broken(MemoryToken, usize);

    impl Token for Broken {
        fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError> {
            if matches!(operation, Operation::Destroy(_))
                && let Some(left) = self.1.checked_sub(1)
            {
                self.1 = left;
                return Err(TokenError::unavailable("memory", "it deletes nothing now"));
            }
            let mut answer = self.0.perform(operation)?;
            if matches!(operation, Operation::Sign { .. })
                && let Answer::Signature(signature) = &mut answer
            {
                signature.reverse();
            }
            Ok(answer)
        }
    }

    const ONE: Scope<'_> = Scope {
        key_types: &[KeyType::P256],
        tells_local: true,
    };

    #[test]
    fn a_check_that_fails_leaves_no_key_behind() {
        // Both deletions of the checks with a P-256 key fail; cleaning up succeeds.
        let report = check(&mut Broken(MemoryToken::new("memory"), 2), ONE, &mut |_| {});
        assert!(!report.is_good());
        assert_eq!(report.left_behind, Vec::<String>::new());
    }

    #[test]
    fn a_key_that_cannot_be_deleted_is_reported() {
        let broken = &mut Broken(MemoryToken::new("memory"), usize::MAX);
        let report = check(broken, ONE, &mut |_| {});
        assert!(!report.left_behind.is_empty());
        let left = report.left_behind.join(" ");
        assert!(
            left.contains(TEST_KEY_LABEL) && left.contains("deletes nothing"),
            "{left}"
        );
    }
}
