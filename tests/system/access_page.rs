//! Compares the tables of docs/access.md with the permissions of the routes, and with the commands.
//! `HALLMARK_WRITE_TABLE=1` writes them.

use clap::CommandFactory as _;
use hallmark_cli::ctl::{Arguments, FIRST_REQUESTS, ON_THE_MACHINE};
use hallmarkd::api::access_table;
use std::collections::BTreeSet;
use std::fs;

/// The page.
pub(crate) const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access.md");

#[test]
fn the_access_reference_is_that_of_the_permissions() {
    let mut commands = "| command | first request |\n|---|---|\n".to_owned();
    for (example, request) in FIRST_REQUESTS {
        let command = name(example);
        let request = match *request {
            ON_THE_MACHINE => request.to_string(),
            route => format!("`{route}`"),
        };
        commands += &format!("| `hallmark {command}` | {request} |\n");
    }
    let written = fs::read_to_string(PAGE).unwrap();
    let page = with_table(&written, "| route |", &access_table());
    let page = with_table(&page, "| command |", &commands);
    if std::env::var_os("HALLMARK_WRITE_TABLE").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap();
    assert!(
        written == page,
        "docs/access.md has other tables; write them as it says at its beginning"
    );
}

/// The page with this table in the place of the one that begins with `head`.
fn with_table(page: &str, head: &str, table: &str) -> String {
    let (before, old) = page.split_once(&format!("\n\n{head}")).unwrap();
    let after = old.split_once("\n\n").map_or("", |it| it.1);
    let gap = if after.is_empty() { "" } else { "\n" };
    format!("{before}\n\n{table}{gap}{after}")
}

/// Verifies that each command has a row, and that its example is an example of it.
#[test]
fn every_command_has_a_first_request() {
    let mut commands = BTreeSet::new();
    leaves(&Arguments::command(), "", &mut commands);
    let named: BTreeSet<_> = FIRST_REQUESTS.iter().map(|it| name(it.0)).collect();
    assert_eq!(
        named, commands,
        "complete FIRST_REQUESTS of the command line"
    );
    let table = access_table();
    for (example, request) in FIRST_REQUESTS {
        let is_route = table.contains(&format!("| `{request}` |"));
        assert!(is_route || *request == ON_THE_MACHINE, "{request}");
        let arguments = ["hallmark"].into_iter().chain(example.split(' '));
        let parsed = Arguments::command().try_get_matches_from(arguments);
        assert!(parsed.is_ok(), "{example}: {parsed:?}");
    }
}

/// The words of an example that name a command.
fn name(example: &str) -> String {
    let mut command = Arguments::command();
    let mut words = Vec::new();
    for word in example.split(' ') {
        let Some(next) = command.find_subcommand(word).cloned() else {
            break;
        };
        command = next;
        words.push(word);
    }
    words.join(" ")
}

fn leaves(command: &clap::Command, name: &str, found: &mut BTreeSet<String>) {
    let mut below = command.get_subcommands().peekable();
    if below.peek().is_none() {
        found.insert(name.to_owned());
    }
    for next in below {
        let name = format!("{name} {}", next.get_name());
        leaves(next, name.trim_start(), found);
    }
}
