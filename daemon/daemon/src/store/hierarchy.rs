//! Reads the hierarchy as the plan of an exclusion needs it.

use super::StoreError;
use super::engine::Tx;
use super::generation::{self, GenerationState};
use crate::enrollment::exclusion::Generation;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::GenerationNumber;

/// Returns every generation that has a certificate, issuers first.
pub(super) fn all(tx: &Tx<'_>) -> Result<Vec<Generation>, StoreError> {
    Ok(generation::all(tx)?
        .into_iter()
        .filter_map(|row| {
            let is_external = row.above.is_some();
            Some(Generation {
                certificate: Thumbprint::of(row.certificate.as_deref()?),
                is_root: row.parent.is_none() && !is_external,
                serves: row.state == GenerationState::Serving,
                id: row.id,
                authority: row.authority,
                number: row.number,
                parent: row.parent,
            })
        })
        .collect())
}

/// Returns this generation of an authority.
pub(super) fn find<'a>(
    hierarchy: &'a [Generation],
    authority: &str,
    number: GenerationNumber,
) -> Result<&'a Generation, StoreError> {
    hierarchy
        .iter()
        .find(|it| it.authority == authority && it.number == number)
        .ok_or_else(|| StoreError::Missing(format!("generation {number} of {authority}")))
}
