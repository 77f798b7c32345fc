//! Reads how operators name a certificate, and finds it.

use crate::ca::{Code, Error};
use crate::store::{CertificateRow, Store};
use crate::x509::bundle::parse_first;
use crate::x509::serial::SerialNumber;

/// Digits of a SHA-256; a serial number has 40 at most.
const SHA256_DIGITS: usize = 64;

/// How an operator names a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// By its serial number, and its authority if it is named.
    Serial {
        serial: SerialNumber,
        /// The authority that issued it.
        authority: Option<String>,
    },
    /// By the SHA-256 of its DER.
    Sha256([u8; 32]),
}

impl CertificateName {
    /// From hexadecimal digits as OpenSSL and others write them.
    pub fn of_serial(text: &str, authority: Option<String>) -> Result<Self, Error> {
        let serial = Self::serial(text)?;
        Ok(Self::Serial { serial, authority })
    }

    /// From hexadecimal digits.
    pub fn of_sha256(text: &str) -> Result<Self, Error> {
        Self::sha256(text).map(Self::Sha256)
    }

    /// Reads a serial number from hexadecimal digits as OpenSSL and others write them.
    pub fn serial(text: &str) -> Result<SerialNumber, Error> {
        let mut digits = digits(text);
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        digits.parse().map_err(|error| {
            let message = format!("{text:?} is no serial number: {error}");
            Error::invalid(Code::SerialInvalid, message)
        })
    }

    /// Reads a SHA-256 from hexadecimal digits.
    pub fn sha256(text: &str) -> Result<[u8; 32], Error> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(digits(text), &mut sha256).map_err(|_| {
            let message = format!("{text:?} is no SHA-256: that has 64 hexadecimal digits");
            Error::invalid(Code::Sha256Invalid, message)
        })?;
        Ok(sha256)
    }

    /// From a serial number or a SHA-256, which is longer than every serial number.
    pub fn of_digits(text: &str, authority: Option<String>) -> Result<Self, Error> {
        if digits(text).len() == SHA256_DIGITS {
            return Self::of_sha256(text);
        }
        Self::of_serial(text, authority)
    }

    /// From the certificate: DER, base64 of DER, or PEM, whose first certificate counts.
    pub fn of_certificate(bytes: &[u8]) -> Result<Self, Error> {
        let certificate = parse_first(bytes).map_err(|error| {
            let message = format!("send a certificate as PEM or base64 of DER: {error}");
            Error::invalid(Code::CertificateMalformed, message)
        })?;
        Ok(Self::Sha256(certificate.sha256()))
    }

    /// Finds the certificate that has this name, and no other.
    pub(in crate::ca) fn find(&self, store: &Store) -> Result<CertificateRow, Error> {
        let (mut found, what) = match self {
            CertificateName::Serial { serial, authority } => {
                let authority = authority.as_deref();
                let found = store.certificates_by_serial(serial.as_bytes(), authority)?;
                let by = authority.map_or(String::new(), |it| format!(" by authority {it:?}"));
                (found, format!("serial number {serial}{by}"))
            }
            CertificateName::Sha256(sha256) => {
                let found = store.certificate_by_sha256(sha256)?;
                let sha256 = hex::encode_upper(sha256);
                (Vec::from_iter(found), format!("SHA-256 {sha256}"))
            }
        };
        match (found.pop(), found.len()) {
            (Some(row), 0) => Ok(row),
            (Some(_), _) => Err(Error::conflict(
                Code::CertificateAmbiguous,
                format!("several certificates have {what}; name the authority, or the SHA-256"),
            )),
            (None, _) => Err(Error::missing(
                Code::CertificateUnknown,
                format!("this daemon has issued no certificate with {what}"),
            )),
        }
    }
}

/// Hexadecimal digits without what tools write between and before them.
fn digits(text: &str) -> String {
    let text = text.trim();
    let prefixes = ["0x", "0X"].into_iter();
    let text = prefixes
        .filter_map(|it| text.strip_prefix(it))
        .next()
        .unwrap_or(text);
    text.replace([':', ' '], "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_certificate_is_named_as_tools_write_it() {
        let serial = CertificateName::of_serial("0AFF", None).unwrap();
        for text in ["0a:ff", "0x0aff", "0X0AFF", " AFF ", "0A FF"] {
            assert_eq!(CertificateName::of_serial(text, None).unwrap(), serial);
        }
        let sha256 = CertificateName::Sha256([0xab; 32]);
        for text in ["ab".repeat(32), vec!["AB"; 32].join(":")] {
            assert_eq!(CertificateName::of_sha256(&text).unwrap(), sha256);
        }
        for (text, code) in [("", Code::SerialInvalid), ("00", Code::SerialInvalid)] {
            assert_eq!(
                CertificateName::of_serial(text, None).unwrap_err().code,
                code
            );
        }
        let one_lost = &"ab".repeat(32)[1..];
        let lost = CertificateName::of_digits(one_lost, None).unwrap_err();
        assert_eq!(lost.code, Code::SerialInvalid);
        for text in ["", "abcd", one_lost, &"zz".repeat(32), &"ab".repeat(33)] {
            let refused = CertificateName::of_sha256(text).unwrap_err();
            assert_eq!(refused.code, Code::Sha256Invalid);
        }
        let refused = CertificateName::of_certificate(b"no certificate").unwrap_err();
        assert_eq!(refused.code, Code::CertificateMalformed);
    }

    proptest! {
        /// Any text is read or refused, and what is read is found again by its digits.
        #[test]
        fn no_text_fails_otherwise(text in "([0-9a-fA-F:x ]{0,80}|.{0,80})") {
            match CertificateName::of_digits(&text, None) {
                Ok(CertificateName::Sha256(sha256)) => {
                    prop_assert_eq!(CertificateName::sha256(&hex::encode(sha256)).unwrap(), sha256);
                }
                Ok(CertificateName::Serial { serial, .. }) => {
                    let again = CertificateName::serial(&hex::encode(serial.as_bytes()));
                    prop_assert_eq!(again.unwrap(), serial);
                }
                Err(error) => {
                    prop_assert!(matches!(error.code, Code::SerialInvalid | Code::Sha256Invalid));
                }
            }
        }

        /// Each form in which tools write a number names the same certificate.
        #[test]
        fn each_form_names_the_same(octets in prop::collection::vec(1_u8..0x80, 1..20)) {
            let digits = hex::encode(&octets);
            let serial = CertificateName::serial(&digits).unwrap();
            let colons = octets.iter().map(|it| format!("{it:02X}")).collect::<Vec<_>>().join(":");
            let forms = [
                digits.to_uppercase(),
                format!("0x{digits}"),
                format!(" {digits} "),
                colons,
            ];
            for form in forms {
                prop_assert_eq!(&CertificateName::serial(&form).unwrap(), &serial);
            }
        }
    }
}
