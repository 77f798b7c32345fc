//! Stores secrets in systemd's credential stores. A stored secret is never replaced, because keys
//! may depend on it.

use super::answers::CredentialStore;
use super::files::{Root, put};
use super::machine::{self, User};
use super::plan::{Origin, PlannedCredential, SecretReceiver};
use anyhow::{Context, bail};
use hallmark_base::files::{self, SecretUnusable};
use secrecy::{ExposeSecret, SecretString};
use std::path::{Path, PathBuf};
use std::process::Command;
use zeroize::Zeroizing;

/// Longest secret: a bearer token of Entra ID has about 2 KiB.
const SECRET_BYTES_MAX: u64 = 16 * 1024;
/// Entropy of a new secret, in bytes.
const RANDOM_BYTES: usize = 24;

/// Returns the file of a credential.
pub(super) fn path(store: CredentialStore, name: &str) -> PathBuf {
    let folder = match store {
        CredentialStore::Encrypted => "/etc/credstore.encrypted",
        CredentialStore::Plain => "/etc/credstore",
    };
    Path::new(folder).join(name)
}

/// Checks that this machine can encrypt credentials.
pub(super) fn can_encrypt() -> anyhow::Result<()> {
    machine::encrypt("trial", &SecretString::from("trial")).map(drop)
}

/// Returns true if a credential is stored. Fails if it is stored in the other store.
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

/// Reads, makes or asks for a secret that is not stored yet.
pub(super) fn obtain(
    credential: &PlannedCredential,
    ask: &dyn Fn(&str) -> anyhow::Result<SecretString>,
) -> anyhow::Result<SecretString> {
    match &credential.origin {
        Origin::File(path) => {
            read(path, credential.receiver).with_context(|| credential.what.clone())
        }
        Origin::Typed => alone(&ask(&credential.what)?, credential.receiver)
            .with_context(|| format!("{} cannot be used", credential.what)),
        Origin::Random => Ok(random()),
        Origin::NewToken(path) => bail!(
            "{} is lost: it is neither stored nor in {}; if nothing depends on the token, remove \
             that folder, and setup makes another one",
            credential.what,
            path.display()
        ),
    }
}

fn read(path: &Path, receiver: SecretReceiver) -> anyhow::Result<SecretString> {
    let text = files::secret(path, SECRET_BYTES_MAX);
    let secret = text.and_then(|it| alone(&it, receiver));
    secret.with_context(|| format!("cannot use {}", path.display()))
}

/// Returns the secret alone. The blanks around a connection string never count; those around a PIN
/// may be a part of it, and a guess could cost a try.
fn alone(text: &SecretString, receiver: SecretReceiver) -> Result<SecretString, SecretUnusable> {
    let text = text.expose_secret();
    match receiver {
        SecretReceiver::Daemon => files::only_line(text.trim()),
        SecretReceiver::Worker | SecretReceiver::NoUnit => files::only_line(text),
    }
    .map(SecretString::from)
}

fn random() -> SecretString {
    let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
    aws_lc_rs::rand::fill(&mut *bytes).expect("aws-lc's generator has passed its self-test");
    SecretString::from(hex::encode(*bytes))
}

/// Reads a file with the rights of the workers' user, because a link in their folder could lead
/// elsewhere.
pub(super) fn read_as(user: User, path: &Path) -> anyhow::Result<SecretString> {
    let text = machine::run(user.command("cat").arg(path))?;
    Ok(SecretString::from(text.trim()))
}

/// Removes a file with the rights of the workers' user.
pub(super) fn remove_as(user: User, path: &Path) -> anyhow::Result<()> {
    let command: &mut Command = &mut user.command("rm");
    machine::run(command.arg("-f").arg(path)).map(drop)
}
