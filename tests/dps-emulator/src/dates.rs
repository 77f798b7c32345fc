//! The three ways in which Azure writes a date.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const SEVEN_DIGITS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");
const WHOLE_SECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const RFC_1123: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// Dates of DPS records: seven fractional digits and `Z` (contract section 3).
pub(crate) fn seven_digits(at: OffsetDateTime) -> String {
    write(at, SEVEN_DIGITS)
}

/// Dates inside a certificate's `info`: no fraction (contract section 3).
pub(crate) fn whole_seconds(at: OffsetDateTime) -> String {
    write(at, WHOLE_SECONDS)
}

/// Dates of the resource manager's CA certificates (contract section 11).
pub(crate) fn rfc_1123(at: OffsetDateTime) -> String {
    write(at, RFC_1123)
}

fn write(at: OffsetDateTime, format: &[BorrowedFormatItem<'_>]) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(&format)
        .expect("the formats name only parts that a date with time has")
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn dates_look_like_azures() {
        let at = datetime!(2026-11-05 7:08:09.123 UTC);
        assert_eq!(seven_digits(at), "2026-11-05T07:08:09.1230000Z");
        assert_eq!(whole_seconds(at), "2026-11-05T07:08:09Z");
        assert_eq!(rfc_1123(at), "Thu, 05 Nov 2026 07:08:09 GMT");
    }
}
