//! Signs a checkpoint when one is due, records it, and copies it out of the database.
//!
//! A crash before the record loses a signature over a number that is signed again; after it the
//! copy lacks the checkpoint, until the next one is copied, which copies what is missing, too.

use super::CheckpointPolicy;
use super::key::SigningKey;
use crate::ca::{Code, Error, Issuer, crash_point, lock};
use crate::journal::Place;
use crate::journal::checkpoint::{Accepted, Checkpoint, State};
use crate::journal::checkpoints::SignedCheckpoint;

/// The pause after a checkpoint that could not be signed, in seconds.
const RETRY_SECONDS: i64 = 5;

impl Issuer {
    /// Signs a checkpoint if one is due.
    pub(super) fn checkpoint_if_due(&self) -> Result<(), Error> {
        let Some(policy) = &self.settings().audit.checkpoints else {
            return Ok(());
        };
        let now = self.now();
        let known = lock(&self.journal().known);
        let pauses = known.retry_at.is_some_and(|it| it > now);
        let has_failed = known.failure.is_some();
        drop(known);
        if pauses {
            return Ok(());
        }
        match self.due(policy)? {
            Some(state) => self.checkpoint(policy, state),
            // It was signed and recorded, and is not copied yet.
            None if has_failed => self.copy_again(),
            None => Ok(()),
        }
    }

    fn copy_again(&self) -> Result<(), Error> {
        let copied = self.copy_checkpoints();
        let mut known = lock(&self.journal().known);
        known.failure = copied.as_ref().err().map(|error| error.message.clone());
        known.retry_at = copied.is_err().then(|| self.now() + RETRY_SECONDS);
        drop(known);
        copied
    }

    /// Signs the last checkpoint, at an orderly stop. Nothing may be written after it.
    pub fn close_journal(&self) {
        let Some(policy) = &self.settings().audit.checkpoints else {
            return;
        };
        let known = lock(&self.journal().known);
        let is_sound = known.is_opened && known.finding.is_none();
        drop(known);
        if !is_sound || self.store().write_fault().is_some() {
            return;
        }
        if let Err(error) = self.checkpoint(policy, State::Closed) {
            tracing::warn!(code = error.code.name(), %error, "audit journal not closed");
        }
    }

    /// Signs a checkpoint in this state, and notes whether that was possible.
    pub(super) fn checkpoint(&self, policy: &CheckpointPolicy, state: State) -> Result<(), Error> {
        let _alone = lock(&self.journal().alone);
        let accepted = lock(&self.journal().known)
            .last
            .as_ref()
            .and_then(|it| it.accepted);
        let signed = self.checkpoint_alone(policy, state, accepted, 0);
        let mut known = lock(&self.journal().known);
        match &signed {
            Ok(()) => {
                known.failure = None;
                known.retry_at = None;
            }
            Err(error) => {
                known.failure = Some(error.message.clone());
                known.retry_at = Some(self.now() + RETRY_SECONDS);
            }
        }
        signed
    }

    /// Returns in which state a checkpoint is due now.
    fn due(&self, policy: &CheckpointPolicy) -> Result<Option<State>, Error> {
        let now = self.now();
        let known = lock(&self.journal().known);
        if !known.is_opened {
            return Ok(None);
        }
        let last = known.last.as_ref().map(|it| it.state);
        let is_broken = known.finding.is_some();
        drop(known);
        if is_broken {
            return Ok((last != Some(State::Broken)).then_some(State::Broken));
        }
        let (uncovered, since) = self.uncovered()?;
        let is_due = last != Some(State::Open)
            || uncovered >= policy.entries
            || since.is_some_and(|since| now - since >= policy.every_seconds);
        Ok(is_due.then_some(State::Open))
    }

    /// Signs, records and copies, by one thread at a time. Its number is above `number`, too.
    pub(super) fn checkpoint_alone(
        &self,
        policy: &CheckpointPolicy,
        state: State,
        accepted: Option<Accepted>,
        number: i64,
    ) -> Result<(), Error> {
        // Making a key writes an entry, which this checkpoint covers.
        let key = self.signing_key(&policy.token)?;
        let Some(end) = self.store().journal_end()? else {
            return Ok(());
        };
        let checkpoint = self.next_checkpoint(end, state, accepted, number)?;
        let signed = self.signed_checkpoint(policy, &key, &checkpoint)?;
        crash_point("checkpoint-signed");
        self.store().record_checkpoint(signed.clone())?;
        crash_point("checkpoint-recorded");
        tracing::info!(
            number = checkpoint.number,
            entry = checkpoint.sequence,
            hash = hex::encode(checkpoint.hash),
            message = signed.message,
            key = signed.key,
            signature = signed.signature,
            "audit checkpoint"
        );
        lock(&self.journal().known).last = Some(checkpoint);
        self.copy_checkpoints()?;
        crash_point("checkpoint-copied");
        Ok(())
    }

    fn next_checkpoint(
        &self,
        end: Place,
        state: State,
        accepted: Option<Accepted>,
        number: i64,
    ) -> Result<Checkpoint, Error> {
        let known = lock(&self.journal().known);
        let journal = known.last.as_ref().map(|it| it.journal);
        drop(known);
        let journal = match journal {
            Some(journal) => journal,
            None => {
                let first = self.store().journal_from(1, 1)?;
                first.first().map_or(end.hash, |it| it.hash)
            }
        };
        let before = self.store().last_checkpoint()?.map_or(0, |it| it.number);
        Ok(Checkpoint {
            journal,
            number: before.max(number) + 1,
            sequence: end.sequence,
            hash: end.hash,
            at: self.now(),
            schema: self.store().schema()?.sha256(),
            accepted,
            state,
        })
    }

    /// Has the token sign, and verifies the signature.
    fn signed_checkpoint(
        &self,
        policy: &CheckpointPolicy,
        key: &SigningKey,
        checkpoint: &Checkpoint,
    ) -> Result<SignedCheckpoint, Error> {
        let token = self.token(&policy.token)?;
        let algorithm = key.public_key.key_type().signature_algorithm();
        let deadline = token.sign_deadline;
        pollster::block_on(token.client.ready_to_sign(&key.reference, deadline))?;
        let signature =
            token
                .client
                .sign_checkpoint(&key.reference, algorithm, checkpoint, deadline)?;
        let message = checkpoint.encode();
        if !key.public_key.verify(algorithm, &message, &signature) {
            token.client.doubt(&key.reference);
            let text = format!(
                "token {}: the signature over a checkpoint does not verify",
                policy.token
            );
            return Err(Error::stop(Code::SignatureWrong, text));
        }
        token.client.confirm(&key.reference);
        Ok(SignedCheckpoint {
            number: checkpoint.number,
            message: String::from_utf8_lossy(&message).into_owned(),
            key: hex::encode(key.public_key.sha256()),
            signature: hex::encode(signature),
        })
    }
}
