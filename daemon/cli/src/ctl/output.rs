//! Files that a command writes with the answer of the daemon.
//!
//! The file is tried before anything is asked of the daemon: a certificate that is issued and then
//! cannot be written is of no use, and its key is certified once.

use super::failure::Failure;
use hallmark_base::files;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file that can be written, or none.
pub(super) struct Output(Option<PathBuf>);

impl Output {
    /// Fails if the file cannot be written. An existing file keeps its content until the answer
    /// has come.
    pub(super) fn prepare(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        files::try_write(path).map_err(|error| {
            let message = format!(
                "{}: {error}; nothing was asked of the daemon: make the folder, or name another \
                 file",
                path.display()
            );
            Failure::File(message)
        })?;
        Ok(Self(Some(path.to_owned())))
    }

    pub(super) fn write(&self, text: &str) -> Result<(), Failure> {
        self.write_bytes(text.as_bytes())
    }

    pub(super) fn write_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(path) = &self.0 else { return Ok(()) };
        files::write(path, bytes).map_err(|error| Failure::file(path, &error))
    }

    /// Writes a leaf followed by its chain.
    pub(super) fn write_chain(&self, answer: &Value) -> Result<(), Failure> {
        let serial = answer["serial"].as_str().unwrap_or_default();
        self.write(&chain(answer)).map_err(|failure| {
            let message = format!(
                "{failure}; the certificate is issued: `hallmark certificate show {serial} --out \
                 FILE` writes it"
            );
            Failure::File(message)
        })
    }
}

/// Returns a leaf followed by its chain, as its holder presents them.
pub(super) fn chain(answer: &Value) -> String {
    let leaf = std::iter::once(&answer["certificate"]);
    let chain = answer["chain"].as_array().into_iter().flatten();
    leaf.chain(chain).filter_map(Value::as_str).collect()
}
