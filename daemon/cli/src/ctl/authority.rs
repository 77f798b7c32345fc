//! Runs `hallmark authority`: shows authorities, and exchanges certificates with other issuers.

use super::client::{ApiClient, StepsBody, segment};
use super::command::{AuthorityCommand, Import, SignSubordinate};
use super::failure::Failure;
use super::output::Output;
use super::show::Show;
use super::{FILE_BYTES_MAX, block, certificate, pem_or_base64, steps};
use serde_json::json;
use std::path::PathBuf;

pub(super) fn run(
    client: &ApiClient,
    show: &Show,
    command: &AuthorityCommand,
) -> Result<(), Failure> {
    match command {
        AuthorityCommand::List => show.table(
            &client.get("/v1/authorities")?,
            &[
                "name",
                "generation",
                "state",
                "not_after",
                "token",
                "key_type",
                "crl_number",
                "crl_next_update",
                "subject",
            ],
        ),
        AuthorityCommand::Block(of) => {
            let name = &of.name;
            let number = Some(of.generation);
            block::start(client, show, "generation", name, number, &of.cause.reason)
        }
        AuthorityCommand::Unblock(of) => {
            let name = &of.name;
            let number = Some(of.generation);
            block::lift(client, show, "generation", name, number, &of.cause.reason)
        }
        AuthorityCommand::Csr { name, out } => {
            let output = Output::prepare(out.as_deref())?;
            let path = format!("/v1/authorities/{}/request", segment(name));
            let answer = client.post(&path, &json!({}))?;
            let csr = answer["csr"].as_str().unwrap_or_default();
            if out.is_none() && !show.json {
                return show.text(csr);
            }
            if show.json {
                show.record(&answer)?;
            }
            output.write(csr)
        }
        AuthorityCommand::Install { name, file } => {
            let path = format!("/v1/authorities/{}/certificate", segment(name));
            let certificates = certificate::read(file)?;
            show.record(&client.post(&path, &json!({ "certificates": certificates }))?)
        }
        AuthorityCommand::Import(files) => import(client, show, files),
        AuthorityCommand::Sign(sign) => self::sign(client, show, sign),
        AuthorityCommand::Subordinates { name } => {
            let path = format!("/v1/authorities/{}/subordinates", segment(name));
            let columns = ["serial", "subject", "profile", "not_after", "revoked_at"];
            show.table(&client.get(&path)?, &columns)
        }
        AuthorityCommand::Show {
            name, pem: true, ..
        } => {
            let generations = client.get(&format!("/v1/authorities/{}", segment(name)))?;
            for generation in generations.as_array().into_iter().flatten() {
                show.text(generation["certificate"].as_str().unwrap_or_default())?;
            }
            Ok(())
        }
        AuthorityCommand::Show {
            name, cross: true, ..
        } => {
            let generations = client.get(&format!("/v1/authorities/{}", segment(name)))?;
            for generation in generations.as_array().into_iter().flatten() {
                let cross = generation["cross_certificates"].as_array();
                let good = cross
                    .into_iter()
                    .flatten()
                    .filter(|it| it["state"] == "good");
                for it in good {
                    show.text(it["certificate"].as_str().unwrap_or_default())?;
                }
            }
            Ok(())
        }
        AuthorityCommand::Show { name, .. } => {
            show.record(&client.get(&format!("/v1/authorities/{}", segment(name)))?)
        }
    }
}

fn sign(client: &ApiClient, show: &Show, sign: &SignSubordinate) -> Result<(), Failure> {
    let csr = pem_or_base64(&sign.csr, FILE_BYTES_MAX, "the request")?;
    // Nothing is signed that could not be written afterwards.
    let output = Output::prepare(sign.out.as_deref())?;
    let body = json!({
        "profile": sign.profile, "csr": csr, "common_name": sign.common_name,
        "days": sign.days, "rekey": sign.rekey,
    });
    let path = format!("/v1/authorities/{}/subordinates", segment(&sign.authority));
    let answer = client.post(&path, &body)?;
    let written = output.write_chain(&answer);
    show.record(&answer)?;
    written
}

/// The daemon reads the files; a relative path is one of this program's folder.
fn import(client: &ApiClient, show: &Show, files: &Import) -> Result<(), Failure> {
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_deref();
        path.map(|it| std::path::absolute(it).map_err(|error| Failure::file(it, &error)))
            .transpose()
    };
    let body = json!({
        "index": absolute(&files.index)?,
        "certificates": absolute(&files.certificates)?,
        "crl": absolute(&files.crl)?,
        "profile": files.profile,
    });
    let path = format!("/v1/authorities/{}/imports", segment(&files.name));
    let outcome = steps(client, "import", &path, StepsBody::Json(body))?;
    show.record(&outcome["report"])
}
