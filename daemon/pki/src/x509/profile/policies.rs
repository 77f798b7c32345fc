//! Certificate policies (RFC 5280 4.2.1.4).

use super::written::Written;
use crate::x509::oid;
use der::Decode;
use der::asn1::{Ia5StringRef, ObjectIdentifier};
use serde::{Deserialize, Serialize};
use x509_cert::ext::pkix::certpolicy;

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
    /// Reads the value of the extension. Returns `None` if it has more than is written here.
    pub(crate) fn read(der: &[u8]) -> Option<Vec<CertificatePolicy>> {
        let read = certpolicy::CertificatePolicies::from_der(der).ok()?;
        let policy = |it: certpolicy::PolicyInformation| {
            let cps = match it.policy_qualifiers.as_deref() {
                None => None,
                Some([one]) if one.policy_qualifier_id == oid::CPS => {
                    let statement: Ia5StringRef<'_> = one.qualifier.as_ref()?.decode_as().ok()?;
                    Some(statement.as_str().to_owned())
                }
                Some(_) => return None,
            };
            let id = it.policy_identifier;
            Some(CertificatePolicy { id, cps })
        };
        read.0.into_iter().map(policy).collect()
    }

    /// Returns anyPolicy, by which the certificate of an authority limits no policy.
    pub fn any() -> CertificatePolicy {
        CertificatePolicy {
            id: oid::ANY_POLICY,
            cps: None,
        }
    }

    /// Returns the object identifier.
    pub fn id(&self) -> ObjectIdentifier {
        self.id
    }

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
            format!(
                "certificate_policies: {text:?} is no object identifier that is read here: {}",
                oid::WRITTEN_FORM
            )
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
