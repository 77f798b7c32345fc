//! Converts values to and from the JSON columns.

use super::StoreError;
use serde::{Deserialize, Serialize};

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub(super) fn from_json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable(format!("{error}: {text}")))
}

pub(super) fn optional_json<T: for<'de> Deserialize<'de>>(
    text: Option<String>,
) -> Result<Option<T>, StoreError> {
    text.as_deref().map(from_json).transpose()
}
