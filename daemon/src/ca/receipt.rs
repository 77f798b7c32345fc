//! Makes receipts: the answer of each place to an exclusion.
//!
//! A provisioning service reads no revocation list, a hub knows one leaf by its thumbprint, and
//! neither knows of the other. So each place gets its own change, and has its own line. A receipt
//! must never call a place done that was not observed.

use super::hierarchy::Generation;
use super::{CertificateAuthority, Error, rfc3339};
use crate::enrollment::roll::{HubPolicy, LeafDetail, RollState};
use crate::store::{
    EnrollmentKind, EnrollmentRow, HubCause, HubProgress, IndividualsBelow, RollRow, RollSubject,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The answer of each place.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Receipt {
    /// Whether every place has answered.
    pub complete: bool,
    /// Place by place.
    pub places: Vec<Place>,
}

/// One place, and what it answered.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// `crl`, `dps: NAME` or `hub: NAME`.
    pub place: String,
    /// How it stands.
    pub state: PlaceState,
    /// In words.
    pub answer: String,
}

/// How a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceState {
    /// Observed in the desired state.
    Done,
    /// Not yet, and why.
    Pending,
    /// Nothing is done there, and an operator has to know.
    Open,
}

impl Place {
    pub(super) fn new(place: String, state: PlaceState, answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self {
            place,
            state,
            answer,
        }
    }
}

impl From<Vec<Place>> for Receipt {
    fn from(places: Vec<Place>) -> Self {
        let pending = |it: &Place| it.state == PlaceState::Pending;
        Self {
            complete: !places.iter().any(pending),
            places,
        }
    }
}

impl CertificateAuthority {
    /// The answers of all places to the compromise of a device.
    pub fn compromise_receipt(&self, device: &str, rolls: &[i64]) -> Result<Receipt, Error> {
        let mut places = vec![self.crl_place(device)?];
        for roll in rolls {
            let roll = self.store.roll(*roll)?;
            let RollSubject::Enrollment { id, .. } = roll.subject else {
                continue;
            };
            let enrollment = self.store.enrollment(id)?;
            places.push(service_place(&enrollment));
            places.push(self.hub_place_of(&roll, &enrollment)?);
        }
        for row in self.store.enrollments_named(device)? {
            let is_own = row.kind == EnrollmentKind::Individual;
            if is_own && !self.provisioning.contains(&row.provisioning) {
                places.push(not_configured(&row.provisioning));
            }
        }
        Ok(places.into())
    }

    /// The answers of all places to the compromise of an authority and those below it.
    pub fn authority_receipt(&self, rolls: &[i64]) -> Result<Receipt, Error> {
        let answer = "the certificate is revoked; what it signed is void with it";
        let mut places = vec![Place::new("crl".into(), PlaceState::Done, answer)];
        let read = || -> Result<Vec<RollRow>, Error> {
            let rows = rolls.iter().map(|id| self.store.roll(*id));
            Ok(rows.collect::<Result<_, _>>()?)
        };
        // A rollover may take a step at the same time. Services are read first, then rollovers,
        // then hubs: each step moves its work from an earlier one of these to a later one.
        let late = self.late_services(&read()?)?;
        let rolls = read()?;
        for roll in &rolls {
            if let RollSubject::Authority { old_generation, .. } = roll.subject {
                places.extend(self.elsewhere_place(old_generation));
            }
        }
        let told = rolls
            .iter()
            .all(|roll| !matches!(roll.state, RollState::ShuttingOut));
        for service in &self.provisioning {
            let (state, answer) = match late.get(service) {
                Some(waits) => (PlaceState::Pending, waits.join("; ")),
                None => (PlaceState::Done, "accepts nothing below it".into()),
            };
            places.push(Place::new(format!("dps: {service}"), state, answer));
            places.push(self.hubs_place(&rolls, service, told)?);
        }
        let gone = late.keys().filter(|it| !self.provisioning.contains(it));
        places.extend(gone.map(|it| not_configured(it)));
        Ok(places.into())
    }

    /// Returns the observed state of an enrollment at its provisioning service; `Open` where no
    /// such service is configured.
    pub(super) fn observed_place(&self, row: &EnrollmentRow) -> Place {
        if self.provisioning.contains(&row.provisioning) {
            return service_place(row);
        }
        not_configured(&row.provisioning)
    }

    /// Returns how far a service follows in many individual enrollments.
    pub(super) fn individuals_place(&self, them: &IndividualsBelow) -> Place {
        let service = &them.provisioning;
        if !self.provisioning.contains(service) {
            return not_configured(service);
        }
        let settled = them.total - them.open;
        let total = them.total;
        let state = match them.open {
            0 => PlaceState::Done,
            _ => PlaceState::Pending,
        };
        let mut answer = format!("{settled} of {total} individual enrollments are as desired");
        if let Some(error) = &them.last_error {
            answer = format!("{answer}: {error}");
        }
        Place::new(format!("dps: {service}"), state, answer)
    }

    /// A certificate of an external issuer is revoked there, which cannot be observed here.
    pub(super) fn elsewhere_place(&self, generation: i64) -> Option<Place> {
        let hierarchy = self.hierarchy();
        let generation = hierarchy.generation(generation)?;
        let issuer = &generation.foreign.first()?.certificate;
        let answer = format!(
            "tell it to revoke the certificate of {} with serial {}: nothing here is on its list",
            generation.authority,
            generation.certificate.serial()
        );
        let place = format!("issuer: {}", issuer.subject());
        Some(Place::new(place, PlaceState::Open, answer))
    }

    /// The open steps of services before the compromised certificates are excluded, as sentences.
    fn late_services(&self, rolls: &[RollRow]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut late: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for roll in rolls {
            let authority = roll.subject.name();
            let mut groups = self.store.groups_of(authority)?;
            groups.extend(self.store.blocking_groups_of(authority)?);
            for group in groups.into_iter().filter(|it| it.mark.is_some()) {
                let error = group.mark.and_then(|mark| mark.last_error);
                let error = error.map_or(String::new(), |error| format!(" ({error})"));
                let waits = late.entry(group.provisioning).or_default();
                waits.push(format!("group {} is being changed{error}", group.name));
            }
            for (service, waits) in self.yet_to_leave(roll)? {
                late.entry(service).or_default().push(waits);
            }
        }
        for (service, waits) in self.late_individuals(rolls)? {
            late.entry(service).or_default().push(waits);
        }
        for held in self
            .store
            .ca_certificates()?
            .into_iter()
            .filter(|it| it.removed)
        {
            let waits = late.entry(held.provisioning).or_default();
            waits.push(format!("CA certificate {} is being deleted", held.name));
        }
        Ok(late)
    }

    /// Returns the services that do not follow yet in the individual enrollments of devices below,
    /// which take precedence over every group.
    fn late_individuals(&self, rolls: &[RollRow]) -> Result<Vec<(String, String)>, Error> {
        let hierarchy = self.hierarchy();
        let mut below = BTreeSet::new();
        for roll in rolls {
            if let RollSubject::Authority { old_generation, .. } = roll.subject {
                below.extend(hierarchy.subtree(old_generation));
            }
        }
        let individuals = self.store.individuals_below(&below, self.now())?;
        let late = individuals.into_iter().filter(|it| it.open > 0);
        Ok(late
            .map(|it| {
                let waits = self.individuals_place(&it).answer;
                (it.provisioning, waits)
            })
            .collect())
    }

    /// Groups that are disabled because they hold the compromised certificate and nothing else,
    /// below groups that would accept it. The service takes a certificate in one enrollment only:
    /// when the next one takes its place, no enrollment holds the compromised one for a moment,
    /// until a disabled group of its own has it.
    fn yet_to_leave(&self, roll: &RollRow) -> Result<Vec<(String, String)>, Error> {
        let RollSubject::Authority {
            name,
            old_generation,
            ..
        } = &roll.subject
        else {
            return Ok(Vec::new());
        };
        let is_over = matches!(roll.state, RollState::Done | RollState::Aborted);
        if is_over || !self.has_groups_above(*old_generation)? {
            return Ok(Vec::new());
        }
        let holding = self
            .store
            .groups_of(name)?
            .into_iter()
            .filter(|it| it.slots.held().contains(&roll.old_certificate));
        let waits = holding.map(|group| {
            let waits = format!(
                "group {} is disabled; when the next generation takes its place there, groups above \
                 may let devices in for a moment, which is then undone",
                group.name
            );
            (group.provisioning, waits)
        });
        Ok(waits.collect())
    }

    fn hubs_place(&self, rolls: &[RollRow], service: &str, told: bool) -> Result<Place, Error> {
        if !told && self.hubs.contains_key(service) {
            let answer = "identities are deleted when the provisioning service has answered";
            return Ok(Place::new(
                format!("hub: {service}"),
                PlaceState::Pending,
                answer,
            ));
        }
        let mut slowest = self.hub_place(HubCause::Roll(rolls[0].id), service)?;
        for roll in rolls {
            let place = self.hub_place(HubCause::Roll(roll.id), service)?;
            let some = self
                .store
                .hub_progress(HubCause::Roll(roll.id), Some(service))?;
            if place.state == PlaceState::Pending || some.total > 0 {
                slowest = place;
            }
            if slowest.state == PlaceState::Pending {
                break;
            }
        }
        Ok(slowest)
    }

    fn hub_place_of(&self, roll: &RollRow, enrollment: &EnrollmentRow) -> Result<Place, Error> {
        let detail: LeafDetail = serde_json::from_value(roll.detail.clone()).unwrap_or_default();
        if detail.hub == Some(HubPolicy::Reprovision) {
            let answer = "left in place as asked: the compromised leaf opens the hub until the device \
                          has registered with its new one";
            let place = format!("hub: {}", enrollment.provisioning);
            return Ok(Place::new(place, PlaceState::Open, answer));
        }
        self.hub_place(HubCause::Roll(roll.id), &enrollment.provisioning)
    }

    /// How far the deletions of identities at one service's hub are.
    pub(super) fn hub_place(&self, cause: HubCause, provisioning: &str) -> Result<Place, Error> {
        let place = format!("hub: {provisioning}");
        if !self.hubs.contains_key(provisioning) {
            let answer =
                "no [provisioning.hub] is configured: delete the identities there yourself";
            return Ok(Place::new(place, PlaceState::Open, answer));
        }
        let progress = self.store.hub_progress(cause, Some(provisioning))?;
        let state = match progress.open() {
            0 => PlaceState::Done,
            _ => PlaceState::Pending,
        };
        let mut answer = self.hub_progress_in_words(provisioning, progress);
        let failing = self.store.hub_tasks(cause, 1)?;
        if let Some(error) = failing.into_iter().find_map(|task| task.last_error)
            && progress.failing > 0
        {
            answer = format!("{answer}; {error}");
        }
        Ok(Place::new(place, state, answer))
    }

    /// How far work at one service's hub is, and when it will be done.
    pub fn hub_progress_in_words(&self, provisioning: &str, progress: HubProgress) -> String {
        in_words(progress, self.hubs.get(provisioning).copied())
    }

    /// Checks whether a device's leaves are on the revocation lists of their issuers. That alone
    /// excludes it nowhere.
    pub(super) fn crl_place(&self, device: &str) -> Result<Place, Error> {
        let living = self.living_leaves(device)?;
        let revoked: Vec<_> = living.iter().filter(|it| it.revoked_at.is_some()).collect();
        let says = format!(
            "{} of {} leaves that have not expired are revoked",
            revoked.len(),
            living.len()
        );
        self.listed_place(living.iter().map(|leaf| leaf.issuer), &says)
    }

    /// Whether the revocation lists of these generations say what is on record.
    pub(super) fn listed_place(
        &self,
        generations: impl Iterator<Item = i64>,
        says: &str,
    ) -> Result<Place, Error> {
        let place = || "crl".to_owned();
        let hierarchy = self.hierarchy();
        let mut lists = Vec::new();
        for id in generations.collect::<BTreeSet<i64>>() {
            // An issuer that has expired or is revoked signs no more lists, and none of its leaves
            // is valid.
            let living = |it: &&Arc<Generation>| {
                it.certificate.not_after() >= self.now() && hierarchy.revoked_above(it.id).is_none()
            };
            let Some(generation) = hierarchy.generation(id).filter(living) else {
                continue;
            };
            let name = format!("{}-{}", generation.authority, generation.number);
            if !self.crls.is_listed(id)? {
                let answer = format!("{says}; the list of {name} is yet to be signed");
                return Ok(Place::new(place(), PlaceState::Pending, answer));
            }
            if let Some(list) = self.crls.current(id) {
                lists.push(format!("list {} of {name}", list.number));
            }
        }
        let answer = if lists.is_empty() {
            says.to_owned()
        } else {
            format!("{says}; {} says so", lists.join(", "))
        };
        Ok(Place::new(place(), PlaceState::Done, answer))
    }
}

/// Adds what else a place has answered: it has one line in a receipt, and is done when all is done.
pub(super) fn add(places: &mut Vec<Place>, more: Place) {
    let Some(place) = places.iter_mut().find(|it| it.place == more.place) else {
        return places.push(more);
    };
    if place.answer != more.answer {
        place.answer = format!("{}; {}", place.answer, more.answer);
    }
    if place.state == PlaceState::Done {
        place.state = more.state;
    }
}

/// A service that left the configuration is neither observed nor changed.
fn not_configured(service: &str) -> Place {
    let answer = format!(
        "provisioning service {service} is not configured, and may admit what is excluded: \
         configure it, or change its enrollments there yourself"
    );
    Place::new(format!("dps: {service}"), PlaceState::Open, answer)
}

/// The observed state at the provisioning service.
pub(super) fn service_place(row: &EnrollmentRow) -> Place {
    let place = format!("dps: {}", row.provisioning);
    let kind = row.kind.name();
    let name = &row.name;
    let Some(mark) = &row.mark else {
        if let Some(drift) = &row.drift {
            let answer = format!("another client has changed {kind} enrollment {name}: {drift}");
            return Place::new(place, PlaceState::Pending, answer);
        }
        let seen = row.observed_at.map(rfc3339).unwrap_or_default();
        let answer = if row.enabled {
            format!("{kind} enrollment {name} holds good certificates only, seen {seen}")
        } else {
            format!("{kind} enrollment {name} is disabled, seen {seen}")
        };
        return Place::new(place, PlaceState::Done, answer);
    };
    let why = mark.last_error.as_deref().unwrap_or("not answered yet");
    let answer = if mark.parked {
        format!("{kind} enrollment {name} was rejected: {why}")
    } else {
        format!("{kind} enrollment {name} is on its way: {why}")
    };
    Place::new(place, PlaceState::Pending, answer)
}

/// `1240 of 9800 done; the rest in about 9 min at 1000 operations a minute`.
fn in_words(progress: HubProgress, rate: Option<u32>) -> String {
    let mut words = format!("{} of {} done", progress.done, progress.total);
    for (count, what) in [
        (progress.told, "told"),
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
                    told: 1,
                    jobs: 2,
                    jobs_ended: 1,
                    ..progress(3, 1, 1)
                },
                Some(100),
                "1 of 3 done, 1 told, 1 offline; 1 of 2 jobs have ended",
            ),
            (progress(2, 1, 0), None, "1 of 2 done"),
        ] {
            assert_eq!(in_words(progress, rate), words);
        }
    }
}
