//! Which callers may use a route, and how they say who they are.

use serde_json::{Value, json};

pub(in crate::api) use crate::ca::permissions::Access;

/// Members of `securitySchemes`.
const CERTIFICATE: &str = "clientCertificate";
const SOCKET: &str = "adminSocket";
const CREDENTIAL: &str = "oneTimeCredential";

/// Codes of a caller that is not known or may not do this.
const OF_CALLERS: &str = "client_certificate_required client_certificate_unknown \
                          client_certificate_expired client_certificate_revoked \
                          user_not_admitted role_forbidden";

impl Access {
    /// The words of docs/api.md.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Callers => "callers",
            Self::CallersForTheirOwn => "callers, for their own",
            Self::OperatorsAndAuditors => "operators, auditors",
            Self::Operators => "operators",
            Self::OperatorsAndApprovers => "operators, approvers",
            Self::OperatorsAndStations => "operators, stations",
            Self::AdminSocket => "the admin socket",
        }
    }

    /// The codes of its refusals.
    pub(super) fn codes(self) -> &'static str {
        match self {
            Self::All => "",
            _ => OF_CALLERS,
        }
    }

    /// The member `security` of an operation: each scheme is enough.
    pub(super) fn security(self, takes_credential: bool) -> Value {
        let scheme = |name: &str| json!({ name: [] });
        let mut schemes = match self {
            Self::All => return json!([]),
            Self::AdminSocket => vec![scheme(SOCKET)],
            _ => vec![scheme(CERTIFICATE), scheme(SOCKET)],
        };
        schemes.extend(takes_credential.then(|| scheme(CREDENTIAL)));
        Value::Array(schemes)
    }
}

/// The member `securitySchemes`.
pub(super) fn schemes() -> Value {
    json!({
        CERTIFICATE: {
            "type": "mutualTLS",
            "description": "A client certificate that this daemon has issued; its role is on \
                            record. For a first leaf also the certificate of a configured \
                            manufacturer.",
        },
        SOCKET: {
            "type": "http",
            "scheme": "unix-peer-credentials",
            "description": "Nothing is sent: the daemon reads the user id of the other end of the \
                            admin socket, which must be root, its own user or one of `[listen] \
                            admin_users`. OpenAPI has no type for this.",
        },
        CREDENTIAL: {
            "type": "http",
            "scheme": "basic",
            "description": "A one-time credential over TLS: the registration id as user name, the \
                            secret as password (RFC 7617, UTF-8). For a first leaf alone.",
        },
    })
}
