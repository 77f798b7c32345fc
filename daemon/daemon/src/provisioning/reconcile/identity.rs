//! Finds the hub identity of a device by its registration record, and deletes it.
//!
//! One provisioning service assigns devices to several hubs, and an enrollment may name another
//! device id than the registration id. So the record says where an identity is, and a hub's 404 for
//! the registration id says nothing while the record names another hub or id. An identity from
//! before, under the registration id or the enrollment's device id, is deleted at each configured
//! hub, too.

use super::{Failure, Reconciler};
use crate::ca::exclusion::hub_identity::IdentityHolder;
use crate::enrollment::hub_identity::{HubIdentity, HubPlace};
use crate::enrollment::id::RegistrationId;
use crate::enrollment::record::Record;
use crate::provisioning::failure::CallError;
use crate::provisioning::hub::{DirectMethod, HubClient, MethodOutcome};
use crate::provisioning::registration::RegistrationRecord;
use crate::store::{Deletion, EnrollmentKind, EnrollmentRow, HubAnswer, HubCause};
use serde_json::Value;

/// A device whose identity is deleted, and why.
#[derive(Clone)]
pub(super) struct Deleted {
    pub(super) device: String,
    /// The roll or block; `None` for a canary.
    pub(super) cause: Option<HubCause>,
}

/// The identity of a device, as read through its registration record.
pub(super) enum Observed {
    /// Read at its hub; `None` if there is none.
    Identity(Option<HubIdentity>),
    /// In a hub that is not configured.
    Elsewhere(HubPlace),
}

/// The fate of one identity.
enum Fate {
    Deleted,
    Absent,
    Good,
    OfAnother(String),
}

impl Reconciler {
    /// Reads the registration record of a device.
    pub(super) async fn registration(
        &self,
        device: &str,
    ) -> Result<Option<RegistrationRecord>, CallError> {
        match RegistrationId::parse(device) {
            Ok(id) => self.clients.dps.registration(&id).await,
            Err(_) => Ok(None),
        }
    }

    /// Deletes the identity that the registration record names, and those from before.
    pub(super) async fn delete_identities(&self, deleted: &Deleted) -> Result<HubAnswer, Failure> {
        let device = &deleted.device;
        let record = self.registration(device).await?.unwrap_or_default();
        if record.is_assigning() {
            return Err(Failure::There(CallError::Transient {
                operation: format!("delete the hub identity of {device}"),
                reason: "the provisioning service is assigning the device to a hub now".into(),
                retry_after: None,
                lost_answer: false,
            }));
        }
        let named = record.place();
        let last = self.last_place(device, named.as_ref()).await?;
        let mut fates = Vec::new();
        if let Some(place) = &named
            && let Some(hub) = self.clients.hubs.find(&place.hub)
        {
            let fate = self.delete_named(hub, &place.device_id, deleted).await?;
            fates.push((place.clone(), fate));
        }
        for place in self
            .places_from_before(device, named.as_ref(), last.as_ref())
            .await?
        {
            let Some(hub) = self.clients.hubs.find(&place.hub) else {
                continue;
            };
            let fate = self
                .delete_leftover(hub, &place.device_id, deleted, named.is_some())
                .await?;
            fates.push((place, fate));
        }
        let is_named = named.is_some() || last.is_some();
        let elsewhere = named
            .or(last)
            .filter(|it| self.clients.hubs.find(&it.hub).is_none());
        if is_named {
            return Ok(answer(elsewhere, &fates));
        }
        let found = |(place, fate): &(HubPlace, Fate)| {
            matches!(fate, Fate::Deleted | Fate::Good).then(|| place.clone())
        };
        if let Some(place) = fates.iter().find_map(found) {
            // A repeated deletion finds nothing there, and must not call the place unknown.
            self.last_place(device, Some(&place)).await?;
        } else if deleted.cause.is_some() && self.may_have_lost(device, &record).await? {
            return Ok(without_place(&fates));
        }
        Ok(answer(None, &fates))
    }

    /// Returns whether the service may have assigned the device to a hub that nothing names now:
    /// its individual enrollment, or the registration record with it, went before it was observed
    /// to name one. `record` names no hub.
    async fn may_have_lost(
        &self,
        device: &str,
        record: &RegistrationRecord,
    ) -> Result<bool, Failure> {
        let service = self.name.clone();
        let asked = device.to_owned();
        let read = self.blocking(move |ca| {
            let store = ca.store();
            let mut rows = store.enrollments_named(&asked)?;
            rows.retain(|it| it.kind == EnrollmentKind::Individual && it.provisioning == service);
            Ok((store.is_place_lost(&service, &asked)?, rows.pop()))
        });
        let (is_lost, row) = read.await?;
        let may_have_assigned = |row: &EnrollmentRow| {
            let observed = row.observed.as_ref();
            observed.is_some_and(|it| may_have_assigned(row, it, record))
        };
        Ok(is_lost || row.as_ref().is_some_and(may_have_assigned))
    }

    /// Records the place that the registration record names; without one, returns the place that it
    /// last named. The service deletes the record with the enrollment, and the identity stays.
    async fn last_place(
        &self,
        device: &str,
        named: Option<&HubPlace>,
    ) -> Result<Option<HubPlace>, Failure> {
        let service = self.name.clone();
        let device = device.to_owned();
        let Some(named) = named.cloned() else {
            let last = self.blocking(move |ca| Ok(ca.store().hub_place(&service, &device)?));
            return Ok(last.await?);
        };
        let place = named.clone();
        self.blocking(move |ca| Ok(ca.store().record_hub_place(&service, &device, place)?))
            .await?;
        Ok(Some(named))
    }

    /// Records the place of a device whose individual enrollment, `observed`, is about to be
    /// deleted. Its registration record goes with it, so nothing at the service names the identity
    /// from then on.
    pub(super) async fn keep_place(
        &self,
        device: &RegistrationId,
        row: &EnrollmentRow,
        observed: Option<&Record>,
    ) -> Result<(), Failure> {
        let shown = observed.and_then(RegistrationRecord::of_enrollment);
        let record = match shown {
            Some(record) => Some(record),
            None => self.clients.dps.registration(device).await?,
        };
        let record = record.unwrap_or_default();
        if let Some(place) = record.place() {
            self.last_place(device.as_str(), Some(&place)).await?;
        } else if observed
            .map(|it| Value::Object(it.fields().clone()))
            .is_some_and(|it| may_have_assigned(row, &it, &record))
        {
            let service = self.name.clone();
            let device = device.as_str().to_owned();
            self.blocking(move |ca| Ok(ca.store().record_lost_place(&service, &device)?))
                .await?;
        }
        Ok(())
    }

    /// Every place at a configured hub that may have an identity of the device, although the record
    /// does not name it.
    async fn places_from_before(
        &self,
        device: &str,
        named: Option<&HubPlace>,
        last: Option<&HubPlace>,
    ) -> Result<Vec<HubPlace>, Failure> {
        let asked = device.to_owned();
        let service = self.name.clone();
        let ids = self.blocking(move |ca| ca.exclusions().hub_device_ids(&service, &asked));
        let mut ids = ids.await?;
        if let Some(last) = last.filter(|last| !ids.contains(&last.device_id)) {
            ids.push(last.device_id.clone());
        }
        let mut places = Vec::new();
        for device_id in ids {
            for hub in self.clients.hubs.iter() {
                let hub = hub.host().to_owned();
                let device_id = device_id.clone();
                places.push(HubPlace { hub, device_id });
            }
        }
        places.retain(|it| Some(it) != named);
        Ok(places)
    }

    /// Deletes the identity that the record names, unless it carries a good leaf. It is read only
    /// if the device has one: most have none then, and hubs allow few operations.
    async fn delete_named(
        &self,
        hub: &HubClient,
        device_id: &str,
        deleted: &Deleted,
    ) -> Result<Fate, Failure> {
        let asked = deleted.clone();
        let has_good_leaf =
            self.blocking(move |ca| ca.exclusions().has_good_leaf(&asked.device, asked.cause));
        if has_good_leaf.await? {
            let Some(identity) = hub.identity(device_id).await? else {
                return Ok(Fate::Absent);
            };
            if let IdentityHolder::GoodLeaf = self.holder(identity, deleted).await? {
                return Ok(Fate::Good);
            }
        }
        Ok(deletion(hub.delete(device_id).await?))
    }

    /// Deletes an identity that the record does not name, if it is the device's. With `is_assigned`
    /// the record names another one, so an identity without a certificate is not from DPS.
    async fn delete_leftover(
        &self,
        hub: &HubClient,
        device_id: &str,
        deleted: &Deleted,
        is_assigned: bool,
    ) -> Result<Fate, Failure> {
        let Some(identity) = hub.identity(device_id).await? else {
            return Ok(Fate::Absent);
        };
        if is_assigned && identity.thumbprints().is_empty() {
            return Ok(Fate::OfAnother("another program".into()));
        }
        match self.holder(identity, deleted).await? {
            IdentityHolder::GoodLeaf => Ok(Fate::Good),
            IdentityHolder::Another(other) => Ok(Fate::OfAnother(other)),
            IdentityHolder::Excluded => Ok(deletion(hub.delete(device_id).await?)),
        }
    }

    async fn holder(
        &self,
        identity: HubIdentity,
        deleted: &Deleted,
    ) -> Result<IdentityHolder, Failure> {
        let asked = deleted.clone();
        let holder = self
            .blocking(move |ca| {
                ca.exclusions()
                    .identity_holder(&identity, &asked.device, asked.cause)
            })
            .await?;
        Ok(holder)
    }

    /// Reads the identity of a device where its record says that it is; without a record, under the
    /// registration id at each configured hub.
    pub(super) async fn observe_identity(
        &self,
        device: &str,
        record: Option<&RegistrationRecord>,
    ) -> Result<Observed, CallError> {
        let hubs = &self.clients.hubs;
        let Some(place) = record.and_then(RegistrationRecord::place) else {
            for hub in hubs.iter() {
                if let Some(identity) = hub.identity(device).await? {
                    return Ok(Observed::Identity(Some(identity)));
                }
            }
            return Ok(Observed::Identity(None));
        };
        match hubs.find(&place.hub) {
            Some(hub) => hub.identity(&place.device_id).await.map(Observed::Identity),
            None => Ok(Observed::Elsewhere(place)),
        }
    }

    /// Calls a method of a device where its record says that it is; without a record, under the
    /// registration id at each configured hub.
    pub(super) async fn call_device(
        &self,
        device: &str,
        method: &DirectMethod,
    ) -> Result<HubAnswer, CallError> {
        let hubs = &self.clients.hubs;
        let record = self.registration(device).await?;
        let Some(place) = record.and_then(|it| it.place()) else {
            let mut last = MethodOutcome::NotReached { code: None };
            for hub in hubs.iter() {
                last = hub.invoke(device, method).await?;
                if matches!(last, MethodOutcome::Answered { .. }) {
                    break;
                }
            }
            return Ok(super::hub::answer_of(last));
        };
        match hubs.find(&place.hub) {
            Some(hub) => {
                let outcome = hub.invoke(&place.device_id, method).await?;
                Ok(super::hub::answer_of(outcome))
            }
            None => {
                let reason = format!("its hub {} is not configured", place.hub);
                Ok(HubAnswer::not_heard(Some(reason)))
            }
        }
    }
}

/// Returns whether the service may have assigned the device of an individual enrollment, `observed`
/// there, although its registration record names no hub. The service makes that record with the
/// enrollment, so a younger one, or none, follows one that another program has deleted. An
/// exclusion's own enrollment assigns no device while it is disabled.
fn may_have_assigned(row: &EnrollmentRow, observed: &Value, record: &RegistrationRecord) -> bool {
    let excludes_alone = row.overlay_of.is_some() && !row.enabled;
    !excludes_alone && !record.is_first_of(observed)
}

fn deletion(was_there: bool) -> Fate {
    if was_there {
        Fate::Deleted
    } else {
        Fate::Absent
    }
}

/// Sums up the deletions of one device. An identity elsewhere outweighs the others: it is open.
fn answer(elsewhere: Option<HubPlace>, fates: &[(HubPlace, Fate)]) -> HubAnswer {
    let mut words: Vec<String> = fates
        .iter()
        .map(|(place, fate)| said(place, fate))
        .collect();
    if let Some(HubPlace { hub, device_id }) = elsewhere {
        words.insert(
            0,
            format!("{device_id} is in {hub}, which is not configured"),
        );
        return HubAnswer::deletion(words.join("; "), Deletion::Elsewhere { hub, device_id });
    }
    let is_kept = fates.iter().any(|(_, fate)| matches!(fate, Fate::Good));
    let deletion = if is_kept {
        Deletion::Kept
    } else {
        Deletion::Gone
    };
    HubAnswer::deletion(words.join("; "), deletion)
}

/// The answer for a device that no configured hub has, and whose place nothing names.
fn without_place(fates: &[(HubPlace, Fate)]) -> HubAnswer {
    let mut words = vec!["no registration names its hub".to_owned()];
    words.extend(fates.iter().map(|(place, fate)| said(place, fate)));
    HubAnswer::deletion(words.join("; "), Deletion::Unknown)
}

fn said(HubPlace { hub, device_id }: &HubPlace, fate: &Fate) -> String {
    match fate {
        Fate::Deleted => format!("{device_id} deleted at {hub}"),
        Fate::Absent => format!("no {device_id} at {hub}"),
        Fate::Good => format!("{device_id} kept at {hub}: it carries the device's good leaf"),
        Fate::OfAnother(other) => format!("{device_id} kept at {hub}: it belongs to {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(hub: &str, device_id: &str) -> HubPlace {
        HubPlace {
            hub: hub.into(),
            device_id: device_id.into(),
        }
    }

    #[test]
    fn an_identity_elsewhere_is_named_first() {
        let fates = [(place("one", "press-7"), Fate::Absent)];
        let expected = HubAnswer::deletion(
            "asset-7 is in two, which is not configured; no press-7 at one",
            Deletion::Elsewhere {
                hub: "two".into(),
                device_id: "asset-7".into(),
            },
        );
        assert_eq!(answer(Some(place("two", "asset-7")), &fates), expected);
    }

    #[test]
    fn a_kept_identity_is_not_called_gone() {
        let fates = [
            (place("one", "press-7"), Fate::Good),
            (place("two", "press-7"), Fate::Deleted),
        ];
        let words =
            "press-7 kept at one: it carries the device's good leaf; press-7 deleted at two";
        assert_eq!(
            answer(None, &fates),
            HubAnswer::deletion(words, Deletion::Kept)
        );
        assert_eq!(
            answer(None, &fates[1..]),
            HubAnswer::deletion("press-7 deleted at two", Deletion::Gone)
        );
    }
}
