//! Checks permissions. A permission is a value, and only this module makes it.

use super::permissions::{Access, Reach};
use super::profile::{IssuanceProfile, Role};
use super::station::StationPolicy;
use super::{Code, Error};
use crate::store::{Grant, Moves, Requester};
use std::collections::BTreeSet;
use std::fmt;

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A local user of the admin socket, as the kernel reports it.
    Local {
        /// Effective user id of the peer.
        uid: u32,
    },
    /// The holder of a client certificate that this daemon issued.
    Certificate {
        /// The role on record of that certificate.
        role: Role,
        /// The certificate's common name.
        name: String,
        /// The profile on record of that certificate, which may no longer be configured.
        profile: String,
        /// The certificate, for the store to see that it is not revoked while a request is in work.
        certificate: Requester,
    },
    /// A device without a valid leaf, which may request one by a grant, and do nothing else.
    Granted {
        /// Its registration id.
        name: String,
        /// The profile that the grant is for.
        profile: String,
        grant: Grant,
    },
    Daemon,
}

impl Caller {
    /// The client certificate by which it is known, if it is known by one.
    pub(super) fn requester(&self) -> Option<Requester> {
        match self {
            Caller::Certificate { certificate, .. } => Some(*certificate),
            Caller::Granted {
                grant: Grant::LateRenewal(certificate),
                ..
            } => Some(*certificate),
            Caller::Local { .. } | Caller::Granted { .. } | Caller::Daemon => None,
        }
    }

    /// The name of the station that it is, if it is one.
    pub(super) fn station(&self) -> Option<&str> {
        match self {
            Caller::Certificate {
                role: Role::Station,
                name,
                ..
            } => Some(name),
            _ => None,
        }
    }

    /// By what it requests a leaf, if it has no valid one.
    pub(super) fn grant(&self) -> Option<&Grant> {
        match self {
            Caller::Granted { grant, .. } => Some(grant),
            _ => None,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Local { uid } => write!(f, "local uid {uid}"),
            Caller::Certificate { role, name, .. } => write!(f, "{role} {name}"),
            Caller::Granted { name, .. } => write!(f, "{} {name}", Role::Device),
            Caller::Daemon => f.write_str("hallmarkd"),
        }
    }
}

/// Permission to ask for a certificate.
#[derive(Clone, Debug)]
pub struct Issue {
    scope: Scope,
}

/// Permission to change authorities, enrollments and rolls.
#[derive(Debug)]
pub struct Operate(());

/// Permission to look at everything.
#[derive(Debug)]
pub struct Inspect(());

/// Permission to approve and reject what others ask for.
#[derive(Debug)]
pub struct Approve(());

/// Permission to fetch certificates that were issued.
#[derive(Debug)]
pub struct Fetch {
    /// Certificates of others, too.
    all: bool,
}

/// A permission, and who holds it. There is no other way to get one than to be authorized.
#[derive(Clone, Debug)]
pub struct Authorized<Permission> {
    caller: Caller,
    permission: Permission,
}

#[derive(Clone, Debug)]
enum Scope {
    Anything,
    /// Permits what the station policy allows the station of this name.
    Devices(String),
    Device(String),
    /// A leaf of this device by this profile.
    Granted {
        id: String,
        profile: String,
    },
    /// Its own next certificate, and nothing else.
    Nothing,
}

impl<Permission> Authorized<Permission> {
    /// The holder's role and name.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Authorized<Issue> {
    /// Step 1 of the issuance cycle: whether `caller` may ask for certificates, and for which.
    pub fn to_issue(caller: Caller) -> Self {
        let scope = match (Access::Callers.reach(caller.kind()), &caller) {
            (Reach::All, _) => Scope::Anything,
            (Reach::Tables, Caller::Certificate { name, .. }) => Scope::Devices(name.clone()),
            (
                Reach::Own,
                Caller::Certificate {
                    role: Role::Device,
                    name,
                    ..
                },
            ) => Scope::Device(name.clone()),
            (Reach::Own, Caller::Granted { name, profile, .. }) => Scope::Granted {
                id: name.clone(),
                profile: profile.clone(),
            },
            (Reach::Tables | Reach::Own | Reach::Nothing, _) => Scope::Nothing,
        };
        Self {
            caller,
            permission: Issue { scope },
        }
    }

    /// Returns true if a station, auditor, approver or server asks for its own next certificate:
    /// that is judged by `ca::issuer::renewal`.
    pub(super) fn renews_itself(&self, profile: &IssuanceProfile, name: &str) -> bool {
        let judged = matches!(self.permission.scope, Scope::Devices(_) | Scope::Nothing);
        match &self.caller {
            Caller::Certificate {
                name: own,
                profile: by,
                ..
            } => judged && own == name && *by == profile.name,
            Caller::Local { .. } | Caller::Granted { .. } | Caller::Daemon => false,
        }
    }

    /// Step 4: returns from which other profiles a device may be moved to this one, if the
    /// permission covers this profile and this name. `moves` says that an operator wants the
    /// device moved; stations do not say so, but need a policy that allows it.
    pub(super) fn covers(
        &self,
        stations: &StationPolicy,
        profile: &IssuanceProfile,
        name: &str,
        moves: bool,
    ) -> Result<Moves, Error> {
        let is_device = profile.role == Role::Device;
        match &self.permission.scope {
            Scope::Anything if moves => return Ok(Moves::NotFrom(BTreeSet::new())),
            Scope::Anything => return Ok(Moves::Never),
            Scope::Devices(station) if is_device => {
                return stations.moves_to(station, &profile.name, name);
            }
            Scope::Device(own) if is_device && own == name => return Ok(Moves::NotByItself),
            Scope::Granted { id, profile: by } if is_device => {
                return self.covers_granted((id, by), profile, name);
            }
            _ => {}
        }
        let message = format!(
            "{} may not ask for {name:?} by profile {:?}: stations ask for devices, a device for \
             itself, operators for anything, and all but these renew only what they have",
            self.caller, profile.name
        );
        Err(Error::forbidden(Code::RoleForbidden, message))
    }
}

impl Authorized<Issue> {
    /// Permits operators and stations to let devices request a leaf; `hands_over` says which.
    pub fn to_hand_over(caller: Caller) -> Result<Self, Error> {
        let is_admitted = Access::OperatorsAndStations.admits(caller.kind());
        let permission = Self::to_issue(caller);
        if is_admitted {
            Ok(permission)
        } else {
            Err(permission.hands_nothing_over())
        }
    }

    /// Fails unless the caller may let the device `name` request a leaf by itself: operators any
    /// device, stations those of their tables.
    pub(super) fn hands_over(
        &self,
        stations: &StationPolicy,
        profile: &IssuanceProfile,
        name: &str,
    ) -> Result<(), Error> {
        match &self.permission.scope {
            Scope::Anything if profile.role == Role::Device => Ok(()),
            Scope::Anything => Err(Error::invalid(
                Code::CredentialInvalid,
                format!(
                    "profile {:?} is for role {}; a one-time credential is for a profile of \
                     devices",
                    profile.name, profile.role
                ),
            )),
            Scope::Devices(_) => self.covers(stations, profile, name, false).map(drop),
            _ => Err(self.hands_nothing_over()),
        }
    }

    /// Fails unless the caller may revoke a one-time credential of the device `name`. `profile` is
    /// that of the credential, if it is still configured.
    pub(super) fn may_revoke(
        &self,
        stations: &StationPolicy,
        profile: Option<&IssuanceProfile>,
        name: &str,
    ) -> Result<(), Error> {
        match (&self.permission.scope, profile) {
            (Scope::Anything, _) => Ok(()),
            (_, Some(profile)) => self.hands_over(stations, profile, name),
            (_, None) => Err(self.hands_nothing_over()),
        }
    }

    fn hands_nothing_over(&self) -> Error {
        let message = format!(
            "{} may not make or revoke one-time credentials; operators may, and stations for their \
             devices",
            self.caller
        );
        Error::forbidden(Code::RoleForbidden, message)
    }

    /// Refuses a caller that may request one leaf of its own alone.
    pub(crate) fn refuse_grants(&self) -> Result<(), Error> {
        match self.caller.grant() {
            None => Ok(()),
            Some(_) => Err(Error::forbidden(
                Code::RoleForbidden,
                format!(
                    "{} has no valid certificate and may request its own alone; send POST \
                     /v1/certificates or EST",
                    self.caller
                ),
            )),
        }
    }

    fn covers_granted(
        &self,
        (own, by): (&str, &str),
        profile: &IssuanceProfile,
        name: &str,
    ) -> Result<Moves, Error> {
        if own == name && by == profile.name {
            return Ok(Moves::NotByItself);
        }
        let message = format!(
            "{} has no valid certificate and may request that of {own:?} by profile {by:?} alone, \
             not that of {name:?} by profile {:?}",
            self.caller, profile.name
        );
        Err(Error::forbidden(Code::RoleForbidden, message))
    }
}

impl Authorized<Operate> {
    /// Local users of the admin socket and operators.
    pub fn to_operate(caller: Caller) -> Result<Self, Error> {
        if Access::Operators.admits(caller.kind()) {
            return Ok(Self {
                caller,
                permission: Operate(()),
            });
        }
        Err(Error::forbidden(
            Code::RoleForbidden,
            format!("{caller} may not do that; an operator may"),
        ))
    }
}

impl Authorized<Approve> {
    /// Permits operators, approvers and local users. An approval needs the
    /// signature of a certificate's key, also if a local user sends it.
    pub fn to_approve(caller: Caller) -> Result<Self, Error> {
        if Access::OperatorsAndApprovers.admits(caller.kind()) {
            return Ok(Self {
                caller,
                permission: Approve(()),
            });
        }
        Err(Error::forbidden(
            Code::RoleForbidden,
            format!("{caller} may not approve; an operator or approver may"),
        ))
    }
}

impl Authorized<Inspect> {
    /// Permits operators, auditors and approvers.
    pub fn to_inspect(caller: Caller) -> Result<Self, Error> {
        if Access::OperatorsAndAuditors.admits(caller.kind()) {
            return Ok(Self {
                caller,
                permission: Inspect(()),
            });
        }
        Err(Error::forbidden(
            Code::RoleForbidden,
            format!("{caller} may not read this; an operator, auditor or approver may"),
        ))
    }
}

impl Authorized<Fetch> {
    /// Permits everyone with a valid certificate: operators, auditors and approvers for all
    /// certificates, others for their own.
    pub fn to_fetch(caller: Caller) -> Result<Self, Error> {
        let reach = Access::CallersForTheirOwn.reach(caller.kind());
        if reach == Reach::Nothing {
            let message = format!("{caller} has no valid certificate; request one first");
            return Err(Error::forbidden(Code::RoleForbidden, message));
        }
        let all = reach == Reach::All;
        Ok(Self {
            caller,
            permission: Fetch { all },
        })
    }

    /// Returns the name and the role of a caller that may fetch its own certificates alone.
    pub(super) fn own(&self) -> Option<(&str, Role)> {
        match &self.caller {
            Caller::Certificate { role, name, .. } if !self.permission.all => Some((name, *role)),
            _ => None,
        }
    }

    /// Whether the permission covers certificates of this name and role.
    pub(super) fn covers(&self, name: &str, of: Option<Role>) -> bool {
        let own = match &self.caller {
            Caller::Certificate {
                role, name: own, ..
            } => own == name && of == Some(*role),
            Caller::Local { .. } | Caller::Granted { .. } | Caller::Daemon => false,
        };
        own || self.permission.all
    }

    /// Refuses in the same words whether or not there is such a certificate.
    pub(super) fn refusal(&self) -> Error {
        let message = format!(
            "{} may fetch its own certificates; an operator, auditor or approver may fetch all",
            self.caller
        );
        Error::forbidden(Code::RoleForbidden, message)
    }
}
