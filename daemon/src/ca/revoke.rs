//! Revocation by an operator: certificates that are no longer good, and holds that are lifted.
//!
//! The store decides what a revocation may change; here it gets a permission and a cause, and what
//! follows is brought about: a generation that signs no more, and a new revocation list. The
//! provisioning service reads no such list, so this alone shuts nobody out there.

use super::authorize::{Authorized, Operate};
use super::{CertificateAuthority, Error};
use crate::store::{Revocation, RevocationTarget, Revoked};
use crate::x509::revocation::RevocationReason;

impl CertificateAuthority {
    /// Revokes the target's certificates; those that are revoked already stay as they are.
    pub fn revoke(
        &self,
        permission: &Authorized<Operate>,
        target: RevocationTarget,
        reason: RevocationReason,
        cause: &str,
    ) -> Result<Revoked, Error> {
        let revocation = self.revocation(permission, target, cause);
        let revoked = self.store.revoke(revocation, reason)?;
        self.follow_revocation(&revoked)?;
        Ok(revoked)
    }

    /// Lifts `certificateHold` from the target's certificates; other reasons are final.
    pub fn unrevoke(
        &self,
        permission: &Authorized<Operate>,
        target: RevocationTarget,
        cause: &str,
    ) -> Result<Revoked, Error> {
        let revoked = self
            .store
            .unrevoke(self.revocation(permission, target, cause))?;
        self.follow_revocation(&revoked)?;
        Ok(revoked)
    }

    /// Returns all leaves of a device that have not expired. A station or an operator may have
    /// the same name, and keeps its certificates.
    pub fn leaves_of_device(&self, registration_id: &str) -> RevocationTarget {
        RevocationTarget::Leaves {
            subject: registration_id.to_owned(),
        }
    }

    /// What a changed revocation brings about outside the store; call it after each one.
    pub(super) fn follow_revocation(&self, revoked: &Revoked) -> Result<(), Error> {
        if !revoked.changed.is_empty() {
            self.reload_hierarchy()?;
            self.wake();
        }
        Ok(())
    }

    pub(super) fn revocation(
        &self,
        permission: &Authorized<Operate>,
        target: RevocationTarget,
        cause: &str,
    ) -> Revocation {
        Revocation {
            target,
            at: self.now(),
            actor: permission.caller().to_string(),
            cause: cause.to_owned(),
        }
    }
}
