//! Checks the value of each extension.

use super::Expectation;
use super::canonical::{self, OBJECT_IDENTIFIER, SEQUENCE, Value};
use super::encoded;
use super::fields::Parts;
use super::issuer::ComparedIssuer;
use crate::x509::issuer::Distribution;
use crate::x509::profile::{CertificatePolicy, ExtendedKeyUsage, KeyUsage, Kind};
use crate::x509::san::SubjectAlternativeName;
use aws_lc_rs::digest;
use num_bigint::BigUint;
use std::borrow::Cow;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};

/// The requested names that the profile allows.
pub(super) fn asked_names<'a>(expected: &Expectation<'a>) -> &'a [SubjectAlternativeName] {
    if expected.profile.subject_alternative_names.is_none() {
        &[]
    } else {
        expected.subject_alternative_names
    }
}

/// One extension and the values it is compared with.
pub(super) struct Asked<'a> {
    pub(super) parts: &'a Parts<'a>,
    pub(super) issuer: &'a ComparedIssuer<'a>,
    pub(super) expected: &'a Expectation<'a>,
    pub(super) value: Value<'a>,
}

impl Asked<'_> {
    /// Returns whether the value is right, and the code of the finding if it is not.
    pub(super) fn judge(&self, extension: &ParsedExtension<'_>) -> (bool, &'static str) {
        let limits = self.expected.profile.policy_limits;
        match extension {
            ParsedExtension::SubjectKeyIdentifier(found) => (
                self.subject_key_identifier() == Ok(found.0.to_vec()),
                "subject_key_identifier",
            ),
            ParsedExtension::AuthorityKeyIdentifier(_) => (
                self.is_authority_key_identifier(),
                "authority_key_identifier",
            ),
            ParsedExtension::BasicConstraints(_) => {
                (self.is_basic_constraints(), "basic_constraints")
            }
            ParsedExtension::KeyUsage(found) => (self.is_key_usage(found.flags), "key_usage"),
            ParsedExtension::ExtendedKeyUsage(_) => {
                (self.is_extended_key_usage(), "extended_key_usage")
            }
            ParsedExtension::CertificatePolicies(_) => (
                self.value.contents
                    == encoded::policies(&self.expected.profile.certificate_policies),
                "certificate_policies",
            ),
            ParsedExtension::PolicyConstraints(_) => (
                self.value.contents == encoded::policy_constraints(limits),
                "policy_constraints",
            ),
            ParsedExtension::InhibitAnyPolicy(_) => (
                self.value.contents == encoded::inhibit_any_policy(limits),
                "inhibit_any_policy",
            ),
            ParsedExtension::SubjectAlternativeName(_) => {
                (self.are_names(), "subject_alternative_name")
            }
            ParsedExtension::NameConstraints(_) => (
                self.kept_constraints() == Some(self.value.whole),
                "name_constraints",
            ),
            ParsedExtension::CRLDistributionPoints(found) => {
                let points: Vec<_> = found
                    .iter()
                    .map(|point| &point.distribution_point)
                    .collect();
                (self.is_crl_url(&points), "crl_distribution_points")
            }
            ParsedExtension::AuthorityInfoAccess(found) => {
                let access = found.iter().map(|description| {
                    (
                        description.access_method.to_id_string(),
                        uri(&description.access_location),
                    )
                });
                (
                    self.is_access(&access.collect::<Vec<_>>()),
                    "authority_information_access",
                )
            }
            _ => (false, "extension_unknown"),
        }
    }

    /// Returns the tags that the value must have.
    pub(super) fn shape(&self, extension: &ParsedExtension<'_>) -> Cow<'static, str> {
        let profile = self.expected.profile;
        match extension {
            ParsedExtension::SubjectKeyIdentifier(_) => "04".into(),
            ParsedExtension::AuthorityKeyIdentifier(_) => "30(80)".into(),
            ParsedExtension::BasicConstraints(_) => match profile.kind {
                Kind::Leaf => "30()".into(),
                Kind::Authority { path_length: None } => "30(01)".into(),
                Kind::Authority {
                    path_length: Some(_),
                } => "30(0102)".into(),
            },
            ParsedExtension::KeyUsage(_) => "03".into(),
            ParsedExtension::ExtendedKeyUsage(_) => {
                format!("30({})", "06".repeat(profile.extended_key_usage.len())).into()
            }
            ParsedExtension::CertificatePolicies(_) => {
                let shape = |policy: &CertificatePolicy| match policy.cps {
                    None => "30(06)",
                    Some(_) => "30(0630(30(0616)))",
                };
                let shapes: String = profile.certificate_policies.iter().map(shape).collect();
                format!("30({shapes})").into()
            }
            ParsedExtension::PolicyConstraints(_) => {
                let constraints = profile.policy_limits.constraints.unwrap_or_default();
                let explicit = constraints.require_explicit_policy.map_or("", |_| "80");
                let mapping = constraints.inhibit_policy_mapping.map_or("", |_| "81");
                format!("30({explicit}{mapping})").into()
            }
            ParsedExtension::InhibitAnyPolicy(_) => "02".into(),
            ParsedExtension::SubjectAlternativeName(_) => {
                let names = asked_names(self.expected).iter().map(|name| match name {
                    SubjectAlternativeName::Email(_) => "81",
                    SubjectAlternativeName::Dns(_) => "82",
                    SubjectAlternativeName::Uri(_) => "86",
                    SubjectAlternativeName::Ip(_) => "87",
                    SubjectAlternativeName::HardwareModule(_) => "a0(06a0(30(0604)))",
                });
                format!("30({})", names.collect::<String>()).into()
            }
            ParsedExtension::NameConstraints(_) => {
                let kept = self.kept_constraints().unwrap_or_default();
                let shape = canonical::read(kept).and_then(canonical::shape);
                shape.unwrap_or_default().into()
            }
            ParsedExtension::CRLDistributionPoints(_) => "30(30(a0(a0(86))))".into(),
            ParsedExtension::AuthorityInfoAccess(found) => {
                format!("30({})", "30(0686)".repeat(found.accessdescs.len())).into()
            }
            _ => "unknown".into(),
        }
    }

    fn kept_constraints(&self) -> Option<&[u8]> {
        self.expected.name_constraints.map(|it| &it.value[..])
    }

    /// Expects SHA-1 over the bits of the public key (RFC 5280 4.2.1.2, method 1), or what the key
    /// has in its other certificate.
    fn subject_key_identifier(&self) -> Result<Vec<u8>, String> {
        if let Some(kept) = self.expected.issuer.kept_key_identifier() {
            return kept;
        }
        let key = canonical::children(self.parts.spki)?;
        let bits = key.get(1).and_then(|bits| bits.contents.get(1..));
        let bits = bits.ok_or("no subjectPublicKey")?;
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bits);
        Ok(digest.as_ref().to_vec())
    }

    /// Expects `[0]` keyIdentifier alone.
    fn is_authority_key_identifier(&self) -> bool {
        let Some(above) = self.issuer.above else {
            return false;
        };
        match canonical::children(self.value).as_deref() {
            Ok([identifier]) => {
                identifier.tag == 0x80 && identifier.contents == above.key_identifier
            }
            _ => false,
        }
    }

    /// Expects DER: FALSE is the default and not encoded (X.690 11.5), TRUE is `ff` (11.1), and a
    /// length from 128 on needs an octet that keeps it positive.
    fn is_basic_constraints(&self) -> bool {
        let asked = match self.expected.profile.kind {
            Kind::Leaf => Vec::new(),
            Kind::Authority { path_length: None } => vec![0x01, 0x01, 0xff],
            Kind::Authority {
                path_length: Some(length @ ..0x80),
            } => {
                vec![0x01, 0x01, 0xff, 0x02, 0x01, length]
            }
            Kind::Authority {
                path_length: Some(length),
            } => {
                vec![0x01, 0x01, 0xff, 0x02, 0x02, 0x00, length]
            }
        };
        self.value.tag == SEQUENCE && self.value.contents == asked
    }

    /// Expects the bits of the profile without trailing zeros (X.690 11.2.2), and keyCertSign
    /// exactly if cA is set (RFC 5280 4.2.1.3).
    fn is_key_usage(&self, flags: u16) -> bool {
        // Bit 0 of the BIT STRING is the top bit of its octet; no profile has decipherOnly.
        let asked = self
            .expected
            .profile
            .key_usage
            .iter()
            .fold(0_u8, |bits, usage| {
                bits | match usage {
                    KeyUsage::DigitalSignature => 0x80,
                    KeyUsage::KeyEncipherment => 0x20,
                    KeyUsage::KeyAgreement => 0x08,
                    KeyUsage::KeyCertSign => 0x04,
                    KeyUsage::CrlSign => 0x02,
                }
            });
        let unused_bits = asked.trailing_zeros().to_le_bytes()[0];
        let is_authority = matches!(self.expected.profile.kind, Kind::Authority { .. });
        let signs_certificates = flags & 1 << 5 != 0;
        self.value.contents == [unused_bits, asked]
            && flags == u16::from(asked.reverse_bits())
            && signs_certificates == is_authority
    }

    /// Expects the purposes in order. The bytes are compared, because the parser accepts
    /// repetitions.
    fn is_extended_key_usage(&self) -> bool {
        let asked = self
            .expected
            .profile
            .extended_key_usage
            .iter()
            .map(|purpose| {
                let last_arc = match purpose {
                    ExtendedKeyUsage::ServerAuth => 1,
                    ExtendedKeyUsage::ClientAuth => 2,
                    ExtendedKeyUsage::CodeSigning => 3,
                    ExtendedKeyUsage::EmailProtection => 4,
                    ExtendedKeyUsage::TimeStamping => 8,
                    ExtendedKeyUsage::OcspSigning => 9,
                    ExtendedKeyUsage::Other(id) => {
                        return encoded::element(OBJECT_IDENTIFIER, id.as_bytes());
                    }
                };
                let purpose = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, last_arc];
                encoded::element(OBJECT_IDENTIFIER, &purpose)
            });
        self.value.contents == asked.collect::<Vec<_>>().concat()
    }

    /// Expects the names in their order. DNS names are compared byte for byte: a name that differs
    /// in case was not asked for.
    fn are_names(&self) -> bool {
        let asked: Vec<u8> = asked_names(self.expected)
            .iter()
            .flat_map(encoded::general_name)
            .collect();
        self.value.tag == SEQUENCE && self.value.contents == asked
    }

    /// Expects one URL in one point, of the full list or of its partition. Further points, reasons
    /// or a cRLIssuer (RFC 5280 4.2.1.13) would make verifiers look for lists of some reasons or
    /// indirect ones, which no generation signs.
    fn is_crl_url(&self, points: &[&Option<DistributionPointName<'_>>]) -> bool {
        let urls = self.expected.distribution;
        let partitions = urls.and_then(|urls| urls.crl_partitions.as_ref());
        let asked = match partitions {
            // The remainder of the serial number, whose last octet says it for a power of two.
            Some(it) => {
                let serial = BigUint::from_bytes_be(self.expected.serial.as_bytes());
                let part = serial % it.count + 1_u8;
                Some(format!("{}.{part}of{}.crl", it.address, it.count))
            }
            None => urls.and_then(|urls| urls.crl_url.clone()),
        };
        match points {
            [Some(DistributionPointName::FullName(names))] => match names.as_slice() {
                [name] => uri(name) == asked.as_deref(),
                _ => false,
            },
            _ => false,
        }
    }

    /// Expects id-ad-ocsp and then id-ad-caIssuers (RFC 5280 4.2.2.1), each once and only if the
    /// configuration has its URL.
    fn is_access(&self, found: &[(String, Option<&str>)]) -> bool {
        let Distribution {
            ca_issuers_url,
            ocsp_url,
            ..
        } = self.expected.distribution.cloned().unwrap_or_default();
        let asked: Vec<(String, Option<&str>)> = [
            ("1.3.6.1.5.5.7.48.1", &ocsp_url),
            ("1.3.6.1.5.5.7.48.2", &ca_issuers_url),
        ]
        .into_iter()
        .filter_map(|(method, url)| Some((method.to_owned(), Some(url.as_deref()?))))
        .collect();
        found == asked
    }
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}
