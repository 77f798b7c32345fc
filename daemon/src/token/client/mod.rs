//! Asking a token worker: the side of `serve`.
//!
//! Callable from many threads at once: requests of all of them are in flight together on one
//! connection. A signature is a future, because many are waited for; the rest is asked for rarely and
//! blocks. It loads no PKCS#11 library and knows no PIN. When the worker goes
//! away everything pending is answered [`Unavailable`](TokenError::Unavailable), and the client
//! connects again by itself as soon as there is a worker.

mod connection;
mod credential;
mod keeper;

use super::inventory::Inventory;
use super::protocol::{Answer, Operation};
use super::worker::health::{RungCounters, TokenState};
use super::{
    KeyDescription, KeyReference, KeySpecification, Token, TokenDescription, TokenError, proof,
};
use crate::store::Recorded;
use crate::x509::key::SignatureAlgorithm;
use keeper::{Keeper, OnHang};
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
    keeper: Arc<Keeper>,
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
    pub rungs: RungCounters,
}

impl TokenClient {
    /// A client of the token `name`, whose worker listens on `socket`, now or some day.
    pub fn new(name: &str, socket: PathBuf) -> Self {
        TokenClient {
            keeper: Arc::new(Keeper::start(name, socket)),
        }
    }

    /// The token's name in the configuration.
    pub fn name(&self) -> &str {
        self.keeper.name()
    }

    /// Whether both are handles on one connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keeper, &other.keeper)
    }

    /// How the token is, as last heard; asks nobody.
    pub fn health(&self) -> TokenHealth {
        self.keeper.health()
    }

    /// For how long the token has not been ready; `None` if it is.
    pub fn out_for(&self) -> Option<Duration> {
        self.keeper.out_for()
    }

    /// Waits until the token is ready, or parked, which no waiting changes; gives its health then,
    /// or when time is up.
    pub fn wait_ready(&self, deadline: Duration) -> TokenHealth {
        self.keeper.wait_ready(Instant::now() + deadline)
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

    /// [`Token::sign`], over what the store has on record and nothing else: only the store can make
    /// a [`Recorded`].
    pub async fn sign_recorded(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        recorded: &Recorded,
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        self.sign_later(key, algorithm, recorded.tbs(), deadline)
            .await
    }

    /// [`Token::sign`], for the tests that prove a key. Not for anybody else.
    pub(super) fn sign(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        pollster::block_on(self.sign_later(key, algorithm, message, deadline))
    }

    async fn sign_later(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        let operation = Operation::Sign {
            key: key.clone(),
            algorithm,
            message: message.to_vec(),
        };
        let connection = self.keeper.connection()?;
        match connection
            .call(operation, deadline.min(DEADLINE_MAX))
            .await?
        {
            Answer::Signature(signature) => Ok(signature),
            _ => Err(self.nonsense()),
        }
    }

    /// Has `key` make a test signature, which can never be one over a certificate, and verifies it.
    pub fn prove(&self, key: &KeyDescription, deadline: Duration) -> Result<(), TokenError> {
        proof::prove(self.name(), key, |key, algorithm, message| {
            self.sign(key, algorithm, message, deadline)
        })
    }

    /// Has `on_hang` called, with the operation, when the worker shows that it hangs: a request is
    /// unanswered well beyond its deadline, or the worker does not greet or read. Nobody else's any
    /// more; `None` for nobody.
    pub(super) fn tell_hang_to(&self, on_hang: Option<OnHang>) {
        self.keeper.tell_hang_to(on_hang);
    }

    /// Connects from now on to this process only: the worker that was started.
    pub(super) fn trust(&self, worker: Pid) {
        self.keeper.trust(worker);
    }

    /// Has `on_turn` called whenever the token gets into another state; it MUST NOT ask for the health.
    /// Who is named first stays.
    pub fn tell_turns_to(&self, on_turn: impl Fn() + Send + Sync + 'static) {
        self.keeper.tell_turns_to(Box::new(on_turn));
    }

    /// Counts a restart of the worker, with its cause.
    pub(super) fn note_restart(&self, reason: &str) {
        self.keeper.note_restart(reason);
    }

    fn call(&self, operation: Operation, deadline: Duration) -> Result<Answer, TokenError> {
        let connection = self.keeper.connection()?;
        pollster::block_on(connection.call(operation, deadline.min(DEADLINE_MAX)))
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
