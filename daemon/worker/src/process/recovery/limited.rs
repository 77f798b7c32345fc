//! Performs one operation within the limits of the worker, and reports what is refused.

use super::super::login::may_again;
use super::{Recovery, lock};
use hallmark_protocol::credential::{NotACredential, check_assertion, check_shared_access};
use hallmark_protocol::operation::{Answer, Operation, Token};
use hallmark_protocol::{KeyDescription, TokenError};
use std::time::{Duration, SystemTime};

/// Shortest time between two log lines about refusals: an attacker must not fill the log.
const REFUSAL_LOG_PAUSE: Duration = Duration::from_secs(1);

impl Recovery {
    /// Performs it on the token unless the limits forbid it, and counts what was signed.
    pub(super) fn perform_on(
        &self,
        token: &mut dyn Token,
        operation: &Operation,
    ) -> Result<Answer, TokenError> {
        match operation {
            Operation::Prove(key) => {
                let proven = self.used_keys.prove(&self.name, token, key)?;
                self.wall.note_held(&proven);
                return Ok(Answer::Key(proven));
            }
            Operation::CountSignatures => return Ok(Answer::Counts(self.wall.counts())),
            Operation::Destroy(key) => {
                // Its own label: one in the request may be another.
                let found: KeyDescription = token.ask(Operation::Find(key.clone()))?;
                let may = self.wall.may_destroy(&found);
                may.map_err(|reason| self.refuse(operation, &reason))?;
            }
            _ => {}
        }
        check_credential(operation).map_err(|reason| self.refuse(operation, &reason))?;
        let admitted = self.wall.admit(operation);
        let admitted = admitted.map_err(|reason| self.refuse(operation, &reason))?;
        let answer = token.perform(operation)?;
        self.wall.count(operation, admitted);
        match (operation, &answer) {
            (Operation::Generate(_), Answer::Key(key)) => self.wall.note_made(key),
            (Operation::ImportSecret { label, .. }, _) => self.wall.note_imported(label),
            _ => {}
        }
        Ok(answer)
    }

    /// Returns the error of a request that the limits of this worker do not allow, and reports it.
    fn refuse(&self, operation: &Operation, reason: &dyn ToString) -> TokenError {
        let token = &self.name;
        let name = operation.name();
        let key = operation.subject();
        let reason = reason.to_string();
        self.wall.count_refusal();
        self.health
            .count_refusal(format!("{name} by {key}: {reason}"));
        if may_again(&mut lock(&self.refusal_logged), REFUSAL_LOG_PAUSE) {
            let operation = name;
            tracing::warn!(
                token,
                operation,
                key,
                reason,
                "request refused by the worker's limits"
            );
        }
        TokenError::Refused {
            token: token.clone(),
            operation: name.to_owned(),
            reason,
        }
    }
}

/// Checks what a credential's key is to sign. The worker does not rely on its client for that.
fn check_credential(operation: &Operation) -> Result<(), NotACredential> {
    match operation {
        Operation::SignAssertion { input, .. } => check_assertion(input, SystemTime::now()),
        Operation::Hmac { text, .. } => check_shared_access(text, SystemTime::now()),
        _ => Ok(()),
    }
}
