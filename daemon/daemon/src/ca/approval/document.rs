//! Writes the document that an approver signs, from what is asked.
//!
//! The document is JSON with its members in alphabetical order, so the same request has the same
//! bytes whenever it is written. The signed bytes are [`DOMAIN`] and the document: no signature for
//! another purpose begins with them.

use super::action::Action;
use crate::unix_seconds::UnixSeconds;
use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

/// The first line of what is signed.
pub const DOMAIN: &str = "hallmark approval 1\n";
/// Longer strings are replaced by their length and SHA-256.
const STRING_BYTES_MAX: usize = 32 * 1024;
/// The same in a body of more than [`BODY_BYTES_MAX`], such as the files of an offline root.
const STRING_OF_MANY_BYTES_MAX: usize = 1024;
const BODY_BYTES_MAX: usize = 128 * 1024;
/// Members that are secrets.
const SECRETS: [&str; 1] = ["password"];

/// An action that a caller asks for.
#[derive(Clone, Debug)]
pub struct AskedAction {
    pub action: Action,
    /// Role and name, or the local user.
    pub asked_by: String,
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The body: JSON as it is, text in its lines.
    pub body: Value,
}

/// The members that make a document one of its own.
#[derive(Clone, Debug)]
pub struct Terms {
    pub asked_at: UnixSeconds,
    pub expires_at: UnixSeconds,
    /// Random, in hex.
    pub nonce: String,
}

impl AskedAction {
    /// Writes the document.
    pub fn document(&self, terms: &Terms) -> String {
        let mut document = self.content();
        document["asked_at"] = terms.asked_at.to_string().into();
        document["expires_at"] = terms.expires_at.to_string().into();
        document["nonce"] = terms.nonce.clone().into();
        escaped(&format!("{:#}\n", sorted(document)))
    }

    /// SHA-256 of what is asked for, without terms.
    pub fn content_sha256(&self) -> [u8; 32] {
        sha256(sorted(self.content()).to_string().as_bytes())
    }

    fn content(&self) -> Value {
        json!({
            "action": self.action.name(),
            "asked_by": self.asked_by,
            "body": self.body_shown(),
            "does": self.action.meaning(),
            "method": self.method,
            "path": self.path,
        })
    }
}

impl AskedAction {
    fn body_shown(&self) -> Value {
        let whole = shown(self.body.clone(), STRING_BYTES_MAX);
        if whole.to_string().len() <= BODY_BYTES_MAX {
            return whole;
        }
        shown(self.body.clone(), STRING_OF_MANY_BYTES_MAX)
    }
}

/// Returns the bytes that are signed.
pub fn signed_bytes(document: &str) -> Vec<u8> {
    [DOMAIN.as_bytes(), document.as_bytes()].concat()
}

/// Returns the SHA-256 of the bytes that are signed.
pub fn signed_sha256(document: &str) -> [u8; 32] {
    sha256(&signed_bytes(document))
}

/// Returns the members in which two documents differ.
pub fn differing(one: &str, other: &str) -> Vec<String> {
    let read = |text| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let one = read(one);
    let other = read(other);
    let names = one
        .keys()
        .chain(other.keys().filter(|it| !one.contains_key(*it)));
    let differing = names.filter(|it| one.get(*it) != other.get(*it));
    differing.cloned().collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sha256
}

/// Replaces long strings by their digests, and secrets by a remark.
fn shown(value: Value, string_bytes_max: usize) -> Value {
    match value {
        Value::String(text) if text.len() > string_bytes_max => json!({
            "bytes": text.len(), "sha256": hex::encode(sha256(text.as_bytes())),
        }),
        Value::Array(items) => {
            let items = items.into_iter().map(|it| shown(it, string_bytes_max));
            items.collect()
        }
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                if SECRETS.contains(&name.as_str()) && value.is_string() {
                    return (name, json!("not shown"));
                }
                (name, shown(value, string_bytes_max))
            });
            Value::Object(members.collect())
        }
        other => other,
    }
}

/// Writes characters beyond ASCII that are no letters and digits as JSON escapes: marks that turn
/// the direction of writing, or are not seen, would show the approver something else.
fn escaped(json: &str) -> String {
    let mut written = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() || character.is_alphanumeric() {
            written.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            written += &format!("\\u{unit:04x}");
        }
    }
    written
}

/// Orders the members of each object.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            let members = members.into_iter().map(|(name, it)| (name, sorted(it)));
            Value::Object(members.collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: Value) -> AskedAction {
        AskedAction {
            action: Action::BackupCreate,
            asked_by: "operator alice".into(),
            method: "POST".into(),
            path: "/v1/backups".into(),
            body,
        }
    }

    fn terms() -> Terms {
        Terms {
            asked_at: UnixSeconds::new(0),
            expires_at: UnixSeconds::new(60),
            nonce: "00".into(),
        }
    }

    #[test]
    fn the_order_of_members_changes_no_byte_and_each_value_does() {
        let written = |body| asked(body).document(&terms());
        let one = written(json!({ "a": 1, "b": { "c": [1, { "d": 2, "e": 3 }] } }));
        let same = written(json!({ "b": { "c": [1, { "e": 3, "d": 2 }] }, "a": 1 }));
        assert_eq!(one, same);
        let other = written(json!({ "a": 1, "b": { "c": [1, { "d": 2, "e": 4 }] } }));
        assert_ne!(signed_sha256(&one), signed_sha256(&other));
        assert_eq!(differing(&one, &other), ["body"]);
    }

    #[test]
    fn a_mark_that_is_not_seen_is_written_as_an_escape_of_the_same_text() {
        let body = json!({ "name": "M\u{fc}ller \u{202e}gpj.exe \u{1f511}" });
        let written = asked(body.clone()).document(&terms());
        assert!(
            written.contains("M\u{fc}ller \\u202egpj.exe \\ud83d\\udd11"),
            "{written}"
        );
        let read: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read["body"], body);
    }

    #[test]
    fn a_long_string_is_bound_by_its_digest_and_a_secret_is_not_shown() {
        let long = |end: &str| "x".repeat(STRING_BYTES_MAX) + end;
        let written = |body| asked(body).document(&terms());
        let one = written(json!({ "file": long("1") }));
        assert!(one.len() < 1_000, "{one}");
        assert_ne!(one, written(json!({ "file": long("2") })));
        let secret = written(json!({ "generate": { "password": "open sesame" } }));
        assert!(!secret.contains("sesame"), "{secret}");
    }
}
