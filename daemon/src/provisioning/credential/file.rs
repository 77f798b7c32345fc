//! Credentials that are files, read anew for each attempt: an operator, or whatever refreshes a
//! token, may exchange one while the daemon runs, and a mended file heals without a restart.

use super::CredentialError;
use crate::provisioning::sas::ConnectionString;
use secrecy::{ExposeSecret, SecretString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::SystemTime;

/// No credential is longer; a path that points at something else is noticed by it.
const CREDENTIAL_BYTES_MAX: u64 = 64 * 1024;

/// A shared access signature for `host`, by the connection string in `path`.
pub(super) fn shared_access(
    path: &Path,
    host: &str,
    now: SystemTime,
) -> Result<SecretString, CredentialError> {
    let string = connection_string(path)?;
    if string.host() != host {
        return Err(CredentialError::OtherHost {
            path: path.to_owned(),
            found: string.host().to_owned(),
            called: host.to_owned(),
        });
    }
    Ok(string.token(now))
}

/// The connection string in `path`.
pub fn connection_string(path: &Path) -> Result<ConnectionString, CredentialError> {
    let string = ConnectionString::parse(&read(path)?);
    string.map_err(|source| CredentialError::ConnectionString {
        path: path.to_owned(),
        source,
    })
}

/// The bearer token in `path`, as the header has it.
pub(super) fn bearer(path: &Path) -> Result<SecretString, CredentialError> {
    let token = read(path)?;
    let token = token.expose_secret().trim();
    Ok(SecretString::from(format!("Bearer {token}")))
}

/// All of a short file.
pub(super) fn read(path: &Path) -> Result<SecretString, CredentialError> {
    let unreadable = |source| CredentialError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let read = file
        .take(CREDENTIAL_BYTES_MAX + 1)
        .read_to_string(&mut text);
    let text = SecretString::from(text);
    match read.map_err(unreadable)? as u64 {
        0 => Err(unreadable(io::Error::other("the file is empty"))),
        length if length > CREDENTIAL_BYTES_MAX => {
            Err(unreadable(io::Error::other("the file is too long")))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn refusal(content: &str) -> CredentialError {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dps");
        fs::write(&path, content).unwrap();
        shared_access(&path, "line.example", SystemTime::now()).unwrap_err()
    }

    #[test]
    fn a_credential_of_another_service_is_refused() {
        let other = "HostName=hub.example;SharedAccessKeyName=o;SharedAccessKey=a2V5";
        let refused = refusal(other);
        assert!(
            matches!(refused, CredentialError::OtherHost { .. }),
            "{refused:?}"
        );
    }

    #[test]
    fn a_file_that_is_no_credential_is_refused() {
        for content in [String::new(), "x".repeat(100_000)] {
            let refused = refusal(&content);
            assert!(
                matches!(refused, CredentialError::Unreadable { .. }),
                "{refused:?}"
            );
        }
        let refused = refusal("x");
        assert!(
            matches!(refused, CredentialError::ConnectionString { .. }),
            "{refused:?}"
        );
    }

    #[test]
    fn a_bearer_token_is_read_again_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arm");
        for token in ["first", "second"] {
            fs::write(&path, format!("{token}\n")).unwrap();
            let header = bearer(&path).unwrap();
            assert_eq!(header.expose_secret(), format!("Bearer {token}"));
        }
    }
}
