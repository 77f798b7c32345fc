//! Durations as people write them: `90d`, `12h`, `20y`.

/// Reads and writes whole seconds as `90d`, `12h` or `20y`, for `#[serde(with)]`.
///
/// A year has 365.25 days. A fraction of a second is refused.
pub mod human_seconds {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use std::time::Duration;

    /// Writes the duration in words.
    pub fn serialize<S: Serializer>(seconds: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&written(*seconds))
    }

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map_err(D::Error::custom)
    }

    /// Reads a duration that may be absent; use it with `default`.
    pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        deserialize(deserializer).map(Some)
    }

    pub(in crate::x509::profile) fn written(seconds: u64) -> String {
        humantime::format_duration(Duration::from_secs(seconds)).to_string()
    }

    /// Reads a duration such as 90d. Fails with the reason in words.
    pub fn parse(text: &str) -> Result<u64, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("{text:?} is no duration such as 90d or 12h: {error}"))?;
        match duration.subsec_nanos() {
            0 => Ok(duration.as_secs()),
            _ => Err(format!("{text:?} is no whole number of seconds")),
        }
    }
}
