//! Holds of one certificate by an operator, and their end. A block holds leaves by itself, and each
//! lifts only its own hold.

use super::Exclusions;
use super::certificate_name::CertificateName;
use super::revoke::RevokedLeaf;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::profile::Role;
use crate::ca::{Code, Error};
use crate::ids::{BlockId, GenerationId};
use crate::store::{BlockKind, CertificateRow, HoldOwners, RevocationTarget};
use crate::unix_seconds::UnixSeconds;
use crate::x509::revocation::RevocationReason;

/// A certificate whose hold an operator has set or lifted.
#[derive(Clone, Debug)]
pub struct HeldLeaf {
    pub serial: Vec<u8>,
    pub sha256: Option<[u8; 32]>,
    pub subject: Option<String>,
    pub profile: Option<String>,
    pub role: Option<Role>,
    /// The generation that issued it.
    pub issuer: GenerationId,
    /// Since when it is on hold; `None` if nothing holds it.
    pub since: Option<UnixSeconds>,
    /// Everything that holds it, in words.
    pub held_by: Vec<String>,
    /// Whether the command has changed what holds it.
    pub changed: bool,
    /// The consequences for the operator.
    pub notices: Vec<String>,
}

impl Exclusions {
    /// Holds a leaf until [`release_leaf`](Self::release_leaf). The repeat changes nothing.
    ///
    /// Fails with `certificate_revoked` if it is revoked for good, or as
    /// [`revoke_leaf`](Self::revoke_leaf) does.
    pub fn hold_leaf(
        &self,
        permission: &Authorized<Operate>,
        name: &CertificateName,
        cause: &str,
    ) -> Result<HeldLeaf, Error> {
        if let Some(row) = self.row(name)? {
            self.refuse_final(&row)?;
            let before = self.store.hold_owners(&row.sha256)?;
            let hold = RevocationReason::CertificateHold;
            let revoked = self.revoke_leaf(permission, name, hold, cause)?;
            let held = self.held(revoked, &row.sha256)?;
            let changed = before != self.store.hold_owners(&row.sha256)?;
            return Ok(HeldLeaf { changed, ..held });
        }
        let hold = RevocationReason::CertificateHold;
        let revoked = self.revoke_leaf(permission, name, hold, cause)?;
        if revoked.reason.is_final() {
            return Err(final_revocation(
                &revoked.serial,
                revoked.since,
                revoked.reason,
                None,
            ));
        }
        Ok(HeldLeaf::of(revoked, vec!["an operator".into()]))
    }

    /// Lifts an operator's hold. The certificate stays on hold while a block holds it, too. The
    /// repeat changes nothing.
    ///
    /// Fails with `hold_of_block` if only a block holds it, and with `certificate_revoked` if it is
    /// revoked for good.
    pub fn release_leaf(
        &self,
        permission: &Authorized<Operate>,
        name: &CertificateName,
        cause: &str,
    ) -> Result<HeldLeaf, Error> {
        let Some(row) = self.row(name)? else {
            return self.release_former(permission, name, cause);
        };
        self.refuse_authority(&row)?;
        self.refuse_final(&row)?;
        let before = self.store.hold_owners(&row.sha256)?;
        if before.operator.is_none()
            && let Some(block) = before.blocks.first()
        {
            let message = format!(
                "no operator holds this certificate, but {}",
                self.block_in_words(*block)?
            );
            return Err(Error::conflict(Code::HoldOfBlock, message));
        }
        let target = RevocationTarget::Sha256(row.sha256);
        let released = self.unrevoke(permission, target, cause)?;
        let still = row.revoked_at.filter(|_| released.changed.is_empty());
        let after = self.store.hold_owners(&row.sha256)?;
        Ok(HeldLeaf {
            since: still,
            held_by: self.owners_in_words(&after)?,
            changed: row.revoked_at.is_some(),
            notices: Vec::new(),
            serial: row.serial,
            sha256: Some(row.sha256),
            subject: Some(row.subject),
            profile: Some(row.profile),
            role: row.role,
            issuer: row.issuer,
        })
    }

    /// Returns the certificate of this name, unless only its serial number is known.
    fn row(&self, name: &CertificateName) -> Result<Option<CertificateRow>, Error> {
        if self.former(name)?.is_some() {
            return Ok(None);
        }
        name.find(&self.store).map(Some)
    }

    fn refuse_final(&self, row: &CertificateRow) -> Result<(), Error> {
        let (Some(since), Some(reason)) = (row.revoked_at, row.revocation_reason) else {
            return Ok(());
        };
        if !reason.is_final() {
            return Ok(());
        }
        let events = self.store.revocation_events_of(&row.sha256)?;
        let by = events.first().map(|it| it.actor.as_str());
        Err(final_revocation(&row.serial, since, reason, by))
    }

    fn held(&self, revoked: RevokedLeaf, sha256: &[u8; 32]) -> Result<HeldLeaf, Error> {
        let owners = self.store.hold_owners(sha256)?;
        Ok(HeldLeaf::of(revoked, self.owners_in_words(&owners)?))
    }

    fn owners_in_words(&self, owners: &HoldOwners) -> Result<Vec<String>, Error> {
        let own = owners.operator.as_ref();
        let own = own.map(|it| format!("{} holds it since {}", it.by, it.since));
        let blocks = owners.blocks.iter().map(|it| self.block_in_words(*it));
        own.map(Ok).into_iter().chain(blocks).collect()
    }

    fn block_in_words(&self, id: BlockId) -> Result<String, Error> {
        let block = self.store.block(id)?;
        let name = &block.name;
        let (what, command) = match (block.kind, block.generation) {
            (BlockKind::Device, _) => ("device", format!("device unblock {name}")),
            (BlockKind::Group, _) => ("group", format!("enrollment unblock --group {name}")),
            (BlockKind::Generation, number) => {
                let number = number.map_or_else(String::new, |it| it.to_string());
                (
                    "authority",
                    format!("authority unblock {name} --generation {number}"),
                )
            }
        };
        if block.lifted_at.is_some() {
            return Ok(format!(
                "the block of {what} {name} holds it, and is being lifted"
            ));
        }
        Ok(format!(
            "the block of {what} {name} holds it since {}; `hallmark {command}` lifts that",
            block.blocked_at
        ))
    }
}

impl HeldLeaf {
    fn of(revoked: RevokedLeaf, held_by: Vec<String>) -> Self {
        Self {
            since: Some(revoked.since),
            held_by,
            changed: !revoked.was_revoked,
            notices: revoked.notices,
            serial: revoked.serial,
            sha256: revoked.sha256,
            subject: revoked.subject,
            profile: revoked.profile,
            role: revoked.role,
            issuer: revoked.issuer,
        }
    }
}

pub(super) fn final_revocation(
    serial: &[u8],
    since: UnixSeconds,
    reason: RevocationReason,
    by: Option<&str>,
) -> Error {
    let by = by.map_or_else(String::new, |it| format!(" by {it}"));
    let message = format!(
        "certificate {} is revoked for good since {since}{by} ({reason}), and only a hold can be \
         lifted; have a new certificate issued",
        hex::encode_upper(serial)
    );
    Error::conflict(Code::CertificateRevoked, message)
}
