//! Identifies devices without a valid leaf, which may request one by a grant: an ended leaf, the
//! certificate of their manufacturer, or a one-time credential.
//!
//! Only the routes for certificates do so. The first two come with the TLS handshake; a credential
//! is HTTP Basic over TLS, for a first leaf alone (RFC 7030, section 3.2.3).

use super::caller::Peer;
use super::problem::Problem;
use super::{Api, basic};
use crate::ca::authorize::Caller;
use crate::ca::{Code, Issuer};
use axum::extract::MatchedPath;
use axum::http::request::Parts;
use std::sync::{Arc, OnceLock};

/// The device that made a request by a grant, for the audit entry of a refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct Applicant(Arc<OnceLock<String>>);

impl Applicant {
    /// Returns its name in the journal, once it is identified.
    pub(super) fn name(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

impl Api {
    /// Identifies the sender of a request for a certificate.
    pub(super) async fn applicant(&self, peer: &Peer, head: &Parts) -> Result<Caller, Problem> {
        let caller = match self.identified(peer, Issuer::identify_to_issue).await {
            Err(refused) if is_for_first_leaf(head) && has_no_leaf(&refused) => {
                let newcomer = self.newcomer(peer, head, refused).await;
                newcomer.map_err(Problem::or_by_basic)?
            }
            identified => identified?,
        };
        if let (Caller::Granted { .. }, Some(applicant)) =
            (&caller, head.extensions.get::<Applicant>())
        {
            // A request has one caller.
            let _ = applicant.0.set(caller.to_string());
        }
        Ok(caller)
    }

    /// Whether a client certificate identifies the sender of requests for certificates.
    pub(super) async fn applies_by_certificate(&self, peer: &Peer) -> bool {
        match self.identified(peer, Issuer::identify_to_issue).await {
            Err(refused) if refused.error().code == Code::ClientCertificateUnknown => {
                matches!(self.born(peer).await, Ok(Some(_)))
            }
            identified => identified.is_ok(),
        }
    }

    /// Identifies a device that has no leaf which is accepted; `refused` is why.
    async fn newcomer(
        &self,
        peer: &Peer,
        head: &Parts,
        refused: Problem,
    ) -> Result<Caller, Problem> {
        let presented = basic::presented(&head.headers)?;
        // A certificate of ours is no manufacturer's.
        let born = match refused.error().code {
            Code::ClientCertificateUnknown => self.born(peer).await,
            _ => Ok(None),
        };
        match (born, presented) {
            (Ok(Some(caller)), _) => Ok(caller),
            (_, Some(presented)) => {
                let about = presented.registration_id.clone();
                let identified =
                    self.application(move |ca| ca.issuer().identify_by_credential(&presented));
                identified.await.map_err(|it| it.about(&about, ""))
            }
            (Err(problem), None) => Err(problem),
            (Ok(None), None) => Err(refused),
        }
    }

    /// Identifies a device by the certificate of its manufacturer.
    async fn born(&self, peer: &Peer) -> Result<Option<Caller>, Problem> {
        match peer {
            Peer::Network {
                certificate: Some(certificate),
            } if !self.ca.issuer().births().is_empty() => {
                let certificate = certificate.clone();
                self.application(move |ca| certificate.find_birth(ca)).await
            }
            _ => Ok(None),
        }
    }
}

/// Whether a device may make this request for its first leaf.
fn is_for_first_leaf(head: &Parts) -> bool {
    let route = head.extensions.get::<MatchedPath>();
    route.is_some_and(|it| {
        it.as_str() == "/v1/certificates" || it.as_str().contains("/simpleenroll")
    })
}

/// Whether the client has presented no certificate that is accepted, and none that is revoked.
fn has_no_leaf(refused: &Problem) -> bool {
    matches!(
        refused.error().code,
        Code::ClientCertificateRequired
            | Code::ClientCertificateUnknown
            | Code::ClientCertificateExpired
            | Code::LateRenewalOver
    )
}
