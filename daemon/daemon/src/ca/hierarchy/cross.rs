//! The cross-certificates of roots: one generation's key, certified by another generation.

use super::{ChainLink, Generation, Hierarchy, broken};
use crate::ca::{Code, Error};
use crate::ids::GenerationId;
use crate::store::CrossRow;
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The certificate of one generation of a root by another one.
#[derive(Debug)]
pub struct CrossCertificate {
    /// The name under which it is published: `root-2-by-root-1`.
    pub name: String,
    pub issuer: Arc<Generation>,
    pub subject: Arc<Generation>,
    pub link: Arc<ChainLink>,
    pub revoked_at: Option<UnixSeconds>,
}

impl CrossCertificate {
    /// Returns true if it leads from a root that is good to another one that is good.
    pub fn is_good(&self, now: UnixSeconds) -> bool {
        self.revoked_at.is_none()
            && self.link.certificate.not_after() >= now
            && [&self.issuer, &self.subject]
                .iter()
                .all(|it| it.is_good_root(now))
    }
}

/// The name under which the certificate of `subject` by `issuer` is published.
pub(in crate::ca) fn name(issuer: &Generation, subject: &Generation) -> String {
    format!("{}-by-{}", subject.name(), issuer.name())
}

impl Generation {
    /// Returns true if it is a root, and neither revoked nor ended.
    fn is_good_root(&self, now: UnixSeconds) -> bool {
        self.is_root() && self.revoked_at.is_none() && self.certificate.not_after() > now
    }
}

impl Hierarchy {
    /// Adds the cross-certificates on record, and verifies each; `in_use` are the generations that
    /// have signed for others.
    pub(in crate::ca) fn with_cross_certificates(
        mut self,
        rows: Vec<CrossRow>,
        in_use: BTreeSet<GenerationId>,
    ) -> Result<Self, Error> {
        self.in_use = in_use;
        for row in rows {
            let ends = [row.certificate.issuer, row.subject].map(|id| self.generations.get(&id));
            let [Some(issuer), Some(subject)] = ends else {
                let message = "a cross-certificate names a generation that has no certificate";
                return Err(Error::stop(Code::HierarchyBroken, message));
            };
            let certificate = Certificate::parse(&row.certificate.der)
                .map_err(|error| Error::stop(Code::HierarchyUnreadable, error.to_string()))?;
            certificate
                .verify_issued_by_key_of(issuer.public_key.spki_der())
                .map_err(|_| broken(subject, "its cross-certificate has another issuer"))?;
            if certificate.spki_der() != subject.public_key.spki_der() {
                return Err(broken(subject, "its cross-certificate carries another key"));
            }
            self.cross.push(CrossCertificate {
                name: name(issuer, subject),
                issuer: Arc::clone(issuer),
                subject: Arc::clone(subject),
                link: ChainLink::new(certificate)?,
                revoked_at: row.certificate.revoked_at,
            });
        }
        Ok(self)
    }

    /// All cross-certificates, good or not, in the order in which they were issued.
    pub fn cross_certificates(&self) -> &[CrossCertificate] {
        &self.cross
    }

    /// Returns true if the generation has signed for others.
    pub fn is_in_use(&self, generation: &Generation) -> bool {
        self.in_use.contains(&generation.id)
    }

    /// The cross-certificates that relying parties may use.
    pub fn good_cross_certificates(
        &self,
        now: UnixSeconds,
    ) -> impl Iterator<Item = &CrossCertificate> {
        self.cross.iter().filter(move |it| it.is_good(now))
    }

    /// The generation with which the serving root `new` certifies each other: the newest one before
    /// it that is good and in use. A compromised one is not, so nothing leads to it.
    pub fn predecessor_of_root(
        &self,
        new: &Generation,
        now: UnixSeconds,
    ) -> Option<&Arc<Generation>> {
        if !new.serving || !new.is_good_root(now) {
            return None;
        }
        self.iter()
            .filter(|it| it.authority == new.authority && it.number < new.number)
            .filter(|it| it.is_good_root(now) && self.is_in_use(it))
            .max_by_key(|it| it.number)
    }
}
