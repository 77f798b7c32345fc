//! Makes, judges and revokes one-time credentials: a secret for one registration id, by which the
//! device requests one leaf as HTTP Basic has it (RFC 7030, section 3.2.3).
//!
//! The secret has 128 random bits and is shown once. The store has a salted SHA-256 of it: guesses
//! at so many bits need no slow hash to fail. A wrong secret is refused in the same words whether
//! or not the registration id has a credential.

use super::authorize::{Authorized, Caller, Inspect, Issue};
use super::profile::{IssuanceProfile, Role};
use super::roll::canary;
use super::{Advice, Code, Error, Issuer};
use crate::enrollment::id::RegistrationId;
use crate::ids::DeviceCredentialId;
use crate::store::{
    AuditEntry, CredentialState, DeviceCredentialRow, FAILURES_MAX, Grant, NewDeviceCredential,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use zeroize::Zeroizing;

/// How long a credential lasts at most, in seconds.
const LIFE_SECONDS_MAX: u64 = 30 * 86_400;
/// How long it lasts if the request does not say so, in seconds.
const LIFE_SECONDS: u64 = 86_400;
/// How many random bytes a secret has.
const SECRET_BYTES: usize = 16;

/// A one-time credential to make.
#[derive(Clone, Debug)]
pub struct CredentialRequest {
    pub registration_id: String,
    /// The profile of the leaf; by default that of the device, or the only one for devices.
    pub profile: Option<String>,
    /// How long it lasts, in seconds.
    pub life_seconds: Option<u64>,
}

/// A credential as it was made, with the secret that is nowhere else.
pub struct MadeCredential {
    pub row: DeviceCredentialRow,
    pub secret: SecretString,
}

/// Name and secret as a client sent them.
#[derive(Clone, Debug)]
pub struct PresentedCredential {
    pub registration_id: String,
    pub secret: SecretString,
}

impl Issuer {
    /// Makes a credential. Earlier ones of the same device that were not used end.
    pub fn make_device_credential(
        &self,
        permission: &Authorized<Issue>,
        request: &CredentialRequest,
    ) -> Result<MadeCredential, Error> {
        let id = RegistrationId::parse(&request.registration_id)
            .map_err(|it| Error::invalid(it.code(), it.to_string()))?;
        canary::refuse_reserved(id.as_str())?;
        let life = life_seconds(request.life_seconds)?;
        let profile = self.profile_of_credential(permission, id.as_str(), request)?;
        permission.hands_over(self.stations(), profile, id.as_str())?;
        let registered = self.store().device(id.as_str())?;
        if let Some(device) = registered.filter(|it| it.profile != profile.name) {
            let message = format!(
                "{id} is registered with profile {:?}; make the credential for that, or have an \
                 operator move the device",
                device.profile,
                id = device.registration_id,
            );
            return Err(invalid(message));
        }
        let secret = random::<SECRET_BYTES>()?;
        let secret = SecretString::from(URL_SAFE_NO_PAD.encode(secret.as_slice()));
        let salt = *random::<16>()?;
        let now = self.signing_time()?;
        let new = NewDeviceCredential {
            registration_id: id.as_str().to_owned(),
            profile: profile.name.clone(),
            salt,
            secret_sha256: salted(&salt, &secret),
            expires_at: now.saturating_add(life),
        };
        let entry = AuditEntry {
            at: now,
            actor: permission.caller().to_string(),
            action: "credential.made",
            subject: id.as_str().to_owned(),
            detail: json!({ "profile": profile.name, "expires_at": new.expires_at.to_string() }),
        };
        let row = self.store().make_device_credential(new, entry)?;
        Ok(MadeCredential { row, secret })
    }

    fn profile_of_credential(
        &self,
        permission: &Authorized<Issue>,
        id: &str,
        request: &CredentialRequest,
    ) -> Result<&IssuanceProfile, Error> {
        if let Some(name) = &request.profile {
            return self.profile(name);
        }
        // A caller that may not ask for the device by its profile does not learn the profile.
        let device = self.store().device(id)?;
        let own = device.and_then(|it| self.profile(&it.profile).ok());
        let own = own.filter(|it| permission.hands_over(self.stations(), it, id).is_ok());
        let mut all = self
            .profiles()
            .values()
            .filter(|it| it.role == Role::Device);
        let only = all.next().filter(|_| all.next().is_none());
        own.or(only).ok_or_else(|| {
            invalid("several profiles are for devices; say which with `profile`".into())
        })
    }

    /// Returns the credentials after `after`.
    pub fn device_credentials(
        &self,
        _: &Authorized<Inspect>,
        after: DeviceCredentialId,
        limit: u32,
    ) -> Result<Vec<DeviceCredentialRow>, Error> {
        Ok(self.store().device_credentials(after, limit)?)
    }

    /// Revokes the credential of a device that was not used yet.
    pub fn revoke_device_credential(
        &self,
        permission: &Authorized<Issue>,
        id: &str,
    ) -> Result<(), Error> {
        let none = || {
            let message = format!(
                "{id:?} has no credential that can still be used; `hallmark device credential \
                 list` shows all"
            );
            Error::missing(Code::CredentialUnknown, message)
        };
        let row = self.store().device_credential(id)?;
        let now = self.now();
        let can_be_revoked = |it: &DeviceCredentialRow| it.state(now) != CredentialState::Used;
        let row = row.filter(can_be_revoked).ok_or_else(none)?;
        // A station does not learn which devices of others have one.
        let profile = self.profile(&row.profile).ok();
        permission
            .may_revoke(self.stations(), profile, id)
            .map_err(|_| none())?;
        let entry = AuditEntry {
            at: self.now(),
            actor: permission.caller().to_string(),
            action: "credential.revoked",
            subject: row.registration_id.clone(),
            detail: json!({ "profile": row.profile }),
        };
        let revoked = self
            .store()
            .revoke_device_credentials(row.registration_id, entry)?;
        if revoked == 0 {
            return Err(none());
        }
        Ok(())
    }

    /// Names the device whose credential was presented, or counts the try and refuses it.
    pub fn identify_by_credential(&self, presented: &PresentedCredential) -> Result<Caller, Error> {
        let id = &presented.registration_id;
        let known = |id: RegistrationId| self.store().device_credential(id.as_str());
        let row = RegistrationId::parse(id).ok().map(known);
        let row = row.transpose()?.flatten();
        // Compared in any case; that a wrong secret is counted takes longer all the same
        // (docs/threats.md).
        let salt = row.as_ref().map_or([0; 16], |it| it.salt);
        let expected = row.as_ref().map_or([0; 32], |it| it.secret_sha256);
        let found = salted(&salt, &presented.secret);
        let is_right = verify_slices_are_equal(&found, &expected).is_ok();
        match row {
            Some(row) if is_right => self.judged(row),
            row => {
                // Nothing is left to lock: a stranger makes no write by it.
                let now = self.now();
                let countable = |it: &DeviceCredentialRow| {
                    let state = it.state(now);
                    !matches!(state, CredentialState::Revoked | CredentialState::Locked)
                };
                if let Some(row) = row.filter(countable) {
                    self.store()
                        .count_wrong_secret(row.id, self.locked_entry(&row))?;
                }
                let message = "user name or password is wrong: send the registration id and the \
                               secret of its one-time credential, or have a station or an operator \
                               make one";
                Err(unauthenticated(Code::CredentialRefused, message.into()))
            }
        }
    }

    /// Judges a credential whose secret is right. After its use it may repeat its request.
    fn judged(&self, row: DeviceCredentialRow) -> Result<Caller, Error> {
        let id = &row.registration_id;
        let again = "have a station or an operator make another one";
        let (code, how) = match row.state(self.now()) {
            CredentialState::Used | CredentialState::Open => return Ok(granted(row)),
            CredentialState::Revoked => (Code::CredentialRevoked, "is revoked".to_owned()),
            CredentialState::Locked => {
                let how = format!("is locked after {FAILURES_MAX} wrong secrets");
                (Code::CredentialLocked, how)
            }
            CredentialState::Expired => {
                let how = format!("ended at {}", row.expires_at);
                (Code::CredentialExpired, how)
            }
        };
        let message = format!("the one-time credential of {id} {how}; {again}");
        Err(unauthenticated(code, message))
    }

    fn locked_entry(&self, row: &DeviceCredentialRow) -> AuditEntry {
        AuditEntry {
            at: self.now(),
            actor: Caller::Daemon.to_string(),
            action: "credential.locked",
            subject: row.registration_id.clone(),
            detail: json!({ "failures": FAILURES_MAX }),
        }
    }
}

fn granted(row: DeviceCredentialRow) -> Caller {
    Caller::Granted {
        name: row.registration_id,
        profile: row.profile,
        grant: Grant::Credential(row.id),
    }
}

fn life_seconds(asked: Option<u64>) -> Result<i64, Error> {
    let asked = asked.unwrap_or(LIFE_SECONDS);
    if asked == 0 || asked > LIFE_SECONDS_MAX {
        return Err(invalid(
            "a one-time credential lasts for 1s to 30d; change `expires`".into(),
        ));
    }
    Ok(i64::try_from(asked).unwrap_or(i64::MAX))
}

fn salted(salt: &[u8; 16], secret: &SecretString) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(secret.expose_secret().as_bytes());
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    sha256
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(bytes.as_mut_slice())
        .map_err(|_| Error::stop(Code::RandomSource, "the system's random source failed"))?;
    Ok(bytes)
}

fn invalid(message: String) -> Error {
    Error::invalid(Code::CredentialInvalid, message)
}

fn unauthenticated(code: Code, message: String) -> Error {
    Error::new(Advice::Authenticate, code, message)
}
