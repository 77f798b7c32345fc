//! Runs `hallmark custodian`.

use super::command::CustodianCommand;
use super::failure::Failure;
use super::read;
use super::show::Show;
use crate::custodian::{self, Custodian, Plan, Written};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn run(show: &Show, command: &CustodianCommand) -> Result<(), Failure> {
    match command {
        CustodianCommand::Split {
            pin,
            threshold,
            out,
            custodians,
        } => {
            let written = custodian::split(pin, custodians, *threshold, out);
            say(show, &written.map_err(Failure::File)?, *threshold)
        }
        CustodianCommand::Open {
            out,
            identity,
            shares,
        } => {
            let opened = custodian::open(shares, identity, out).map_err(Failure::File)?;
            show.record(&json!({ "file": out, "custodians": opened }))
        }
        CustodianCommand::Script {
            file,
            threshold,
            custodians,
        } => script(show, file, *threshold, custodians),
    }
}

fn say(show: &Show, written: &[Written], threshold: u8) -> Result<(), Failure> {
    let rows = written.iter().map(
        |it| json!({ "custodian": it.custodian, "file": it.file, "encrypted": it.is_encrypted }),
    );
    show.table(&rows.collect(), &["custodian", "encrypted", "file"])?;
    if show.json {
        return Ok(());
    }
    show.remark(&format!(
        "Any {threshold} of these open the PIN. Try it now by `hallmark custodian open`, give each \
         custodian one share on a medium of its own, and remove the PIN's file and this folder."
    ))
}

fn script(
    show: &Show,
    file: &Path,
    threshold: u8,
    custodians: &[Custodian],
) -> Result<(), Failure> {
    let text = read(file)?;
    let ceremony: toml::Table = toml::from_str(&text)
        .map_err(|_| Failure::File(format!("{}: it is no ceremony file", file.display())))?;
    let tables = ceremony.get("authority").and_then(|it| it.as_array());
    let names = tables
        .into_iter()
        .flatten()
        .filter_map(|it| it.get("name")?.as_str());
    let authorities: Vec<String> = names.map(str::to_owned).collect();
    let sha256 = hex::encode(digest(&SHA256, text.as_bytes()));
    let custodians: Vec<String> = custodians.iter().map(|it| it.name().to_owned()).collect();
    let script = custodian::script(&Plan {
        ceremony: file,
        sha256: &sha256,
        authorities: &authorities,
        custodians: &custodians,
        threshold,
    });
    if show.json {
        return show.record(&Value::from_iter([("script", Value::from(script))]));
    }
    show.text(&script)
}
