//! Identifies callers: by peer credentials on the admin socket, by client certificate over TLS.
//!
//! A client certificate is not verified by its chain: `ca::issuer::client` looks up its record,
//! with its role, and checks that the generation on record signed it. TLS has proven that the
//! client has the key. So a stolen intermediate of another authority is useless, and every refusal
//! is an HTTP answer with a reason.

use super::Api;
use super::problem::Problem;
use crate::ca::authorize::Caller;
use crate::ca::issuer::client::KnownClient;
use crate::ca::{Advice, CertificateAuthority, Code, Error, Issuer};
use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Returns true if a user may use the admin socket. It is called for each request, because a reload
/// may remove the user from `admin_users` while its connection is open.
#[derive(Clone)]
pub struct Admission(Arc<dyn Fn() -> bool + Send + Sync>);

impl Admission {
    /// The admission that `admitted` decides.
    pub fn new(admitted: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(admitted))
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if (self.0)() {
            "admitted"
        } else {
            "not admitted"
        })
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A local user of the admin socket.
    Local {
        uid: u32,
        /// Whether the configuration admits the user at this moment.
        admission: Admission,
    },
    /// A local user who may not use the admin socket.
    NotAdmitted { uid: u32 },
    /// A TLS client, with the certificate whose key it has proven to hold, if any.
    Network {
        certificate: Option<ClientCertificate>,
    },
}

impl Peer {
    /// A local user's name in the journal.
    pub(super) fn user(&self) -> Option<String> {
        match self {
            Peer::Local { uid, .. } | Peer::NotAdmitted { uid } => {
                Some(Caller::Local { uid: *uid }.to_string())
            }
            Peer::Network { .. } => None,
        }
    }

    /// The holder of a client certificate of ours, whether or not it is accepted.
    pub(super) fn holder(&self) -> Option<String> {
        let Peer::Network { certificate } = self else {
            return None;
        };
        let found = &certificate.as_ref()?.found;
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().map(KnownClient::holder)
    }

    /// SHA-256 of the client certificate, if there is one.
    pub(super) fn presented(&self) -> Option<[u8; 32]> {
        match self {
            Peer::Network { certificate } => certificate.as_ref().map(ClientCertificate::sha256),
            Peer::Local { .. } | Peer::NotAdmitted { .. } => None,
        }
    }
}

/// A client's certificate and its record. It is verified once for each connection, and again after
/// a revocation.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    der: Arc<[u8]>,
    /// The certificates that the client sent above its own; empty if no manufacturer is configured.
    above: Arc<[CertificateDer<'static>]>,
    found: Arc<Mutex<Option<KnownClient>>>,
}

impl ClientCertificate {
    /// The certificate that a TLS client presented, and those above it if they may be needed.
    pub(super) fn new(chain: &[CertificateDer<'_>], keeps_chain: bool) -> Option<Self> {
        let (leaf, above) = chain.split_first()?;
        let above = if keeps_chain { above } else { &[] };
        Some(Self {
            der: leaf.as_ref().into(),
            above: above.iter().map(|it| it.clone().into_owned()).collect(),
            found: Arc::default(),
        })
    }

    /// Names the device whose manufacturer gave it this certificate.
    pub(super) fn find_birth(&self, ca: &CertificateAuthority) -> Result<Option<Caller>, Error> {
        let leaf = CertificateDer::from(&*self.der);
        ca.issuer().identify_by_birth(&leaf, &self.above)
    }

    /// SHA-256 of its DER.
    fn sha256(&self) -> [u8; 32] {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &self.der).as_ref());
        sha256
    }

    /// Returns the record that was found before, if it is still current.
    fn remembered(&self, ca: &CertificateAuthority) -> Option<KnownClient> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.clone().filter(|it| it.is_current(ca.issuer()))
    }

    /// Looks the certificate up in the store.
    fn find(&self, ca: &CertificateAuthority) -> Result<Option<KnownClient>, Error> {
        let found = ca.issuer().find_client(&self.der)?;
        let mut remembered = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.clone_from(&found);
        Ok(found)
    }
}

impl Api {
    /// Step 1 of the issuance cycle, first half: identifies the caller. It is done for every
    /// request, because a certificate may expire or be revoked while its connection is open.
    pub(super) async fn caller(&self, peer: &Peer) -> Result<Caller, Problem> {
        self.identified(peer, Issuer::identify).await
    }

    /// The same by the judgement of `identify`.
    pub(super) async fn identified(
        &self,
        peer: &Peer,
        identify: fn(&Issuer, Option<KnownClient>) -> Result<Caller, Error>,
    ) -> Result<Caller, Problem> {
        let certificate = match peer {
            Peer::Local { uid, admission } if (admission.0)() => {
                return Ok(Caller::Local { uid: *uid });
            }
            Peer::Local { uid, .. } => return Err(not_admitted(*uid).into()),
            Peer::NotAdmitted { uid } => return Err(not_admitted(*uid).into()),
            Peer::Network { certificate: None } => {
                let message = "present the client certificate that this daemon issued to you; a \
                               client without one is enrolled by a station or an operator";
                let code = Code::ClientCertificateRequired;
                return Err(Error::new(Advice::Authenticate, code, message).into());
            }
            Peer::Network {
                certificate: Some(certificate),
            } => certificate,
        };
        let client = match certificate.remembered(&self.ca) {
            Some(client) => Some(client),
            None => {
                let certificate = certificate.clone();
                self.application(move |ca| certificate.find(ca)).await?
            }
        };
        Ok(identify(self.ca.issuer(), client)?)
    }
}

fn not_admitted(uid: u32) -> Error {
    let message = format!(
        "user {uid} may not use the admin socket; run the command as root or as the daemon's user, \
         or add {uid} to [listen] admin_users"
    );
    Error::forbidden(Code::UserNotAdmitted, message)
}
