//! Encrypts files to recipients in the format age-encryption.org/v1, and decrypts them.
//!
//! Recipients are public keys. The daemon knows those of its backups only, so no thief of its
//! machine reads a backup that was taken away. Identities are the private keys; an operator keeps
//! them elsewhere, and names their file. The program `age` reads and writes the same files.

use crate::files;
use age::x25519;
use age::{Decryptor, Encryptor};
use secrecy::ExposeSecret;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

/// The most recipients: each one adds a line to each file.
const RECIPIENTS_MAX: usize = 32;
/// The largest file of identities, in bytes.
const IDENTITIES_BYTES_MAX: u64 = 64 * 1024;

/// The keys that files are encrypted to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Recipients(Vec<x25519::Recipient>);

impl TryFrom<Vec<String>> for Recipients {
    type Error = String;

    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        if texts.len() > RECIPIENTS_MAX {
            return Err(format!("there are more than {RECIPIENTS_MAX} recipients"));
        }
        let mut recipients = Vec::new();
        for text in texts {
            let recipient: x25519::Recipient = text.parse().map_err(|error: &str| {
                format!(
                    "{text:?} is no recipient ({error}): write the public key that `age-keygen` \
                     prints, which begins with age1"
                )
            })?;
            if recipients.contains(&recipient) {
                return Err(format!("the recipient {text} is there twice; remove one"));
            }
            recipients.push(recipient);
        }
        Ok(Self(recipients))
    }
}

impl Recipients {
    /// Whether nothing is to be encrypted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The recipients as they are configured.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Encrypts the bytes of `from` into a new file `to`, durably.
    pub fn encrypt(&self, from: &mut dyn Read, to: &Path) -> io::Result<()> {
        let output = files::create_new(to, 0o600)?;
        let recipients = self.0.iter().map(|it| it as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let mut encrypted = encryptor.wrap_output(BufWriter::new(&output))?;
        io::copy(from, &mut encrypted)?;
        encrypted.finish()?.flush()?;
        output.sync_all()
    }
}

/// The private keys that decrypt files.
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Reads a file of `age-keygen`: one identity in each line that is not a comment. The error
    /// says what is wrong, and has nothing of the secret.
    pub fn read(file: &Path) -> Result<Self, String> {
        let wrong = |why: &str| format!("the identities in {} {why}", file.display());
        let text = files::secret(file, IDENTITIES_BYTES_MAX)
            .map_err(|error| wrong(&format!("cannot be used: {error}")))?;
        let lines = text.expose_secret().lines().map(str::trim);
        let lines = lines.filter(|it| !it.is_empty() && !it.starts_with('#'));
        let identities = lines.map(|line| line.parse().map_err(|_| ()));
        let identities: Result<Vec<x25519::Identity>, ()> = identities.collect();
        match identities {
            Ok(found) if !found.is_empty() => Ok(Self(found)),
            Ok(_) => Err(wrong("are none: the file has no line AGE-SECRET-KEY-1…")),
            Err(()) => Err(wrong(
                "are not understood: each line is a comment or AGE-SECRET-KEY-1…, as `age-keygen` \
                 writes it",
            )),
        }
    }

    /// Opens an encrypted file, and returns a reader of the decrypted bytes.
    pub fn decrypt<'a>(&self, file: &'a File) -> Result<impl Read + 'a, String> {
        let decryptor = Decryptor::new(BufReader::new(file))
            .map_err(|error| format!("it is not encrypted as age does it: {error}"))?;
        let identities = self.0.iter().map(|it| it as &dyn age::Identity);
        decryptor
            .decrypt(identities)
            .map_err(|error| format!("no identity given decrypts it: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn recipients(texts: &[&str]) -> Result<Recipients, String> {
        let texts: Vec<String> = texts.iter().map(|it| (*it).to_owned()).collect();
        texts.try_into()
    }

    fn identity_file(folder: &Path, text: &str) -> std::path::PathBuf {
        let file = folder.join("identity");
        fs::write(&file, text).expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
        file
    }

    #[test]
    fn either_of_two_recipients_decrypts_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let keys: Vec<_> = (0..3).map(|_| x25519::Identity::generate()).collect();
        let names: Vec<_> = keys.iter().map(|it| it.to_public().to_string()).collect();
        let both = recipients(&[&names[0], &names[1]]).expect("recipients");
        assert_eq!(both.names(), names[..2]);
        let plain = vec![7; 200_000];
        let to = folder.join("encrypted");
        both.encrypt(&mut &*plain, &to).expect("encrypts");
        for (at, key) in keys.iter().enumerate() {
            let secret = key.to_string();
            let text = format!("# a comment\n\n{}\n", secret.expose_secret());
            let identities = Identities::read(&identity_file(folder, &text)).expect("identities");
            let file = File::open(&to).expect("is there");
            let found = identities.decrypt(&file);
            assert_eq!(found.is_ok(), at < 2, "{at}");
            let Ok(mut found) = found else { continue };
            let mut decrypted = Vec::new();
            found.read_to_end(&mut decrypted).expect("reads");
            assert!(decrypted == plain, "{at}");
        }
    }

    #[test]
    fn what_is_no_recipient_or_identity_is_refused_in_words() {
        let key = x25519::Identity::generate();
        let name = key.to_public().to_string();
        for (texts, words) in [
            (vec!["age1x"], "is no recipient"),
            (vec![&*name, &*name], "is there twice"),
            (vec![&*name; 33], "more than 32"),
        ] {
            let refused = recipients(&texts).expect_err(words);
            assert!(refused.contains(words), "{refused}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let secret = key.to_string();
        let mut cut = secret.expose_secret().to_owned();
        cut.pop();
        for (text, words) in [("# none\n", "are none"), (&*cut, "are not understood")] {
            let file = identity_file(folder.path(), text);
            let refused = Identities::read(&file).err().expect(words);
            assert!(refused.contains(words), "{refused}");
            assert!(!refused.contains(&cut), "{refused}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Bytes of another format are refused, and read without a panic.
        #[test]
        fn other_bytes_are_refused(
            head in prop::bool::ANY,
            bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("bytes");
            let prefix: &[u8] = if head { b"age-encryption.org/v1\n-> X25519 " } else { b"" };
            fs::write(&file, [prefix, &bytes].concat()).expect("writable");
            let identities = Identities(vec![x25519::Identity::generate()]);
            let file = File::open(&file).expect("is there");
            prop_assert!(identities.decrypt(&file).is_err());
        }
    }
}
