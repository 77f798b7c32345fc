//! Computes the SHA-256 digests by which keys and certificates are found.

use aws_lc_rs::digest;

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
