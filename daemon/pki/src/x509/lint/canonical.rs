//! Checks that bytes are canonical DER (X.690 10 and 11), without a parser library.
//!
//! Parsers tolerate long lengths, odd booleans and trailing bytes. Signed bytes must need no
//! tolerance, or two verifiers read them differently.

/// Deepest nesting of our certificates; the value of an extension is counted on its own.
const DEPTH_MAX: usize = 12;

const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const ENUMERATED: u8 = 0x0a;
const UTF8_STRING: u8 = 0x0c;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
const CONSTRUCTED: u8 = 0x20;
const HIGH_TAG_NUMBER: u8 = 0x1f;

#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) tag: u8,
    pub(super) contents: &'a [u8],
    /// The value with its header.
    pub(super) whole: &'a [u8],
}

/// Reads `bytes` as one value, and checks that it is canonical throughout.
pub(super) fn read(bytes: &[u8]) -> Result<Value<'_>, String> {
    let value = read_first(bytes)?;
    check(value, 0)?;
    match bytes.len() - value.whole.len() {
        0 => Ok(value),
        rest => Err(format!("{rest} bytes after the value")),
    }
}

/// Returns true if `bytes` are one DER value of whatever syntax: FALSE may be no default in it.
pub(in crate::x509) fn is_one_value(bytes: &[u8]) -> bool {
    read_first(bytes).is_ok_and(|it| it.whole.len() == bytes.len() && is_der(it, 0))
}

fn is_der(value: Value<'_>, depth: usize) -> bool {
    const CLASS: u8 = 0xc0;
    let is_universal = value.tag & CLASS == 0;
    match value.tag {
        0 => false,
        BOOLEAN => matches!(value.contents, [0x00 | 0xff]),
        NULL => value.contents.is_empty(),
        ENUMERATED => is_minimal_integer(value.contents),
        UTF8_STRING => std::str::from_utf8(value.contents).is_ok(),
        tag if tag & CONSTRUCTED == 0 => check(value, depth).is_ok(),
        tag if is_universal && tag != SEQUENCE && tag != SET => false,
        tag => {
            let children: Result<Vec<_>, _> = inside(value).collect();
            children.is_ok_and(|it| {
                (tag != SET || is_sorted(&it))
                    && depth < DEPTH_MAX
                    && it.into_iter().all(|it| is_der(it, depth + 1))
            })
        }
    }
}

/// A SET OF by its encodings (X.690 11.6), or a SET by its tags (X.690 10.3).
fn is_sorted(children: &[Value<'_>]) -> bool {
    children.is_sorted_by_key(|it| it.whole)
        || children.is_sorted_by(|a, b| (a.tag & !CONSTRUCTED) < (b.tag & !CONSTRUCTED))
}

/// Returns the values inside a constructed value from [`read`], which has checked them.
pub(super) fn children(value: Value<'_>) -> Result<Vec<Value<'_>>, String> {
    inside(value).collect()
}

/// Returns the tags of a value from [`read`]; the tags inside a constructed value follow it in
/// parentheses: `30(0682)`. A comparison of these finds wrong tags that parsers overlook
/// (x509-parser accepts any tag for an OBJECT IDENTIFIER).
pub(super) fn shape(value: Value<'_>) -> Result<String, String> {
    let mut shape = String::new();
    append_shape(&mut shape, value)?;
    Ok(shape)
}

fn append_shape(shape: &mut String, value: Value<'_>) -> Result<(), String> {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    shape.push(DIGITS[usize::from(value.tag >> 4)]);
    shape.push(DIGITS[usize::from(value.tag & 0x0f)]);
    if value.tag & CONSTRUCTED != 0 {
        shape.push('(');
        for value in inside(value) {
            append_shape(shape, value?)?;
        }
        shape.push(')');
    }
    Ok(())
}

/// Iterates over the values inside a value.
fn inside(value: Value<'_>) -> impl Iterator<Item = Result<Value<'_>, String>> {
    let mut bytes = value.contents;
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let value = read_first(bytes);
        // After a value that cannot be read, the rest cannot be read either.
        bytes = value
            .as_ref()
            .map_or(&[], |value| &bytes[value.whole.len()..]);
        Some(value)
    })
}

fn read_first(bytes: &[u8]) -> Result<Value<'_>, String> {
    let [tag, length, rest @ ..] = bytes else {
        return Err("a value is cut off".to_owned());
    };
    if tag & HIGH_TAG_NUMBER == HIGH_TAG_NUMBER {
        return Err(format!("tag {tag:#04x} is of the long form"));
    }
    let (length, length_octets) = read_length(*length, rest)?;
    let header = 2 + length_octets;
    match bytes.get(header..header + length) {
        Some(contents) => Ok(Value {
            tag: *tag,
            contents,
            whole: &bytes[..header + length],
        }),
        None => Err("a value is cut off".to_owned()),
    }
}

/// Returns the length, and the number of octets after its first: at most three, since no revocation
/// list has 16 MiB.
fn read_length(first: u8, rest: &[u8]) -> Result<(usize, usize), String> {
    match (first, rest) {
        (..=0x7f, _) => Ok((usize::from(first), 0)),
        (0x81, [length, ..]) if *length >= 0x80 => Ok((usize::from(*length), 1)),
        (0x82, [high, low, ..]) if *high > 0 => {
            Ok((usize::from(u16::from_be_bytes([*high, *low])), 2))
        }
        (0x83, [high, middle, low, ..]) if *high > 0 => {
            let length = u32::from_be_bytes([0, *high, *middle, *low]);
            let length = usize::try_from(length).map_err(|error| error.to_string())?;
            Ok((length, 3))
        }
        _ => Err("a length is not minimal".to_owned()),
    }
}

fn check(value: Value<'_>, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX}"));
    }
    if value.tag & CONSTRUCTED != 0 {
        return inside(value).try_for_each(|inner| check(inner?, depth + 1));
    }
    let canonical = match value.tag {
        // FALSE is the default everywhere in certificates, and DER leaves defaults out.
        BOOLEAN => matches!(value.contents, [0xff]),
        INTEGER => is_minimal_integer(value.contents),
        BIT_STRING => is_padded_with_zeros(value.contents),
        OBJECT_IDENTIFIER => is_whole_identifier(value.contents),
        UTC_TIME => is_time(value.contents, 12),
        GENERALIZED_TIME => is_time(value.contents, 14),
        _ => true,
    };
    if canonical {
        Ok(())
    } else {
        Err(format!(
            "a value with tag {:#04x} is not canonical",
            value.tag
        ))
    }
}

fn is_minimal_integer(contents: &[u8]) -> bool {
    match contents {
        [] => false,
        [_] => true,
        [0, second, ..] => *second >= 0x80,
        [0xff, second, ..] => *second < 0x80,
        _ => true,
    }
}

fn is_padded_with_zeros(contents: &[u8]) -> bool {
    match contents {
        [] => false,
        [unused] => *unused == 0,
        [unused, .., last] => *unused < 8 && last & ((1 << unused) - 1) == 0,
    }
}

/// Checks that the last octet of each arc has its top bit clear, and that no arc begins with 0x80
/// (X.690 8.19.2).
fn is_whole_identifier(contents: &[u8]) -> bool {
    let ends = contents.last().is_some_and(|last| *last < 0x80);
    let mut arcs = contents.split_inclusive(|octet| *octet < 0x80);
    ends && arcs.all(|arc| arc[0] != 0x80)
}

/// Checks a time: to the second, in UTC, with this number of digits (RFC 5280 4.1.2.5).
fn is_time(contents: &[u8], digits: usize) -> bool {
    match contents.split_last() {
        Some((b'Z', rest)) => rest.len() == digits && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_two_encodings_is_taken_in_one() {
        for (canonical, other) in [
            (&b"\x30\x00"[..], &b"\x30\x81\x00"[..]),
            (b"\x01\x01\xff", b"\x01\x01\x01"),
            (b"\x02\x01\x01", b"\x02\x02\x00\x01"),
            (b"\x03\x02\x07\x80", b"\x03\x02\x07\x81"),
            (b"\x06\x01\x2a", b"\x06\x02\x80\x2a"),
            (b"\x06\x02\x2a\x01", b"\x06\x02\x2a\x81"),
            (b"\x17\x0d260101000000Z", b"\x17\x11260101000000+0000"),
            (b"\x18\x0f20500101000000Z", b"\x18\x1120500101000000.0Z"),
            (b"\x30\x00", b"\x30\x00\x00\x00"),
            (b"\x30\x02\x05\x00", b"\x30\x80\x05\x00\x00\x00"),
        ] {
            assert!(read(canonical).is_ok(), "{canonical:02x?}");
            assert!(read(other).is_err(), "{other:02x?}");
        }
    }

    #[test]
    fn a_shape_is_all_tags() {
        let value = read(b"\x30\x07\x06\x01\x2a\x30\x02\x82\x00").expect("is canonical");
        assert_eq!(shape(value).as_deref(), Ok("30(0630(82))"));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut nested = vec![0x30, 0x00];
        for _ in 0..20 {
            let length = u8::try_from(nested.len()).expect("is short");
            nested = [&[0x30, length][..], &nested].concat();
        }
        assert!(read(&nested).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        ) {
            let _ = read(&bytes);
        }
    }
}
