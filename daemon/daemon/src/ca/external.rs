//! Authorities with an external issuer: the key is made here, and an issuer elsewhere signs the
//! certificate.
//!
//! A ceremony or a rollover makes the key and the request (PKCS #10). Until its certificate is
//! installed the generation waits, and signs nothing but that request, whose bytes are recorded
//! first. An installed certificate has passed the same checks as an adopted one, and its chain
//! reaches a self-signed certificate. The issuers are certificates here and nothing else: they
//! cannot sign.

mod renewal;

use super::adoption::may_be_an_authority;
use super::alarm::{Alarm, AlarmCode};
use super::authorize::{Authorized, Operate};
use super::ceremony::Ceremonies;
use super::issuer::generation::on_record;
use super::issuer::issue::sign_and_verify;
use super::issuer::pace::Source;
use super::issuer_list::{IssuerList, refuse_revoked};
use super::{Code, Error};
use crate::der_bytes::Der;
use crate::enrollment::roll::RollState;
use crate::ids::GenerationNumber;
use crate::store::{AuditEntry, GenerationRow, GenerationState, InstalledCertificate, NewRequest};
use crate::token::spki_sha256;
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::{parse_bundle, render_chain};
use crate::x509::certificate::Certificate;
use crate::x509::certs_only;
use crate::x509::issuer::IssuerFields;
use crate::x509::key::PublicKey;
use crate::x509::path::{self, Misfit, PathRefusal};
use crate::x509::request::{self, SignedRequest};
use crate::x509::requested_names::RequestedNames;
use renewal::{is_certified_in, is_renewable};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::cmp::Reverse;

/// An authority's generation that waits for its certificate.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PendingAuthority {
    pub name: String,
    pub generation: GenerationNumber,
    pub state: &'static str,
    /// The token that holds the key.
    pub token: String,
    /// The kind of key.
    pub key_type: crate::x509::key::KeyType,
    pub key_label: String,
    /// Hex SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: String,
}

/// Why nothing is signed yet, and what to do.
pub(super) fn waiting(authority: &str) -> Error {
    let message = format!(
        "authority {authority} waits for a certificate from its issuer elsewhere: have `hallmark \
         authority csr {authority}` signed, then `hallmark authority install {authority} FILE`"
    );
    Error::later(60, Code::AuthorityWaiting, message)
}

impl Ceremonies {
    /// The request of the generation that waits, or else the one by which the serving generation
    /// was certified, for a renewal: PEM.
    pub fn request_pem(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
    ) -> Result<String, Error> {
        let row = self.asking_generation(authority)?;
        let der = match row.request.as_ref().and_then(|it| it.der.clone()) {
            Some(der) => der,
            None => {
                // The token failed between record and signature.
                let path_length = row.request.as_ref().and_then(|it| it.path_length);
                let actor = permission.caller().to_string();
                self.request_certificate(&row, &[], path_length, &actor)?
            }
        };
        Ok(request::to_pem(&der))
    }

    /// Installs what the issuer has answered: the certificate and those above it, PEM in any order.
    /// It is for the generation that waits, or renews that of the serving generation.
    pub fn install(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        bundle: &str,
    ) -> Result<(), Error> {
        let answer = self.read_answer(authority, bundle)?;
        self.check_answer(&answer, &[])?;
        self.install_answer(permission, &answer)
    }

    /// Reads what the issuer has answered, and checks it, except by revocation lists.
    pub(super) fn read_answer(&self, authority: &str, bundle: &str) -> Result<ReadAnswer, Error> {
        let row = self.certified_generation(authority, bundle)?;
        let present = row.certificate.as_deref().map(Certificate::parse);
        let present = present.transpose().map_err(|error| {
            let message = format!("the certificate of {authority} is unreadable: {error}");
            Error::stop(Code::HierarchyUnreadable, message)
        })?;
        let as_asked = |certificate: &Certificate| has_requested_subject(&row, certificate);
        let needs = Needs {
            now: self.issuer.now(),
            authorities_below: self.issuer.hierarchy().depth_below(authority),
            limits: &|certificate| self.issuer.constraint(authority, [certificate]),
            fits_the_request: &as_asked,
        };
        let answer = match &present {
            None => Answer::read(&row, bundle, &needs),
            Some(present) => Answer::renewing(&row, present, bundle, &needs),
        };
        let answer = answer.map_err(|(code, reason)| refusal(&row, code, reason))?;
        Ok(ReadAnswer {
            row,
            present,
            answer,
        })
    }

    /// Fails if a list on record, or one that comes with the answer, revokes a certificate of it,
    /// or if its key does not sign now: the generation signs once the answer is recorded.
    pub(super) fn check_answer(
        &self,
        read: &ReadAnswer,
        lists: &[IssuerList],
    ) -> Result<(), Error> {
        let chain: Vec<_> = [read.certificate()]
            .into_iter()
            .chain(&read.answer.above)
            .collect();
        refuse_revoked(self.issuer.store(), &chain, lists)
            .map_err(|reason| refusal(&read.row, Code::InstallRevoked, reason))?;
        if let Some(key) = on_record(&read.row) {
            self.issuer.prove_key(&read.row.token, &key)?;
        }
        Ok(())
    }

    /// Records the answer, which was checked.
    pub(super) fn install_answer(
        &self,
        permission: &Authorized<Operate>,
        read: &ReadAnswer,
    ) -> Result<(), Error> {
        let ReadAnswer {
            row,
            present,
            answer,
        } = read;
        let above: Vec<String> = answer.above.iter().map(sha256).collect();
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action: "authority.installed",
            subject: row.authority.clone(),
            detail: json!({
                "generation": row.number,
                "serial": answer.certificate.serial().to_string(),
                "sha256": sha256(&answer.certificate),
                "above": above,
                "renews": present.as_ref().map(|it| it.serial().to_string()),
            }),
        };
        let installed = InstalledCertificate {
            generation: row.id,
            certificate: (&answer.certificate).into(),
            above: render_chain(&answer.above),
            renews: present.as_ref().map(Certificate::sha256),
        };
        self.issuer.store().install_certificate(installed, entry)?;
        self.issuer.reload_hierarchy()?;
        self.issuer.wake();
        Ok(())
    }

    /// Whether a certificate of this authority was asked for, and is not there yet.
    pub(super) fn is_requested(&self, authority: &str) -> Result<bool, Error> {
        let rows = self.issuer.store().generations()?;
        let own = rows.iter().filter(|it| it.authority == authority);
        let mut waiting = own.filter(|it| PendingAuthority::of(it).is_some());
        Ok(waiting.any(|it| it.request.as_ref().is_some_and(|it| it.der.is_some())))
    }

    /// Generations that wait for their certificate.
    pub fn pending(&self) -> Result<Vec<PendingAuthority>, Error> {
        let rows = self.issuer.store().generations()?;
        Ok(rows.iter().filter_map(PendingAuthority::of).collect())
    }

    /// Authorities that have never had one, in words.
    pub(super) fn pending_alarms(&self) -> Vec<Alarm> {
        let hierarchy = self.issuer.hierarchy();
        let alarm = |authority: &str| {
            let parameters = json!({ "authority": authority });
            let text = waiting(authority).message;
            Alarm::new(AlarmCode::AuthorityWaiting, parameters, text)
        };
        hierarchy.waiting().map(alarm).collect()
    }

    /// The generation that waits, or else the serving one if it was certified by a request, and no
    /// rollover is going to make another key.
    fn asking_generation(&self, authority: &str) -> Result<GenerationRow, Error> {
        let roll = self.issuer.store().open_authority_roll(authority)?;
        let has_next_key = roll.is_none_or(|it| it.state == RollState::Draining);
        let waits = |it: &GenerationRow| PendingAuthority::of(it).is_some();
        let was_certified =
            |it: &GenerationRow| has_next_key && is_renewable(it) && it.request.is_some();
        self.generation_that(authority, &[&waits, &was_certified])
    }

    /// The generation that waits, or else the serving one if the bundle has its key.
    fn certified_generation(&self, authority: &str, bundle: &str) -> Result<GenerationRow, Error> {
        let is_certified = |it: &GenerationRow| is_certified_in(bundle, it);
        let waits = |it: &GenerationRow| PendingAuthority::of(it).is_some();
        let waits_for_this = |it: &GenerationRow| waits(it) && is_certified(it);
        let is_renewed = |it: &GenerationRow| is_renewable(it) && is_certified(it);
        self.generation_that(authority, &[&waits_for_this, &is_renewed, &waits])
    }

    /// The generation of an authority that meets the first condition that one meets.
    fn generation_that(
        &self,
        authority: &str,
        conditions: &[&dyn Fn(&GenerationRow) -> bool],
    ) -> Result<GenerationRow, Error> {
        let mut own = self.issuer.store().generations()?;
        own.retain(|it| it.authority == authority);
        let mut found = conditions
            .iter()
            .filter_map(|meets| own.iter().find(|it| meets(it)));
        found.next().cloned().ok_or_else(|| {
            let message = format!(
                "authority {authority:?} waits for no certificate: a ceremony makes one that does \
                 (`external_issuer`), and `hallmark roll start --authority` the next generation of \
                 it; a certificate that renews the present one has its key"
            );
            Error::conflict(Code::AuthorityNotWaiting, message)
        })
    }

    /// Makes the request for a generation whose key is on record. A recorded request is signed
    /// unchanged.
    pub(super) fn request_certificate(
        &self,
        row: &GenerationRow,
        subject_der: &[u8],
        path_length: Option<u8>,
        actor: &str,
    ) -> Result<Der, Error> {
        let (Some(spki), Some(key)) = (row.spki.as_ref(), on_record(row)) else {
            let message = format!("authority {} has no key on record", row.authority);
            return Err(Error::stop(Code::HierarchyBroken, message));
        };
        let public_key = PublicKey::from_spki_der(spki)
            .map_err(|error| Error::stop(Code::TokenKey, error.to_string()))?;
        let entry = |action| AuditEntry {
            at: self.issuer.now(),
            actor: actor.to_owned(),
            action,
            subject: row.authority.clone(),
            detail: json!({
                "generation": row.number, "spki_sha256": hex::encode(public_key.sha256()),
            }),
        };
        let new = NewRequest {
            generation: row.id,
            path_length,
            tbs: match row.request {
                // The record decides.
                Some(_) => Der::default(),
                None => request::build(subject_der, &public_key, path_length)
                    .map_err(|error| Error::stop(Code::NotEncodable, error.to_string()))?,
            },
        };
        // Nothing is recorded for a signature that its token cannot make now.
        let token = self.issuer.token(&row.token)?;
        let ready = token.client.ready_to_sign(&key, token.sign_deadline);
        pollster::block_on(ready)?;
        let source = Source::Request(row.id);
        self.issuer.may_have_signed(source)?;
        let recorded = self
            .issuer
            .store()
            .request_certificate(new, entry("request.recorded"))?;
        let signed = sign_and_verify(token, &key, &public_key, &recorded);
        let signed = pollster::block_on(signed);
        self.issuer.note_signature(source, signed.is_ok());
        let request: SignedRequest = signed.map_err(|unsigned| unsigned.error)?;
        self.issuer.store().record_signed_request(
            &recorded,
            request.der().clone(),
            entry("request.signed"),
        )?;
        Ok(request.into_der())
    }
}

impl PendingAuthority {
    fn of(row: &GenerationRow) -> Option<Self> {
        let waits = row.state == GenerationState::Planned && row.certificate.is_none();
        let spki = row
            .spki
            .as_ref()
            .filter(|_| waits && row.request.is_some())?;
        Some(Self {
            name: row.authority.clone(),
            generation: row.number,
            state: "waiting",
            token: row.token.clone(),
            key_type: row.key_type,
            key_label: row.key_label.clone(),
            spki_sha256: hex::encode(spki_sha256(spki)),
        })
    }
}

/// Why an answer is refused: the code, and the reason in words.
type Refusal = (Code, String);

/// An issuer's answer: the requested certificate, and those above it in their order, all of them
/// checked.
struct Answer {
    certificate: Certificate,
    above: Vec<Certificate>,
}

/// An answer, and the generation that it is for.
pub(super) struct ReadAnswer {
    row: GenerationRow,
    /// The certificate that it renews, if there is one.
    present: Option<Certificate>,
    answer: Answer,
}

impl ReadAnswer {
    pub(super) fn certificate(&self) -> &Certificate {
        &self.answer.certificate
    }
}

impl Answer {
    fn read(row: &GenerationRow, bundle: &str, needs: &Needs<'_>) -> Result<Self, Refusal> {
        let certificates = parse_bundle(bundle.as_bytes())
            .map_err(|error| (Code::InstallMalformed, error.to_string()))?;
        let with_key = |it: &&Certificate| Some(it.spki_der()) == row.spki.as_ref();
        // Several issuers may have certified the key: the first that fits is taken, later ends
        // first.
        let mut own: Vec<&Certificate> = certificates.iter().filter(with_key).collect();
        own.sort_by_key(|it| (Reverse(it.not_after()), it.sha256()));
        let mut refusal = None;
        for certificate in own {
            match needs.answer(row, certificate, &certificates) {
                Ok(answer) => return Ok(answer),
                Err(refused) => refusal = refusal.or(Some(refused)),
            }
        }
        Err(refusal.unwrap_or_else(|| {
            let reason = "no certificate in the file has the key that was asked for";
            (Code::InstallOtherKey, reason.into())
        }))
    }
}

/// The conditions that an issuer's answer has to meet.
struct Needs<'a> {
    now: UnixSeconds,
    /// How many authorities are below on record, one below the other.
    authorities_below: u8,
    /// Why verifiers would refuse leaves below a certificate.
    limits: &'a dyn Fn(&Certificate) -> Option<String>,
    /// Whether the certificate is what the issuer was asked for.
    fits_the_request: &'a dyn Fn(&Certificate) -> Result<(), Refusal>,
}

impl Needs<'_> {
    fn answer(
        &self,
        row: &GenerationRow,
        certificate: &Certificate,
        certificates: &[Certificate],
    ) -> Result<Answer, Refusal> {
        let request = row.request.as_ref();
        let asked = request.and_then(|it| it.path_length).unwrap_or(0);
        let authorities_below = asked.max(self.authorities_below);
        (self.fits_the_request)(certificate)?;
        check_authority(certificate, authorities_below)?;
        may_be_an_authority(certificate).map_err(|why| (Code::InstallNotAnAuthority, why))?;
        self.fits(certificate)?;
        let fits = |above: &Certificate| {
            self.fits(above)?;
            outlives_none(certificate, above)
        };
        let above = chain_above(certificate, certificates, authorities_below, &fits)?;
        // EST has to hand out all of it, byte for byte.
        let all: Vec<&Certificate> = [certificate].into_iter().chain(&above).collect();
        certs_only::to_base64(&all).map_err(|error| (Code::InstallMalformed, error.to_string()))?;
        Ok(Answer {
            certificate: certificate.clone(),
            above,
        })
    }

    fn fits(&self, certificate: &Certificate) -> Result<(), Refusal> {
        if self.now < certificate.not_before() || certificate.not_after() <= self.now {
            let reason = format!(
                "the certificate of {:?} is not valid now",
                certificate.subject()
            );
            return Err((Code::InstallNotValid, reason));
        }
        match (self.limits)(certificate) {
            Some(limit) => Err((Code::InstallLimits, limit)),
            None => Ok(()),
        }
    }
}

fn has_requested_subject(row: &GenerationRow, certificate: &Certificate) -> Result<(), Refusal> {
    let der = row.request.as_ref().and_then(|it| it.der.as_deref());
    let names = RequestedNames::of_authority(der.unwrap_or_default())
        .map_err(|error| (Code::InstallOtherName, error.to_string()))?;
    if names.has_subject_of(certificate) {
        return Ok(());
    }
    let reason = format!(
        "its subject is {:?}, and another one was asked for",
        certificate.subject()
    );
    Err((Code::InstallOtherName, reason))
}

fn outlives_none(certificate: &Certificate, above: &Certificate) -> Result<(), Refusal> {
    if certificate.not_after() <= above.not_after() {
        return Ok(());
    }
    let reason = format!(
        "it would outlive {:?}, which signed it or stands above; have it end by {}",
        above.subject(),
        above.not_after()
    );
    Err((Code::InstallOutlivesIssuer, reason))
}

fn refusal(row: &GenerationRow, code: Code, reason: String) -> Error {
    let message = format!("nothing is installed for {}: {reason}", row.authority);
    Error::invalid(code, message)
}

/// The certificates above, the issuer's first, up to a self-signed one, as a relying party judges
/// them. Each fits the condition, which is the caller's.
pub(super) fn chain_above(
    certificate: &Certificate,
    others: &[Certificate],
    authorities_below: u8,
    fits: &dyn Fn(&Certificate) -> Result<(), Refusal>,
) -> Result<Vec<Certificate>, Refusal> {
    let fits = |it: &Certificate| {
        fits(it).map_err(|(code, reason)| PathRefusal::new(Misfit::Own(code), reason))
    };
    path::above(certificate, others, usize::from(authorities_below), &fits).map_err(|refusal| {
        let code = match refusal.misfit {
            Misfit::Incomplete => Code::InstallChainIncomplete,
            Misfit::Signature => Code::InstallSignature,
            Misfit::KeyIdentifier => Code::InstallKeyIdentifier,
            Misfit::NotAnAuthority => Code::InstallNotAnAuthority,
            Misfit::PathLength => Code::InstallPathLength,
            Misfit::NameConstraints => Code::InstallLimits,
            Misfit::Own(code) => code,
        };
        (code, refusal.reason)
    })
}

/// An authority's certificate that allows `path_length` others below.
fn check_authority(certificate: &Certificate, path_length: u8) -> Result<(), Refusal> {
    IssuerFields::from_certificate(certificate)
        .map_err(|error| (Code::InstallNotAnAuthority, error.to_string()))?;
    match certificate.path_length() {
        Some(allowed) if allowed < path_length => Err((
            Code::InstallPathLength,
            format!(
                "the certificate of {:?} allows {allowed} authorities below, and {path_length} are \
                 needed",
                certificate.subject()
            ),
        )),
        _ => Ok(()),
    }
}

fn sha256(certificate: &Certificate) -> String {
    hex::encode(certificate.sha256())
}
