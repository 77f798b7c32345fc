//! Reads files that hold a secret, such as a PIN, and refuses a file that others can read.

use super::open;
use secrecy::{ExposeSecret, SecretString};
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
        "its mode {mode:04o} lets {who} read it: chmod 0600, and renew the secret if others may \
         have read it"
    )]
    Exposed {
        mode: u32,
        /// The users who can read the file.
        who: &'static str,
    },
    /// The file is empty.
    #[error("it is empty")]
    Empty,
    #[error("it begins with a byte order mark: save it as UTF-8 without one")]
    ByteOrderMark,
    #[error("it is UTF-16: save it as UTF-8 without a byte order mark")]
    Utf16,
    #[error("it has a NUL or another character that is not shown: type it again")]
    Invisible,
    #[error("it has several lines: keep the secret alone, in one line")]
    SeveralLines,
    #[error("a blank is before or behind the secret: remove it")]
    Padded,
    /// It is something else.
    #[error("it has more than {0} bytes")]
    TooLong(u64),
    /// It is something else.
    #[error("it is not UTF-8 text")]
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

/// Reads a secret that is one line, such as a PIN, for which [`only_line`] is true.
pub fn secret_line(path: &Path, limit: u64) -> Result<SecretString, SecretUnusable> {
    let text = secret(path, limit)?;
    only_line(text.expose_secret()).map(SecretString::from)
}

/// Returns the secret in `text` without the line end. Refuses what an editor or a copy adds by
/// mistake: a token would count the result as a wrong PIN.
pub fn only_line(text: &str) -> Result<&str, SecretUnusable> {
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.trim().is_empty() {
        return Err(SecretUnusable::Empty);
    }
    check_characters(secret)?;
    if secret.contains(is_line_end) {
        return Err(SecretUnusable::SeveralLines);
    }
    if secret.trim() != secret {
        return Err(SecretUnusable::Padded);
    }
    Ok(secret)
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Refuses characters that no editor shows. Line ends and tabs are shown.
fn check_characters(text: &str) -> Result<(), SecretUnusable> {
    if text.starts_with('\u{feff}') {
        return Err(SecretUnusable::ByteOrderMark);
    }
    if is_utf16(text.as_bytes()) {
        return Err(SecretUnusable::Utf16);
    }
    let is_hidden = |it: char| {
        let has_no_width = matches!(it, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}');
        has_no_width || it.is_control() && it != '\t' && !is_line_end(it)
    };
    if text.contains(is_hidden) {
        return Err(SecretUnusable::Invisible);
    }
    Ok(())
}

/// Returns true for a byte order mark of UTF-16, and for ASCII in UTF-16 without one.
fn is_utf16(bytes: &[u8]) -> bool {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let has_mark = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    let is_ascii = |zero: usize| pairs.iter().all(|it| it[zero] == 0 && it[1 - zero] != 0);
    has_mark || !pairs.is_empty() && rest.is_empty() && (is_ascii(0) || is_ascii(1))
}

fn text(file: File, limit: u64) -> Result<Zeroizing<String>, SecretUnusable> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(SecretUnusable::TooLong(limit));
    }
    if is_utf16(&bytes) {
        return Err(SecretUnusable::Utf16);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretUnusable::NotText)?;
    check_characters(text)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    /// Reads a file with these bytes; `Err` holds the words.
    fn read(bytes: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("pin");
        fs::write(&path, bytes).expect("writable");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        let secret = secret_line(&path, 32).map_err(|error| error.to_string())?;
        Ok(secret.expose_secret().to_owned())
    }

    #[test]
    fn one_line_is_read_without_its_end() {
        for bytes in [&b"1234"[..], b"1234\n", b"1234\r\n", b"1234\n\n"] {
            assert_eq!(read(bytes).as_deref(), Ok("1234"), "{bytes:?}");
        }
        assert_eq!(read("two wörds\n".as_bytes()).as_deref(), Ok("two wörds"));
    }

    #[test]
    fn what_an_editor_adds_is_refused_and_named() {
        let utf_16 = |text: &str, byte: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(byte).collect()
        };
        for (bytes, words) in [
            (b"\xef\xbb\xbf1234\n".to_vec(), "byte order mark"),
            (utf_16("\u{feff}1234\r\n", u16::to_le_bytes), "UTF-16"),
            (utf_16("\u{feff}1234\n", u16::to_be_bytes), "UTF-16"),
            (utf_16("1234\n", u16::to_le_bytes), "UTF-16"),
            (utf_16("1234", u16::to_be_bytes), "UTF-16"),
            (b"1234 \n".to_vec(), "blank"),
            (b" 1234".to_vec(), "blank"),
            (b"1234\t\r\n".to_vec(), "blank"),
            ("1234\u{a0}\n".into(), "blank"),
            (b"1234\0".to_vec(), "NUL"),
            (b"1234\n\0\0\0".to_vec(), "NUL"),
            (b"12\x1b34".to_vec(), "not shown"),
            ("1234\u{200b}".into(), "not shown"),
            ("12\u{feff}34".into(), "not shown"),
            (b"1234\n5678\n".to_vec(), "several lines"),
            (b"\n1234".to_vec(), "several lines"),
            (b"1234\r5678".to_vec(), "several lines"),
            (b"".to_vec(), "empty"),
            (b"\r\n".to_vec(), "empty"),
            (b"  \n".to_vec(), "empty"),
            (b"1234\xff".to_vec(), "not UTF-8"),
            (vec![b'1'; 33], "more than 32 bytes"),
        ] {
            let refused = read(&bytes).expect_err("refused");
            assert!(refused.contains(words), "{bytes:?}: {refused}");
            assert!(!refused.contains("1234"), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn a_line_that_is_taken_is_shown_as_it_is(text in "\\PC{0,12}[ \t\r\n\0]{0,2}") {
            if let Ok(line) = only_line(&text) {
                prop_assert_eq!(line.trim(), line);
                prop_assert!(text.starts_with(line));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&bytes);
        }
    }
}
