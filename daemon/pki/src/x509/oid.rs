//! Defines the object identifiers of this module, under the names of their RFCs.

use der::asn1::ObjectIdentifier;
use der::oid::db::DB;
use num_bigint::BigUint;

const fn oid(dotted: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(dotted)
}

/// Longest identifier that is read. The library's parser calls itself for each character.
const WRITTEN_CHARACTERS_MAX: usize = 256;

/// The form that is read, for messages.
pub(super) const WRITTEN_FORM: &str = "dotted numbers below 4294967296, the second one below \
                                       40, such as \"1.3.6.1.4.1.32473.1\"";

/// Reads dotted numbers, such as `1.3.6.1.4.1.32473.1`.
pub(super) fn parse(dotted: &str) -> Option<ObjectIdentifier> {
    (dotted.len() <= WRITTEN_CHARACTERS_MAX)
        .then(|| ObjectIdentifier::new(dotted).ok())
        .flatten()
}

/// Longest contents of an identifier that are written in numbers, in octets.
const SHOWN_OCTETS_MAX: usize = 128;

/// Names of what no certificate here may have, which the data base of `der` lacks.
const FOREIGN_NAMES: [(ObjectIdentifier, &str); 3] = [
    (oid("1.2.840.10045.4.1"), "ecdsa-with-SHA1"),
    (oid("1.3.132.0.10"), "secp256k1"),
    (oid("1.3.132.1.12"), "id-ecDH"),
];

/// Returns the name by which operators know an object, or its number if it has none.
pub(super) fn name_of(object: ObjectIdentifier) -> String {
    name_of_octets(object.as_bytes())
}

/// Returns the same of an identifier's contents. Its numbers may be of any size: those of a UUID
/// have 128 bits (X.667).
pub(super) fn name_of_octets(contents: &[u8]) -> String {
    known_name(contents).map_or_else(|| numbers(contents), str::to_owned)
}

/// Returns the name of an object, if it has one.
pub(super) fn known_name(contents: &[u8]) -> Option<&'static str> {
    let object = ObjectIdentifier::from_bytes(contents).ok()?;
    let foreign = FOREIGN_NAMES.iter().find(|(known, _)| *known == object);
    let known = DB.find_names_for_oid(object);
    known
        .min_by_key(|name| name.len())
        .or(foreign.map(|it| it.1))
}

/// Returns true if these are the contents of an identifier (X.690 8.19): each number ends.
pub(super) fn is_identifier(contents: &[u8]) -> bool {
    contents.last().is_some_and(|octet| *octet < 0x80)
}

/// Writes the contents of an identifier in numbers and dots (X.690 8.19).
fn numbers(contents: &[u8]) -> String {
    if contents.len() > SHOWN_OCTETS_MAX {
        return format!("{}…", hex::encode(&contents[..SHOWN_OCTETS_MAX]));
    }
    let mut numbers = Vec::new();
    let mut number = BigUint::ZERO;
    for octet in contents {
        number = (number << 7_u8) + (octet & 0x7f);
        if *octet < 0x80 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    // The first one holds two.
    let Some((both, rest)) = numbers.split_first() else {
        return hex::encode(contents);
    };
    let first = (both / 40_u8).min(BigUint::from(2_u8));
    let second = both - &first * 40_u8;
    let all = [&first, &second].into_iter().chain(rest);
    let all: Vec<String> = all.map(ToString::to_string).collect();
    all.join(".")
}

// Keys: RFC 3279, RFC 5480, RFC 8410.
/// `id-ecPublicKey`.
pub const EC_PUBLIC_KEY: ObjectIdentifier = oid("1.2.840.10045.2.1");
/// The curve P-256.
pub const SECP256R1: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
/// The curve P-384.
pub const SECP384R1: ObjectIdentifier = oid("1.3.132.0.34");
/// The curve P-521.
pub const SECP521R1: ObjectIdentifier = oid("1.3.132.0.35");
/// `rsaEncryption`.
pub const RSA_ENCRYPTION: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
/// `id-Ed25519`.
pub const ED25519: ObjectIdentifier = oid("1.3.101.112");

// Signatures: RFC 5758, RFC 4055.
pub(super) const ECDSA_WITH_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
pub(super) const ECDSA_WITH_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
pub(super) const ECDSA_WITH_SHA512: ObjectIdentifier = oid("1.2.840.10045.4.3.4");
pub(super) const SHA1: ObjectIdentifier = oid("1.3.14.3.2.26");
pub(super) const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
pub(super) const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
pub(super) const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");
pub(super) const MGF1: ObjectIdentifier = oid("1.2.840.113549.1.1.8");
pub(super) const RSASSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");
pub(super) const SHA256_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
pub(super) const SHA384_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
pub(super) const SHA512_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.13");

// Files with private keys: RFC 8018, RFC 7292, RFC 2985.
pub(super) const PBES2: ObjectIdentifier = oid("1.2.840.113549.1.5.13");
pub(super) const PBKDF2: ObjectIdentifier = oid("1.2.840.113549.1.5.12");
pub(super) const HMAC_WITH_SHA256: ObjectIdentifier = oid("1.2.840.113549.2.9");
pub(super) const AES_256_CBC: ObjectIdentifier = oid("2.16.840.1.101.3.4.1.42");
pub(super) const SHROUDED_KEY_BAG: ObjectIdentifier = oid("1.2.840.113549.1.12.10.1.2");
pub(super) const CERTIFICATE_BAG: ObjectIdentifier = oid("1.2.840.113549.1.12.10.1.3");
pub(super) const X509_CERTIFICATE: ObjectIdentifier = oid("1.2.840.113549.1.9.22.1");
pub(super) const FRIENDLY_NAME: ObjectIdentifier = oid("1.2.840.113549.1.9.20");
pub(super) const LOCAL_KEY_ID: ObjectIdentifier = oid("1.2.840.113549.1.9.21");
/// `id-data` (RFC 5652 4).
pub(super) const DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.1");
/// `id-aa-decryptKeyID` and `id-aa-asymmDecryptKeyID` (RFC 7030 4.4.1).
pub(super) const DECRYPT_KEY_IDS: [ObjectIdentifier; 2] = [
    oid("1.2.840.113549.1.9.16.2.37"),
    oid("1.2.840.113549.1.9.16.2.54"),
];

// Attributes of names: RFC 5280 appendix A.
pub(super) const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");
pub(super) const COUNTRY: ObjectIdentifier = oid("2.5.4.6");
pub(super) const LOCALITY: ObjectIdentifier = oid("2.5.4.7");
pub(super) const STATE: ObjectIdentifier = oid("2.5.4.8");
pub(super) const SERIAL_NUMBER: ObjectIdentifier = oid("2.5.4.5");
pub(super) const ORGANIZATION: ObjectIdentifier = oid("2.5.4.10");
pub(super) const ORGANIZATIONAL_UNIT: ObjectIdentifier = oid("2.5.4.11");
pub(super) const EMAIL_ADDRESS: ObjectIdentifier = oid("1.2.840.113549.1.9.1");

// Requests: RFC 2985 5.4.2; Microsoft's `szOID_CERT_EXTENSIONS`.
pub(super) const EXTENSION_REQUEST: ObjectIdentifier = oid("1.2.840.113549.1.9.14");
pub(super) const MICROSOFT_EXTENSION_REQUEST: ObjectIdentifier = oid("1.3.6.1.4.1.311.2.1.14");

// Files that hold certificates: RFC 5652 5.1, and Netscape's sequence, which `openssl nseq` writes.
pub(super) const SIGNED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.2");
pub(super) const NETSCAPE_CERTIFICATE_SEQUENCE: ObjectIdentifier = oid("2.16.840.1.113730.2.5");

// Extensions: RFC 5280 4.2.
pub(super) const SUBJECT_ALT_NAME: ObjectIdentifier = oid("2.5.29.17");
pub(super) const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = oid("2.5.29.14");
pub(super) const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
pub(super) const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
pub(super) const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = oid("2.5.29.35");
pub(super) const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = oid("2.5.29.31");
pub(super) const EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37");
pub(super) const NAME_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.30");
pub(super) const CERTIFICATE_POLICIES: ObjectIdentifier = oid("2.5.29.32");
pub(super) const POLICY_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.36");
pub(super) const POLICY_MAPPINGS: ObjectIdentifier = oid("2.5.29.33");
pub(super) const INHIBIT_ANY_POLICY: ObjectIdentifier = oid("2.5.29.54");
pub(super) const SUBJECT_DIRECTORY_ATTRIBUTES: ObjectIdentifier = oid("2.5.29.9");
pub(super) const FRESHEST_CRL: ObjectIdentifier = oid("2.5.29.46");
pub(super) const SUBJECT_INFORMATION_ACCESS: ObjectIdentifier = oid("1.3.6.1.5.5.7.1.11");
pub(super) const AUTHORITY_INFORMATION_ACCESS: ObjectIdentifier = oid("1.3.6.1.5.5.7.1.1");

// Extensions of certificates that are not X.509's: RFC 3820, Netscape's.
pub(super) const PROXY_CERTIFICATE: ObjectIdentifier = oid("1.3.6.1.5.5.7.1.14");
pub(super) const NETSCAPE_CERTIFICATE_TYPE: ObjectIdentifier = oid("2.16.840.1.113730.1.1");

// Extensions of revocation lists and their entries: RFC 5280 5.2 and 5.3.
pub(super) const INVALIDITY_DATE: ObjectIdentifier = oid("2.5.29.24");
pub(super) const CERTIFICATE_ISSUER: ObjectIdentifier = oid("2.5.29.29");
pub(super) const CRL_NUMBER: ObjectIdentifier = oid("2.5.29.20");
pub(super) const CRL_REASON: ObjectIdentifier = oid("2.5.29.21");
pub(super) const DELTA_CRL_INDICATOR: ObjectIdentifier = oid("2.5.29.27");
pub(super) const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = oid("2.5.29.28");

// Values in extensions: RFC 5280 4.2.1.4, 4.2.1.12 and 4.2.2.1, RFC 4108 5, RFC 6960 4.2.2.2.1.
pub(super) const SERVER_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.1");
pub(super) const CLIENT_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.2");
pub(super) const ANY_EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37.0");
pub(super) const CODE_SIGNING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.3");
pub(super) const EMAIL_PROTECTION: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.4");
pub(super) const TIME_STAMPING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.8");
pub(super) const OCSP_SIGNING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.9");
pub(super) const ANY_POLICY: ObjectIdentifier = oid("2.5.29.32.0");
pub(super) const CPS: ObjectIdentifier = oid("1.3.6.1.5.5.7.2.1");
pub(super) const OCSP_BASIC: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.1.1");
pub(super) const OCSP_NONCE: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.1.2");
pub(super) const OCSP_NO_CHECK: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.1.5");
pub(super) const HARDWARE_MODULE_NAME: ObjectIdentifier = oid("1.3.6.1.5.5.7.8.4");
pub(super) const OCSP: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.1");
pub(super) const CA_ISSUERS: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.2");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_are_written() {
        for (contents, shown) in [
            ("2a0304", "1.2.3.4"),
            ("7f", "2.47"),
            ("06092a", "0.6.9.42"),
            // UUID, X.667 A.4 of f81d4fae-7dec-11d0-a765-00a0c91e6bf6.
            (
                "6983f09da7ebcfdee0c7a1a7b2c0948cc8f9d776",
                "2.25.329800735698586629295641978511506172918",
            ),
            ("2b06010401a4e5c0ad6a", "1.3.6.1.4.1.9876543210"),
        ] {
            let contents = hex::decode(contents).expect("is hex");
            assert!(is_identifier(&contents));
            assert_eq!(numbers(&contents), shown);
        }
        assert_eq!(name_of_octets(COMMON_NAME.as_bytes()), "cn");
        assert_eq!(name_of(oid("1.2.840.10045.4.1")), "ecdsa-with-SHA1");
        assert!(numbers(&[0x81; 200]).len() < 300);
        assert!(!is_identifier(&[0x81]) && !is_identifier(&[]));
    }
}
