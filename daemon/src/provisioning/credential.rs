//! What a call is authorised with.
//!
//! Every credential is a file, read anew for each attempt: an operator, or whatever refreshes a
//! token, may exchange it while the daemon runs, and a mended file heals without a restart.

use super::sas::{ConnectionString, ConnectionStringInvalid};
use secrecy::{ExposeSecret, SecretString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// No credential is longer; a path that points at something else is noticed by it.
const CREDENTIAL_BYTES_MAX: u64 = 64 * 1024;

/// How the calls of one plane are authorised. Other ways (a signature by a key in the token, a
/// client assertion for Entra, a managed identity) become variants.
#[derive(Clone, Debug)]
pub enum Credential {
    /// None in the request: the TLS client certificate speaks.
    ClientCertificate,
    /// The connection string of a shared access policy of the service.
    ConnectionString {
        /// The file.
        path: PathBuf,
        /// The service that is called; a string for another one is refused.
        host: String,
    },
    /// A bearer token that something else refreshes.
    BearerToken {
        /// The file.
        path: PathBuf,
    },
}

impl Credential {
    /// The value of `Authorization` for one attempt at `now`.
    pub fn authorization(&self, now: SystemTime) -> Result<Option<SecretString>, CredentialError> {
        match self {
            Credential::ClientCertificate => Ok(None),
            Credential::ConnectionString { path, host } => {
                connection_string(path, host).map(|string| Some(string.token(now)))
            }
            Credential::BearerToken { path } => {
                let token = read(path)?;
                let token = token.expose_secret().trim();
                Ok(Some(SecretString::from(format!("Bearer {token}"))))
            }
        }
    }
}

fn connection_string(path: &Path, host: &str) -> Result<ConnectionString, CredentialError> {
    let string = ConnectionString::parse(&read(path)?);
    let string = string.map_err(|source| CredentialError::ConnectionString {
        path: path.to_owned(),
        source,
    })?;
    if string.host() != host {
        return Err(CredentialError::OtherHost {
            path: path.to_owned(),
            found: string.host().to_owned(),
            called: host.to_owned(),
        });
    }
    Ok(string)
}

fn read(path: &Path) -> Result<SecretString, CredentialError> {
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

/// A credential that cannot be used. An operator must mend the file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No file, no right to read it, or no text in it.
    #[error("cannot read the credential {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a connection string.
    #[error("the credential {} is no connection string", path.display())]
    ConnectionString {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ConnectionStringInvalid,
    },
    /// A key of another service would be shown to this one.
    #[error("the credential {} is for {found}, but {called} is configured", path.display())]
    OtherHost {
        /// The file.
        path: PathBuf,
        /// `HostName` of the connection string.
        found: String,
        /// The configured endpoint.
        called: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn refusal(content: &str) -> CredentialError {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dps");
        fs::write(&path, content).unwrap();
        let host = "line.example".to_owned();
        let credential = Credential::ConnectionString { path, host };
        credential.authorization(SystemTime::now()).unwrap_err()
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
        let credential = Credential::BearerToken { path: path.clone() };
        for token in ["first", "second"] {
            fs::write(&path, format!("{token}\n")).unwrap();
            let authorization = credential
                .authorization(SystemTime::now())
                .unwrap()
                .unwrap();
            assert_eq!(authorization.expose_secret(), format!("Bearer {token}"));
        }
    }
}
