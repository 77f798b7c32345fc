//! Rolls of authorities: the next generation of an intermediate or a root.

use crate::ca::authorize::Caller;
use crate::ca::{CertificateAuthority, Error};
use crate::store::RollRow;

impl CertificateAuthority {
    /// The next step of an authority's roll, if its time has come. Returns when to look again.
    pub(super) fn advance_authority_roll(
        &self,
        _roll: &RollRow,
        _now: i64,
    ) -> Result<Option<i64>, Error> {
        Ok(None)
    }

    /// Gives an authority's roll up.
    pub(super) fn abort_authority_roll(
        &self,
        _caller: &Caller,
        roll: &RollRow,
    ) -> Result<(), Error> {
        let message = format!("roll {} is an authority's, and cannot be aborted", roll.id);
        Err(Error::conflict("roll_not_abortable", message))
    }
}
