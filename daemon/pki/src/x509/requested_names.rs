//! The names in a request: which of them a profile certifies, and which a certificate lacks.
//!
//! A profile decides about names, so a name that it does not certify is no reason to refuse a
//! request. It is left out of the certificate, and listed.

use super::alternative_name::AlternativeName;
use super::certificate::Certificate;
use super::csr::{self, CSR_BYTES_MAX, CsrRefusal};
use super::extension::Extension;
use super::name::AttributeKind;
use super::oid;
use super::pkcs10::{self, Fields};
use super::profile::{Profile, SubjectAlternativeNames};
use super::san::{NAMES_MAX, NameKind, SubjectAlternativeName};
use super::subject::SubjectValues;
use super::template::Values;
use crate::der_bytes::Der;
use der::asn1::ObjectIdentifier;

/// Most names that are listed as left out.
const LISTED_MAX: usize = 32;

/// The longest name in that list, in characters.
const LISTED_CHARACTERS_MAX: usize = 128;

/// A request read as far as its names, with no proof of possession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnprovenCsr {
    /// The request, without PEM or base64.
    pub der: Der,
    /// Its names.
    pub names: RequestedNames,
}

/// Subject and subject alternative names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedNames {
    subject: SubjectValues,
    common_name: Option<String>,
    /// Each once.
    alternative: Vec<AlternativeName>,
    /// The request lists its alternative names more than once, and differently.
    ambiguous: bool,
}

impl UnprovenCsr {
    /// Reads PEM, bare base64 with or without line breaks, or DER.
    pub fn read(bytes: &[u8]) -> Result<UnprovenCsr, CsrRefusal> {
        if bytes.len() > CSR_BYTES_MAX {
            return Err(CsrRefusal::TooLarge { bytes: bytes.len() });
        }
        let der = csr::unarmored(bytes)?;
        let fields = Fields::read(&der)?;
        let names = RequestedNames::read(fields.subject, &fields.extensions)?;
        Ok(UnprovenCsr { der, names })
    }

    /// Returns true if the sender wants a generated key encrypted for a key of its own (RFC 7030
    /// 4.4.1): one of the two attributes is in it.
    pub fn wants_encrypted_key(&self) -> bool {
        let has = |id: &ObjectIdentifier| {
            let contents = id.as_bytes();
            self.der.windows(contents.len()).any(|it| it == contents)
        };
        oid::DECRYPT_KEY_IDS.iter().any(has)
    }
}

impl RequestedNames {
    pub(super) fn read(
        subject: SubjectValues,
        extensions: &[Extension<'_>],
    ) -> Result<RequestedNames, CsrRefusal> {
        let common_name = subject.common_name()?;
        Self::with_common_name(subject, common_name, extensions)
            .map_err(|error| pkcs10::refusal(&error, "subject alternative names"))
    }

    fn with_common_name(
        subject: SubjectValues,
        common_name: Option<String>,
        extensions: &[Extension<'_>],
    ) -> der::Result<RequestedNames> {
        let mut lists: Vec<&[u8]> = extensions
            .iter()
            .filter(|extension| extension.is(oid::SUBJECT_ALT_NAME))
            .map(|extension| extension.value)
            .collect();
        lists.dedup();
        let mut alternative = Vec::new();
        for list in &lists {
            for name in AlternativeName::read_list(list)? {
                if !alternative.contains(&name) {
                    alternative.push(name);
                }
            }
        }
        Ok(RequestedNames {
            subject,
            common_name,
            alternative,
            ambiguous: lists.len() > 1,
        })
    }

    /// Returns the names of a request that asks for none.
    pub fn none() -> RequestedNames {
        RequestedNames {
            subject: SubjectValues::none(),
            common_name: None,
            alternative: Vec::new(),
            ambiguous: false,
        }
    }

    /// Reads the request for an authority's certificate. Its name may have several common names, or
    /// one in any string type.
    pub fn of_authority(der: &[u8]) -> Result<RequestedNames, CsrRefusal> {
        let fields = Fields::read(der)?;
        Self::with_common_name(fields.subject, None, &fields.extensions)
            .map_err(|error| pkcs10::refusal(&error, "subject alternative names"))
    }

    /// Returns the names of a request that asks for whatever a profile may take: for examples.
    pub fn example(profile: &Profile) -> RequestedNames {
        let kinds = [
            (NameKind::Dns, "host-of-the-request.example"),
            (NameKind::Ip, "192.0.2.1"),
            (NameKind::Uri, "urn:example:of-the-request"),
            (NameKind::Email, "of-the-request@mail.example"),
        ];
        let alternative = kinds
            .into_iter()
            .filter(|(kind, _)| profile.subject_alternative_names.takes(*kind))
            .filter_map(|(kind, text)| SubjectAlternativeName::from_text(kind, text).ok())
            .map(AlternativeName::Fit)
            .collect();
        RequestedNames {
            subject: SubjectValues::example(),
            common_name: None,
            alternative,
            ambiguous: false,
        }
    }

    /// The names of a certificate.
    fn of(certificate: &Certificate) -> der::Result<RequestedNames> {
        let subject = SubjectValues::read(certificate.subject_der())?;
        let common_name = certificate.common_name();
        Self::with_common_name(subject, common_name, &certificate.all_extensions())
    }

    /// The one common name of the subject.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Returns the text of an attribute that the subject has once.
    pub(super) fn attribute(&self, kind: AttributeKind) -> Option<&str> {
        self.subject.text_of(kind.oid())
    }

    /// Returns true if the subject is that of `certificate`.
    pub fn has_subject_of(&self, certificate: &Certificate) -> bool {
        SubjectValues::read(certificate.subject_der()).is_ok_and(|it| it == self.subject)
    }

    /// Returns the subject alternative names that a certificate by `profile` will have: those that
    /// are taken from this request, and those that the profile makes with these values.
    pub fn certified_by(
        &self,
        profile: &Profile,
        values: &Values<'_>,
    ) -> Result<Vec<SubjectAlternativeName>, CsrRefusal> {
        let names = &profile.subject_alternative_names;
        let mut certified = self.taken(names)?;
        for made in names.fill(values)? {
            if !certified.contains(&made) {
                certified.push(made);
            }
        }
        if certified.len() > NAMES_MAX {
            let reason = format!(
                "more than {NAMES_MAX} subject alternative names, with those that the profile \
                 makes; ask for fewer"
            );
            return Err(CsrRefusal::BadName(reason));
        }
        if profile.needs_host_name() && !certified.iter().any(is_compared) {
            return Err(CsrRefusal::NoServerName);
        }
        Ok(certified)
    }

    /// The requested names of the kinds that a profile takes.
    fn taken(
        &self,
        names: &SubjectAlternativeNames,
    ) -> Result<Vec<SubjectAlternativeName>, CsrRefusal> {
        if !names.takes_any() {
            return Ok(Vec::new());
        }
        if self.ambiguous {
            let reason = "the request has two different lists of subject alternative names; make \
                          it with one";
            return Err(CsrRefusal::BadName(reason.to_owned()));
        }
        let mut certified = Vec::new();
        for name in &self.alternative {
            match name {
                AlternativeName::Fit(name) if name.kind().is_some_and(|it| names.takes(it)) => {
                    certified.push(name.clone());
                }
                AlternativeName::Unfit { kind, why, .. } if names.takes(*kind) => {
                    return Err(why.clone().into());
                }
                _ => {}
            }
        }
        Ok(certified)
    }

    /// Returns true if this request, by `profile`, is for the names of `certificate`. Names that
    /// the profile does not certify do not count: they were no part of the first certificate
    /// either (RFC 7030 4.2.2).
    pub fn renews(
        &self,
        certificate: &Certificate,
        profile: &Profile,
        values: &Values<'_>,
    ) -> Result<bool, CsrRefusal> {
        Ok(self.common_name == certificate.common_name()
            && self.has_other_names_of(certificate, profile, values)?)
    }

    /// The same for all names besides the common name. The profile makes some of them with
    /// `values`: those need no request, and those that it makes of this request must be in the
    /// certificate, too.
    pub fn has_other_names_of(
        &self,
        certificate: &Certificate,
        profile: &Profile,
        values: &Values<'_>,
    ) -> Result<bool, CsrRefusal> {
        let names = &profile.subject_alternative_names;
        let mut chosen = self.taken(names)?;
        chosen.extend(names.fill_from_csr(values)?);
        let attributes = profile.subject.fill_from_csr(values)?;
        if !names.takes_any() && chosen.is_empty() && attributes.is_empty() {
            return Ok(true);
        }
        let Ok(held) = RequestedNames::of(certificate) else {
            return Ok(false);
        };
        let made = names.fill(values)?;
        let is_held = |name: &SubjectAlternativeName| {
            held.alternative
                .contains(&AlternativeName::Fit(name.clone()))
        };
        let must_ask = |name: &&AlternativeName| match name {
            AlternativeName::Fit(name) => {
                name.kind().is_some_and(|it| names.takes(it)) && !made.contains(name)
            }
            _ => false,
        };
        let asks = |name: &AlternativeName| self.alternative.contains(name);
        let has = |(kind, text): &(AttributeKind, String)| held.attribute(*kind) == Some(text);
        Ok(chosen.iter().all(is_held)
            && attributes.iter().all(has)
            && held.alternative.iter().filter(must_ask).all(asks))
    }

    /// Returns the requested names that `certificate` lacks, as text for an operator.
    pub fn left_out_of(&self, certificate: &Certificate) -> Vec<String> {
        if self.alternative.is_empty() && self.subject.others().next().is_none() {
            return Vec::new();
        }
        let Ok(present) = RequestedNames::of(certificate) else {
            return Vec::new();
        };
        let attributes = self.subject.others();
        let attributes = attributes
            .filter(|it| !present.subject.others().any(|present| present == *it))
            .map(ToString::to_string);
        let alternative = self.alternative.iter();
        let alternative = alternative
            .filter(|it| !present.alternative.contains(it))
            .map(ToString::to_string);
        let mut listed: Vec<String> = attributes.chain(alternative).map(|it| shown(&it)).collect();
        if listed.len() > LISTED_MAX {
            let more = listed.len() - LISTED_MAX;
            listed.truncate(LISTED_MAX);
            listed.push(format!("and {more} more"));
        }
        listed
    }
}

/// Returns whether a TLS client compares such a name with the host that it called.
fn is_compared(name: &SubjectAlternativeName) -> bool {
    matches!(name.kind(), Some(NameKind::Dns | NameKind::Ip))
}

/// The name without control characters, and not longer than an operator reads.
fn shown(name: &str) -> String {
    let mut characters = name.chars();
    let mut shown: String = characters
        .by_ref()
        .take(LISTED_CHARACTERS_MAX)
        .map(|it| {
            if it.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                it
            }
        })
        .collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}
