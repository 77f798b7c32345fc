//! The proof of a key, made before something is done in its name.
//!
//! A ceremony, a staging, a cut-over and a finished roll say that an authority can sign. That is
//! only true if its key has just made a test signature that verifies with the public key on record:
//! half a key pair is detected only when it has to sign.

use super::Issuer;
use crate::ca::Error;
use crate::ca::hierarchy::Generation;
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::{KeyDescription, KeyReference};

impl Issuer {
    /// Finds the key on its token, and has it sign a test message.
    pub(in crate::ca) fn prove_key(
        &self,
        token: &str,
        key: &KeyReference,
    ) -> Result<KeyDescription, Error> {
        let client = &self.token(token)?.client;
        let key = client.find(key, LOOKUP_DEADLINE)?;
        client.prove(&key, LOOKUP_DEADLINE)?;
        Ok(key)
    }

    /// The same for the key of a generation.
    pub(in crate::ca) fn prove_generation(
        &self,
        generation: &Generation,
    ) -> Result<KeyDescription, Error> {
        self.prove_key(&generation.token, &generation.key)
    }
}
