//! ETags, in the form in which `If-Match` wants them.

use serde::{Deserialize, Serialize};

/// The version of something at the service. `*` cannot be made: an unconditional write loses what
/// somebody else wrote in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Etag(String);

impl Etag {
    /// As DPS answers it: the string in the body contains the quotes already, and goes back
    /// exactly as it was read.
    pub fn verbatim(read: &str) -> Option<Self> {
        is_specific(read).then(|| Self(read.to_owned()))
    }

    /// As Azure Resource Manager answers it: without quotes in the body, with them in the header.
    pub fn quoted(read: &str) -> Option<Self> {
        is_specific(read).then(|| Self(format!("\"{}\"", read.trim_matches('"'))))
    }

    /// The value of `If-Match`.
    pub fn if_match(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Etag {
    type Error = &'static str;

    fn try_from(stored: String) -> Result<Self, Self::Error> {
        Self::verbatim(&stored).ok_or("not the etag of one version")
    }
}

impl From<Etag> for String {
    fn from(etag: Etag) -> String {
        etag.0
    }
}

/// Names one version, and fits an HTTP header.
fn is_specific(read: &str) -> bool {
    let bare = read.trim_matches('"');
    !bare.is_empty() && bare != "*" && read.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plane_has_its_own_quoting() {
        assert_eq!(Etag::verbatim("\"a-1\"").unwrap().if_match(), "\"a-1\"");
        assert_eq!(Etag::quoted("AAAA=").unwrap().if_match(), "\"AAAA=\"");
        assert_eq!(Etag::quoted("\"AAAA=\"").unwrap().if_match(), "\"AAAA=\"");
    }

    #[test]
    fn a_wildcard_or_a_header_break_is_no_version() {
        for read in ["*", "\"*\"", "", "\"\"", "a\r\nb", "a b"] {
            assert_eq!(Etag::verbatim(read), None, "{read:?}");
            assert_eq!(Etag::quoted(read), None, "{read:?}");
        }
    }
}
