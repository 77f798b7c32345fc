//! Uses a TPM 2.0 as a token, through tpm2-tss.
//!
//! A TPM stores no keys of ours. It makes each key below a primary key that it can derive again and
//! again ([`template`]), encrypts the key for itself, and returns it. The database stores the key
//! as part of its reference, so a backup of the database is a backup of all keys, usable with this
//! TPM only. Each key has an authorization value, derived from the credential ([`authorization`]).
//!
//! | module | purpose |
//! |---|---|
//! | `backend`, `identity` | connect, log in, and refuse another or a cleared TPM |
//! | `device`, `leftovers` | call the library; manage the three object slots |
//! | `primary` | make or find the primary key |
//! | `template`, `wrapped` | templates of keys; a key's form outside the TPM |
//! | `authorization`, `lockout` | authorization values, and the TPM's lockout |
//! | `fault` | response codes by what can be done about them |
//!
//! This module must never create or persist an object except in the operations that say so, and
//! never try an authorization value again that was refused. It refuses operations that need a label
//! on the token itself (shared secrets, keys for client assertions).

mod authorization;
mod backend;
mod device;
mod fault;
mod identity;
mod leftovers;
mod lockout;
mod primary;
mod template;
mod wrapped;

pub(crate) use backend::TpmBackend;

use crate::pin::PIN_FILE_BYTES_MAX;
use authorization::CREDENTIAL_BYTES_MIN;
use backend::lock;
use device::{Device, FoundKey};
use fault::Fault;
use hallmark_pki::x509::key::SignatureAlgorithm;
use hallmark_protocol::credential::is_credential;
use hallmark_protocol::inventory::Inventory;
use hallmark_protocol::operation::{Answer, Operation, Token};
use hallmark_protocol::signature_use::SignatureUse;
use hallmark_protocol::{
    KeyDescription, KeyReference, KeySpecification, TokenDescription, TokenError,
};
use std::sync::{Arc, Mutex};
use tss_esapi::constants::PropertyTag;

/// The one session on a TPM.
struct TpmToken {
    name: String,
    device: Arc<Mutex<Device>>,
    description: TokenDescription,
}

impl TpmToken {
    fn answer(&mut self, operation: &Operation) -> Result<Answer, Fault> {
        match operation {
            Operation::Describe => self.describe().map(Answer::Token),
            Operation::Inventory => self.inventory().map(Answer::Inventory),
            Operation::Find(key) => self.find(key).map(Answer::Key),
            Operation::FindById(_) => Ok(Answer::Found(None)),
            Operation::Generate(specification) => self.generate(specification).map(Answer::Key),
            Operation::Sign {
                key,
                algorithm,
                message,
            } => self
                .sign(key, *algorithm, message, SignatureUse::Certificate)
                .map(Answer::Signature),
            Operation::SignAnswer {
                key,
                algorithm,
                answer,
            } => self
                .sign(key, *algorithm, answer, SignatureUse::Answer)
                .map(Answer::Signature),
            Operation::SignCheckpoint {
                key,
                algorithm,
                checkpoint,
            } => self
                .sign(key, *algorithm, checkpoint, SignatureUse::Checkpoint)
                .map(Answer::Signature),
            Operation::Prove(_) | Operation::CountSignatures => {
                Err(Fault::refused("the worker does it"))
            }
            Operation::Destroy(key) => self.destroy(key).map(Answer::Done),
            Operation::SignAssertion { .. }
            | Operation::Hmac { .. }
            | Operation::ImportSecret { .. }
            | Operation::DestroySecret(_) => Err(no_credentials()),
        }
    }

    /// The label is part of the key's authorization, so the TPM refuses an altered one.
    fn sign(
        &self,
        key: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature_use: SignatureUse,
    ) -> Result<Vec<u8>, Fault> {
        if let Some(objection) = signature_use.objection(&key.label, message) {
            return Err(Fault::key(objection));
        }
        lock(&self.device).sign(key, algorithm, message)
    }

    fn describe(&self) -> Result<TokenDescription, Fault> {
        lock(&self.device).property(PropertyTag::Permanent)?;
        Ok(self.description.clone())
    }

    fn inventory(&self) -> Result<Inventory, Fault> {
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

    fn find(&self, key: &KeyReference) -> Result<KeyDescription, Fault> {
        let found = lock(&self.device).find(key)?;
        Ok(described(found, key.wrapped.clone().unwrap_or_default()))
    }

    fn generate(&self, specification: &KeySpecification) -> Result<KeyDescription, Fault> {
        if is_credential(&specification.label) {
            return Err(no_credentials());
        }
        if specification.id.is_empty() {
            return Err(Fault::refused("an empty id names no key"));
        }
        let (found, wrapped) = lock(&self.device).create(specification)?;
        Ok(described(found, wrapped))
    }

    /// Takes the key out of the TPM; the key is gone when its reference is.
    fn destroy(&self, key: &KeyReference) -> Result<(), Fault> {
        let mut device = lock(&self.device);
        device.find(key)?;
        device.unload()
    }
}

impl Token for TpmToken {
    fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError> {
        self.answer(operation)
            .map_err(|fault| fault.into_error(&self.name, operation.name(), &operation.subject()))
    }
}

fn no_credentials() -> Fault {
    Fault::refused(
        "a TPM holds keys that sign certificates only: keep credentials in a PKCS#11 token, or \
         in a file encrypted by systemd-creds",
    )
}

fn described(found: FoundKey, wrapped: Vec<u8>) -> KeyDescription {
    let FoundKey { key, label, id } = found;
    let is_fixed = key.is_fixed();
    KeyDescription {
        wrapped: Some(wrapped),
        label,
        id,
        // A private area leaves a TPM only encrypted, and that of a fixed key only for this TPM.
        sensitive: is_fixed,
        extractable: !is_fixed,
        never_extractable: is_fixed,
        local: key.is_local(),
        spki: key.spki,
    }
}

#[cfg(test)]
mod tests {
    use hallmark_protocol::tcti::Tcti;
    use proptest::prelude::*;
    use std::str::FromStr;
    use tss_esapi::tcti_ldr::TctiNameConf;

    proptest! {
        /// A path to the TPM that the configuration accepts is one that the library accepts.
        #[test]
        fn the_library_takes_what_is_taken(
            kind in "(device|swtpm|tabrmd|x)?:?",
            rest in "([a-z0-9_=,./-]{0,24}|/dev/[a-z0-9]{1,8}|host=[a-z0-9.-]{1,9},\
                     port=[0-9]{1,5}|bus_type=(system|session))",
        ) {
            if let Ok(tcti) = format!("{kind}{rest}").parse::<Tcti>() {
                prop_assert!(TctiNameConf::from_str(&tcti.to_string()).is_ok());
            }
        }
    }
}
