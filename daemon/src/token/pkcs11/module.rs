//! The vendor's library in this process: loaded once, initialised and finalised in order.
//!
//! One [`Module`] per process. A second context on the same file would share its state, and
//! finalising one would kill the other's sessions. Every [`Session`] must be dropped before
//! [`Module::finalize`]: handles start again at 1 afterwards, and dropping an old session would close
//! a new one.

use super::fault::Fault;
use super::raw::{self, TokenInformation, TokenReader};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use std::ffi::CString;
use std::path::Path;

/// A loaded PKCS#11 module.
pub(crate) struct Module {
    /// Kept as long as the process lives: dropping the last clone would unload the library, which
    /// some vendors' threads do not survive.
    context: Pkcs11,
    reader: TokenReader,
    /// `pReserved` of `C_Initialize`.
    argument: Option<CString>,
    initialized: bool,
}

/// A slot, and the token that was in it when we looked.
pub(crate) struct FoundToken {
    pub(crate) slot: Slot,
    pub(crate) information: TokenInformation,
}

impl Module {
    /// Loads the library, which is to be initialised with `argument`. Does not talk to any token yet.
    pub(crate) fn load(path: &Path, argument: Option<CString>) -> Result<Self, Fault> {
        let context = Pkcs11::new(path)
            .map_err(|error| Fault::device(format!("cannot load {}: {error}", path.display())))?;
        Ok(Module {
            reader: TokenReader::new(path, &context)?,
            context,
            argument,
            initialized: false,
        })
    }

    /// `C_Initialize`, unless that was done.
    pub(crate) fn initialize(&mut self) -> Result<(), Fault> {
        if self.initialized {
            return Ok(());
        }
        match raw::initialize(&self.context, self.argument.as_deref()) {
            // Nobody else in this process could have: an earlier C_Finalize of ours has failed.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                self.initialized = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// `C_Finalize`. What it answers changes nothing: the next step is `C_Initialize` or the end.
    pub(crate) fn finalize(&mut self) {
        if std::mem::take(&mut self.initialized)
            && let Err(error) = self.context.clone().finalize()
        {
            tracing::warn!(?error, "C_Finalize failed");
        }
    }

    /// The one token with this label, and with this serial number where one is given.
    ///
    /// A slot whose token cannot be read is passed over: it is not ours, or it is as good as absent.
    pub(crate) fn find_token(
        &self,
        label: &str,
        serial: Option<&str>,
    ) -> Result<FoundToken, Fault> {
        let mut found = Vec::new();
        for slot in self.context.get_slots_with_token()? {
            match self.reader.information(slot) {
                Ok(information) if is_wanted(&information, label, serial) => {
                    found.push(FoundToken { slot, information });
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(?error, slot = slot.id(), "C_GetTokenInfo failed"),
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Fault::device(format!(
                "no slot holds a token labelled {label:?}"
            ))),
            count => Err(Fault::device(format!(
                "{count} tokens are labelled {label:?}: configure `serial`, one of {}",
                serials(&found)
            ))),
        }
    }

    /// The token in `slot`, as it is now.
    pub(crate) fn token_information(&self, slot: Slot) -> Result<TokenInformation, Fault> {
        Ok(self.reader.information(slot)?)
    }

    /// Asks slots for their tokens, for a session's own use.
    pub(crate) fn reader(&self) -> &TokenReader {
        &self.reader
    }

    /// A read-write session; the trait may be asked to generate or destroy on any of them.
    pub(crate) fn open_session(&self, slot: Slot) -> Result<Session, Fault> {
        Ok(self.context.open_rw_session(slot)?)
    }

    /// The library itself, for what is asked of it but once.
    pub(crate) fn context(&self) -> &Pkcs11 {
        &self.context
    }
}

fn is_wanted(information: &TokenInformation, label: &str, serial: Option<&str>) -> bool {
    information.is_initialized()
        && information.label == label
        && serial.is_none_or(|serial| information.serial == serial)
}

fn serials(found: &[FoundToken]) -> String {
    let serials: Vec<_> = found
        .iter()
        .map(|token| token.information.serial.as_str())
        .collect();
    serials.join(", ")
}

/// Without its padding, for which modules use blanks or, against the specification, NULs.
pub(crate) fn trimmed(field: &str) -> &str {
    field.trim_end_matches([' ', '\0'])
}
