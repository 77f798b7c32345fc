//! Who is at the other end: the kernel's word on the admin socket, a certificate of ours over TLS.
//!
//! A client certificate is not judged by its chain: it must be one that this daemon has on record
//! as issued, not expired, not revoked, and its profile's role says who its holder is. TLS has
//! proven that the holder has the key. So a stolen intermediate of somebody else's lets nobody in,
//! and every refusal is an HTTP answer that says why.

use super::Api;
use super::problem::Problem;
use crate::ca::authorize::Caller;
use crate::ca::{Advice, CertificateAuthority, Error, rfc3339};
use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use std::sync::{Arc, Mutex, PoisonError};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A local user of the admin socket.
    Local {
        /// Effective user id.
        uid: u32,
    },
    /// A TLS client, with the certificate whose key it has proven to hold, if any.
    Network {
        /// The leaf.
        certificate: Option<ClientCertificate>,
    },
}

/// A client's certificate, and what the store said of it.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    sha256: [u8; 32],
    found: Arc<Mutex<Option<Found>>>,
}

/// What is on record of a client certificate. It never changes, but for a revocation.
#[derive(Clone, Debug)]
struct Found {
    /// How many revocations there had been: one more, and the store is asked again.
    revocations: u64,
    not_before: i64,
    not_after: i64,
    revoked: bool,
    issuer: i64,
    profile: String,
    subject: String,
}

impl ClientCertificate {
    /// The certificate that a TLS client presented.
    pub(super) fn new(leaf: &CertificateDer<'_>) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
        Self {
            sha256,
            found: Arc::default(),
        }
    }

    /// SHA-256 of its DER.
    pub(super) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// What was found before, if it still holds.
    fn remembered(&self, ca: &CertificateAuthority) -> Option<Found> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let revocations = ca.store().revocations();
        found.clone().filter(|it| it.revocations == revocations)
    }

    /// Asks the store.
    fn find(&self, ca: &CertificateAuthority) -> Result<Option<Found>, Error> {
        let revocations = ca.store().revocations();
        let row = ca.store().certificate_by_sha256(&self.sha256)?;
        let found = row.map(|row| Found {
            revocations,
            not_before: row.not_before,
            not_after: row.not_after,
            revoked: row.revoked_at.is_some(),
            issuer: row.issuer,
            profile: row.profile,
            subject: row.subject,
        });
        let mut remembered = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.clone_from(&found);
        Ok(found)
    }
}

impl Api {
    /// Step 1 of the issuance cycle, first half: who it is. Judged anew for every request, because
    /// a certificate may expire or be revoked while its connection stays.
    pub(super) async fn caller(&self, peer: &Peer) -> Result<Caller, Problem> {
        let certificate = match peer {
            Peer::Local { uid } => return Ok(Caller::Local { uid: *uid }),
            Peer::Network { certificate: None } => {
                let message = "present the client certificate that this daemon issued to you";
                return Err(unauthenticated("client_certificate_required", message).into());
            }
            Peer::Network {
                certificate: Some(certificate),
            } => certificate,
        };
        let found = match certificate.remembered(&self.ca) {
            Some(found) => Some(found),
            None => {
                let certificate = certificate.clone();
                self.application(move |ca| certificate.find(ca)).await?
            }
        };
        if let Some(found) = &found {
            self.refuse_blocked_issuer(found.issuer).await?;
        }
        Ok(identify(&self.ca, found)?)
    }

    /// Whoever holds a leaf below a blocked generation must not renew itself out of the block.
    async fn refuse_blocked_issuer(&self, issuer: i64) -> Result<(), Problem> {
        if self.ca.hierarchy().revoked_above(issuer).is_none() {
            return Ok(());
        }
        let blocked = self.application(move |ca| ca.blocked_generation_above(issuer));
        match blocked.await? {
            None => Ok(()),
            Some(generation) => {
                let message = format!(
                    "the client certificate was issued below {generation}, which is blocked; ask \
                     the operator"
                );
                Err(unauthenticated("client_certificate_revoked", message).into())
            }
        }
    }
}

fn identify(ca: &CertificateAuthority, found: Option<Found>) -> Result<Caller, Error> {
    let Some(certificate) = found else {
        return Err(unauthenticated(
            "client_certificate_unknown",
            "this daemon did not issue the client certificate; ask its operator for one",
        ));
    };
    let now = ca.now();
    if now > certificate.not_after || now < certificate.not_before {
        let message = format!(
            "the client certificate is valid from {} to {}; renew it, or mend the clock",
            rfc3339(certificate.not_before),
            rfc3339(certificate.not_after)
        );
        return Err(unauthenticated("client_certificate_expired", message));
    }
    if certificate.revoked {
        return Err(unauthenticated(
            "client_certificate_revoked",
            "the client certificate is revoked; ask the operator for a new one",
        ));
    }
    let profile = ca.profiles().get(&certificate.profile).ok_or_else(|| {
        let message = format!(
            "the client certificate was issued by profile {:?}, which is no longer configured",
            certificate.profile
        );
        unauthenticated("client_certificate_unknown", message)
    })?;
    Ok(Caller::Certificate {
        role: profile.role,
        name: certificate.subject,
    })
}

fn unauthenticated(code: &'static str, message: impl Into<String>) -> Error {
    Error::new(Advice::Authenticate, code, message)
}
