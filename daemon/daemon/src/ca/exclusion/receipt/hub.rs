//! Reports how far hubs are with the identities of excluded devices.
//!
//! Each device is counted once, however many rolls ask for it. An identity in a hub that is not
//! configured is open, by the name of that hub, because nothing can be observed there from here.

use crate::ca::Error;
use crate::ca::exclusion::Exclusions;
use crate::ca::exclusion::place::{Place, PlaceCode};
use crate::enrollment::roll::{HubPolicy, LeafDetail};
use crate::store::{
    Elsewhere, EnrollmentRow, HubCause, HubDeletions, HubProgress, RollRow, WithoutPlace,
};
use serde_json::json;
use std::collections::BTreeSet;

impl Exclusions {
    /// Returns the answer of a hub to the compromise of a device.
    pub(super) fn hub_places_of(
        &self,
        roll: &RollRow,
        enrollment: &EnrollmentRow,
    ) -> Result<Vec<Place>, Error> {
        let service = &enrollment.provisioning;
        if hub_policy(roll) == HubPolicy::Reprovision {
            return Ok(vec![kept_place(service, &enrollment.name)]);
        }
        self.hub_places(&[HubCause::Roll(roll.id)], service)
    }

    /// Returns the answers of the hubs of services, but for `own`, that have no roll of a
    /// compromised device.
    pub(super) fn hub_places_without_roll(
        &self,
        device: &str,
        hub: HubPolicy,
        own: &BTreeSet<String>,
    ) -> Result<Vec<Place>, Error> {
        let mut places = Vec::new();
        let mut services = BTreeSet::from_iter(self.services.names.iter().cloned());
        let causes = [HubCause::Device];
        services.extend(self.store.services_with_deletions(&causes, Some(device))?);
        for service in services.difference(own) {
            let Some(rate) = self.services.hubs.get(service).copied() else {
                places.push(hub_not_configured(service));
                continue;
            };
            if hub == HubPolicy::Reprovision {
                places.push(kept_place(service, device));
                continue;
            }
            let deletions = self.store.hub_deletions_of_device(device, service)?;
            if deletions != HubDeletions::default() {
                places.extend(deletion_places(service, &deletions, rate));
            } else if self.store.is_compromised(device, self.issuer.now())? {
                places.push(never_asked(service, device));
            }
        }
        Ok(places)
    }

    /// Returns how far the deletions of identities at the hubs of one service are, for all these
    /// causes, which are all rolls or all blocks.
    pub(in crate::ca) fn hub_places(
        &self,
        causes: &[HubCause],
        service: &str,
    ) -> Result<Vec<Place>, Error> {
        let Some(rate) = self.services.hubs.get(service).copied() else {
            return Ok(vec![hub_not_configured(service)]);
        };
        let deletions = self.store.hub_deletions(causes, service)?;
        Ok(deletion_places(service, &deletions, rate))
    }

    /// Returns how far work at one service's hub is, and when it will be done.
    pub fn hub_progress_in_words(&self, service: &str, progress: HubProgress) -> String {
        in_words(progress, self.services.hubs.get(service).copied())
    }
}

/// Returns what a compromise asks for the identity of its device.
pub(super) fn hub_policy(roll: &RollRow) -> HubPolicy {
    let detail: LeafDetail = serde_json::from_value(roll.detail.clone()).unwrap_or_default();
    detail.hub.unwrap_or_default()
}

fn hub_not_configured(service: &str) -> Place {
    let answer = "no [provisioning.hub] is configured: delete the identities there yourself";
    Place::hub(service, PlaceCode::HubNotConfigured, json!({}), answer)
}

fn never_asked(service: &str, device: &str) -> Place {
    let answer = format!(
        "the hub was never asked to delete the identity of {device} for this compromise: repeat it"
    );
    let parameters = json!({ "device": device });
    Place::hub(service, PlaceCode::IdentitiesUnknown, parameters, answer)
}

fn kept_place(service: &str, device: &str) -> Place {
    let answer = "left in place as asked: the compromised leaf opens the hub until the device \
                  has registered with its new one";
    let parameters = json!({ "device": device });
    Place::hub(service, PlaceCode::IdentityKept, parameters, answer)
}

fn deletion_places(service: &str, deletions: &HubDeletions, rate: u32) -> Vec<Place> {
    let mut places = Vec::new();
    let without_place = &deletions.without_place;
    let is_known = deletions.elsewhere.is_empty() && without_place.count == 0;
    if deletions.progress.total > 0 || is_known {
        places.push(configured_place(service, deletions, rate));
    }
    if without_place.count > 0 {
        places.push(place_of_unnamed(service, without_place));
    }
    let elsewhere = deletions.elsewhere.iter();
    places.extend(elsewhere.map(|it| place_elsewhere(service, it)));
    places
}

fn configured_place(service: &str, deletions: &HubDeletions, rate: u32) -> Place {
    let progress = deletions.progress;
    let code = match progress.open() {
        0 => PlaceCode::IdentitiesDeleted,
        _ => PlaceCode::IdentitiesPending,
    };
    let kept = deletions.kept;
    let mut parameters = json!({ "done": progress.done, "total": progress.total, "kept": kept });
    let mut answer = in_words(progress, Some(rate));
    if kept > 0 {
        answer = format!("{answer}, {kept} kept: the hub knows the device by its good leaf");
    }
    if let Some(error) = &deletions.last_error {
        answer = format!("{answer}; {error}");
        parameters["reason"] = json!(error);
    }
    Place::hub(service, code, parameters, answer)
}

fn place_of_unnamed(service: &str, unnamed: &WithoutPlace) -> Place {
    let WithoutPlace { count, devices } = unnamed;
    let named = named_of(devices, *count);
    let answer = format!(
        "the registration was deleted before it was seen to name a hub, and no configured hub has \
         an identity of this id: look for it at every hub of {service}, also under other device \
         ids, and delete it there: {named}"
    );
    let parameters = json!({ "total": count, "devices": devices });
    Place::hub(service, PlaceCode::IdentitiesUnknown, parameters, answer)
}

/// The first names, and how many more there are.
fn named_of(names: &[String], count: i64) -> String {
    let named = names.join(", ");
    match count - names.len() as i64 {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn place_elsewhere(service: &str, elsewhere: &Elsewhere) -> Place {
    let Elsewhere {
        hub,
        count,
        device_ids,
    } = elsewhere;
    let named = named_of(device_ids, *count);
    let answer = format!(
        "the registration last named this hub, and no [[provisioning.hub]] does: add it and \
         reload, and the daemon deletes the identity, or delete it there yourself: {named}"
    );
    let parameters = json!({ "hub": hub, "total": count, "device_ids": device_ids });
    Place::hub_named(hub, service, parameters, answer)
}

/// `1240 of 9800 done; the rest in about 9 min at 1000 operations a minute`.
fn in_words(progress: HubProgress, rate: Option<u32>) -> String {
    let mut words = format!("{} of {} done", progress.done, progress.total);
    for (count, what) in [
        (progress.notified, "notified"),
        (progress.offline, "offline"),
        (progress.unanswered, "ended without an answer"),
    ] {
        if count > 0 {
            words = format!("{words}, {count} {what}");
        }
    }
    if progress.jobs > 0 {
        let HubProgress {
            jobs, jobs_ended, ..
        } = progress;
        return format!("{words}; {jobs_ended} of {jobs} jobs have ended");
    }
    if let Some(rate) = rate.filter(|_| progress.open() > 0) {
        let per_minute = i64::from(rate).max(1);
        let minutes = (progress.open() + per_minute - 1) / per_minute;
        return format!("{words}; the rest in about {minutes} min at {rate} operations a minute");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_elsewhere_are_named_and_counted() {
        let elsewhere = |count| Elsewhere {
            hub: "two.azure-devices.net".into(),
            count,
            device_ids: vec!["press-7".into(), "press-8".into()],
        };
        let place = place_elsewhere("factory", &elsewhere(2));
        assert_eq!(place.place, "hub: two.azure-devices.net");
        assert!(place.answer.ends_with(": press-7, press-8"), "{place:?}");
        let place = place_elsewhere("factory", &elsewhere(9));
        assert!(
            place.answer.ends_with(": press-7, press-8 and 7 more"),
            "{place:?}"
        );
    }

    #[test]
    fn progress_says_how_far_and_how_long() {
        let progress = |total, done, offline| HubProgress {
            total,
            done,
            offline,
            ..HubProgress::default()
        };
        for (progress, rate, words) in [
            (
                progress(9_800, 1_240, 0),
                Some(1_000),
                "1240 of 9800 done; the rest in about 9 min at 1000 operations a minute",
            ),
            (progress(2, 2, 1), Some(100), "2 of 2 done, 1 offline"),
            (
                HubProgress {
                    notified: 1,
                    jobs: 2,
                    jobs_ended: 1,
                    ..progress(3, 1, 1)
                },
                Some(100),
                "1 of 3 done, 1 notified, 1 offline; 1 of 2 jobs have ended",
            ),
            (progress(2, 1, 0), None, "1 of 2 done"),
        ] {
            assert_eq!(in_words(progress, rate), words);
        }
    }
}
