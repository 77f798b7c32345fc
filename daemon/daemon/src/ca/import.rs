//! Takes over what is known of the certificates that an authority issued before it was adopted: the
//! index of `openssl ca` with its certificates, and the last revocation list.
//!
//! Old revocations are on the next list of the generation, with their dates and reasons. Devices
//! with old leaves are known, so that they can be blocked, revoked and rolled. The files are read
//! and checked before anything is recorded; then chunks are recorded, so that stations are served
//! in between. An import that was cut off, or is repeated, goes on where it was.

use super::authorize::{Authorized, Operate};
use super::ceremony::Ceremonies;
use super::hierarchy::Generation;
use super::profile::Role;
use super::{Code, Error, crash_point};
use crate::crl_number::CrlNumber;
use crate::enrollment::id::RegistrationId;
use crate::files;
use crate::ids::GenerationNumber;
use crate::store::{AuditEntry, FormerCertificate, Imported, ImportedLeaf, KeptAuthority};
use crate::x509::bundle::{BUNDLE_BYTES_MAX, parse_first};
use crate::x509::certificate::Certificate;
use crate::x509::former_crl::{FormerList, LIST_BYTES_MAX};
use crate::x509::openssl_index::{INDEX_BYTES_MAX, Index, IndexedCertificate, common_name, parse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Certificates of one transaction: short enough that a request in between does not wait.
const CHUNK: usize = 200;

/// Remarks of one import that are shown; the rest is counted.
const REMARKS_MAX: usize = 100;

/// The files of an import, on the machine that the daemon runs on: absolute paths.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportFiles {
    /// The index of `openssl ca`.
    #[serde(default)]
    pub index: Option<PathBuf>,
    /// The folder of its certificates, each named by its serial number (`new_certs_dir`).
    #[serde(default)]
    pub certificates: Option<PathBuf>,
    /// The last revocation list.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// The profile of the devices whose leaves are among the certificates.
    #[serde(default)]
    pub profile: Option<String>,
}

/// The outcome of an import.
#[derive(Clone, Debug, Serialize)]
pub struct ImportReport {
    pub authority: String,
    pub generation: GenerationNumber,
    /// Certificates in the index, each serial number once.
    pub indexed: usize,
    /// Of those, without a certificate in the folder.
    pub missing: usize,
    /// Entries of the revocation list.
    pub listed: usize,
    /// The number of the list; the next one has a higher one.
    pub crl_number: Option<CrlNumber>,
    #[serde(flatten)]
    pub changed: Imported,
    /// The lines and entries that could not be taken over as they are.
    pub remarks: Vec<String>,
}

impl Ceremonies {
    /// Imports the files for the adopted generation of `authority`. `progress` gets how many of how
    /// many certificates are on record.
    pub fn import(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        files: &ImportFiles,
        progress: &dyn Fn(usize, usize),
    ) -> Result<ImportReport, Error> {
        let _alone = self.running.try_lock().map_err(|_| {
            let message = "a ceremony is under way; wait for it";
            Error::conflict(Code::CeremonyUnderWay, message)
        })?;
        let generation = self.adopted_generation(authority)?;
        let profile = self.device_profile(files)?;
        let index = read_index(files)?;
        let list = read_list(files, &generation)?;
        let folder = files
            .certificates
            .as_deref()
            .map(Folder::open)
            .transpose()?;
        let mut report = ImportReport {
            authority: authority.to_owned(),
            generation: generation.number,
            indexed: index.certificates.len(),
            missing: 0,
            listed: list.as_ref().map_or(0, |it| it.entries.len()),
            crl_number: list.as_ref().and_then(|it| it.number),
            changed: Imported::default(),
            remarks: index.remarks,
        };
        let actor = permission.caller().to_string();
        let total = report.indexed + report.listed;
        let mut recorded = 0;
        let mut record = |former: Vec<FormerCertificate>, report: &mut ImportReport| {
            recorded += former.len();
            let now = self.issuer.now();
            let store = self.issuer.store();
            let changed = store.import_certificates(generation.id, former, actor.clone(), now)?;
            report
                .remarks
                .extend(changed.kept.iter().map(kept_in_words));
            report.changed.add(changed);
            crash_point("import-chunk");
            progress(recorded, total);
            Ok::<(), Error>(())
        };
        for chunk in index.certificates.chunks(CHUNK) {
            let former = chunk.iter().map(|it| {
                let found = folder.as_ref().map(|folder| folder.find(it, &generation));
                former(it, found, profile.as_deref(), &mut report)
            });
            let former = former.collect();
            record(former, &mut report)?;
        }
        if let Some(list) = list {
            report.remarks.extend(list.remarks);
            for chunk in list.entries.chunks(CHUNK) {
                let former = chunk.iter().map(|it| FormerCertificate {
                    serial: it.serial.as_bytes().to_vec(),
                    subject: None,
                    not_after: None,
                    revoked: Some((it.revoked_at, it.reason)),
                    leaf: None,
                });
                record(former.collect(), &mut report)?;
            }
        }
        self.end_import(&generation, report, &actor)
    }

    fn end_import(
        &self,
        generation: &Generation,
        mut report: ImportReport,
        actor: &str,
    ) -> Result<ImportReport, Error> {
        let more = report.remarks.len().saturating_sub(REMARKS_MAX);
        report.remarks.truncate(REMARKS_MAX);
        if more > 0 {
            report.remarks.push(format!("and {more} more remarks"));
        }
        let number = report.crl_number;
        if number.is_some_and(|it| !it.leaves_room()) {
            return Err(refused(
                "the number of the revocation list is too large to count on from it",
            ));
        }
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: actor.to_owned(),
            action: "authority.imported",
            subject: report.authority.clone(),
            detail: json!({
                "generation": report.generation,
                "indexed": report.indexed,
                "listed": report.listed,
                "changed": report.changed,
            }),
        };
        self.issuer
            .store()
            .end_import(generation.id, number, entry)?;
        // The next list has what was revoked.
        self.issuer.wake();
        Ok(report)
    }

    /// Returns the first generation of an adopted authority, which issued what is imported.
    fn adopted_generation(&self, authority: &str) -> Result<Arc<Generation>, Error> {
        let hierarchy = self.issuer.hierarchy();
        let mut own = hierarchy.iter().filter(|it| it.authority == authority);
        let Some(first) = own.find(|it| it.number == GenerationNumber::FIRST) else {
            let message =
                format!("there is no authority {authority:?}; `hallmark authority list` shows all");
            return Err(Error::missing(Code::AuthorityUnknown, message));
        };
        if !self.issuer.store().is_adopted(first.id)? {
            let message = format!(
                "authority {authority} was made here, and has issued nothing before: only what an \
                 adopted authority issued is imported"
            );
            return Err(Error::conflict(Code::ImportRefused, message));
        }
        if first.revoked_at.is_some() {
            let message = format!(
                "generation 1 of authority {authority} is revoked or blocked, and signs no list \
                 any more; lift its block first, if there is one"
            );
            return Err(Error::conflict(Code::ImportRefused, message));
        }
        Ok(Arc::clone(first))
    }

    fn device_profile(&self, files: &ImportFiles) -> Result<Option<String>, Error> {
        let Some(name) = &files.profile else {
            return Ok(None);
        };
        let profile = self.issuer.profile(name)?;
        if profile.role != Role::Device {
            return Err(refused(&format!(
                "profile {name} is for the role {}: only devices are imported, and other callers \
                 get new certificates",
                profile.role
            )));
        }
        Ok(Some(name.clone()))
    }
}

fn refused(reason: &str) -> Error {
    let message = format!("nothing is imported: {reason}");
    Error::invalid(Code::ImportRefused, message)
}

/// A revocation alone excludes no authority: its devices stay admitted at the services.
fn kept_in_words(it: &KeptAuthority) -> String {
    let KeptAuthority {
        authority,
        number,
        reason,
    } = it;
    format!(
        "the certificate of generation {number} of authority {authority} is revoked there \
         ({}) and stays in force here: `hallmark roll start --authority {authority} --generation \
         {number} --reason compromise` excludes it with all that it signed for good, or `hallmark \
         authority block {authority} --generation {number}` until you lift the block",
        reason.name()
    )
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Error> {
    if !path.is_absolute() {
        let path = path.display();
        return Err(refused(&format!("{path} is no absolute path")));
    }
    files::read(path, bytes_max as u64)
        .map_err(|error| refused(&format!("{}: {error}", path.display())))
}

fn read_index(files: &ImportFiles) -> Result<Index, Error> {
    match (&files.index, &files.crl) {
        (Some(path), _) => {
            let bytes = read(path, INDEX_BYTES_MAX)?;
            parse(&bytes).map_err(|error| refused(&error.to_string()))
        }
        (None, Some(_)) if files.certificates.is_none() => Ok(Index::default()),
        _ => Err(refused(
            "name an index, with or without its certificates, or a revocation list",
        )),
    }
}

fn read_list(files: &ImportFiles, generation: &Generation) -> Result<Option<FormerList>, Error> {
    let Some(path) = &files.crl else {
        return Ok(None);
    };
    let bytes = read(path, LIST_BYTES_MAX)?;
    let issuer = generation.certificate.subject_der();
    let list = FormerList::read(&bytes, issuer, &generation.public_key);
    list.map(Some)
        .map_err(|error| refused(&format!("{}: {error}", path.display())))
}

/// The certificates of an index, by the serial numbers in their file names.
struct Folder(BTreeMap<String, PathBuf>);

/// The file of a folder for a line of the index.
enum Found {
    Certificate(Box<Certificate>),
    Missing,
    /// A file that is not the certificate of that line, and why.
    Other(String),
}

impl Folder {
    fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |error: std::io::Error| refused(&format!("{}: {error}", path.display()));
        if !path.is_absolute() {
            return Err(refused(&format!("{} is no absolute path", path.display())));
        }
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let serial = path.file_stem().and_then(|it| it.to_str());
            if let Some(serial) = serial {
                let serial = serial.to_ascii_uppercase();
                files.insert(serial.trim_start_matches('0').to_owned(), path);
            }
        }
        Ok(Self(files))
    }

    fn find(&self, it: &IndexedCertificate, generation: &Generation) -> Found {
        let serial = it.serial.to_string();
        let Some(path) = self.0.get(serial.trim_start_matches('0')) else {
            return Found::Missing;
        };
        let other = |reason: String| {
            let path = path.display();
            Found::Other(format!("line {}: {path}: {reason}", it.line))
        };
        let read = files::read(path, BUNDLE_BYTES_MAX as u64).map_err(|error| error.to_string());
        let parsed = read.and_then(|it| parse_first(&it).map_err(|error| error.to_string()));
        let certificate = match parsed {
            Ok(certificate) => certificate,
            Err(reason) => return other(reason),
        };
        if *certificate.serial() != it.serial {
            return other(format!("its serial number is {}", certificate.serial()));
        }
        let is_issued_here = certificate.issuer_der() == generation.certificate.subject_der()
            && certificate.verify_issued_by(&generation.public_key).is_ok();
        if is_issued_here {
            Found::Certificate(Box::new(certificate))
        } else {
            other("this authority has not issued it".into())
        }
    }
}

fn former(
    it: &IndexedCertificate,
    found: Option<Found>,
    profile: Option<&str>,
    report: &mut ImportReport,
) -> FormerCertificate {
    let leaf = match found {
        Some(Found::Certificate(certificate)) => Some(ImportedLeaf {
            device: device(&certificate, profile),
            is_leaf: !certificate.is_ca(),
            certificate: certificate.as_ref().into(),
        }),
        Some(Found::Other(remark)) => {
            report.missing += 1;
            report.remarks.push(remark);
            None
        }
        Some(Found::Missing) | None => {
            report.missing += 1;
            None
        }
    };
    let name = common_name(&it.subject).unwrap_or(&it.subject);
    FormerCertificate {
        serial: it.serial.as_bytes().to_vec(),
        subject: Some(name.to_owned()),
        not_after: Some(it.not_after),
        revoked: it.revoked,
        leaf,
    }
}

/// The device of a leaf: its common name, if that is a registration id.
fn device(certificate: &Certificate, profile: Option<&str>) -> Option<(String, String)> {
    let name = certificate.common_name().filter(|_| !certificate.is_ca())?;
    let id = RegistrationId::parse(&name).ok()?;
    Some((id.as_str().to_owned(), profile?.to_owned()))
}
