//! Sends requests to a token worker, for `serve`.
//!
//! Many threads may call a client at once; their requests are in flight together on one connection.
//! A signature is a future, because many are awaited at once; the other operations are rare and
//! block. A client loads no PKCS#11 library and knows no PIN. When the worker ends, pending
//! requests fail as [`Unavailable`](TokenError::Unavailable), and the client connects to the next
//! worker by itself.

mod connection;
mod connection_manager;
mod in_flight;
mod trust;

use super::credential::SecretBytes;
use super::health::{KeyReport, RecoveryCounters, Refusals, TokenState};
use super::inventory::Inventory;
use super::message::DEADLINE_MAX;
use super::operation::{Answer, Operation, Token};
use super::signature_count::SignatureCounts;
use super::{
    CallFailure, KeyDescription, KeyReference, KeySpecification, TokenDescription, TokenError,
};
use crate::journal::checkpoint::Checkpoint;
use crate::request_task;
use crate::store::Recorded;
use crate::x509::key::SignatureAlgorithm;
use crate::x509::lint::ocsp::LintedAnswer;
use connection_manager::{ConnectionManager, OnHang};
use rustix::process::Pid;
use secrecy::SecretSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Deadline of lookups and descriptions.
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(10);

/// Deadline of key generation: RSA-4096 on a small device needs minutes.
pub const GENERATE_DEADLINE: Duration = Duration::from_secs(300);

/// A client of one token's worker. Clones share the connection; the last one closes it.
#[derive(Clone)]
pub struct TokenClient {
    manager: Arc<ConnectionManager>,
}

/// The health of a token as `serve` knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHealth {
    /// The version of the worker's program; empty before one was connected.
    pub version: String,
    pub state: TokenState,
    /// The reason of the state, or a remark about a ready token; may be empty.
    pub reason: String,
    /// Time of the last change of state.
    pub since: SystemTime,
    /// When it stopped being ready; `None` if it is ready.
    pub out_since: Option<Instant>,
    /// How often the worker was started again.
    pub restarts: u64,
    /// Recoveries by the worker.
    pub recoveries: RecoveryCounters,
    /// The refusals of the worker because of its own limits.
    pub refusals: Refusals,
    /// The keys that the worker has used.
    pub keys: Vec<KeyReport>,
}

/// The counts of one worker since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCounts {
    /// The random number of the worker's process.
    pub worker: [u8; 8],
    /// The counts of each key.
    pub keys: Vec<KeyReport>,
}

impl TokenClient {
    /// Makes a client of the token `name`, whose worker listens on `socket` now or later.
    pub fn new(name: &str, socket: PathBuf) -> Self {
        TokenClient {
            manager: Arc::new(ConnectionManager::start(name, socket)),
        }
    }

    /// Returns the token's name in the configuration.
    pub fn name(&self) -> &str {
        self.manager.name()
    }

    /// Returns true if both share one connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.manager, &other.manager)
    }

    /// Returns the health that the worker has reported last.
    pub fn health(&self) -> TokenHealth {
        self.manager.health()
    }

    /// Returns for how long the token has not been ready; `None` if it is ready.
    pub fn out_for(&self) -> Option<Duration> {
        self.manager.out_for()
    }

    /// Waits until the token is ready or parked, or until the deadline; returns its health.
    pub fn wait_ready(&self, deadline: Duration) -> TokenHealth {
        self.manager.wait_ready(Instant::now() + deadline)
    }

    /// Performs `Operation::Describe`.
    pub fn describe(&self, deadline: Duration) -> Result<TokenDescription, TokenError> {
        self.ask(Operation::Describe, deadline)
    }

    /// Performs `Operation::Inventory`.
    pub fn inventory(&self, deadline: Duration) -> Result<Inventory, TokenError> {
        self.ask(Operation::Inventory, deadline)
    }

    /// Performs `Operation::CountSignatures`: what the worker has counted by itself.
    pub fn signature_counts(&self, deadline: Duration) -> Result<SignatureCounts, TokenError> {
        self.ask(Operation::CountSignatures, deadline)
    }

    /// Performs `Operation::Find`.
    pub fn find(
        &self,
        reference: &KeyReference,
        deadline: Duration,
    ) -> Result<KeyDescription, TokenError> {
        self.ask(Operation::Find(reference.clone()), deadline)
    }

    /// Performs `Operation::FindById`.
    pub fn find_by_id(
        &self,
        id: &[u8],
        deadline: Duration,
    ) -> Result<Option<KeyDescription>, TokenError> {
        self.ask(Operation::FindById(id.to_vec()), deadline)
    }

    /// Performs `Operation::Generate`.
    pub fn generate(
        &self,
        specification: &KeySpecification,
        deadline: Duration,
    ) -> Result<KeyDescription, TokenError> {
        self.ask(Operation::Generate(specification.clone()), deadline)
    }

    /// Performs `Operation::Destroy`.
    pub fn destroy(&self, key: &KeyReference, deadline: Duration) -> Result<(), TokenError> {
        self.ask(Operation::Destroy(key.clone()), deadline)
    }

    /// Performs `Operation::SignAnswer` over an answer that has passed the lint. The token refuses
    /// any key but a responder's.
    pub fn sign_answer(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        answer: &LintedAnswer,
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        let operation = Operation::SignAnswer {
            key: key.clone(),
            algorithm,
            answer: answer.bytes().to_vec(),
        };
        let signed = self.ask(operation, deadline);
        if signed.is_err() {
            self.doubt(key);
        }
        signed
    }

    /// Performs `Operation::SignCheckpoint`. The token refuses any key but one of the audit
    /// journal.
    pub fn sign_checkpoint(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        checkpoint: &Checkpoint,
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        let operation = Operation::SignCheckpoint {
            key: key.clone(),
            algorithm,
            checkpoint: checkpoint.encode(),
        };
        let signed = self.ask(operation, deadline);
        if signed.is_err() {
            self.doubt(key);
        }
        signed
    }

    /// Performs `Operation::SignAssertion`.
    pub fn sign_assertion(
        &self,
        key: &KeyReference,
        input: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        let key = key.clone();
        let input = input.to_vec();
        self.ask(Operation::SignAssertion { key, input }, deadline)
    }

    /// Performs `Operation::Hmac` over the text of a shared access signature; the worker refuses
    /// any other text.
    pub fn hmac_sha256(
        &self,
        label: &str,
        text: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        let label = label.to_owned();
        let text = text.to_vec();
        self.ask(Operation::Hmac { label, text }, deadline)
    }

    /// Performs `Operation::ImportSecret`.
    pub fn import_secret(
        &self,
        label: &str,
        secret: &SecretSlice<u8>,
        deadline: Duration,
    ) -> Result<(), TokenError> {
        let label = label.to_owned();
        let secret = SecretBytes::new(secret);
        self.ask(Operation::ImportSecret { label, secret }, deadline)
    }

    /// Performs `Operation::DestroySecret`.
    pub fn destroy_secret(&self, label: &str, deadline: Duration) -> Result<(), TokenError> {
        self.ask(Operation::DestroySecret(label.to_owned()), deadline)
    }

    /// Checks that the token can sign with exactly this key now. Call it before recording bytes to
    /// be signed: a request that fails here has reached no token.
    ///
    /// It uses the last reported state of the token and its keys, without a request to the worker.
    /// But a key that has not signed on this connection, or whose last signature failed, makes a
    /// test signature first.
    pub async fn ready_to_sign(
        &self,
        key: &KeyReference,
        deadline: Duration,
    ) -> Result<(), TokenError> {
        self.manager.check_ready()?;
        if let Some(failures) = self.manager.proven_keys().failures_in_a_row(key) {
            let reason = format!(
                "the last {failures} signatures of key {} failed although it makes test \
                 signatures; it is tried again within {} s",
                key.label,
                trust::FAILURE_PAUSE_MAX.as_secs()
            );
            return Err(TokenError::unavailable(self.name(), reason));
        }
        let connection = self.manager.connection()?;
        let operation = Operation::Prove(key.clone());
        let ask = || {
            trust::key_proof(async move {
                let asked = connection.call(operation, deadline.min(DEADLINE_MAX));
                asked.await.map(drop).map_err(TokenError::from)
            })
        };
        self.manager.proven_keys().require(key, ask).await
    }

    /// Returns true if this key has signed on the present connection and no signature has failed
    /// since. Sends no request.
    pub fn is_proven(&self, key: &KeyReference) -> bool {
        self.manager.proven_keys().is_proven(key)
    }

    /// Records that a signature by this key failed or was wrong: the key must make a test signature
    /// before the next one.
    pub fn doubt(&self, key: &KeyReference) {
        self.manager.proven_keys().doubt(key);
    }

    /// Records that a signature by this key was good, which ends the count of failures.
    pub fn confirm(&self, key: &KeyReference) {
        self.manager.proven_keys().confirm(key);
    }

    /// Performs `Operation::Sign` over bytes that the store has recorded: only the store can make a
    /// [`Recorded`].
    pub async fn sign_recorded(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        recorded: &Recorded<impl Copy>,
        deadline: Duration,
    ) -> Result<Vec<u8>, CallFailure> {
        let signed = self
            .sign_later(key, algorithm, recorded.tbs(), deadline)
            .await;
        if signed.is_err() {
            self.doubt(key);
        }
        signed
    }

    /// Performs `Operation::Sign` for the contract check and the benchmark, with test keys.
    pub(super) fn sign(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        Ok(pollster::block_on(
            self.sign_later(key, algorithm, message, deadline),
        )?)
    }

    async fn sign_later(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, CallFailure> {
        let connection = self.manager.connection().map_err(CallFailure::unsent)?;
        let signed = connection.sign(key, algorithm, message, deadline.min(DEADLINE_MAX));
        let answer = signed.await?;
        answer.typed(self.name()).map_err(CallFailure::sent)
    }

    /// Makes a test signature, which can never be one over a certificate. The worker verifies and
    /// counts it.
    pub fn prove(&self, key: &KeyDescription, deadline: Duration) -> Result<(), TokenError> {
        let proven: KeyDescription = self.ask(Operation::Prove(key.reference()), deadline)?;
        if proven.spki != key.spki {
            let reason = "the worker has proven another key";
            return Err(TokenError::unavailable(self.name(), reason));
        }
        Ok(())
    }

    /// Sets the callback for a hung worker; it gets the operation. A worker hangs if a request is
    /// unanswered well after its deadline, or if it does not greet, read or report its health.
    pub(super) fn on_hang(&self, on_hang: Option<OnHang>) {
        self.manager.on_hang(on_hang);
    }

    /// Restricts connections to this process: the worker that was started.
    pub(super) fn trust(&self, worker: Pid) {
        self.manager.trust(worker);
    }

    /// Calls `on_change` whenever the token changes its state; `on_change` MUST NOT ask for the
    /// health. Only the first callback is kept.
    pub fn on_state_change(&self, on_change: impl Fn() + Send + Sync + 'static) {
        self.manager.on_state_change(Box::new(on_change));
    }

    /// Returns the counts of workers: of those that have ended and were not forgotten, then of the
    /// present one.
    pub fn key_counts(&self) -> Vec<KeyCounts> {
        self.manager.key_counts()
    }

    /// Forgets the counts of this worker, if it has ended: they are recorded.
    pub fn forget_key_counts(&self, worker: [u8; 8]) {
        self.manager.forget_key_counts(worker);
    }

    /// Calls `on_change` whenever the worker reports a change of its keys; `on_change` MUST NOT ask
    /// for the health. Only the first callback is kept.
    pub fn on_keys_change(&self, on_change: impl Fn() + Send + Sync + 'static) {
        self.manager.on_keys_change(Box::new(on_change));
    }

    /// Counts a restart of the worker, and records its cause.
    pub(super) fn note_restart(&self, reason: &str) {
        self.manager.note_restart(reason);
    }

    fn call(&self, operation: Operation, deadline: Duration) -> Result<Answer, TokenError> {
        let connection = self.manager.connection()?;
        let called = connection.call(operation, deadline.min(DEADLINE_MAX));
        request_task::may_block();
        Ok(pollster::block_on(called)?)
    }

    fn ask<T: TryFrom<Answer>>(
        &self,
        operation: Operation,
        deadline: Duration,
    ) -> Result<T, TokenError> {
        self.call(operation, deadline)?.typed(self.name())
    }
}

/// A client as one more token for the contract. Only this module's parent may make one: it signs
/// bytes that are not recorded.
pub(super) struct ClientToken<'a>(pub(super) &'a TokenClient);

impl Token for ClientToken<'_> {
    fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError> {
        let deadline = match operation {
            Operation::Generate(_) => GENERATE_DEADLINE,
            _ => LOOKUP_DEADLINE,
        };
        self.0.call(operation.clone(), deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::message::FRAME_BYTES_MAX;
    use crate::x509::key::KeyType;
    use hallmark_worker::in_memory;
    use hallmark_worker::memory::MemoryToken;
    use pollster::block_on;

    const SOON: Duration = Duration::from_secs(30);

    /// A client of a token in memory, and a key on that.
    fn client(folder: &std::path::Path) -> (TokenClient, MemoryToken, KeyReference) {
        let socket = folder.join("socket");
        let mut memory = MemoryToken::new("memory");
        in_memory::serve("memory", memory.clone(), &socket);
        let client = TokenClient::new("memory", socket);
        assert_eq!(client.wait_ready(SOON).state, TokenState::Ready);
        let specification = KeySpecification {
            key_type: KeyType::P256,
            label: "ca".into(),
            id: vec![1],
        };
        let token: &mut dyn Token = &mut memory;
        let made: KeyDescription = token.ask(Operation::Generate(specification)).unwrap();
        let key = made.reference();
        (client, memory, key)
    }

    fn may_be_done(client: &TokenClient, key: &KeyReference, message: &[u8]) -> bool {
        let algorithm = SignatureAlgorithm::EcdsaSha256;
        let signed = block_on(client.sign_later(key, algorithm, message, SOON));
        signed.unwrap_err().may_be_done()
    }

    #[test]
    fn only_a_request_that_was_not_handed_over_is_surely_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = TokenClient::new("memory", folder.path().join("nowhere"));
        let (client, memory, key) = client(folder.path());
        assert!(!may_be_done(&nowhere, &key, b"no worker"));
        assert!(!may_be_done(&client, &key, &vec![0; FRAME_BYTES_MAX]));
        memory.fail_with(Some(TokenError::unavailable("memory", "a test")));
        assert!(may_be_done(&client, &key, b"refused by the token"));
    }

    #[test]
    fn a_key_is_proven_once_and_again_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let (client, memory, key) = client(folder.path());
        let ready = || block_on(client.ready_to_sign(&key, SOON));
        assert_eq!((ready(), ready()), (Ok(()), Ok(())));
        assert_eq!(memory.signatures(), 1);
        client.doubt(&key);
        let failure = TokenError::Key {
            token: "memory".into(),
            label: "ca".into(),
            reason: "a test".into(),
        };
        memory.fail_with(Some(failure.clone()));
        assert_eq!((ready(), ready()), (Err(failure.clone()), Err(failure)));
        memory.fail_with(None);
        std::thread::sleep(trust::PROOF_PAUSE);
        assert_eq!(ready(), Ok(()));
        assert_eq!(memory.signatures(), 2);
    }
}
