//! Renews the certificate of a generation whose issuer is elsewhere, for the same key (RFC 4210
//! calls it a renewal; another key is a re-key, and a rollover here).
//!
//! The generation stays the same: its leaves and lists are verified by either certificate, because
//! both have its name, key and key identifier. So the later one takes the place of the other one at
//! once. That is refused where a provisioning service holds the present certificate: DPS finds a
//! group by the certificate that devices present, and they present the old one until they are
//! renewed; a rollover has both in two slots.

use super::{Answer, Needs, Refusal};
use crate::ca::Code;
use crate::store::{GenerationRow, GenerationState};
use crate::x509::bundle::parse_bundle;
use crate::x509::certificate::Certificate;

/// Returns true if this is the serving generation of an authority that is certified elsewhere.
pub(super) fn is_renewable(row: &GenerationRow) -> bool {
    row.state == GenerationState::Serving && row.above.is_some()
}

/// Returns true if the bundle has a certificate for this generation's key, other than its present
/// one.
pub(super) fn is_certified_in(bundle: &str, row: &GenerationRow) -> bool {
    let certificates = parse_bundle(bundle.as_bytes()).unwrap_or_default();
    let mut others = certificates
        .iter()
        .filter(|it| Some(it.der()) != row.certificate.as_ref());
    others.any(|it| Some(it.spki_der()) == row.spki.as_ref())
}

impl Answer {
    /// Reads the renewed certificate of `row`, and those above it.
    pub(super) fn renewing(
        row: &GenerationRow,
        present: &Certificate,
        bundle: &str,
        needs: &Needs<'_>,
    ) -> Result<Self, Refusal> {
        let replaces = |renewed: &Certificate| replaces(present, renewed);
        let needs = Needs {
            fits_the_request: &replaces,
            ..*needs
        };
        Self::read(row, bundle, &needs)
    }
}

/// Checks that whatever verifies by `present` verifies by `renewed`, and for longer.
fn replaces(present: &Certificate, renewed: &Certificate) -> Result<(), Refusal> {
    if renewed.subject_der() != present.subject_der() {
        let reason = format!(
            "its subject is {:?}, and that of the present certificate, which stands in all that \
             the authority has signed, is {:?}, or is encoded otherwise",
            renewed.subject(),
            present.subject()
        );
        return Err((Code::InstallOtherName, reason));
    }
    if renewed.subject_key_identifier() != present.subject_key_identifier() {
        let reason = "its subject key identifier is another one than that of the present \
                      certificate, which stands in all that the authority has signed";
        return Err((Code::InstallKeyIdentifier, reason.into()));
    }
    if renewed.not_after() <= present.not_after() {
        let reason = format!(
            "it ends at {}, and the present certificate for this key at {}",
            renewed.not_after(),
            present.not_after()
        );
        return Err((Code::InstallNotLater, reason));
    }
    Ok(())
}
