//! Signs at an offline root: the certificates that requests ask for, and the revocation lists from
//! its authority up to the root.
//!
//! Certificates are recorded before they are signed, like every subordinate certificate. The
//! transcript's SHA-256 is part of each idempotency key, so the repeat of a command that was cut
//! off gives the same certificates.

use super::Written;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::ceremony::Step;
use crate::ca::hierarchy::Generation;
use crate::ca::issuer::subordinate::{SignedSubordinate, SubordinateRequest};
use crate::ca::{CertificateAuthority, Code, Error};
use crate::x509::transfer::{
    ANSWERS_FILE, Answer, Answers, AnswersForm, FILES_MAX, Files, List, Request, Requests,
    check_digest, check_files, read, sha256,
};
use serde_json::json;
use std::sync::Arc;

/// The folder that an operator has brought to an offline root.
#[derive(Clone, Debug)]
pub struct TransferToSign {
    /// The authority that signs.
    pub authority: String,
    /// The `[[subordinate_profile]]`, or a preset.
    pub profile: String,
    /// A shorter validity than the profile's, in days.
    pub days: Option<u32>,
    /// The holder has a new key, beside the one that is certified.
    pub rekey: bool,
    /// The transcript of the requests. Without one, lists alone are signed.
    pub requests: Option<String>,
    /// Hex SHA-256 of the transcript, as the operator knows it from its origin.
    pub requests_sha256: Option<String>,
    pub files: Files,
}

/// A generation whose list is carried.
struct ListSigner {
    generation: Arc<Generation>,
    /// It signs, or is above the one that does.
    is_in_chain: bool,
}

impl CertificateAuthority {
    /// Signs what the requests ask for, and the lists. Reports each step to `report` as it begins,
    /// with its number.
    pub fn sign_by_transfer(
        &self,
        permission: &Authorized<Operate>,
        brought: &TransferToSign,
        report: &dyn Fn(Step),
    ) -> Result<Written, Error> {
        let requests = brought.requests()?;
        let generations = self.list_signers(&brought.authority)?;
        let mut files = Vec::new();
        let mut certificates = Vec::new();
        let requested = || requests.iter().flat_map(|it| &it.requests);
        let of = requested().count() + generations.len();
        if of > FILES_MAX {
            let message = format!(
                "nothing is signed: the answer would have {of} files, and the other side takes \
                 {FILES_MAX}; have it ask for fewer authorities at a time"
            );
            return Err(Error::invalid(Code::CeremonyInvalid, message));
        }
        let begin = |number, text| report(Step { text, number, of });
        for (number, request) in (1..).zip(requested()) {
            let progress = |text| begin(number, text);
            progress(format!("{}: {}", request.file, request.subject));
            let order = brought.order(request);
            let signed = self.issuer.sign_subordinate(permission, &order)?;
            let (answer, pem) = answer(request, &brought.profile, &signed);
            files.push((answer.file.clone(), pem));
            certificates.push(answer);
        }
        let mut lists = Vec::new();
        let numbers = requested().count() + 1..;
        for (
            number,
            ListSigner {
                generation,
                is_in_chain,
            },
        ) in numbers.zip(&generations)
        {
            let progress = |text| begin(number, text);
            progress(format!("revocation list of {}", generation.name()));
            let (list, der) = match self.list_to_carry(generation) {
                // The key of an earlier generation may be gone; the ceremony does not need it.
                Err(error) if !is_in_chain => {
                    progress(format!("it is left out: {}", error.message));
                    continue;
                }
                carried => carried?,
            };
            files.push((list.file.clone(), der));
            lists.push(list);
        }
        let requests_sha256 = brought.requests.as_ref().map(|it| sha256(it.as_bytes()));
        let transcript = Answers {
            transcript: AnswersForm::First,
            made_at: self.now().to_string(),
            operator: permission.caller().to_string(),
            hallmark: env!("CARGO_PKG_VERSION").to_owned(),
            requests_sha256,
            certificates,
            lists,
        };
        let written = Written::new(ANSWERS_FILE, &transcript, files)?;
        let serials = transcript.certificates.iter();
        let lists = transcript.lists.iter();
        let detail = json!({
            "authority": brought.authority,
            "requests_sha256": transcript.requests_sha256,
            "certificates": serials.map(|it| json!([it.authority, it.serial])).collect::<Vec<_>>(),
            "lists": lists.map(|it| json!([it.file, it.number])).collect::<Vec<_>>(),
        });
        self.record_transfer(permission, "transfer.signed", &written.sha256, detail)?;
        Ok(written)
    }

    /// Returns the generations of the authority and of those above it that sign lists: an earlier
    /// one, too, whose list is named by certificates that it has signed.
    fn list_signers(&self, authority: &str) -> Result<Vec<ListSigner>, Error> {
        if !self.issuer.authorities().contains_key(authority) {
            let message =
                format!("there is no authority {authority:?}; `hallmark authority list` shows all");
            return Err(Error::missing(Code::AuthorityUnknown, message));
        }
        let hierarchy = self.hierarchy();
        let signer = hierarchy.signing(authority)?.id;
        let chain: Vec<_> = hierarchy.upwards(signer).collect();
        let is_split = |it: &Generation| it.crl_parts().count() > 1;
        let unfit = chain
            .iter()
            .find(|it| is_split(it) || self.crls.has_deltas(&it.authority));
        if let Some(it) = unfit {
            let message = format!(
                "authority {} splits its revocation list, by partitions or by delta lists, and \
                 one complete list is carried: remove `crl_partitions` and `delta_crls`; \
                 partitions end with its next generation",
                it.authority
            );
            return Err(Error::invalid(Code::CeremonyInvalid, message));
        }
        let is_named =
            |it: &&Arc<Generation>| chain.iter().any(|own| own.authority == it.authority);
        let all = hierarchy.iter().filter(is_named).filter_map(|it| {
            let is_in_chain = chain.iter().any(|own| own.id == it.id);
            let is_carried =
                is_in_chain || !is_split(it) && self.crls.signs_lists(&it.authority, it.number);
            is_carried.then(|| ListSigner {
                generation: Arc::clone(it),
                is_in_chain,
            })
        });
        Ok(all.collect())
    }

    fn list_to_carry(&self, generation: &Generation) -> Result<(List, Vec<u8>), Error> {
        let row = self.crls.sign_complete(generation)?;
        let der = row.der.to_vec();
        let list = List {
            authority: generation.authority.clone(),
            generation: generation.number.get(),
            file: format!("{}.crl", generation.name()),
            sha256: sha256(&der),
            issuer: generation.certificate.subject(),
            number: row.number.to_string(),
            this_update: row.this_update.to_string(),
            next_update: row.next_update.to_string(),
            entries: usize::try_from(row.entries).unwrap_or_default(),
        };
        Ok((list, der))
    }
}

impl TransferToSign {
    /// Reads the transcript of the requests, and checks all that was brought before anything is
    /// signed.
    fn requests(&self) -> Result<Option<Requests>, Error> {
        let Some(text) = &self.requests else {
            return Ok(None);
        };
        let given = self.requests_sha256.as_deref().unwrap_or_default();
        check_digest(text, given)?;
        let requests: Requests = read(text)?;
        check_files(&requests, &self.files)?;
        for request in &requests.requests {
            request.csr(&self.files)?;
        }
        Ok(Some(requests))
    }

    fn order(&self, request: &Request) -> SubordinateRequest {
        let transcript = self.requests.as_ref().map(|it| sha256(it.as_bytes()));
        let transcript = transcript.unwrap_or_default();
        SubordinateRequest {
            authority: self.authority.clone(),
            profile: self.profile.clone(),
            csr: self.files.get(&request.file).cloned().unwrap_or_default(),
            common_name: Some(request.subject.clone()),
            days: self.days,
            rekey: self.rekey,
            // One request of one transcript.
            idempotency_key: Some(format!("{transcript:.32}-{:.16}", request.sha256)),
        }
    }
}

fn answer(request: &Request, profile: &str, signed: &SignedSubordinate) -> (Answer, Vec<u8>) {
    let certificate = &signed.issued.certificate;
    let above = signed.above.iter().map(|it| it.pem.as_str());
    let pem = certificate.to_pem() + &above.collect::<String>();
    let answer = Answer {
        authority: request.authority.clone(),
        generation: request.generation,
        request_sha256: request.sha256.clone(),
        file: format!("{}-{}.pem", request.authority, request.generation),
        sha256: sha256(pem.as_bytes()),
        profile: profile.to_owned(),
        subject: certificate.subject(),
        issuer: certificate.issuer(),
        serial: certificate.serial().to_string(),
        not_before: certificate.not_before().to_string(),
        not_after: certificate.not_after().to_string(),
    };
    (answer, pem.into_bytes())
}
