//! The subject of a profile's certificates, besides its common name.

use crate::error_code::Code;
use crate::x509::name::{
    AttributeKind, DistinguishedName, NameRefusal, SubjectAttributes, check_value,
};
use crate::x509::template::{Place, Template, TemplateRefusal, Values};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Attributes whose values are fixed, or filled for each certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct SubjectTemplate {
    fixed: SubjectAttributes,
    filled: BTreeMap<AttributeKind, Template>,
}

type Texts = BTreeMap<AttributeKind, String>;

impl SubjectTemplate {
    /// Adds the attributes of `other` that this one has not.
    pub(super) fn over(mut self, other: SubjectTemplate) -> SubjectTemplate {
        let own: BTreeSet<_> = (self.fixed.iter().map(|(kind, _)| kind))
            .chain(self.filled.keys().copied())
            .collect();
        for (kind, text) in other.fixed.iter().filter(|(kind, _)| !own.contains(kind)) {
            self.fixed.set(kind, text).expect("it was checked");
        }
        let new = other.filled.into_iter();
        self.filled
            .extend(new.filter(|(kind, _)| !own.contains(kind)));
        self
    }

    /// Returns the attributes with which the subject of each certificate begins, and whether only
    /// its common name follows.
    pub(in crate::x509) fn beginning(&self) -> (SubjectAttributes, bool) {
        let first = self.filled.keys().next();
        let begins = self
            .fixed
            .iter()
            .filter(|(kind, _)| first.is_none_or(|it| kind < it));
        let mut beginning = SubjectAttributes::default();
        for (kind, text) in begins {
            beginning.set(kind, text).expect("it was checked");
        }
        (beginning, first.is_none())
    }

    /// Returns a subject with these values, without the attributes that cannot be filled with them.
    pub fn fill_in_part(&self, values: &Values<'_>) -> Result<DistinguishedName, NameRefusal> {
        let mut attributes = self.fixed.clone();
        for (kind, template) in &self.filled {
            if let Ok(text) = template.fill(values) {
                // Left out like one without a value.
                let _ = attributes.set(*kind, &text);
            }
        }
        attributes.with_common_name(values.id)
    }

    /// Returns the places that are filled for each certificate.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.filled.values().flat_map(Template::places)
    }

    /// Fails with the first attribute that no values but this line make fit.
    pub(super) fn check_templates(&self, line: &str) -> Result<(), String> {
        self.filled.iter().try_for_each(|(kind, template)| {
            let field = match kind {
                AttributeKind::Country => "DE",
                _ => "a1",
            };
            let text = template
                .sample(line, "a1", field)
                .map_err(|it| it.to_string())?;
            check_value(*kind, &text)
                .map_err(|why| format!("subject: {:?} never fits: {why}", template.to_string()))
        })
    }

    /// Returns the attributes that have a value of the CSR.
    pub(in crate::x509) fn fill_from_csr(
        &self,
        values: &Values<'_>,
    ) -> Result<Vec<(AttributeKind, String)>, TemplateRefusal> {
        let of_csr = self.filled.iter().filter(|(_, it)| it.takes_from_csr());
        of_csr
            .map(|(kind, it)| Ok((*kind, it.fill(values)?)))
            .collect()
    }

    /// Returns the subject of a certificate with these values; its common name is their id.
    pub fn fill(&self, values: &Values<'_>) -> Result<DistinguishedName, SubjectRefusal> {
        if self.filled.is_empty() {
            return Ok(self.fixed.with_common_name(values.id)?);
        }
        let mut attributes = self.fixed.clone();
        for (kind, template) in &self.filled {
            let text = template.fill(values)?;
            let refused = |why: NameRefusal| TemplateRefusal::Filled {
                why: why.to_string(),
                text: text.clone(),
            };
            attributes.set(*kind, &text).map_err(refused)?;
        }
        Ok(attributes.with_common_name(values.id)?)
    }
}

/// The reason why there is no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectRefusal {
    /// The common name cannot be one.
    #[error(transparent)]
    Name(#[from] NameRefusal),
    /// An attribute cannot be filled.
    #[error(transparent)]
    Template(#[from] TemplateRefusal),
}

impl SubjectRefusal {
    /// Returns the stable code of the API.
    pub fn code(&self) -> Code {
        match self {
            SubjectRefusal::Name(_) => Code::NameInvalid,
            SubjectRefusal::Template(_) => Code::TemplateRefused,
        }
    }
}

impl TryFrom<Texts> for SubjectTemplate {
    type Error = String;

    fn try_from(texts: Texts) -> Result<Self, String> {
        let mut subject = SubjectTemplate::default();
        for (kind, text) in texts {
            if kind == AttributeKind::CommonName {
                return Err(NameRefusal::CommonNameNotAllowed.to_string());
            }
            // A text without braces is checked as a value, so that its limit is named.
            if !text.contains(['{', '}']) {
                check_value(kind, &text).map_err(|it| it.to_string())?;
            }
            let of_member = |why: TemplateRefusal| format!("subject: {}: {why}", kind.key());
            let template = Template::parse(&text).map_err(of_member)?;
            match template.constant() {
                Some(text) => {
                    let set = subject.fixed.set(kind, text);
                    set.map_err(|it| it.to_string())?;
                }
                None => {
                    subject.filled.insert(kind, template);
                }
            }
        }
        Ok(subject)
    }
}

impl From<SubjectTemplate> for Texts {
    fn from(subject: SubjectTemplate) -> Texts {
        let escaped = |text: &str| text.replace('{', "{{").replace('}', "}}");
        let mut texts: Texts = subject
            .fixed
            .iter()
            .map(|(kind, text)| (kind, escaped(text)))
            .collect();
        for (kind, template) in subject.filled {
            texts.insert(kind, template.to_string());
        }
        texts
    }
}
