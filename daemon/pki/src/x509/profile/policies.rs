//! Certificate policies (RFC 5280 4.2.1.4).

use super::written::Written;
use crate::x509::oid;
use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Serialize};

/// Most policies of one certificate.
pub const POLICIES_MAX: usize = 8;

/// Longest address of a statement, in octets.
const CPS_OCTETS_MAX: usize = 200;

/// One policy, with the address of its certification practice statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written<PolicyTable>", into = "Written<PolicyTable>")]
pub struct CertificatePolicy {
    pub(crate) id: ObjectIdentifier,
    pub(crate) cps: Option<String>,
}

/// A policy with more than its object identifier.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    oid: String,
    cps: String,
}

impl CertificatePolicy {
    /// Returns true for anyPolicy.
    pub(crate) fn is_any(&self) -> bool {
        self.id == oid::ANY_POLICY
    }
}

impl TryFrom<Written<PolicyTable>> for CertificatePolicy {
    type Error = String;

    fn try_from(written: Written<PolicyTable>) -> Result<Self, String> {
        let (text, cps) = match written {
            Written::Word(text) => (text, None),
            Written::Table(table) => (table.oid, Some(table.cps)),
        };
        let id = oid::parse(&text).ok_or_else(|| {
            format!("certificate_policies: {text:?} is no object identifier, such as \"1.3.6.1.4.1.32473.1\"")
        })?;
        if let Some(cps) = &cps {
            let is_address = ["http://", "https://"]
                .iter()
                .any(|it| cps.strip_prefix(it).is_some_and(|rest| !rest.is_empty()));
            let fits = cps.len() <= CPS_OCTETS_MAX && cps.bytes().all(|it| it.is_ascii_graphic());
            if !is_address || !fits {
                return Err(format!(
                    "certificate_policies: the cps of {text} must be an address that begins with \
                     http:// or https://, in ASCII, of at most {CPS_OCTETS_MAX} characters"
                ));
            }
        }
        Ok(CertificatePolicy { id, cps })
    }
}

impl From<CertificatePolicy> for Written<PolicyTable> {
    fn from(policy: CertificatePolicy) -> Written<PolicyTable> {
        let oid = policy.id.to_string();
        match policy.cps {
            None => Written::Word(oid),
            Some(cps) => Written::Table(PolicyTable { oid, cps }),
        }
    }
}
