//! Has two generations of a root certify each other at its rollover (RFC 4210, section 4.4).
//!
//! A relying party that trusts one of them alone then finds a path to what is below the other one.
//! Both certificates go through steps 6 to 10 of the issuance cycle once the new generation serves.
//! Nothing needs them to go on, so a token that is away is waited for, and nothing else is held up.

use super::Issuer;
use super::issue::Issued;
use super::pace::Source;
use crate::ca::authorize::Caller;
use crate::ca::hierarchy::{CrossCertificate, Generation, cross_name};
use crate::ca::signing_request::{LeafHolder, Signer, SigningRequest};
use crate::ca::{Code, Error, crash_point, lock};
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::{OnIssued, Purpose};
use crate::unix_seconds::UnixSeconds;
use crate::x509::name::Subject;
use crate::x509::profile::{
    BACKDATE_SECONDS_DEFAULT, CertificatePolicy, End, Profile, VALIDITY_SECONDS_MAX,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long after a failure it is tried again without a wake-up, in seconds.
const RETRY_SECONDS: i64 = 30;

/// The name in place of a profile's in intents and lists.
pub(in crate::ca) const PROFILE: &str = "cross-certificate";

/// Why cross-certificates are not signed yet, by issuer and subject.
pub(super) type CrossFailures = BTreeMap<(GenerationId, GenerationId), String>;

/// A cross-certificate that is to be made.
struct Missing {
    issuer: Arc<Generation>,
    subject: Arc<Generation>,
}

/// A certificate of a generation's key by another generation, or why there is none yet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CrossStatus {
    /// The name of its file below `/ca/`.
    pub name: String,
    /// The generation that certifies.
    pub by: GenerationNumber,
    /// `good`, `revoked`, `ended`, `excluded` (one of both roots is revoked or has ended) or
    /// `waits`.
    pub state: &'static str,
    /// The reason why it waits.
    pub reason: Option<String>,
    pub serial: Option<String>,
    pub thumbprint: Option<String>,
    pub not_after: Option<String>,
    pub revoked_at: Option<String>,
    /// The certificate as PEM.
    pub certificate: Option<String>,
}

impl Issuer {
    /// Makes the cross-certificates that are missing. Returns when to try again.
    pub fn cross_certify(&self) -> Result<Option<UnixSeconds>, Error> {
        if self.missing_cross_certificates().is_empty() {
            lock(&self.shared.cross_failures).clear();
            return Ok(None);
        }
        // The last turn may have failed after it had one recorded.
        self.reload_hierarchy()?;
        let mut is_waiting = false;
        for missing in self.missing_cross_certificates() {
            is_waiting |= !self.try_cross_certificate(&missing)?;
        }
        Ok(is_waiting.then(|| self.now() + RETRY_SECONDS))
    }

    /// Returns the certificates of this generation's key by other generations, and those to come.
    pub fn cross_certificates_of(&self, generation: &Generation) -> Vec<CrossStatus> {
        let now = self.now();
        let hierarchy = self.hierarchy();
        let known = hierarchy
            .cross_certificates()
            .iter()
            .filter(|it| it.subject.id == generation.id)
            .map(|it| CrossStatus::of(it, now));
        let missing = self
            .missing_cross_certificates()
            .into_iter()
            .filter(|it| it.subject.id == generation.id);
        let waits = missing.map(|it| {
            let failures = lock(&self.shared.cross_failures);
            let failure = failures.get(&it.pair()).cloned();
            CrossStatus::waits(&it, failure)
        });
        known.chain(waits).collect()
    }

    /// Returns the certificate followed by its chain, as the daemon's own listener presents it. In
    /// place of a root that has followed another one it has the root's certificate by that one, so
    /// clients that trust either find a path; a root may be left out (RFC 8446 4.4.2).
    pub fn presented_pem(&self, issued: &Issued) -> String {
        let hierarchy = self.hierarchy();
        let root = issued.chain.last().map(|it| it.certificate.sha256());
        let cross = hierarchy
            .good_cross_certificates(self.now())
            .filter(|it| it.issuer.number < it.subject.number)
            .find(|it| Some(it.subject.certificate.sha256()) == root);
        let Some(cross) = cross else {
            return issued.to_pem();
        };
        let below = &issued.chain[..issued.chain.len() - 1];
        let chain: String = below.iter().map(|it| it.pem.as_str()).collect();
        issued.certificate.to_pem() + &chain + &cross.link.pem
    }

    /// Says why the serving generation of a root that was rolled has no cross-certificates, if it
    /// can have none.
    pub fn no_cross_certificates(&self, generation: &Generation) -> Option<String> {
        let hierarchy = self.hierarchy();
        let name = &generation.authority;
        let before = hierarchy
            .iter()
            .filter(|it| it.authority == *name && it.number < generation.number)
            .filter(|it| hierarchy.is_in_use(it))
            .max_by_key(|it| it.number)?;
        let now = self.now();
        let is_on_top = generation.serving && generation.parent.is_none();
        if !is_on_top || hierarchy.predecessor_of_root(generation, now).is_some() {
            return None;
        }
        let number = before.number;
        Some(if !generation.is_root() {
            format!(
                "{name} is certified elsewhere; relying parties that trust that root accept both"
            )
        } else if generation.revoked_at.is_some() {
            "this generation is revoked, so it certifies no other one".into()
        } else if before.revoked_at.is_some() {
            format!("generation {number} is revoked, so nothing leads from or to it")
        } else {
            let end = before.certificate.not_after();
            format!("generation {number} ended at {end}")
        })
    }

    fn missing_cross_certificates(&self) -> Vec<Missing> {
        let hierarchy = self.hierarchy();
        let now = self.now();
        let mut missing = Vec::new();
        for new in hierarchy.iter() {
            let Some(old) = hierarchy.predecessor_of_root(new, now) else {
                continue;
            };
            // The new one first: relying parties that know the old root alone need it at once.
            for (issuer, subject) in [(old, new), (new, old)] {
                let is_known = hierarchy
                    .cross_certificates()
                    .iter()
                    .any(|it| (it.issuer.id, it.subject.id) == (issuer.id, subject.id));
                if !is_known {
                    missing.push(Missing {
                        issuer: Arc::clone(issuer),
                        subject: Arc::clone(subject),
                    });
                }
            }
        }
        missing
    }

    /// Returns whether it was made. A failure is noted, and the rest of the daemon's work goes on;
    /// each turn tries again, which costs a signature only if the key is ready to sign.
    fn try_cross_certificate(&self, missing: &Missing) -> Result<bool, Error> {
        let Err(error) = self.make_cross_certificate(missing) else {
            lock(&self.shared.cross_failures).remove(&missing.pair());
            self.reload_hierarchy()?;
            return Ok(true);
        };
        let mut failures = lock(&self.shared.cross_failures);
        let noted = failures.entry(missing.pair()).or_default();
        // The failure that the pause follows says more.
        if error.code != Code::SigningPaused && *noted != error.message {
            tracing::warn!(
                name = missing.name(),
                code = error.code.name(),
                %error,
                "cross-certificate not signed, retrying"
            );
            *noted = error.message;
        }
        Ok(false)
    }

    fn make_cross_certificate(&self, missing: &Missing) -> Result<(), Error> {
        let Missing { issuer, subject } = missing;
        crash_point(&format!("cross-due-{}", missing.name()));
        let name = Subject::of_predecessor(subject.certificate.subject_der())
            .map_err(|error| Error::stop(Code::HierarchyUnreadable, error.to_string()))?;
        let fields = issuer.issuer.clone().cross_certifying(&subject.issuer);
        let name_constraints = subject.certificate.kept_constraints();
        pollster::block_on(self.certify(SigningRequest {
            source: Source::Cross(subject.id),
            signer: Signer {
                issuer: &fields,
                ..Signer::from(issuer.as_ref())
            },
            purpose: Purpose::Cross,
            profile_name: PROFILE,
            profile: &shape(issuer, subject, self.now()),
            subject: name,
            public_key: &subject.public_key,
            caller: Caller::Daemon.to_string(),
            holder: LeafHolder {
                name_constraints: name_constraints.as_ref(),
                certified: Some(subject.as_ref()),
                ..LeafHolder::none()
            },
            on_issued: OnIssued::Cross {
                generation: subject.id,
            },
        }))?;
        crash_point(&format!("cross-made-{}", missing.name()));
        Ok(())
    }
}

impl Missing {
    fn pair(&self) -> (GenerationId, GenerationId) {
        (self.issuer.id, self.subject.id)
    }

    fn name(&self) -> String {
        cross_name(&self.issuer, &self.subject)
    }
}

impl CrossStatus {
    fn of(cross: &CrossCertificate, now: UnixSeconds) -> Self {
        let certificate = &cross.link.certificate;
        Self {
            name: cross.name.clone(),
            by: cross.issuer.number,
            state: if cross.is_good(now) {
                "good"
            } else if cross.revoked_at.is_some() {
                "revoked"
            } else if certificate.not_after() < now {
                "ended"
            } else {
                "excluded"
            },
            reason: None,
            serial: Some(certificate.serial().to_string()),
            thumbprint: Some(hex::encode_upper(certificate.sha256())),
            not_after: Some(certificate.not_after().to_string()),
            revoked_at: cross.revoked_at.map(|it| it.to_string()),
            certificate: Some(cross.link.pem.clone()),
        }
    }

    fn waits(missing: &Missing, failure: Option<String>) -> Self {
        Self {
            name: missing.name(),
            by: missing.issuer.number,
            state: "waits",
            reason: Some(failure.unwrap_or("it is signed next".into())),
            serial: None,
            thumbprint: None,
            not_after: None,
            revoked_at: None,
            certificate: None,
        }
    }
}

/// The contents of the subject's own certificate, within the validity of both.
fn shape(issuer: &Generation, subject: &Generation, now: UnixSeconds) -> Profile {
    let certificate = &subject.certificate;
    let by = &issuer.certificate;
    let path_length = match (by.path_length(), certificate.path_length()) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let mut certificate_policies = certificate.policies();
    // Verifiers do not read the policies of a root that they trust (RFC 5280 6.1.1 (d)), and below
    // a certificate without policies none is valid (6.1.3 (e)).
    if certificate_policies.is_empty() {
        certificate_policies.push(CertificatePolicy::any());
    }
    let age = u64::try_from(now - certificate.not_before()).unwrap_or(0);
    Profile {
        certificate_policies,
        policy_limits: certificate.policy_limits().unwrap_or_default(),
        end: End::At(certificate.not_after().min(by.not_after())),
        backdate_seconds: BACKDATE_SECONDS_DEFAULT.min(age),
        ..Profile::authority(path_length, VALIDITY_SECONDS_MAX)
    }
}
