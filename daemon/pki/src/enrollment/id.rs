//! Parses registration ids and enrollment group ids.
//!
//! An id of these types can be sent to DPS, fits a URL path segment once percent-encoded, and (a
//! registration id) fits the common name of a leaf. No other code may accept an id from outside as
//! a bare string.
//!
//! Two documents of DPS disagree about a leading special character. It is refused here, because a
//! device with an id that DPS refuses could not be provisioned any more.

use crate::error_code::Code;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// DPS allows 128, but with X.509 the id is the leaf's common name (RFC 5280 `ub-common-name`).
pub const REGISTRATION_ID_LENGTH_MAX: usize = 64;

/// Longest id of a group at DPS.
pub const ENROLLMENT_GROUP_ID_LENGTH_MAX: usize = 128;

/// Characters of a refused id that the error repeats.
const SHOWN_LENGTH_MAX: usize = 80;

/// The id of one device: its leaf's common name at every generation.
///
/// Equality, hash and order ignore ASCII case, as DPS does; the spelling is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistrationId(Caseless);

/// The id of an enrollment group. Equality, hash and order ignore ASCII case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnrollmentGroupId(Caseless);

impl RegistrationId {
    /// Parses an id from outside.
    pub fn parse(given: &str) -> Result<Self, IdInvalid> {
        parse(IdKind::Registration, given).map(Self)
    }

    /// Returns the id in its original spelling.
    pub fn as_str(&self) -> &str {
        &self.0.0
    }
}

impl EnrollmentGroupId {
    /// Parses an id from outside.
    pub fn parse(given: &str) -> Result<Self, IdInvalid> {
        parse(IdKind::EnrollmentGroup, given).map(Self)
    }

    /// Returns the id in its original spelling.
    pub fn as_str(&self) -> &str {
        &self.0.0
    }
}

/// Parses a string by the rules of DPS for `kind`.
fn parse(kind: IdKind, given: &str) -> Result<Caseless, IdInvalid> {
    match problem(kind, given) {
        None => Ok(Caseless(given.to_owned())),
        Some(problem) => Err(IdInvalid {
            kind,
            given: given.chars().take(SHOWN_LENGTH_MAX).collect(),
            problem,
        }),
    }
}

fn problem(kind: IdKind, given: &str) -> Option<Problem> {
    let (first, last) = match (given.chars().next(), given.chars().next_back()) {
        (Some(first), Some(last)) => (first, last),
        _ => return Some(Problem::Empty),
    };
    if given.len() > kind.length_max() {
        return Some(Problem::TooLong(given.len(), kind.length_max()));
    }
    if let Some(foreign) = given.chars().find(|c| !is_allowed(*c)) {
        return Some(Problem::Character(foreign));
    }
    if !first.is_ascii_alphanumeric() {
        return Some(Problem::First(first));
    }
    if !last.is_ascii_alphanumeric() && last != '-' {
        return Some(Problem::Last(last));
    }
    None
}

pub(super) fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | ':')
}

/// The kind of id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdKind {
    Registration,
    EnrollmentGroup,
}

impl IdKind {
    fn length_max(self) -> usize {
        match self {
            IdKind::Registration => REGISTRATION_ID_LENGTH_MAX,
            IdKind::EnrollmentGroup => ENROLLMENT_GROUP_ID_LENGTH_MAX,
        }
    }
}

impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdKind::Registration => "registration id",
            IdKind::EnrollmentGroup => "enrollment group id",
        })
    }
}

/// The reason why DPS would refuse an id, and its correction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} {problem}")]
pub struct IdInvalid {
    kind: IdKind,
    given: String,
    problem: Problem,
}

impl IdInvalid {
    /// Returns the stable code of the problem document.
    pub fn code(&self) -> Code {
        match self.kind {
            IdKind::Registration => Code::RegistrationIdInvalid,
            IdKind::EnrollmentGroup => Code::EnrollmentGroupIdInvalid,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("is empty: give at least one letter or digit")]
    Empty,
    #[error("has {0} bytes: shorten it to at most {1}")]
    TooLong(usize, usize),
    #[error("contains {0:?}: use only A-Z, a-z, 0-9 and - . _ :")]
    Character(char),
    #[error("begins with {0:?}: begin with a letter or a digit")]
    First(char),
    #[error("ends with {0:?}: end with a letter, a digit or -")]
    Last(char),
}

/// ASCII text that is compared in any case and printed in its original spelling.
#[derive(Clone)]
struct Caseless(String);

impl Caseless {
    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl PartialEq for Caseless {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Caseless {}

impl Hash for Caseless {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded().for_each(|byte| state.write_u8(byte));
        state.write_u8(0xff); // ends the text, as `str` does: no ASCII byte equals it
    }
}

impl Ord for Caseless {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(other.folded())
    }
}

impl PartialOrd for Caseless {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Caseless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Implements the common traits of both ids, which differ only in their limits.
macro_rules! text_conversions {
    ($id:ident) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $id {
            type Err = IdInvalid;
            fn from_str(given: &str) -> Result<Self, IdInvalid> {
                Self::parse(given)
            }
        }

        impl TryFrom<String> for $id {
            type Error = IdInvalid;
            fn try_from(given: String) -> Result<Self, IdInvalid> {
                Self::parse(&given)
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> String {
                id.0.0
            }
        }
    };
}

text_conversions!(RegistrationId);
text_conversions!(EnrollmentGroupId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn an_error_tells_how_to_mend() {
        let refused = |given: &str| RegistrationId::parse(given).unwrap_err().to_string();
        assert!(refused("").contains("at least one"));
        assert!(refused("-a").contains("begin with a letter"));
        assert!(refused("a.").contains("end with a letter"));
        assert!(refused("a b").contains("' '"));
        assert!(refused(&"a".repeat(65)).contains("at most 64"));
        assert_eq!(
            RegistrationId::parse("ä").unwrap_err().code(),
            Code::RegistrationIdInvalid
        );
    }

    #[test]
    fn a_group_id_may_be_longer_than_a_common_name() {
        assert!(EnrollmentGroupId::parse(&"g".repeat(128)).is_ok());
        let refused = EnrollmentGroupId::parse(&"g".repeat(129)).unwrap_err();
        assert_eq!(refused.code(), Code::EnrollmentGroupIdInvalid);
    }

    #[test]
    fn a_huge_id_is_not_repeated_whole() {
        let refused = RegistrationId::parse(&"x".repeat(1 << 20)).unwrap_err();
        assert!(refused.to_string().len() < 200);
    }

    #[test]
    fn case_is_kept_but_not_compared() {
        let upper = RegistrationId::parse("Line-7");
        let lower = "line-7".parse();
        let upper = upper.unwrap();
        let lower = lower.unwrap();
        assert_eq!(upper, lower);
        assert_eq!(upper.cmp(&lower), Ordering::Equal);
        assert_eq!(HashSet::from([upper.clone(), lower]).len(), 1);
        assert_eq!(upper.to_string(), "Line-7");
    }

    proptest! {
        // The regular expression of the contract, with the stricter first character.
        #[test]
        fn whatever_the_contract_allows_is_parsed(
            given in "[A-Za-z0-9]([A-Za-z0-9\\-._:]{0,62}[A-Za-z0-9\\-])?"
        ) {
            let id = RegistrationId::parse(&given).unwrap();
            prop_assert_eq!(id.as_str(), &given);
            let stored = serde_json::to_string(&id).unwrap();
            let loaded: RegistrationId = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(loaded.as_str(), &given);
        }

        #[test]
        fn whatever_it_forbids_is_refused(
            front in "[A-Za-z0-9][A-Za-z0-9\\-._:]{0,20}",
            foreign in "[^A-Za-z0-9\\-._:]",
            special in "[._:]",
        ) {
            let inside = format!("{front}{foreign}z");
            let last = format!("{front}{special}");
            prop_assert!(RegistrationId::parse(&inside).is_err());
            prop_assert!(RegistrationId::parse(&last).is_err());
            prop_assert!(serde_json::from_value::<RegistrationId>(last.into()).is_err());
        }
    }
}
