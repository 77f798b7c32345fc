//! Prints text from outside with escapes for control characters, escape sequences, marks that
//! change the direction of writing, and invisible characters.
//!
//! Names in requests, answers of services, labels of tokens and names of files can hold anything. A
//! line break would forge a line of the audit journal on an operator's terminal, and an escape
//! sequence would overwrite the screen. A program prints through [`out`] or [`err`] and logs
//! through [`line`]. JSON has escapes of its own and is printed unchanged ([`exact_out`]).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Stderr, Stdout, Write};

/// Letters and marks without width that Unicode counts as printable.
const INVISIBLE: [(char, char); 9] = [
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{e0100}', '\u{e01ef}'),
];

/// Returns the text as one line: `\n` for a line break, `\u{1b}` for an escape.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |it| !is_plain(it))
}

/// Returns the text with its line breaks; other control characters are escaped.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |it| it != '\n' && !is_plain(it))
}

fn escaped(text: &str, acts: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if !acts(character) {
            shown.push(character);
        } else if is_invisible(character) {
            // Writing into a String cannot fail.
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            let _ = write!(shown, "{}", character.escape_debug());
        }
    }
    Cow::Owned(shown)
}

fn is_plain(character: char) -> bool {
    match character {
        ' '..='~' => true,
        _ if character.is_ascii() => false,
        _ => is_printable(character) && !is_invisible(character),
    }
}

/// Returns true if the standard library prints the character unescaped in a string. It knows the
/// categories of Unicode (Cc, Cf, Zl, Zp and others), and prints a mark that follows a letter.
fn is_printable(character: char) -> bool {
    let after_a_letter = ['a', character].iter().collect::<String>();
    let mut shown = after_a_letter.escape_debug().skip(1);
    shown.next() == Some(character)
}

fn is_invisible(character: char) -> bool {
    INVISIBLE
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&character))
}

/// A text that is built line by line. The content of a line cannot begin another line.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Adds one line.
    pub fn line(&mut self, text: &str) {
        self.0.push_str(&line(text));
        self.0.push('\n');
    }

    /// Adds lines.
    pub fn lines(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.line(&text);
        }
    }

    /// Adds PEM blocks line by line, with `first` before the first line and `pad` before the
    /// others. Text that is no PEM becomes one line.
    pub fn pem(&mut self, first: &str, pad: &str, text: &str) {
        if !is_pem(text) {
            return self.line(&format!("{first}{text}"));
        }
        let mut lead = first;
        for text in text.lines() {
            self.line(&format!("{lead}{text}"));
            lead = pad;
        }
    }

    /// Returns all lines.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Returns true if the text consists of PEM blocks, which may be shown on several lines.
pub fn is_pem(text: &str) -> bool {
    let label = |it: u8| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b' ';
    let is_edge = |line: &str| {
        let inner = line
            .strip_prefix("-----")
            .and_then(|it| it.strip_suffix("-----"));
        inner.is_some_and(|it| it.bytes().all(label))
    };
    let base64 = |it: u8| it.is_ascii_alphanumeric() || b"+/=".contains(&it);
    text.starts_with("-----BEGIN ")
        && text.trim_end().ends_with("-----")
        && text
            .lines()
            .all(|line| is_edge(line) || line.bytes().all(base64))
}

/// Parses the program's arguments. Wrong arguments end the program; they are printed escaped.
pub fn arguments<A: clap::Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            // Standard error may be closed; the exit code remains.
            let _ = err().write_all(error.render().to_string().as_bytes());
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

/// Returns standard output for text.
pub fn out() -> Printed<Stdout> {
    Printed(io::stdout())
}

/// Returns standard error for text.
pub fn err() -> Printed<Stderr> {
    Printed(io::stderr())
}

/// Returns standard output for JSON, whose own escapes must stay.
pub fn exact_out() -> Stdout {
    io::stdout()
}

/// A writer that escapes control characters except line breaks.
#[derive(Debug)]
pub struct Printed<W>(W);

impl<W: Write> Write for Printed<W> {
    /// The formatting macros pass whole strings, so no character is split.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(lines(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        for (text, shown) in [
            ("press-7", "press-7"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\0"),
            (
                "\u{1b}[31mred\u{7f}\u{9b}2J",
                "\\u{1b}[31mred\\u{7f}\\u{9b}2J",
            ),
            (
                "a\u{202e}b\u{2066}c\u{2069}",
                "a\\u{202e}b\\u{2066}c\\u{2069}",
            ),
            (
                "\u{200b}\u{200d}\u{feff}\u{ad}",
                "\\u{200b}\\u{200d}\\u{feff}\\u{ad}",
            ),
            ("\u{2028}\u{2029}\u{85}", "\\u{2028}\\u{2029}\\u{85}"),
            ("\u{61c}\u{200e}\u{200f}", "\\u{61c}\\u{200e}\\u{200f}"),
            ("\u{e0041}\u{fe0f}\u{3164}", "\\u{e0041}\\u{fe0f}\\u{3164}"),
            ("\u{e000}\u{fff9}", "\\u{e000}\\u{fff9}"),
            ("\"C:\\new\" 'x'", "\"C:\\new\" 'x'"),
            ("Müller ไทย 日本 e\u{301}", "Müller ไทย 日本 e\u{301}"),
        ] {
            assert_eq!(line(text), shown, "{text:?}");
            let twice = line(shown);
            assert_eq!(twice, shown, "an escape is plain text");
        }
        assert_eq!(lines("a\nb\r\u{202e}"), "a\nb\\r\\u{202e}");
    }

    #[test]
    fn no_line_of_a_page_begins_another_one() {
        let mut page = Page::default();
        page.line("label x\nToken forged");
        page.pem("", "  ", "-----BEGIN X-----\nAAAA\n-----END X-----\n");
        page.pem(
            "",
            "  ",
            "-----BEGIN X-----\nowner: root\n-----END X-----\n",
        );
        let text = page.into_text();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(
            text.contains("\n  AAAA\n") && text.contains("\\nowner: root\\n"),
            "{text}"
        );
    }

    #[test]
    fn a_writer_escapes_what_is_formatted_into_it() {
        let mut printed = Printed(Vec::new());
        let name = "a\u{1b}";
        let value = 'é';
        writeln!(printed, "{name}: {value}").unwrap();
        assert_eq!(printed.0, "a\\u{1b}: é\n".as_bytes());
    }
}
