//! Reads credentials from files, again for each attempt: an operator, or a program that refreshes
//! tokens, may replace a file while the daemon runs, and a corrected file works without a restart.

use super::CredentialError;
use crate::files;
use crate::provisioning::sas::ConnectionString;
use secrecy::{ExposeSecret, SecretString};
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

/// The secret in a file, by the rule for all of them.
fn read(path: &Path) -> Result<SecretString, CredentialError> {
    files::secret(path, CREDENTIAL_BYTES_MAX).map_err(|source| CredentialError::Unusable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn write(path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dps");
        for mode in [0o644, 0o604, 0o640, 0o620, 0o601] {
            write(
                &path,
                "HostName=line.example;SharedAccessKeyName=o;SharedAccessKey=a2V5",
            );
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = shared_access(&path, "line.example", SystemTime::now()).unwrap_err();
            let CredentialError::Unusable { source, .. } = refused else {
                panic!("{mode:o}: {refused:?}");
            };
            let words = source.to_string();
            assert!(
                words.contains("chmod 0600") && !words.contains("a2V5"),
                "{words}"
            );
            assert!(bearer(&path).is_err());
        }
    }

    fn refusal(content: &str) -> CredentialError {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dps");
        write(&path, content);
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
                matches!(refused, CredentialError::Unusable { .. }),
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
            write(&path, &format!("{token}\n"));
            let header = bearer(&path).unwrap();
            assert_eq!(header.expose_secret(), format!("Bearer {token}"));
        }
    }
}
