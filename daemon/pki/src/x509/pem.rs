//! Reads and writes PEM: strict in what is written (RFC 7468), lenient in what is read.
//!
//! The reader works on octets, because remarks around the blocks may be in any encoding. It accepts
//! every kind of line end, lines of any length, a byte order mark, header lines of RFC 1421 and an
//! END line with another label. It does not check the contents of a block.

use crate::der_bytes::Der;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Columns of base64 in a line (RFC 7468 2).
const COLUMNS: usize = 64;

/// Longest label of a block that is read.
const LABEL_BYTES_MAX: usize = 64;

/// The byte order mark of UTF-8, which some editors write.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Accepts base64 without padding, which some writers omit.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One `-----BEGIN label-----` block, not decoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    body: &'a [u8],
}

/// The reason why text is not PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemRefusal {
    /// A `BEGIN` line has no `END` line.
    #[error("the PEM block {0:?} has no END line: the end of the file is missing")]
    Unterminated(String),
    /// The body of a block is not base64.
    #[error("the base64 text cannot be decoded{0}")]
    NotBase64(String),
}

impl Block<'_> {
    /// Decodes the body, without header lines (RFC 1421 4.6), which end with an empty line.
    pub(super) fn der(&self) -> Result<Der, PemRefusal> {
        let is_header = |line: &[u8]| line.contains(&b':');
        let mut lines = self
            .body
            .split(|octet| *octet == b'\n')
            .map(<[u8]>::trim_ascii);
        if !lines.any(is_header) {
            return Ok(decode_base64(self.body)?.into());
        }
        // `lines` goes on after the first header line.
        let text: Vec<&[u8]> = lines.skip_while(|line| !line.is_empty()).collect();
        Ok(decode_base64(&text.concat())?.into())
    }
}

/// Returns all blocks of `text` in order. Text around them is skipped, also where it names a BEGIN
/// line within a sentence.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block<'_>>, PemRefusal> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(at) = find(rest, BEGIN) {
        let begins_line = is_blank(after_last_line_end(&rest[..at]));
        let from_label = &rest[at + BEGIN.len()..];
        rest = match block(from_label) {
            Ok((block, after)) if begins_line || block.der().is_ok() => {
                blocks.push(block);
                after
            }
            Err(refusal) if begins_line => return Err(refusal),
            _ => from_label,
        };
    }
    Ok(blocks)
}

/// Reads one block from its label on, and returns the text after it.
fn block(from_label: &[u8]) -> Result<(Block<'_>, &[u8]), PemRefusal> {
    let text = &from_label[..find(from_label, BEGIN).unwrap_or(from_label.len())];
    let unterminated = || PemRefusal::Unterminated(shortened(text));
    let label_length = find(text, DASHES).filter(|length| *length <= LABEL_BYTES_MAX);
    let label_length = label_length.ok_or_else(unterminated)?;
    let label = std::str::from_utf8(&text[..label_length]).map_err(|_| unterminated())?;
    let from_body = &text[label_length + DASHES.len()..];
    let body_length = find(from_body, END).ok_or_else(unterminated)?;
    let from_end = &from_body[body_length + END.len()..];
    let end_length = find(from_end, DASHES).ok_or_else(unterminated)?;
    let behind = label_length + DASHES.len() + body_length + END.len() + end_length;
    let block = Block {
        label,
        body: &from_body[..body_length],
    };
    Ok((block, &from_label[behind + DASHES.len()..]))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|it| it == wanted)
}

fn after_last_line_end(text: &[u8]) -> &[u8] {
    let is_line_end = |octet: &u8| matches!(octet, b'\n' | b'\r');
    let start = text.iter().rposition(is_line_end).map_or(0, |at| at + 1);
    &text[start..]
}

fn is_blank(text: &[u8]) -> bool {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    text.trim_ascii().is_empty()
}

/// Decodes base64 that may have whitespace anywhere, and a byte order mark before it.
pub(super) fn decode_base64(text: &[u8]) -> Result<Vec<u8>, PemRefusal> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut compact = Vec::with_capacity(text.len());
    for line in text.split(u8::is_ascii_whitespace) {
        compact.extend_from_slice(line);
    }
    LENIENT
        .decode(&compact)
        .map_err(|_| PemRefusal::NotBase64(odd_character(&compact)))
}

/// Names the first character that base64 does not have, for an error message.
fn odd_character(text: &[u8]) -> String {
    let is_odd = |octet: &&u8| !octet.is_ascii_alphanumeric() && !b"+/=".contains(octet);
    match text.iter().find(is_odd) {
        Some(octet) if octet.is_ascii_graphic() => {
            format!(": it has the character {:?}", char::from(*octet))
        }
        Some(octet) => format!(": it has the octet 0x{octet:02x}"),
        None => ": a part of it is missing".to_owned(),
    }
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
fn shortened(text: &[u8]) -> String {
    let line = text.split(|octet| octet.is_ascii_control()).next();
    let text = String::from_utf8_lossy(line.unwrap_or_default());
    let label = text.split("-----").next().unwrap_or_default();
    label.chars().take(32).collect()
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
            assert_eq!(blocks[0].der(), Ok(vec![7; 100].into()));
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        let unterminated = blocks(b"-----BEGIN THING-----\nAAAA\n");
        assert_eq!(
            unterminated,
            Err(PemRefusal::Unterminated("THING".to_owned()))
        );
        let not_base64 = blocks(b"-----BEGIN T-----\n*\n-----END T-----").expect("is a block");
        let refusal = not_base64[0].der().expect_err("is no base64");
        assert!(refusal.to_string().contains("'*'"), "{refusal}");
        assert_eq!(blocks(&[0xff, 0xfe]), Ok(Vec::new()));
        assert_eq!(blocks(b"no block at all"), Ok(Vec::new()));
    }

    #[test]
    fn remarks_marks_and_headers_around_and_within_are_no_part_of_a_block() {
        let strict = encode("THING", &[7; 100]);
        let with_mark = [BYTE_ORDER_MARK, strict.as_bytes()].concat();
        let latin_1 = [b"M\xfcller\n", strict.as_bytes(), b"gr\xfc\xdfe"].concat();
        let sentence = format!("paste what is between -----BEGIN THING----- and it\n{strict}");
        let headers = strict.replacen(
            '\n',
            "\r\nProc-Type: 4,MIC-CLEAR\r\nOriginator-Name: a\r\n b\r\n\r\n",
            1,
        );
        let other_end = strict.replace("END THING", "END OTHER THING");
        let old_mac = strict.replace('\n', "\r");
        for text in [
            with_mark,
            latin_1,
            sentence.into_bytes(),
            headers.into_bytes(),
            other_end.into_bytes(),
            old_mac.into_bytes(),
        ] {
            let blocks = blocks(&text).expect("is PEM");
            assert_eq!(blocks.len(), 1, "{}", text.escape_ascii());
            assert_eq!(
                blocks[0].der(),
                Ok(vec![7; 100].into()),
                "{}",
                text.escape_ascii()
            );
        }
        let joined = strict.trim_end().repeat(3);
        assert_eq!(blocks(joined.as_bytes()).map(|it| it.len()), Ok(3));
        let with_marks = with_mark_before_each(&strict);
        assert_eq!(blocks(&with_marks).map(|it| it.len()), Ok(2));
    }

    fn with_mark_before_each(strict: &str) -> Vec<u8> {
        [BYTE_ORDER_MARK, strict.as_bytes()].concat().repeat(2)
    }

    #[test]
    fn lines_have_64_columns() {
        let pem = encode("X", &[0; 97]);
        assert!(pem.lines().all(|line| line.len() <= COLUMNS));
        assert!(pem.ends_with("-----END X-----\n"));
    }
}
