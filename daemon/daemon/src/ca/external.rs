//! Authorities with an external issuer: the key is made here, and an issuer elsewhere signs the
//! certificate.
//!
//! A ceremony or a rollover makes the key and the request (PKCS #10). Until its certificate is
//! installed the generation waits, and signs nothing but that request, whose bytes are recorded
//! first. An installed certificate has passed the same checks as an adopted one, and its chain
//! reaches a self-signed certificate. The issuers are certificates here and nothing else: they
//! cannot sign.

use super::adoption::may_be_an_authority;
use super::alarm::{Alarm, AlarmCode};
use super::authorize::{Authorized, Operate};
use super::ceremony::Ceremonies;
use super::generation::on_record;
use super::issue::sign_and_verify;
use super::pace::Source;
use super::{Code, Error, rfc3339};
use crate::der_bytes::Der;
use crate::ids::GenerationNumber;
use crate::store::{AuditEntry, GenerationRow, GenerationState, InstalledCertificate, NewRequest};
use crate::token::spki_sha256;
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::{parse_bundle, render_chain};
use crate::x509::certificate::Certificate;
use crate::x509::certs_only;
use crate::x509::issuer::Issuer;
use crate::x509::key::PublicKey;
use crate::x509::request::{self, SignedRequest};
use crate::x509::requested_names::RequestedNames;
use serde::Serialize;
use serde_json::json;

/// An authority's generation that waits for its certificate.
#[derive(Clone, Debug, Serialize)]
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
    /// The request of the generation that waits: PEM.
    pub fn request_pem(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
    ) -> Result<String, Error> {
        let row = self.pending_generation(authority)?;
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
    /// The generation signs from then on, so its key must sign now.
    pub fn install(
        &self,
        permission: &Authorized<Operate>,
        authority: &str,
        bundle: &str,
    ) -> Result<(), Error> {
        let row = self.pending_generation(authority)?;
        let answer = Answer::read(&row, bundle, self.issuer.now())?;
        let certificates = [&answer.certificate].into_iter().chain(&answer.above);
        if let Some(limit) = self.issuer.constraint(authority, certificates) {
            return Err(refusal(&row, Code::InstallLimits, limit));
        }
        if let Some(key) = on_record(&row) {
            self.issuer.prove_key(&row.token, &key)?;
        }
        let above: Vec<String> = answer.above.iter().map(sha256).collect();
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action: "authority.installed",
            subject: authority.to_owned(),
            detail: json!({
                "generation": row.number,
                "serial": answer.certificate.serial().to_string(),
                "sha256": sha256(&answer.certificate),
                "above": above,
            }),
        };
        let installed = InstalledCertificate {
            generation: row.id,
            certificate: (&answer.certificate).into(),
            above: render_chain(&answer.above),
        };
        self.issuer.store.install_certificate(installed, entry)?;
        self.issuer.reload_hierarchy()?;
        self.issuer.wake();
        Ok(())
    }

    /// Whether a certificate of this authority was asked for, and is not there yet.
    pub(super) fn is_requested(&self, authority: &str) -> Result<bool, Error> {
        let rows = self.issuer.store.generations()?;
        let own = rows.iter().filter(|it| it.authority == authority);
        let mut waiting = own.filter(|it| PendingAuthority::of(it).is_some());
        Ok(waiting.any(|it| it.request.as_ref().is_some_and(|it| it.der.is_some())))
    }

    /// Generations that wait for their certificate.
    pub fn pending(&self) -> Result<Vec<PendingAuthority>, Error> {
        let rows = self.issuer.store.generations()?;
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

    fn pending_generation(&self, authority: &str) -> Result<GenerationRow, Error> {
        let rows = self.issuer.store.generations()?;
        let mut own = rows.into_iter().filter(|it| it.authority == authority);
        own.find(|it| PendingAuthority::of(it).is_some()).ok_or_else(|| {
            let message = format!(
                "authority {authority:?} waits for no certificate: a ceremony makes one that does \
                 (`external_issuer`), and `hallmark roll start --authority` the next generation of it"
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
            .store
            .request_certificate(new, entry("request.recorded"))?;
        let signed = sign_and_verify(token, &key, &public_key, &recorded);
        let signed = pollster::block_on(signed);
        self.issuer.note_signature(source, signed.is_ok());
        let request: SignedRequest = signed.map_err(|unsigned| unsigned.error)?;
        self.issuer.store.record_signed_request(
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

/// An issuer's answer: the requested certificate, and those above it in their order, all of them
/// checked.
struct Answer {
    certificate: Certificate,
    above: Vec<Certificate>,
}

impl Answer {
    fn read(row: &GenerationRow, bundle: &str, now: UnixSeconds) -> Result<Self, Error> {
        let refused = |code, reason: String| refusal(row, code, reason);
        let mut certificates = parse_bundle(bundle.as_bytes())
            .map_err(|error| refused(Code::InstallMalformed, error.to_string()))?;
        let own = certificates
            .iter()
            .position(|it| Some(it.spki_der()) == row.spki.as_ref());
        let certificate = own.map(|place| certificates.swap_remove(place));
        let certificate = certificate.ok_or_else(|| {
            let reason = "no certificate in the file has the key that was asked for";
            refused(Code::InstallOtherKey, reason.into())
        })?;
        let request = row.request.as_ref();
        let path_length = request.and_then(|it| it.path_length).unwrap_or(0);
        let der = request.and_then(|it| it.der.as_deref());
        let asked = RequestedNames::of_authority(der.unwrap_or_default())
            .map_err(|error| refused(Code::InstallOtherName, error.to_string()))?;
        if !asked.has_subject_of(&certificate) {
            let reason = format!(
                "its subject is {:?}, and another one was asked for",
                certificate.subject()
            );
            return Err(refused(Code::InstallOtherName, reason));
        }
        check_authority(&certificate, path_length).map_err(|(code, why)| refused(code, why))?;
        may_be_an_authority(&certificate)
            .map_err(|reason| refused(Code::InstallNotAnAuthority, reason))?;
        let above = chain_above(&certificate, certificates, path_length)
            .map_err(|(code, why)| refused(code, why))?;
        let valid = |it: &Certificate| it.not_before() <= now && now < it.not_after();
        let invalid = [&certificate]
            .into_iter()
            .chain(&above)
            .find(|it| !valid(it));
        if let Some(invalid) = invalid {
            let reason = format!(
                "the certificate of {:?} is not valid now",
                invalid.subject()
            );
            return Err(refused(Code::InstallNotValid, reason));
        }
        let first = above
            .iter()
            .find(|it| it.not_after() < certificate.not_after());
        if let Some(first) = first {
            let reason = format!(
                "it would outlive {:?}, which signed it or stands above; have it end by {}",
                first.subject(),
                rfc3339(first.not_after())
            );
            return Err(refused(Code::InstallOutlivesIssuer, reason));
        }
        // EST has to hand out all of it, byte for byte.
        let all: Vec<&Certificate> = [&certificate].into_iter().chain(&above).collect();
        certs_only::to_base64(&all)
            .map_err(|error| refused(Code::InstallMalformed, error.to_string()))?;
        Ok(Self { certificate, above })
    }
}

fn refusal(row: &GenerationRow, code: Code, reason: String) -> Error {
    let message = format!("nothing is installed for {}: {reason}", row.authority);
    Error::invalid(code, message)
}

/// The certificates above, the issuer's first, up to a self-signed one. Each has signed the one
/// below it, and may.
pub(super) fn chain_above(
    certificate: &Certificate,
    mut others: Vec<Certificate>,
    path_length: u8,
) -> Result<Vec<Certificate>, (Code, String)> {
    let mut above: Vec<Certificate> = Vec::new();
    loop {
        let below = above.last().unwrap_or(certificate);
        if below.is_self_issued() && has_signed(below, below) {
            if above.is_empty() {
                // It would be a root, which was not requested.
                return Err((Code::InstallChainIncomplete, "it is self-signed".into()));
            }
            return Ok(above);
        }
        let issuer = others
            .iter()
            .position(|it| it.subject_der() == below.issuer_der() && has_signed(it, below));
        let Some(issuer) = issuer else {
            let reason = format!(
                "no certificate in the file is that of {:?}, which signed {:?}; append all up to the \
                 self-signed one",
                below.issuer(),
                below.subject()
            );
            return Err((Code::InstallChainIncomplete, reason));
        };
        let issuer = others.swap_remove(issuer);
        let between = u8::try_from(above.len()).unwrap_or(u8::MAX);
        let needed = path_length.saturating_add(between).saturating_add(1);
        check_authority(&issuer, needed)?;
        above.push(issuer);
    }
}

fn has_signed(issuer: &Certificate, below: &Certificate) -> bool {
    let key = issuer.public_key();
    key.is_ok_and(|key| below.verify_issued_by(&key).is_ok())
}

/// An authority's certificate that allows `path_length` others below.
fn check_authority(certificate: &Certificate, path_length: u8) -> Result<(), (Code, String)> {
    Issuer::from_certificate(certificate)
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
