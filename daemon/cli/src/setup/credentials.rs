//! Secrets on their way into systemd's credential stores. What is stored is never replaced: keys
//! may depend on it.

use super::answers::CredentialStore;
use super::files::{Root, put};
use super::machine::{self, User};
use super::plan::{Origin, PlannedCredential};
use anyhow::{Context, bail};
use hallmark_base::files;
use secrecy::{ExposeSecret, SecretString};
use std::path::{Path, PathBuf};
use std::process::Command;
use zeroize::Zeroizing;

/// The longest secret: a bearer token of Entra ID has some 2 KiB.
const SECRET_BYTES_MAX: u64 = 16 * 1024;
/// The entropy of a secret that is made here, in bytes.
const RANDOM_BYTES: usize = 24;

/// Where a credential lies.
pub(super) fn path(store: CredentialStore, name: &str) -> PathBuf {
    let folder = match store {
        CredentialStore::Encrypted => "/etc/credstore.encrypted",
        CredentialStore::Plain => "/etc/credstore",
    };
    Path::new(folder).join(name)
}

/// Whether this machine can encrypt credentials.
pub(super) fn can_encrypt() -> anyhow::Result<()> {
    machine::encrypt("trial", &SecretString::from("trial")).map(drop)
}

/// Whether a credential is stored. One that is stored otherwise than is asked for is a refusal.
pub(super) fn is_stored(root: &Root, store: CredentialStore, name: &str) -> anyhow::Result<bool> {
    let other = match store {
        CredentialStore::Encrypted => CredentialStore::Plain,
        CredentialStore::Plain => CredentialStore::Encrypted,
    };
    let stray = root.path(path(other, name));
    if stray.exists() {
        bail!(
            "{} is there, and credentials are to be stored otherwise: answer [credentials] `store` \
             as before, or remove it",
            stray.display()
        );
    }
    Ok(root.path(path(store, name)).exists())
}

/// Stores a secret.
pub(super) fn store(
    root: &Root,
    store: CredentialStore,
    name: &str,
    secret: &SecretString,
) -> anyhow::Result<()> {
    let content = match store {
        CredentialStore::Encrypted => machine::encrypt(name, secret)?,
        CredentialStore::Plain => Zeroizing::new(secret.expose_secret().to_owned()),
    };
    put(&root.path(path(store, name)), content.as_bytes(), 0o600)
}

/// A secret that is not stored yet. `ask` has somebody type it.
pub(super) fn obtain(
    credential: &PlannedCredential,
    ask: &dyn Fn(&str) -> anyhow::Result<SecretString>,
) -> anyhow::Result<SecretString> {
    match &credential.origin {
        Origin::File(path) => read(path).with_context(|| credential.what.clone()),
        Origin::Typed => ask(&credential.what),
        Origin::Random => Ok(random()),
        Origin::NewToken(path) => bail!(
            "{} is lost: it is neither stored nor in {}; if nothing depends on the token, remove \
             that folder, and setup makes another one",
            credential.what,
            path.display()
        ),
    }
}

fn read(path: &Path) -> anyhow::Result<SecretString> {
    let text = files::secret(path, SECRET_BYTES_MAX);
    let text = text.with_context(|| format!("cannot use {}", path.display()))?;
    match text.expose_secret().trim() {
        "" => bail!("{} is empty", path.display()),
        secret => Ok(SecretString::from(secret)),
    }
}

fn random() -> SecretString {
    let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
    aws_lc_rs::rand::fill(&mut *bytes).expect("aws-lc's generator has passed its self-test");
    SecretString::from(hex::encode(*bytes))
}

/// What lies in a folder of the workers is read as they would: a link there leads nowhere else.
pub(super) fn read_as(user: User, path: &Path) -> anyhow::Result<SecretString> {
    let text = machine::run(user.command("cat").arg(path))?;
    Ok(SecretString::from(text.trim()))
}

/// And removed so.
pub(super) fn remove_as(user: User, path: &Path) -> anyhow::Result<()> {
    let command: &mut Command = &mut user.command("rm");
    machine::run(command.arg("-f").arg(path)).map(drop)
}
