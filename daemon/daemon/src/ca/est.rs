//! EST (RFC 7030) in terms of the issuance cycle: which profile a label is, which certificate a
//! renewal renews, and which request is the repeat of another.
//!
//! EST has no idempotency key, and devices lose answers. So a request is identified by its content:
//! the same CSR, by the same caller with the same certificate, for the same profile. It gets the
//! same certificate for the first half of the certificate's life, and while it is the device's
//! current one; after that it is a request for a new one, since a device may keep its key and with
//! it the bytes of its CSR. A device that requested it by a grant gets it for all of its life,
//! because the grant is used up. [`super::authorize`] decides about permissions, not this module.

use super::authorize::{Authorized, Caller, Issue};
use super::hierarchy::ChainLink;
use super::issuer::issue::IssueRequest;
use super::issuer::repeat::request_digest;
use super::profile::{IssuanceProfile, Role};
use super::{Code, Error, Issuer};
use crate::ids::GenerationId;
use crate::store::{CertificateRow, Grant, PriorRequest};
use crate::x509::certificate::Certificate;
use crate::x509::requested_names::{RequestedNames, UnprovenCsr};
use crate::x509::template::Values;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many certificates one CSR gets, one after the other.
const CERTIFICATES_PER_CSR_MAX: u32 = 32;

/// A request for a certificate as EST has it.
#[derive(Clone, Debug)]
pub struct EstRequest {
    /// The profile's name, if the address has one.
    pub label: Option<String>,
    /// PKCS #10: base64, PEM or DER.
    pub csr: Vec<u8>,
    /// SHA-256 of the client certificate.
    pub presented: Option<[u8; 32]>,
    /// `simplereenroll`: the names must be those of the certificate that is renewed.
    pub renews: bool,
}

/// The settings of EST.
#[derive(Clone, Debug, Default)]
pub struct EstSettings {
    /// The profile of requests that name none.
    pub profile: Option<String>,
    /// Answers are base64 in lines: some clients read no lines, others read nothing else.
    pub line_breaks: bool,
}

/// The place of a certificate in an answer: the highest comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// How many certificates its path to the root has.
    depth: usize,
    serves: bool,
    newest: GenerationId,
}

/// A permitted request without an idempotency key.
struct ReadRequest {
    /// By what a repeat is recognised.
    digest: [u8; 32],
    profile: String,
    name: String,
    csr: Vec<u8>,
}

/// Answers EST requests by the issuance cycle.
pub struct Est {
    issuer: Arc<Issuer>,
    settings: EstSettings,
}

impl Est {
    pub(super) fn new(issuer: Arc<Issuer>, settings: EstSettings) -> Self {
        Self { issuer, settings }
    }

    /// The request to the issuance cycle.
    ///
    /// The permission is checked before any property of the device: a device must not learn which
    /// others exist.
    pub fn read_request(
        &self,
        permission: &Authorized<Issue>,
        request: &EstRequest,
    ) -> Result<IssueRequest, Error> {
        let (profile, read) = self.read(permission, request)?;
        let key = self.idempotency_key(permission.caller(), profile, &read.digest)?;
        Ok(read.with_key(key))
    }

    /// The request to the issuance cycle if it comes for the first time, as most do: nothing is
    /// read from the store. `None` for a request that needs the store all the same. If the cycle
    /// repeats an answer or refuses, [`read_request`](Self::read_request) must confirm the key.
    pub fn first_request(
        &self,
        permission: &Authorized<Issue>,
        request: &EstRequest,
    ) -> Result<Option<IssueRequest>, Error> {
        if request.renews {
            return Ok(None);
        }
        let (_, read) = self.read(permission, request)?;
        let key = idempotency_key(1, &read.digest);
        Ok(Some(read.with_key(key)))
    }

    fn read(
        &self,
        permission: &Authorized<Issue>,
        request: &EstRequest,
    ) -> Result<(&IssuanceProfile, ReadRequest), Error> {
        let caller = permission.caller();
        if let Some(label) = &request.label {
            self.issuer.profile(label)?;
        }
        let requested = UnprovenCsr::read(&request.csr)
            .map_err(|refusal| Error::invalid(refusal.code(), refusal.to_string()))?;
        let Some(name) = requested.names.common_name().map(str::to_owned) else {
            let message = "the CSR has no common name; make it the registration id";
            return Err(Error::invalid(Code::CsrWithoutCommonName, message));
        };
        let profile = self.asked_profile(permission, request, &name)?;
        // Checked before an answer could reveal a property of the device.
        if !permission.renews_itself(profile, &name) {
            permission.covers(self.issuer.stations(), profile, &name, false)?;
        }
        if request.renews {
            let renewed = self.renewed(caller, profile, &name, request.presented)?;
            let values = self.issuer.values(caller, profile, &name, &requested.names);
            refuse_other_names(&requested.names, profile, &renewed, &values)?;
        }
        let presented = request.presented.unwrap_or_default();
        let digest = request_digest([&presented[..], profile.name.as_bytes(), &requested.der]);
        let read = ReadRequest {
            digest,
            profile: profile.name.clone(),
            name,
            csr: requested.der.into(),
        };
        Ok((profile, read))
    }

    /// The profile that the address names; where it names none, a renewal is by the profile that
    /// the device has, or the caller that renews itself. A caller that may not ask for the device
    /// by its profile learns nothing of it: the request is judged as that of an unknown device.
    fn asked_profile(
        &self,
        permission: &Authorized<Issue>,
        request: &EstRequest,
        name: &str,
    ) -> Result<&IssuanceProfile, Error> {
        if request.label.is_none()
            && request.renews
            && let Caller::Certificate {
                role,
                name: own,
                profile,
                ..
            } = permission.caller()
            && *role != Role::Device
            && own == name
        {
            return self.issuer.profile(profile);
        }
        if request.label.is_none()
            && let Caller::Granted { profile, .. } = permission.caller()
        {
            return self.issuer.profile(profile);
        }
        if request.label.is_none()
            && request.renews
            && let Some(device) = self.issuer.store().device(name)?
        {
            let profile = self.issuer.profile(&device.profile);
            let may_know = match (&profile, permission.caller()) {
                (Ok(profile), _) => permission
                    .covers(self.issuer.stations(), profile, name, false)
                    .is_ok(),
                (
                    Err(_),
                    Caller::Certificate {
                        role, name: own, ..
                    },
                ) => *role == Role::Operator || (*role == Role::Device && own == name),
                (Err(_), _) => true,
            };
            if may_know {
                return profile;
            }
        }
        self.profile(request.label.as_deref())
    }

    /// Returns the settings.
    pub fn settings(&self) -> &EstSettings {
        &self.settings
    }

    /// The profile that a label is.
    pub fn profile(&self, label: Option<&str>) -> Result<&IssuanceProfile, Error> {
        let name = label.or(self.settings.profile.as_deref()).ok_or_else(|| {
            let message = "name a profile in the address, /.well-known/est/PROFILE/…, or set \
                           [listen] est_profile";
            Error::missing(Code::EstLabelRequired, message)
        })?;
        self.issuer.profile(name)
    }

    /// The certificates from the profile's authority up to its root, of all generations that are
    /// good: so a client that asks now and then trusts the next root before anything below it. A
    /// standby is one of them, because it may sign instead.
    ///
    /// Each certificate comes before its issuer, and the serving one before others of its level:
    /// clients present them in this order (RFC 5246 section 7.4.2).
    pub fn authorities(&self, profile: &IssuanceProfile) -> Result<Vec<Arc<ChainLink>>, Error> {
        let hierarchy = self.issuer.hierarchy();
        let serving = hierarchy.signing(&profile.authority)?;
        let standby = self.issuer.failover_standby(&hierarchy, serving);
        let names: BTreeSet<_> = hierarchy
            .upwards(serving.id)
            .map(|generation| generation.authority.as_str())
            .chain(standby)
            .collect();
        let now = self.issuer.now();
        let good = hierarchy.iter().filter(|generation| {
            names.contains(generation.authority.as_str())
                && generation.certificate.not_after() >= now
                && hierarchy.revoked_above(generation.id).is_none()
        });
        let mut links = BTreeMap::new();
        for generation in good {
            let serves = generation.serving && standby != Some(&generation.authority);
            let to_root = hierarchy.chain(generation.id, &BTreeSet::new());
            let own = to_root.iter().take(1 + generation.foreign.len());
            for (above, link) in own.enumerate() {
                let place = Place {
                    depth: to_root.len() - above,
                    serves,
                    newest: generation.id,
                };
                let known = links.entry(link.certificate.sha256());
                let known = known.or_insert_with(|| (place, Arc::clone(link)));
                // Two generations may have the same issuer elsewhere.
                known.0 = known.0.max(place);
            }
        }
        let mut links: Vec<_> = links.into_values().collect();
        links.sort_by_key(|(place, _)| Reverse(*place));
        // RFC 7030 4.1.3: NewWithOld and OldWithNew, for a client that trusts one root alone.
        let cross = hierarchy
            .good_cross_certificates(now)
            .filter(|it| names.contains(it.subject.authority.as_str()));
        let cross = cross.map(|it| Arc::clone(&it.link));
        let own = links.into_iter().map(|(_, link)| link);
        Ok(own.chain(cross).collect())
    }

    /// The certificate that is renewed: the caller's own, or that of the device for which a station
    /// asks.
    fn renewed(
        &self,
        caller: &Caller,
        profile: &IssuanceProfile,
        name: &str,
        presented: Option<[u8; 32]>,
    ) -> Result<Certificate, Error> {
        let own = matches!(
            caller,
            Caller::Certificate { role, name: own, profile: by, .. }
                if own == name && (*role == profile.role || *by == profile.name)
        ) || matches!(
            caller,
            Caller::Granted { name: own, grant: Grant::LateRenewal(_), .. } if own == name
        );
        let renewed = match presented.filter(|_| own) {
            Some(presented) => Some(presented),
            None => {
                let device = self.issuer.store().device(name)?;
                device.map(|device| *device.certificate.as_bytes())
            }
        };
        let row = match renewed {
            Some(sha256) => self.issuer.store().certificate_by_sha256(&sha256)?,
            None => None,
        };
        let row = row.ok_or_else(|| {
            let message = format!("{name:?} has no certificate to renew; use simpleenroll");
            Error::conflict(Code::NothingToRenew, message)
        })?;
        Certificate::parse(&row.der)
            .map_err(|error| Error::stop(Code::StoreUnreadable, error.to_string()))
    }

    /// The first key by which this request was not answered yet, or by which its answer is still
    /// good.
    fn idempotency_key(
        &self,
        caller: &Caller,
        profile: &IssuanceProfile,
        request: &[u8; 32],
    ) -> Result<String, Error> {
        let is_granted = caller.grant().is_some();
        let caller = caller.to_string();
        for number in 1..=CERTIFICATES_PER_CSR_MAX {
            let key = idempotency_key(number, request);
            match self.issuer.store().answered_request(&caller, &key)? {
                Some(PriorRequest::Issued(row))
                    if !self.is_still_the_answer(&row, profile, is_granted)? => {}
                _ => return Ok(key),
            }
        }
        let message = format!(
            "this CSR was answered with {CERTIFICATES_PER_CSR_MAX} certificates; make a new key \
             and another CSR"
        );
        Err(Error::conflict(Code::CsrUsedUp, message))
    }

    /// Whether `row` is the answer to a repeat. A device without a valid leaf, whose grant is used
    /// up by `row`, has no other: for it a valid one is.
    fn is_still_the_answer(
        &self,
        row: &CertificateRow,
        profile: &IssuanceProfile,
        is_granted: bool,
    ) -> Result<bool, Error> {
        if row.revoked_at.is_some() {
            return Ok(false);
        }
        // A device that was notified to renew under the next generation, or under one that is not
        // revoked, gets its leaf.
        let hierarchy = self.issuer.hierarchy();
        let issuer = hierarchy.generation(row.issuer);
        // A certificate without an end is of use as long as its issuer.
        let end = issuer.map_or(row.not_after, |it| {
            row.not_after.min(it.certificate.not_after())
        });
        let left = end - self.issuer.now();
        let is_valid = left >= 0 && hierarchy.revoked_above(row.issuer).is_none();
        let signs = issuer.and_then(|it| hierarchy.signing(&it.authority).ok());
        let is_not_renewed = left >= end.seconds_since(row.not_before) / 2
            && signs.is_some_and(|it| it.id == row.issuer);
        if !is_valid || !(is_granted || is_not_renewed) {
            return Ok(false);
        }
        drop(hierarchy);
        if profile.role != Role::Device {
            return Ok(true);
        }
        let device = self.issuer.store().device(&row.subject)?;
        Ok(device.is_none_or(|it| *it.certificate.as_bytes() == row.sha256))
    }
}

impl ReadRequest {
    fn with_key(self, idempotency_key: String) -> IssueRequest {
        IssueRequest {
            idempotency_key: Some(idempotency_key),
            profile: self.profile,
            registration_id: self.name,
            csr: self.csr,
            generated: None,
            moves: false,
        }
    }
}

fn idempotency_key(number: u32, request: &[u8; 32]) -> String {
    format!("est-{number}-{}", hex::encode(request))
}

fn refuse_other_names(
    requested: &RequestedNames,
    profile: &IssuanceProfile,
    renewed: &Certificate,
    values: &Values<'_>,
) -> Result<(), Error> {
    let are_those = requested
        .renews(renewed, &profile.certificate, values)
        .map_err(|refusal| Error::invalid(refusal.code(), refusal.to_string()))?;
    if are_those {
        return Ok(());
    }
    let message = format!(
        "a renewal is for the names that the certificate has (here {:?}): copy its common name and \
         subject alternative names into the CSR, and the attributes of its subject that the \
         profile takes from the CSR; or use simpleenroll",
        renewed.subject()
    );
    Err(Error::invalid(Code::CsrOtherNames, message))
}
