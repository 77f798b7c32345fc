//! Reads the list of `hallmark issue-batch`: a CSV file, or a folder of requests.
//!
//! The list is read twice: once to check all of it, before anything is sent, and then an entry at a
//! time. Of an entry that was read 16 bytes stay, by which a second one of its name is found, so
//! its length has no limit.

use crate::ctl::failure::Failure;
use crate::ctl::pem_or_base64;
use aws_lc_rs::digest;
use hallmark_base::files;
use hallmark_pki::enrollment::id::RegistrationId;
use std::collections::HashSet;
use std::fs::{File, ReadDir};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest request, in bytes; the daemon takes less.
const CSR_BYTES_MAX: u64 = 64 * 1024;
/// Extensions of the files of a folder that are read as requests.
const EXTENSIONS: [&str; 5] = ["csr", "pem", "der", "p10", "req"];
/// The beginning of PEM, and of the base64 of a request: a SEQUENCE with a length of two octets, or
/// of one behind `81`. No path begins so.
const INLINE: [&str; 3] = ["-----BEGIN ", "MII", "MIH"];
/// Fewest characters of a request that is written into the list.
const INLINE_CHARACTERS_MIN: usize = 160;

/// A device of the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) csr: Csr,
    /// The first byte of its record in a CSV file.
    start: Option<u64>,
}

/// The request of a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Csr {
    File(PathBuf),
    /// PEM or base64, as it is in the list.
    Inline(String),
}

impl Entry {
    /// Returns the request as it is sent.
    pub(super) fn request(self) -> Result<String, Failure> {
        match self.csr {
            Csr::File(path) => pem_or_base64(&path, CSR_BYTES_MAX, "the request"),
            Csr::Inline(text) => Ok(text),
        }
    }
}

/// The entries of a list, one after the other.
pub(super) enum List {
    Csv(Box<CsvList<BufReader<File>>>),
    Folder(ReadDir),
}

impl List {
    /// Checks the whole list, and returns its number of entries.
    pub(super) fn check(path: &Path) -> Result<usize, Failure> {
        let mut seen = HashSet::new();
        let mut count = 0;
        for entry in List::open(path)? {
            let Entry { id, start, .. } = entry?;
            if !seen.insert(short_digest(id.to_lowercase().as_bytes())) {
                let place =
                    start.map_or_else(String::new, |it| format!(", line {}", line_at(path, it)));
                let message = format!(
                    "{}{place}: {id} is named a second time; name each device once",
                    path.display()
                );
                return Err(Failure::File(message));
            }
            count += 1;
        }
        match count {
            0 => Err(Failure::File(format!(
                "{}: it names no device; see --help",
                path.display()
            ))),
            count => Ok(count),
        }
    }

    /// Begins to read the list.
    pub(super) fn open(path: &Path) -> Result<List, Failure> {
        let unreadable = |error| Failure::file(path, &error);
        if path.is_dir() {
            return Ok(List::Folder(std::fs::read_dir(path).map_err(unreadable)?));
        }
        let file = BufReader::new(files::open(path).map_err(unreadable)?);
        let list = CsvList::new(path, file).map_err(unreadable)?;
        Ok(List::Csv(Box::new(list)))
    }
}

impl Iterator for List {
    type Item = Result<Entry, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            List::Csv(list) => list.next(),
            List::Folder(folder) => folder.find_map(|found| {
                let path = match found {
                    Ok(found) => found.path(),
                    Err(error) => return Some(Err(Failure::File(error.to_string()))),
                };
                let extension = path.extension().and_then(|it| it.to_str());
                let is_request = extension.is_some_and(|it| EXTENSIONS.contains(&it));
                is_request.then(|| of_file(path))
            }),
        }
    }
}

/// Returns the entry of a file of a folder, which has the name of its device.
fn of_file(path: PathBuf) -> Result<Entry, Failure> {
    let id = path.file_stem().and_then(|it| it.to_str());
    let id = id.unwrap_or_default().to_owned();
    check_id(&id).map_err(|why| Failure::File(format!("{}: {why}", path.display())))?;
    Ok(Entry {
        id,
        csr: Csr::File(path),
        start: None,
    })
}

/// Lines of a registration id and its request: a path, relative to the list, or the request itself.
pub(super) struct CsvList<R> {
    path: PathBuf,
    records: csv::StringRecordsIntoIter<R>,
    is_first: bool,
}

impl<R: BufRead> CsvList<R> {
    fn new(path: &Path, mut from: R) -> std::io::Result<Self> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        if from.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            from.consume(BYTE_ORDER_MARK.len());
        }
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .from_reader(from);
        Ok(Self {
            path: path.to_owned(),
            records: reader.into_records(),
            is_first: true,
        })
    }

    fn entry(&self, record: csv::Result<csv::StringRecord>) -> Result<Entry, Failure> {
        let path = self.path.display();
        let record = record.map_err(|error| Failure::File(format!("{path}, {error}")))?;
        let fields: Vec<_> = record.iter().collect();
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let start = record.position().map_or(0, csv::Position::byte);
        entry_of(&fields, folder, start).map_err(|why| {
            let line = line_at(&self.path, start);
            Failure::File(format!("{path}, line {line}: {why}"))
        })
    }
}

impl<R: BufRead> Iterator for CsvList<R> {
    type Item = Result<Entry, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = self.records.next()?;
        let is_first = std::mem::take(&mut self.is_first);
        let heads = |it: &csv::StringRecord| it.iter().eq(["registration_id", "csr"]);
        if is_first && record.as_ref().is_ok_and(heads) {
            record = self.records.next()?;
        }
        Some(self.entry(record))
    }
}

fn entry_of(fields: &[&str], folder: &Path, start: u64) -> Result<Entry, String> {
    let [id, csr] = *fields else {
        return Err("it has not two fields; write ID,FILE".into());
    };
    if csr.is_empty() {
        return Err("it names no file; write ID,FILE".into());
    }
    check_id(id)?;
    let begins = INLINE.iter().any(|it| csr.starts_with(it));
    let csr = if begins && csr.len() >= INLINE_CHARACTERS_MIN {
        Csr::Inline(csr.to_owned())
    } else {
        Csr::File(folder.join(csr))
    };
    Ok(Entry {
        id: id.to_owned(),
        csr,
        start: Some(start),
    })
}

/// Returns the line, from 1, of a record that starts at this byte, behind empty lines and comments.
fn line_at(path: &Path, start: u64) -> usize {
    let Ok(file) = files::open(path) else {
        return 0;
    };
    let mut file = BufReader::new(file);
    let mut line = 1;
    let mut before = file.by_ref().take(start);
    let mut text = Vec::new();
    while before.read_until(b'\n', &mut text).is_ok_and(|it| it > 0) {
        line += usize::from(text.ends_with(b"\n"));
        text.clear();
    }
    while file.read_until(b'\n', &mut text).is_ok_and(|it| it > 0) {
        let is_skipped = text.trim_ascii().is_empty() || text.starts_with(b"#");
        if !is_skipped {
            break;
        }
        line += 1;
        text.clear();
    }
    line
}

/// Fails if `id` is no registration id.
fn check_id(id: &str) -> Result<(), String> {
    RegistrationId::parse(id)
        .map(drop)
        .map_err(|error| format!("{id:?}: {error}"))
}

/// The first half of a SHA-256.
pub(super) fn short_digest(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&digest::digest(&digest::SHA256, bytes).as_ref()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(text: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list.csv");
        std::fs::write(&path, text).expect("writable");
        let open = || List::open(&path).map_err(|it| it.to_string());
        List::check(&path).map_err(|it| it.to_string())?;
        let shown = |it: Entry| match it.csr {
            Csr::File(csr) => {
                let csr = csr.strip_prefix(folder.path()).unwrap_or(&csr);
                (it.id, csr.display().to_string())
            }
            Csr::Inline(text) => (it.id, text),
        };
        open()?
            .map(|it| it.map(shown).map_err(|it| it.to_string()))
            .collect()
    }

    #[test]
    fn a_list_has_ids_and_paths_below_its_folder() {
        let text =
            "\u{feff}registration_id,csr\r\n# comment\r\npump-1, a.csr\n\"pump-2\",\"/b,c.csr\"\n";
        let read = [("pump-1", "a.csr"), ("pump-2", "/b,c.csr")];
        let read = read.map(|(id, csr)| (id.to_owned(), csr.to_owned()));
        assert_eq!(ids(text).unwrap(), read);
    }

    #[test]
    fn a_request_may_be_in_the_list() {
        let base64 = format!("MIIB{}", "A".repeat(200));
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{base64}\n-----END");
        let text = format!("pump-1,{base64}\npump-2,\"{pem}\"\npump-3,MII.csr\n");
        let read = ids(&text).unwrap();
        assert_eq!(read[0].1, base64);
        assert_eq!(read[1].1, pem);
        assert_eq!(read[2].1, "MII.csr");
    }

    #[test]
    fn a_line_that_is_no_device_is_named() {
        for (text, line) in [
            ("pump-1,a\npump-2\n", "line 2"),
            ("pump-1,a\r\n\r\n# b\r\npump-2", "line 4"),
            ("pump-1\n", "line 1"),
            (
                "pump-1,a\n\nPUMP-1,b\n",
                "line 3: PUMP-1 is named a second time",
            ),
            ("../pump,a\n", "line 1"),
            ("pump-1,\n", "line 1"),
            ("pump-1,a,b\n", "line 1"),
        ] {
            let why = ids(text).unwrap_err();
            assert!(why.contains(line), "{text:?}: {why}");
        }
    }

    proptest! {
        /// No text panics, and no name of a file leaves the folder of the certificates.
        #[test]
        fn any_list_is_read_or_refused(text in "([a-z./-]{0,6}[,\"\n ]{0,2}){0,12}") {
            for (id, _) in ids(&text).unwrap_or_default() {
                prop_assert!(RegistrationId::parse(&id).is_ok() && !id.contains('/'));
            }
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("list.csv");
            std::fs::write(&path, octets).expect("writable");
            let _ = List::check(&path);
        }
    }
}
