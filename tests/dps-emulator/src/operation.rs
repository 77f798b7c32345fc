//! The name of what a caller asks for, found from method and path alone.
//!
//! Planes dispatch on it, the journal counts by it, and faults are aimed with it.

use axum::http::Method;

use crate::enrollment::Kind;
use crate::plane::Plane;

/// Everything that can be asked of the emulator over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get(Kind),
    Put(Kind),
    Delete(Kind),
    Mechanism(Kind),
    Bulk(Kind),
    Query(Kind),
    RegistrationGet,
    RegistrationDelete,
    RegistrationQuery,
    Register,
    Poll,
    Lookup,
    ResourceGet,
    AuthorityList,
    AuthorityGet,
    AuthorityPut,
    AuthorityDelete,
    AuthorityCode,
    AuthorityVerify,
    IdentityGet,
    IdentityPut,
    IdentityDelete,
    TwinGet,
    DeviceQuery,
    DeviceMessage,
    DirectMethod,
    JobPut,
    JobGet,
    JobCancel,
    JobQuery,
    TokenIssue,
    TokenDiscovery,
}

impl Operation {
    /// The operation of a method and a path's lower-case parts on a plane.
    pub(crate) fn find(plane: Plane, method: &Method, shape: &[String]) -> Option<Self> {
        let parts: Vec<&str> = shape.iter().map(String::as_str).collect();
        match plane {
            Plane::Service => on_service(method.as_str(), &parts),
            Plane::Device => on_device(method.as_str(), &parts),
            Plane::Arm => on_arm(method.as_str(), &parts),
            Plane::Hub => on_hub(method.as_str(), &parts),
            Plane::Entra => on_entra(method.as_str(), &parts),
        }
    }

    /// The name in the journal, the counters and the aim of a fault.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get(Kind::Individual) => "individual.get",
            Self::Get(Kind::Group) => "group.get",
            Self::Put(Kind::Individual) => "individual.put",
            Self::Put(Kind::Group) => "group.put",
            Self::Delete(Kind::Individual) => "individual.delete",
            Self::Delete(Kind::Group) => "group.delete",
            Self::Mechanism(Kind::Individual) => "individual.attestation",
            Self::Mechanism(Kind::Group) => "group.attestation",
            Self::Bulk(Kind::Individual) => "individual.bulk",
            Self::Bulk(Kind::Group) => "group.bulk",
            Self::Query(Kind::Individual) => "individual.query",
            Self::Query(Kind::Group) => "group.query",
            other => other.name_without_kind(),
        }
    }

    fn name_without_kind(self) -> &'static str {
        match self {
            Self::RegistrationGet => "registration.get",
            Self::RegistrationDelete => "registration.delete",
            Self::RegistrationQuery => "registration.query",
            Self::Register => "device.register",
            Self::Poll => "device.poll",
            Self::Lookup => "device.lookup",
            Self::ResourceGet => "arm.resource",
            Self::AuthorityList => "authority.list",
            Self::AuthorityGet => "authority.get",
            Self::AuthorityPut => "authority.put",
            Self::AuthorityDelete => "authority.delete",
            Self::AuthorityCode => "authority.code",
            Self::AuthorityVerify => "authority.verify",
            Self::IdentityGet => "identity.get",
            Self::IdentityPut => "identity.put",
            Self::IdentityDelete => "identity.delete",
            Self::TwinGet => "twin.get",
            Self::DeviceQuery => "hub.query",
            Self::DeviceMessage => "hub.message",
            Self::DirectMethod => "hub.method",
            Self::JobPut => "job.put",
            Self::JobGet => "job.get",
            Self::JobCancel => "job.cancel",
            Self::JobQuery => "job.query",
            Self::TokenIssue => "entra.token",
            _ => "entra.discovery",
        }
    }
}

fn on_service(method: &str, parts: &[&str]) -> Option<Operation> {
    match (method, parts) {
        ("GET", ["registrations", _]) => Some(Operation::RegistrationGet),
        ("DELETE", ["registrations", _]) => Some(Operation::RegistrationDelete),
        ("POST", ["registrations", _, "query"]) => Some(Operation::RegistrationQuery),
        (_, ["enrollments", rest @ ..]) => on_records(method, rest, Kind::Individual),
        (_, ["enrollmentgroups", rest @ ..]) => on_records(method, rest, Kind::Group),
        _ => None,
    }
}

fn on_records(method: &str, parts: &[&str], kind: Kind) -> Option<Operation> {
    match (method, parts) {
        ("POST", []) => Some(Operation::Bulk(kind)),
        ("POST", ["query"]) => Some(Operation::Query(kind)),
        ("POST", [_, "attestationmechanism"]) => Some(Operation::Mechanism(kind)),
        ("GET", [_]) => Some(Operation::Get(kind)),
        ("PUT", [_]) => Some(Operation::Put(kind)),
        ("DELETE", [_]) => Some(Operation::Delete(kind)),
        _ => None,
    }
}

fn on_device(method: &str, parts: &[&str]) -> Option<Operation> {
    match (method, parts) {
        ("PUT", [_, "registrations", _, "register"]) => Some(Operation::Register),
        ("GET", [_, "registrations", _, "operations", _]) => Some(Operation::Poll),
        ("POST", [_, "registrations", _]) => Some(Operation::Lookup),
        _ => None,
    }
}

fn on_arm(method: &str, parts: &[&str]) -> Option<Operation> {
    let [
        "subscriptions",
        _,
        "resourcegroups",
        _,
        "providers",
        "microsoft.devices",
        kind,
        _,
        rest @ ..,
    ] = parts
    else {
        return None;
    };
    if *kind != "provisioningservices" {
        return None;
    }
    match (method, rest) {
        ("GET", []) => Some(Operation::ResourceGet),
        ("GET", ["certificates"]) => Some(Operation::AuthorityList),
        ("GET", ["certificates", _]) => Some(Operation::AuthorityGet),
        ("PUT", ["certificates", _]) => Some(Operation::AuthorityPut),
        ("DELETE", ["certificates", _]) => Some(Operation::AuthorityDelete),
        ("POST", ["certificates", _, "generateverificationcode"]) => Some(Operation::AuthorityCode),
        ("POST", ["certificates", _, "verify"]) => Some(Operation::AuthorityVerify),
        _ => None,
    }
}

/// Contract section 12; the message path is the hub's device side.
fn on_hub(method: &str, parts: &[&str]) -> Option<Operation> {
    match (method, parts) {
        ("POST", ["devices", "query"]) => Some(Operation::DeviceQuery),
        ("GET", ["devices", _]) => Some(Operation::IdentityGet),
        ("PUT", ["devices", _]) => Some(Operation::IdentityPut),
        ("DELETE", ["devices", _]) => Some(Operation::IdentityDelete),
        ("POST", ["devices", _, "messages", "events"]) => Some(Operation::DeviceMessage),
        ("GET", ["twins", _]) => Some(Operation::TwinGet),
        ("POST", ["twins", _, "methods"]) => Some(Operation::DirectMethod),
        ("GET", ["jobs", "v2", "query"]) => Some(Operation::JobQuery),
        ("PUT", ["jobs", "v2", _]) => Some(Operation::JobPut),
        ("GET", ["jobs", "v2", _]) => Some(Operation::JobGet),
        ("POST", ["jobs", "v2", _, "cancel"]) => Some(Operation::JobCancel),
        _ => None,
    }
}

fn on_entra(method: &str, parts: &[&str]) -> Option<Operation> {
    match (method, parts) {
        ("POST", [_, "oauth2", "v2.0", "token"]) => Some(Operation::TokenIssue),
        ("GET", [_, "v2.0", ".well-known", "openid-configuration"]) => {
            Some(Operation::TokenDiscovery)
        }
        _ => None,
    }
}
