//! Makes the authorities that a ceremony file describes, and writes a transcript.
//!
//! Each authority goes through recorded steps (planned, key on record, certificate on record), so
//! an interrupted ceremony is continued by running it again. It must never replace the key of an
//! authority that exists.

mod file;

pub use file::{
    AUTHORITIES_MAX, AuthoritySpecification, Ceremony, ExternalAuthority, FILE_BYTES_MAX,
    NewAuthority, Origin,
};

use super::authorize::{Authorized, Operate};
use super::hierarchy::Generation;
use super::issuer::generation::{Shape, new_key_id};
use super::transcript::{NOT_LOCAL, Transcript, TranscriptEntry};
use super::{Code, Error, Issuer, crash_point};
use crate::ids::GenerationId;
use crate::store::{GenerationRow, PlannedGeneration};
use crate::token::client::LOOKUP_DEADLINE;
use crate::x509::policy_path;
use crate::x509::profile::Profile;
use aws_lc_rs::digest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a ceremony waits until a token is ready.
const TOKEN_DEADLINE: Duration = Duration::from_secs(15);

/// A step that begins.
#[derive(Clone, Debug)]
pub struct Step {
    /// The work, in words.
    pub text: String,
    /// Which of how many parts of the work it belongs to, from 1.
    pub number: usize,
    pub of: usize,
}

/// Makes, adopts and installs authorities.
pub struct Ceremonies {
    pub(super) issuer: Arc<Issuer>,
    /// One ceremony at a time, or one rollover that makes a key.
    pub(super) running: Arc<Mutex<()>>,
}

impl Ceremonies {
    pub(super) fn new(issuer: Arc<Issuer>, running: Arc<Mutex<()>>) -> Self {
        Self { issuer, running }
    }

    /// Runs the ceremony that `file` describes, and reports each step to `report` as it begins,
    /// with the number of its authority.
    pub fn run(
        &self,
        permission: &Authorized<Operate>,
        file: &str,
        report: &dyn Fn(Step),
    ) -> Result<Transcript, Error> {
        let ceremony = Ceremony::parse(file)?;
        let _alone = self.running.try_lock().map_err(|_| {
            Error::conflict(
                Code::CeremonyUnderWay,
                "another ceremony is under way; wait for it",
            )
        })?;
        self.check_ceremony(&ceremony)?;
        let started_at = self.issuer.now();
        let mut tokens = BTreeMap::new();
        let mut authorities = Vec::new();
        let of = ceremony.authority.len();
        for (number, specification) in (1..).zip(&ceremony.authority) {
            let progress = |text| report(Step { text, number, of });
            if let Some(issuer) = self.waiting_issuer(specification) {
                let name = &specification.name;
                progress(format!(
                    "authority {name} is left out: {issuer} waits for its certificate; run the \
                     ceremony again when that is installed"
                ));
                continue;
            }
            let token = self.issuer.token_of(&specification.name)?.to_owned();
            if !tokens.contains_key(&token) {
                progress(format!("asking token {token} what it is"));
                let client = &self.issuer.token(&token)?.client;
                // A daemon that has just been started has not found its tokens yet.
                client.wait_ready(TOKEN_DEADLINE);
                tokens.insert(token.clone(), client.describe(LOOKUP_DEADLINE)?);
            }
            let actor = permission.caller().to_string();
            authorities.push(self.make_authority(specification, &token, &actor, &progress)?);
        }
        let transcript = Transcript {
            ceremony: ceremony.name,
            input_sha256: hex::encode(digest::digest(&digest::SHA256, file.as_bytes())),
            started_at: started_at.to_string(),
            finished_at: self.issuer.now().to_string(),
            operator: permission.caller().to_string(),
            hallmark: env!("CARGO_PKG_VERSION"),
            tokens,
            authorities,
        };
        let entry = transcript.audit_entry(permission, self.issuer.now());
        pollster::block_on(self.issuer.store().record_audit(entry))?;
        self.issuer.wake();
        Ok(transcript)
    }

    /// Returns the issuer of this authority if it cannot sign yet, because it or an authority above
    /// it waits for a certificate.
    fn waiting_issuer<'a>(&self, specification: &'a AuthoritySpecification) -> Option<&'a str> {
        let issuer = specification.issuer.as_deref()?;
        let hierarchy = self.issuer.hierarchy();
        let absent = hierarchy.serving(issuer).is_none() && hierarchy.waiting().next().is_some();
        absent.then_some(issuer)
    }

    fn check_ceremony(&self, ceremony: &Ceremony) -> Result<(), Error> {
        let hierarchy = self.issuer.hierarchy();
        let mut known: Vec<&str> = hierarchy
            .iter()
            .map(|generation| generation.authority.as_str())
            .collect();
        for authority in &ceremony.authority {
            self.issuer.token_of(&authority.name)?;
            if let Some(issuer) = authority.issuer.as_deref().filter(|it| !known.contains(it)) {
                let message = format!(
                    "authority {} is signed by {issuer:?}, which neither exists nor stands before \
                     it in the file",
                    authority.name
                );
                return Err(Error::invalid(Code::CeremonyInvalid, message));
            }
            known.push(&authority.name);
        }
        Ok(())
    }

    fn make_authority(
        &self,
        specification: &AuthoritySpecification,
        token: &str,
        actor: &str,
        progress: &dyn Fn(String),
    ) -> Result<TranscriptEntry, Error> {
        let name = &specification.name;
        if let Some(existing) = self.issuer.hierarchy().serving(name).cloned() {
            progress(format!("authority {name} exists"));
            return self.check_existing(specification, &existing);
        }
        if let Some(issuer) = specification.issuer.as_deref() {
            self.issuer.check_constraints(issuer, name)?;
        }
        match &specification.origin {
            Origin::New(new) => self.create(specification, new, token, actor, progress),
            Origin::External(new) => self.ask_elsewhere(name, new, token, actor, progress),
            Origin::Adopted(adoption) => {
                progress(format!("authority {name}: adopting {}", adoption.key));
                self.adopt(specification, adoption, token, actor)
            }
        }
    }

    /// Returns the entry of an authority that exists, if the file describes it and its key signs.
    fn check_existing(
        &self,
        specification: &AuthoritySpecification,
        existing: &Generation,
    ) -> Result<TranscriptEntry, Error> {
        let hierarchy = self.issuer.hierarchy();
        specification.agrees_with(existing, hierarchy.parent_authority(existing))?;
        drop(hierarchy);
        let key = self.issuer.prove_generation(existing)?;
        Ok(TranscriptEntry::new(existing, "existed", &key))
    }

    /// Makes the key and the certificate of a new authority.
    fn create(
        &self,
        specification: &AuthoritySpecification,
        new: &NewAuthority,
        token: &str,
        actor: &str,
        progress: &dyn Fn(String),
    ) -> Result<TranscriptEntry, Error> {
        let name = &specification.name;
        progress(format!("authority {name}: key on token {token}"));
        let parent = match &specification.issuer {
            Some(issuer) => Some(self.permits(issuer, specification, new)?),
            None => None,
        };
        let row = self.issuer.store().plan_generation(PlannedGeneration {
            authority: name.clone(),
            parent,
            token: token.to_owned(),
            key_type: new.key_type,
            key_id: new_key_id()?,
        })?;
        if row.request.is_some() {
            return Err(begun_otherwise(name));
        }
        let key = self.issuer.make_key(&row)?;
        if !key.local {
            progress(format!("authority {name}: {NOT_LOCAL}"));
        }
        progress(format!("authority {name}: certificate"));
        let shape = Shape {
            subject: new.subject.clone().into(),
            path_length: new.path_length,
            name_constraints: new.name_constraints.clone(),
            policies: new.policies.clone(),
            policy_limits: new.policy_limits,
            validity: new.validity,
        };
        self.issuer.make_certificate(&shape, &row, &key, actor)?;
        let hierarchy = self.issuer.hierarchy();
        let made = hierarchy.serving(name).ok_or_else(|| {
            let message = format!("authority {name} does not serve after all");
            Error::stop(Code::CeremonyFailed, message)
        })?;
        Ok(TranscriptEntry::new(made, "created", &key))
    }

    /// Returns the generation of `issuer` that signs, unless name constraints forbid the new
    /// authority: that is known before it has a key.
    fn permits(
        &self,
        issuer: &str,
        specification: &AuthoritySpecification,
        new: &NewAuthority,
    ) -> Result<GenerationId, Error> {
        let hierarchy = self.issuer.hierarchy();
        let signer = hierarchy.signing(issuer)?;
        let objection = signer
            .issuer
            .objection_to(&new.subject.to_der(), &[], false);
        let shape = Profile {
            certificate_policies: new.policies.clone(),
            ..Profile::authority(new.path_length, new.validity)
        };
        let above = hierarchy.certificates_above(signer.id);
        let objection = objection.or_else(|| policy_path::objection(above, &[&shape]));
        objection.map_or(Ok(signer.id), |why| {
            let name = &specification.name;
            let message = format!("authority {name} cannot be below {issuer}: {why}");
            Err(Error::invalid(Code::AuthorityLimited, message))
        })
    }

    /// Makes the key of an external authority, and signs the request for its certificate.
    fn ask_elsewhere(
        &self,
        name: &str,
        new: &ExternalAuthority,
        token: &str,
        actor: &str,
        progress: &dyn Fn(String),
    ) -> Result<TranscriptEntry, Error> {
        progress(format!("authority {name}: key on token {token}"));
        let row = self.issuer.store().plan_generation(PlannedGeneration {
            authority: name.to_owned(),
            parent: None,
            token: token.to_owned(),
            key_type: new.key_type,
            key_id: new_key_id()?,
        })?;
        if row.request.is_none()
            && (row.parent.is_some() || self.issuer.store().has_signed(row.id)?)
        {
            return Err(begun_otherwise(name));
        }
        let key = self.issuer.make_key(&row)?;
        crash_point("ceremony-keyed");
        progress(format!("authority {name}: request to its issuer"));
        let keyed = GenerationRow {
            spki: Some(key.spki.clone()),
            key_wrapped: key.wrapped.clone(),
            ..row
        };
        let signed = keyed.request.as_ref().and_then(|it| it.der.clone());
        let request = match signed {
            Some(signed) => signed,
            None => {
                let subject = new.subject.to_der();
                self.request_certificate(&keyed, &subject, new.path_length, actor)?
            }
        };
        self.issuer.reload_hierarchy()?;
        Ok(TranscriptEntry::waiting(&keyed, &request, &key))
    }
}

fn begun_otherwise(name: &str) -> Error {
    let message = format!(
        "authority {name} was begun with another `external_issuer`, and has its key already; write \
         the file as it was"
    );
    Error::conflict(Code::AuthorityExists, message)
}
