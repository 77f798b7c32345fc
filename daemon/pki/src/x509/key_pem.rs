//! Reads and writes public keys as PEM (RFC 7468 section 13).

use super::key::PublicKey;
use super::pem;

const LABEL: &str = "PUBLIC KEY";

/// Returns a public key as PEM.
pub fn public_key_pem(key: &PublicKey) -> String {
    pem::encode(LABEL, key.spki_der())
}

/// Returns every public key in `text`. Fails with the reason if a block is none.
pub fn public_keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let blocks = pem::blocks(text.as_bytes()).map_err(|error| error.to_string())?;
    let keys = blocks.iter().map(|block| {
        if block.label != LABEL {
            return Err(format!(
                "it has a block {:?}, expected {LABEL:?}",
                block.label
            ));
        }
        let der = block.der().map_err(|error| error.to_string())?;
        PublicKey::from_spki_der(&der).map_err(|error| error.to_string())
    });
    keys.collect()
}
