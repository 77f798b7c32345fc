//! Reads `[audit]`: when checkpoints of the audit journal are signed, and where they are copied.

use super::ConfigurationError;
use crate::ca::checkpoint::{AuditPolicy, CheckpointPolicy};
use crate::files;
use crate::x509::key::PublicKey;
use crate::x509::key_pem::public_keys;
use crate::x509::profile::human_seconds;
use schemars::JsonSchema;
use serde::Deserialize;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// The largest file of pinned keys, in octets.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The table as it is written. Without it the journal has no checkpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    /// When checkpoints are signed.
    checkpoints: Option<Checkpoints>,
    /// The file to which each checkpoint is appended, one JSON object per line.
    copy_to: Option<PathBuf>,
    /// A file with the public keys, as PEM, whose checkpoints alone are believed.
    key: Option<PathBuf>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Checkpoints {
    /// The token with the key that signs them.
    token: String,
    /// The longest time from an entry to the checkpoint that covers it.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "every_default")]
    every: u64,
    /// The most entries that no checkpoint covers while the token works.
    #[serde(default = "entries_default")]
    entries: NonZeroU32,
    /// With more uncovered entries than these nothing is issued.
    #[serde(default = "unsigned_entries_default")]
    unsigned_entries: NonZeroU32,
    /// With an entry that is uncovered for longer nothing is issued.
    #[schemars(with = "String", extend("format" = "duration"))]
    #[serde(with = "human_seconds", default = "unsigned_for_default")]
    unsigned_for: u64,
}

impl Audit {
    pub(super) fn policy(self) -> Result<AuditPolicy, ConfigurationError> {
        let checkpoints = self.checkpoints.map(Checkpoints::policy).transpose()?;
        let needs = |key: &str| {
            let message = format!("[audit] {key} needs [audit] checkpoints");
            Err(ConfigurationError::Contradiction(message))
        };
        match (&checkpoints, &self.copy_to, &self.key) {
            (None, Some(_), _) => return needs("copy_to"),
            (None, _, Some(_)) => return needs("key"),
            _ => {}
        }
        Ok(AuditPolicy {
            checkpoints,
            copy_to: self.copy_to,
            pinned: self.key.as_deref().map_or(Ok(Vec::new()), pinned)?,
        })
    }
}

impl Checkpoints {
    fn policy(self) -> Result<CheckpointPolicy, ConfigurationError> {
        let seconds = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        if self.every == 0
            || self.unsigned_for < 2 * self.every
            || self.unsigned_entries < self.entries
        {
            let message = "[audit] checkpoints: `every` must be at least 1s and `unsigned_for` \
                           twice as long, and `unsigned_entries` at least `entries`: issuance \
                           would stop before a checkpoint is due";
            return Err(ConfigurationError::Contradiction(message.into()));
        }
        Ok(CheckpointPolicy {
            token: self.token,
            every_seconds: seconds(self.every),
            entries: i64::from(self.entries.get()),
            unsigned_entries_max: i64::from(self.unsigned_entries.get()),
            unsigned_seconds_max: seconds(self.unsigned_for),
        })
    }
}

fn pinned(path: &Path) -> Result<Vec<PublicKey>, ConfigurationError> {
    let unreadable = |reason: String| ConfigurationError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let text = files::read_text(path, KEY_FILE_BYTES_MAX);
    let text = text.map_err(|error| unreadable(error.to_string()))?;
    let keys = public_keys(&text).map_err(unreadable)?;
    if keys.is_empty() {
        return Err(unreadable("it has no public key in PEM".into()));
    }
    Ok(keys)
}

fn every_default() -> u64 {
    3_600
}

fn entries_default() -> NonZeroU32 {
    NonZeroU32::new(1_000).expect("is not zero")
}

fn unsigned_entries_default() -> NonZeroU32 {
    NonZeroU32::new(100_000).expect("is not zero")
}

fn unsigned_for_default() -> u64 {
    86_400
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<AuditPolicy, String> {
        let table: Audit = toml::from_str(text).map_err(|error| error.to_string())?;
        table.policy().map_err(|error| error.to_string())
    }

    #[test]
    fn issuance_stops_no_sooner_than_a_checkpoint_is_due() {
        let checkpoints = |rest: &str| policy(&format!("[checkpoints]\ntoken = \"t\"\n{rest}"));
        let default = checkpoints("").unwrap().checkpoints.unwrap();
        assert_eq!((default.every_seconds, default.entries), (3_600, 1_000));
        assert!(checkpoints("every = \"1s\"\nunsigned_for = \"2s\"").is_ok());
        for rest in [
            "every = \"0s\"",
            "every = \"1h\"\nunsigned_for = \"1h\"",
            "entries = 100\nunsigned_entries = 99",
            "entries = 0",
            "key = \"hallmark-audit 1\"",
        ] {
            assert!(checkpoints(rest).is_err(), "{rest}");
        }
        assert!(policy("copy_to = \"/x\"").is_err());
        assert!(policy("key = \"/x\"").is_err());
    }
}
