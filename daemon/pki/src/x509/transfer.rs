//! Reads and checks what an operator carries between a daemon and its offline root: requests there,
//! certificates and revocation lists back.
//!
//! Each side writes files and a transcript (JSON) that has the SHA-256 of each file; the answer has
//! the SHA-256 of the transcript of the requests, too. The operator compares the SHA-256 of the
//! transcript itself with the page that was printed at its origin, so no other file is used.

use super::authority_csr::AuthorityCsr;
use super::bundle::{parse_bundle, parse_first};
use super::certificate::Certificate;
use crate::error_code::Code;
use aws_lc_rs::digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The transcript of the requests, in the folder.
pub const REQUESTS_FILE: &str = "requests.json";
/// The transcript of the offline root, in the folder.
pub const ANSWERS_FILE: &str = "answers.json";
/// The longest transcript, in bytes.
pub const TRANSCRIPT_BYTES_MAX: usize = 256 * 1024;
/// The longest file beside a transcript, in bytes: a revocation list with some 10,000 entries.
pub const FILE_BYTES_MAX: usize = 512 * 1024;
/// The most files of one transcript.
pub const FILES_MAX: usize = 64;
/// The longest files of one transcript together, in bytes.
pub const ALL_BYTES_MAX: usize = 5 * 512 * 1024;
/// The most requests of one transcript: the answer to it has a certificate for each, and the lists.
pub const REQUESTS_MAX: usize = FILES_MAX - LISTS_MAX;
/// The most lists that an answer to so many requests has.
const LISTS_MAX: usize = 16;

/// The longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The files beside a transcript, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The transcript of a daemon whose authorities wait for certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    pub transcript: RequestsForm,
    pub made_at: String,
    pub operator: String,
    /// The version of the daemon.
    pub hallmark: String,
    pub requests: Vec<Request>,
}

/// The form of [`Requests`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestsForm {
    #[serde(rename = "hallmark requests 1")]
    First,
}

/// A request (PKCS #10) for the certificate of an authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub authority: String,
    pub generation: i64,
    pub file: String,
    /// Hex SHA-256 of the file.
    pub sha256: String,
    /// The common name, or the whole subject where it has no single one.
    pub subject: String,
    /// Hex SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: String,
    /// How many authorities must be allowed below.
    pub path_length: Option<u8>,
}

/// The transcript of an offline root.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    pub transcript: AnswersForm,
    pub made_at: String,
    pub operator: String,
    /// The version of the daemon.
    pub hallmark: String,
    /// Hex SHA-256 of the transcript of the requests, if there was one.
    pub requests_sha256: Option<String>,
    pub certificates: Vec<Answer>,
    pub lists: Vec<List>,
}

/// The form of [`Answers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswersForm {
    #[serde(rename = "hallmark answers 1")]
    First,
}

/// A certificate, with all above it in its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The authority that asked.
    pub authority: String,
    pub generation: i64,
    /// Hex SHA-256 of the file with the request.
    pub request_sha256: String,
    pub file: String,
    /// Hex SHA-256 of the file.
    pub sha256: String,
    pub profile: String,
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    pub not_before: String,
    pub not_after: String,
}

/// The complete revocation list of an authority of the offline root.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The authority, by its name on the offline machine.
    pub authority: String,
    pub generation: i64,
    pub file: String,
    /// Hex SHA-256 of the file.
    pub sha256: String,
    /// The subject of the authority.
    pub issuer: String,
    pub number: String,
    pub this_update: String,
    pub next_update: String,
    pub entries: usize,
}

/// Why a folder is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefusal {
    #[error("the transcript cannot be used: {0}; carry the whole folder again")]
    Unreadable(String),
    #[error(
        "the transcript has the SHA-256 {is}, and not {given}; compare the folder with the page \
         that was printed where it was made"
    )]
    OtherTranscript { is: String, given: String },
    #[error("file {file} is not the one of the transcript: {why}; carry the whole folder again")]
    FileDiffers { file: String, why: String },
}

impl TransferRefusal {
    /// Returns the code of the refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreadable(_) => Code::TransferUnreadable,
            Self::OtherTranscript { .. } => Code::TransferOtherTranscript,
            Self::FileDiffers { .. } => Code::TransferFileDiffers,
        }
    }
}

/// A transcript of one of the two sides.
pub trait Transcript: DeserializeOwned {
    /// The files beside it: name and hex SHA-256 of each.
    fn files(&self) -> Vec<(&str, &str)>;
}

impl Transcript for Requests {
    fn files(&self) -> Vec<(&str, &str)> {
        let files = self.requests.iter();
        files
            .map(|it| (it.file.as_str(), it.sha256.as_str()))
            .collect()
    }
}

impl Transcript for Answers {
    fn files(&self) -> Vec<(&str, &str)> {
        let certificates = self.certificates.iter().map(|it| (&it.file, &it.sha256));
        let lists = self.lists.iter().map(|it| (&it.file, &it.sha256));
        let files = certificates.chain(lists);
        files
            .map(|(file, sha256)| (file.as_str(), sha256.as_str()))
            .collect()
    }
}

/// Reads a transcript. Each file that it names is a plain name, so none is outside of the folder.
pub fn read<T: Transcript>(text: &str) -> Result<T, TransferRefusal> {
    let refused = |why: String| Err(TransferRefusal::Unreadable(why));
    if text.len() > TRANSCRIPT_BYTES_MAX {
        return refused(format!("it has more than {TRANSCRIPT_BYTES_MAX} bytes"));
    }
    let transcript: T = match serde_json::from_str(text) {
        Ok(transcript) => transcript,
        Err(error) => {
            let line = error.line();
            let column = error.column();
            return refused(format!(
                "line {line}, column {column} is not as Hallmark writes it"
            ));
        }
    };
    let files = transcript.files();
    if files.len() > FILES_MAX {
        return refused(format!("it names more than {FILES_MAX} files"));
    }
    if let Some((file, _)) = files.iter().find(|(file, _)| !is_file_name(file)) {
        return refused(format!("{file:?} is no plain name of a file"));
    }
    let names: BTreeSet<_> = files.iter().map(|(file, _)| file).collect();
    if names.len() < files.len() {
        return refused("it names a file twice".into());
    }
    Ok(transcript)
}

fn is_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_short = (1..=NAME_BYTES_MAX).contains(&name.len());
    is_short && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// Returns the hex SHA-256 of these bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// Fails unless a transcript has the SHA-256 that the operator gives, in hex with any blanks.
pub fn check_digest(text: &str, given: &str) -> Result<(), TransferRefusal> {
    let plain: String = given.chars().filter(|it| !it.is_whitespace()).collect();
    let is = sha256(text.as_bytes());
    if plain.eq_ignore_ascii_case(&is) {
        return Ok(());
    }
    let given = given.to_owned();
    Err(TransferRefusal::OtherTranscript { is, given })
}

/// Fails unless each file is there with the SHA-256 of the transcript.
pub fn check_files(transcript: &impl Transcript, files: &Files) -> Result<(), TransferRefusal> {
    for (file, expected) in transcript.files() {
        let is = match files.get(file) {
            Some(bytes) => sha256(bytes),
            None => return Err(differs(file, "it is missing".into())),
        };
        if !is.eq_ignore_ascii_case(expected) {
            let why = format!("its SHA-256 is {is}, and the transcript has {expected}");
            return Err(differs(file, why));
        }
    }
    Ok(())
}

fn differs(file: &str, why: String) -> TransferRefusal {
    let file = file.to_owned();
    TransferRefusal::FileDiffers { file, why }
}

impl Request {
    /// Reads the request from its file, and fails if the transcript says something else of it.
    pub fn csr(&self, files: &Files) -> Result<AuthorityCsr, TransferRefusal> {
        let named = format!("{}-{}.csr", self.authority, self.generation);
        if named != self.file {
            return Err(TransferRefusal::Unreadable(format!(
                "it names {} and not {named}",
                self.file
            )));
        }
        let bytes = files.get(&self.file).map_or(&[][..], Vec::as_slice);
        let csr =
            AuthorityCsr::parse(bytes).map_err(|error| differs(&self.file, error.to_string()))?;
        let key = hex::encode(csr.public_key().sha256());
        if !self.spki_sha256.eq_ignore_ascii_case(&key) {
            let why = format!("its key has the SHA-256 {key}");
            return Err(differs(&self.file, why));
        }
        let subject = csr.subject().label();
        let path_length = csr.path_length();
        if (subject, path_length) != (self.subject.as_str(), self.path_length) {
            let why = format!("it is for {subject:?} with path length {path_length:?}");
            return Err(differs(&self.file, why));
        }
        Ok(csr)
    }
}

impl Answer {
    /// Reads the certificate from its file, and fails if the transcript says something else of it.
    pub fn certificate(&self, files: &Files) -> Result<Certificate, TransferRefusal> {
        let bytes = files.get(&self.file).map_or(&[][..], Vec::as_slice);
        let unreadable = |why: String| differs(&self.file, why);
        // All of them can be read.
        parse_bundle(bytes).map_err(|error| unreadable(error.to_string()))?;
        let certificate = parse_first(bytes).map_err(|error| unreadable(error.to_string()))?;
        let is = [
            certificate.serial().to_string(),
            certificate.subject(),
            certificate.issuer(),
            certificate.not_before().to_string(),
            certificate.not_after().to_string(),
        ];
        let said = [
            &self.serial,
            &self.subject,
            &self.issuer,
            &self.not_before,
            &self.not_after,
        ];
        match is.iter().zip(said).find(|(is, said)| is != said) {
            Some((is, said)) => Err(unreadable(format!("it has {is:?}, and not {said:?}"))),
            None => Ok(certificate),
        }
    }
}

/// Fails unless the other side takes a folder with this transcript and these files.
pub fn check_size<'a>(
    transcript: &str,
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), TransferRefusal> {
    let refused = |why: String| Err(TransferRefusal::Unreadable(why));
    if transcript.len() > TRANSCRIPT_BYTES_MAX {
        return refused(format!(
            "it would have more than {TRANSCRIPT_BYTES_MAX} bytes"
        ));
    }
    let mut count = 0;
    let mut all = 0;
    for (file, content) in files {
        if content.len() > FILE_BYTES_MAX {
            return Err(differs(
                file,
                format!("it has more than {FILE_BYTES_MAX} bytes"),
            ));
        }
        count += 1;
        all += content.len();
    }
    if count > FILES_MAX || all > ALL_BYTES_MAX {
        return refused(format!(
            "it would have {count} files with {all} bytes, and {FILES_MAX} with {ALL_BYTES_MAX} \
             are taken"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The answer to as many requests as there may be, with the longest names.
    #[test]
    fn the_largest_answer_can_be_read() {
        let long = |length: usize| "N".repeat(length);
        let name = long(64);
        let certificate = |number: usize| Answer {
            authority: name.clone(),
            generation: i64::MAX,
            request_sha256: long(64),
            file: format!("{name}-{number}.pem"),
            sha256: long(64),
            profile: long(64),
            // RFC 5280, appendix A.1: the upper bounds of five attributes.
            subject: long(5 * 64 + 20),
            issuer: long(5 * 64 + 20),
            serial: long(40),
            not_before: long(20),
            not_after: long(20),
        };
        let list = |number: usize| List {
            authority: name.clone(),
            generation: i64::MAX,
            file: format!("{name}-{number}.crl"),
            sha256: long(64),
            issuer: long(5 * 64 + 20),
            number: long(40),
            this_update: long(20),
            next_update: long(20),
            entries: usize::MAX,
        };
        let answers = Answers {
            transcript: AnswersForm::First,
            made_at: long(20),
            operator: long(64),
            hallmark: long(20),
            requests_sha256: Some(long(64)),
            certificates: (0..REQUESTS_MAX).map(certificate).collect(),
            lists: (0..LISTS_MAX).map(list).collect(),
        };
        let text = format!("{:#}\n", serde_json::to_value(&answers).unwrap());
        let read = read::<Answers>(&text).unwrap();
        let files: Vec<_> = read.files().into_iter().map(|it| it.0).collect();
        let content = vec![0; ALL_BYTES_MAX / FILES_MAX];
        let with = |content| files.iter().map(move |it| (*it, content));
        assert_eq!(check_size(&text, with(&content[..])), Ok(()));
        let larger = vec![0; ALL_BYTES_MAX / FILES_MAX + 1];
        let refusal = check_size(&text, with(&larger[..])).unwrap_err();
        assert!(refusal.to_string().contains("64 files"), "{refusal}");
        let one_more = with(&[]).chain([("one-more.crl", &[][..])]);
        assert!(check_size(&text, one_more).is_err());
        let long = vec![0; FILE_BYTES_MAX + 1];
        let refusal = check_size(&text, [("long.crl", &long[..])].into_iter()).unwrap_err();
        assert!(refusal.to_string().contains("long.crl"), "{refusal}");
    }

    const REQUESTS: &str = r#"{"transcript": "hallmark requests 1", "made_at": "now",
        "operator": "local uid 0", "hallmark": "0.1.0", "requests": [{"authority": "plant",
        "generation": 1, "file": "plant-1.csr", "sha256": "00", "subject": "Plant",
        "spki_sha256": "00", "path_length": 1}]}"#;

    fn refusal(text: &str) -> String {
        read::<Requests>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_transcript_names_files_of_its_folder_alone() {
        let read: Requests = read(REQUESTS).unwrap();
        assert_eq!(read.files(), [("plant-1.csr", "00")]);
        for name in ["../plant-1.csr", "/etc/shadow", ".hidden", "", "a b"] {
            let text = REQUESTS.replace("plant-1.csr", name);
            assert!(refusal(&text).contains("no plain name"), "{name}");
        }
        let entry = &REQUESTS[REQUESTS.find("[{").unwrap() + 1..REQUESTS.len() - 2];
        let twice = REQUESTS.replace(entry, &format!("{entry}, {entry}"));
        assert!(refusal(&twice).contains("twice"));
        let other = REQUESTS.replace("requests 1", "requests 2");
        assert!(refusal(&other).contains("not as Hallmark writes it"));
        let more = REQUESTS.replacen('{', "{\"more\": 1, ", 1);
        assert!(refusal(&more).contains("not as Hallmark writes it"));
        assert!(refusal(&" ".repeat(TRANSCRIPT_BYTES_MAX + 1)).contains("bytes"));
    }

    #[test]
    fn a_file_is_that_of_the_transcript() {
        let sha = sha256(b"content");
        let text = REQUESTS.replacen("\"00\"", &format!("\"{}\"", sha.to_uppercase()), 1);
        let transcript: Requests = read(&text).unwrap();
        let files = |content: &[u8]| Files::from([("plant-1.csr".to_owned(), content.to_vec())]);
        assert_eq!(check_files(&transcript, &files(b"content")), Ok(()));
        for other in [files(b"contents"), Files::new()] {
            let refusal = check_files(&transcript, &other).unwrap_err();
            assert_eq!(refusal.code(), Code::TransferFileDiffers);
        }
        let spaced = format!("{} {}\n", &sha[..32], sha[32..].to_uppercase());
        assert_eq!(check_digest("content", &spaced), Ok(()));
        let refusal = check_digest("content ", &spaced).unwrap_err();
        assert_eq!(refusal.code(), Code::TransferOtherTranscript);
    }

    proptest! {
        /// Whatever is on the medium, nothing outside of the folder is named.
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", name in ".{0,20}") {
            let _ = read::<Answers>(&text);
            let quoted = serde_json::to_string(&name).unwrap();
            let text = REQUESTS.replace("\"plant-1.csr\"", &quoted);
            if let Ok(read) = read::<Requests>(&text) {
                prop_assert!(is_file_name(&read.requests[0].file));
            }
        }
    }
}
