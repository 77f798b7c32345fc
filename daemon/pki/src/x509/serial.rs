//! Makes and reads serial numbers (RFC 5280 4.1.2.2): positive, at most 20 octets.
//!
//! The caller supplies random octets, and the store ensures uniqueness. A serial number is never
//! derived from a key, which a renewal would repeat, or from a counter, which can be predicted. It
//! begins with the time of issuance, which is no secret, so that the store's index stays compact.

use crate::unix_seconds::UnixSeconds;
use num_bigint::BigUint;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Longest serial number in DER, in octets.
const OCTETS_MAX: usize = 20;

/// Random octets in a new serial number: 96 bits, where the Baseline Requirements ask for 64.
pub const RANDOM_OCTETS: usize = 12;

/// Longest serial number of a certificate from elsewhere that is read, in octets.
const ELSEWHERE_OCTETS_MAX: usize = 64;

/// A serial number. It is positive and has at most 20 octets, unless it is from a certificate of
/// another organisation: see [`SerialNumber::check`].
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SerialNumber {
    /// The contents of its DER INTEGER, not empty.
    contents: Vec<u8>,
}

/// The reason why octets or text are no serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerialRefusal {
    /// The number is zero or negative.
    #[error("a serial number must be positive")]
    NotPositive,
    /// The number has more than 20 octets in DER.
    #[error("a serial number has at most {OCTETS_MAX} octets")]
    TooLong,
    /// The INTEGER has a redundant leading octet.
    #[error("the serial number is not minimally encoded")]
    NotMinimal,
    /// The text is not an even number of hexadecimal digits.
    #[error("a serial number is written in hexadecimal digits, two for each octet")]
    NotHex,
}

impl SerialNumber {
    /// Makes a serial number from the time `now` (Unix seconds) and random octets.
    ///
    /// The two top bits are 01, so the number is positive and always has 16 octets in DER. 30 bits
    /// of time follow, in steps of four seconds until 2106, and then the random octets.
    pub fn from_random(now: UnixSeconds, random: [u8; RANDOM_OCTETS]) -> SerialNumber {
        let [.., a, b, c, d] = (now.get() >> 2).to_be_bytes();
        let moment = [a & 0x3f | 0x40, b, c, d];
        SerialNumber {
            contents: [moment.as_slice(), &random].concat(),
        }
    }

    /// Reads the contents octets of a DER INTEGER.
    pub fn from_der_contents(contents: &[u8]) -> Result<SerialNumber, SerialRefusal> {
        if contents.len() > OCTETS_MAX {
            return Err(SerialRefusal::TooLong);
        }
        let top_bit = |index: usize| contents.get(index).is_some_and(|octet| *octet >= 0x80);
        match contents {
            [] | [0] => Err(SerialRefusal::NotPositive),
            _ if top_bit(0) => Err(SerialRefusal::NotPositive),
            [0, ..] if !top_bit(1) => Err(SerialRefusal::NotMinimal),
            _ => Ok(SerialNumber {
                contents: contents.to_vec(),
            }),
        }
    }

    /// Reads the contents octets of a DER INTEGER from any certificate: relying parties accept
    /// numbers that RFC 5280 4.1.2.2 forbids, which are zero, negative or too long.
    pub fn from_elsewhere(contents: &[u8]) -> Result<SerialNumber, SerialRefusal> {
        match contents {
            [] | [0, ..0x80, ..] | [0xff, 0x80..=0xff, ..] => Err(SerialRefusal::NotMinimal),
            _ if contents.len() > ELSEWHERE_OCTETS_MAX => Err(SerialRefusal::TooLong),
            _ => Ok(SerialNumber {
                contents: contents.to_vec(),
            }),
        }
    }

    /// Fails unless the number is positive and has at most 20 octets, as that of an authority here
    /// must.
    pub fn check(&self) -> Result<(), SerialRefusal> {
        SerialNumber::from_der_contents(&self.contents).map(drop)
    }

    /// Reads the big-endian octets that [`SerialNumber::as_bytes`] returns.
    pub fn from_magnitude(octets: &[u8]) -> Result<SerialNumber, SerialRefusal> {
        let start = octets.iter().position(|octet| *octet != 0);
        let octets = &octets[start.ok_or(SerialRefusal::NotPositive)?..];
        let sign: &[u8] = if octets[0] >= 0x80 { &[0] } else { &[] };
        SerialNumber::from_der_contents(&[sign, octets].concat())
    }

    /// Returns the contents octets of the DER INTEGER, with a leading zero if the top bit is set.
    pub fn der_contents(&self) -> Vec<u8> {
        self.contents.clone()
    }

    /// Returns the big-endian octets without the zero of the sign.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.contents[..] {
            [0, magnitude @ ..] if !magnitude.is_empty() => magnitude,
            contents => contents,
        }
    }
}

/// As their octets sort in the store, without the zero of the sign.
impl Ord for SerialNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let octets = self.as_bytes().cmp(other.as_bytes());
        octets.then_with(|| self.contents.cmp(&other.contents))
    }
}

impl PartialOrd for SerialNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.contents[0] < 0x80 {
            return f.write_str(&hex::encode_upper(self.as_bytes()));
        }
        // The magnitude is the two's complement, without leading zeros.
        let inverted: Vec<u8> = self.contents.iter().map(|octet| !octet).collect();
        let magnitude = BigUint::from_bytes_be(&inverted) + 1_u8;
        write!(f, "-{}", hex::encode_upper(magnitude.to_bytes_be()))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

impl FromStr for SerialNumber {
    type Err = SerialRefusal;

    /// Reads hexadecimal digits of either case. Colons, as OpenSSL prints them, are skipped.
    fn from_str(text: &str) -> Result<SerialNumber, SerialRefusal> {
        let digits = text.replace(':', "");
        if digits.is_empty() {
            return Err(SerialRefusal::NotHex);
        }
        let octets = hex::decode(digits).map_err(|_| SerialRefusal::NotHex)?;
        SerialNumber::from_magnitude(&octets)
    }
}

impl TryFrom<String> for SerialNumber {
    type Error = SerialRefusal;

    fn try_from(text: String) -> Result<SerialNumber, SerialRefusal> {
        text.parse()
    }
}

impl From<SerialNumber> for String {
    fn from(serial: SerialNumber) -> String {
        serial.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_serials_have_one_length_and_survive_text(
            now in any::<i64>(), random in any::<[u8; RANDOM_OCTETS]>(),
        ) {
            let serial = SerialNumber::from_random(UnixSeconds::new(now), random);
            prop_assert_eq!(serial.der_contents().len(), 16);
            prop_assert_eq!(serial.to_string().parse(), Ok(serial.clone()));
            prop_assert_eq!(SerialNumber::from_der_contents(&serial.der_contents()), Ok(serial));
        }

        #[test]
        fn der_contents_survive(contents in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(serial) = SerialNumber::from_der_contents(&contents) {
                prop_assert_eq!(serial.der_contents(), contents);
            }
        }
    }

    #[test]
    fn zero_negative_long_and_padded_are_refused() {
        let der = SerialNumber::from_der_contents;
        assert_eq!(der(&[]), Err(SerialRefusal::NotPositive));
        assert_eq!(der(&[0]), Err(SerialRefusal::NotPositive));
        assert_eq!(der(&[0x80]), Err(SerialRefusal::NotPositive));
        assert_eq!(der(&[0, 1]), Err(SerialRefusal::NotMinimal));
        assert_eq!(der(&[1; 21]), Err(SerialRefusal::TooLong));
        assert_eq!(
            "ff".repeat(20).parse::<SerialNumber>(),
            Err(SerialRefusal::TooLong)
        );
        assert_eq!("0g".parse::<SerialNumber>(), Err(SerialRefusal::NotHex));
        assert_eq!("".parse::<SerialNumber>(), Err(SerialRefusal::NotHex));
        assert_eq!(
            "00".parse::<SerialNumber>(),
            Err(SerialRefusal::NotPositive)
        );
    }

    #[test]
    fn numbers_that_only_others_write_are_read_and_shown() {
        for (contents, shown) in [
            (&[0][..], "00"),
            (&[0x80], "-80"),
            (&[0xff], "-01"),
            (&[0xff, 0x01], "-FF"),
            (&[0x7f, 0, 1], "7F0001"),
        ] {
            let serial = SerialNumber::from_elsewhere(contents).expect("is a number");
            assert_eq!(serial.to_string(), shown);
            assert_eq!(serial.der_contents(), contents);
            assert_eq!(serial.check().is_ok(), shown == "7F0001", "{shown}");
        }
        let long = SerialNumber::from_elsewhere(&[1; 21]).expect("is a number");
        assert_eq!(long.check(), Err(SerialRefusal::TooLong));
        for contents in [&[][..], &[0, 1], &[0xff, 0x80], &[1; 65]] {
            assert!(SerialNumber::from_elsewhere(contents).is_err());
        }
    }

    #[test]
    fn a_later_serial_sorts_behind() {
        let at =
            |now, octet| SerialNumber::from_random(UnixSeconds::new(now), [octet; RANDOM_OCTETS]);
        assert!(at(1_795_000_000, 0xff) < at(1_795_000_004, 0));
        assert!(at(0, 0xff) < at(4_294_967_295, 0));
    }

    #[test]
    fn colons_and_lower_case_are_read() {
        let serial: SerialNumber = "0a:ff".parse().expect("is a serial");
        assert_eq!(serial.to_string(), "0AFF");
    }
}
