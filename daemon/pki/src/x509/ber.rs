//! Splits BER into elements without decoding them (X.690 8.1), so that what is inside keeps its
//! octets.
//!
//! Files from elsewhere are BER in places: PKCS#7 may have indefinite lengths. Parsers of
//! certificates decode and forget; here a certificate within such a file is found and not changed.

/// Deepest nesting of indefinite lengths that is read.
const DEPTH_MAX: u8 = 16;

const CONSTRUCTED: u8 = 0x20;
const HIGH_TAG_NUMBER: u8 = 0x1f;
/// Marks the end of contents of indefinite length.
const END_OF_CONTENTS: [u8; 2] = [0, 0];

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// Returns the tag of the context-specific constructed element `number`.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) contents: &'a [u8],
    /// The element with its header.
    pub(super) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads the first element, and returns what follows it. Returns `None` if it is incomplete or
    /// no BER.
    pub(super) fn first(bytes: &'a [u8]) -> Option<(Element<'a>, &'a [u8])> {
        Element::within(bytes, 0)
    }

    fn within(bytes: &'a [u8], depth: u8) -> Option<(Element<'a>, &'a [u8])> {
        let (&tag, rest) = bytes.split_first()?;
        let (&length, rest) = rest.split_first()?;
        if tag & HIGH_TAG_NUMBER == HIGH_TAG_NUMBER || depth > DEPTH_MAX {
            return None;
        }
        let (contents, after) = match length {
            0x80 if tag & CONSTRUCTED != 0 => until_end_of_contents(rest, depth)?,
            0x80 => return None,
            ..0x80 => rest.split_at_checked(usize::from(length))?,
            _ => {
                let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                rest.split_at_checked(long_length(octets)?)?
            }
        };
        let element = Element {
            tag,
            contents,
            whole: &bytes[..bytes.len() - after.len()],
        };
        Some((element, after))
    }

    /// Returns the elements inside, up to the first that cannot be read.
    pub(super) fn children(self) -> impl Iterator<Item = Element<'a>> {
        let mut rest = self.contents;
        std::iter::from_fn(move || {
            let (element, after) = Element::first(rest)?;
            rest = after;
            Some(element)
        })
    }

    /// Returns the first element inside that has this tag.
    pub(super) fn child(self, tag: u8) -> Option<Element<'a>> {
        self.children().find(|it| it.tag == tag)
    }

    pub(super) fn first_child(self) -> Option<Element<'a>> {
        self.children().next()
    }

    pub(super) fn is_identifier(self) -> bool {
        self.tag == OBJECT_IDENTIFIER
    }

    pub(super) fn is_time(self) -> bool {
        matches!(self.tag, UTC_TIME | GENERALIZED_TIME)
    }
}

fn long_length(octets: &[u8]) -> Option<usize> {
    if octets.len() > size_of::<u32>() {
        return None;
    }
    let sum = |sum, octet: &u8| sum << 8 | usize::from(*octet);
    Some(octets.iter().fold(0, sum))
}

/// Returns the contents of indefinite length, and what follows their end.
fn until_end_of_contents(bytes: &[u8], depth: u8) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    loop {
        if let Some(after) = rest.strip_prefix(&END_OF_CONTENTS) {
            return Some((&bytes[..bytes.len() - rest.len()], after));
        }
        (_, rest) = Element::within(rest, depth + 1)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn indefinite_lengths_end_where_they_say() {
        let bytes = b"\x30\x80\xa0\x80\x02\x01\x05\x00\x00\x04\x02\x00\x00\x00\x00rest";
        let (element, rest) = Element::first(bytes).expect("is BER");
        assert_eq!(rest, b"rest");
        let tags: Vec<u8> = element.children().map(|it| it.tag).collect();
        assert_eq!(tags, [0xa0, OCTET_STRING]);
        assert!(Element::first(&bytes[..10]).is_none());
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(Element::first(&[0x30, 0x80].repeat(100_000)).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some((element, rest)) = Element::first(&bytes) {
                prop_assert_eq!(&[element.whole, rest].concat(), &bytes);
                prop_assert!(element.children().count() <= element.contents.len());
            }
        }
    }
}
