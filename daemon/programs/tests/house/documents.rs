//! Compares documents with the code that they describe: the pages that follow a request or a fault
//! through the code, and the routes of the API.

use crate::tree::top;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

pub(crate) const DAEMON: &str = "daemon/daemon/src";

/// Pages that follow a request or a fault from function to function, each with the number of
/// places that it names at least.
const PAGES: &[(&str, usize)] = &[
    ("docs/issuance-cycle.md", 25),
    ("docs/disk-full.md", 15),
    ("docs/token-away.md", 15),
];

/// Verifies that every file and function of the pages exists, and every code.
#[test]
fn the_pages_name_what_exists() {
    let mut broken = Vec::new();
    for (name, least) in PAGES {
        let page = read(name);
        let mut places = places_in_its_text(&page);
        if page.contains("```\n") {
            places.extend(calls_in_its_block(&page));
        }
        let count = places.len();
        assert!(count >= *least, "{name} names {count} places");
        for (file, function) in places {
            let text = fs::read_to_string(source(&file)).unwrap_or_default();
            if !has_function(&text, &function) {
                broken.push(format!("{name}: {file} has no function {function}"));
            }
        }
        let (codes, named) = (codes(), refusals(&page));
        let unknown = named.difference(&codes);
        broken.extend(unknown.map(|code| format!("{name}: there is no code {code}")));
    }
    let cycle = refusals(&read("docs/issuance-cycle.md"));
    assert!(cycle.len() > 40, "the cycle names {} codes", cycle.len());
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Verifies that docs/api.md has one row for each route of the router, with the permission that
/// its handler takes, and codes that exist.
#[test]
fn every_route_is_documented() {
    let routes = routes();
    assert!(routes.len() > 40, "the router has {} routes", routes.len());
    let (documented, named) = documented();
    let differs = |has: &BTreeMap<Route, String>, other: &BTreeMap<Route, String>, why: &str| {
        let missing = has.iter().filter(|(it, who)| other.get(*it) != Some(*who));
        let lines = missing.map(|(it, who)| format!("{why}: {} {} for {who}", it.1, it.0));
        lines.collect::<Vec<_>>()
    };
    let mut broken = differs(&routes, &documented, "the router has, docs/api.md has not");
    broken.extend(differs(
        &documented,
        &routes,
        "docs/api.md has, the router has not",
    ));
    let codes = codes();
    let unknown = named.difference(&codes);
    broken.extend(unknown.map(|code| format!("docs/api.md: there is no code {code}")));
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).expect("a file of ours")
}

/// Returns where a page's file is: below the daemon's sources, or in another crate.
fn source(file: &str) -> PathBuf {
    let crates = top().join("daemon");
    let is_other = file.starts_with("worker/src/") || file.starts_with("protocol/src/");
    if is_other {
        crates.join(file)
    } else {
        top().join(DAEMON).join(file)
    }
}

/// Returns the text of a function, from `fn` to the brace that closes it.
pub(crate) fn body_of(text: &str, name: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_head = |line: &&str| has_function(line, name);
    let begin = lines.iter().position(is_head);
    let begin = begin.unwrap_or_else(|| panic!("there is no function {name}"));
    let indent = lines[begin].len() - lines[begin].trim_start().len();
    let close = format!("{}}}", " ".repeat(indent));
    let body = lines[begin..].iter().take_while(|line| **line != close);
    body.copied().collect::<Vec<_>>().join("\n")
}

fn has_function(text: &str, name: &str) -> bool {
    let rest = |at: usize| text[at..].chars().next();
    let call = format!("fn {name}");
    let mut found = text.match_indices(&call);
    found.any(|(at, call)| matches!(rest(at + call.len()), Some('(' | '<')))
}

/// The stable codes, from the table that defines them.
fn codes() -> BTreeSet<String> {
    let text = read("daemon/pki/src/error_code.rs");
    let defined = text.lines().filter_map(|line| line.split_once(" => \""));
    let codes = defined.filter_map(|(_, rest)| rest.strip_suffix("\","));
    codes.map(str::to_owned).collect()
}

/// The file and function of each line in the first block of code.
pub(crate) fn calls_in_its_block(page: &str) -> Vec<(String, String)> {
    let block = page.split("```\n").nth(1).expect("a block of code");
    let lines = block.lines().map(|line| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().expect("a file"), words.next().expect("a call"))
    });
    lines.collect()
}

/// Each "`file.rs`, `function`" in the text.
pub(crate) fn places_in_its_text(page: &str) -> Vec<(String, String)> {
    let page = page.replace("\n   ", " ").replace('\n', " ");
    let parts: Vec<&str> = page.split('`').collect();
    let triples = parts.windows(3).filter(|it| {
        let is_name = it[2].chars().all(|c| c.is_ascii_lowercase() || c == '_');
        it[0].ends_with(".rs") && it[1].trim() == "," && is_name
    });
    let places = triples.map(|it| (it[0].to_owned(), it[2].to_owned()));
    places.collect()
}

/// The codes in the sentences that begin with "Answers:".
fn refusals(page: &str) -> BTreeSet<String> {
    let items = page.split("\n\n").flat_map(|it| it.split(".\n"));
    let items = items.filter_map(|it| Some(it.split_once("Answers: ")?.1));
    items.flat_map(code_names).collect()
}

/// Text between backticks that is a word, and no beginning of one (`csr_`) and no path.
pub(crate) fn code_names(text: &str) -> Vec<String> {
    let names = text.split('`').skip(1).step_by(2);
    let names = names.filter(|it| {
        let is_word = it.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_word && !it.ends_with('_') && it.contains('_') && *it != "may_have_signed"
    });
    names.map(str::to_owned).collect()
}

/// Path and method.
type Route = (String, String);

/// The routes of the router, each with the permission that its handler takes.
fn routes() -> BTreeMap<Route, String> {
    let mut routes = BTreeMap::new();
    for (file, module) in [
        ("mod.rs", None),
        ("est.rs", Some("est")),
        ("published.rs", Some("published")),
        ("ocsp.rs", Some("ocsp")),
    ] {
        let text = read(&format!("{DAEMON}/api/{file}"));
        for call in text.split(".route(").skip(1) {
            let call = call.split_once("\n            .").map_or(call, |it| it.0);
            let path = call.split('"').nth(1).expect("a path").to_owned();
            let path = path
                .replace("{base}", "/.well-known/est")
                .replace("{end}", "");
            for (method, handler) in handlers(call) {
                let (own, name) = handler.rsplit_once("::").unwrap_or(("", &handler));
                let permission = permission(module.unwrap_or(own), name);
                routes.insert((path.clone(), method), permission);
            }
        }
    }
    routes
}

/// The handlers of one `route(…)`, such as `get(a::list).post(a::add)`.
fn handlers(call: &str) -> Vec<(String, String)> {
    let methods = ["get", "post", "delete", "put", "patch"];
    let found = methods.iter().filter_map(|method| {
        let (before, rest) = call.split_once(&format!("{method}("))?;
        let begins = before.ends_with(['.', ' ', '\n']);
        let handler = rest.split(')').next().unwrap_or_default();
        begins.then(|| (method.to_uppercase(), handler.to_owned()))
    });
    found.collect()
}

/// The permission that the first argument of a handler demands, in the words of docs/api.md.
fn permission(module: &str, handler: &str) -> String {
    let text = read(&format!("{DAEMON}/api/{module}.rs"));
    let (_, after) = text
        .split_once(&format!("async fn {handler}("))
        .unwrap_or_else(|| panic!("api/{module}.rs has no handler {handler}"));
    let arguments = after.split("->").next().unwrap_or_default();
    let Some((_, asked)) = arguments.split_once("Asks<") else {
        let is_open = arguments.contains("Open(") || arguments.contains(": Open");
        assert!(
            is_open,
            "api/{module}.rs: {handler} says nothing of callers"
        );
        return "all".into();
    };
    let asked = asked.split('>').next().unwrap_or_default();
    let who = match asked {
        "Issue" => "callers",
        "Fetch" => "callers, for their own",
        "Inspect" => "operators, auditors",
        "Operate" => "operators",
        "Approve" => "operators, approvers",
        "HandOver" => "operators, stations",
        // A permission of one route, which is for local users only.
        local => {
            let local = format!("for {local} {{");
            let of_it = text.split_once(&local).map_or("", |it| it.1);
            assert!(of_it.contains("LOCAL_ONLY"), "api/{module}.rs: {local}");
            "the admin socket"
        }
    };
    who.to_owned()
}

/// The rows of docs/api.md, and the codes that they name.
fn documented() -> (BTreeMap<Route, String>, BTreeSet<String>) {
    let page = read("docs/api.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut routes = BTreeMap::new();
    let mut named = BTreeSet::new();
    for row in rows {
        let (route, rest) = row.split_once("` | ").expect("a route");
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let cells: Vec<&str> = rest.trim_end_matches(" |").split(" | ").collect();
        assert!(cells.len() == 3, "docs/api.md: {route} has other cells");
        assert!(cells[1].len() > 10, "docs/api.md: {route} says nothing");
        named.extend(code_names(cells[2]));
        let is_new = routes
            .insert((path.to_owned(), method.to_owned()), cells[0].to_owned())
            .is_none();
        assert!(is_new, "docs/api.md: {route} has two rows");
    }
    (routes, named)
}
