//! Explains an issued certificate: who asked for it and why that was allowed, what signed it, where
//! it is accepted, and what excludes it.

use super::authorize::{Authorized, Fetch};
use super::exclusion::certificate_name::CertificateName;
use super::issuer::fetch::Fetched;
use super::issuer::former::FormerRow;
use super::issuer::search::{ListedRow, Wanted};
use super::profile::Role;
use super::{CertificateAuthority, Code, Error};
use crate::enrollment::desired::Status;
use crate::enrollment::record::Record;
use crate::enrollment::slots::SlotName;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::IntentId;
use crate::store::{
    CaCertificateRow, CertificateState, EnrollmentKind, EnrollmentRow, GrantUse, ListedCertificate,
    RevocationEvent,
};
use crate::x509::revocation::RevocationReason;
use schemars::JsonSchema;
use serde::Serialize;

/// The record of a certificate besides its bytes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// The number of its intent.
    number: IntentId,
    state: CertificateState,
    asked_by: String,
    /// Why the caller might ask for it.
    permission: String,
    recorded_at: String,
    issued_at: Option<String>,
    /// `None` for a certificate that was signed elsewhere.
    signed_by: Option<SignedBy>,
    /// The revoked generation that issued it, or that is above its issuer.
    revoked_above: Option<String>,
    /// Of a device: whether it is the current leaf.
    current: Option<bool>,
    in_force: Vec<InForce>,
    /// Each change of its revocation, the newest first.
    revocations: Vec<RevocationShown>,
}

/// A change of a certificate's revocation, as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RevocationShown {
    at: String,
    by: String,
    /// `None` if a hold was lifted.
    reason: Option<&'static str>,
    cause: String,
    /// The number of the first and of the last list with the entry.
    first_list: Option<String>,
    last_list: Option<String>,
}

impl From<RevocationEvent> for RevocationShown {
    fn from(event: RevocationEvent) -> Self {
        let (first, last) = event.lists.unzip();
        Self {
            at: event.at.to_string(),
            by: event.actor,
            reason: event.reason.map(RevocationReason::name),
            cause: event.cause,
            first_list: first.map(|number| number.to_string()),
            last_list: last.map(|number| number.to_string()),
        }
    }
}

/// The key that has signed.
#[derive(Debug, Serialize, JsonSchema)]
struct SignedBy {
    token: String,
    key: String,
}

/// A place that accepts a certificate, as far as it was observed.
#[derive(Debug, Serialize, JsonSchema)]
struct InForce {
    /// `api`, `dps: NAME` or `hub: NAME`.
    place: String,
    /// The enrollment that admits it.
    enrollment: Option<String>,
    /// The slot of that enrollment with the leaf, or with a certificate above it.
    slot: Option<SlotName>,
    observed_at: Option<String>,
    answer: String,
}

/// A certificate as far as it is known.
#[derive(Debug)]
pub enum Explained {
    /// The certificate, and for callers that may fetch all certificates, its record.
    Certificate(Box<(Fetched, Option<Explanation>)>),
    /// From an import without its file.
    SerialAlone(FormerRow),
}

impl CertificateAuthority {
    /// Returns what is known of the certificate of this name.
    pub fn explain(
        &self,
        permission: &Authorized<Fetch>,
        name: &CertificateName,
    ) -> Result<Explained, Error> {
        if let Some(former) = self.former(permission, name)? {
            return Ok(Explained::SerialAlone(former));
        }
        let fetched = self.issuer().fetch(permission, name)?;
        if permission.own().is_some() {
            return Ok(Explained::Certificate(Box::new((fetched, None))));
        }
        let wanted = Wanted {
            sha256: Some(fetched.certificate.sha256),
            limit: 1,
            ..Wanted::default()
        };
        let row = self.issuer().list(permission, &wanted)?.rows.pop();
        let ListedRow { certificate, .. } =
            row.ok_or_else(|| Error::stop(Code::Internal, "a certificate has no intent"))?;
        let explanation = self.explanation(certificate)?;
        Ok(Explained::Certificate(Box::new((
            fetched,
            Some(explanation),
        ))))
    }

    /// Returns the certificate of this name with its chain.
    pub fn certificate_file(
        &self,
        permission: &Authorized<Fetch>,
        name: &CertificateName,
    ) -> Result<Fetched, Error> {
        if let Some(former) = self.former(permission, name)? {
            let serial = hex::encode_upper(&former.certificate.serial);
            let authority = former.issuer.0;
            let message = format!(
                "only serial number {serial} of {authority} is known, from an import without its \
                 file: `hallmark authority import {authority} --index FILE --certificates FOLDER` \
                 takes the file over"
            );
            return Err(Error::missing(Code::CertificateUnknown, message));
        }
        self.issuer().fetch(permission, name)
    }

    fn former(
        &self,
        permission: &Authorized<Fetch>,
        name: &CertificateName,
    ) -> Result<Option<FormerRow>, Error> {
        if permission.own().is_some() {
            return Ok(None);
        }
        let former = self.exclusions().former(name)?;
        Ok(former.map(|it| self.issuer().former_row(it)))
    }

    fn explanation(&self, it: ListedCertificate) -> Result<Explanation, Error> {
        let hierarchy = self.hierarchy();
        let signer = hierarchy.generation(it.issuer);
        let signer = signer.filter(|_| !it.signed_elsewhere);
        let revoked = hierarchy.revoked_above(it.issuer);
        Ok(Explanation {
            number: it.intent,
            state: it.state,
            permission: self.permission_in_words(&it)?,
            recorded_at: it.recorded_at.to_string(),
            issued_at: it.issued_at.map(|at| at.to_string()),
            signed_by: signer.map(|generation| SignedBy {
                token: generation.token.clone(),
                key: generation.key.label.clone(),
            }),
            revoked_above: revoked
                .map(|above| format!("generation {} of {}", above.number, above.authority)),
            current: self.is_current(&it)?,
            in_force: self.places_of(&it)?,
            revocations: self.revocations_of(it.intent)?,
            asked_by: it.caller,
        })
    }

    fn permission_in_words(&self, it: &ListedCertificate) -> Result<String, Error> {
        let grant = self.store().grant_used_by(it.intent)?;
        Ok(permission_in_words(it, grant.as_ref()))
    }

    fn revocations_of(&self, certificate: IntentId) -> Result<Vec<RevocationShown>, Error> {
        let events = self.store().revocation_events(certificate)?;
        Ok(events.into_iter().map(RevocationShown::from).collect())
    }

    fn is_current(&self, it: &ListedCertificate) -> Result<Option<bool>, Error> {
        if it.role != Some(Role::Device) {
            return Ok(None);
        }
        let device = self.store().device(&it.subject)?;
        let current = device.map(|device| *device.certificate.as_bytes());
        Ok(Some(current.is_some() && current == it.sha256))
    }

    /// Returns the places that accept it now, as far as they were observed.
    fn places_of(&self, it: &ListedCertificate) -> Result<Vec<InForce>, Error> {
        let mut places = Vec::new();
        places.extend(self.api_place(it)?);
        let (Some(Role::Device), Some(sha256)) = (it.role, it.sha256) else {
            return Ok(places);
        };
        let thumbprint = Thumbprint::from_bytes(sha256);
        let own = self.store().enrollments_named(&it.subject)?;
        let own = own
            .iter()
            .filter(|row| row.kind == EnrollmentKind::Individual);
        places.extend(own.filter_map(|row| in_force(row, &[thumbprint], true)));
        if it.not_after >= self.now() {
            places.extend(self.groups_of(it)?);
        }
        let observed = self.store().hub_observations(&it.subject)?;
        let known = observed
            .into_iter()
            .filter(|at| at.certificate == Some(thumbprint));
        places.extend(known.map(|at| InForce {
            place: format!("hub: {}", at.provisioning),
            enrollment: None,
            slot: None,
            observed_at: Some(at.seen_at.to_string()),
            answer: format!("the hub knows {} by it since {}", it.subject, at.since),
        }));
        Ok(places)
    }

    /// Returns whether the daemon accepts its holder, by the rules of `ca::issuer::client`.
    fn api_place(&self, it: &ListedCertificate) -> Result<Option<InForce>, Error> {
        let Some(role) = it.role else {
            return Ok(None);
        };
        let now = self.now();
        if now < it.not_before {
            return Ok(None);
        }
        if now > it.not_after {
            return self.late_renewal_place(it);
        }
        let way = match it.state {
            CertificateState::Valid => "",
            // Devices below a revoked generation come for new certificates, unless a block excludes
            // them.
            CertificateState::IssuerRevoked if role == Role::Device => {
                if self.store().blocked_above(it.issuer)?.is_some() {
                    return Ok(None);
                }
                ", to renew it"
            }
            _ => return Ok(None),
        };
        let subject = &it.subject;
        Ok(Some(InForce {
            place: "api".into(),
            enrollment: None,
            slot: None,
            observed_at: None,
            answer: format!("its holder is accepted as {} {subject}{way}", role.name()),
        }))
    }

    /// The same for one that has ended: its holder may renew it as `ca::issuer::late_renewal` says.
    fn late_renewal_place(&self, it: &ListedCertificate) -> Result<Option<InForce>, Error> {
        let until = self.issuer().renews_late_until(&it.profile, it.not_after);
        let Some(until) = until.filter(|_| it.state == CertificateState::Expired) else {
            return Ok(None);
        };
        if self.hierarchy().revoked_above(it.issuer).is_some() || self.is_current(it)? != Some(true)
        {
            return Ok(None);
        }
        let subject = &it.subject;
        Ok(Some(InForce {
            place: "api".into(),
            enrollment: None,
            slot: None,
            observed_at: None,
            answer: format!(
                "it has ended, and device {subject} is accepted until {until}, to renew it once"
            ),
        }))
    }

    /// Returns the groups that admit it because they hold a certificate above it, and those that
    /// another program has changed.
    fn groups_of(&self, it: &ListedCertificate) -> Result<Vec<InForce>, Error> {
        let hierarchy = self.hierarchy();
        let above: Vec<_> = hierarchy
            .upwards(it.issuer)
            .map(|it| it.thumbprint())
            .collect();
        let mut groups = self.exclusions().groups_accepting(it.issuer, &it.subject)?;
        let mut others = self.store().groups()?;
        others.retain(|row| row.drift.is_some() && groups.iter().all(|it| it.id != row.id));
        groups.append(&mut others);
        let mut verified = self.store().ca_certificates()?;
        verified.retain(CaCertificateRow::is_verified);
        let mut places = Vec::new();
        for row in &groups {
            let mut fitting = row.slots.held();
            fitting.retain(|it| above.contains(it));
            let is_verified = verified.iter().any(|it| {
                let generation = hierarchy.generation(it.generation);
                it.provisioning == row.provisioning
                    && generation.is_some_and(|its| fitting.contains(&its.thumbprint()))
            });
            places.extend(in_force(row, &above, is_verified || !row.by_reference));
        }
        Ok(places)
    }
}

/// Returns the enrollment's place if a slot of it is to hold one of these, or holds one since
/// another program has changed it. A disabled enrollment is none once the service was observed with
/// it. `is_verified` is whether the service was observed to hold the CA certificates that a group
/// names.
fn in_force(
    row: &EnrollmentRow,
    certificates: &[Thumbprint],
    is_verified: bool,
) -> Option<InForce> {
    let slot_of = |(primary, secondary): (Option<Thumbprint>, Option<Thumbprint>)| {
        let held = [primary, secondary].into_iter().zip(SlotName::BOTH);
        let mut fitting =
            held.filter(|(held, _)| held.is_some_and(|it| certificates.contains(&it)));
        fitting.next().map(|(_, slot)| slot)
    };
    let [primary, secondary] = SlotName::BOTH.map(|slot| row.slots.in_slot(slot));
    let desired = slot_of((primary, secondary));
    let observed = row.observed.clone().and_then(|it| Record::parse(it).ok());
    let found = observed.as_ref().and_then(|it| slot_of(it.thumbprints()));
    let is_drifted = row.drift.is_some();
    let is_settled = row.mark.is_none() && !is_drifted && !row.restored && !row.leaving;
    if is_settled && !row.enabled {
        return None;
    }
    let slot = desired.or(found.filter(|_| is_drifted))?;
    let observed_at = row.observed_at.filter(|_| is_drifted || is_settled);
    let status = if is_drifted {
        drifted(row, observed.as_ref(), found.is_some())
    } else if row.leaving {
        "is to be removed, and may admit by it until it is gone"
    } else if !row.enabled {
        "is disabled"
    } else if !is_verified {
        "names a CA certificate that was not observed verified, so it may admit nothing by it"
    } else {
        "admits by it"
    };
    let way = match observed_at {
        Some(at) if is_drifted => {
            format!(
                ", observed {at}; `hallmark enrollment show {}` has the difference",
                row.name
            )
        }
        Some(at) => format!(", observed {at}"),
        None if row.mark.is_some() => " as desired, not observed yet; `hallmark push list` shows \
             the change that waits"
            .into(),
        None => " as recorded, not observed yet".into(),
    };
    let kind = row.kind.name();
    Some(InForce {
        place: format!("dps: {}", row.provisioning),
        enrollment: Some(format!("{kind} {}", row.name)),
        slot: Some(slot),
        observed_at: observed_at.map(|at| at.to_string()),
        answer: format!("{kind} enrollment {} {status}{way}", row.name),
    })
}

/// Says what was observed of an enrollment that another program has changed.
fn drifted(row: &EnrollmentRow, observed: Option<&Record>, holds_it: bool) -> &'static str {
    let is_enabled = observed.is_some_and(|it| it.status() == Some(Status::Enabled));
    match observed {
        None if row.observed.is_none() => "was deleted outside Hallmark",
        None => "was changed outside Hallmark",
        Some(_) if !is_enabled => "was changed outside Hallmark, and is not enabled",
        Some(_) if row.by_reference => "was changed outside Hallmark",
        Some(_) if !holds_it => "was changed outside Hallmark, and does not hold it",
        Some(_) => "was changed outside Hallmark, and admits by it",
    }
}

/// Says which rule of `ca::authorize` let the caller ask for it. The caller is on record as
/// `Caller` displays it.
fn permission_in_words(it: &ListedCertificate, grant: Option<&GrantUse>) -> String {
    let profile = &it.profile;
    if it.signed_elsewhere {
        return "it was signed elsewhere, and taken over by an adoption or an import".into();
    }
    let kind = it.caller.split(' ').next().unwrap_or_default();
    match kind {
        "local" => {
            format!("a local user of the admin socket may ask for anything, here by {profile}")
        }
        "operator" => format!("an operator may ask for anything, here by profile {profile}"),
        "station" if it.role == Some(Role::Device) => {
            format!("the [[station]] tables allowed it the profile {profile} and this name")
        }
        "hallmarkd" => format!("the daemon needed it, by {profile}"),
        _ => match grant {
            None => format!("its holder renewed its own certificate, by profile {profile}"),
            Some(GrantUse::LateRenewal) => format!(
                "its holder renewed its own certificate after its end, by profile {profile}"
            ),
            Some(GrantUse::Credential(number)) => {
                format!("its holder had one-time credential {number}, for profile {profile}")
            }
            Some(GrantUse::Birth(name)) => format!(
                "its holder has a birth certificate as [[birth]] {name} accepts, for profile \
                 {profile}"
            ),
        },
    }
}
