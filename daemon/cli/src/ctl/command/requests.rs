//! Says which route each command requests first, for docs/access.md.
//!
//! A command has no permission of its own: the daemon judges its requests as those of any client,
//! and refuses at the first one.

/// A command by an example of its arguments, and its first request.
///
/// `@name` in an example is a file or folder of that name.
pub type FirstRequest = (&'static str, &'static str);

/// Stands for no request, or none of the command by itself.
pub const ON_THE_MACHINE: &str = "on the machine";

/// Every command of `hallmark`.
pub const FIRST_REQUESTS: &[FirstRequest] = &[
    ("setup", ON_THE_MACHINE),
    ("status", "GET /v1/status"),
    ("doctor", "POST /v1/doctor"),
    ("console", ON_THE_MACHINE),
    (
        "custodian split --pin @pin --threshold 2 --out @shares anna boris",
        ON_THE_MACHINE,
    ),
    ("custodian open --out @pin @anna.share", ON_THE_MACHINE),
    (
        "custodian script @ceremony.toml --threshold 2 anna boris",
        ON_THE_MACHINE,
    ),
    ("caller", "GET /v1/caller"),
    ("reload", "POST /v1/reload"),
    ("ceremony run @ceremony.toml", "POST /v1/ceremonies"),
    ("ceremony request @made", "POST /v1/transfers/requests"),
    ("ceremony show @carried", ON_THE_MACHINE),
    (
        "ceremony sign @carried --authority root",
        "POST /v1/transfers/answers",
    ),
    (
        "ceremony install @returned --sha256 00",
        "POST /v1/transfers/installations",
    ),
    ("authority list", "GET /v1/authorities"),
    ("authority block line-1 --generation 9", "POST /v1/blocks"),
    (
        "authority unblock line-1 --generation 9",
        "DELETE /v1/blocks/{kind}/{name}",
    ),
    (
        "authority csr line-1",
        "POST /v1/authorities/{name}/request",
    ),
    (
        "authority install line-1 @leaf.pem",
        "POST /v1/authorities/{name}/certificate",
    ),
    (
        "authority import line-1 --crl @old.crl",
        "POST /v1/authorities/{name}/imports",
    ),
    (
        "authority sign @leaf.csr --authority root --profile intermediate",
        "POST /v1/authorities/{name}/subordinates",
    ),
    (
        "authority subordinates root",
        "GET /v1/authorities/{name}/subordinates",
    ),
    ("authority show root", "GET /v1/authorities/{name}"),
    (
        "issue --profile none --id press-9 --csr @leaf.csr",
        "POST /v1/certificates",
    ),
    (
        "issue-batch @list.csv --profile none --out @issued",
        "POST /v1/certificates:batch",
    ),
    ("certificate list", "GET /v1/certificates"),
    ("certificate show AA", "GET /v1/certificates/{serial}"),
    (
        "certificate export AA",
        "GET /v1/certificates/{serial}/export",
    ),
    (
        "certificate revoke AA --reason superseded",
        "POST /v1/certificates/revocations",
    ),
    ("certificate hold AA", "POST /v1/certificates/holds"),
    ("certificate release AA", "POST /v1/certificates/releases"),
    ("profile list", "GET /v1/profiles"),
    ("profile show none", "GET /v1/profiles/{name}"),
    ("device list", "GET /v1/devices"),
    ("device show press-9", "GET /v1/devices/{id}"),
    ("device block press-9", "POST /v1/blocks"),
    ("device unblock press-9", "DELETE /v1/blocks/{kind}/{name}"),
    (
        "device credential make press-9 --profile none",
        "POST /v1/device-credentials",
    ),
    ("device credential list", "GET /v1/device-credentials"),
    (
        "device credential revoke press-9",
        "DELETE /v1/device-credentials/{id}",
    ),
    ("enrollment list", "GET /v1/enrollments"),
    ("enrollment show press-9", "GET /v1/enrollments/{name}"),
    (
        "enrollment add --individual press-9",
        "POST /v1/enrollments",
    ),
    (
        "enrollment adopt --individual press-9",
        "POST /v1/enrollments/{kind}/{name}/adoption",
    ),
    ("enrollment block --group none", "POST /v1/blocks"),
    (
        "enrollment unblock --group none",
        "DELETE /v1/blocks/{kind}/{name}",
    ),
    (
        "enrollment remove --individual press-9",
        "DELETE /v1/enrollments/{kind}/{name}",
    ),
    ("ca-certificate list", "GET /v1/ca-certificates"),
    ("block list", "GET /v1/blocks"),
    ("block show device press-9", "GET /v1/blocks/{kind}/{name}"),
    ("roll start press-9 --reason expiry", "POST /v1/rolls"),
    ("roll approve 99", "POST /v1/rolls/{id}/approve"),
    ("roll list", "GET /v1/rolls"),
    ("roll show 99", "GET /v1/rolls/{id}"),
    ("roll abort 99", "POST /v1/rolls/{id}/abort"),
    (
        "approve 99 --certificate @leaf.pem --signature @leaf.csr",
        "GET /v1/approvals/{id}",
    ),
    ("approval list", "GET /v1/approvals"),
    ("approval show 99", "GET /v1/approvals/{id}"),
    ("approval reject 99", "POST /v1/approvals/{id}/rejection"),
    ("push list", "GET /v1/push"),
    ("push retry none", "POST /v1/push/retry"),
    ("clock accept", "POST /v1/clock/accept"),
    ("token list", "GET /v1/tokens"),
    ("token show none", "GET /v1/tokens/{name}"),
    ("token check none", "POST /v1/tokens/{name}/check"),
    ("token bench none", "POST /v1/tokens/{name}/bench"),
    ("backup create", "POST /v1/backups"),
    ("backup verify @backup.db", ON_THE_MACHINE),
    (
        "backup restore @backup.db --config @hallmark.toml",
        ON_THE_MACHINE,
    ),
    ("audit show", "GET /v1/audit"),
    ("audit verify", "GET /v1/audit/verification"),
    ("audit export", "GET /v1/audit"),
    ("audit key", "GET /v1/audit/keys"),
    ("audit accept --reason known", "POST /v1/audit/accept"),
];
