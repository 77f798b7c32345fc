//! The actions that may need the approval of a second person.

use crate::error_code::codes;
use serde::{Deserialize, Deserializer};

codes! {
    /// An action that may need the approval of a second person.
    Action {
        AuthorityCreate => "authority.create",
        AuthorityInstall => "authority.install",
        AuthoritySign => "authority.sign",
        BackupCreate => "backup.create",
        ClockAccept => "clock.accept",
        CompromiseAuthority => "compromise.authority",
        GuardOverride => "guard.override",
        RoleChange => "role.change",
        RollApprove => "roll.approve",
        RollStart => "roll.start",
    }
}

impl Action {
    /// Says what is done, for the approver and for docs/operations.md.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::AuthorityCreate => "run a ceremony, which makes or adopts authorities",
            Self::AuthorityInstall => {
                "install the certificate of an authority, or the answers of an offline root"
            }
            Self::AuthoritySign => {
                "sign the certificate of an authority elsewhere, or what an offline root is asked \
                 for"
            }
            Self::BackupCreate => "copy the database into a backup",
            Self::ClockAccept => "accept the clock of the machine",
            Self::CompromiseAuthority => "exclude a generation of an authority as compromised",
            Self::GuardOverride => "go on although a guard refuses (`--override REASON`)",
            Self::RoleChange => {
                "issue a certificate that makes its holder an operator, approver or auditor"
            }
            Self::RollApprove => "confirm a step of the rollover of an authority",
            Self::RollStart => "start the rollover of an authority",
        }
    }

    /// Returns the action with this name in the configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.name() == name)
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::from_name(&name).ok_or_else(|| {
            let known = Self::ALL.iter().map(|it| it.name()).collect::<Vec<_>>();
            let message = format!("{name:?} is no action; there are {}", known.join(", "));
            serde::de::Error::custom(message)
        })
    }
}
