//! Renews the leaf of a device after its end: some devices lie in warehouses for longer than that.
//!
//! A profile allows it with `late_renewal`, the time after the end in which a leaf may renew
//! itself, once. The next leaf has the same names. The holder of an ended leaf may do nothing else,
//! and the leaf must be neither revoked nor below a revoked generation. The transaction that
//! records the intent counts the renewal (`store::grant`).

use super::Issuer;
use super::client::{KnownClient, unauthenticated};
use super::renewal::check_names;
use crate::ca::authorize::Caller;
use crate::ca::profile::{IssuanceProfile, Role};
use crate::ca::{Code, Error};
use crate::store::Grant;
use crate::unix_seconds::UnixSeconds;
use crate::x509::csr::Csr;
use crate::x509::template::Values;

impl Issuer {
    /// Names the sender of a request for a certificate: as [`Self::identify`] does, and a device
    /// whose leaf has ended if its profile lets it renew late.
    pub fn identify_to_issue(&self, client: Option<KnownClient>) -> Result<Caller, Error> {
        let now = self.now();
        let ended = client.as_ref().filter(|it| it.has_ended(now));
        let Some((client, window)) = ended.and_then(|it| Some((it, self.late_window(it)?))) else {
            return self.identify(client);
        };
        client.is_not_excluded()?;
        client.is_not_below_revoked()?;
        // Without a clock that is believed, the leaf may still be valid.
        within(window, client.not_after, self.signing_time()?)?;
        Ok(Caller::Granted {
            name: client.name.clone(),
            profile: client.profile.clone(),
            grant: Grant::LateRenewal(client.certificate),
        })
    }

    /// Returns how long after its end the leaf of `client` may renew itself, in seconds.
    fn late_window(&self, client: &KnownClient) -> Option<i64> {
        let profile = self.profile(&client.profile).ok()?;
        profile
            .late_renewal_seconds()
            .filter(|_| client.role == Role::Device)
    }

    /// Returns until when a device's leaf of this profile may renew itself after its end; `None` if
    /// it may not, or not any more.
    pub(in crate::ca) fn renews_late_until(
        &self,
        profile: &str,
        ended: UnixSeconds,
    ) -> Option<UnixSeconds> {
        let profile = self.profile(profile).ok()?;
        let until = ended.saturating_add(profile.late_renewal_seconds()?);
        (self.now() <= until).then_some(until)
    }

    /// Step 4, for a caller with a grant: returns the serial number of the ended certificate that
    /// `csr` renews, or why it does not renew it now. `None` if it renews none.
    pub(super) fn check_granted(
        &self,
        caller: &Caller,
        profile: &IssuanceProfile,
        csr: &Csr,
        values: &Values<'_>,
    ) -> Result<Option<String>, Error> {
        match caller.grant() {
            Some(Grant::LateRenewal(_)) => {
                let renewed = self.check_late_renewal(caller, profile, csr, values);
                renewed.map(Some)
            }
            Some(Grant::Credential(_) | Grant::Birth(_)) | None => Ok(None),
        }
    }

    /// The clock must be believed, because it alone says how long ago the certificate ended.
    fn check_late_renewal(
        &self,
        caller: &Caller,
        profile: &IssuanceProfile,
        csr: &Csr,
        values: &Values<'_>,
    ) -> Result<String, Error> {
        let now = self.signing_time()?;
        let (ended, certificate) = self.presented(caller)?;
        within(
            profile.late_renewal_seconds().unwrap_or_default(),
            ended.not_after,
            now,
        )?;
        check_names(profile, csr, values, &certificate)?;
        Ok(hex::encode_upper(&ended.serial))
    }
}

impl IssuanceProfile {
    fn late_renewal_seconds(&self) -> Option<i64> {
        let seconds = self.late_renewal.filter(|it| *it > 0)?;
        Some(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

fn within(window: i64, ended: UnixSeconds, now: UnixSeconds) -> Result<(), Error> {
    let end = ended.saturating_add(window);
    if now <= end {
        return Ok(());
    }
    let message = format!(
        "the client certificate ended at {ended} and could renew itself until {end}; have a \
         station or an operator request the next one with a new key"
    );
    Err(unauthenticated(Code::LateRenewalOver, message))
}
