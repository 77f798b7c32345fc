//! Checks the prose of the tree: comments, documents and messages use plain words.
//!
//! A violation names file, line, word and the plain alternative. Text between backticks and blocks
//! of code in documents are names, not prose, and are not judged. RFCs are quoted with "must".

use crate::tree::{Source, tree};
use std::fmt::Write as _;

/// Words and phrases that are not used, and what to write. In a phrase, `*` is any one or two
/// words.
const BANNED: &[(&str, &str)] = &[
    ("whoever|whomever", "the caller, any process that"),
    (
        "somebody|someone|anybody",
        "a caller, another process, an operator",
    ),
    ("nobody|no one", "no caller, no client"),
    ("whom", "which, or the noun"),
    ("anew", "again"),
    ("meanwhile", "concurrently, since then"),
    ("of before", "previous"),
    ("by now", "now, already"),
    ("shall", "must, will, is to"),
    ("told|tells|telling", "reports, says, notifies"),
    ("in sight", "visible, listed"),
    ("news", "a change of state"),
    ("weather", "faults, outages"),
    ("knock|knocks|knocked", "connects, requests"),
    ("door|doors", "listener, access path"),
    ("bell|bells", "waker"),
    ("burn|burns|burned|burnt|unburned", "abandon, abandoned"),
    (
        "breach|breaches|breached|breaching",
        "compromise, compromised",
    ),
    ("in wrong hands", "compromised"),
    (
        "shut out|shuts out|shut * out|shuts * out|shutting * out",
        "exclude",
    ),
    ("put out|puts out|put * out|puts * out", "exclude, remove"),
    (
        "kept out|keep out|keeps out|keep it out|keep them out|keeping it out",
        "exclude",
    ),
    (
        "let it in|lets it in|let them in|lets them in|let back in|lets in|let * back in",
        "accept, admit, re-enable",
    ),
    (
        "comes to its end|come to its end|come to their end|comes to an end",
        "ends, expires",
    ),
    (
        "is looked at|are looked at|was looked at|were looked at|is looked whether|it is looked",
        "is polled, is checked, is read",
    ),
    (
        "it is seen|that is seen|was seen as",
        "is observed, is read",
    ),
];

/// First words of a sentence that has no noun as its subject.
const OPENINGS: &[&str] = &[
    "what",
    "who",
    "whom",
    "whose",
    "one that",
    "those that",
    "those who",
    "that of",
    "those of",
    "the one that",
];

/// First words of a module header that do not say what the module does.
const RIDDLES: &[&str] = &[
    "what", "who", "how", "whether", "when", "where", "why", "if", "that", "those", "it", "this",
    "the same", "one that",
];

/// Files that quote the words, or keep the words of their date.
const QUOTES: &[&str] = &["daemon/programs/tests/house/prose.rs", "docs/glossary.md"];

#[test]
fn prose_has_no_banned_word() {
    refuse(|source, report| {
        for block in blocks(source) {
            for (line, word, instead) in banned(&block, BANNED) {
                report.push((line, format!("\"{word}\": write {instead}")));
            }
        }
    });
}

#[test]
fn sentences_begin_with_their_subject() {
    refuse(|source, report| {
        for block in blocks(source) {
            for (line, opening) in opened(&block) {
                let text = format!("a sentence begins with \"{opening}\": name the thing");
                report.push((line, text));
            }
        }
    });
}

#[test]
fn messages_have_no_banned_word() {
    refuse(|source, report| {
        if !source.is_product() {
            return;
        }
        for (number, line) in source.product_lines() {
            for text in literals(line).filter(|text| text.trim().contains(' ')) {
                let block = Block::of(number, text);
                for (line, word, instead) in banned(&block, BANNED) {
                    report.push((line, format!("\"{word}\" in a message: write {instead}")));
                }
            }
        }
    });
}

#[test]
fn terms_of_the_glossary_have_no_second_word() {
    let glossary = tree().into_iter().find(|it| it.path == "docs/glossary.md");
    let glossary = glossary.expect("docs/glossary.md").text;
    let terms = rejected_terms(&glossary);
    assert!(
        terms.len() > 10,
        "the glossary's table is not read: {terms:?}"
    );
    let terms: Vec<_> = terms
        .iter()
        .map(|(no, yes)| (no.as_str(), yes.as_str()))
        .collect();
    refuse(|source, report| {
        for block in blocks(source) {
            for (line, word, instead) in banned(&block, &terms) {
                report.push((
                    line,
                    format!("\"{word}\": the glossary's term is {instead}"),
                ));
            }
        }
    });
}

#[test]
fn a_module_says_first_what_it_does() {
    refuse(|source, report| {
        let header = source.text.lines().next().unwrap_or_default();
        let Some(header) = header.strip_prefix("//! ") else {
            return;
        };
        let riddle = source.is_product() && starts_with_one_of(header, RIDDLES).is_some();
        if riddle {
            let text = "a module header begins with a verb (\"Checks …\") or a noun phrase";
            report.push((1, text.to_owned()));
        }
    });
}

#[test]
fn a_bool_is_not_matched() {
    refuse(|source, report| {
        for (number, line) in source.product_lines() {
            let line = line.trim_start();
            if line.starts_with("true => ") || line.starts_with("false => ") {
                report.push((number, "match on a bool: write if and else".to_owned()));
            }
        }
    });
}

#[test]
fn one_let_binds_one_value() {
    refuse(|source, report| {
        for (number, line) in source.product_lines() {
            if binds_a_tuple_of_values(line) {
                report.push((number, "let (a, b) = (x, y): one let for each".to_owned()));
            }
        }
    });
}

/// Doc comments that say nothing that a name or a type does not say.
const FILLER: &[&str] = &[
    "Row id.",
    "Unix seconds.",
    "DER.",
    "PEM.",
    "The name.",
    "The id.",
    "Its name.",
    "Its id.",
];

#[test]
fn a_doc_comment_says_more_than_the_type() {
    refuse(|source, report| {
        for (number, line) in source.numbered_lines() {
            let doc = line.trim_start().strip_prefix("/// ");
            if source.is_product() && doc.is_some_and(|doc| FILLER.contains(&doc)) {
                report.push((number, "filler: let the type or the name say it".to_owned()));
            }
        }
    });
}

/// Items of a public interface that need a doc comment. Fields and variants have one only where it
/// says more than the name, so the compiler's lint `missing_docs` does not fit.
const DOCUMENTED: &[&str] = &[
    "pub fn ",
    "pub async fn ",
    "pub const ",
    "pub static ",
    "pub struct ",
    "pub enum ",
    "pub trait ",
    "pub type ",
];

#[test]
fn a_public_item_has_a_doc_comment() {
    refuse(|source, report| {
        let mut documented = false;
        for (number, line) in source.numbered_lines() {
            let line = line.trim_start();
            let is_item = DOCUMENTED.iter().any(|start| line.starts_with(start));
            if source.is_product() && is_item && !documented {
                report.push((number, "a public item without a doc comment".to_owned()));
            }
            let begins_new = line.is_empty() || line.ends_with(['{', '}', ';']);
            // Such a line of a macro passes on the doc comment of its caller.
            let is_doc = line.starts_with("///") || line.starts_with("$(#[$");
            documented = is_doc || (documented && !begins_new);
        }
    });
}

/// Endings of a line that only begins an iteration.
const ITERATORS: &[&str] = &[
    ".iter();",
    ".into_iter();",
    ".iter_mut();",
    ".keys();",
    ".values();",
    ".lines();",
    ".chars();",
];

#[test]
fn an_iterator_is_not_named_for_the_next_line() {
    refuse(|source, report| {
        let mut before = None;
        for (number, line) in source.product_lines() {
            let line = line.trim_start();
            if before.is_some_and(|name| chains(line, name)) {
                report.push((number, "write the iteration as one chain".to_owned()));
            }
            let begins = ITERATORS.iter().any(|end| line.ends_with(end));
            before = line.strip_prefix("let ").filter(|_| begins).map(name_of);
        }
    });
}

/// The name that a `let` without its keyword binds.
fn name_of(binding: &str) -> &str {
    let binding = binding.trim_start_matches("mut ");
    binding.split([' ', ':']).next().unwrap_or_default()
}

fn chains(line: &str, name: &str) -> bool {
    let expression = match line.strip_prefix("let ") {
        Some(binding) => binding.split_once(" = ").map_or("", |(_, value)| value),
        None => line,
    };
    let rest = expression.strip_prefix(name);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

type Report = Vec<(usize, String)>;

/// Fails with every violation that `judge` finds in the files that are not still to do.
fn refuse(judge: impl Fn(&Source, &mut Report)) {
    let mut broken = String::new();
    for source in tree() {
        let exempt = |list: &[&str]| list.iter().any(|prefix| source.path.starts_with(prefix));
        if exempt(QUOTES) {
            continue;
        }
        let mut report = Report::new();
        judge(&source, &mut report);
        for (line, text) in report {
            let _ = writeln!(broken, "{}:{line}: {text}", source.path);
        }
    }
    assert!(broken.is_empty(), "\n{broken}");
}

/// Consecutive lines of prose: a comment, a paragraph, an item of a list, a cell of a table.
#[derive(Default)]
struct Block(Vec<(usize, String)>);

impl Block {
    fn of(line: usize, text: &str) -> Self {
        Self(vec![(line, text.to_owned())])
    }
}

/// One word, or the end of a sentence (an empty word).
struct Word {
    line: usize,
    text: String,
    ends_sentence: bool,
    asks: bool,
    is_capital: bool,
}

fn blocks(source: &Source) -> Vec<Block> {
    let mut found = Vec::new();
    let mut block = Block::default();
    let mut in_code = false;
    for (number, line) in source.numbered_lines() {
        let prose = source.prose_of(line);
        let fence = prose.is_some_and(|it| it.trim_start().starts_with("```"));
        in_code ^= fence;
        let text = prose.filter(|it| !fence && !in_code && !it.trim().is_empty());
        let text = text.map(str::trim_start).unwrap_or_default();
        let begins = text.is_empty() || text.starts_with(['|', '*', '-', '#']);
        if begins && !block.0.is_empty() {
            found.push(std::mem::take(&mut block));
        }
        if text.starts_with('|') {
            found.extend(text.split('|').map(|cell| Block::of(number, cell)));
        } else if !text.is_empty() {
            let text = text.trim_start_matches(['*', '-', '#', ' ']);
            block.0.push((number, text.to_owned()));
        }
    }
    found.push(block);
    found
}

/// The words of a block without what stands between backticks.
fn words(block: &Block) -> Vec<Word> {
    let mut words = Vec::new();
    let mut in_code = false;
    for (line, text) in &block.0 {
        for token in text.split_whitespace() {
            let mut kept = String::new();
            for (index, part) in token.split('`').enumerate() {
                if index > 0 {
                    in_code = !in_code;
                }
                let shown = if in_code { "x" } else { part };
                kept.push_str(shown);
            }
            let end = kept.trim_end_matches(['"', ')', '*', '”']);
            let inner = kept.trim_matches(|it: char| !it.is_alphanumeric());
            words.push(Word {
                line: *line,
                text: inner.to_lowercase(),
                ends_sentence: end.ends_with(['.', '!', '?']),
                asks: end.ends_with('?'),
                is_capital: inner.starts_with(char::is_uppercase),
            });
        }
    }
    words
}

fn banned(block: &Block, list: &[(&str, &str)]) -> Vec<(usize, String, String)> {
    let words = words(block);
    let mut found = Vec::new();
    for (phrases, instead) in list {
        for phrase in phrases.split('|') {
            let phrase: Vec<&str> = phrase.split(' ').collect();
            let places = (0..words.len()).filter(|start| fits(&words[*start..], &phrase));
            let named = |start: usize| (words[start].line, phrase.join(" "), (*instead).to_owned());
            found.extend(places.map(named));
        }
    }
    found
}

/// Returns true if `words` begin with `phrase`, within one sentence.
fn fits(words: &[Word], phrase: &[&str]) -> bool {
    let Some((first, rest)) = phrase.split_first() else {
        return true;
    };
    if *first == "*" {
        return (1..=2)
            .any(|gap| words.len() > gap && within(&words[..gap]) && fits(&words[gap..], rest));
    }
    let Some(word) = words.first() else {
        return false;
    };
    let goes_on = rest.is_empty() || !word.ends_sentence;
    word.text == *first && goes_on && fits(&words[1..], rest)
}

fn within(words: &[Word]) -> bool {
    words.iter().all(|word| !word.ends_sentence)
}

/// Sentences that are no questions and begin with one of [`OPENINGS`].
fn opened(block: &Block) -> Vec<(usize, String)> {
    let words = words(block);
    let sentences = words.split_inclusive(|word| word.ends_sentence);
    let statements = sentences
        .filter(|words| words[0].is_capital && !words.last().is_some_and(|word| word.asks));
    let openings = statements.filter_map(|words| {
        let found = OPENINGS.iter().find(|opening| {
            let opening: Vec<&str> = opening.split(' ').collect();
            fits(words, &opening)
        })?;
        Some((words[0].line, (*found).to_owned()))
    });
    openings.collect()
}

fn starts_with_one_of<'a>(text: &str, list: &[&'a str]) -> Option<&'a str> {
    let words = words(&Block::of(1, text));
    let starts = |opening: &&&str| {
        let opening: Vec<&str> = opening.split(' ').collect();
        fits(&words, &opening)
    };
    list.iter().find(starts).copied()
}

/// The string literals of one line, without their quotes.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

fn binds_a_tuple_of_values(line: &str) -> bool {
    let Some(rest) = line.trim_start().strip_prefix("let (") else {
        return false;
    };
    let Some((names, _)) = rest.split_once(") = (") else {
        return false;
    };
    let is_name = |it: char| it.is_alphanumeric() || matches!(it, '_' | ',' | ' ');
    names.chars().all(is_name)
}

/// The words of the glossary's last column in bold, each with its term.
fn rejected_terms(glossary: &str) -> Vec<(String, String)> {
    let rows = glossary.lines().filter(|line| line.starts_with("| "));
    let terms = rows.flat_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (term, not) = (
            cells[0].to_owned(),
            cells.last().copied().unwrap_or_default(),
        );
        let bold = not.split("**").skip(1).step_by(2).map(str::to_owned);
        bold.map(move |word| (word, term.clone()))
            .collect::<Vec<_>>()
    });
    terms.collect()
}

#[test]
fn the_rules_find_what_they_are_for() {
    let block = Block::of(
        3,
        "What `is told` was refused. A device is shut right out. Who asks?",
    );
    let words: Vec<_> = banned(&block, BANNED).into_iter().map(|it| it.1).collect();
    assert_eq!(words, ["shut * out"]);
    assert_eq!(opened(&block), [(3, "what".to_owned())]);
    assert!(binds_a_tuple_of_values("    let (a, mut b) = (1, 2);"));
    assert!(!binds_a_tuple_of_values("    let (a, b) = pair();"));
}
