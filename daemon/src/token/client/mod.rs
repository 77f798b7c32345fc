//! Asking a token worker: the side of `serve`.
//!
//! Callable from many threads at once: requests of all of them are in flight together on one
//! connection. A signature is a future, because many are waited for; the rest is asked for rarely and
//! blocks. It loads no PKCS#11 library and knows no PIN. When the worker goes
//! away everything pending is answered [`Unavailable`](TokenError::Unavailable), and the client
//! connects again by itself as soon as there is a worker.

mod connection;
mod connection_manager;
mod credential;
mod trust;

use super::inventory::Inventory;
use super::protocol::{Answer, Operation};
use super::worker::health::{KeyReport, RecoveryCounters, TokenState};
use super::{
    CallFailure, KeyDescription, KeyReference, KeySpecification, Token, TokenDescription,
    TokenError,
};
use crate::store::Recorded;
use crate::x509::key::SignatureAlgorithm;
use connection_manager::{ConnectionManager, OnHang};
use rustix::process::Pid;
use secrecy::SecretSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Longest deadline of one request.
pub const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// How long a lookup or a description may take.
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(10);

/// How long making a key may take: RSA-4096 on a small device needs minutes.
pub const GENERATE_DEADLINE: Duration = Duration::from_secs(300);

/// A handle on one token's worker. Clones share the connection; the last one closes it.
#[derive(Clone)]
pub struct TokenClient {
    manager: Arc<ConnectionManager>,
}

/// How a token is, seen from `serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHealth {
    /// The state.
    pub state: TokenState,
    /// Why, for the operator; empty when there is nothing to say.
    pub reason: String,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// Since when it is not ready, whatever it has been meanwhile.
    pub out_since: Option<Instant>,
    /// How often the worker was started again.
    pub restarts: u64,
    /// What the worker's ladder has done.
    pub recoveries: RecoveryCounters,
    /// The keys that the worker has used, and what for.
    pub keys: Vec<KeyReport>,
}

/// What one worker has counted of its keys since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCounts {
    /// Which worker; each process has another number.
    pub worker: [u8; 8],
    /// The counts.
    pub keys: Vec<KeyReport>,
}

impl TokenClient {
    /// A client of the token `name`, whose worker listens on `socket`, now or some day.
    pub fn new(name: &str, socket: PathBuf) -> Self {
        TokenClient {
            manager: Arc::new(ConnectionManager::start(name, socket)),
        }
    }

    /// The token's name in the configuration.
    pub fn name(&self) -> &str {
        self.manager.name()
    }

    /// Whether both are handles on one connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.manager, &other.manager)
    }

    /// How the token is, as last heard; asks nobody.
    pub fn health(&self) -> TokenHealth {
        self.manager.health()
    }

    /// For how long the token has not been ready; `None` if it is.
    pub fn out_for(&self) -> Option<Duration> {
        self.manager.out_for()
    }

    /// Waits until the token is ready, or parked, which no waiting changes; gives its health then,
    /// or when time is up.
    pub fn wait_ready(&self, deadline: Duration) -> TokenHealth {
        self.manager.wait_ready(Instant::now() + deadline)
    }

    /// [`Token::describe`].
    pub fn describe(&self, deadline: Duration) -> Result<TokenDescription, TokenError> {
        match self.call(Operation::Describe, deadline)? {
            Answer::Token(description) => Ok(description),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::inventory`].
    pub fn inventory(&self, deadline: Duration) -> Result<Inventory, TokenError> {
        match self.call(Operation::Inventory, deadline)? {
            Answer::Inventory(inventory) => Ok(inventory),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::find`].
    pub fn find(
        &self,
        reference: &KeyReference,
        deadline: Duration,
    ) -> Result<KeyDescription, TokenError> {
        match self.call(Operation::Find(reference.clone()), deadline)? {
            Answer::Key(description) => Ok(description),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::find_by_id`].
    pub fn find_by_id(
        &self,
        id: &[u8],
        deadline: Duration,
    ) -> Result<Option<KeyDescription>, TokenError> {
        match self.call(Operation::FindById(id.to_vec()), deadline)? {
            Answer::Key(description) => Ok(Some(description)),
            Answer::NoKey => Ok(None),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::generate`].
    pub fn generate(
        &self,
        specification: &KeySpecification,
        deadline: Duration,
    ) -> Result<KeyDescription, TokenError> {
        match self.call(Operation::Generate(specification.clone()), deadline)? {
            Answer::Key(description) => Ok(description),
            _ => Err(self.nonsense()),
        }
    }

    /// [`Token::destroy`].
    pub fn destroy(&self, key: &KeyReference, deadline: Duration) -> Result<(), TokenError> {
        match self.call(Operation::Destroy(key.clone()), deadline)? {
            Answer::Destroyed => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    /// Ready if the token can sign with exactly this key now, as far as is known here. To be called
    /// before anything is recorded that is to be signed: what is refused here was asked of no token.
    ///
    /// The token's state and that of its keys are those last heard, so this asks nothing, but for a
    /// key that has not shown yet that it signs, or whose last signature failed: such a key makes a
    /// test signature first.
    pub async fn ready_to_sign(
        &self,
        key: &KeyReference,
        deadline: Duration,
    ) -> Result<(), TokenError> {
        self.manager.is_ready()?;
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
        self.manager.proven_keys().shown(key, ask).await
    }

    /// Whether this key has shown on the present connection that it signs, and nothing failed since.
    /// Asks nothing.
    pub fn is_proven(&self, key: &KeyReference) -> bool {
        self.manager.proven_keys().is_proven(key)
    }

    /// A signature of this key failed or was wrong: it has to show that it signs before the next.
    pub fn doubt(&self, key: &KeyReference) {
        self.manager.proven_keys().doubt(key);
    }

    /// A signature of this key was good: its failures before count no more.
    pub fn confirm(&self, key: &KeyReference) {
        self.manager.proven_keys().confirm(key);
    }

    /// [`Token::sign`], over what the store has on record and nothing else: only the store can make
    /// a [`Recorded`].
    pub async fn sign_recorded(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        recorded: &Recorded,
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

    /// [`Token::sign`], for the contract and the bench, whose keys are thrown away afterwards.
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
        let operation = Operation::Sign {
            key: key.clone(),
            algorithm,
            message: message.to_vec(),
        };
        let connection = self.manager.connection().map_err(CallFailure::unsent)?;
        match connection
            .call(operation, deadline.min(DEADLINE_MAX))
            .await?
        {
            Answer::Signature(signature) => Ok(signature),
            _ => Err(CallFailure::sent(self.nonsense())),
        }
    }

    /// Has `key` make a test signature, which can never be one over a certificate. The worker
    /// verifies and counts it.
    pub fn prove(&self, key: &KeyDescription, deadline: Duration) -> Result<(), TokenError> {
        match self.call(Operation::Prove(key.reference()), deadline)? {
            Answer::Key(proven) if proven.spki == key.spki => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    /// Has `on_hang` called, with the operation, when the worker shows that it hangs: a request is
    /// unanswered well beyond its deadline, or the worker does not greet or read. Nobody else's any
    /// more; `None` for nobody.
    pub(super) fn on_hang(&self, on_hang: Option<OnHang>) {
        self.manager.on_hang(on_hang);
    }

    /// Connects from now on to this process only: the worker that was started.
    pub(super) fn trust(&self, worker: Pid) {
        self.manager.trust(worker);
    }

    /// Calls `on_change` whenever the token changes its state; `on_change` MUST NOT ask for the
    /// health. Only the first callback is kept.
    pub fn on_state_change(&self, on_change: impl Fn() + Send + Sync + 'static) {
        self.manager.on_state_change(Box::new(on_change));
    }

    /// What workers have counted: those that have ended and were not forgotten, and then the present
    /// one.
    pub fn key_counts(&self) -> Vec<KeyCounts> {
        self.manager.key_counts()
    }

    /// The counts of this worker are on record; if it has ended, they are not told any more.
    pub fn forget_key_counts(&self, worker: [u8; 8]) {
        self.manager.forget_key_counts(worker);
    }

    /// Calls `on_change` whenever the worker reports a change of its keys; `on_change` MUST NOT ask
    /// for the health. Only the first callback is kept.
    pub fn on_keys_change(&self, on_change: impl Fn() + Send + Sync + 'static) {
        self.manager.on_keys_change(Box::new(on_change));
    }

    /// Counts a restart of the worker, with its cause.
    pub(super) fn note_restart(&self, reason: &str) {
        self.manager.note_restart(reason);
    }

    fn call(&self, operation: Operation, deadline: Duration) -> Result<Answer, TokenError> {
        let connection = self.manager.connection()?;
        let called = connection.call(operation, deadline.min(DEADLINE_MAX));
        Ok(pollster::block_on(called)?)
    }

    fn nonsense(&self) -> TokenError {
        TokenError::unavailable(self.name(), "the worker answered something else")
    }
}

/// A client as one more backend for the contract.
pub(super) struct ClientToken<'a>(pub(super) &'a TokenClient);

impl Token for ClientToken<'_> {
    fn describe(&mut self) -> Result<TokenDescription, TokenError> {
        self.0.describe(LOOKUP_DEADLINE)
    }

    fn find(&mut self, reference: &KeyReference) -> Result<KeyDescription, TokenError> {
        self.0.find(reference, LOOKUP_DEADLINE)
    }

    fn find_by_id(&mut self, id: &[u8]) -> Result<Option<KeyDescription>, TokenError> {
        self.0.find_by_id(id, LOOKUP_DEADLINE)
    }

    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, TokenError> {
        self.0.generate(specification, GENERATE_DEADLINE)
    }

    fn sign(
        &mut self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        self.0.sign(key, algorithm, message, LOOKUP_DEADLINE)
    }

    fn destroy(&mut self, key: &KeyReference) -> Result<(), TokenError> {
        self.0.destroy(key, LOOKUP_DEADLINE)
    }

    fn sign_assertion(&mut self, key: &KeyReference, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.0.sign_assertion(key, input, LOOKUP_DEADLINE)
    }

    fn import_secret(&mut self, label: &str, secret: &SecretSlice<u8>) -> Result<(), TokenError> {
        self.0.import_secret(label, secret, LOOKUP_DEADLINE)
    }

    fn hmac_sha256(&mut self, label: &str, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.0.hmac_sha256(label, message, LOOKUP_DEADLINE)
    }

    fn destroy_secret(&mut self, label: &str) -> Result<(), TokenError> {
        self.0.destroy_secret(label, LOOKUP_DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::memory::MemoryToken;
    use crate::token::protocol::FRAME_BYTES_MAX;
    use crate::token::worker::in_memory;
    use crate::x509::key::KeyType;
    use pollster::block_on;

    const SOON: Duration = Duration::from_secs(30);

    /// A client of a token in memory, and a key on that.
    fn client(folder: &std::path::Path) -> (TokenClient, MemoryToken, KeyReference) {
        let (socket, mut memory) = (folder.join("socket"), MemoryToken::new("memory"));
        in_memory::serve("memory", memory.clone(), &socket);
        let client = TokenClient::new("memory", socket);
        assert_eq!(client.wait_ready(SOON).state, TokenState::Ready);
        let specification = KeySpecification {
            key_type: KeyType::P256,
            label: "ca".into(),
            id: vec![1],
        };
        let key = memory.generate(&specification).unwrap().reference();
        (client, memory, key)
    }

    fn may_be_done(client: &TokenClient, key: &KeyReference, message: &[u8]) -> bool {
        let algorithm = SignatureAlgorithm::EcdsaSha256;
        let signed = block_on(client.sign_later(key, algorithm, message, SOON));
        signed.unwrap_err().may_be_done()
    }

    #[test]
    fn what_was_not_handed_over_cannot_be_done_and_all_else_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = TokenClient::new("memory", folder.path().join("nowhere"));
        let (client, memory, key) = client(folder.path());
        assert!(!may_be_done(&nowhere, &key, b"no worker"));
        assert!(!may_be_done(&client, &key, &vec![0; FRAME_BYTES_MAX]));
        memory.fail_with(Some(TokenError::unavailable("memory", "a test")));
        assert!(may_be_done(&client, &key, b"refused by the token"));
    }

    #[test]
    fn a_key_shows_once_that_it_signs_and_again_after_a_failure() {
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
