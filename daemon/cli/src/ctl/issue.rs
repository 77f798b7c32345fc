//! Runs `hallmark issue`: asks for one leaf, for a CSR or with a key pair that the daemon makes.

use super::client::ApiClient;
use super::command::Issue;
use super::failure::Failure;
use super::output::Output;
use super::show::Show;
use super::{FILE_BYTES_MAX, pem_or_base64};
use crate::setup;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum as _;
use hallmark_base::files::{self, atomic};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest password, in bytes; the daemon takes less.
const PASSWORD_BYTES_MAX: u64 = 1024;

pub(super) fn run(client: &ApiClient, show: &Show, issue: &Issue) -> Result<(), Failure> {
    // Nothing is issued that could not be written afterwards.
    let out = Output::prepare(issue.out.as_deref())?;
    let mut body = json!({
        "profile": issue.profile, "registration_id": issue.id, "move": issue.moves,
    });
    if let Some(csr) = &issue.csr {
        body["csr"] = pem_or_base64(csr, FILE_BYTES_MAX, "the request")?.into();
    }
    let key_file = issue.key_out.as_deref();
    if let Some(key_file) = key_file {
        Output::prepare(Some(key_file))?;
        body["generate"] = generate(issue)?;
    }
    let mut answer = client.post("/v1/certificates", &body)?;
    // It is written into its file, and shown nowhere.
    let key = answer.as_object_mut().and_then(|it| it.remove("key"));
    let kept = match (key_file, key) {
        (Some(path), Some(key)) => keep(path, &key, &answer),
        _ => Ok(()),
    };
    let written = out.write_chain(&answer);
    show.record(&answer)?;
    kept.and(written)
}

/// The member of a request for a key that the daemon makes.
fn generate(issue: &Issue) -> Result<Value, Failure> {
    let format = issue.key_format.to_possible_value();
    let mut wanted = json!({ "format": format.as_ref().map(|it| it.get_name()) });
    if let Some(key_type) = issue.generate.as_ref().filter(|it| !it.is_empty()) {
        wanted["key_type"] = key_type.as_str().into();
    }
    if issue.no_password {
        wanted["unencrypted"] = true.into();
        return Ok(wanted);
    }
    let password = match &issue.password_file {
        Some(file) => files::secret_line(file, PASSWORD_BYTES_MAX)
            .map_err(|error| Failure::File(format!("{}: {error}", file.display())))?,
        None => asked()?,
    };
    wanted["password"] = password.expose_secret().into();
    Ok(wanted)
}

/// Asks twice: what is typed is not shown, and a key whose password is not known is lost.
fn asked() -> Result<SecretString, Failure> {
    let ask = |what| {
        setup::ask_secret(what).map_err(|error| {
            Failure::Failed(format!("{error:#}; or name its file: --password-file"))
        })
    };
    let password = ask("the password of the key")?;
    if ask("the same password")?.expose_secret() != password.expose_secret() {
        let message = "the two passwords differ, and nothing was asked of the daemon";
        return Err(Failure::Failed(message.into()));
    }
    Ok(password)
}

/// Writes the key into a file of its owner alone.
fn keep(path: &Path, key: &Value, answer: &Value) -> Result<(), Failure> {
    let content = key["content"].as_str().unwrap_or_default();
    let bytes = match key["format"].as_str() {
        Some("pkcs12") => STANDARD.decode(content).unwrap_or_default(),
        _ => content.as_bytes().to_vec(),
    };
    let bytes = Zeroizing::new(bytes);
    let written = files::remove(path).and_then(|()| atomic::write(path, &bytes, 0o600));
    written.map_err(|error| {
        let serial = answer["serial"].as_str().unwrap_or_default();
        Failure::File(format!(
            "{}: {error}; the certificate {serial} is issued, and its key is lost: revoke it \
             (`hallmark certificate revoke {serial} --reason cessationOfOperation`), and \
             repeat the command",
            path.display()
        ))
    })
}
