//! Matches names of devices and stations against the patterns of the configuration.
//!
//! `*` matches any characters and `?` one; every other character matches itself. Case is ignored,
//! as DPS ignores it in registration ids. A pattern must match the whole name.

use super::id::{REGISTRATION_ID_LENGTH_MAX, is_allowed};
use std::fmt;

/// Longest pattern: a name of the greatest length with a `*` beside each character.
pub const PATTERN_BYTES_MAX: usize = 2 * REGISTRATION_ID_LENGTH_MAX;

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePattern(String);

/// The reason why a pattern is invalid, and its correction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternInvalid {
    /// The pattern is empty.
    #[error("a pattern is empty; write \"*\" to cover every name")]
    Empty,
    /// The pattern is too long.
    #[error("a pattern has {0} bytes; at most {PATTERN_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The pattern has a character that no name has.
    #[error(
        "pattern {pattern:?} has {character:?}, which no name has; use letters, digits and - . _ \
         : with * for any characters and ? for one"
    )]
    Character {
        pattern: String,
        /// The first such character.
        character: char,
    },
}

impl NamePattern {
    /// Parses a pattern of the configuration.
    pub fn parse(given: &str) -> Result<Self, PatternInvalid> {
        if given.is_empty() {
            return Err(PatternInvalid::Empty);
        }
        if given.len() > PATTERN_BYTES_MAX {
            return Err(PatternInvalid::TooLong(given.len()));
        }
        let foreign = |it: &char| !is_allowed(*it) && !matches!(it, '*' | '?');
        match given.chars().find(foreign) {
            None => Ok(Self(given.to_ascii_lowercase())),
            Some(character) => Err(PatternInvalid::Character {
                pattern: given.to_owned(),
                character,
            }),
        }
    }

    /// Returns true if the pattern matches the whole `name`.
    pub fn covers(&self, name: &str) -> bool {
        covers(self.0.as_bytes(), name.as_bytes())
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// On a mismatch, only the last `*` takes one more byte: an earlier `*` would not help. So the time
/// is at most the product of both lengths.
fn covers(pattern: &[u8], name: &[u8]) -> bool {
    let mut at = 0;
    let mut position = 0;
    let mut last_star = None;
    while position < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, position));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[position].to_ascii_lowercase() => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else {
                    return false;
                };
                last_star = Some((star, taken + 1));
                at = star + 1;
                position = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_covers_whole_names() {
        for (text, covered, others) in [
            ("*", &["a", "press-7", ""][..], &[][..]),
            (
                "press-7",
                &["press-7", "PRESS-7"],
                &["press-77", "xpress-7", "press-"],
            ),
            (
                "Press-*",
                &["press-", "press-7", "PRESS-7-a"],
                &["press", "a-press-7"],
            ),
            ("*-7", &["press-7", "-7", "7-7-7"], &["press-77", "7"]),
            (
                "p*s?-7",
                &["press-7", "pss-7", "p-ss-s--7"],
                &["ps-7", "pres-7s"],
            ),
            ("line.1-*", &["line.1-a"], &["line-1-a", "line1-a"]),
            ("???", &["abc"], &["ab", "abcd", ""]),
        ] {
            for name in covered {
                assert!(pattern(text).covers(name), "{text} covers {name:?}");
            }
            for name in others {
                assert!(
                    !pattern(text).covers(name),
                    "{text} does not cover {name:?}"
                );
            }
        }
    }

    #[test]
    fn what_no_name_has_is_refused() {
        let too_long = "x".repeat(PATTERN_BYTES_MAX + 1);
        for text in [
            "",
            "press 7",
            "press-[0-9]",
            "press-7\n",
            "pr\u{e4}ss-*",
            "a/b",
            "{a,b}",
            "!a",
            "\\*",
            &too_long,
        ] {
            assert!(NamePattern::parse(text).is_err(), "{text:?}");
        }
        assert!(NamePattern::parse(&"x".repeat(PATTERN_BYTES_MAX)).is_ok());
    }

    /// A pattern built to be slow is matched at once.
    #[test]
    fn many_stars_cost_little() {
        let slow = pattern(&"a*".repeat(PATTERN_BYTES_MAX / 2));
        let name = "a".repeat(REGISTRATION_ID_LENGTH_MAX - 1) + "b";
        for _ in 0..10_000 {
            assert!(!pattern(&format!("{slow}c")[1..]).covers(&name));
        }
    }

    /// Matches by definition, without regard to time.
    fn defined(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((b'*', rest)), None) => defined(rest, name),
            (Some((b'*', rest)), Some((_, after))) => {
                defined(rest, name) || defined(pattern, after)
            }
            (Some(_), None) => false,
            (Some((byte, rest)), Some((first, after))) => {
                (*byte == b'?' || byte == first) && defined(rest, after)
            }
        }
    }

    proptest! {
        #[test]
        fn covers_what_the_definition_covers(text in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            let expected = defined(text.as_bytes(), name.as_bytes());
            prop_assert_eq!(pattern(&text).covers(&name), expected);
        }
    }
}
