//! Reads the request for the certificate of a subordinate authority (PKCS #10).
//!
//! The key and its proof of possession are judged as those of a leaf. The subject is kept octet by
//! octet: what the holder has asked for is the name under which it signs. Requested extensions are
//! never copied. A request that asks for more than the profile gives is refused, because its holder
//! would find out when it signs; what a profile has no place for is left out, and listed.

use super::ber::{BIT_STRING, Element};
use super::certificate::Certificate;
use super::comparable_name::{self, ComparableName};
use super::csr::{self, CSR_BYTES_MAX, CsrRefusal};
use super::extension::Extension;
use super::key::PublicKey;
use super::lint::canonical;
use super::name::Subject;
use super::oid;
use super::profile::{KeyUsage, Kind, Profile};
use super::read_extensions::{BasicConstraints, ReadExtensions};
use super::requested_names::RequestedNames;

/// Longest subject, in bytes of DER: with an issuer's name as long, a certificate has room for it.
pub const SUBJECT_BYTES_MAX: usize = 1_024;

/// Most extensions that are listed as left out.
const LISTED_MAX: usize = 16;

/// The bits of keyUsage in their order (RFC 5280 4.2.1.3), with what a profile can give of them.
const KEY_USAGES: [(&str, Option<KeyUsage>); 9] = [
    ("digital_signature", Some(KeyUsage::DigitalSignature)),
    ("nonRepudiation", None),
    ("key_encipherment", Some(KeyUsage::KeyEncipherment)),
    ("dataEncipherment", None),
    ("key_agreement", Some(KeyUsage::KeyAgreement)),
    ("key_cert_sign", Some(KeyUsage::KeyCertSign)),
    ("crl_sign", Some(KeyUsage::CrlSign)),
    ("encipherOnly", None),
    ("decipherOnly", None),
];

/// A well-formed request for an authority's certificate, with a valid proof of possession.
#[derive(Clone, Debug)]
pub struct AuthorityCsr {
    public_key: PublicKey,
    subject: Subject,
    names: RequestedNames,
    basic_constraints: Option<BasicConstraints>,
    /// The bits of keyUsage that are asked for, by their place in [`KEY_USAGES`].
    key_usages: Vec<usize>,
    others: Vec<String>,
}

impl AuthorityCsr {
    /// Reads PEM, bare base64 or DER, and checks encoding, key, subject and proof of possession.
    pub fn parse(bytes: &[u8]) -> Result<AuthorityCsr, CsrRefusal> {
        if bytes.len() > CSR_BYTES_MAX {
            return Err(CsrRefusal::TooLarge { bytes: bytes.len() });
        }
        let der = csr::unarmored(bytes)?;
        let (fields, public_key) = csr::read_proven(&der)?;
        let extensions = &fields.extensions;
        let subject = subject(fields.subject_der)?;
        let read = ReadExtensions::read(extensions, subject.label()).map_err(twice_or_damaged)?;
        Ok(AuthorityCsr {
            names: RequestedNames::of_authority(&der)?,
            basic_constraints: read.basic_constraints,
            key_usages: key_usages(extensions),
            others: others(extensions, &public_key),
            public_key,
            subject,
        })
    }

    /// Returns the public key, with possession of the private key proven.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Returns the requested subject, with its encoding.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns how many authorities the request asks to be allowed below.
    pub fn path_length(&self) -> Option<u8> {
        self.basic_constraints.and_then(|it| it.path_length)
    }

    /// Returns the requested names.
    pub fn names(&self) -> &RequestedNames {
        &self.names
    }

    /// Returns the requested extensions that no profile has a place for, as operators know them.
    pub fn left_out(&self) -> &[String] {
        &self.others
    }

    /// Returns true if relying parties read the same subject in `certificate` (RFC 5280 7.1).
    pub fn has_subject_of(&self, certificate: &Certificate) -> bool {
        self.has_subject(certificate.subject_der())
    }

    /// The same for a subject alone, as DER.
    pub fn has_subject(&self, der: &[u8]) -> bool {
        let own = ComparableName::read(&self.subject.to_der());
        let other = ComparableName::read(der);
        own.is_ok_and(|own| other.is_ok_and(|other| own == other))
    }

    /// Returns how the request asks for more than a certificate by `profile` gives, if it does.
    pub fn conflict(&self, profile: &Profile) -> Option<String> {
        let constraints = self.basic_constraints;
        if constraints.is_some_and(|it| !it.ca) {
            let why = "it asks for no authority (basicConstraints CA:FALSE); make it with \
                       CA:TRUE, or without basicConstraints";
            return Some(why.to_owned());
        }
        let asked = constraints.and_then(|it| it.path_length);
        if let (Some(asked), Kind::Authority { path_length }) = (asked, profile.kind)
            && path_length.is_some_and(|given| given < asked)
        {
            let given = path_length.unwrap_or_default();
            return Some(format!(
                "it asks for path length {asked}, and the profile gives {given}; take another \
                 profile, or make it with a smaller one"
            ));
        }
        let missing = |bit: &&usize| {
            let given = KEY_USAGES[**bit].1;
            given.is_none_or(|usage| !profile.key_usage.contains(&usage))
        };
        let (name, _) = KEY_USAGES[*self.key_usages.iter().find(missing)?];
        Some(format!(
            "it asks for the key usage {name}, which the profile does not give; take another \
             profile, or make it without"
        ))
    }
}

fn subject(der: &[u8]) -> Result<Subject, CsrRefusal> {
    if der.len() > SUBJECT_BYTES_MAX {
        let why = format!("the subject has more than {SUBJECT_BYTES_MAX} bytes; shorten it");
        return Err(CsrRefusal::BadName(why));
    }
    if !canonical::is_one_value(der) {
        return Err(CsrRefusal::NotCanonical);
    }
    let subject = Subject::of_predecessor(der)?;
    let attributes =
        comparable_name::attributes(der).map_err(|_| CsrRefusal::damaged("subject"))?;
    let is_shown = |it: char| !it.is_control() && it != char::REPLACEMENT_CHARACTER;
    let fits = |text: String| !text.trim().is_empty() && text.chars().all(is_shown);
    let mut values = attributes.into_iter().map(|(_, value)| value);
    if !values.all(|value| comparable_name::text(value).is_some_and(fits)) {
        let why = "the subject has a value without text, or with control characters; write it in \
                   UTF-8 (openssl req: -utf8)";
        return Err(CsrRefusal::BadName(why.to_owned()));
    }
    Ok(subject)
}

fn twice_or_damaged(extension: &'static str) -> CsrRefusal {
    CsrRefusal::Malformed(format!(
        "the {extension} that it asks for cannot be read, or is there twice; make it once more, \
         for example with `openssl req -new -key KEY`"
    ))
}

/// Returns the places of the bits that are set. [`ReadExtensions`] has found at most one keyUsage.
fn key_usages(extensions: &[Extension<'_>]) -> Vec<usize> {
    let usage = extensions.iter().find(|it| it.is(oid::KEY_USAGE));
    let bits = usage.and_then(|it| Element::first(it.value));
    let Some((Element { contents, .. }, _)) = bits.filter(|(it, _)| it.tag == BIT_STRING) else {
        return Vec::new();
    };
    let octets = contents.get(1..).unwrap_or_default();
    let is_set = |bit: &usize| {
        let octet = octets.get(bit / 8).copied().unwrap_or_default();
        octet & (0x80 >> (bit % 8)) != 0
    };
    (0..KEY_USAGES.len()).filter(is_set).collect()
}

fn others(extensions: &[Extension<'_>], public_key: &PublicKey) -> Vec<String> {
    let judged = [
        oid::BASIC_CONSTRAINTS,
        oid::KEY_USAGE,
        oid::SUBJECT_ALT_NAME,
    ];
    let is_ours = |it: &Extension<'_>| {
        let octets = Element::first(it.value).map(|(value, _)| value.contents);
        it.is(oid::SUBJECT_KEY_IDENTIFIER) && octets == Some(&public_key.key_identifier()[..])
    };
    let left_out = extensions
        .iter()
        .filter(|it| !judged.iter().any(|id| it.is(*id)) && !is_ours(it));
    let mut names: Vec<String> = left_out.map(Extension::name).collect();
    names.dedup();
    if names.len() > LISTED_MAX {
        let more = names.len() - LISTED_MAX;
        names.truncate(LISTED_MAX);
        names.push(format!("and {more} more"));
    }
    names
}
