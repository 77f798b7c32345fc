//! Reads ETags of the services into the form that `If-Match` needs.

use serde::{Deserialize, Serialize};

/// The version of a resource at the service. `*` cannot be represented: an unconditional write
/// would lose a concurrent change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Etag(String);

impl Etag {
    /// Reads an ETag of DPS, whose body contains the quotes. It is sent back unchanged.
    pub fn verbatim(read: &str) -> Option<Self> {
        is_specific(read).then(|| Self(read.to_owned()))
    }

    /// Reads an ETag of Azure Resource Manager: no quotes in the body, quotes in the header.
    pub fn quoted(read: &str) -> Option<Self> {
        is_specific(read).then(|| Self(format!("\"{}\"", read.trim_matches('"'))))
    }

    /// Returns the value of `If-Match`.
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

/// Checks that the text names one version and fits an HTTP header.
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
