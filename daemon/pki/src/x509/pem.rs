//! Reads and writes PEM: strict in what is written (RFC 7468), lenient in what is read.
//!
//! The reader accepts LF and CRLF, lines of any length and text around the blocks. It does not
//! check the contents of a block.

use crate::der_bytes::Der;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Columns of base64 in a line (RFC 7468 2).
const COLUMNS: usize = 64;

/// Accepts base64 without padding, which some writers omit.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One `-----BEGIN label-----` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    pub(super) der: Der,
}

/// The reason why text is not PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemRefusal {
    /// The bytes are no text.
    #[error("it is neither DER nor text")]
    NotText,
    /// A `BEGIN` line has no `END` line.
    #[error("the PEM block {0:?} has no END line")]
    Unterminated(String),
    /// The body of a block is not base64.
    #[error("the base64 text cannot be decoded")]
    NotBase64,
}

/// Returns all blocks of `text` in order. Text around them is skipped.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, PemRefusal> {
    let mut rest = std::str::from_utf8(text).map_err(|_| PemRefusal::NotText)?;
    let mut blocks = Vec::new();
    while let Some((_, from_label)) = rest.split_once("-----BEGIN ") {
        let (label, from_body) = from_label
            .split_once("-----")
            .ok_or_else(|| PemRefusal::Unterminated(shortened(from_label)))?;
        let (body, after) = from_body
            .split_once(&format!("-----END {label}-----"))
            .ok_or_else(|| PemRefusal::Unterminated(shortened(label)))?;
        let der = decode_base64(body.as_bytes())?.into();
        blocks.push(Block { label, der });
        rest = after;
    }
    Ok(blocks)
}

/// Decodes base64 that may have whitespace anywhere.
pub(super) fn decode_base64(text: &[u8]) -> Result<Vec<u8>, PemRefusal> {
    let mut compact = Vec::with_capacity(text.len());
    for line in text.split(u8::is_ascii_whitespace) {
        compact.extend_from_slice(line);
    }
    LENIENT.decode(compact).map_err(|_| PemRefusal::NotBase64)
}

/// Encodes one block in the strict form of RFC 7468, with a final newline.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let body = base64_lines(der);
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

/// Encodes base64 in lines of [`COLUMNS`], each with a newline.
pub(super) fn base64_lines(der: &[u8]) -> String {
    let body = LENIENT.encode(der);
    let mut lines = String::with_capacity(body.len() + body.len() / COLUMNS + 1);
    for start in (0..body.len()).step_by(COLUMNS) {
        let end = body.len().min(start + COLUMNS);
        lines.push_str(&body[start..end]);
        lines.push('\n');
    }
    lines
}

/// Returns the beginning of the text, for an error message.
fn shortened(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_length_and_text_around_are_taken() {
        let strict = encode("THING", &[7; 100]);
        let crlf = strict.replace('\n', "\r\n");
        let one_line = format!(
            "subject: x\n-----BEGIN THING-----\n{}\n-----END THING-----\n\ntrailer",
            LENIENT.encode([7; 100])
        );
        for text in [strict, crlf, one_line] {
            let blocks = blocks(text.as_bytes()).expect("is PEM");
            assert_eq!(blocks.len(), 1);
            assert_eq!(blocks[0].label, "THING");
            assert_eq!(*blocks[0].der, [7; 100]);
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        let unterminated = blocks(b"-----BEGIN THING-----\nAAAA\n");
        assert_eq!(
            unterminated,
            Err(PemRefusal::Unterminated("THING".to_owned()))
        );
        let not_base64 = blocks(b"-----BEGIN T-----\n*\n-----END T-----");
        assert_eq!(not_base64, Err(PemRefusal::NotBase64));
        assert_eq!(blocks(&[0xff, 0xfe]), Err(PemRefusal::NotText));
        assert_eq!(blocks(b"no block at all"), Ok(Vec::new()));
    }

    #[test]
    fn lines_have_64_columns() {
        let pem = encode("X", &[0; 97]);
        assert!(pem.lines().all(|line| line.len() <= COLUMNS));
        assert!(pem.ends_with("-----END X-----\n"));
    }
}
