//! Enrollments: what an operator wants a provisioning service to hold, and what that means.

mod adoption;
mod possession;

use super::authorize::{Authorized, Operate};
use super::exclusion::Exclusions;
use super::roll::canary;
use super::services::Services;
use super::{Code, Error, Issuer};
use crate::enrollment::desired::{Desired, Kind, SlotCertificate, SlotPair, Status};
use crate::enrollment::id::{EnrollmentGroupId, RegistrationId};
use crate::enrollment::slots::{SlotName, Slots};
use crate::enrollment::thumbprint::Thumbprint;
use crate::store::{AuditEntry, BlockKind, EnrollmentKind, EnrollmentRow, NewEnrollment, Store};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An enrollment as an operator asks for it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentRequest {
    /// The provisioning service; may be left out where the configuration has only one.
    #[serde(default)]
    pub provisioning: Option<String>,
    pub kind: EnrollmentKind,
    /// Registration id or enrollment group id.
    pub name: String,
    /// The authority of a group.
    #[serde(default)]
    pub authority: Option<String>,
}

/// Says what each provisioning service must hold: enrollments and CA certificates.
pub struct Enrollments {
    issuer: Arc<Issuer>,
    exclusions: Arc<Exclusions>,
    services: Arc<Services>,
    store: Store,
}

impl Enrollments {
    pub(super) fn new(exclusions: Arc<Exclusions>) -> Self {
        let issuer = exclusions.issuer();
        Self {
            store: issuer.store().clone(),
            issuer,
            services: exclusions.services(),
            exclusions,
        }
    }

    /// Adds an enrollment. A group holds the authority's serving certificate; an individual one
    /// the device's current leaf, or nothing until the device has one.
    pub fn add_enrollment(
        &self,
        permission: &Authorized<Operate>,
        request: EnrollmentRequest,
    ) -> Result<EnrollmentRow, Error> {
        let provisioning = self
            .provisioning(request.provisioning.as_deref())?
            .to_owned();
        let slots = match request.kind {
            EnrollmentKind::Individual => self.individual_slots(&request)?,
            EnrollmentKind::Group => self.group_slots(&request)?,
        };
        // Where the daemon keeps the CA certificate verified, the group names it there. Elsewhere
        // the group holds the certificate itself.
        let by_reference = match &request.authority {
            Some(authority) => self.services.verifies(&provisioning, authority),
            None => false,
        };
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action: "enrollment.added",
            subject: request.name.clone(),
            detail: json!({
                "provisioning": provisioning, "kind": request.kind, "authority": request.authority,
            }),
        };
        let new = NewEnrollment {
            provisioning,
            kind: request.kind,
            name: request.name,
            authority: request.authority,
            by_reference,
            slots,
        };
        let row = self.store.add_enrollment(new, entry)?;
        self.issuer.wake();
        Ok(row)
    }

    /// Marks an enrollment for removal from its service; its device is not affected. An enrollment
    /// that excludes a compromised leaf stays while its group would accept that leaf, unless
    /// `overriding` gives a reason.
    pub fn remove_enrollment(
        &self,
        permission: &Authorized<Operate>,
        provisioning: Option<&str>,
        kind: EnrollmentKind,
        name: &str,
        overriding: Option<String>,
    ) -> Result<(), Error> {
        let provisioning = self.provisioning(provisioning)?;
        let rows = self.store.enrollments_named(name)?;
        let row = rows
            .into_iter()
            .find(|row| row.kind == kind && row.provisioning == provisioning);
        let Some(row) = row else {
            return self.remove_unknown(permission, provisioning, kind, name, overriding);
        };
        if kind == EnrollmentKind::Group {
            self.refuse_blocked_group(&row)?;
        }
        if overriding.is_none() {
            self.refuse_return_of_compromised(&row)?;
        }
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action: "enrollment.removed",
            subject: name.to_owned(),
            detail: json!({
                "provisioning": provisioning, "kind": kind, "override": overriding,
            }),
        };
        self.store.remove_enrollment(&row, entry)?;
        self.issuer.wake();
        Ok(())
    }

    /// Without its group the block could not be lifted: its devices would stay on hold, or its
    /// generation would be admitted by a group above.
    fn refuse_blocked_group(&self, row: &EnrollmentRow) -> Result<(), Error> {
        let name = &row.name;
        let own = self.store.active_block(BlockKind::Group, name, None)?;
        let others = self.store.blocks_of_enrollment(row.id)?;
        let Some(block) = own.into_iter().chain(others).next() else {
            return Ok(());
        };
        let command = match block.generation {
            None => format!("hallmark enrollment unblock --group {}", block.name),
            Some(number) => format!(
                "hallmark authority unblock {} --generation {number}",
                block.name
            ),
        };
        let message = format!("{name} carries a block; lift the block first with `{command}`");
        let code = match row.overlay_of {
            Some(_) => Code::EnrollmentExcludes,
            None => Code::GroupBlocked,
        };
        Err(Error::conflict(code, message))
    }

    fn refuse_return_of_compromised(&self, row: &EnrollmentRow) -> Result<(), Error> {
        if row.kind == EnrollmentKind::Group {
            return self.refuse_return_of_authority(row);
        }
        let device = &row.name;
        let groups = self.exclusions.groups_of(device)?;
        let Some(group) = groups.iter().find(|it| it.provisioning == row.provisioning) else {
            return Ok(());
        };
        if self
            .store
            .active_block(BlockKind::Device, device, None)?
            .is_some()
        {
            let message = format!(
                "{device} is blocked, and its group {} would accept it; lift the block with \
                 `hallmark device unblock {device}`",
                group.name
            );
            return Err(Error::conflict(Code::DeviceBlocked, message));
        }
        match self.store.compromised_until(device, self.issuer.now())? {
            None if self.store.has_lost_compromise(device)? => {
                let message = format!(
                    "this enrollment excludes a compromised leaf of {device}, which may not be on \
                     record since a restore, and its group {} would accept it; say why not with \
                     --override",
                    group.name
                );
                Err(Error::conflict(Code::EnrollmentExcludes, message))
            }
            None => Ok(()),
            Some(until) => Err(Error::conflict(
                Code::EnrollmentExcludes,
                format!(
                    "this enrollment excludes a compromised leaf of {device}, which its group {} \
                     would admit until {}; wait until then, or say why not with --override",
                    group.name, until
                ),
            )),
        }
    }

    /// A disabled group excludes a certificate that a group above would accept: a blocking group,
    /// or one whose authority is compromised and has no successor yet.
    fn refuse_return_of_authority(&self, row: &EnrollmentRow) -> Result<(), Error> {
        if row.enabled || (row.overlay_of.is_none() && !self.is_below_another_group(row)?) {
            return Ok(());
        }
        let now = self.issuer.now();
        for held in row.slots.held() {
            let held = self.store.certificate_by_sha256(held.as_bytes())?;
            // No leaf outlives its issuer, so a certificate that has ended admits no device.
            let Some(held) = held.filter(|it| it.not_after >= now) else {
                continue;
            };
            let message = format!(
                "this group excludes a certificate of {} until {}; lift its block, wait until \
                 then, or say why not with --override",
                held.subject, held.not_after
            );
            return Err(Error::conflict(Code::EnrollmentExcludes, message));
        }
        Ok(())
    }

    /// Returns whether a group of an authority above this group's is at the same service.
    fn is_below_another_group(&self, row: &EnrollmentRow) -> Result<bool, Error> {
        let hierarchy = self.issuer.hierarchy();
        let above: BTreeSet<&str> = row
            .slots
            .held()
            .into_iter()
            .filter_map(|it| hierarchy.with_certificate(it))
            .flat_map(|it| hierarchy.upwards(it.id).skip(1))
            .map(|it| it.authority.as_str())
            .collect();
        let groups = self.store.groups()?;
        let here = groups
            .iter()
            .filter(|it| it.provisioning == row.provisioning && it.id != row.id);
        Ok(here
            .filter_map(|it| it.authority.as_deref())
            .any(|it| above.contains(it)))
    }

    /// Returns the desired state of this row at the service; `None` if it is to be removed.
    pub fn desired(&self, row: &EnrollmentRow) -> Result<Option<Desired>, Error> {
        let kind = if row.by_reference {
            self.group_by_reference(row)?
        } else {
            self.holder_of_certificates(row)?
        };
        let status = if row.enabled {
            Status::Enabled
        } else {
            Status::Disabled
        };
        Ok(kind.filter(|_| !row.leaving).map(|kind| Desired {
            kind,
            status,
            // Left to the service and to its other clients.
            reprovision_policy: None,
            hubs: None,
        }))
    }

    fn holder_of_certificates(&self, row: &EnrollmentRow) -> Result<Option<Kind>, Error> {
        let primary = self.slot_certificate(row.slots.in_slot(SlotName::Primary))?;
        let secondary = self.slot_certificate(row.slots.in_slot(SlotName::Secondary))?;
        let Some(certificates) = SlotPair::new(primary, secondary) else {
            return Ok(None);
        };
        Ok(Some(match row.kind {
            EnrollmentKind::Individual => Kind::Individual {
                id: RegistrationId::parse(&row.name).map_err(|e| unreadable(e.to_string()))?,
                device_id: None,
                certificates,
            },
            EnrollmentKind::Group => Kind::Group {
                id: group_id(row)?,
                certificates,
            },
        }))
    }

    fn group_by_reference(&self, row: &EnrollmentRow) -> Result<Option<Kind>, Error> {
        let hierarchy = self.issuer.hierarchy();
        let name = |slot| {
            let Some(thumbprint) = row.slots.in_slot(slot) else {
                return Ok(None);
            };
            match hierarchy.with_certificate(thumbprint) {
                Some(generation) => Ok(Some(generation.name())),
                None => Err(unreadable(format!(
                    "a slot names CA certificate {thumbprint}"
                ))),
            }
        };
        let references = SlotPair::new(name(SlotName::Primary)?, name(SlotName::Secondary)?);
        let id = group_id(row)?;
        Ok(references.map(|references| Kind::GroupByReference { id, references }))
    }

    fn slot_certificate(
        &self,
        thumbprint: Option<Thumbprint>,
    ) -> Result<Option<SlotCertificate>, Error> {
        let Some(thumbprint) = thumbprint else {
            return Ok(None);
        };
        match self.store.certificate_by_sha256(thumbprint.as_bytes())? {
            Some(row) => Ok(Some(SlotCertificate::new(row.der))),
            None => match self.store.placeholder(thumbprint)? {
                Some(der) => Ok(Some(SlotCertificate::new(der))),
                // An adopted enrollment holds it, and only the service has its bytes.
                None if self.store.lost_period()?.is_some() => {
                    Ok(Some(SlotCertificate::held(thumbprint)))
                }
                None => Err(unreadable(format!(
                    "a slot names certificate {thumbprint}, which is not on record"
                ))),
            },
        }
    }

    fn provisioning(&self, asked: Option<&str>) -> Result<&str, Error> {
        let known = self.services.names.join(", ");
        match (asked, self.services.names.as_slice()) {
            (Some(asked), all) => all.iter().find(|name| *name == asked).map(String::as_str),
            (None, [only]) => Some(only.as_str()),
            (None, _) => None,
        }
        .ok_or_else(|| {
            let message = match asked {
                Some(asked) => format!("there is no provisioning service {asked:?}: [{known}]"),
                None => format!("say which provisioning service: [{known}]"),
            };
            Error::invalid(Code::ProvisioningUnknown, message)
        })
    }

    fn individual_slots(&self, request: &EnrollmentRequest) -> Result<Slots, Error> {
        RegistrationId::parse(&request.name)
            .map_err(|error| Error::invalid(error.code(), error.to_string()))?;
        canary::refuse_reserved(&request.name)?;
        match &request.authority {
            None => Ok(Slots::Empty),
            Some(_) => Err(Error::invalid(
                Code::EnrollmentInvalid,
                "an individual enrollment has no authority; leave it out, or add a group",
            )),
        }
    }

    fn group_slots(&self, request: &EnrollmentRequest) -> Result<Slots, Error> {
        EnrollmentGroupId::parse(&request.name)
            .map_err(|error| Error::invalid(error.code(), error.to_string()))?;
        let Some(authority) = &request.authority else {
            let message = "a group is the devices below an authority; name it";
            return Err(Error::invalid(Code::EnrollmentInvalid, message));
        };
        let hierarchy = self.issuer.hierarchy();
        let generation = hierarchy.serving(authority).ok_or_else(|| {
            let message = format!(
                "there is no authority {authority:?} with a certificate; `hallmark authority list` \
                 has all"
            );
            Error::missing(Code::AuthorityUnknown, message)
        })?;
        // A compromised or blocked authority gets no new group.
        hierarchy.signing(authority)?;
        Slots::Empty
            .serve(generation.thumbprint())
            .map_err(|refusal| Error::conflict(refusal.code(), refusal.to_string()))
    }
}

fn group_id(row: &EnrollmentRow) -> Result<EnrollmentGroupId, Error> {
    EnrollmentGroupId::parse(&row.name).map_err(|error| unreadable(error.to_string()))
}

fn unreadable(error: String) -> Error {
    Error::stop(Code::StoreUnreadable, error)
}
