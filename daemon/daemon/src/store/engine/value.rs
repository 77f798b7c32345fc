//! Values that go into the database and come out of it, and the types that hold them.

use crate::crl_number::CrlNumber;
use crate::der_bytes::Der;
use crate::ids::{
    ApprovalId, BlockId, CaCertificateId, CrlId, DeviceCredentialId, EnrollmentId, GenerationId,
    GenerationNumber, HubJobId, HubTaskId, IntentId, MarkId, RollId,
};
use crate::unix_seconds::UnixSeconds;

/// A value on its way into or out of the database.
#[derive(Clone, Copy)]
pub(in crate::store) enum Value<'v> {
    Null,
    Integer(i64),
    Text(&'v str),
    Bytes(&'v [u8]),
}

/// A type that a statement takes as a parameter.
pub(in crate::store) trait Parameter {
    fn value(&self) -> Value<'_>;
}

/// A type that a column holds. An error is a sentence about the stored value.
pub(in crate::store) trait Column: Sized {
    fn read(value: Value<'_>) -> Result<Self, String>;
}

impl<'v> Value<'v> {
    /// Returns the text that is stored.
    pub(in crate::store) fn text(self) -> Result<&'v str, String> {
        match self {
            Value::Text(text) => Ok(text),
            other => other.unexpected("text"),
        }
    }

    /// Says what was found where something else was expected.
    fn unexpected<T>(self, expected: &str) -> Result<T, String> {
        let found = match self {
            Value::Null => "NULL",
            Value::Integer(_) => "an integer",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
        };
        Err(format!("{found}, expected {expected}"))
    }
}

impl Parameter for i64 {
    fn value(&self) -> Value<'_> {
        Value::Integer(*self)
    }
}

impl Parameter for u32 {
    fn value(&self) -> Value<'_> {
        Value::Integer(i64::from(*self))
    }
}

impl Parameter for u16 {
    fn value(&self) -> Value<'_> {
        Value::Integer(i64::from(*self))
    }
}

impl Parameter for u8 {
    fn value(&self) -> Value<'_> {
        Value::Integer(i64::from(*self))
    }
}

impl Parameter for bool {
    fn value(&self) -> Value<'_> {
        Value::Integer(i64::from(*self))
    }
}

impl Parameter for str {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Parameter for String {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Parameter for [u8] {
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl Parameter for Vec<u8> {
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl Parameter for Der {
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl<const LENGTH: usize> Parameter for [u8; LENGTH] {
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl<T: Parameter> Parameter for Option<T> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, Parameter::value)
    }
}

impl<T: Parameter + ?Sized> Parameter for &T {
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

impl Column for i64 {
    fn read(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Integer(number) => Ok(number),
            other => other.unexpected("an integer"),
        }
    }
}

impl Column for u16 {
    fn read(value: Value<'_>) -> Result<Self, String> {
        let number = i64::read(value)?;
        number
            .try_into()
            .map_err(|_| format!("{number} is out of range"))
    }
}

impl Column for u8 {
    fn read(value: Value<'_>) -> Result<Self, String> {
        let number = i64::read(value)?;
        number
            .try_into()
            .map_err(|_| format!("{number} is out of range"))
    }
}

impl Column for bool {
    fn read(value: Value<'_>) -> Result<Self, String> {
        i64::read(value).map(|number| number != 0)
    }
}

impl Column for String {
    fn read(value: Value<'_>) -> Result<Self, String> {
        value.text().map(str::to_owned)
    }
}

impl Column for Vec<u8> {
    fn read(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Bytes(bytes) => Ok(bytes.to_owned()),
            other => other.unexpected("bytes"),
        }
    }
}

impl Column for Der {
    fn read(value: Value<'_>) -> Result<Self, String> {
        Vec::read(value).map(Self::from)
    }
}

impl<const LENGTH: usize> Column for [u8; LENGTH] {
    fn read(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Bytes(bytes) => bytes
                .try_into()
                .map_err(|_| format!("{} bytes, expected {LENGTH}", bytes.len())),
            other => other.unexpected("bytes"),
        }
    }
}

impl<T: Column> Column for Option<T> {
    fn read(value: Value<'_>) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            other => T::read(other).map(Some),
        }
    }
}

/// Stores types that wrap an integer as that integer.
macro_rules! stored_as_integers {
    ($($name:ty),* $(,)?) => {$(
        impl Parameter for $name {
            fn value(&self) -> Value<'_> {
                Value::Integer(self.get())
            }
        }

        impl Column for $name {
            fn read(value: Value<'_>) -> Result<Self, String> {
                i64::read(value).map(Self::new)
            }
        }
    )*};
}

stored_as_integers![
    ApprovalId,
    BlockId,
    CaCertificateId,
    CrlId,
    DeviceCredentialId,
    EnrollmentId,
    GenerationId,
    GenerationNumber,
    HubJobId,
    HubTaskId,
    IntentId,
    MarkId,
    RollId,
    UnixSeconds,
];

/// All octets, so that the database compares numbers as it compares bytes.
impl Parameter for CrlNumber {
    fn value(&self) -> Value<'_> {
        Value::Bytes(self.as_octets())
    }
}

impl Column for CrlNumber {
    fn read(value: Value<'_>) -> Result<Self, String> {
        let octets = <[u8; 20]>::read(value)?;
        Self::from_magnitude(&octets).map_err(|refusal| refusal.to_string())
    }
}
