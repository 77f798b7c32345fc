//! Encodes certificates as certs-only CMS (RFC 5652 5, RFC 5272 4.1) for EST answers.
//!
//! The certificates keep their order and their bytes. CMS is BER (RFC 5652 section 1), and only DER
//! sorts a SET OF (X.690 section 11.6); clients present certificates in the order in which they
//! got them.

use super::certificate::Certificate;
use super::pem;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Encode, Sequence, Tag, TagNumber};

/// `id-signedData` and `id-data` (RFC 5652 sections 5.1 and 4).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");

/// `CMSVersion` of a message with certificates alone (RFC 5652 section 5.1).
const VERSION: u8 = 1;

#[derive(Sequence)]
struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: SignedData<'a>,
}

/// `SignedData` without content and signers.
#[derive(Sequence)]
struct SignedData<'a> {
    version: u8,
    digest_algorithms: AnyRef<'a>,
    encapsulated: EncapsulatedContentInfo,
    certificates: AnyRef<'a>,
    /// Empty, and not left out: so OpenSSL writes it.
    crls: AnyRef<'a>,
    signer_infos: AnyRef<'a>,
}

#[derive(Sequence)]
struct EncapsulatedContentInfo {
    content_type: ObjectIdentifier,
}

/// Returns the body of the answer: base64 in lines, which older clients need (RFC 8951 allows
/// both). Clients get `certificates` in this order.
pub fn to_base64(certificates: &[&Certificate]) -> der::Result<String> {
    Ok(pem::base64_lines(&to_cms(certificates)?))
}

fn to_cms(certificates: &[&Certificate]) -> der::Result<Vec<u8>> {
    let all = certificates.iter().map(|it| &**it.der());
    let all = all.collect::<Vec<_>>().concat();
    let none = AnyRef::new(Tag::Set, &[])?;
    let content = SignedData {
        version: VERSION,
        digest_algorithms: none,
        encapsulated: EncapsulatedContentInfo { content_type: DATA },
        certificates: AnyRef::new(implicit(0), &all)?,
        crls: AnyRef::new(implicit(1), &[])?,
        signer_infos: none,
    };
    let message = ContentInfo {
        content_type: SIGNED_DATA,
        content,
    };
    message.to_der()
}

/// The tag of an implicit field that replaces the tag of a SET OF.
fn implicit(number: u32) -> Tag {
    Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::key::KeyType;
    use crate::x509::profile::Profile;
    use crate::x509::tests::{Authority, YEAR};

    #[test]
    fn certificates_keep_order_and_bytes() {
        let made = || Authority::root(KeyType::P256, &Profile::authority(Some(2), YEAR));
        let all = [made().certificate, made().certificate, made().certificate];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let wanted = order.map(|it: usize| &all[it]);
            let message = to_cms(&wanted).expect("it encodes");
            let bytes = wanted.map(|it| &**it.der()).concat();
            let found = message.windows(bytes.len()).any(|it| it == bytes);
            assert!(found, "{order:?}");
        }
    }
}
