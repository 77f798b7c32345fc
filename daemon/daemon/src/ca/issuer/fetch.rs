//! Finds issued certificates again, with their chains, for callers that may fetch them.

use super::Issuer;
use crate::ca::Error;
use crate::ca::authorize::{Authorized, Fetch};
use crate::ca::exclusion::certificate_name::CertificateName;
use crate::ca::hierarchy::ChainLink;
use crate::ids::GenerationNumber;
use crate::store::CertificateRow;
use crate::x509::certificate::Certificate;
use std::sync::Arc;

/// An issued certificate, with the chain that its holder presents.
#[derive(Debug)]
pub struct Fetched {
    pub certificate: CertificateRow,
    /// The authority and the generation that issued it; `None` if another organisation did.
    pub issuer: Option<(String, GenerationNumber)>,
    pub chain: Vec<Arc<ChainLink>>,
}

impl Issuer {
    /// Returns the certificate of this name.
    pub fn fetch(
        &self,
        permission: &Authorized<Fetch>,
        name: &CertificateName,
    ) -> Result<Fetched, Error> {
        let row = match name.find(&self.store) {
            Ok(row) if permission.covers(&row.subject, row.role) => row,
            Ok(_) => return Err(permission.refusal()),
            // Other callers learn nothing of certificates that are not theirs.
            Err(error) if permission.covers("", None) => return Err(error),
            Err(_) => return Err(permission.refusal()),
        };
        Ok(self.fetched(row))
    }

    fn fetched(&self, certificate: CertificateRow) -> Fetched {
        let issuer = certificate.issuer;
        let mut chain = self.chain_of(issuer);
        // A root is its own issuer.
        chain.retain(|link| link.certificate.sha256() != certificate.sha256);
        let hierarchy = self.hierarchy();
        let issuer = hierarchy.generation(issuer);
        // A certificate from elsewhere is on record below the generation that it certifies.
        let issuer = issuer.filter(|it| {
            let certificate = Certificate::parse(&certificate.der);
            certificate.is_ok_and(|its| its.verify_issued_by(&it.public_key).is_ok())
        });
        Fetched {
            issuer: issuer.map(|it| (it.authority.clone(), it.number)),
            certificate,
            chain,
        }
    }
}
