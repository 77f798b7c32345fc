//! Compares the tables of codes in docs/operations.md with the code, both ways.

use super::Code;
use super::alarm::AlarmCode;
use super::approval::Action;
use super::doctor::check::Check;
use super::exclusion::place::PlaceCode;
use super::roll::{EstimateCode, WaitCode};
use super::status::NotReady;
use std::collections::BTreeSet;
use std::path::Path;

/// The first cell of each row below `heading`, where it is a name between backquotes.
fn listed(heading: &str) -> Vec<String> {
    let rows = rows(heading);
    let names = rows.iter().map(|row| row.split('`').next());
    names.filter_map(|name| Some(name?.to_owned())).collect()
}

/// Each row below `heading` that begins with a name between backquotes, without the first one.
fn rows(heading: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let page = std::fs::read_to_string(page).expect("docs/operations.md");
    let (_, section) = page
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("docs/operations.md has no section {heading:?}"));
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(str::to_owned).collect()
}

fn compare<'a>(heading: &str, names: impl IntoIterator<Item = &'a str>) {
    let rows = listed(heading);
    let documented: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(rows.len(), documented.len(), "{heading}: a row twice");
    let codes: BTreeSet<&str> = names.into_iter().collect();
    let missing: Vec<_> = codes.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&codes).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{heading}: in the code and not in docs/operations.md: {missing:?}; in docs/operations.md \
         and not in the code: {unknown:?}"
    );
}

#[test]
fn every_code_of_a_refusal_is_documented() {
    let names = Code::ALL.iter().map(|it| it.name());
    compare("## Codes of refusals and failures", names);
}

#[test]
fn every_alarm_is_documented_with_its_question_severity_and_remedy() {
    let heading = "## Alarms";
    compare(heading, AlarmCode::ALL.iter().map(|it| it.name()));
    for row in rows(heading) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`');
        let code = AlarmCode::ALL.iter().find(|it| it.name() == name);
        let of_code = code.map(|it| format!("{}, {}", it.question(), it.severity()));
        assert_eq!(of_code.as_deref(), Some(cells[1]), "{name}");
        assert_eq!(code.map(|it| it.remedy()), Some(cells[4]), "{name}");
    }
}

#[test]
fn every_check_is_documented_with_its_remedy() {
    let heading = "### Checks";
    compare(heading, Check::ALL.iter().map(|it| it.name()));
    for row in rows(heading) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`');
        let check = Check::ALL.iter().find(|it| it.name() == name);
        let check = check.expect("it was compared");
        let runs = if check.runs_without_daemon() {
            "yes"
        } else {
            "no"
        };
        assert_eq!(cells[2], runs, "{name}");
        assert!(cells[3].len() > 10, "{name}: no fault is named");
        assert_eq!(cells[4], check.remedy(), "{name}");
    }
}

#[test]
fn every_action_that_may_need_an_approval_is_documented_with_its_meaning() {
    let heading = "## Two people agree";
    compare(heading, Action::ALL.iter().map(|it| it.name()));
    for row in rows(heading) {
        let (name, meaning) = row.split_once("` | ").expect("two cells");
        let action = Action::from_name(name).expect("it was compared");
        assert_eq!(meaning, format!("{} |", action.meaning()), "{name}");
    }
}

#[test]
fn every_reason_not_to_be_ready_is_documented() {
    let names = NotReady::ALL.iter().map(|it| it.name());
    compare("### Conditions of readiness", names);
}

#[test]
fn every_wait_of_a_rollover_is_documented() {
    compare(
        "### Reasons for which a rollover waits",
        WaitCode::ALL.iter().map(|it| it.name()),
    );
}

#[test]
fn every_estimate_of_a_rollover_is_documented() {
    compare(
        "### Estimates of rollovers",
        EstimateCode::ALL.iter().map(|it| it.name()),
    );
}

#[test]
fn every_answer_of_a_place_is_documented_with_its_state() {
    let heading = "## Answers of places in receipts";
    compare(heading, PlaceCode::ALL.iter().map(|it| it.name()));
    for row in rows(heading) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`');
        let code = PlaceCode::ALL.iter().find(|it| it.name() == name);
        let state = code.map(|it| it.state().name());
        assert_eq!(Some(cells[1]), state, "{name}");
    }
}
