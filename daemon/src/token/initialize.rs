//! Makes a new token through its PKCS#11 module: `hallmarkd init-token`.
//!
//! For software tokens and first starts; a factory's HSM is initialised with its vendor's tool.
//! PINs go by files, as `softhsm2-util --pin` would show them to everybody in the process list.
//! Never touches a token that is initialised and has its PIN.

use super::pin::read_pin;
use super::pkcs11::module::Module;
use anyhow::{Context, bail};
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use secrecy::SecretString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Digits of a PIN made here: as much as 8 bytes of entropy allow, and within every token's limits.
const PIN_DIGITS: usize = 16;

/// What to initialise, and with what.
#[derive(Clone, Debug)]
pub struct InitializeOptions {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// The user PIN; a file that does not exist is made, with a random PIN.
    pub pin_file: PathBuf,
    /// The security officer's PIN; a file that does not exist is made, with a random PIN.
    pub so_pin_file: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initialized {
    /// There is a new token, with this serial number.
    New(String),
    /// A token with this label and a PIN was there, with this serial number; nothing was done.
    AlreadyThere(String),
}

/// Initialises the first uninitialised token of the module, unless one has the label.
pub fn initialize(options: &InitializeOptions) -> anyhow::Result<Initialized> {
    let path = options.module.display();
    let failed = |fault: super::pkcs11::fault::Fault| anyhow::anyhow!("{path}: {}", fault.reason);
    let mut module = Module::load(&options.module, None).map_err(failed)?;
    module.initialize().map_err(failed)?;
    let outcome = match module.find_token(&options.label, None) {
        Ok(found) if found.information.has_pin() => {
            Ok(Initialized::AlreadyThere(found.information.serial))
        }
        // Somebody was stopped half-way; without his file no PIN of an SO is tried.
        Ok(found) => read_pin(&options.so_pin_file)
            .map_err(Into::into)
            .and_then(|so_pin| give_pin(&module, found.slot, &so_pin, options)),
        Err(_) => make(&module, options),
    };
    module.finalize();
    outcome
}

fn make(module: &Module, options: &InitializeOptions) -> anyhow::Result<Initialized> {
    let slot = uninitialized_slot(module)?;
    let so_pin = existing_or_new(&options.so_pin_file)?;
    let context = module.context();
    context
        .init_token(slot, &so_pin, &options.label)
        .context("C_InitToken")?;
    give_pin(module, slot, &so_pin, options)
}

fn give_pin(
    module: &Module,
    slot: Slot,
    so_pin: &SecretString,
    options: &InitializeOptions,
) -> anyhow::Result<Initialized> {
    let pin = existing_or_new(&options.pin_file)?;
    let context = module.context();
    let session = context.open_rw_session(slot).context("C_OpenSession")?;
    session
        .login(UserType::So, Some(so_pin))
        .context("C_Login as SO")?;
    session.init_pin(&pin).context("C_InitPIN")?;
    session.logout().context("C_Logout")?;
    session
        .login(UserType::User, Some(&pin))
        .context("C_Login with the new PIN")?;
    let information = module.reader().information(slot);
    Ok(Initialized::New(
        information.context("C_GetTokenInfo")?.serial,
    ))
}

fn uninitialized_slot(module: &Module) -> anyhow::Result<Slot> {
    let slots = module
        .context()
        .get_slots_with_token()
        .context("C_GetSlotList")?;
    let is_blank = |slot: &Slot| {
        let information = module.reader().information(*slot);
        information.is_ok_and(|token| !token.is_initialized())
    };
    match slots.into_iter().find(is_blank) {
        Some(slot) => Ok(slot),
        None => bail!("every token of this module is initialised already"),
    }
}

/// The PIN in `path`; a new one is written there, whole, if there is no such file.
fn existing_or_new(path: &Path) -> anyhow::Result<SecretString> {
    if !path.exists() {
        let failed = || format!("cannot write a new PIN to {}", path.display());
        let folder = path.parent().with_context(failed)?;
        // Nobody else may read it from the first moment on: mode 0600.
        let mut file = NamedTempFile::new_in(folder).with_context(failed)?;
        file.write_all(random_digits().as_bytes())
            .with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        match file.persist_noclobber(path) {
            Err(error) if error.error.kind() != ErrorKind::AlreadyExists => {
                return Err(error.error).with_context(failed);
            }
            _ => {}
        }
    }
    Ok(read_pin(path)?)
}

fn random_digits() -> zeroize::Zeroizing<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("aws-lc's generator has passed its self-test");
    let mut digits = u64::from_be_bytes(bytes).to_string();
    digits.truncate(PIN_DIGITS);
    zeroize::Zeroizing::new(format!("{digits:0>PIN_DIGITS$}\n"))
}
