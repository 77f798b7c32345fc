//! Signs the certificates of authorities elsewhere: another daemon's, a gateway's, a partner's, an
//! Azure Device Registry's.
//!
//! The holder has the key and sends a request (PKCS #10). Its certificate goes through steps 6 to
//! 10 of the issuance cycle like every other one, and is revoked like a leaf. This daemon has no
//! generation for it, and signs nothing below it.

mod holder;
pub mod profile;

use super::Issuer;
use super::issue::Issued;
use super::pace::Source;
use super::repeat::recognised_by;
use crate::ca::authorize::{Authorized, Operate};
use crate::ca::hierarchy::{ChainLink, Generation};
use crate::ca::signing_request::{LeafHolder, Signer, SigningRequest};
use crate::ca::{Code, Error, lock};
use crate::ids::GenerationNumber;
use crate::store::{CertificateRow, Idempotency, OnIssued, Purpose};
use crate::unix_seconds::UnixSeconds;
use crate::x509::authority_csr::AuthorityCsr;
use crate::x509::path;
use crate::x509::policy_path;
use crate::x509::profile::{End, Kind, Profile};
use holder::Holder;
use profile::SubordinateProfile;
use std::collections::BTreeSet;
use std::sync::Arc;

const DAY_SECONDS: u64 = 86_400;

/// The least validity for an Azure Device Registry, in seconds: 365 days must be left when the
/// certificate is activated there, which is later than its issuance.
pub(super) const REGISTRY_SECONDS_MIN: u64 = 366 * DAY_SECONDS;

/// A request for a subordinate certificate.
#[derive(Clone, Debug)]
pub struct SubordinateRequest {
    /// The authority that is to sign.
    pub authority: String,
    /// The `[[subordinate_profile]]`, or a preset.
    pub profile: String,
    /// PKCS #10, as PEM or DER.
    pub csr: Vec<u8>,
    /// The common name that the request must have.
    pub common_name: Option<String>,
    /// A shorter validity than the profile's, in days.
    pub days: Option<u32>,
    /// The holder has a new key, beside the one that is certified.
    pub rekey: bool,
    pub idempotency_key: Option<String>,
}

/// A subordinate certificate that was signed now, or for an earlier request with the same
/// idempotency key.
#[derive(Clone, Debug)]
pub struct SignedSubordinate {
    pub issued: Issued,
    /// The authority that signed, and which generation of it.
    pub authority: String,
    pub generation: GenerationNumber,
    /// The certificates above, its issuer's first, up to the self-signed one.
    pub above: Vec<Arc<ChainLink>>,
    /// The serial number of the certificate with the same key that it renews.
    pub renews: Option<String>,
    /// The serial numbers of valid certificates with the same subject and other keys.
    pub beside: Vec<String>,
    /// The requested extensions that no profile has a place for.
    pub dropped_extensions: Vec<String>,
}

impl Issuer {
    /// Signs a subordinate certificate. The caller audits a refusal.
    pub fn sign_subordinate(
        &self,
        permission: &Authorized<Operate>,
        request: &SubordinateRequest,
    ) -> Result<SignedSubordinate, Error> {
        // One at a time: what the subject holds is read before the intent is recorded.
        let _alone = lock(&self.shared.subordinates);
        let actor = permission.caller().to_string();
        let csr = AuthorityCsr::parse(&request.csr)
            .map_err(|refusal| Error::invalid(refusal.code(), refusal.to_string()))?;
        check_common_name(&csr, request)?;
        let idempotency = idempotency(request)?;
        if let Some(idempotency) = &idempotency
            && let Some(prior) = self.store.answered_request(&actor, &idempotency.key)?
        {
            let issued = self.repeat(prior, idempotency, Some(csr.names()))?;
            let sha256 = issued.certificate.sha256();
            let then = Holder::among(&csr, &self.store.subordinates_before(&sha256)?)?;
            return self.signed(issued, &csr, then);
        }
        let profile = profile::find(
            &self.settings.subordinate_profiles,
            &request.profile,
            &request.authority,
        )?;
        let shape = shape(&profile, request)?;
        self.agrees(&csr, &shape)?;
        let mut living = self.store.subordinates(self.now())?;
        living.retain(|it| it.revoked_at.is_none() || it.is_on_hold());
        let holder = Holder::permitted(&csr, &living, request.rekey)?;
        let generation = self.subordinate_signer(request, &shape)?;
        if profile.azure_device_registry {
            self.fits_registry(&generation, &shape)?;
        }
        let issued = pollster::block_on(self.certify(SigningRequest {
            source: Source::Caller,
            signer: Signer::from(generation.as_ref()),
            purpose: Purpose::Subordinate,
            profile_name: &profile.name,
            profile: &shape,
            subject: csr.subject().clone(),
            public_key: csr.public_key(),
            caller: actor,
            holder: LeafHolder {
                name_constraints: profile.name_constraints.as_ref(),
                requested_names: Some(csr.names()),
                dropped_extensions: csr.left_out(),
                requester: permission.caller().requester(),
                idempotency,
                renews: holder.renews.clone(),
                ..LeafHolder::none()
            },
            on_issued: OnIssued::Alone,
        }))?;
        self.signed(issued, &csr, holder)
    }

    /// Returns the subordinate certificates of an authority, newest first.
    pub fn subordinates(&self, authority: &str) -> Result<Vec<CertificateRow>, Error> {
        let hierarchy = self.hierarchy();
        let own = hierarchy.iter().filter(|it| it.authority == authority);
        let own: Vec<_> = own.map(|it| it.id).collect();
        if own.is_empty() {
            return Err(unknown(authority));
        }
        let mut rows = self.store.subordinates(UnixSeconds::MIN)?;
        rows.retain(|it| own.contains(&it.issuer));
        Ok(rows)
    }

    /// Returns how long before its end a certificate by this profile is an alarm, in seconds, if
    /// the configuration says it.
    pub(in crate::ca) fn subordinate_expiry_alarm(&self, profile: &str) -> Option<u64> {
        self.settings
            .subordinate_profiles
            .get(profile)?
            .expiry_alarm
    }

    /// Fails if the request asks for something else than it gets.
    fn agrees(&self, csr: &AuthorityCsr, shape: &Profile) -> Result<(), Error> {
        if let Some(why) = csr.conflict(shape) {
            let message = format!("the request does not fit the profile: {why}");
            return Err(Error::invalid(Code::CsrConflictsProfile, message));
        }
        let hierarchy = self.hierarchy();
        let ours = hierarchy.iter().find(|generation| {
            let foreign = generation.foreign.iter().map(|it| &it.certificate);
            let mut all = std::iter::once(&generation.certificate).chain(foreign);
            all.any(|it| csr.has_subject_of(it))
        });
        let ours = match ours {
            Some(certified) => Some(certified.authority.clone()),
            None => self.requested_authority(csr)?,
        };
        ours.map_or(Ok(()), |ours| {
            let message = format!(
                "the request has the subject of authority {ours} or of one above it, and relying \
                 parties would take one for the other; have its holder choose another name"
            );
            Err(Error::conflict(Code::SubjectOfAuthority, message))
        })
    }

    /// Returns the authority here that waits for a certificate with this subject from elsewhere.
    fn requested_authority(&self, csr: &AuthorityCsr) -> Result<Option<String>, Error> {
        let rows = self.store.generations()?;
        let waiting = rows.into_iter().filter(|it| it.certificate.is_none());
        let mut requested = waiting.filter_map(|it| Some((it.authority, it.request?.der?)));
        let same = requested.find(|(_, der)| {
            AuthorityCsr::parse(der).is_ok_and(|ours| csr.has_subject(&ours.subject().to_der()))
        });
        Ok(same.map(|(authority, _)| authority))
    }

    /// Returns the generation that signs, if its chain has room for the certificate.
    fn subordinate_signer(
        &self,
        request: &SubordinateRequest,
        shape: &Profile,
    ) -> Result<Arc<Generation>, Error> {
        let authority = &request.authority;
        if !self.settings.authorities.contains_key(authority) {
            return Err(unknown(authority));
        }
        // Never the standby: its certificates have another issuer than the one that was named.
        let generation = Arc::clone(self.hierarchy().signing(authority)?);
        let below = match shape.kind {
            Kind::Authority { path_length } => usize::from(path_length.unwrap_or(0)),
            Kind::Leaf => 0,
        };
        let hierarchy = self.hierarchy();
        // RFC 5280 6.1.4 (m): path lengths count along the whole chain.
        let above = || hierarchy.certificates_above(generation.id);
        let limit = path::objection(above(), below + 1)
            .or_else(|| policy_path::objection(above(), &[shape]));
        limit.map_or(Ok(generation), |limit| {
            let message = format!("no such authority fits below {authority}: {limit}");
            Err(Error::invalid(Code::AuthorityLimited, message))
        })
    }

    /// Fails if an Azure Device Registry would refuse the certificate.
    fn fits_registry(&self, issuer: &Generation, shape: &Profile) -> Result<(), Error> {
        let refuse = |why: String| {
            let message = format!("an Azure Device Registry would refuse the certificate: {why}");
            Err(Error::invalid(Code::DeviceRegistryRefuses, message))
        };
        let name = &issuer.authority;
        let key_type = issuer.public_key.key_type();
        if !key_type.is_ecdsa() {
            return refuse(format!(
                "authority {name} signs with a {key_type} key, and it takes ECDSA alone; name an \
                 authority with a p256 or p384 key"
            ));
        }
        let now = self.now();
        let end = shape.not_after(now);
        if end.seconds_since(now) >= REGISTRY_SECONDS_MIN.cast_signed() {
            return Ok(());
        }
        refuse(format!(
            "it ends at {end}, and 365 days have to be left when it is activated; give it 366 days \
             or more"
        ))
    }

    fn signed(
        &self,
        issued: Issued,
        csr: &AuthorityCsr,
        holder: Holder,
    ) -> Result<SignedSubordinate, Error> {
        let row = self
            .store
            .certificate_by_sha256(&issued.certificate.sha256())?;
        let hierarchy = self.hierarchy();
        let issuer = row.and_then(|it| hierarchy.generation(it.issuer));
        let Some(issuer) = issuer else {
            let message = "a certificate was signed, and its issuer is not on record";
            return Err(Error::stop(Code::Internal, message));
        };
        let above = hierarchy.chain(issuer.id, &BTreeSet::new());
        Ok(SignedSubordinate {
            authority: issuer.authority.clone(),
            generation: issuer.number,
            above: above.into_iter().cloned().collect(),
            dropped_extensions: csr.left_out().to_vec(),
            renews: holder.renews,
            beside: holder.beside,
            issued,
        })
    }
}

fn unknown(authority: &str) -> Error {
    let message =
        format!("there is no authority {authority:?}; `hallmark authority list` shows all");
    Error::missing(Code::AuthorityUnknown, message)
}

/// Returns the shape of the certificate: the profile's, and no longer than the operator says.
fn shape(profile: &SubordinateProfile, request: &SubordinateRequest) -> Result<Profile, Error> {
    let mut shape = profile.certificate.clone();
    let Some(days) = request.days else {
        return Ok(shape);
    };
    let seconds = u64::from(days) * DAY_SECONDS;
    let longest = shape.validity_seconds;
    if seconds == 0 || seconds > longest || shape.longest_seconds().is_none() {
        let message = format!(
            "{days} days are not within what profile {:?} gives; it gives 1 to {}",
            profile.name,
            longest / DAY_SECONDS
        );
        return Err(Error::invalid(Code::DaysOutOfRange, message));
    }
    shape.validity_seconds = seconds;
    shape.end = End::AfterValidity;
    Ok(shape)
}

/// Returns how a repeat of this request is recognised.
fn idempotency(request: &SubordinateRequest) -> Result<Option<Idempotency>, Error> {
    // `common_name` and `rekey` permit the answer and do not change it.
    let asked = format!("{} {:?}", request.authority, request.days);
    let fields = [request.profile.as_bytes(), asked.as_bytes(), &request.csr];
    recognised_by(request.idempotency_key.as_ref(), fields)
}

/// Fails if the operator expects another common name.
fn check_common_name(csr: &AuthorityCsr, request: &SubordinateRequest) -> Result<(), Error> {
    let label = csr.subject().label();
    match &request.common_name {
        Some(expected) if expected != label => {
            let message = format!(
                "the request is for {label:?}, and {expected:?} was expected; ask its sender, or \
                 name what is expected"
            );
            Err(Error::invalid(Code::CsrOtherCommonName, message))
        }
        _ => Ok(()),
    }
}
