//! Checks the documents that `hallmark setup` will write, before it writes them.

use crate::ca::ceremony::Ceremony;
use crate::config::Configuration;
use anyhow::{Context, anyhow};
use serde::Deserialize;
use serde_json::json;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The longest input, in bytes.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The texts of both documents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Documents {
    /// Where the configuration will be.
    pub file: PathBuf,
    pub configuration: String,
    pub ceremony: String,
}

/// Reads documents from `input` as JSON, and writes `{}` or `{"refused": "…"}` to `out`.
pub fn answer(input: impl Read, out: &mut impl Write) -> anyhow::Result<()> {
    let documents = serde_json::from_reader(input.take(INPUT_BYTES_MAX))?;
    let answer = match check(&documents) {
        Ok(()) => json!({}),
        Err(error) => json!({ "refused": format!("{error:#}") }),
    };
    writeln!(out, "{answer}").context("cannot write")
}

/// Returns the reason why the daemon would refuse one of the documents.
pub fn check(documents: &Documents) -> anyhow::Result<()> {
    let credentials = Some(Path::new("/run/credentials"));
    Configuration::parse(
        &documents.configuration,
        documents.file.clone(),
        credentials,
    )
    .context("the answers give a configuration that cannot be")?;
    Ceremony::parse(&documents.ceremony)
        .map_err(|error| anyhow!("the answers give a ceremony that cannot be: {error}"))?;
    Ok(())
}
