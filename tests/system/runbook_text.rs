//! Reads the commands of the runbooks in docs/operations.md, and runs them line by line.

use crate::process::{CommandOutput, until};
use crate::test_env::{HALLMARK, HALLMARKD, TestEnv};
use std::collections::VecDeque;
use std::process::Command;

pub(crate) const OPERATIONS: &str = include_str!("../../docs/operations.md");
/// The tests that follow sections.
pub(crate) const STORIES: &str = concat!(
    include_str!("runbook.rs"),
    include_str!("approval_commands.rs"),
    include_str!("checkpoints.rs"),
    include_str!("custodians.rs")
);

/// The lines of one section's code blocks that a test has yet to take.
pub(crate) struct Runbook {
    lines: VecDeque<String>,
}

impl Runbook {
    pub(crate) fn of(heading: &str) -> Self {
        let found = sections().find(|(known, _)| *known == heading);
        let (_, text) = found.unwrap_or_else(|| panic!("there is no section {heading:?}"));
        let lines = commands(text).into();
        Self { lines }
    }

    /// Takes the next line, with some words exchanged: numbers and folders are the environment's
    /// own.
    pub(crate) fn line(&mut self, exchanged: &[(&str, &str)]) -> Line {
        let line = self.lines.pop_front().expect("the section has more lines");
        let exchange = |word: String| {
            let own = exchanged.iter().find(|(shown, _)| *shown == word);
            own.map_or(word.clone(), |(_, own)| (*own).to_owned())
        };
        Line(words(&line).into_iter().map(exchange).collect())
    }

    /// Runs the next line, which must succeed, and returns its output.
    pub(crate) fn text(&mut self, env: &TestEnv) -> String {
        self.line(&[]).text(env)
    }
}

impl Drop for Runbook {
    fn drop(&mut self) {
        assert!(
            std::thread::panicking() || self.lines.is_empty(),
            "no story runs {:?}",
            self.lines
        );
    }
}

pub(crate) struct Line(pub(crate) Vec<String>);

impl Line {
    pub(crate) fn run(&self, env: &TestEnv) -> CommandOutput {
        let program = match self.0[0].as_str() {
            "hallmark" => HALLMARK,
            "hallmarkd" => HALLMARKD,
            other => other,
        };
        let mut command = Command::new(program);
        command.args(&self.0[1..]).current_dir(env.path(""));
        command.env("HALLMARK_ADMIN_SOCKET", env.path("state/admin.sock"));
        CommandOutput::of(&mut command)
    }

    pub(crate) fn text(&self, env: &TestEnv) -> String {
        let output = self.run(env);
        assert_eq!(output.code, Some(0), "{:?}: {output:?}", self.0);
        output.out
    }

    /// Runs it until it says `words`.
    pub(crate) fn repeats_until_it_prints(&self, env: &TestEnv, words: &str) {
        until(words, || self.text(env).contains(words).then_some(()));
    }
}

pub(crate) fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sections = OPERATIONS.split("\n## ").skip(1);
    sections.map(|section| section.split_once('\n').unwrap())
}

/// The command lines of the `sh` blocks in `text`: continued ones joined, comments left out.
pub(crate) fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().replace("\\\n", " "));
    let lines = blocks.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|line| !words(line).is_empty()).collect()
}

/// Splits words as a shell would: double quotes hold together, and `#` begins a comment.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '#' if !quoted && word.is_none() => break,
            _ if character.is_whitespace() && !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}
