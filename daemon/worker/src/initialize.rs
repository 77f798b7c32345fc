//! Makes a new token through its PKCS#11 module: `hallmark-token init-token`.
//!
//! It serves software tokens and first starts; an HSM is initialized with its vendor's tool. PINs
//! are passed in files: a PIN on a command line (`softhsm2-util --pin`) is visible in the process
//! list. It never changes a token that is initialized and has its PIN.

use crate::pin::read_pin;
use crate::pkcs11::environment::{SOFTHSM_CONF, explained, softhsm_token_folder};
use crate::pkcs11::fault::Fault;
use crate::pkcs11::module::Module;
use anyhow::{Context, bail};
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use hallmark_base::files::{self, Owner};
use hallmark_base::fragment::Fragment;
use hallmark_protocol::arguments::InitializeArguments;
use secrecy::SecretString;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Digits of a random PIN: what 8 random bytes allow, and within every token's limits.
const PIN_DIGITS: usize = 16;

/// The result of [`initialize`], with the token's serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Initialized {
    /// The token was made.
    New(String),
    /// A token with this label and a PIN exists; nothing was changed.
    AlreadyThere(String),
}

/// Initializes the first blank token of the module, unless a token has the label. Root takes the
/// rights of the user who owns the folder of the PIN or of SoftHSM's objects: a module opens files
/// by path, so another user could redirect it.
pub(crate) fn initialize(options: &InitializeArguments) -> anyhow::Result<Initialized> {
    owner(options)?.map_or(Ok(()), go_on_as)?;
    let path = options.module.display();
    let failed = |fault: Fault| anyhow::anyhow!("{path}: {}", fault.reason);
    let mut module = Module::load(&options.module, None).map_err(failed)?;
    let family = Fragment::unknown_family(&options.module);
    module
        .initialize()
        .map_err(|fault| failed(explained(fault, &family, &options.module)))?;
    let outcome = match module.find_token(&options.label, None) {
        Ok(found) if found.information.has_pin() => {
            Ok(Initialized::AlreadyThere(found.information.serial))
        }
        // An earlier run was interrupted. Without its file no SO PIN is tried.
        Ok(found) => read_pin(&options.so_pin_file)
            .map_err(Into::into)
            .and_then(|so_pin| give_pin(&module, found.slot, &so_pin, options)),
        Err(_) => make(&module, options),
    };
    module.finalize();
    outcome
}

/// Gives up root's rights if another user owns the folder of SoftHSM's objects, which the
/// environment names.
pub(crate) fn leave_root() -> anyhow::Result<()> {
    let conf = std::env::var_os(SOFTHSM_CONF);
    let owner = token_folder_owner(conf.as_deref().map(Path::new))?;
    owner.map_or(Ok(()), go_on_as)
}

/// Becomes the token's owner.
pub(crate) fn go_on_as(owner: Owner) -> anyhow::Result<()> {
    files::become_owner(owner)
        .with_context(|| format!("cannot become user {}, who owns the token", owner.uid()))
}

fn owner(options: &InitializeArguments) -> anyhow::Result<Option<Owner>> {
    for path in [&options.pin_file, &options.so_pin_file] {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        let owner = files::owner_of(folder.unwrap_or(Path::new(".")))?;
        if owner.is_some() {
            return Ok(owner);
        }
    }
    let conf = std::env::var_os(SOFTHSM_CONF);
    Ok(token_folder_owner(conf.as_deref().map(Path::new))?)
}

/// Returns the owner, if it is not root, of the folder that SoftHSM's configuration names for
/// objects.
pub(crate) fn token_folder_owner(conf: Option<&Path>) -> io::Result<Option<Owner>> {
    // Without a readable configuration SoftHSM finds no token and reports that itself.
    let folder = conf.and_then(|it| softhsm_token_folder(it).ok().flatten());
    folder.map_or(Ok(None), |it| files::owner_of(&it))
}

fn make(module: &Module, options: &InitializeArguments) -> anyhow::Result<Initialized> {
    let slot = uninitialized_slot(module)?;
    let so_pin = existing_or_new(&options.so_pin_file)?;
    let context = module.context();
    context
        .init_token(slot, &so_pin, &options.label)
        .map_err(named)?;
    give_pin(module, slot, &so_pin, options)
}

fn give_pin(
    module: &Module,
    slot: Slot,
    so_pin: &SecretString,
    options: &InitializeArguments,
) -> anyhow::Result<Initialized> {
    let pin = existing_or_new(&options.pin_file)?;
    let context = module.context();
    let session = context.open_rw_session(slot).map_err(named)?;
    session
        .login(UserType::So, Some(so_pin))
        .map_err(named)
        .context("the SO PIN is not accepted")?;
    session.init_pin(&pin).map_err(named)?;
    session.logout().map_err(named)?;
    session
        .login(UserType::User, Some(&pin))
        .map_err(named)
        .context("the new PIN is not accepted")?;
    let information = module.reader().information(slot).map_err(named)?;
    Ok(Initialized::New(information.serial))
}

/// Names function and return code.
fn named(error: cryptoki::error::Error) -> anyhow::Error {
    anyhow::anyhow!(Fault::from(error).reason)
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
        None => {
            bail!("every token of this module is initialized already: add a blank token or slot")
        }
    }
}

/// Reads the PIN in `path`. If the file does not exist, writes a new PIN there first.
fn existing_or_new(path: &Path) -> anyhow::Result<SecretString> {
    let failed = || format!("cannot write a new PIN to {}", path.display());
    if !files::is_there(path).with_context(failed)? {
        write_new(path).with_context(failed)?;
    }
    Ok(read_pin(path)?)
}

/// Writes a random PIN to `path` with a rename, so that the file is complete or absent. Keeps a
/// file that another program has made since.
fn write_new(path: &Path) -> io::Result<()> {
    let mut beside = path.file_name().unwrap_or_default().to_owned();
    beside.push(format!(".{:016x}.new", rand::random::<u64>()));
    let beside = path.with_file_name(beside);
    let mut file = files::create_new(&beside, 0o600)?;
    file.write_all(random_digits().as_bytes())?;
    file.sync_all()?;
    match files::rename_new(&beside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => files::remove(&beside),
        renamed => renamed,
    }
}

fn random_digits() -> zeroize::Zeroizing<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("aws-lc's generator has passed its self-test");
    let mut digits = u64::from_be_bytes(bytes).to_string();
    digits.truncate(PIN_DIGITS);
    zeroize::Zeroizing::new(format!("{digits:0>PIN_DIGITS$}\n"))
}
