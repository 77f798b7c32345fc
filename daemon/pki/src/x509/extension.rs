//! Splits extensions of requests and certificates into their fields (RFC 5280 4.1), undecoded.
//!
//! Only the values that decide something are decoded, by their readers. So an extension of an
//! organisation's own is no reason to refuse anything, whatever its identifier and its value.

use super::oid;
use super::wire::{Element, elements};
use der::Tag;
use der::asn1::ObjectIdentifier;

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// An extension as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extension<'a> {
    /// The contents of its identifier.
    id: &'a [u8],
    pub(super) critical: bool,
    pub(super) value: &'a [u8],
}

impl<'a> Extension<'a> {
    /// Reads DER `Extensions`. An empty list is one.
    pub(super) fn read_list(der: &'a [u8]) -> der::Result<Vec<Extension<'a>>> {
        let [list @ Element { tag: SEQUENCE, .. }] = elements(der)?[..] else {
            return Err(Tag::Sequence.value_error().into());
        };
        elements(list.value)?.into_iter().map(Self::read).collect()
    }

    fn read(element: Element<'a>) -> der::Result<Extension<'a>> {
        let parts = elements(element.value)?;
        let (id, critical, value) = match (element.tag, &parts[..]) {
            (SEQUENCE, [id, value]) => (id, false, value),
            // FALSE is the default and has to be left out; many write it all the same.
            (SEQUENCE, [id, critical, value]) => (id, is_true(*critical)?, value),
            _ => return Err(Tag::Sequence.value_error().into()),
        };
        let is_whole = id.tag == OBJECT_IDENTIFIER
            && oid::is_identifier(id.value)
            && value.tag == OCTET_STRING;
        if !is_whole {
            return Err(Tag::Sequence.value_error().into());
        }
        Ok(Extension {
            id: id.value,
            critical,
            value: value.value,
        })
    }

    /// Returns true if it has this identifier.
    pub(super) fn is(&self, id: ObjectIdentifier) -> bool {
        self.id == id.as_bytes()
    }

    /// Returns the identifier as operators know it.
    pub(super) fn name(&self) -> String {
        oid::name_of_octets(self.id)
    }
}

/// X.690 11.1: TRUE is 0xff. Readers of DER refuse another TRUE, and readers of BER take it.
fn is_true(element: Element<'_>) -> der::Result<bool> {
    match (element.tag, element.value) {
        (BOOLEAN, [0]) => Ok(false),
        (BOOLEAN, [0xff]) => Ok(true),
        (BOOLEAN, [_]) => Err(Tag::Boolean.non_canonical_error().into()),
        _ => Err(Tag::Boolean.value_error().into()),
    }
}
