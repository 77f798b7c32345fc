//! Reads the index of certificates that `openssl ca` keeps (`index.txt`), also by Easy-RSA.
//!
//! Six fields in a line, separated by tabs: `V`, `R` or `E`; the end of the validity; when it was
//! revoked, and why; the serial number; a file, which is never used; and the subject as OpenSSL
//! prints it on one line (`apps/ca.c` and `crypto/txt_db/txt_db.c` of OpenSSL).

use super::revocation::RevocationReason;
use super::serial::SerialNumber;
use crate::unix_seconds::UnixSeconds;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The longest index that is read, in bytes: some 800,000 lines.
pub const INDEX_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 16 * 1024;

const FIELDS: usize = 6;

/// A certificate that the index names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedCertificate {
    /// The line, counted from 1.
    pub line: usize,
    pub serial: SerialNumber,
    pub not_after: UnixSeconds,
    /// When and why it was revoked.
    pub revoked: Option<(UnixSeconds, RevocationReason)>,
    /// The subject as it is written.
    pub subject: String,
}

/// The certificates of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// By serial number, each once.
    pub certificates: Vec<IndexedCertificate>,
    /// Remarks for the operator: what is not as `openssl ca` writes it.
    pub remarks: Vec<String>,
}

/// The reason why a text is no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexRefusal {
    #[error("the index has {0} bytes; at most {INDEX_BYTES_MAX} are read")]
    TooLarge(usize),
    #[error("line {line} of the index: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        reason: String,
    },
}

/// Reads a whole index. A serial number in several lines is taken as revoked if one of them says
/// so.
pub fn parse(bytes: &[u8]) -> Result<Index, IndexRefusal> {
    if bytes.len() > INDEX_BYTES_MAX {
        return Err(IndexRefusal::TooLarge(bytes.len()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut found: BTreeMap<SerialNumber, IndexedCertificate> = BTreeMap::new();
    let mut remarks = Vec::new();
    for (number, text) in bytes.split(|octet| *octet == b'\n').enumerate() {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        // OpenSSL skips such lines, too.
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let line = number + 1;
        let refused = |reason: String| IndexRefusal::Line { line, reason };
        let read = parse_line(line, text, &mut remarks).map_err(refused)?;
        match found.entry(read.serial.clone()) {
            Entry::Vacant(place) => {
                place.insert(read);
            }
            Entry::Occupied(mut place) => {
                let first = place.get_mut();
                remarks.push(format!(
                    "serial number {} is in line {} and in line {line}",
                    read.serial, first.line
                ));
                first.revoked = earlier(first.revoked, read.revoked);
            }
        }
    }
    Ok(Index {
        certificates: found.into_values().collect(),
        remarks,
    })
}

type Revoked = Option<(UnixSeconds, RevocationReason)>;

fn earlier(one: Revoked, other: Revoked) -> Revoked {
    [one, other].into_iter().flatten().min_by_key(|it| it.0)
}

fn parse_line(
    line: usize,
    text: &[u8],
    remarks: &mut Vec<String>,
) -> Result<IndexedCertificate, String> {
    if text.len() > LINE_BYTES_MAX {
        return Err(format!("it has more than {LINE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8_lossy(text);
    let fields: Vec<&str> = text.splitn(FIELDS, '\t').collect();
    let [state, not_after, revoked, serial, _file, subject] = fields[..] else {
        return Err(format!(
            "it has {} fields, separated by tabs, and `openssl ca` writes {FIELDS}",
            fields.len()
        ));
    };
    let serial = parse_serial(serial)?;
    let not_after = parse_time(not_after)?;
    let revoked = match (state, revoked) {
        ("V" | "E", "") => None,
        ("R", revoked) if !revoked.is_empty() => Some(parse_revoked(line, revoked, remarks)?),
        ("R", _) => return Err("it is revoked (R), and says not since when".into()),
        ("V" | "E", _) => {
            return Err(format!(
                "it is not revoked ({state}), and says since when it is"
            ));
        }
        (other, _) => return Err(format!("{other:?} is none of V, R and E")),
    };
    Ok(IndexedCertificate {
        line,
        serial,
        not_after,
        revoked,
        subject: subject.to_owned(),
    })
}

fn parse_serial(text: &str) -> Result<SerialNumber, String> {
    let even = if text.len() % 2 == 1 {
        format!("0{text}")
    } else {
        text.to_owned()
    };
    let serial = even.parse::<SerialNumber>();
    serial.map_err(|error| format!("{text:?} is no serial number: {error}"))
}

/// The date, the reason and a third value that some reasons have, separated by commas.
fn parse_revoked(
    line: usize,
    text: &str,
    remarks: &mut Vec<String>,
) -> Result<(UnixSeconds, RevocationReason), String> {
    let mut parts = text.splitn(3, ',');
    let since = parse_time(parts.next().unwrap_or_default())?;
    let Some(name) = parts.next() else {
        return Ok((since, RevocationReason::Unspecified));
    };
    let reason = match name.to_ascii_lowercase().as_str() {
        // These carry the instruction, or the time of the compromise.
        "holdinstruction" => RevocationReason::CertificateHold,
        "keytime" => RevocationReason::KeyCompromise,
        "cakeytime" => RevocationReason::CaCompromise,
        "removefromcrl" => {
            remarks.push(format!(
                "line {line}: the reason removeFromCRL belongs to delta lists; it is taken as \
                 revoked without a reason"
            ));
            RevocationReason::Unspecified
        }
        _ => RevocationReason::from_name(name)
            .ok_or_else(|| format!("{name:?} is no reason of RFC 5280, 5.3.1"))?,
    };
    Ok((since, reason))
}

/// UTCTime (`YYMMDDHHMMSSZ`) or GeneralizedTime (`YYYYMMDDHHMMSSZ`).
fn parse_time(text: &str) -> Result<UnixSeconds, String> {
    let refused = || format!("{text:?} is no date such as 301231235959Z");
    let digits = text.strip_suffix('Z').ok_or_else(refused)?;
    if !digits.bytes().all(|it| it.is_ascii_digit()) {
        return Err(refused());
    }
    let number = |from: usize, to: usize| -> u16 { digits[from..to].parse().unwrap_or_default() };
    let (year, rest) = match digits.len() {
        // RFC 5280 4.1.2.5.1.
        12 => (
            if number(0, 2) < 50 { 2000 } else { 1900 } + number(0, 2),
            2,
        ),
        14 => (number(0, 4), 4),
        _ => return Err(refused()),
    };
    let part = |index: usize| {
        let value = number(rest + 2 * index, rest + 2 * index + 2);
        u8::try_from(value).unwrap_or(u8::MAX)
    };
    let time = der::DateTime::new(year, part(0), part(1), part(2), part(3), part(4));
    let time = time.map_err(|_| refused())?;
    Ok(UnixSeconds::new(
        time.unix_duration().as_secs().cast_signed(),
    ))
}

/// Returns the last common name in a subject as OpenSSL prints it: `/C=DE/CN=press-1`.
pub fn common_name(subject: &str) -> Option<&str> {
    let (_, rest) = subject.rsplit_once("/CN=")?;
    let end = rest.find('/').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INDEX: &str = "V\t351231235959Z\t\t1000\tunknown\t/C=DE/O=Works/CN=press-1\n\
        R\t301231235959Z\t260102030405Z\t01\tunknown\t/CN=press-2\r\n\
        R\t20521231235959Z\t260102030405Z,keyCompromise\tFF01\tunknown\t/CN=press-3\n\
        # a remark\n\
        R\t301231235959Z\t260102030405Z,CACompromise\t02\tunknown\t/CN=a\\\tb\n\
        E\t991231235959Z\t\t0A\tunknown\t/CN=press-4/emailAddress=a@b\n";

    #[test]
    fn each_kind_of_line_is_read() {
        let index = parse(INDEX.as_bytes()).unwrap();
        assert!(index.remarks.is_empty(), "{:?}", index.remarks);
        let found: Vec<_> = index
            .certificates
            .iter()
            .map(|it| (it.serial.to_string(), it.revoked.map(|it| it.1)))
            .collect();
        let reason = |it| Some(it);
        assert_eq!(
            found,
            [
                ("01".to_owned(), reason(RevocationReason::Unspecified)),
                ("02".to_owned(), reason(RevocationReason::CaCompromise)),
                ("0A".to_owned(), None),
                ("1000".to_owned(), None),
                ("FF01".to_owned(), reason(RevocationReason::KeyCompromise)),
            ]
        );
        let since = index.certificates[0].revoked.unwrap().0;
        assert_eq!(since, UnixSeconds::new(1_767_323_045));
        assert_eq!(
            index.certificates[2].not_after,
            UnixSeconds::new(946_684_799)
        );
        assert_eq!(common_name(&index.certificates[2].subject), Some("press-4"));
        assert_eq!(common_name("/O=Works"), None);
    }

    #[test]
    fn reasons_with_a_third_value_are_known() {
        for (text, reason) in [
            ("keyTime,20260101000000Z", RevocationReason::KeyCompromise),
            ("CAkeyTime,20260101000000Z", RevocationReason::CaCompromise),
            (
                "holdInstruction,holdInstructionReject",
                RevocationReason::CertificateHold,
            ),
            ("superseded", RevocationReason::Superseded),
            ("removeFromCRL", RevocationReason::Unspecified),
        ] {
            let line = format!("R\t301231235959Z\t260102030405Z,{text}\t01\tunknown\t/CN=x\n");
            let index = parse(line.as_bytes()).unwrap();
            assert_eq!(index.certificates[0].revoked.unwrap().1, reason, "{text}");
        }
    }

    #[test]
    fn a_serial_number_in_two_lines_is_revoked_if_one_of_them_is() {
        let text = "V\t301231235959Z\t\t01\tunknown\t/CN=x\n\
                    R\t301231235959Z\t260102030405Z\t01\tunknown\t/CN=y\n";
        let index = parse(text.as_bytes()).unwrap();
        assert_eq!(index.certificates.len(), 1);
        assert!(index.certificates[0].revoked.is_some());
        assert_eq!(index.remarks.len(), 1);
    }

    #[test]
    fn what_is_no_index_is_refused_with_the_line() {
        for (line, reason) in [
            ("V\t301231235959Z\t\t01\tunknown", "5 fields"),
            (
                "X\t301231235959Z\t\t01\tunknown\t/CN=x",
                "none of V, R and E",
            ),
            ("V\t301231235959\t\t01\tunknown\t/CN=x", "no date"),
            ("V\t301331235959Z\t\t01\tunknown\t/CN=x", "no date"),
            ("V\t301231235959Z\t\t00\tunknown\t/CN=x", "no serial number"),
            ("V\t301231235959Z\t\tzz\tunknown\t/CN=x", "no serial number"),
            ("R\t301231235959Z\t\t01\tunknown\t/CN=x", "since when"),
            (
                "V\t301231235959Z\t260102030405Z\t01\tunknown\t/CN=x",
                "since when",
            ),
            (
                "R\t301231235959Z\t260102030405Z,boredom\t01\tunknown\t/CN=x",
                "no reason",
            ),
        ] {
            let refused = parse(format!("{INDEX}{line}\n").as_bytes()).unwrap_err();
            let text = refused.to_string();
            assert!(
                text.contains(reason) && text.contains("line 7"),
                "{line}: {text}"
            );
        }
        let long = format!(
            "V\t301231235959Z\t\t01\tunknown\t/CN={}",
            "x".repeat(20_000)
        );
        assert!(parse(long.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_line_with_any_fields_is_read_or_refused(
            state in "[VREX]", fields in proptest::collection::vec("[0-9A-Z,a-z/=]{0,16}", 0..7),
        ) {
            let _ = parse(format!("{state}\t{}", fields.join("\t")).as_bytes());
        }
    }
}
