//! Installs what an offline root has signed: certificates for the authorities that wait, and the
//! revocation lists of their issuers.
//!
//! Everything is checked, and the key of each certificate makes a test signature, before anything
//! changes. Authorities on a list are excluded as after a compromise, or blocked if it is on hold;
//! then certificates and lists are recorded. So a command that was cut off can be repeated, and no
//! list is published that is not honoured.
//!
//! After a restore of a backup the newest folder is installed again: an answer to a request whose
//! record was lost is taken if its key is on record, and left out if not.

use super::Written;
use super::honour::{ExcludedEntry, Honoured};
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::external::ReadAnswer;
use crate::ca::issuer_list::{IssuerList, foreign};
use crate::ca::{CertificateAuthority, Code, Error};
use crate::ids::RollId;
use crate::store::{AuditEntry, GenerationRow, IssuerCrlRow};
use crate::x509::bundle::parse_bundle;
use crate::x509::certificate::Certificate;
use crate::x509::request;
use crate::x509::transfer::{
    self, Answer, Answers, Files, List, TransferRefusal, check_digest, check_files, read,
};
use serde::Serialize;
use serde_json::json;

/// The folder that an operator has brought from an offline root.
#[derive(Clone, Debug)]
pub struct TransferToInstall {
    /// The transcript of the offline root.
    pub answers: String,
    /// Hex SHA-256 of it, as the operator knows it from its origin.
    pub answers_sha256: String,
    pub files: Files,
}

/// A transfer that was installed.
#[derive(Clone, Debug)]
pub struct InstalledTransfer {
    pub written: Written,
    /// The rollovers of generations that a list revokes, also of an earlier installation.
    pub rolls: Vec<RollId>,
    /// Each thing that was left out or not possible; all others were done.
    pub problems: Vec<Error>,
}

/// The transcript of an installation.
#[derive(Clone, Debug, Serialize)]
struct Installation {
    transcript: &'static str,
    made_at: String,
    operator: String,
    /// The version of this daemon.
    hallmark: &'static str,
    answers_sha256: String,
    requests_sha256: Option<String>,
    certificates: Vec<InstalledEntry>,
    lists: Vec<InstalledList>,
    excluded: Vec<ExcludedEntry>,
}

#[derive(Clone, Debug, Serialize)]
struct InstalledEntry {
    authority: String,
    generation: i64,
    /// `installed`, or `existed`: then nothing was done.
    outcome: &'static str,
    subject: String,
    serial: String,
    /// Upper hex SHA-256 of the certificate.
    sha256: String,
}

#[derive(Clone, Debug, Serialize)]
struct InstalledList {
    issuer: String,
    number: String,
    next_update: String,
    entries: usize,
    outcome: &'static str,
    /// Where it is served below this daemon's address, if certificates name an address here.
    served: Option<String>,
}

/// A certificate that was brought, checked.
struct Brought<'a> {
    answer: &'a Answer,
    certificate: Certificate,
    bundle: Vec<Certificate>,
    /// `None` if it is installed already.
    read: Option<ReadAnswer>,
}

/// A list that was brought, checked.
struct BroughtList<'a> {
    named: &'a List,
    list: IssuerList,
    /// Whether this list is the one on record.
    exists: bool,
}

impl CertificateAuthority {
    /// Checks and installs certificates and lists, and excludes what the lists revoke.
    pub fn install_by_transfer(
        &self,
        permission: &Authorized<Operate>,
        brought: &TransferToInstall,
    ) -> Result<InstalledTransfer, Error> {
        check_digest(&brought.answers, &brought.answers_sha256)?;
        let answers: Answers = read(&brought.answers)?;
        check_files(&answers, &brought.files)?;
        let mut problems = Vec::new();
        let mut certificates = Vec::new();
        for answer in &answers.certificates {
            match self.brought_certificate(answer, &answers, &brought.files)? {
                Some(read) => certificates.push(read),
                None => problems.push(lost(answer)),
            }
        }
        let lists =
            self.brought_lists(&answers.lists, &certificates, &brought.files, &mut problems)?;
        let signed: Vec<IssuerList> = lists.iter().map(|it| it.list.clone()).collect();
        for it in &certificates {
            let Some(read) = &it.read else { continue };
            self.ceremonies.check_answer(read, &signed)?;
        }
        let mut honoured = Honoured::default();
        for list in &signed {
            self.honour(permission, list, &mut honoured)?;
        }
        problems.append(&mut honoured.problems);
        let installed = self.install_certificates(permission, certificates)?;
        let lists = self.record_lists(permission, lists)?;
        let transcript = Installation {
            transcript: "hallmark installation 1",
            made_at: self.now().to_string(),
            operator: permission.caller().to_string(),
            hallmark: env!("CARGO_PKG_VERSION"),
            answers_sha256: transfer::sha256(brought.answers.as_bytes()),
            requests_sha256: answers.requests_sha256.clone(),
            certificates: installed,
            lists,
            excluded: honoured.excluded,
        };
        let written = Written::new("installation.json", &transcript, Vec::new())?;
        let serials = transcript.certificates.iter();
        let lists = transcript.lists.iter();
        let detail = json!({
            "answers_sha256": transcript.answers_sha256,
            "requests_sha256": transcript.requests_sha256,
            "certificates": serials.map(|it| json!([it.authority, it.serial, it.outcome]))
                .collect::<Vec<_>>(),
            "lists": lists.map(|it| json!([it.issuer, it.number, it.outcome])).collect::<Vec<_>>(),
            "excluded": transcript.excluded,
        });
        self.record_transfer(permission, "transfer.installed", &written.sha256, detail)?;
        self.wake();
        Ok(InstalledTransfer {
            written,
            rolls: honoured.rolls,
            problems,
        })
    }

    /// Checks a certificate, and that this daemon has asked for it by the transcript that the
    /// offline root names. Returns `None` if a restore has lost the request and its key.
    fn brought_certificate<'a>(
        &self,
        answer: &'a Answer,
        answers: &Answers,
        files: &Files,
    ) -> Result<Option<Brought<'a>>, Error> {
        let certificate = answer.certificate(files)?;
        let asked = answers.requests_sha256.as_deref().unwrap_or_default();
        let is_known = self.store.has_requested(asked)?;
        let was_restored = self.store.lost_period()?.is_some();
        let row = if is_known || !was_restored {
            self.requested(&answer.authority, &answer.request_sha256)?
        } else {
            self.certified(&answer.authority, &certificate)?
        };
        let row = match row.filter(|_| is_known || was_restored) {
            Some(row) => row,
            None if was_restored => return Ok(None),
            None => {
                let message = format!(
                    "{} answers a request that this daemon has not made: transcript {asked:?}, \
                     authority {}; carry the folder to the daemon that made it",
                    answer.file, answer.authority
                );
                return Err(Error::invalid(Code::TransferOtherRequest, message));
            }
        };
        let bytes = files.get(&answer.file).map_or(&[][..], Vec::as_slice);
        let bundle = parse_bundle(bytes)
            .map_err(|error| Error::invalid(Code::InstallMalformed, error.to_string()))?;
        let exists = row.certificate.as_ref() == Some(certificate.der());
        let read = if exists {
            None
        } else {
            let text = String::from_utf8_lossy(bytes);
            Some(self.ceremonies.read_answer(&answer.authority, &text)?)
        };
        if read
            .as_ref()
            .is_some_and(|it| it.certificate().der() != certificate.der())
        {
            let why = "another certificate than its first one answers the request";
            let file = answer.file.clone();
            return Err(TransferRefusal::FileDiffers {
                file,
                why: why.into(),
            }
            .into());
        }
        Ok(Some(Brought {
            answer,
            certificate,
            bundle,
            read,
        }))
    }

    /// Returns the generation of the authority that has the certificate's key.
    fn certified(
        &self,
        authority: &str,
        certificate: &Certificate,
    ) -> Result<Option<GenerationRow>, Error> {
        let rows = self.store.generations()?;
        let has_key = |it: &GenerationRow| {
            it.authority == authority && it.spki.as_ref() == Some(certificate.spki_der())
        };
        Ok(rows.into_iter().find(has_key))
    }

    /// Returns the generation of the authority whose request (PEM) has this hex SHA-256.
    fn requested(&self, authority: &str, pem_sha256: &str) -> Result<Option<GenerationRow>, Error> {
        let rows = self.store.generations()?;
        let is_asked = |row: &GenerationRow| {
            let der = row.request.as_ref().and_then(|it| it.der.as_ref());
            let pem = der.map(|der| request::to_pem(der));
            pem.is_some_and(|pem| transfer::sha256(pem.as_bytes()) == pem_sha256)
        };
        let mut own = rows.into_iter().filter(|it| it.authority == authority);
        Ok(own.find(is_asked))
    }

    /// Checks lists: of an issuer above an authority here or above a certificate that was brought,
    /// and not older than the one on record. Lists of others, such as another generation of the
    /// root, are left out, unless all are.
    fn brought_lists<'a>(
        &self,
        named: &'a [List],
        certificates: &[Brought<'_>],
        files: &Files,
        problems: &mut Vec<Error>,
    ) -> Result<Vec<BroughtList<'a>>, Error> {
        let recorded = self.store.issuer_crls()?;
        let hierarchy = self.hierarchy();
        let mut lists = Vec::new();
        for named in named {
            let bytes = files.get(&named.file).map_or(&[][..], Vec::as_slice);
            let above = foreign(&hierarchy).map(|it| &it.certificate);
            let brought = certificates.iter().flat_map(|it| it.bundle.iter());
            let list = match IssuerList::read(bytes, above.chain(brought), self.now()) {
                Err(error) => {
                    let message = format!("{}: {}", named.file, error.message);
                    let error = Error { message, ..error };
                    if error.code != Code::IssuerCrlOther {
                        return Err(error);
                    }
                    problems.push(error);
                    continue;
                }
                Ok(read) => read,
            };
            if list.number.to_string() != named.number {
                let why = format!(
                    "it has the number {}, and not {}",
                    list.number, named.number
                );
                let file = named.file.clone();
                return Err(TransferRefusal::FileDiffers { file, why }.into());
            }
            let older = recorded.iter().find(|it| it.issuer_key == list.key());
            let exists = older.is_some_and(|it| it.der == list.list.der);
            let is_newer = |it: &&IssuerCrlRow| {
                it.number >= list.number || it.this_update > list.list.this_update
            };
            if let Some(newer) = older.filter(|it| !exists && is_newer(it)) {
                let message = format!(
                    "the revocation list of {} has the number {}, and number {} is installed; \
                     bring a newer one",
                    newer.issuer, list.number, newer.number
                );
                return Err(Error::conflict(Code::IssuerCrlOlder, message));
            }
            lists.push(BroughtList {
                named,
                list,
                exists,
            });
        }
        let is_list = |it: &Error| it.code == Code::IssuerCrlOther;
        if lists.is_empty()
            && let Some(at) = problems.iter().rposition(is_list)
        {
            return Err(problems.swap_remove(at));
        }
        Ok(lists)
    }

    fn install_certificates(
        &self,
        permission: &Authorized<Operate>,
        certificates: Vec<Brought<'_>>,
    ) -> Result<Vec<InstalledEntry>, Error> {
        let mut installed = Vec::new();
        for it in certificates {
            let Answer {
                authority,
                generation,
                ..
            } = it.answer;
            let outcome = match it.read {
                None => "existed",
                Some(read) => {
                    self.ceremonies.install_answer(permission, &read)?;
                    "installed"
                }
            };
            installed.push(InstalledEntry {
                authority: authority.clone(),
                generation: *generation,
                outcome,
                subject: it.certificate.subject(),
                serial: it.certificate.serial().to_string(),
                sha256: hex::encode_upper(it.certificate.sha256()),
            });
        }
        Ok(installed)
    }

    fn record_lists(
        &self,
        permission: &Authorized<Operate>,
        lists: Vec<BroughtList<'_>>,
    ) -> Result<Vec<InstalledList>, Error> {
        let mut installed = Vec::new();
        for BroughtList {
            named,
            list,
            exists,
        } in lists
        {
            let file = self.free_list_file(&list);
            installed.push(InstalledList {
                issuer: list.issuer.subject(),
                number: named.number.clone(),
                next_update: list.next_update.to_string(),
                entries: list.list.entries.len(),
                outcome: if exists { "existed" } else { "installed" },
                served: file.as_ref().map(|file| format!("/crl/{file}")),
            });
            if exists {
                continue;
            }
            let entry = AuditEntry {
                at: self.now(),
                actor: permission.caller().to_string(),
                action: "issuer_crl.installed",
                subject: list.issuer.subject(),
                detail: json!({
                    "number": list.number,
                    "entries": list.list.entries.len(),
                    "sha256": transfer::sha256(&list.list.der),
                }),
            };
            self.store.record_issuer_crl(list.to_row(file), entry)?;
        }
        self.shared.issuer_lists.read_again(&self.store)?;
        Ok(installed)
    }

    /// Returns the file that certificates name for the list, unless it is that of an authority
    /// here or of another issuer.
    fn free_list_file(&self, list: &IssuerList) -> Option<String> {
        let file = self.issuer.list_file(&list.issuer)?;
        let name = file.strip_suffix(".crl")?;
        let is_ours = self.hierarchy().published(name).is_some();
        let is_another = self
            .issuer_list(&file)
            .is_some_and(|it| it.issuer_key != list.key());
        (!is_ours && !is_another).then_some(file)
    }
}

/// Says that an answer is left out.
fn lost(answer: &Answer) -> Error {
    let message = format!(
        "{}: it is left out, because the request of {} and its key were made after the backup that \
         was restored; make the authority or its rollover again, and carry `hallmark ceremony \
         request FOLDER` to the offline root",
        answer.file, answer.authority
    );
    Error::invalid(Code::TransferOtherRequest, message)
}
