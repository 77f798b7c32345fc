//! Implements the commands of `hallmarkd` that are not the daemon itself, and the command line of
//! all.
//!
//! `serve` is in [`service`](crate::service). `hallmark-token` runs the commands that need the
//! library of a token.

pub mod arguments;
pub mod check;
pub mod check_documents;
pub mod credential_key;
pub mod import_secret;
mod private_worker;
pub mod program;
pub mod restore;
mod restore_preview;

use crate::token::credential::label;
use anyhow::Context;

/// The label of the key that an operator calls `name`.
fn label_of(name: &str) -> anyhow::Result<String> {
    label(name).with_context(|| format!("{name:?}: give 1 to 64 letters, digits and - _ ."))
}
