//! Stores which TPM a token is, and a key that shows whether the credential is right.
//!
//! The file is `token-NAME.tpm` in the state folder. It contains no secret. Without it any TPM is
//! accepted, and a wrong credential shows only when a key is used.

use super::fault::{Class, Fault};
use hallmark_base::files;
use hallmark_base::files::atomic;
use hallmark_protocol::KeyReference;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Label of the key that proves the credential. It signs test messages only, and is never the key
/// of an authority.
pub(super) const LABEL: &str = "hallmark credential proof";

/// The TPM that the token has used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TpmIdentity {
    /// Name of its primary key.
    pub(super) primary: Vec<u8>,
    /// The key that proves the credential.
    pub(super) proof: KeyReference,
}

/// The content of the file, in hex.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    primary: String,
    proof_spki: String,
    proof_id: String,
    proof_key: String,
}

impl TpmIdentity {
    /// Reads the file; `None` if it does not exist. Fails if it cannot be read or decoded, so that
    /// another TPM is not accepted by mistake.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Fault> {
        let content = match files::read_ours_text(path, FILE_BYTES_MAX) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(path, &error.to_string())),
        };
        let record = serde_json::from_str::<Record>(&content).ok();
        match record.and_then(|record| record.decoded()) {
            Some(identity) => Ok(Some(identity)),
            None => Err(unusable(path, "it is damaged")),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Fault> {
        let record = Record {
            primary: hex::encode(&self.primary),
            proof_spki: hex::encode(&self.proof.spki),
            proof_id: hex::encode(&self.proof.id),
            proof_key: hex::encode(self.proof.wrapped.as_deref().unwrap_or_default()),
        };
        let content = serde_json::to_vec_pretty(&record).expect("strings make JSON");
        let written = folder(path).and_then(|()| atomic::write(path, &content, 0o600));
        written.map_err(|error| Fault::device(format!("cannot write {}: {error}", path.display())))
    }
}

impl Record {
    fn decoded(&self) -> Option<TpmIdentity> {
        let bytes = |text: &str| hex::decode(text).ok();
        Some(TpmIdentity {
            primary: bytes(&self.primary)?,
            proof: KeyReference {
                spki: bytes(&self.proof_spki)?.into(),
                label: LABEL.to_owned(),
                id: bytes(&self.proof_id)?,
                wrapped: Some(bytes(&self.proof_key)?),
            },
        })
    }
}

/// Returns the short id of a TPM, from the name of its primary key; `serial` in the configuration.
pub(super) fn serial(primary_name: &[u8]) -> String {
    /// The algorithm of the digest that follows.
    const ALGORITHM_BYTES: usize = 2;
    let digest = primary_name.get(ALGORITHM_BYTES..).unwrap_or_default();
    hex::encode(&digest[..digest.len().min(16)])
}

/// Returns the path of the lock that a worker holds on a TPM without a resource manager.
pub(super) fn lock_file(identity: &Path) -> PathBuf {
    identity.with_extension("tpm.lock")
}

fn folder(path: &Path) -> io::Result<()> {
    files::make_folder(path.parent().unwrap_or(Path::new(".")), 0o700)
}

fn unusable(path: &Path, reason: &str) -> Fault {
    Fault {
        class: Class::Pin,
        reason: format!(
            "{}: {reason}; correct that, or remove the file to accept the TPM as it is",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn identity() -> TpmIdentity {
        TpmIdentity {
            primary: [&[0, 11][..], &[0xab; 32]].concat(),
            proof: KeyReference {
                spki: vec![1, 2, 3].into(),
                label: LABEL.to_owned(),
                id: vec![7; 16],
                wrapped: Some(vec![9; 300]),
            },
        }
    }

    #[test]
    fn a_written_identity_is_read_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("state/token-gate.tpm");
        assert!(matches!(TpmIdentity::read(&path), Ok(None)));
        assert!(identity().write(&path).is_ok());
        assert!(matches!(TpmIdentity::read(&path), Ok(Some(read)) if read == identity()));
        fs::write(&path, "{}").expect("writable");
        let fault = TpmIdentity::read(&path).expect_err("damaged");
        assert!(fault.reason.contains("remove the file"), "{}", fault.reason);
    }

    #[test]
    fn the_serial_is_the_beginning_of_the_digest() {
        assert_eq!(serial(&identity().primary), "ab".repeat(16));
        assert_eq!(serial(&[]), "");
    }
}
