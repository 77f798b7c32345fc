//! Reads files that hold a secret, such as a PIN, and refuses a file that others can read.

use super::open;
use secrecy::SecretString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The reason why a secret cannot be read from its file, without a byte of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretUnusable {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Other users can read the file.
    #[error(
        "its mode {mode:04o} lets {who} read it: chmod 0600, and renew the secret if others may have \
         read it"
    )]
    Exposed {
        mode: u32,
        /// The users who can read the file.
        who: &'static str,
    },
    /// The file is empty.
    #[error("it is empty")]
    Empty,
    /// It is something else.
    #[error("it has more than {0} bytes")]
    TooLong(u64),
    /// It is something else.
    #[error("it is not text")]
    NotText,
}

/// Reads a secret of at most `limit` bytes from a file that an operator named.
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

/// Checks that only the owner can read the file. A group may read a file of root's: by that, root
/// gives a secret to a daemon that must not write it.
fn check_readers(found: &Metadata, is_of_systemd: bool) -> Result<(), SecretUnusable> {
    let mode = found.mode() & 0o7777;
    let exposed = |who| Err(SecretUnusable::Exposed { mode, who });
    // Only the processes that inherited a pipe can read it.
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

/// In `$CREDENTIALS_DIRECTORY`, the group bits are the mask of an ACL, which names one reader.
fn is_of_systemd(path: &Path) -> bool {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
    folder.is_some_and(|it| path.parent() == Some(Path::new(&it)))
}
