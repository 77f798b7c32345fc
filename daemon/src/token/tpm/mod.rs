//! TPM 2.0, through tpm2-tss.
//!
//! A TPM keeps no keys of ours: below a primary key that it can derive again and again
//! ([`template`]) it makes each key, encrypts it for itself, and hands it out. The database holds it
//! as part of the key's reference, so a backup of the database is a backup of all keys, for this TPM
//! alone. Each key has an authorization value, derived from the credential ([`authorization`]).
//!
//! | module | what for |
//! |---|---|
//! | [`tcti`] | how the TPM is reached, as the configuration says it |
//! | `backend`, `identity` | connected, logged in to, and told apart from another or a cleared TPM |
//! | `device`, `leftovers` | the library's calls; the three object slots, and who may be in them |
//! | `primary` | the key above all others |
//! | `template`, `wrapped` | shapes of keys; a key as it is kept outside |
//! | `authorization`, `lockout` | authorization values, and the TPM's lockout |
//! | `fault` | response codes by what can be done about them |
//!
//! It must never create or persist anything but on the operations that say so, nor try an
//! authorization value twice that was refused. What needs a label on the token itself (secrets, keys
//! for client assertions) is refused.

mod authorization;
mod backend;
mod device;
mod fault;
mod identity;
mod leftovers;
mod lockout;
mod primary;
pub mod tcti;
mod template;
mod wrapped;

pub(crate) use backend::TpmBackend;

use super::credential::is_credential;
use super::inventory::Inventory;
use super::pin::PIN_FILE_BYTES_MAX;
use super::{KeyDescription, KeyReference, KeySpecification, Token, TokenDescription, TokenError};
use crate::x509::key::SignatureAlgorithm;
use authorization::CREDENTIAL_BYTES_MIN;
use backend::lock;
use device::{Device, FoundKey};
use fault::Fault;
use secrecy::SecretSlice;
use std::sync::{Arc, Mutex};
use tss_esapi::constants::PropertyTag;

/// The one session on a TPM.
struct TpmToken {
    name: String,
    device: Arc<Mutex<Device>>,
    description: TokenDescription,
}

impl TpmToken {
    fn generated(&self, specification: &KeySpecification) -> Result<KeyDescription, Fault> {
        if is_credential(&specification.label) {
            return Err(no_credentials());
        }
        if specification.id.is_empty() {
            return Err(Fault::refused("an empty id names no key"));
        }
        let (found, wrapped) = lock(&self.device).create(specification)?;
        Ok(described(found, wrapped))
    }
}

impl Token for TpmToken {
    fn describe(&mut self) -> Result<TokenDescription, TokenError> {
        match lock(&self.device).property(PropertyTag::Permanent) {
            Ok(_) => Ok(self.description.clone()),
            Err(fault) => Err(fault.into_error(&self.name, "describe", "")),
        }
    }

    fn inventory(&mut self) -> Result<Inventory, TokenError> {
        self.describe()?;
        let remark = "a TPM keeps no keys: those of its authorities are in the database, wrapped";
        Ok(Inventory {
            remarks: vec![remark.to_owned()],
            sessions_open: Some(1),
            sessions_max: Some(1),
            pin_bytes: (CREDENTIAL_BYTES_MIN as u64, PIN_FILE_BYTES_MAX),
            ..Inventory::default()
        })
    }

    fn find(&mut self, reference: &KeyReference) -> Result<KeyDescription, TokenError> {
        let found = lock(&self.device).find(reference);
        let wrapped = reference.wrapped.clone().unwrap_or_default();
        found
            .map(|found| described(found, wrapped))
            .map_err(|fault| fault.into_error(&self.name, "find", &reference.label))
    }

    fn find_by_id(&mut self, _: &[u8]) -> Result<Option<KeyDescription>, TokenError> {
        Ok(None)
    }

    fn generate(&mut self, specification: &KeySpecification) -> Result<KeyDescription, TokenError> {
        self.generated(specification)
            .map_err(|fault| fault.into_error(&self.name, "generate", &specification.label))
    }

    fn sign(
        &mut self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        lock(&self.device)
            .sign(key, algorithm, message)
            .map_err(|fault| fault.into_error(&self.name, "sign", &key.label))
    }

    /// Nothing of it is left in the TPM; it is gone when its reference is.
    fn destroy(&mut self, key: &KeyReference) -> Result<(), TokenError> {
        let mut device = lock(&self.device);
        let destroyed = device.find(key).and_then(|_| device.unload());
        destroyed.map_err(|fault| fault.into_error(&self.name, "destroy", &key.label))
    }

    fn sign_assertion(&mut self, key: &KeyReference, _: &[u8]) -> Result<Vec<u8>, TokenError> {
        Err(no_credentials().into_error(&self.name, "sign an assertion", &key.label))
    }

    fn import_secret(&mut self, label: &str, _: &SecretSlice<u8>) -> Result<(), TokenError> {
        Err(no_credentials().into_error(&self.name, "import a secret", label))
    }

    fn hmac_sha256(&mut self, label: &str, _: &[u8]) -> Result<Vec<u8>, TokenError> {
        Err(no_credentials().into_error(&self.name, "compute an HMAC", label))
    }

    fn destroy_secret(&mut self, label: &str) -> Result<(), TokenError> {
        Err(no_credentials().into_error(&self.name, "destroy a secret", label))
    }
}

fn no_credentials() -> Fault {
    Fault::refused(
        "a TPM holds keys that sign certificates only: keep credentials in a PKCS#11 token, or in a \
         file encrypted by systemd-creds",
    )
}

fn described(found: FoundKey, wrapped: Vec<u8>) -> KeyDescription {
    let FoundKey { key, label, id } = found;
    let is_fixed = key.is_fixed();
    KeyDescription {
        wrapped: Some(wrapped),
        label,
        id,
        // A private area leaves a TPM encrypted only, and a fixed one for nobody else.
        sensitive: is_fixed,
        extractable: !is_fixed,
        never_extractable: is_fixed,
        local: key.is_local(),
        spki: key.spki,
    }
}
