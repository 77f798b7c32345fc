//! A generation of an authority: its key and its certificate, made by a ceremony or by a roll.
//!
//! A generation is recorded, with the id of its key, before the key exists. So an interrupted
//! ceremony finds exactly that key again, and makes no second one. This module must never certify a
//! key that could leave its token.

use super::Issuer;
use super::pace::Source;
use crate::ca::authorize::Caller;
use crate::ca::hierarchy::Generation;
use crate::ca::signing_request::{LeafHolder, Signer, SigningRequest};
use crate::ca::{Code, Error, crash_point};
use crate::store::{GenerationRow, OnIssued, Purpose};
use crate::token::client::{GENERATE_DEADLINE, LOOKUP_DEADLINE, TokenClient};
use crate::token::{KeyDescription, KeyReference, KeySpecification, TokenError};
use crate::x509::certificate::Certificate;
use crate::x509::crl_partition::CrlPartitions;
use crate::x509::issuer;
use crate::x509::key::PublicKey;
use crate::x509::name::Subject;
use crate::x509::name_constraints::KeptConstraints;
use crate::x509::profile::{CertificatePolicy, PolicyLimits, Profile, VALIDITY_SECONDS_MAX};
use crate::x509::serial::{RANDOM_OCTETS, SerialNumber};

/// The contents of a generation's certificate.
pub(in crate::ca) struct Shape {
    pub subject: Subject,
    pub path_length: Option<u8>,
    pub name_constraints: Option<KeptConstraints>,
    pub policies: Vec<CertificatePolicy>,
    pub policy_limits: PolicyLimits,
    pub validity: u64,
}

impl Shape {
    /// The contents of the previous generation's certificate: the same name, octet by octet, path
    /// length, name constraints and validity, but no longer than one that is made here.
    pub(in crate::ca) fn like(predecessor: &Generation) -> Result<Self, Error> {
        let certificate = &predecessor.certificate;
        let validity = certificate.not_after() - predecessor.certified_at;
        let validity = u64::try_from(validity).unwrap_or_default();
        Self::of(certificate, validity.min(VALIDITY_SECONDS_MAX))
            .map_err(|reason| Error::stop(Code::HierarchyUnreadable, reason))
    }

    /// The name, the path length, the name constraints and the policies of a certificate.
    pub(in crate::ca) fn of(certificate: &Certificate, validity: u64) -> Result<Self, String> {
        let subject = Subject::of_predecessor(certificate.subject_der());
        Ok(Self {
            subject: subject.map_err(|error| error.to_string())?,
            path_length: certificate.path_length(),
            name_constraints: certificate.kept_constraints(),
            policies: certificate.policies(),
            policy_limits: certificate.policy_limits().unwrap_or_default(),
            validity,
        })
    }

    fn profile(&self) -> Profile {
        Profile {
            certificate_policies: self.policies.clone(),
            policy_limits: self.policy_limits,
            ..Profile::authority(self.path_length, self.validity)
        }
    }

    fn holder(&self) -> LeafHolder<'_> {
        LeafHolder {
            name_constraints: self.name_constraints.as_ref(),
            ..LeafHolder::none()
        }
    }
}

impl Issuer {
    /// The generation's key: made now, or found again by the id that an interrupted run recorded.
    /// It has just signed: only such a key goes on record, and is certified.
    pub(in crate::ca) fn make_key(&self, row: &GenerationRow) -> Result<KeyDescription, Error> {
        let key = match on_record(row) {
            Some(reference) => {
                let key = self.prove_key(&row.token, &reference)?;
                let tells_local = self.token(&row.token)?.traits.tells_local;
                check_key(&row.token, &key, tells_local)?;
                key
            }
            None => {
                let specification = KeySpecification {
                    key_type: row.key_type,
                    label: row.key_label.clone(),
                    id: row.key_id.clone(),
                };
                self.make_proven_key(&row.token, &specification)?
            }
        };
        crash_point("key-made");
        self.store
            .record_crl_partitions(row.id, self.crl_partitions(row))?;
        self.store
            .record_key(row.id, key.spki.clone(), key.wrapped.clone())?;
        Ok(key)
    }

    /// Returns the partitions of the revocation list that the configuration has for a generation to
    /// come.
    fn crl_partitions(&self, row: &GenerationRow) -> Option<CrlPartitions> {
        let count = *self.settings.crl_partitions.get(&row.authority)?;
        let base = self.settings.public_http.as_deref()?;
        let address = format!("{base}/crl/{}-{}", row.authority, row.number);
        Some(CrlPartitions { count, address })
    }

    /// A key whose plan is on record, made now, or found again by the id that an interrupted run
    /// recorded. It has just signed, and cannot leave the token.
    pub(in crate::ca) fn make_proven_key(
        &self,
        token: &str,
        specification: &KeySpecification,
    ) -> Result<KeyDescription, Error> {
        let configured = self.token(token)?;
        let key = find_or_generate(&configured.client, specification)?;
        configured.client.prove(&key, LOOKUP_DEADLINE)?;
        check_key(token, &key, configured.traits.tells_local)?;
        Ok(key)
    }

    /// Builds the certificate that would follow that of `old`, by `parent` or, for a root, by
    /// itself, and lints it. Nothing is recorded or signed.
    pub(in crate::ca) fn try_shape(
        &self,
        shape: &Shape,
        old: &Generation,
        parent: Option<&Generation>,
    ) -> Result<(), Error> {
        let signer = Signer::from(old);
        let root = issuer::IssuerFields::self_signed(&shape.subject, &old.public_key);
        let signer = match parent {
            Some(parent) => Signer::from(parent),
            None => Signer {
                issuer: &root,
                certificate: None,
                distribution: None,
                ..signer
            },
        };
        self.try_certificate(shape, &old.public_key, signer)
    }

    /// Builds and lints a certificate of this shape. Nothing is recorded or signed.
    pub(in crate::ca) fn try_certificate(
        &self,
        shape: &Shape,
        public_key: &PublicKey,
        signer: Signer<'_>,
    ) -> Result<(), Error> {
        let request = SigningRequest {
            source: Source::Caller,
            signer,
            purpose: Purpose::Authority,
            profile_name: "authority",
            profile: &shape.profile(),
            subject: shape.subject.clone(),
            public_key,
            caller: String::new(),
            holder: shape.holder(),
            on_issued: OnIssued::Alone,
        };
        let now = self.now();
        let serial = SerialNumber::from_random(now, [1; RANDOM_OCTETS]);
        request.build_and_lint(&serial, now).map(drop)
    }

    /// The generation's certificate, by its parent or, for a root, by itself. The first generation
    /// of an authority serves from then on, any other one is staged.
    pub(in crate::ca) fn make_certificate(
        &self,
        shape: &Shape,
        row: &GenerationRow,
        described: &KeyDescription,
        actor: &str,
    ) -> Result<(), Error> {
        let public_key = PublicKey::from_spki_der(&described.spki)
            .map_err(|error| Error::stop(Code::TokenKey, error.to_string()))?;
        let hierarchy = self.hierarchy();
        let (key, issuer);
        let signer = match row.parent {
            Some(parent) => {
                let parent = hierarchy.generation(parent).ok_or_else(|| {
                    Error::stop(Code::HierarchyBroken, "the issuer has no certificate")
                })?;
                Signer::from(parent.as_ref())
            }
            None => {
                key = described.reference();
                issuer = issuer::IssuerFields::self_signed(&shape.subject, &public_key);
                Signer {
                    generation: row.id,
                    authority: &row.authority,
                    token: &row.token,
                    key: &key,
                    issuer: &issuer,
                    certificate: None,
                    distribution: None,
                }
            }
        };
        let source = if actor == Caller::Daemon.to_string() {
            Source::Generation(row.id)
        } else {
            Source::Caller
        };
        pollster::block_on(self.certify(SigningRequest {
            source,
            signer,
            purpose: Purpose::Authority,
            profile_name: "authority",
            profile: &shape.profile(),
            subject: shape.subject.clone(),
            public_key: &public_key,
            caller: actor.to_owned(),
            holder: shape.holder(),
            on_issued: OnIssued::Authority { generation: row.id },
        }))?;
        self.reload_hierarchy()
    }
}

/// Where the generation's key is, once it is on record.
pub(in crate::ca) fn on_record(row: &GenerationRow) -> Option<KeyReference> {
    Some(KeyReference {
        spki: row.spki.clone()?,
        label: row.key_label.clone(),
        id: row.key_id.clone(),
        wrapped: row.key_wrapped.clone(),
    })
}

/// The finished key that an interrupted run left on the token without a record, or a new one. The
/// token removes what an interrupted generation has left of a key with this id before it makes the
/// new one; the plan has no key on record yet, which is part of the proof that such a half is ours.
fn find_or_generate(
    client: &TokenClient,
    specification: &KeySpecification,
) -> Result<KeyDescription, TokenError> {
    if let Some(key) = client.find_by_id(&specification.id, LOOKUP_DEADLINE)? {
        return Ok(key);
    }
    client.generate(specification, GENERATE_DEADLINE)
}

/// `CKA_ID` of a key that is to be made.
pub(in crate::ca) fn new_key_id() -> Result<Vec<u8>, Error> {
    let mut key_id = [0; 16];
    aws_lc_rs::rand::fill(&mut key_id)
        .map_err(|_| Error::stop(Code::RandomSource, "the system's random source failed"))?;
    Ok(key_id.to_vec())
}

/// The token's contract promises that a CA key was born on the token and never leaves it. Some
/// families do not report the origin: then the transcript says that it is unknown.
fn check_key(token: &str, key: &KeyDescription, tells_local: bool) -> Result<(), Error> {
    let stays = key.sensitive && !key.extractable && key.never_extractable;
    if stays && (key.local || !tells_local) {
        return Ok(());
    }
    let message = format!(
        "token {token} made key {:?} with sensitive={} extractable={} never_extractable={} \
         local={}; a CA key must be sensitive, never extractable and local, so the ceremony \
         stops here",
        key.label, key.sensitive, key.extractable, key.never_extractable, key.local
    );
    Err(Error::stop(Code::TokenKeyAttributes, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der_bytes::Der;

    #[test]
    fn a_key_of_unknown_birth_passes_only_where_the_family_does_not_tell() {
        let key = |local, never_extractable| KeyDescription {
            spki: Der::default(),
            label: String::new(),
            id: Vec::new(),
            sensitive: true,
            extractable: false,
            never_extractable,
            local,
            wrapped: None,
        };
        for tells_local in [true, false] {
            assert!(check_key("factory", &key(true, true), tells_local).is_ok());
            assert!(check_key("factory", &key(true, false), tells_local).is_err());
        }
        assert!(check_key("factory", &key(false, true), true).is_err());
        assert!(check_key("factory", &key(false, true), false).is_ok());
    }
}
