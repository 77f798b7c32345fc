//! Defines the wire form of certificates (RFC 5280 4.1) and revocation lists (RFC 5280 5.1).
//!
//! The structures of x509-cert have private fields and encode names again. Here names, keys and
//! algorithms stay undecoded, so they keep their bytes. (DER has one encoding of a value's header.)

use der::asn1::{AnyRef, BitStringRef, Int};
use der::{Decode, ErrorKind, Length, Reader, Sequence, SliceReader};
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::time::{Time, Validity};

/// These bits of an identifier octet say that more octets of it follow (X.690 8.1.2.4).
const MULTIPLE_OCTETS: u8 = 0x1f;

/// `Certificate` and `CertificateList`: the signed value and the signature.
#[derive(Sequence)]
pub(super) struct Signed<'a> {
    pub(super) to_be_signed: AnyRef<'a>,
    pub(super) signature_algorithm: AnyRef<'a>,
    pub(super) signature: BitStringRef<'a>,
}

#[derive(Sequence)]
pub(super) struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    pub(super) version: Version,
    pub(super) serial_number: AnyRef<'a>,
    pub(super) signature: AnyRef<'a>,
    pub(super) issuer: AnyRef<'a>,
    pub(super) validity: Validity,
    pub(super) subject: AnyRef<'a>,
    pub(super) subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Vec<Extension>>,
}

/// `TBSCertList`, version 2. An empty list of entries is left out, never encoded empty.
#[derive(Sequence)]
pub(super) struct TbsCertList<'a> {
    pub(super) version: Version,
    pub(super) signature: AnyRef<'a>,
    pub(super) issuer: AnyRef<'a>,
    pub(super) this_update: Time,
    pub(super) next_update: Time,
    pub(super) revoked_certificates: Option<Vec<RevokedCertificate>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) extensions: Vec<Extension>,
}

/// One entry of a `TBSCertList`.
#[derive(Sequence)]
pub(super) struct RevokedCertificate {
    pub(super) serial_number: Int,
    pub(super) revocation_date: Time,
    pub(super) extensions: Option<Vec<Extension>>,
}

/// One value with its header, of whatever tag. The tags of `der` lack UniversalString.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    /// The identifier octet.
    pub(super) tag: u8,
    pub(super) value: &'a [u8],
    pub(super) whole: &'a [u8],
}

/// Returns the values that follow each other in `octets`, which they fill.
pub(super) fn elements(octets: &[u8]) -> der::Result<Vec<Element<'_>>> {
    let mut found = Vec::new();
    let mut rest = octets;
    while !rest.is_empty() {
        let mut reader = SliceReader::new(rest)?;
        let tag = reader.read_byte()?;
        if tag & MULTIPLE_OCTETS == MULTIPLE_OCTETS {
            return Err(reader.error(ErrorKind::TagNumberInvalid));
        }
        let length = Length::decode(&mut reader)?;
        let value = reader.read_slice(length)?;
        let after = reader.read_slice(reader.remaining_len())?;
        found.push(Element {
            tag,
            value,
            whole: &rest[..rest.len() - after.len()],
        });
        rest = after;
    }
    Ok(found)
}
