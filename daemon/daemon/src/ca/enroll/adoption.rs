//! Adopts and removes enrollments that are at a service and not on record.
//!
//! An adopted enrollment stays as it is at the service. A certificate in it that is not on record
//! may be by any generation: every exclusion of a group or a generation at that service disables
//! the enrollment, and the next leaf of its device takes the place of that certificate.

use super::Enrollments;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::hierarchy::Generation;
use crate::ca::{Code, Error};
use crate::enrollment::desired::{Desired, Kind, SlotCertificate, SlotPair, Status};
use crate::enrollment::history::History;
use crate::enrollment::id::{EnrollmentGroupId, RegistrationId};
use crate::enrollment::record::{ObservedSlot, Record};
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::{AuditEntry, EnrollmentKind, EnrollmentRow, FoundEnrollment, NewEnrollment};
use serde_json::json;
use std::sync::Arc;

impl Enrollments {
    /// Takes an enabled enrollment of a service, which is not on record, on record as it is.
    pub fn adopt_enrollment(
        &self,
        permission: &Authorized<Operate>,
        provisioning: Option<&str>,
        kind: EnrollmentKind,
        name: &str,
    ) -> Result<EnrollmentRow, Error> {
        let found = self.unknown(self.provisioning(provisioning)?, kind, name)?;
        if !found.enabled {
            let message = format!(
                "{name} is disabled, so it excludes something: repeat that compromise or block, \
                 which takes the enrollment over, or remove it"
            );
            return Err(Error::conflict(Code::EnrollmentExcludes, message));
        }
        let record = read(&found)?;
        let (authority, by_reference, slots) = match kind {
            EnrollmentKind::Individual => {
                RegistrationId::parse(name)
                    .map_err(|it| Error::invalid(it.code(), it.to_string()))?;
                (None, false, self.held_leaves(name, &record)?)
            }
            EnrollmentKind::Group => {
                EnrollmentGroupId::parse(name)
                    .map_err(|it| Error::invalid(it.code(), it.to_string()))?;
                self.held_authority(name, &record)?
            }
        };
        let entry = self.adoption_entry(permission, "enrollment.adopted", &found, json!(null));
        let adopted = NewEnrollment {
            provisioning: found.provisioning,
            kind,
            name: found.name,
            authority,
            by_reference,
            slots,
        };
        let row = self.store.adopt_enrollment(adopted, entry)?;
        self.issuer.wake();
        Ok(row)
    }

    /// Removes an enrollment of a service that is not on record. One beside a group, or a disabled
    /// one, excludes something, so its removal needs a reason.
    pub(super) fn remove_unknown(
        &self,
        permission: &Authorized<Operate>,
        provisioning: &str,
        kind: EnrollmentKind,
        name: &str,
        overriding: Option<String>,
    ) -> Result<(), Error> {
        let found = self.unknown(provisioning, kind, name)?;
        if overriding.is_none() {
            self.refuse_return_of_unknown(&found)?;
        }
        let detail = json!(overriding);
        let entry = self.adoption_entry(permission, "enrollment.removed", &found, detail);
        let history = sent_before(&found)?;
        let hub = self.services.hubs.contains_key(&found.provisioning);
        self.store
            .remove_unknown_enrollment(found, history, hub, entry)?;
        self.issuer.wake();
        Ok(())
    }

    fn refuse_return_of_unknown(&self, found: &FoundEnrollment) -> Result<(), Error> {
        let name = &found.name;
        let groups = self.store.groups()?;
        let group = groups
            .iter()
            .find(|it| it.provisioning == found.provisioning);
        let message = match (found.kind, group) {
            (EnrollmentKind::Individual, Some(group)) => format!(
                "the group {} would accept every leaf of {name} without this enrollment, also one \
                 that was compromised after the backup: repeat that compromise, which takes the \
                 enrollment over, or say why not with --override",
                group.name
            ),
            _ if !found.enabled => format!(
                "{name} is disabled, so it excludes something: repeat that compromise or block, \
                 which takes the enrollment over, or say why not with --override"
            ),
            _ => return Ok(()),
        };
        Err(Error::conflict(Code::EnrollmentExcludes, message))
    }

    fn unknown(
        &self,
        provisioning: &str,
        kind: EnrollmentKind,
        name: &str,
    ) -> Result<FoundEnrollment, Error> {
        let found = self
            .store
            .unknown_enrollments_named(kind, name)?
            .into_iter();
        let mut here = found.filter(|it| it.found.provisioning == provisioning);
        here.next().map(|it| it.found).ok_or_else(|| {
            let kind = kind.name();
            let message = format!("{provisioning} has no {kind} enrollment {name:?}");
            Error::missing(Code::EnrollmentUnknown, message)
        })
    }

    /// Returns slots with the leaves that an individual enrollment holds. Of two the current one on
    /// record serves.
    fn held_leaves(&self, device: &str, record: &Record) -> Result<Slots, Error> {
        let held: [Option<Thumbprint>; 2] = record.thumbprints().into();
        let current = self.store.device(device)?.map(|it| it.certificate);
        let serves = |it: Thumbprint| Some(it) == current;
        let is_of_leaves = record.x509_member() == Some("clientCertificates");
        slots_of(held, serves)
            .filter(|_| is_of_leaves)
            .ok_or_else(|| not_adoptable(device, "holds no leaf that can be read"))
    }

    /// Returns the authority of a group, whether it names CA certificates of the service, and its
    /// slots.
    fn held_authority(
        &self,
        group: &str,
        record: &Record,
    ) -> Result<(Option<String>, bool, Slots), Error> {
        let hierarchy = self.issuer.hierarchy();
        let unreadable = || {
            let what = "holds a CA certificate that is not on record, so its authority is unknown";
            not_adoptable(group, what)
        };
        let member = record.x509_member().ok_or_else(unreadable)?;
        let in_slot = |slot| {
            let found = match record.slot(member, slot) {
                ObservedSlot::Empty => return Ok(None),
                ObservedSlot::Certificate(it) => hierarchy.with_certificate(it),
                ObservedSlot::Reference(name) => {
                    let named = |it: &&Arc<Generation>| it.name().eq_ignore_ascii_case(&name);
                    hierarchy.iter().find(named)
                }
                ObservedSlot::Unreadable => None,
            };
            found.map(Some).ok_or_else(unreadable)
        };
        let held = [in_slot(SlotName::Primary)?, in_slot(SlotName::Secondary)?];
        let authority = held.iter().flatten().map(|it| &it.authority).min();
        let authority = authority.ok_or_else(unreadable)?.clone();
        if held.iter().flatten().any(|it| it.authority != authority) {
            return Err(not_adoptable(
                group,
                "holds CA certificates of two authorities",
            ));
        }
        let serving = hierarchy.serving(&authority).map(|it| it.thumbprint());
        let held = held.map(|it| it.map(|it| it.thumbprint()));
        let slots = slots_of(held, |it| Some(it) == serving).ok_or_else(unreadable)?;
        Ok((Some(authority), member == "caReferences", slots))
    }

    fn adoption_entry(
        &self,
        permission: &Authorized<Operate>,
        action: &'static str,
        found: &FoundEnrollment,
        overriding: serde_json::Value,
    ) -> AuditEntry {
        AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action,
            subject: found.name.clone(),
            detail: json!({
                "provisioning": found.provisioning, "kind": found.kind, "override": overriding,
            }),
        }
    }
}

fn read(found: &FoundEnrollment) -> Result<Record, Error> {
    Record::parse(found.record.clone())
        .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))
}

fn not_adoptable(name: &str, why: &str) -> Error {
    let message = format!("{name} {why}; remove it, and add one in its place if need be");
    Error::conflict(Code::EnrollmentInvalid, message)
}

/// Returns slots with these certificates, primary first. Of two, the one that `serves` is the new
/// one; the primary one if neither does.
fn slots_of(
    [primary, secondary]: [Option<Thumbprint>; 2],
    serves: impl Fn(Thumbprint) -> bool,
) -> Option<Slots> {
    Some(match (primary, secondary) {
        (None, None) => return None,
        (Some(certificate), None) => Slots::Serving {
            slot: SlotName::Primary,
            certificate,
        },
        (None, Some(certificate)) => Slots::Serving {
            slot: SlotName::Secondary,
            certificate,
        },
        (Some(primary), Some(secondary)) if serves(secondary) => Slots::Draining {
            slot: SlotName::Secondary,
            serving: secondary,
            retiring: primary,
        },
        (Some(primary), Some(secondary)) => Slots::Draining {
            slot: SlotName::Primary,
            serving: primary,
            retiring: secondary,
        },
    })
}

/// Returns the history of an enrollment that was sent from here and is not on record any more: the
/// planner deletes nothing that was never ours.
fn sent_before(found: &FoundEnrollment) -> Result<History, Error> {
    let (primary, secondary) = read(found)?.thumbprints();
    // Only that there is a state counts for a deletion; one by reference has no thumbprint.
    let held = primary.or(secondary).unwrap_or_else(|| Thumbprint::of(&[]));
    let certificates = SlotPair::new(Some(SlotCertificate::held(held)), None);
    let invalid = |error: String| Error::stop(Code::StoreUnreadable, error);
    let certificates = certificates.ok_or_else(|| invalid("a slot is empty".into()))?;
    let name = &found.name;
    let kind = match found.kind {
        EnrollmentKind::Individual => Kind::Individual {
            id: RegistrationId::parse(name).map_err(|it| invalid(it.to_string()))?,
            device_id: None,
            certificates,
        },
        EnrollmentKind::Group => Kind::Group {
            id: EnrollmentGroupId::parse(name).map_err(|it| invalid(it.to_string()))?,
            certificates,
        },
    };
    let desired = Desired {
        kind,
        status: Status::Enabled,
        reprovision_policy: None,
        hubs: None,
    };
    Ok(History::settled(Some(&desired)))
}
