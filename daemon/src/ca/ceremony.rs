//! The ceremony: makes the authorities that one TOML file describes, and writes a transcript.
//!
//! It is the only place where a key is made, or adopted. Each authority goes through recorded steps (planned,
//! key on record, certificate on record), so a ceremony that was interrupted is taken up by running
//! it again, and one that was finished makes nothing: an authority that exists keeps its key.

use super::adoption::{Adoption, REASON_CHARS_MAX};
use super::authorize::{Authorized, Operate};
use super::generation::{Shape, new_key_id};
use super::hierarchy::Generation;
use super::transcript::{NOT_LOCAL, Transcript, TranscriptEntry};
use super::{Code, Error, Issuer, crash_point, rfc3339};
use crate::store::{GenerationRow, PlannedGeneration};
use crate::token::client::LOOKUP_DEADLINE;
use crate::toml_error::where_and_why;
use crate::x509::key::KeyType;
use crate::x509::name::DistinguishedName;
use crate::x509::profile::human_seconds;
use aws_lc_rs::digest;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The largest ceremony file, in bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024;
/// The most authorities that one file describes.
pub const AUTHORITIES_MAX: usize = 64;
/// How long a ceremony waits for a token to get ready.
const TOKEN_DEADLINE: Duration = Duration::from_secs(15);

/// What a ceremony file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceremony {
    /// What this ceremony is called in the transcript.
    pub name: String,
    /// The authorities, issuers before those they sign.
    pub authority: Vec<AuthoritySpecification>,
}

/// One authority of a ceremony file.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Said")]
pub struct AuthoritySpecification {
    /// Its name, as the configuration's `[[authority]]` has it.
    pub name: String,
    /// The authority that signs it; none for a self-signed root.
    pub issuer: Option<String>,
    /// What becomes of it.
    pub origin: Origin,
}

/// Where an authority comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// It is made here.
    New(NewAuthority),
    /// It exists, and is taken over.
    Adopted(Adoption),
    /// Its key is made here, its certificate elsewhere.
    External(ExternalAuthority),
}

/// What is asked of an issuer elsewhere.
#[derive(Clone, Debug)]
pub struct ExternalAuthority {
    /// The kind of key.
    pub key_type: KeyType,
    /// The subject, with its common name.
    pub subject: DistinguishedName,
    /// How many authorities must be allowed below; none if it does not say.
    pub path_length: Option<u8>,
}

/// What a new authority shall be.
#[derive(Clone, Debug)]
pub struct NewAuthority {
    /// The kind of key.
    pub key_type: KeyType,
    /// The subject, with its common name.
    pub subject: DistinguishedName,
    /// How long its certificate is valid, in seconds.
    pub validity: u64,
    /// `pathLenConstraint`: how many authorities may follow below (RFC 5280, 4.2.1.9).
    pub path_length: Option<u8>,
}

/// What the file says of an authority: one of three sets of keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    name: String,
    #[serde(default)]
    issuer: Option<String>,
    #[serde(default)]
    external_issuer: bool,
    key_type: Option<KeyType>,
    subject: Option<DistinguishedName>,
    /// Written like `20y`.
    #[serde(deserialize_with = "human_seconds::optional", default)]
    validity: Option<u64>,
    path_length: Option<u8>,
    /// A PKCS#11 URI (RFC 7512).
    key: Option<String>,
    certificate: Option<String>,
    accept: Option<String>,
    crl_number: Option<u32>,
}

impl TryFrom<Said> for AuthoritySpecification {
    type Error = String;

    fn try_from(said: Said) -> Result<Self, String> {
        let (name, issuer) = (said.name.clone(), said.issuer.clone());
        let origin = said.origin();
        let origin = origin.map_err(|reason| format!("authority {name:?}: {reason}"))?;
        Ok(Self {
            name,
            issuer,
            origin,
        })
    }
}

impl Said {
    fn origin(self) -> Result<Origin, String> {
        if self.external_issuer {
            return Ok(Origin::External(self.external()?));
        }
        match (self.key.clone(), self.certificate.clone()) {
            (Some(key), Some(certificate)) => {
                Ok(Origin::Adopted(self.adoption(&key, certificate)?))
            }
            (None, None) if self.accept.is_none() && self.crl_number.is_none() => {
                Ok(Origin::New(self.new_authority()?))
            }
            _ => Err("to adopt one, give both `key` and `certificate`".into()),
        }
    }

    fn external(self) -> Result<ExternalAuthority, String> {
        let adopted = self.key.is_some() || self.certificate.is_some() || self.accept.is_some();
        if self.issuer.is_some() || adopted || self.crl_number.is_some() {
            return Err(
                "`external_issuer` goes with key_type, subject and path_length alone".into(),
            );
        }
        if self.validity.is_some() {
            return Err("leave `validity` out: its issuer decides".into());
        }
        Ok(ExternalAuthority {
            key_type: self.key_type.unwrap_or_else(default_key_type),
            subject: self.subject.ok_or("it has no `subject`")?,
            path_length: self.path_length,
        })
    }

    fn new_authority(self) -> Result<NewAuthority, String> {
        Ok(NewAuthority {
            key_type: self.key_type.unwrap_or_else(default_key_type),
            subject: self.subject.ok_or("it has no `subject`")?,
            validity: self.validity.ok_or("it has no `validity`")?,
            path_length: self.path_length,
        })
    }

    fn adoption(self, key: &str, certificate: String) -> Result<Adoption, String> {
        let shape = self.key_type.is_some() || self.subject.is_some();
        if shape || self.validity.is_some() || self.path_length.is_some() {
            return Err(
                "its certificate is given, which says key_type, subject, validity and path_length"
                    .into(),
            );
        }
        let reason = self.accept.as_ref().map(|reason| reason.chars().count());
        if reason.is_some_and(|length| !(1..=REASON_CHARS_MAX).contains(&length)) {
            return Err(format!("`accept` has 1 to {REASON_CHARS_MAX} characters"));
        }
        Ok(Adoption {
            key: key.parse().map_err(|error| format!("`key`: {error}"))?,
            certificate,
            accept: self.accept,
            crl_number: self.crl_number.unwrap_or(0),
        })
    }
}

fn default_key_type() -> KeyType {
    KeyType::P256
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

    /// Runs the ceremony that `file` describes, telling `progress` each step as it begins.
    pub fn run(
        &self,
        permission: &Authorized<Operate>,
        file: &str,
        progress: &dyn Fn(String),
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
        for specification in &ceremony.authority {
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
            authorities.push(self.make_authority(specification, &token, &actor, progress)?);
        }
        let transcript = Transcript {
            ceremony: ceremony.name,
            input_sha256: hex::encode(digest::digest(&digest::SHA256, file.as_bytes())),
            started_at: rfc3339(started_at),
            finished_at: rfc3339(self.issuer.now()),
            operator: permission.caller().to_string(),
            hallmark: env!("CARGO_PKG_VERSION"),
            tokens,
            authorities,
        };
        let entry = transcript.audit_entry(permission, self.issuer.now());
        pollster::block_on(self.issuer.store.record_audit(entry))?;
        self.issuer.wake();
        Ok(transcript)
    }

    /// The issuer of this authority, if it cannot sign yet; nor can those that are not here for that
    /// reason.
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
                return Err(Error::mend(Code::CeremonyInvalid, message));
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
            let hierarchy = self.issuer.hierarchy();
            let issuer = hierarchy.parent_authority(&existing);
            specification.agrees_with(&existing, issuer)?;
            drop(hierarchy);
            let key = self.issuer.prove_generation(&existing)?;
            return Ok(TranscriptEntry::new(&existing, "existed", &key));
        }
        let issuer = specification.issuer.as_deref();
        if let Some(issuer) = issuer {
            self.issuer.check_constraints(issuer, name)?;
        }
        let new = match &specification.origin {
            Origin::New(new) => new,
            Origin::External(new) => {
                return self.ask_elsewhere(name, new, token, actor, progress);
            }
            Origin::Adopted(adoption) => {
                progress(format!("authority {name}: adopting {}", adoption.key));
                return self.adopt(specification, adoption, token, actor);
            }
        };
        progress(format!("authority {name}: key on token {token}"));
        let parent = issuer.map(|it| Ok::<_, Error>(self.issuer.hierarchy().signing(it)?.id));
        let row = self.issuer.store.plan_generation(PlannedGeneration {
            authority: name.clone(),
            parent: parent.transpose()?,
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
            subject: new.subject.clone(),
            path_length: new.path_length,
            validity: new.validity,
        };
        self.issuer.make_certificate(&shape, &row, &key, actor)?;
        let hierarchy = self.issuer.hierarchy();
        let made = hierarchy.serving(name).ok_or_else(|| {
            Error::stop(
                Code::CeremonyFailed,
                format!("authority {name} does not serve after all"),
            )
        })?;
        Ok(TranscriptEntry::new(made, "created", &key))
    }

    /// The key is made here, and its certificate asked for.
    fn ask_elsewhere(
        &self,
        name: &str,
        new: &ExternalAuthority,
        token: &str,
        actor: &str,
        progress: &dyn Fn(String),
    ) -> Result<TranscriptEntry, Error> {
        progress(format!("authority {name}: key on token {token}"));
        let row = self.issuer.store.plan_generation(PlannedGeneration {
            authority: name.to_owned(),
            parent: None,
            token: token.to_owned(),
            key_type: new.key_type,
            key_id: new_key_id()?,
        })?;
        if row.request.is_none()
            && (row.parent.is_some() || self.issuer.store.has_signed(row.id)?)
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

impl Ceremony {
    /// Reads a ceremony file within its limits.
    pub fn parse(file: &str) -> Result<Self, Error> {
        if file.len() > FILE_BYTES_MAX {
            let message = format!("a ceremony file has at most {FILE_BYTES_MAX} bytes");
            return Err(Error::mend(Code::CeremonyInvalid, message));
        }
        let ceremony: Self = toml::from_str(file)
            .map_err(|error| Error::mend(Code::CeremonyInvalid, where_and_why(file, &error)))?;
        if ceremony.authority.len() > AUTHORITIES_MAX {
            let message = format!("a ceremony makes at most {AUTHORITIES_MAX} authorities");
            return Err(Error::mend(Code::CeremonyInvalid, message));
        }
        Ok(ceremony)
    }
}

impl AuthoritySpecification {
    /// An authority that exists must be the one the file describes.
    fn agrees_with(&self, existing: &Generation, issuer: Option<&str>) -> Result<(), Error> {
        let differs = match &self.origin {
            Origin::New(new) => new.differs_from(existing),
            Origin::Adopted(adoption) => adoption.differs_from(existing),
            Origin::External(external) => external.differs_from(existing),
        };
        let differs = match differs {
            _ if issuer != self.issuer.as_deref() => "another issuer",
            Some(differs) => differs,
            None => return Ok(()),
        };
        let message = format!(
            "authority {} exists with {differs} than the file says; a ceremony never replaces one, \
             choose another name or roll it",
            self.name
        );
        Err(Error::conflict(Code::AuthorityExists, message))
    }
}

impl ExternalAuthority {
    /// Its issuer may have written the name in other string types.
    fn differs_from(&self, existing: &Generation) -> Option<&'static str> {
        if existing.is_root() || existing.parent.is_some() {
            Some("another issuer")
        } else if existing.certificate.subject() != self.subject.to_string() {
            Some("another subject")
        } else if existing.public_key.key_type() != self.key_type {
            Some("another key type")
        } else {
            None
        }
    }
}

impl NewAuthority {
    fn differs_from(&self, existing: &Generation) -> Option<&'static str> {
        if existing.certificate.subject_der() != self.subject.to_der() {
            Some("another subject")
        } else if existing.public_key.key_type() != self.key_type {
            Some("another key type")
        } else if existing.certificate.path_length() != self.path_length {
            Some("another path length")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = include_str!("../../../softhsm-setup/ceremony.toml");

    #[test]
    fn the_ceremony_that_ships_is_one() {
        let ceremony = Ceremony::parse(EXAMPLE).unwrap();
        let names: Vec<_> = ceremony
            .authority
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(names, ["root", "plant", "line-1", "operations"]);
        let Origin::New(root) = &ceremony.authority[0].origin else {
            panic!("it is made");
        };
        assert_eq!(root.path_length, Some(2));
    }

    #[test]
    fn an_authority_is_made_or_adopted_and_never_half_of_each() {
        let parse = |text: &str| {
            Ceremony::parse(&format!(
                "name = \"n\"\n[[authority]]\nname = \"root\"\n{text}"
            ))
        };
        let adopted = "key = \"pkcs11:object=a\"\ncertificate = \"/a.pem\"\n";
        assert!(matches!(
            parse(adopted).unwrap().authority[0].origin,
            Origin::Adopted(_)
        ));
        for (text, reason) in [
            ("key = \"pkcs11:object=a\"", "both"),
            ("certificate = \"/a.pem\"", "both"),
            ("validity = \"1y\"", "no `subject`"),
            (&format!("{adopted}validity = \"1y\""), "which says"),
            (&format!("{adopted}accept = \"\""), "characters"),
            (&adopted.replace("object=a", "object=a?pin-value=1"), "PIN"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_external_issuer_decides_what_is_its_business() {
        let external = "external_issuer = true\nsubject = { common_name = \"Gateway\" }\n";
        let parse = |text: &str| {
            Ceremony::parse(&format!(
                "name = \"n\"\n[[authority]]\nname = \"gateway\"\n{external}{text}"
            ))
        };
        let ceremony = parse("path_length = 1").unwrap();
        assert!(matches!(ceremony.authority[0].origin, Origin::External(_)));
        for text in [
            "validity = \"1y\"",
            "issuer = \"root\"",
            "key = \"pkcs11:object=a\"",
            "certificate = \"/a.pem\"",
            "crl_number = 7",
        ] {
            assert_eq!(
                parse(text).unwrap_err().code,
                Code::CeremonyInvalid,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_place() {
        for (from, to) in [
            ("path_length", "path_len"),
            ("\"p384\"", "\"p999\""),
            ("country = \"DE\"", "country = \"Germany\""),
            ("validity = \"20y\"", "validity = \"-1d\""),
        ] {
            let error = Ceremony::parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.code, Code::CeremonyInvalid, "{from} → {to}: {error}");
        }
        let long = format!("{EXAMPLE}#{}", "x".repeat(FILE_BYTES_MAX));
        assert!(
            Ceremony::parse(&long)
                .unwrap_err()
                .message
                .contains("at most")
        );
    }

    proptest! {
        #[test]
        fn whatever_the_file_holds_it_is_refused_and_not_a_panic(
            at in 0..EXAMPLE.len(), noise in "\\PC{0,12}",
        ) {
            if let (Some(before), Some(after)) = (EXAMPLE.get(..at), EXAMPLE.get(at..)) {
                let _ = Ceremony::parse(&format!("{before}{noise}{after}"));
            }
        }
    }
}
