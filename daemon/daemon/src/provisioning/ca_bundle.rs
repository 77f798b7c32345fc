//! Reads the file with the authorities that a server of the service is trusted by.

use super::http::PlaneError;
use crate::files;
use crate::x509::bundle::trust_anchors;
use std::path::Path;

/// The largest bundle: all authorities of a system are some 250 KiB.
const CA_BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads every certificate in the file. None is left out in silence: a file that was copied badly
/// would otherwise fail later, as a server that is not trusted.
pub(super) fn read_ca_bundle(path: &Path) -> Result<Vec<reqwest::Certificate>, PlaneError> {
    let unusable = |reason: String| PlaneError::CaBundle {
        path: path.to_owned(),
        reason,
    };
    let bytes =
        files::read(path, CA_BUNDLE_BYTES_MAX).map_err(|error| unusable(error.to_string()))?;
    let anchors = trust_anchors(&bytes).map_err(|refusal| unusable(refusal.to_string()))?;
    let certificates: Vec<_> = anchors
        .iter()
        .filter_map(|der| reqwest::Certificate::from_der(der).ok())
        .collect();
    if is_usable(&certificates) {
        return Ok(certificates);
    }
    let mut singly = certificates.iter().map(std::slice::from_ref);
    let number = singly.position(|it| !is_usable(it)).map_or(0, |it| it + 1);
    Err(unusable(format!(
        "certificate {number} of {} in it cannot be used to verify servers; leave it out",
        certificates.len()
    )))
}

/// Returns true if the TLS library takes every certificate.
fn is_usable(certificates: &[reqwest::Certificate]) -> bool {
    let client = reqwest::Client::builder().tls_certs_only(certificates.to_vec());
    client.build().is_ok()
}
