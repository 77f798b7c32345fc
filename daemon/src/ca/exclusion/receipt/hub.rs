//! Reports how far hubs are with the identities of excluded devices.

use crate::ca::Error;
use crate::ca::exclusion::Exclusions;
use crate::ca::exclusion::place::{Place, PlaceCode};
use crate::enrollment::roll::{HubPolicy, LeafDetail};
use crate::store::{EnrollmentRow, HubCause, HubProgress, RollRow};
use serde_json::json;

impl Exclusions {
    /// Returns the answer of a hub to the compromise of a device.
    pub(super) fn hub_place_of(
        &self,
        roll: &RollRow,
        enrollment: &EnrollmentRow,
    ) -> Result<Place, Error> {
        let service = &enrollment.provisioning;
        let detail: LeafDetail = serde_json::from_value(roll.detail.clone()).unwrap_or_default();
        if detail.hub == Some(HubPolicy::Reprovision) {
            let answer = "left in place as asked: the compromised leaf opens the hub until the device \
                          has registered with its new one";
            let parameters = json!({ "device": enrollment.name });
            return Ok(Place::hub(
                service,
                PlaceCode::IdentityKept,
                parameters,
                answer,
            ));
        }
        self.hub_place(&[HubCause::Roll(roll.id)], service)
    }

    /// Returns how far the deletions of identities at one service's hub are, for all these causes.
    pub(in crate::ca) fn hub_place(
        &self,
        causes: &[HubCause],
        service: &str,
    ) -> Result<Place, Error> {
        if !self.services.hubs.contains_key(service) {
            let answer =
                "no [provisioning.hub] is configured: delete the identities there yourself";
            let code = PlaceCode::HubNotConfigured;
            return Ok(Place::hub(service, code, json!({}), answer));
        }
        let mut progress = HubProgress::default();
        let mut failure = None;
        for cause in causes {
            let one = self.store.hub_progress(*cause, Some(service))?;
            if one.failing > 0 && failure.is_none() {
                let tasks = self.store.hub_tasks(*cause, 1)?;
                failure = tasks.into_iter().find_map(|task| task.last_error);
            }
            progress = progress.plus(&one);
        }
        let code = match progress.open() {
            0 => PlaceCode::IdentitiesDeleted,
            _ => PlaceCode::IdentitiesPending,
        };
        let mut parameters = json!({ "done": progress.done, "total": progress.total });
        let mut answer = self.hub_progress_in_words(service, progress);
        if let Some(error) = failure {
            answer = format!("{answer}; {error}");
            parameters["reason"] = json!(error);
        }
        Ok(Place::hub(service, code, parameters, answer))
    }

    /// Returns how far work at one service's hub is, and when it will be done.
    pub fn hub_progress_in_words(&self, service: &str, progress: HubProgress) -> String {
        in_words(progress, self.services.hubs.get(service).copied())
    }
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
