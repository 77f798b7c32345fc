//! Defines the CRL number of RFC 5280, section 5.2.3: it rises with each list of a generation.

use num_bigint::BigUint;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Octets of the longest number (RFC 5280, section 5.2.3).
const OCTETS: usize = 20;

/// A CRL number. As an INTEGER it has at most 20 octets, so the highest of its 160 bits is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlNumber([u8; OCTETS]);

/// The reason why text or octets are no CRL number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlNumberRefusal {
    /// It has other characters.
    #[error(
        "a CRL number is written in decimal digits, or in hexadecimal ones after 0x, as `openssl \
         crl -noout -crlnumber` prints it"
    )]
    NotDigits,
    /// It does not fit into the octets that RFC 5280 allows.
    #[error("a CRL number has at most {OCTETS} octets (RFC 5280, section 5.2.3)")]
    TooLong,
    /// It is negative.
    #[error("a CRL number is not negative")]
    Negative,
}

impl CrlNumber {
    /// Less than the number of every list.
    pub const START: Self = Self([0; OCTETS]);

    /// The highest number.
    const END: Self = Self({
        let mut octets = [0xff; OCTETS];
        octets[0] = 0x7f;
        octets
    });

    /// Returns the number with this value; a negative one is 0.
    pub const fn new(integer: i64) -> Self {
        let integer = if integer < 0 { 0 } else { integer };
        let last = integer.to_be_bytes();
        let mut octets = [0; OCTETS];
        let mut index = 0;
        while index < last.len() {
            octets[OCTETS - last.len() + index] = last[index];
            index += 1;
        }
        Self(octets)
    }

    /// Reads a big-endian number of any length.
    pub fn from_magnitude(octets: &[u8]) -> Result<Self, CrlNumberRefusal> {
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        let octets = &octets[zeros..];
        let mut number = [0; OCTETS];
        let start = OCTETS.checked_sub(octets.len());
        number[start.ok_or(CrlNumberRefusal::TooLong)?..].copy_from_slice(octets);
        let number = Self(number);
        if number > Self::END {
            return Err(CrlNumberRefusal::TooLong);
        }
        Ok(number)
    }

    /// Returns all 20 octets, big-endian: they sort like the numbers.
    pub const fn as_octets(&self) -> &[u8; OCTETS] {
        &self.0
    }

    /// Returns the least number that a later list may have.
    pub fn next(self) -> Self {
        let mut octets = self.0;
        for octet in octets.iter_mut().rev() {
            let (sum, carries) = octet.overflowing_add(1);
            *octet = sum;
            if !carries {
                break;
            }
        }
        Self(octets).min(Self::END).max(self)
    }

    /// Returns true if lists can be numbered from here on for as long as a generation lasts.
    pub fn leaves_room(self) -> bool {
        let mut last = Self::END.0;
        // Four octets are one list each second for a century.
        last[OCTETS - 4..].fill(0);
        self < Self(last)
    }

    fn to_i64(self) -> Option<i64> {
        let (high, low) = self.0.split_at(OCTETS - size_of::<i64>());
        let low = i64::from_be_bytes(low.try_into().ok()?);
        (high.iter().all(|octet| *octet == 0) && low >= 0).then_some(low)
    }
}

impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BigUint::from_bytes_be(&self.0).fmt(f)
    }
}

impl fmt::Debug for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrlNumber({self})")
    }
}

impl FromStr for CrlNumber {
    type Err = CrlNumberRefusal;

    fn from_str(text: &str) -> Result<Self, CrlNumberRefusal> {
        let text = text.trim();
        let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let (digits, radix) = match hexadecimal {
            Some(digits) => (digits.replace(':', ""), 16),
            None => (text.to_owned(), 10),
        };
        let is_number = !digits.is_empty() && digits.chars().all(|it| it.is_digit(radix));
        // Longer than any number with leading zeros that a tool prints.
        if !is_number || digits.len() > 4 * OCTETS {
            return Err(CrlNumberRefusal::NotDigits);
        }
        let number = BigUint::parse_bytes(digits.as_bytes(), radix);
        Self::from_magnitude(&number.ok_or(CrlNumberRefusal::NotDigits)?.to_bytes_be())
    }
}

/// An integer where every reader of JSON has it exactly as 64 bits, decimal digits above.
/// An integer, or its decimal digits where JSON numbers are too short.
impl JsonSchema for CrlNumber {
    fn schema_name() -> Cow<'static, str> {
        "CrlNumber".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"] })
    }
}

impl Serialize for CrlNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.to_i64() {
            Some(integer) => serializer.serialize_i64(integer),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for CrlNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntegerOrText)
    }
}

struct IntegerOrText;

impl Visitor<'_> for IntegerOrText {
    type Value = CrlNumber;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a CRL number: an integer, or a string of decimal digits or of 0x and hexadecimal ones",
        )
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<CrlNumber, E> {
        match integer {
            0.. => Ok(CrlNumber::new(integer)),
            _ => Err(E::custom(CrlNumberRefusal::Negative)),
        }
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<CrlNumber, E> {
        self.visit_u128(u128::from(integer))
    }

    fn visit_i128<E: Error>(self, integer: i128) -> Result<CrlNumber, E> {
        let integer = u128::try_from(integer);
        self.visit_u128(integer.map_err(|_| E::custom(CrlNumberRefusal::Negative))?)
    }

    fn visit_u128<E: Error>(self, integer: u128) -> Result<CrlNumber, E> {
        CrlNumber::from_magnitude(&integer.to_be_bytes()).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<CrlNumber, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive_text_and_sort_like_their_octets(
            a in any::<[u8; OCTETS]>(), b in any::<i64>(),
        ) {
            let [a, b] = [CrlNumber::from_magnitude(&a), Ok(CrlNumber::new(b))];
            for number in [a, b].into_iter().flatten() {
                prop_assert_eq!(number.to_string().parse(), Ok(number));
                prop_assert_eq!(format!("0x{}", hex::encode(number.0)).parse(), Ok(number));
                let json = serde_json::to_string(&number).unwrap();
                prop_assert_eq!(serde_json::from_str::<CrlNumber>(&json).unwrap(), number);
                if number < CrlNumber::END {
                    prop_assert!(number < number.next() && number.0 < number.next().0);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<CrlNumber>();
        }
    }

    #[test]
    fn the_next_number_carries_and_ends() {
        let carried = CrlNumber::from_magnitude(&[1, 0xff, 0xff]).unwrap().next();
        assert_eq!(carried, CrlNumber::from_magnitude(&[2, 0, 0]).unwrap());
        assert_eq!(CrlNumber::END.next(), CrlNumber::END);
        assert!(!CrlNumber::END.leaves_room());
        let long = CrlNumber::from_magnitude(&[0x7e; OCTETS]).unwrap();
        assert!(long.leaves_room());
        assert_eq!(
            CrlNumber::from_magnitude(&[0x80; OCTETS]),
            Err(CrlNumberRefusal::TooLong)
        );
        assert_eq!(
            CrlNumber::from_magnitude(&[1; 21]),
            Err(CrlNumberRefusal::TooLong)
        );
    }

    #[test]
    fn a_small_number_is_an_integer_in_json_and_a_long_one_is_text() {
        assert_eq!(serde_json::to_string(&CrlNumber::new(41)).unwrap(), "41");
        let long = CrlNumber::from_magnitude(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(
            serde_json::to_string(&long).unwrap(),
            "\"18446744073709551616\""
        );
        for (toml, number) in [
            ("a = 41", Ok(CrlNumber::new(41))),
            ("a = \"0x2:9\"", Ok(CrlNumber::new(41))),
            ("a = 18446744073709551616", Ok(long)),
            ("a = -1", Err("negative")),
            ("a = \"one\"", Err("decimal digits")),
            ("a = true", Err("a CRL number")),
        ] {
            let read: Result<std::collections::BTreeMap<String, CrlNumber>, _> =
                toml::from_str(toml);
            match (read, number) {
                (Ok(read), Ok(number)) => assert_eq!(read["a"], number, "{toml}"),
                (Err(error), Err(words)) => {
                    assert!(error.to_string().contains(words), "{toml}: {error}");
                }
                (read, _) => panic!("{toml}: {read:?}"),
            }
        }
    }
}
