//! The subject alternative names of a profile: those that it takes from a request, and those that
//! it makes for each certificate.

use super::written::Written;
use crate::x509::oid;
use crate::x509::san::{HardwareModule, NAMES_MAX, NameKind, SanRefusal, SubjectAlternativeName};
use crate::x509::template::{Place, Template, TemplateRefusal, Values};
use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The value of `subject_alternative_names` that takes what a TLS server needs.
const DNS_AND_IP: &str = "dns_and_ip";
const NONE: &str = "none";

/// Where the subject alternative names of a certificate come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written<NamesTable>", into = "Written<NamesTable>")]
pub struct SubjectAlternativeNames {
    requested: BTreeSet<NameKind>,
    made: Vec<MadeName>,
}

/// A name that the profile makes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MadeName {
    form: Form,
    text: Template,
}

/// The form of a made name (RFC 5280 4.2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain(NameKind),
    /// An otherName of RFC 4108 5; the type of the hardware.
    HardwareModule(ObjectIdentifier),
}

/// The member as a table.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamesTable {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    request: Vec<NameKind>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dns: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ip: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    uri: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    email: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hardware_module: Option<HardwareTable>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HardwareTable {
    r#type: String,
    serial: String,
}

impl SubjectAlternativeNames {
    /// Returns those of a TLS server: the requested host names and addresses.
    pub fn dns_and_ip() -> SubjectAlternativeNames {
        SubjectAlternativeNames {
            requested: BTreeSet::from([NameKind::Dns, NameKind::Ip]),
            made: Vec::new(),
        }
    }

    /// Returns true if no certificate has any.
    pub fn is_none(&self) -> bool {
        self.requested.is_empty() && self.made.is_empty()
    }

    /// Returns true if names of this kind are taken from requests.
    pub fn takes(&self, kind: NameKind) -> bool {
        self.requested.contains(&kind)
    }

    /// Returns true if the profile makes names of this kind.
    pub(super) fn makes(&self, kind: NameKind) -> bool {
        self.made.iter().any(|it| it.form == Form::Plain(kind))
    }

    /// Returns true if names are taken from requests.
    pub fn takes_any(&self) -> bool {
        !self.requested.is_empty()
    }

    /// Returns the places that are filled for each certificate.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.made.iter().flat_map(|it| it.text.places())
    }

    /// Fails with the first text that no values but this line make a name of its kind.
    pub(super) fn check_templates(&self, line: &str) -> Result<(), String> {
        let filled = self.made.iter().filter(|it| it.text.constant().is_none());
        // An id may be an address, or a value of the CSR.
        let mut judged = filled.filter(|it| it.form != Form::Plain(NameKind::Ip));
        judged.try_for_each(|it| {
            // An id may have a colon, and so be a whole URI.
            let sample = |id| {
                it.name(
                    &it.text
                        .sample(line, id, "a1")
                        .map_err(|it| it.to_string())?,
                )
                .map_err(|it| it.to_string())
            };
            sample("a1")
                .or_else(|why| sample("a:1").map_err(|_| why))
                .map(drop)
                .map_err(|why| {
                    format!(
                        "subject_alternative_names: {:?} is never a name of its kind: {why}",
                        it.text.to_string()
                    )
                })
        })
    }

    /// Returns the names that the profile makes for a certificate with these values.
    pub fn fill(
        &self,
        values: &Values<'_>,
    ) -> Result<Vec<SubjectAlternativeName>, TemplateRefusal> {
        self.made.iter().map(|it| it.fill(values)).collect()
    }

    /// Returns those of them that have a value of the CSR.
    pub(in crate::x509) fn fill_from_csr(
        &self,
        values: &Values<'_>,
    ) -> Result<Vec<SubjectAlternativeName>, TemplateRefusal> {
        let of_csr = self.made.iter().filter(|it| it.text.takes_from_csr());
        of_csr.map(|it| it.fill(values)).collect()
    }
}

impl MadeName {
    fn read(form: Form, text: &str) -> Result<MadeName, String> {
        let of_member = |why: String| format!("subject_alternative_names: {why}");
        let made = MadeName {
            form,
            text: Template::parse(text).map_err(|it| of_member(it.to_string()))?,
        };
        if let Some(text) = made.text.constant() {
            made.name(text).map_err(|it| of_member(it.to_string()))?;
        }
        Ok(made)
    }

    /// Returns true if each renewal would add another such name to those that are requested.
    fn adds_up(&self, requested: &BTreeSet<NameKind>) -> bool {
        let changes = |it| matches!(it, Place::Date | Place::Year | Place::Station);
        let is_requested = matches!(self.form, Form::Plain(kind) if requested.contains(&kind));
        is_requested && self.text.places().any(changes)
    }

    fn fill(&self, values: &Values<'_>) -> Result<SubjectAlternativeName, TemplateRefusal> {
        let text = match self.form {
            Form::Plain(NameKind::Dns | NameKind::Uri | NameKind::Email) => {
                self.text.fill_within_name(values)?
            }
            Form::Plain(NameKind::Ip) | Form::HardwareModule(_) => self.text.fill(values)?,
        };
        self.name(&text).map_err(|why| TemplateRefusal::Filled {
            why: why.to_string(),
            text,
        })
    }

    fn name(&self, text: &str) -> Result<SubjectAlternativeName, SanRefusal> {
        match self.form {
            Form::Plain(kind) => SubjectAlternativeName::from_text(kind, text),
            Form::HardwareModule(kind) => {
                let module = HardwareModule::new(kind, text.as_bytes())?;
                Ok(SubjectAlternativeName::HardwareModule(module))
            }
        }
    }
}

impl TryFrom<Written<NamesTable>> for SubjectAlternativeNames {
    type Error = String;

    fn try_from(written: Written<NamesTable>) -> Result<Self, String> {
        let table = match written {
            Written::Table(table) => table,
            Written::Word(word) if word == NONE => return Ok(Self::default()),
            Written::Word(word) if word == DNS_AND_IP => return Ok(Self::dns_and_ip()),
            Written::Word(word) => {
                return Err(format!(
                    "subject_alternative_names = {word:?} has no meaning; use \"{NONE}\", \
                     \"{DNS_AND_IP}\" or a table with request, dns, ip, uri, email or \
                     hardware_module"
                ));
            }
        };
        let plain = [
            (NameKind::Dns, &table.dns),
            (NameKind::Ip, &table.ip),
            (NameKind::Uri, &table.uri),
            (NameKind::Email, &table.email),
        ];
        let mut made = Vec::new();
        for (kind, texts) in plain {
            for text in texts {
                made.push(MadeName::read(Form::Plain(kind), text)?);
            }
        }
        if let Some(hardware) = &table.hardware_module {
            let kind = oid::parse(&hardware.r#type).ok_or_else(|| {
                format!(
                    "hardware_module: its type {:?} is no object identifier that is read here: {}",
                    hardware.r#type,
                    oid::WRITTEN_FORM
                )
            })?;
            made.push(MadeName::read(
                Form::HardwareModule(kind),
                &hardware.serial,
            )?);
        }
        if made.len() > NAMES_MAX {
            return Err(format!(
                "subject_alternative_names has more than {NAMES_MAX} names; remove some"
            ));
        }
        if (1..made.len()).any(|at| made[..at].contains(&made[at])) {
            return Err("subject_alternative_names has a name twice; remove one".to_owned());
        }
        let requested: BTreeSet<NameKind> = table.request.into_iter().collect();
        if let Some(name) = made.iter().find(|it| it.adds_up(&requested)) {
            return Err(format!(
                "subject_alternative_names: {:?} is another name at each renewal, and the former \
                 one is copied from the certificate into the request; remove {{date}}, {{year}} \
                 and {{station}} from it, or its kind from request",
                name.text.to_string()
            ));
        }
        Ok(SubjectAlternativeNames { requested, made })
    }
}

impl From<SubjectAlternativeNames> for Written<NamesTable> {
    fn from(names: SubjectAlternativeNames) -> Written<NamesTable> {
        if names == SubjectAlternativeNames::default() {
            return Written::Word(NONE.to_owned());
        }
        if names == SubjectAlternativeNames::dns_and_ip() {
            return Written::Word(DNS_AND_IP.to_owned());
        }
        let mut table = NamesTable {
            request: names.requested.into_iter().collect(),
            ..NamesTable::default()
        };
        for MadeName { form, text } in names.made {
            let text = text.to_string();
            match form {
                Form::Plain(NameKind::Dns) => table.dns.push(text),
                Form::Plain(NameKind::Ip) => table.ip.push(text),
                Form::Plain(NameKind::Uri) => table.uri.push(text),
                Form::Plain(NameKind::Email) => table.email.push(text),
                Form::HardwareModule(kind) => {
                    table.hardware_module = Some(HardwareTable {
                        r#type: kind.to_string(),
                        serial: text,
                    });
                }
            }
        }
        Written::Table(table)
    }
}
