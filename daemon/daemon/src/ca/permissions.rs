//! Defines which kinds of callers have a permission, and for what.
//!
//! This is the only definition. [`authorize`](super::authorize) makes permissions by it, each
//! handler of a route names one of its variants, and docs/access.md is written from it. A new role
//! does not compile until [`Access::reach`] decides about it.

use super::authorize::Caller;
use super::profile::Role;

/// The callers that may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Without a client certificate, too.
    All,
    /// Each accepted caller, and devices with a grant on some routes.
    Callers,
    /// The same, for what is their own.
    CallersForTheirOwn,
    OperatorsAndAuditors,
    Operators,
    OperatorsAndApprovers,
    OperatorsAndStations,
    /// Local users.
    AdminSocket,
}

/// For what a caller may use a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Nothing,
    /// Its own certificates, or its next one.
    Own,
    /// The same, and what the tables of stations let it do for devices.
    Tables,
    All,
}

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    Role(Role),
    /// A local user that the admin socket admits.
    LocalUser,
    /// A device with a grant instead of a valid leaf.
    Granted,
    /// This daemon itself.
    Daemon,
}

impl Caller {
    /// The kind of caller that it is.
    pub fn kind(&self) -> CallerKind {
        match self {
            Caller::Local { .. } => CallerKind::LocalUser,
            Caller::Certificate { role, .. } => CallerKind::Role(*role),
            Caller::Granted { .. } => CallerKind::Granted,
            Caller::Daemon => CallerKind::Daemon,
        }
    }
}

impl Access {
    /// Decides for what a caller of this kind may use it. Only certificates are the daemon's own
    /// business: it asks for those of its listener.
    pub fn reach(self, kind: CallerKind) -> Reach {
        match (self, kind) {
            (Self::All, _) => Reach::All,
            (Self::Callers, kind) => to_request(kind),
            (Self::CallersForTheirOwn, kind) => to_fetch(kind),
            (_, CallerKind::LocalUser) => Reach::All,
            (_, CallerKind::Granted | CallerKind::Daemon) => Reach::Nothing,
            (_, CallerKind::Role(role)) => self.reach_of(role),
        }
    }

    /// Whether a caller of this kind may use it at all.
    pub fn admits(self, kind: CallerKind) -> bool {
        self.reach(kind) != Reach::Nothing
    }

    /// The same by role, where that alone decides.
    fn reach_of(self, role: Role) -> Reach {
        match role {
            Role::Operator => match self {
                Self::AdminSocket => Reach::Nothing,
                _ => Reach::All,
            },
            Role::Auditor => match self {
                Self::OperatorsAndAuditors => Reach::All,
                _ => Reach::Nothing,
            },
            Role::Approver => match self {
                Self::OperatorsAndAuditors | Self::OperatorsAndApprovers => Reach::All,
                _ => Reach::Nothing,
            },
            Role::Station => match self {
                Self::OperatorsAndStations => Reach::Tables,
                _ => Reach::Nothing,
            },
            Role::Device | Role::Server => Reach::Nothing,
        }
    }
}

/// Requests for certificates.
fn to_request(kind: CallerKind) -> Reach {
    match kind {
        CallerKind::LocalUser | CallerKind::Daemon => Reach::All,
        CallerKind::Granted => Reach::Own,
        CallerKind::Role(role) => match role {
            Role::Operator => Reach::All,
            Role::Station => Reach::Tables,
            Role::Device | Role::Auditor | Role::Approver | Role::Server => Reach::Own,
        },
    }
}

/// Certificates that were issued.
fn to_fetch(kind: CallerKind) -> Reach {
    match kind {
        CallerKind::LocalUser | CallerKind::Daemon => Reach::All,
        CallerKind::Granted => Reach::Nothing,
        CallerKind::Role(role) => match role {
            Role::Operator | Role::Auditor | Role::Approver => Reach::All,
            Role::Device | Role::Station | Role::Server => Reach::Own,
        },
    }
}
