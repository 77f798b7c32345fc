//! Defines the reasons for a revocation, with the names and codes of RFC 5280 5.3.1.
//!
//! `removeFromCRL` is missing on purpose: it says that a hold has ended, and only a delta list has
//! it (`crl`).

use std::fmt;

/// `CRLReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationReason {
    /// No reason was given. A revocation list leaves it out.
    Unspecified,
    /// An attacker may have the key.
    KeyCompromise,
    /// An attacker may have the authority's key.
    CaCompromise,
    /// The names in it are no longer true.
    AffiliationChanged,
    /// Another certificate has replaced it.
    Superseded,
    /// It is no longer needed.
    CessationOfOperation,
    /// Blocked for a time: the only reason that can be lifted.
    CertificateHold,
    /// A privilege in the certificate is withdrawn.
    PrivilegeWithdrawn,
    /// An attacker may have the attribute authority's key.
    AaCompromise,
}

impl RevocationReason {
    /// Every reason, in the order of the codes.
    pub const ALL: [Self; 9] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// Returns the code in lists and in the store.
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// Returns the reason with this code.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| i64::from(reason.code()) == code)
    }

    /// Returns the name in the RFC.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }

    /// Returns true if the key can no longer be trusted in any certificate.
    pub fn is_of_the_key(self) -> bool {
        matches!(
            self,
            Self::KeyCompromise | Self::CaCompromise | Self::AaCompromise
        )
    }

    /// Returns true if the reason can be that of a leaf: `cACompromise` is for the certificate of
    /// an authority, and `aACompromise` for that of an attribute authority (RFC 5280, 5.3.1).
    pub fn is_for_leaves(self) -> bool {
        !matches!(self, Self::CaCompromise | Self::AaCompromise)
    }

    /// Returns the reason with this name. Case, hyphens and underscores are ignored:
    /// `key-compromise` is `keyCompromise`.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
        let asked = plain(name);
        Self::ALL
            .into_iter()
            .find(|reason| plain(reason.name()) == asked)
    }

    /// Returns true if the revocation is final.
    pub fn is_final(self) -> bool {
        self != Self::CertificateHold
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_known_by_the_name_of_the_rfc_however_it_is_written() {
        for reason in RevocationReason::ALL {
            assert_eq!(RevocationReason::from_name(reason.name()), Some(reason));
        }
        for name in ["key-compromise", "KEY_COMPROMISE", "keycompromise"] {
            let reason = RevocationReason::from_name(name);
            assert_eq!(reason, Some(RevocationReason::KeyCompromise), "{name}");
        }
        for name in ["removeFromCRL", "", "1", "compromise"] {
            assert_eq!(RevocationReason::from_name(name), None, "{name}");
        }
    }
}
