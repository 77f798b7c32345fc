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
        certificate: Option<CertificateDer<'static>>,
    },
}

impl Api {
    /// Who it is, for a handler that asks nothing else of the application before it knows.
    pub(super) async fn caller(&self, peer: &Peer) -> Result<Caller, Problem> {
        let peer = peer.clone();
        self.application(move |ca| peer.identify(ca)).await
    }
}

impl Peer {
    /// Step 1 of the issuance cycle, first half: who it is. Asked anew for every request, because
    /// a certificate may expire or be revoked while its connection stays.
    pub(super) fn identify(&self, ca: &CertificateAuthority) -> Result<Caller, Error> {
        match self {
            Peer::Local { uid } => Ok(Caller::Local { uid: *uid }),
            Peer::Network { certificate: None } => Err(unauthenticated(
                "client_certificate_required",
                "present the client certificate that this daemon issued to you",
            )),
            Peer::Network {
                certificate: Some(leaf),
            } => identify(ca, leaf),
        }
    }
}

fn identify(ca: &CertificateAuthority, leaf: &CertificateDer<'_>) -> Result<Caller, Error> {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
    let Some(certificate) = ca.store().certificate_by_sha256(&sha256)? else {
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
    if certificate.revoked_at.is_some() {
        return Err(unauthenticated(
            "client_certificate_revoked",
            "the client certificate is revoked; ask the operator for a new one",
        ));
    }
    if let Some(generation) = ca.blocked_generation_above(certificate.issuer)? {
        let message = format!(
            "the client certificate was issued below {generation}, which is blocked; ask the \
             operator"
        );
        return Err(unauthenticated("client_certificate_revoked", message));
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
