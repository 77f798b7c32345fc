//! Runs a worker in this process with a token in memory, for unit tests of the token's users. Its
//! threads end with the test.

use super::connection::{self, RequestDispatcher};
use super::login::TokenLogin;
use super::queue::Queue;
use super::recovery::Recovery;
use super::watchdog::Watchdog;
use super::{QUEUE_JOBS_MAX, prober, signer_threads, spawn};
use crate::backend::{Backend, PinTries, TokenIdentity};
use crate::memory::MemoryToken;
use crate::wall::Wall;
use hallmark_protocol::TokenError;
use hallmark_protocol::operation::Token;
use secrecy::SecretString;
use std::path::Path;
use std::sync::{Arc, mpsc};

struct InMemory(String, MemoryToken);

impl Backend for InMemory {
    fn start(&mut self) -> Result<TokenIdentity, TokenError> {
        Ok(TokenIdentity {
            label: self.0.clone(),
            serial: "1".into(),
        })
    }

    fn pin_tries(&mut self) -> Result<PinTries, TokenError> {
        Ok(PinTries::Enough)
    }

    fn log_in(&mut self, _: &SecretString) -> Result<(), TokenError> {
        Ok(())
    }

    fn log_out(&mut self) {}

    fn open(&mut self) -> Result<Box<dyn Token>, TokenError> {
        Ok(Box::new(self.1.clone()))
    }

    fn stop(&mut self) {}
}

/// Serves `memory` as the token `name` on `socket`.
pub fn serve(name: &str, memory: MemoryToken, socket: &Path) {
    let login = TokenLogin::new(name, Box::new(InMemory(name.to_owned(), memory)), None);
    let watchdog = Arc::new(Watchdog::new(2));
    let wall = Arc::new(Wall::in_memory(name));
    let recovery = Recovery::new(name, 1, login, Arc::clone(&watchdog), wall);
    let recovery = Arc::new(recovery);
    let queue = Arc::new(Queue::new(QUEUE_JOBS_MAX));
    let socket = connection::Socket::open(socket).expect("a socket in the test's folder");
    prober(&recovery, &watchdog, mpsc::channel().0);
    signer_threads(name, 1, &queue, &recovery);
    let dispatcher = RequestDispatcher {
        token: name.to_owned(),
        queue,
        recovery,
    };
    spawn("token-accept", move || {
        connection::accept(&socket, &dispatcher)
    });
}
