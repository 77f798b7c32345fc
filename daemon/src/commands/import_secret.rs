//! `hallmarkd import-secret`: the key of a connection string goes into a token, once.
//!
//! The secret goes from the file to the token's worker and nowhere else: not over the API, not into
//! the database, not onto the command line.

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

/// What to import, and where to.
#[derive(Debug)]
pub struct Import {
    /// The token's name in the configuration.
    pub token: String,
    /// What the key shall be called.
    pub key: String,
    /// The file with the connection string.
    pub file: PathBuf,
}

/// Imports the key, sees that the token computes with it, and says what to do with the file.
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
        client
            .destroy_secret(&label, LOOKUP_DEADLINE)
            .context("the imported key computes wrongly, and could not be deleted again")?;
        return Err(error);
    }
    say(import, &string, out)
}

/// The token's signature must be the one that the file's key makes.
fn prove(client: &TokenClient, label: &str, string: &ConnectionString) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let access = SharedAccess::new(string.host(), string.policy(), now);
    let code = client.hmac_sha256(label, access.text().as_bytes(), LOOKUP_DEADLINE)?;
    let (made, wanted) = (access.token(&code), string.token(now));
    match made.expose_secret() == wanted.expose_secret() {
        true => Ok(()),
        false => bail!("the token computes another HMAC than the key does; nothing was imported"),
    }
}

fn say(import: &Import, string: &ConnectionString, out: &mut impl Write) -> anyhow::Result<()> {
    let Import { token, key, file } = import;
    let (policy, host, file) = (string.policy(), string.host(), file.display());
    writeln!(
        out,
        "The key of {policy:?} at {host} is in token {token:?}, and does not leave it.\n\
         1. Put this into the configuration, in place of the file:\n   \
         credential = {{ kind = \"token-hmac\", token = {token:?}, key = {key:?}, \
         policy = {policy:?} }}\n\
         2. Restart the daemon, and see that `hallmark push list` shows no refused credential.\n\
         3. Destroy every copy of the connection string: shred -u {file}\n   \
         If a copy may be left elsewhere, regenerate the policy's key at Azure and import it anew, \
         under another name."
    )
    .context("cannot write")
}
