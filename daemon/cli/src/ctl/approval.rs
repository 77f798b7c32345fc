//! Runs `hallmark approve` and `hallmark approval`.
//!
//! The document is shown before it is signed, and its hash is computed here: the hash that the
//! daemon names is only compared. The key signs in this process and is not sent.

use super::client::ApiClient;
use super::command::{ApprovalCommand, Approve};
use super::failure::Failure;
use super::pem_or_base64;
use super::show::Show;
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dialoguer::Confirm;
use hallmark_base::files;
use hallmark_base::files::atomic;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::path::Path;

/// The longest file of a key, certificate or signature, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

const COLUMNS: [&str; 7] = [
    "id",
    "state",
    "action",
    "asked_by",
    "expires_at",
    "approved_by",
    "sha256",
];

pub(super) fn run(
    client: &ApiClient,
    show: &Show,
    command: &ApprovalCommand,
) -> Result<(), Failure> {
    match command {
        ApprovalCommand::List { waiting } => {
            let all = client.pages(&format!("/v1/approvals?waiting={waiting}"), "id")?;
            show.table(&all, &COLUMNS)
        }
        ApprovalCommand::Show { id, file } => {
            let request = client.get(&format!("/v1/approvals/{id}"))?;
            let document = verified(&request)?;
            if let Some(file) = file {
                let written = atomic::write(file, document.as_bytes(), 0o644);
                written.map_err(|error| Failure::file(file, &error))?;
            }
            if show.json {
                return show.record(&request);
            }
            let mut rest = request.clone();
            rest.as_object_mut().map(|it| it.remove("document"));
            show.record(&rest)?;
            show.text(document)
        }
        ApprovalCommand::Reject { id } => {
            show.record(&client.post(&format!("/v1/approvals/{id}/rejection"), &json!({}))?)
        }
    }
}

pub(super) fn approve(client: &ApiClient, show: &Show, with: &Approve) -> Result<(), Failure> {
    let id = with.id;
    let certificate = pem_or_base64(&with.certificate, FILE_BYTES_MAX, "the certificate")?;
    let request = client.get(&format!("/v1/approvals/{id}"))?;
    let document = verified(&request)?;
    let signature = match (&with.signature, &with.key) {
        (Some(file), _) => {
            files::read(file, FILE_BYTES_MAX).map_err(|error| Failure::file(file, &error))?
        }
        (None, Some(key)) => {
            confirm(show, with, &request, document)?;
            sign(key, document.as_bytes())?
        }
        (None, None) => return Err(Failure::Usage("name --key or --signature".into())),
    };
    let body = json!({ "signature": STANDARD.encode(signature), "certificate": certificate });
    let approved = client.post(&format!("/v1/approvals/{id}/signature"), &body)?;
    if show.json {
        return show.record(&approved);
    }
    let text = |member: &str| approved[member].as_str().unwrap_or_default().to_owned();
    show.line(&format!(
        "request {id} is approved by {}; {} repeats the command with --approval {id}",
        text("approved_by"),
        text("asked_by")
    ))
}

/// Returns the bytes that are signed, as text, if their hash is what the daemon says.
fn verified(request: &Value) -> Result<&str, Failure> {
    let document = request["document"].as_str().unwrap_or_default();
    let computed = hex::encode(digest::digest(&digest::SHA256, document.as_bytes()));
    // No other signature of this key begins with this line.
    if !document.starts_with("hallmark approval 1\n") {
        return Err(Failure::Failed(
            "the daemon gives no document of an approval; nothing was signed".into(),
        ));
    }
    if request["sha256"] == computed {
        return Ok(document);
    }
    Err(Failure::Failed(format!(
        "the document has SHA-256 {computed}, and the daemon says {}; nothing was signed, look for \
         the change of the database",
        request["sha256"]
    )))
}

/// Shows what is signed, and asks.
fn confirm(show: &Show, with: &Approve, request: &Value, document: &str) -> Result<(), Failure> {
    if !show.json {
        show.text(document)?;
        let sha256 = request["sha256"].as_str().unwrap_or_default();
        show.line(&format!("SHA-256 {sha256}"))?;
    }
    if with.yes {
        return Ok(());
    }
    let is_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !is_asked || show.json {
        let message = "nothing was signed, because there is no terminal to ask at; look at \
                       `hallmark approval show`, and say --yes";
        return Err(Failure::Usage(message.into()));
    }
    let asked = Confirm::new().with_prompt("Approve this?").default(false);
    match asked.interact() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Failed(
            "nothing was signed; `hallmark approval reject` rejects the request".into(),
        )),
        Err(error) => Err(Failure::Failed(format!("the terminal: {error}"))),
    }
}

/// Signs with a private key in PEM: PKCS #8, SEC 1 or PKCS #1, not encrypted.
fn sign(path: &Path, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let unusable = |why: String| {
        let error = io::Error::new(io::ErrorKind::InvalidData, why);
        Failure::file(path, &error)
    };
    let text = files::secret(path, FILE_BYTES_MAX).map_err(|error| unusable(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(text.expose_secret().as_bytes()).map_err(|_| {
        unusable(
            "it has no private key in PEM that is not encrypted; sign by `openssl dgst -sha256 \
             -sign`, and use --signature"
                .into(),
        )
    })?;
    signed(&key, message).ok_or_else(|| {
        unusable("its key is none of P-256, P-384, P-521, RSA and Ed25519; use another".into())
    })
}

fn signed(key: &PrivateKeyDer<'_>, message: &[u8]) -> Option<Vec<u8>> {
    let random = SystemRandom::new();
    let der = key.secret_der();
    for curve in [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
        &ECDSA_P521_SHA512_ASN1_SIGNING,
    ] {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der) {
            return Some(pair.sign(&random, message).ok()?.as_ref().to_vec());
        }
    }
    if let Ok(pair) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
            .ok()?;
        return Some(signature);
    }
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
    Some(pair.sign(message).as_ref().to_vec())
}
