//! Loads the vendor's library once, and initializes and finalizes it in order.
//!
//! There must be one [`Module`] per process. A second context on the same file would share its
//! state, and finalizing one would close the sessions of the other. Every [`Session`] must be
//! dropped before [`Module::finalize`]: handles start again at 1 afterwards, and dropping an old
//! session would close a new one.

use super::fault::Fault;
use super::raw::{self, TokenInformation, TokenReader};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// A loaded PKCS#11 module.
pub(crate) struct Module {
    /// Kept until the process ends: dropping the last clone would unload the library under threads
    /// of the vendor.
    context: Pkcs11,
    path: PathBuf,
    reader: TokenReader,
    argument: Option<CString>,
    initialized: bool,
}

/// A slot, and the token that was found in it.
pub(crate) struct FoundToken {
    pub(crate) slot: Slot,
    pub(crate) information: TokenInformation,
}

/// A session, and whether objects of the token can be changed on it.
pub(crate) struct OpenSession {
    pub(crate) session: Session,
    pub(crate) is_read_only: bool,
}

impl Module {
    /// Loads the library, to be initialized with `argument` later. Calls no token.
    pub(crate) fn load(path: &Path, argument: Option<CString>) -> Result<Self, Fault> {
        let context = Pkcs11::new(path)
            .map_err(|error| Fault::device(format!("cannot load {}: {error}", path.display())))?;
        Ok(Module {
            reader: TokenReader::new(path, &context)?,
            context,
            path: path.to_owned(),
            argument,
            initialized: false,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `C_Initialize` unless the module is initialized.
    pub(crate) fn initialize(&mut self) -> Result<(), Fault> {
        if self.initialized {
            return Ok(());
        }
        match raw::initialize(&self.context, self.argument.as_deref()) {
            // An earlier C_Finalize of ours has failed; no other code in this process initializes
            // it.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                self.initialized = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Calls `C_Finalize`. Its failure is only logged: the next step is `C_Initialize` or the end
    /// of the process in any case.
    pub(crate) fn finalize(&mut self) {
        if std::mem::take(&mut self.initialized)
            && let Err(error) = self.context.clone().finalize()
        {
            tracing::warn!(?error, "C_Finalize failed");
        }
    }

    /// Finds the one token with this label and, if one is given, this serial number.
    ///
    /// Skips a slot whose token cannot be read: that token is not ours, or counts as absent.
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
                "no slot holds a token labelled {label:?}: insert the token, or correct `label`"
            ))),
            count => Err(Fault::device(format!(
                "{count} tokens are labelled {label:?}: configure `serial`, one of {}",
                serials(&found)
            ))),
        }
    }

    /// Reads the current information about the token in `slot`.
    pub(crate) fn token_information(&self, slot: Slot) -> Result<TokenInformation, Fault> {
        Ok(self.reader.information(slot)?)
    }

    /// Returns the reader of token information, for a session's own use.
    pub(crate) fn reader(&self) -> &TokenReader {
        &self.reader
    }

    /// Opens a read-write session, because a key may be made or deleted on any session; on a
    /// write-protected token a read-only one, on which its keys sign.
    pub(crate) fn open_session(&self, slot: Slot) -> Result<OpenSession, Fault> {
        open_session(&self.context, &self.reader, slot)
    }

    /// Returns the library itself, for calls that only one caller needs.
    pub(crate) fn context(&self) -> &Pkcs11 {
        &self.context
    }
}

/// Opens a session as [`Module::open_session`] does.
pub(super) fn open_session(
    context: &Pkcs11,
    reader: &TokenReader,
    slot: Slot,
) -> Result<OpenSession, Fault> {
    let read_only = |session| OpenSession {
        session,
        is_read_only: true,
    };
    if reader.information(slot)?.is_write_protected() {
        return Ok(read_only(context.open_ro_session(slot)?));
    }
    match context.open_rw_session(slot) {
        // Not every token sets CKF_WRITE_PROTECTED.
        Err(Error::Pkcs11(RvError::TokenWriteProtected | RvError::SessionReadOnly, _)) => {
            Ok(read_only(context.open_ro_session(slot)?))
        }
        opened => Ok(OpenSession {
            session: opened?,
            is_read_only: false,
        }),
    }
}

fn is_wanted(information: &TokenInformation, label: &str, serial: Option<&str>) -> bool {
    information.is_initialized()
        && information.label == trimmed(label)
        && serial.is_none_or(|serial| information.serial == trimmed(serial))
}

fn serials(found: &[FoundToken]) -> String {
    let serials: Vec<_> = found
        .iter()
        .map(|token| token.information.serial.as_str())
        .collect();
    serials.join(", ")
}

/// Returns a field without its padding: blanks, or, contrary to the specification, NULs.
pub(crate) fn trimmed(field: &str) -> &str {
    field.trim_end_matches([' ', '\0'])
}
