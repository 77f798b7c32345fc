//! ETags and `If-Match`, in the three dialects of the planes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest `If-Match` that is read.
const HEADER_LENGTH_MAX: usize = 256;

/// The version that a client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// No header: for a PUT, "this must be new".
    Absent,
    /// `*`: whatever is there.
    Any,
    /// One version, without its quotes.
    Tag(String),
}

/// An `If-Match` that is neither `*` nor one quoted tag.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("ETag is invalid")]
pub(crate) struct Garbled;

impl IfMatch {
    /// The DPS dialect: `*` or `"<guid>"`, nothing else (contract section 4).
    pub(crate) fn strict(header: Option<&str>) -> Result<Self, Garbled> {
        match header.map(str::trim) {
            None => Ok(Self::Absent),
            Some("*") => Ok(Self::Any),
            Some(text) => Ok(Self::Tag(unquoted(text).ok_or(Garbled)?.to_owned())),
        }
    }

    /// The dialect of hub, resource manager and registrations: also `"*"` with quotes and a bare
    /// tag (contract sections 3, 11 and 12), because their SDKs send these.
    pub(crate) fn lenient(header: Option<&str>) -> Result<Self, Garbled> {
        let Some(text) = header.map(str::trim) else {
            return Ok(Self::Absent);
        };
        match unquoted(text).unwrap_or(text) {
            "*" => Ok(Self::Any),
            tag if is_tag(tag) => Ok(Self::Tag(tag.to_owned())),
            _ => Err(Garbled),
        }
    }

    /// Whether a thing that now has `etag` may be changed. `Absent` allows it: what a missing
    /// header means differs by operation and is decided there.
    pub(crate) fn allows(&self, etag: &str) -> bool {
        match self {
            Self::Absent | Self::Any => true,
            Self::Tag(tag) => tag == etag,
        }
    }
}

fn unquoted(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    is_tag(inner).then_some(inner)
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.len() <= HEADER_LENGTH_MAX && !text.contains('"')
}

/// A fresh tag for an enrollment: a guid. In a record's body it stands with its quotes.
pub(crate) fn fresh() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A registration's `etag`: base64 of the quoted guid (contract section 3).
pub(crate) fn fresh_for_registration() -> String {
    STANDARD.encode(format!("\"{}\"", fresh()))
}

/// The resource manager's and the hub's tags: base64 of eight bytes (contract section 11).
pub(crate) fn from_counter(count: u64) -> String {
    STANDARD.encode(count.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dps_wants_quotes_and_the_others_do_not_mind() {
        assert_eq!(IfMatch::strict(Some("\"a\"")), Ok(IfMatch::Tag("a".into())));
        assert_eq!(IfMatch::strict(Some("a")), Err(Garbled));
        assert_eq!(IfMatch::strict(Some("*")), Ok(IfMatch::Any));
        assert_eq!(IfMatch::lenient(Some("\"*\"")), Ok(IfMatch::Any));
        assert_eq!(
            IfMatch::lenient(Some("AAE=")),
            Ok(IfMatch::Tag("AAE=".into()))
        );
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parsers_panic(header in ".{0,300}") {
            let _ = IfMatch::strict(Some(&header));
            let _ = IfMatch::lenient(Some(&header));
        }

        #[test]
        fn a_tag_matches_itself_only(tag in "[a-z0-9-]{1,40}", other in "[a-z0-9-]{1,40}") {
            let quoted = format!("\"{tag}\"");
            let parsed = IfMatch::strict(Some(&quoted)).unwrap();
            prop_assert_eq!(parsed.allows(&other), tag == other);
        }
    }
}
