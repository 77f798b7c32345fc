//! Starts and stops the module of one token, and logs in.
//!
//! A token is found by label and serial number, never by slot number, which may change with a
//! reboot. Nothing is retried here; `worker::recovery` decides what to do about a failure.

use super::Pkcs11Token;
use super::environment;
use super::fault::Fault;
use super::key;
use super::mechanism::Mechanisms;
use super::module::{Module, trimmed};
use super::raw::TokenInformation;
use super::remarks::Remarks;
use super::signature_login::SignatureLogin;
use crate::backend::{Backend, PinLengths, PinTries, RefusedPin, TokenIdentity};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use hallmark_base::fragment::Fragment;
use hallmark_protocol::configuration::TokenSettings;
use hallmark_protocol::operation::Token;
use hallmark_protocol::{TokenDescription, TokenError};
use secrecy::SecretString;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// How often keys with a remark are checked again.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Longest PIN of a token that is believed.
const PIN_BYTES_MAX: u64 = 1024;

/// The module of one token, from load to finalize.
pub(crate) struct Pkcs11Backend {
    settings: TokenSettings,
    fragment: Fragment,
    module: Option<Module>,
    present: Option<Present>,
}

/// The token while the module is initialized.
struct Present {
    slot: Slot,
    identity: TokenIdentity,
    mechanisms: Mechanisms,
    description: TokenDescription,
    /// Kept open while the token is used: closing an application's last session logs it out.
    login_session: Session,
    /// Counts deleted keys, so that every session drops its cached handles.
    destroyed: Arc<AtomicU64>,
    /// See [`Pkcs11Token`]; one for all sessions.
    changes: Option<Arc<RwLock<()>>>,
    remarks: Remarks,
    /// The PIN for keys that need a login for each signature; one for all sessions.
    signature_login: SignatureLogin,
}

impl Pkcs11Backend {
    /// Makes a backend. It does not load the module yet.
    pub(crate) fn new(settings: TokenSettings, fragment: Fragment) -> Self {
        Pkcs11Backend {
            settings,
            fragment,
            module: None,
            present: None,
        }
    }

    fn error(&self, operation: &str) -> impl Fn(Fault) -> TokenError {
        let token = self.settings.name.clone();
        let operation = operation.to_owned();
        move |fault| fault.into_error(&token, &operation, "")
    }

    fn loaded(&mut self) -> Result<&mut Module, Fault> {
        if self.module.is_none() {
            let path = self.fragment.module().ok_or_else(|| {
                Fault::device(format!("none of {:?} exists", self.fragment.modules))
            })?;
            let argument = self.settings.initialize_argument.clone();
            self.module = Some(Module::load(path, argument)?);
        }
        Ok(self.module.as_mut().expect("loaded by the lines above"))
    }

    fn bring_up(&mut self) -> Result<Present, Fault> {
        let label = self.settings.label.clone();
        let serial = self.settings.serial.clone();
        let avoid = self.fragment.avoid_mechanisms.clone();
        let changes = self.fragment.changes_alone.then(Arc::default);
        let fragment = self.fragment.clone();
        let module = self.loaded()?;
        let found = module
            .initialize()
            .and_then(|()| module.find_token(&label, serial.as_deref()))
            .map_err(|fault| environment::explained(fault, &fragment, module.path()))?;
        let mechanisms = Mechanisms::new(module.context().get_mechanism_list(found.slot)?, &avoid);
        Ok(Present {
            slot: found.slot,
            identity: identity(&found.information),
            description: description(module.context(), &found.information, &mechanisms),
            mechanisms,
            login_session: module.open_session(found.slot)?.session,
            destroyed: Arc::default(),
            changes,
            remarks: Remarks::default(),
            signature_login: SignatureLogin::default(),
        })
    }

    fn present(&self) -> Result<(&Module, &Present), Fault> {
        match (&self.module, &self.present) {
            (Some(module), Some(present)) => Ok((module, present)),
            _ => Err(Fault::device("the module is not initialised")),
        }
    }

    fn tries(&self) -> Result<PinTries, Fault> {
        let (module, present) = self.present()?;
        let information = module.token_information(present.slot)?;
        Ok(if information.pin_locked() {
            PinTries::Locked
        } else if information.pin_final_try() {
            PinTries::Last
        } else {
            PinTries::Enough
        })
    }
}

impl Backend for Pkcs11Backend {
    fn start(&mut self) -> Result<TokenIdentity, TokenError> {
        self.stop();
        let present = self.bring_up().map_err(self.error("initialize"))?;
        let identity = present.identity.clone();
        self.present = Some(present);
        Ok(identity)
    }

    fn pin_tries(&mut self) -> Result<PinTries, TokenError> {
        self.tries().map_err(self.error("read its state"))
    }

    /// A family whose PIN has a form of its own, such as a name with a password, may count only a
    /// part of it.
    fn pin_lengths(&mut self) -> Result<Option<PinLengths>, TokenError> {
        if !self.fragment.pin_form.is_empty() {
            return Ok(None);
        }
        let read = || {
            let (module, present) = self.present()?;
            Ok(module.token_information(present.slot)?.pin_bytes)
        };
        let (least, most) = read().map_err(self.error("read its state"))?;
        // Some modules leave the fields zero, or set them to "unknown".
        let is_stated = (1..=PIN_BYTES_MAX).contains(&most) && least <= most;
        Ok(is_stated.then_some(PinLengths { least, most }))
    }

    fn log_in(&mut self, pin: &SecretString) -> Result<(), TokenError> {
        let log_in = || {
            let present = self.present()?.1;
            let login_session = &present.login_session;
            match login_session.login(UserType::User, Some(pin)) {
                Ok(()) => {}
                // A login is that of the process and not of a session, and may be left from before
                // if `C_Logout` failed. The login of an SO would find no key.
                Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) if is_user(login_session)? => {}
                Err(error) => return Err(Fault::from(error)),
            }
            present.signature_login.keep(pin);
            Ok(())
        };
        log_in().map_err(self.error("log in"))
    }

    fn take_refused(&mut self) -> Option<RefusedPin> {
        self.present.as_ref()?.signature_login.take_refused()
    }

    fn log_out(&mut self) {
        if let Some(present) = &self.present
            && let Err(error) = present.login_session.logout()
        {
            // The login that follows reports a token that is gone, with the level of recovery.
            tracing::debug!(?error, "C_Logout failed");
        }
    }

    fn open(&mut self) -> Result<Box<dyn Token>, TokenError> {
        let open = || {
            let (module, present) = self.present()?;
            let opened = module.open_session(present.slot)?;
            Ok(Pkcs11Token {
                name: self.settings.name.clone(),
                slot: present.slot,
                serial: present.identity.serial.clone(),
                context: module.context().clone(),
                reader: module.reader().clone(),
                session: opened.session,
                is_read_only: opened.is_read_only,
                signature_login: present.signature_login.clone(),
                mechanisms: present.mechanisms.clone(),
                takes_purposes: self.fragment.takes_purposes,
                description: present.description.clone(),
                handles: HashMap::new(),
                secrets: HashMap::new(),
                destroyed_seen: present.destroyed.load(Ordering::Acquire),
                destroyed: Arc::clone(&present.destroyed),
                changes: present.changes.clone(),
                remarks: present.remarks.clone(),
            })
        };
        let token: Pkcs11Token = open().map_err(self.error("open a session"))?;
        Ok(Box::new(token))
    }

    /// Returns an interval only while there is a remark, so that the remark ends with its cause.
    fn check_interval(&self) -> Option<Duration> {
        self.key_remark().map(|_| CHECK_INTERVAL)
    }

    fn remark(&mut self) -> Result<Option<String>, TokenError> {
        let again = || {
            let present = self.present()?.1;
            for reference in present.remarks.references() {
                let remark = key::remark(&present.login_session, &reference)?;
                present.remarks.note(&reference, remark);
            }
            Ok(present.remarks.joined())
        };
        again().map_err(self.error("check its keys"))
    }

    fn key_remark(&self) -> Option<String> {
        self.present.as_ref()?.remarks.joined()
    }

    fn stop(&mut self) {
        self.present = None;
        if let Some(module) = &mut self.module {
            module.finalize();
        }
    }
}

fn identity(information: &TokenInformation) -> TokenIdentity {
    TokenIdentity {
        label: information.label.clone(),
        serial: information.serial.clone(),
    }
}

fn description(
    context: &Pkcs11,
    information: &TokenInformation,
    mechanisms: &Mechanisms,
) -> TokenDescription {
    let interface = context.get_library_info().map(|library| {
        let description = trimmed(library.library_description()).to_owned();
        format!("{description} {} (PKCS#11)", library.library_version())
    });
    TokenDescription {
        label: information.label.clone(),
        serial: information.serial.clone(),
        manufacturer: information.manufacturer.clone(),
        model: information.model.clone(),
        firmware: information.firmware.clone(),
        interface: interface.unwrap_or_else(|_| "PKCS#11".to_owned()),
        mechanisms: mechanisms.names(),
    }
}

/// Returns true if the session can read the user's objects.
pub(super) fn is_user(session: &Session) -> Result<bool, Fault> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}
