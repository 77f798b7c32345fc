//! The names of a certificate to which name constraints apply (RFC 5280 6.1.3 (b)).

use super::alternative_name::AlternativeName;
use super::certificate::Certificate;
use super::comparable_name::{self, attributes};
use super::san::SubjectAlternativeName;
use super::subject::IA5_STRING;
use super::wire::{Element, elements};
use super::{ber, oid};
use std::net::IpAddr;

/// Tags of `GeneralName` (RFC 5280 4.2.1.6).
pub(super) const EMAIL: u8 = 0x81;
pub(super) const HOST: u8 = 0x82;
pub(super) const URI: u8 = 0x86;
pub(super) const ADDRESS: u8 = 0x87;
pub(super) const DIRECTORY: u8 = ber::context(4);

/// The names of one certificate.
#[derive(Clone, Debug, Default)]
pub struct ConstrainedNames(pub(super) Vec<GivenName>);

#[derive(Clone, Debug)]
pub(super) struct GivenName {
    /// The tag of `GeneralName`.
    pub(super) tag: u8,
    pub(super) octets: Vec<u8>,
    /// It is the common name, which verifiers read as a host name.
    is_common_name: bool,
}

impl ConstrainedNames {
    /// Returns the names of an authority's certificate. Fails if one of them cannot be read.
    pub fn of_authority(certificate: &Certificate) -> Result<ConstrainedNames, String> {
        let mut names = ConstrainedNames::of_subject(certificate.subject_der())?;
        let unreadable = |_| "its alternative names cannot be read".to_owned();
        if let Some(extension) = certificate.extension(oid::SUBJECT_ALT_NAME) {
            for list in elements(extension.value).map_err(unreadable)? {
                let alternative = elements(list.value).map_err(unreadable)?;
                names.0.extend(alternative.into_iter().map(GivenName::from));
            }
        }
        Ok(names)
    }

    /// Returns the names that a certificate is to have.
    pub fn of_request(
        subject_der: &[u8],
        alternative: &[SubjectAlternativeName],
        is_leaf: bool,
    ) -> Result<ConstrainedNames, String> {
        let mut names = ConstrainedNames::of_subject(subject_der)?;
        names.0.extend(alternative.iter().map(GivenName::from));
        let has_host = names.0.iter().any(|it| it.tag == HOST);
        if is_leaf && !has_host {
            names.0.extend(common_names_as_hosts(subject_der));
        }
        Ok(names)
    }

    /// The subject, and the mailboxes in it.
    fn of_subject(der: &[u8]) -> Result<ConstrainedNames, String> {
        let attributes = attributes(der).map_err(|_| "the subject cannot be read")?;
        let mut names = Vec::new();
        if !attributes.is_empty() {
            names.push(GivenName::new(DIRECTORY, der));
        }
        for (kind, value) in attributes {
            if kind.value != oid::EMAIL_ADDRESS.as_bytes() {
                continue;
            }
            if value.tag != IA5_STRING {
                return Err("the emailAddress in the subject is no IA5String".to_owned());
            }
            names.push(GivenName::new(EMAIL, value.value));
        }
        Ok(ConstrainedNames(names))
    }
}

/// Verifiers read the common name of a leaf as a host name if it looks like one and no host names
/// are beside it (RFC 6125 6.4.4). Such a name has two labels or more.
fn common_names_as_hosts(subject_der: &[u8]) -> Vec<GivenName> {
    attributes(subject_der)
        .unwrap_or_default()
        .into_iter()
        .filter(|(kind, _)| kind.value == oid::COMMON_NAME.as_bytes())
        .filter_map(|(_, value)| comparable_name::text(value))
        .filter(|it| looks_like_a_host(it))
        .map(|text| GivenName {
            is_common_name: true,
            ..GivenName::new(HOST, text.as_bytes())
        })
        .collect()
}

fn looks_like_a_host(text: &str) -> bool {
    let is_inner = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    let is_label = |it: &str| {
        !it.is_empty() && it.chars().all(is_inner) && !it.starts_with('-') && !it.ends_with('-')
    };
    text.contains('.') && text.split('.').all(is_label)
}

impl GivenName {
    pub(super) fn new(tag: u8, octets: &[u8]) -> GivenName {
        GivenName {
            tag,
            octets: octets.to_vec(),
            is_common_name: false,
        }
    }

    /// Returns the name as OpenSSL writes it.
    pub(super) fn shown(&self) -> String {
        if self.is_common_name {
            let host = String::from_utf8_lossy(&self.octets);
            return format!("the common name {host}, which verifiers read as a host name,");
        }
        AlternativeName::shown(self.tag, &self.octets)
    }
}

impl From<Element<'_>> for GivenName {
    fn from(element: Element<'_>) -> GivenName {
        GivenName::new(element.tag, element.value)
    }
}

impl From<&SubjectAlternativeName> for GivenName {
    fn from(name: &SubjectAlternativeName) -> GivenName {
        match name {
            SubjectAlternativeName::Dns(host) => GivenName::new(HOST, host.as_bytes()),
            SubjectAlternativeName::Ip(IpAddr::V4(it)) => GivenName::new(ADDRESS, &it.octets()),
            SubjectAlternativeName::Ip(IpAddr::V6(it)) => GivenName::new(ADDRESS, &it.octets()),
            SubjectAlternativeName::Uri(uri) => GivenName::new(URI, uri.as_bytes()),
            SubjectAlternativeName::Email(mailbox) => GivenName::new(EMAIL, mailbox.as_bytes()),
            // No verifier evaluates constraints of this form, and critical ones are refused.
            SubjectAlternativeName::HardwareModule(_) => GivenName::new(ber::context(0), &[]),
        }
    }
}
