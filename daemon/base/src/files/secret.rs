//! Files that hold a secret: PINs, connection strings, bearer tokens. One rule decides for all of
//! them who may be able to read such a file.

use super::open;
use secrecy::SecretString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Why a secret cannot be taken from its file; said without a byte of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretUnusable {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Others can read it.
    #[error(
        "its mode {mode:04o} lets {who} read it: chmod 0600, and renew the secret if others may have \
         read it"
    )]
    Exposed {
        /// Permission bits.
        mode: u32,
        /// Who could read it.
        who: &'static str,
    },
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
    /// It is something else.
    #[error("it has more than {0} bytes")]
    TooLong(u64),
    /// It is something else.
    #[error("it is not text")]
    NotText,
}

/// Reads the secret in a file that an operator named; at most `limit` bytes.
pub fn secret(path: &Path, limit: u64) -> Result<SecretString, SecretUnusable> {
    let file = open(path)?;
    check_readers(&file.metadata()?, is_of_systemd(path))?;
    let text = text(file, limit)?;
    if text.is_empty() {
        return Err(SecretUnusable::Empty);
    }
    Ok(SecretString::from(text.as_str()))
}

fn text(file: File, limit: u64) -> Result<Zeroizing<String>, SecretUnusable> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(SecretUnusable::TooLong(limit));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretUnusable::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Only its owner may read a secret; of a file of root's also a group, which is how root gives it
/// to a daemon that must not write it.
fn check_readers(found: &Metadata, is_of_systemd: bool) -> Result<(), SecretUnusable> {
    let mode = found.mode() & 0o7777;
    let exposed = |who| Err(SecretUnusable::Exposed { mode, who });
    // A pipe has no readers but those that it was given to.
    if !found.is_file() {
        return Ok(());
    }
    if mode & 0o007 != 0 {
        return exposed("every user");
    }
    let is_given_by_root = found.uid() == 0 && !rustix::process::geteuid().is_root();
    let of_group = if is_given_by_root { 0o030 } else { 0o070 };
    if !is_of_systemd && mode & of_group != 0 {
        return exposed("its group");
    }
    Ok(())
}

/// In `$CREDENTIALS_DIRECTORY` group bits are the mask of an ACL, which names the one reader.
fn is_of_systemd(path: &Path) -> bool {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
    folder.is_some_and(|it| path.parent() == Some(Path::new(&it)))
}
