//! Imports the key of a connection string into a token: `hallmarkd import-secret`.
//!
//! The secret is passed from the file to the token's worker only: not over the API, not into the
//! database, not on a command line.

use super::label_of;
use super::private_worker::PrivateWorker;
use crate::config::Configuration;
use crate::provisioning::credential::connection_string;
use crate::provisioning::sas::{ConnectionString, SharedAccess};
use crate::token::client::{LOOKUP_DEADLINE, TokenClient};
use crate::token::credential::SECRET_BYTES;
use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

/// The options of an import.
#[derive(Debug)]
pub struct Import {
    /// The token's name in the configuration.
    pub token: String,
    pub key: String,
    /// The file with the connection string.
    pub file: PathBuf,
}

/// Imports the key, checks that the token computes with it, and prints what to do with the file.
pub fn import_secret(
    configuration: &Configuration,
    import: &Import,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let label = label_of(&import.key)?;
    let string = connection_string(&import.file)?;
    if !SECRET_BYTES.contains(&string.key().expose_secret().len()) {
        bail!("the SharedAccessKey is too short or too long to be one of Azure's");
    }
    let worker = PrivateWorker::ready(configuration, &import.token)?;
    let client = &worker.client;
    client.import_secret(&label, string.key(), LOOKUP_DEADLINE)?;
    if let Err(error) = prove(client, &label, &string) {
        client.destroy_secret(&label, LOOKUP_DEADLINE).context(
            "the token computes wrong HMACs with the imported key, and cannot delete it",
        )?;
        return Err(error);
    }
    say(import, &string, out)
}

/// Checks that the token computes the same signature as the key in the file.
fn prove(client: &TokenClient, label: &str, string: &ConnectionString) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let access = SharedAccess::new(string.host(), string.policy(), now);
    let code = client.hmac_sha256(label, access.text().as_bytes(), LOOKUP_DEADLINE)?;
    let made = access.token(&code);
    let wanted = string.token(now);
    if made.expose_secret() != wanted.expose_secret() {
        bail!("the token computes another HMAC than the key does; nothing was imported");
    }
    Ok(())
}

fn say(import: &Import, string: &ConnectionString, out: &mut impl Write) -> anyhow::Result<()> {
    let Import { token, key, file } = import;
    let policy = string.policy();
    let host = string.host();
    let file = file.display();
    writeln!(
        out,
        "The key of {policy:?} at {host} is in token {token:?}, and does not leave it.\n\
         1. Put this into the configuration, in place of the file:\n   \
         credential = {{ kind = \"token-hmac\", token = {token:?}, key = {key:?}, \
         policy = {policy:?} }}\n\
         2. Restart the daemon, and check that `hallmark push list` shows no refused credential.\n\
         3. Destroy every copy of the connection string: shred -u {file}\n   \
         If another copy may exist, regenerate the policy's key at Azure and import the new key \
         under another name."
    )
    .context("cannot write")
}
