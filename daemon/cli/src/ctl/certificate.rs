//! Runs `hallmark certificate`.

use super::FILE_BYTES_MAX;
use super::client::{ApiClient, segment};
use super::command::{
    CertificateCommand, ExportCertificate, HoldCertificate, ListCertificates, NamedCertificate,
    RevokeCertificate,
};
use super::failure::Failure;
use super::output::{Output, chain};
use super::show::{Show, receipt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum as _;
use hallmark_base::files;
use hallmark_pki::x509::bundle::{OtherFile, parse_first};
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// Part of the label of every private key in PEM.
pub(super) const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";
/// Digits of a SHA-256; a serial number has 40 at most.
const SHA256_DIGITS: usize = 64;

pub(super) fn run(
    client: &ApiClient,
    show: &Show,
    command: &CertificateCommand,
) -> Result<(), Failure> {
    match command {
        CertificateCommand::List(wanted) => list(client, show, wanted),
        CertificateCommand::Export(export) => self::export(client, show, export),
        CertificateCommand::Show {
            serial,
            authority,
            out,
        } => {
            let output = Output::prepare(out.as_deref())?;
            let authority = authority.as_deref().map(segment);
            let query = authority.map_or_else(String::new, |it| format!("?authority={it}"));
            let found = client.get(&format!("/v1/certificates/{}{query}", segment(serial)))?;
            show.record(&found)?;
            match chain(&found) {
                none if none.is_empty() && out.is_some() => Err(Failure::File(
                    "nothing is written: only the serial number is known, from an import without \
                     its file"
                        .into(),
                )),
                chain => output.write(&chain),
            }
        }
        CertificateCommand::Revoke(revoke) => self::revoke(client, show, revoke),
        CertificateCommand::Hold(of) => hold(client, show, of),
        CertificateCommand::Release(of) => release(client, show, of),
    }
}

/// The columns of a list, the most needed first.
const COLUMNS: [&str; 8] = [
    "serial",
    "state",
    "not_after",
    "subject",
    "authority",
    "profile",
    "role",
    "number",
];

fn list(client: &ApiClient, show: &Show, wanted: &ListCertificates) -> Result<(), Failure> {
    let state = wanted.state.and_then(|it| it.to_possible_value());
    let state = state.map(|it| it.get_name().to_owned());
    let after = wanted.after.map(|it| it.to_string());
    let criteria = [
        ("subject", &wanted.name),
        ("device", &wanted.device),
        ("serial", &wanted.serial),
        ("sha256", &wanted.sha256),
        ("profile", &wanted.profile),
        ("authority", &wanted.authority),
        ("state", &state),
        ("expiring", &wanted.expiring),
        ("issued_since", &wanted.issued_since),
        ("after", &after),
    ];
    let named = criteria
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let named = named.map(|(name, value)| format!("{name}={}&", segment(value)));
    let path = format!("/v1/certificates?{}", named.collect::<String>());
    let (rows, next) = client.linked(&path, wanted.limit)?;
    show.table(&rows, &COLUMNS)?;
    match next {
        Some(next) if !show.json => show.remark(&format!(
            "there are more: repeat the command with --after {next}"
        )),
        _ => Ok(()),
    }
}

fn export(client: &ApiClient, show: &Show, export: &ExportCertificate) -> Result<(), Failure> {
    let output = Output::prepare(export.out.as_deref())?;
    let format = export.format.to_possible_value();
    let format = format.as_ref().map_or("pem", |it| it.get_name());
    let authority = export.authority.as_deref().map(segment);
    let authority = authority.map_or_else(String::new, |it| format!("&authority={it}"));
    let path = format!(
        "/v1/certificates/{}/export?format={format}{authority}",
        segment(&export.serial)
    );
    let bytes = client.bytes(&path)?;
    output.write_bytes(&bytes)?;
    let text = String::from_utf8(bytes).ok();
    match (&export.out, text) {
        (Some(out), _) => show.record(&json!({ "format": format, "out": out })),
        (None, Some(text)) if show.json => {
            show.record(&json!({ "format": format, "content": text }))
        }
        (None, text) => show.text(&text.unwrap_or_default()),
    }
}

fn revoke(client: &ApiClient, show: &Show, revoke: &RevokeCertificate) -> Result<(), Failure> {
    let mut body = named(&revoke.certificate, &revoke.cause)?;
    body["reason"] = json!(revoke.reason);
    body["everywhere"] = json!(revoke.everywhere);
    changed(show, client.post("/v1/certificates/revocations", &body)?)
}

fn hold(client: &ApiClient, show: &Show, of: &HoldCertificate) -> Result<(), Failure> {
    let body = named(&of.certificate, &of.cause)?;
    changed(show, client.post("/v1/certificates/holds", &body)?)
}

fn release(client: &ApiClient, show: &Show, of: &HoldCertificate) -> Result<(), Failure> {
    let body = named(&of.certificate, &of.cause)?;
    changed(show, client.post("/v1/certificates/releases", &body)?)
}

fn named(certificate: &NamedCertificate, cause: &str) -> Result<Value, Failure> {
    let mut body = json!({ "cause": cause });
    if let Some(digits) = &certificate.serial {
        body[kind_of(digits)] = json!(digits);
    }
    if let Some(file) = &certificate.file {
        body["certificate"] = json!(read(file)?);
    }
    if let Some(authority) = &certificate.authority {
        body["authority"] = json!(authority);
    }
    Ok(body)
}

/// Shows the state of a certificate, then what each place answered.
fn changed(show: &Show, mut answer: Value) -> Result<(), Failure> {
    if show.json {
        return show.record(&answer);
    }
    let places = answer["receipt"].take();
    let rolls = answer["rolls"].as_array().into_iter().flatten();
    let rolls: Vec<String> = rolls.map(|roll| roll["id"].to_string()).collect();
    if let Value::Object(members) = &mut answer {
        members.remove("receipt");
        members.remove("rolls");
    }
    show.record(&answer)?;
    for roll in rolls {
        show.line(&format!(
            "`hallmark roll show {roll}` shows the way to the next leaf"
        ))?;
    }
    receipt(show, &places)
}

fn kind_of(digits: &str) -> &'static str {
    let count = digits.chars().filter(char::is_ascii_hexdigit).count();
    if count == SHA256_DIGITS {
        "sha256"
    } else {
        "serial"
    }
}

/// Reads UTF-8 text as it is, and every other file as base64: the daemon finds out what it is. A
/// private key is refused here: it must not leave its file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let bytes = files::read(path, FILE_BYTES_MAX).map_err(|error| Failure::file(path, &error))?;
    let is_key = parse_first(&bytes) == Err(OtherFile::PrivateKey.into());
    if is_key || bytes.windows(PRIVATE_KEY.len()).any(|it| it == PRIVATE_KEY) {
        let error = io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds a private key, and nothing was sent; name the file of the certificate",
        );
        return Err(Failure::file(path, &error));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => STANDARD.encode(error.as_bytes()),
    })
}
