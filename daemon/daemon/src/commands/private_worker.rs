//! Runs a token worker for one command, on its own socket, beside the worker that `serve` may use.

use crate::config::Configuration;
use crate::socket_path;
use crate::token::client::TokenClient;
use crate::token::health::TokenState;
use crate::token::supervisor::{Supervisor, WorkerCommand};
use anyhow::{Context, bail};
use std::time::Duration;
use tempfile::TempDir;

/// Deadline for a token to become ready.
pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(15);

/// A worker that ends when this is dropped.
pub(crate) struct PrivateWorker {
    pub(crate) client: TokenClient,
    // Dropped in this order: the worker ends before its socket's folder goes.
    _supervisor: Supervisor,
    _folder: TempDir,
}

impl PrivateWorker {
    /// Starts a worker of the token `name` without waiting for the token.
    pub(crate) fn start(configuration: &Configuration, name: &str) -> anyhow::Result<Self> {
        let Some(token) = configuration.tokens.get(name) else {
            bail!("the configuration has no [[token]] named {name:?}");
        };
        let folder = tempfile::Builder::new().prefix("hallmark-").tempdir();
        let folder = folder.context("cannot make a folder for the worker's socket")?;
        let socket = folder.path().join("token.sock");
        socket_path::check(&socket, "the environment variable TMPDIR")?;
        let client = TokenClient::new(name, socket.clone());
        let command = WorkerCommand::new(token, &configuration.file, socket)?;
        Ok(Self {
            _supervisor: Supervisor::start(client.clone(), command),
            client,
            _folder: folder,
        })
    }

    /// Starts a worker, and waits until its token is ready.
    pub(crate) fn ready(configuration: &Configuration, name: &str) -> anyhow::Result<Self> {
        let worker = Self::start(configuration, name)?;
        let health = worker.client.wait_ready(READY_DEADLINE);
        match health.state {
            TokenState::Ready => Ok(worker),
            state => bail!("token {name} is {}: {}", state.name(), health.reason),
        }
    }
}
