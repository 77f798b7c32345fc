//! Bearer tokens (contract section 8.2).

use crate::cloud::Cloud;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The service plane of DPS.
    Service,
    /// IoT Hub.
    Hub,
    /// The resource manager.
    Arm,
}

/// Whether `token` opens the plane of `scope`.
pub(crate) fn opens(cloud: &Cloud, token: &str, scope: Scope) -> bool {
    scope == Scope::Arm && cloud.read(|world| world.arm_token == token)
}
