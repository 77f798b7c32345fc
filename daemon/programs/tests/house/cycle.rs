//! Compares docs/issuance-cycle.md with the code: the tree of calls, the numbers of the steps, and
//! the codes of step 7.

use crate::documents::{DAEMON, body_of, calls_in_its_block, code_names, places_in_its_text, read};
use std::collections::BTreeSet;

/// Called by axum, because its type is the first argument of the handler.
const BY_ARGUMENT: (&str, &str) = ("from_request_parts", "Asks<Issue>");

/// A line of the tree: its indentation, file and function.
struct Call {
    depth: usize,
    file: String,
    function: String,
}

/// Verifies that each function of the tree is called by the one above it, or in its file.
#[test]
fn the_tree_of_calls_is_that_of_the_code() {
    let page = read("docs/issuance-cycle.md");
    let block = page.split("```\n").nth(1).expect("a block of code");
    let depths = block
        .lines()
        .map(|line| line.len() - line.trim_start().len());
    let places = calls_in_its_block(&page).into_iter();
    let calls: Vec<Call> = depths
        .zip(places)
        .map(|(depth, (file, function))| Call {
            depth,
            file,
            function,
        })
        .collect();
    assert!(calls.len() > 8, "the tree has {} calls", calls.len());
    let mut broken = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let above = calls[..at].iter().rev().find(|it| it.depth < call.depth);
        let Some(above) = above else { continue };
        let text = read(&format!("{DAEMON}/{}", above.file));
        let text = if above.file == call.file {
            body_of(&text, &above.function)
        } else {
            text
        };
        let is_called = calls_function(&text, &call.function)
            || (call.function == BY_ARGUMENT.0 && text.contains(BY_ARGUMENT.1));
        if !is_called {
            broken.push(format!(
                "{} of {} does not call {}",
                above.function, above.file, call.function
            ));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn calls_function(text: &str, name: &str) -> bool {
    let called = [format!("{name}("), format!("{name}::<")];
    let lines = text.lines().filter(|it| !it.trim_start().starts_with("//"));
    let mut lines = lines.filter(|it| !it.contains(&format!("fn {name}")));
    lines.any(|line| called.iter().any(|it| line.contains(it.as_str())))
}

/// Verifies that the comments of `ca/issuer/issue.rs` number the steps as the page does, in the
/// order in which they run.
#[test]
fn the_steps_are_numbered_in_the_code() {
    let page = read("docs/issuance-cycle.md");
    let steps = page
        .lines()
        .filter_map(|it| it.split_once(". **")?.0.parse().ok());
    let steps: Vec<u32> = steps.collect();
    assert_eq!(steps, Vec::from_iter(1..=10), "the steps of the page");
    let code = read(&format!("{DAEMON}/ca/issuer/issue.rs"));
    let numbers = ["issue_certificate", "issue_leaf", "certify"].map(|it| numbers(&code, it));
    // `certify` names step 9 with step 8; `sign_and_verify` has one comment for each.
    assert_eq!(numbers.concat(), [1, 2, 3, 4, 5, 6, 7, 8, 10]);
    assert_eq!(self::numbers(&code, "sign_and_verify"), [8, 9]);
}

/// The numbers at the beginning of comments in a function.
fn numbers(code: &str, function: &str) -> Vec<u32> {
    let body = body_of(code, function);
    let comments = body.lines().filter_map(|it| it.trim().strip_prefix("// "));
    let numbers = comments.filter_map(|it| it.split_once(". ")?.0.parse().ok());
    numbers.collect()
}

/// Verifies that step 7 names each code by which the transaction refuses an intent.
#[test]
fn step_7_names_every_refusal_of_its_transaction() {
    let page = read("docs/issuance-cycle.md");
    let step = page.split("\n7. **").nth(1).expect("step 7");
    let step = step.split("\n8. **").next().unwrap_or_default();
    let named: BTreeSet<String> = code_names(step).into_iter().collect();
    let table = read("daemon/pki/src/error_code.rs");
    let conversion = read(&format!("{DAEMON}/ca/error.rs"));
    let conversion = conversion.split("impl From<IntentError> for Error").nth(1);
    let conversion = conversion.and_then(|it| it.split("\nimpl ").next());
    let variants = conversion.expect("the conversion").split("Code::").skip(1);
    let variants: Vec<&str> = variants
        .map(|it| {
            it.split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap_or("")
        })
        .collect();
    assert!(variants.len() > 10, "{variants:?}");
    let missing = variants.into_iter().filter(|variant| {
        let line = format!("        {variant} => \"");
        let name = table
            .split(&line)
            .nth(1)
            .and_then(|it| it.split('"').next());
        !named.contains(name.expect("a code of the table"))
    });
    let missing: Vec<&str> = missing.collect();
    assert!(missing.is_empty(), "step 7 does not name {missing:?}");
}

/// Verifies that the functions which answer the five questions can be read at one sitting.
#[test]
fn the_five_questions_are_answered_in_1000_lines() {
    let page = read("docs/issuance-cycle.md");
    let section = page.split("\n## Five questions").nth(1).expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let places: BTreeSet<_> = places_in_its_text(section).into_iter().collect();
    assert!(places.len() > 20, "{} places", places.len());
    let lines = places.iter().map(|(file, function)| {
        let text = read(&format!("{DAEMON}/{file}"));
        body_of(&text, function).lines().count()
    });
    let lines: usize = lines.sum();
    assert!((300..1_000).contains(&lines), "{lines} lines to read");
}
