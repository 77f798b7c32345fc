//! Revocation by an operator: certificates that are no longer good, and holds that are lifted.
//!
//! The store decides what a revocation may change; here it gets a permission and a cause, and what
//! follows is brought about: callers are refused, a generation signs no more, and a new revocation
//! list is signed. The provisioning service reads no such list, so this alone excludes no device
//! there.

use super::Exclusions;
use super::certificate_name::CertificateName;
use super::place::{Place, PlaceCode};
use super::receipt::Receipt;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::profile::Role;
use crate::ca::{Code, Error, crash_point};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::{CertificateRow, Revocation, RevocationTarget, Revoked, RevokedCertificate};
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::revocation::RevocationReason;
use serde_json::json;

/// The beginning of the notice about the places that a revocation does not reach.
pub const READS_NO_LIST: &str = "DPS and its hub read no revocation list";

/// A certificate that an operator has revoked. Of one whose file was not imported, only the serial
/// number is known for certain.
#[derive(Clone, Debug)]
pub struct RevokedLeaf {
    pub serial: Vec<u8>,
    pub sha256: Option<[u8; 32]>,
    pub subject: Option<String>,
    pub profile: Option<String>,
    pub role: Option<Role>,
    pub not_after: Option<UnixSeconds>,
    /// The generation that issued it.
    pub issuer: GenerationId,
    /// The authority that issued it.
    pub authority: String,
    /// Which generation of the authority.
    pub generation: GenerationNumber,
    /// Unix seconds: the first date of its revocation.
    pub since: UnixSeconds,
    /// The reason on record.
    pub reason: RevocationReason,
    /// Whether it was revoked before, and nothing has changed.
    pub was_revoked: bool,
    /// The actor who revoked it for that reason, and the cause, if that is on record.
    pub by: Option<String>,
    pub cause: Option<String>,
    /// It is the certificate of an authority elsewhere.
    pub is_subordinate: bool,
    /// The consequences for the operator.
    pub notices: Vec<String>,
}

impl Exclusions {
    /// Revokes one certificate that this daemon has issued, whatever its role. From the return on
    /// its holder is refused, on kept-alive connections and resumed sessions, too. An already
    /// revoked certificate keeps its date and its reason, unless a hold is made final.
    ///
    /// Fails with `certificate_unknown`, `certificate_ambiguous`, or `certificate_of_authority`: an
    /// authority is excluded with all that it signed, by a compromise or a block.
    pub fn revoke_leaf(
        &self,
        permission: &Authorized<Operate>,
        name: &CertificateName,
        reason: RevocationReason,
        cause: &str,
    ) -> Result<RevokedLeaf, Error> {
        if let Some(former) = self.former(name)? {
            for_leaves(reason)?;
            return self.revoke_former(permission, &former, reason, cause);
        }
        let row = name.find(&self.store)?;
        self.refuse_authority(&row)?;
        self.refuse_reason_of_root(&row, reason)?;
        let is_subordinate = self.store.is_subordinate(&row.sha256)?;
        if !is_subordinate {
            for_leaves(reason)?;
        }
        let target = RevocationTarget::Sha256(row.sha256);
        let revoked = self.revoke(permission, target, reason, cause)?;
        crash_point("leaf-revoked");
        let was_revoked = revoked.changed.is_empty();
        let mut stands = revoked.changed.iter().chain(&revoked.unchanged);
        let (intent, (since, reason)) = stands
            .find_map(|it| Some((it.intent, it.revoked?)))
            .ok_or_else(|| {
                Error::stop(
                    Code::Internal,
                    "a certificate is not revoked although it was",
                )
            })?;
        let events = self.store.revocation_events(intent)?;
        let event = events.into_iter().find(|it| it.reason.is_some());
        let (by, cause) = event.map(|it| (it.actor, it.cause)).unzip();
        let hierarchy = self.issuer.hierarchy();
        let issuer = hierarchy.generation(row.issuer);
        Ok(RevokedLeaf {
            authority: issuer.map_or_else(String::new, |it| it.authority.clone()),
            generation: issuer.map_or(GenerationNumber::START, |it| it.number),
            notices: self.revocation_notices(&row, is_subordinate)?,
            is_subordinate,
            serial: row.serial,
            sha256: Some(row.sha256),
            subject: Some(row.subject),
            profile: Some(row.profile),
            role: row.role,
            not_after: Some(row.not_after),
            issuer: row.issuer,
            since,
            reason,
            was_revoked,
            by,
            cause,
        })
    }

    /// Returns whether the revocation list of the generation that issued the certificate says that
    /// it is revoked.
    pub fn revocation_receipt(
        &self,
        issuer: GenerationId,
        since: UnixSeconds,
    ) -> Result<Receipt, Error> {
        self.list_receipt(issuer, &format!("revoked since {since}"))
    }

    /// Returns the same for a hold since then, or for one that was lifted.
    pub fn hold_receipt(
        &self,
        issuer: GenerationId,
        since: Option<UnixSeconds>,
    ) -> Result<Receipt, Error> {
        let on_hold = since.map(|it| format!("on hold since {it}"));
        self.list_receipt(issuer, &on_hold.unwrap_or("not on hold".into()))
    }

    fn list_receipt(&self, issuer: GenerationId, says: &str) -> Result<Receipt, Error> {
        let hierarchy = self.issuer.hierarchy();
        let Some(above) = hierarchy.revoked_above(issuer) else {
            return Ok(vec![self.listed_place([issuer].into_iter(), says)?].into());
        };
        // A revoked generation signs no list; that of its issuer excludes all that it signed.
        let says = format!(
            "generation {} of {} is revoked with all below it",
            above.number, above.authority
        );
        let place = match above.parent {
            Some(parent) => self.listed_place([parent].into_iter(), &says)?,
            None => self.elsewhere_place(above.id).unwrap_or_else(|| {
                let parameters = json!({ "authority": above.authority });
                Place::crl(PlaceCode::RootRevoked, parameters, says)
            }),
        };
        Ok(vec![place].into())
    }

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

    pub(super) fn refuse_authority(&self, row: &CertificateRow) -> Result<(), Error> {
        let hierarchy = self.issuer.hierarchy();
        let thumbprint = Thumbprint::from_bytes(row.sha256);
        // An earlier certificate for its key, which was renewed, is by its issuer elsewhere.
        let renewed = || {
            let key = Certificate::parse(&row.der).ok()?.spki_der().clone();
            let issuer = hierarchy.generation(row.issuer)?;
            (*issuer.public_key.spki_der() == key).then_some(issuer)
        };
        let found = hierarchy.with_certificate(thumbprint).or_else(renewed);
        let Some(generation) = found else {
            return Ok(());
        };
        let name = &generation.authority;
        let number = generation.number;
        let message = format!(
            "this is a certificate of generation {number} of authority {name}, and all that it \
             signed is excluded with it: `hallmark roll start --authority {name} --generation \
             {number} --reason compromise` for good, or `hallmark authority block {name} \
             --generation {number}` until you lift the block"
        );
        Err(Error::conflict(Code::CertificateOfAuthority, message))
    }

    /// A cross-certificate is revoked alone where the path is not wanted. A compromise is that of
    /// the certified root, which the whole hierarchy below it has to follow.
    fn refuse_reason_of_root(
        &self,
        row: &CertificateRow,
        reason: RevocationReason,
    ) -> Result<(), Error> {
        let hierarchy = self.issuer.hierarchy();
        let found = hierarchy
            .cross_certificates()
            .iter()
            .find(|it| it.link.certificate.sha256() == row.sha256);
        let Some(cross) = found.filter(|_| reason.is_of_the_key()) else {
            return Ok(());
        };
        let name = &cross.subject.authority;
        let number = cross.subject.number;
        let message = format!(
            "this is a cross-certificate of generation {number} of {name}: if its key is \
             compromised, `hallmark roll start --authority {name} --generation {number} --reason \
             compromise` excludes all below it; to withdraw this certificate alone, say another \
             reason, such as superseded"
        );
        Err(Error::conflict(Code::CertificateOfAuthority, message))
    }

    fn revocation_notices(
        &self,
        row: &CertificateRow,
        is_subordinate: bool,
    ) -> Result<Vec<String>, Error> {
        let mut notices = Vec::new();
        let has_expired = row.not_after < self.issuer.now();
        let renews_late = self
            .issuer
            .renews_late_until(&row.profile, row.not_after)
            .is_some();
        if has_expired && !renews_late {
            notices.push(format!(
                "it expired at {}, so nothing accepts it in any case",
                row.not_after
            ));
        }
        if let Some(above) = self.issuer.hierarchy().revoked_above(row.issuer) {
            notices.push(format!(
                "generation {} of {} is revoked, so its own list is signed no more: the list of \
                 the authority above excludes all that it signed",
                above.number, above.authority
            ));
        }
        if is_subordinate && !has_expired && !self.services.names.is_empty() {
            notices.push(format!(
                "{READS_NO_LIST}: what its holder signed is accepted where a certificate above is \
                 enrolled, and the receipt of a revocation with `--everywhere` names each place"
            ));
        }
        if row.role != Some(Role::Device) || has_expired || self.services.names.is_empty() {
            return Ok(notices);
        }
        let id = &row.subject;
        let device = self.store.device(id)?;
        let is_current = device.is_some_and(|it| *it.certificate.as_bytes() == row.sha256);
        let which = if is_current {
            "the device's current leaf"
        } else {
            "this leaf"
        };
        notices.push(format!(
            "{READS_NO_LIST} and go on accepting {which}: `hallmark roll start {id} --reason \
             compromise` excludes it there until the device has a new one, `hallmark device block \
             {id}` until you lift the block"
        ));
        Ok(notices)
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

    /// Returns all leaves of a device that have not expired. A station or an operator may have the
    /// same name, and keeps its certificates.
    pub fn leaves_of_device(&self, registration_id: &str) -> RevocationTarget {
        RevocationTarget::Leaves {
            subject: registration_id.to_owned(),
        }
    }

    /// Brings about what follows from a changed revocation; call it after each one. The hierarchy
    /// is read and verified again only if the certificate of a generation changed.
    pub(super) fn follow_revocation(&self, revoked: &Revoked) -> Result<(), Error> {
        if revoked.changed.is_empty() {
            return Ok(());
        }
        for it in &revoked.changed {
            let serial = hex::encode_upper(&it.serial);
            let subject = it.subject.as_str();
            match it.revoked {
                Some((_, reason)) => {
                    tracing::info!(
                        subject,
                        serial,
                        reason = reason.name(),
                        "certificate revoked"
                    );
                }
                None => tracing::info!(subject, serial, "hold of a certificate lifted"),
            }
        }
        let is_authority = |revoked: &RevokedCertificate| {
            let hierarchy = self.issuer.hierarchy();
            let is_its = |issuer, certificate: &Certificate| {
                issuer == revoked.issuer && certificate.serial().as_bytes() == revoked.serial
            };
            let is_own = hierarchy
                .iter()
                .any(|it| is_its(it.parent.unwrap_or(it.id), &it.certificate));
            is_own
                || hierarchy
                    .cross_certificates()
                    .iter()
                    .any(|it| is_its(it.issuer.id, &it.link.certificate))
        };
        if revoked.changed.iter().any(is_authority) {
            self.issuer.reload_hierarchy()?;
        }
        self.issuer.wake();
        Ok(())
    }

    fn revocation(
        &self,
        permission: &Authorized<Operate>,
        target: RevocationTarget,
        cause: &str,
    ) -> Revocation {
        Revocation {
            target,
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            cause: cause.to_owned(),
        }
    }
}

/// Refuses a reason that is for authorities alone.
fn for_leaves(reason: RevocationReason) -> Result<(), Error> {
    if reason.is_for_leaves() {
        return Ok(());
    }
    let mut reasons = RevocationReason::ALL.to_vec();
    reasons.retain(|it| it.is_for_leaves());
    let names: Vec<_> = reasons.into_iter().map(RevocationReason::name).collect();
    let message = format!(
        "{:?} is no reason for a leaf; one of RFC 5280 5.3.1 is: {}",
        reason.name(),
        names.join(", ")
    );
    Err(Error::invalid(Code::ReasonInvalid, message))
}
