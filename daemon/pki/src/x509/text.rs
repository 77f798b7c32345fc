//! Decodes text files as editors and shells write them: UTF-8, with or without a byte order mark,
//! and UTF-16, which PowerShell writes.

use std::borrow::Cow;

/// UTF-8, UTF-16 with the low octet first, UTF-16 with the high octet first.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_LOW_MARK: &[u8] = b"\xff\xfe";
const UTF16_HIGH_MARK: &[u8] = b"\xfe\xff";

/// Returns the octets without a byte order mark of UTF-8.
pub(super) fn without_mark(octets: &[u8]) -> &[u8] {
    octets.strip_prefix(UTF8_MARK).unwrap_or(octets)
}

/// Returns the text, without byte order mark; `None` if it holds NUL, as no text does. Octets in an
/// unknown encoding, such as remarks in Latin-1 around PEM, become U+FFFD.
pub(super) fn decode(octets: &[u8]) -> Option<Cow<'_, str>> {
    let text = if let Some(rest) = octets.strip_prefix(UTF16_LOW_MARK) {
        Cow::Owned(utf16(rest, u16::from_le_bytes))
    } else if let Some(rest) = octets.strip_prefix(UTF16_HIGH_MARK) {
        Cow::Owned(utf16(rest, u16::from_be_bytes))
    } else {
        match octets {
            // ASCII in UTF-16 without a mark.
            [low, 0, ..] if *low != 0 => Cow::Owned(utf16(octets, u16::from_le_bytes)),
            [0, low, ..] if *low != 0 => Cow::Owned(utf16(octets, u16::from_be_bytes)),
            _ => String::from_utf8_lossy(without_mark(octets)),
        }
    };
    (!text.contains('\0')).then_some(text)
}

fn utf16(octets: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (units, _) = octets.as_chunks::<2>();
    let units = units.iter().map(|it| unit(*it));
    char::decode_utf16(units)
        .map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn octets_that_are_no_text_are_none() {
        for octets in [&b"a\0b\0\0\0"[..], b"\0\0", b"ab\0c", b"\x30\x82\x00"] {
            assert_eq!(decode(octets), None, "{octets:x?}");
        }
        assert_eq!(decode(b"M\xfcller").as_deref(), Some("M\u{fffd}ller"));
        assert_eq!(decode(b"").as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn every_encoding_of_a_text_is_that_text(text in "[ -~][^\\x00\u{feff}]{0,40}") {
            let low: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let high: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            for octets in [
                text.as_bytes(),
                &[UTF8_MARK, text.as_bytes()].concat(),
                &[UTF16_LOW_MARK, &low].concat(),
                &[UTF16_HIGH_MARK, &high].concat(),
                &low,
                &high,
            ] {
                let decoded = decode(octets);
                prop_assert_eq!(decoded.as_deref(), Some(&text[..]));
            }
        }

        #[test]
        fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&octets);
        }
    }
}
