//! Fills texts of a profile with values of a request: `urn:dev:{id}`.
//!
//! A template is parsed when the configuration is read, so a certificate costs no parsing. A value
//! is never parsed again: braces in it are characters.

use super::name::AttributeKind;
use super::requested_names::RequestedNames;
use crate::unix_seconds::UnixSeconds;
use std::fmt;

/// Longest template, in characters.
pub const TEMPLATE_CHARACTERS_MAX: usize = 256;

/// Most places in one template.
pub const PLACES_MAX: usize = 8;

/// Besides letters and digits, what is taken from a CSR for a text that is a value as a whole:
/// characters that mean nothing in a command line.
const IN_VALUES: &str = " -._:/+(),";

/// The same for a part of a name. The others separate parts of names: of a CSR they would choose
/// the host or the path of a URI, the domain of a host name, or the field of a URN.
const IN_NAMES: &str = "-_";

/// Longest value from a request, in characters, as for every attribute (RFC 5280 appendix A.1).
const FIELD_CHARACTERS_MAX: usize = 64;

/// Text with places for values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    Place(Place),
}

/// A place for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The registration id, or the common name.
    Id,
    /// The profile's authority.
    Line,
    /// The station that requests the certificate.
    Station,
    /// The day of the request in UTC, as 2026-11-30.
    Date,
    /// The year of that day.
    Year,
    /// An attribute of the CSR's subject.
    Csr(AttributeKind),
}

/// The values for one certificate.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The registration id, or the common name.
    pub id: &'a str,
    /// The profile's authority.
    pub line: &'a str,
    /// The station that requests the certificate, if one does.
    pub station: Option<&'a str>,
    /// The time of the request.
    pub now: UnixSeconds,
    /// The names in the CSR, if there is one.
    pub csr: Option<&'a RequestedNames>,
}

/// The reason why a template is refused, or cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateRefusal {
    /// It is empty or too long.
    #[error("the text {0:?} must have 1 to {TEMPLATE_CHARACTERS_MAX} characters")]
    Length(String),
    /// It has too many places.
    #[error("the text {0:?} has more than {PLACES_MAX} places")]
    Places(String),
    /// A brace has no partner.
    #[error("the text {0:?} has a single brace; write {{{{ or }}}} for a brace that is no place")]
    Brace(String),
    /// There is no such place.
    #[error(
        "there is no place {{{0}}}; use {{id}}, {{line}}, {{station}}, {{date}}, {{year}}, or \
         {{csr.serial_number}} and other attributes of the subject"
    )]
    Unknown(String),
    /// No station requests the certificate.
    #[error(
        "the profile writes the name of the station into the certificate, and the caller is none; \
         have a station ask, or remove {{station}} from the profile"
    )]
    NoStation,
    /// The subject of the CSR lacks an attribute, or has several.
    #[error(
        "the profile takes {0} from the subject of the CSR, which must have it once; add it \
         (openssl req: -subj)"
    )]
    NoField(&'static str),
    /// The attribute has characters that are not taken from a CSR.
    #[error(
        "{0} in the subject of the CSR must have 1 to {FIELD_CHARACTERS_MAX} letters, digits, \
         spaces and - . _ : / + ( ) ,"
    )]
    Field(&'static str),
    /// The attribute has characters that are not taken from a CSR into a name.
    #[error(
        "{0} in the subject of the CSR must have 1 to {FIELD_CHARACTERS_MAX} letters, digits, - \
         and _, because the profile makes it a part of a subject alternative name"
    )]
    NameField(&'static str),
    /// The filled text is no name of its kind.
    #[error(
        "the profile makes {text:?} for the certificate, which is refused: {why}; \
         correct the text in the profile, or the value that fills it"
    )]
    Filled {
        /// The filled text.
        text: String,
        why: String,
    },
}

/// Reads an attribute of the CSR.
type Field<'a> = dyn Fn(AttributeKind, &Values<'a>) -> Result<&'a str, TemplateRefusal>;

impl Template {
    /// Reads the text of a profile.
    pub fn parse(text: &str) -> Result<Template, TemplateRefusal> {
        let characters = text.chars().count();
        if characters == 0 || characters > TEMPLATE_CHARACTERS_MAX {
            let shortened = text.chars().take(TEMPLATE_CHARACTERS_MAX).collect();
            return Err(TemplateRefusal::Length(shortened));
        }
        let brace = || TemplateRefusal::Brace(text.to_owned());
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or(from.strip_prefix("}}")) {
                plain.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let inside = from.strip_prefix('{').ok_or_else(brace)?;
            let (name, after) = inside.split_once('}').ok_or_else(brace)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Place(Place::named(name)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let template = Template(parts);
        if template.places().count() > PLACES_MAX {
            return Err(TemplateRefusal::Places(text.to_owned()));
        }
        Ok(template)
    }

    /// Returns the text if it has no places.
    pub fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the places in their order.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.0.iter().filter_map(|it| match it {
            Part::Place(place) => Some(*place),
            Part::Text(_) => None,
        })
    }

    /// Returns true if a value of the CSR is filled in.
    pub fn takes_from_csr(&self) -> bool {
        self.places().any(|it| matches!(it, Place::Csr(_)))
    }

    /// Returns the text with these values.
    pub fn fill(&self, values: &Values<'_>) -> Result<String, TemplateRefusal> {
        self.fill_with(values, &field)
    }

    /// The same for a text that is a host name, a URI or a mailbox: a value of the CSR is a part of
    /// it, and cannot end one.
    pub fn fill_within_name(&self, values: &Values<'_>) -> Result<String, TemplateRefusal> {
        self.fill_with(values, &|kind, values| {
            let value = field(kind, values)?;
            if is_of(value, IN_NAMES) {
                Ok(value)
            } else {
                Err(TemplateRefusal::NameField(kind.key()))
            }
        })
    }

    /// Returns the text with `id` in each place for a name, and `field` in each of the CSR: an
    /// example, to find a text that no values make fit.
    pub(super) fn sample(
        &self,
        line: &str,
        id: &str,
        field: &'static str,
    ) -> Result<String, TemplateRefusal> {
        let values = Values {
            id,
            line,
            station: Some(id),
            now: UnixSeconds::new(0),
            csr: None,
        };
        self.fill_with(&values, &move |_, _| Ok(field))
    }

    fn fill_with<'a>(
        &self,
        values: &Values<'a>,
        field: &Field<'a>,
    ) -> Result<String, TemplateRefusal> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Place(place) => place.append(&mut filled, values, field)?,
            }
        }
        Ok(filled)
    }
}

impl Place {
    /// Returns the attribute of the CSR that is filled in.
    pub(super) fn attribute(self) -> Option<AttributeKind> {
        match self {
            Place::Csr(kind) => Some(kind),
            _ => None,
        }
    }

    fn named(name: &str) -> Result<Place, TemplateRefusal> {
        let field = name.strip_prefix("csr.").and_then(AttributeKind::from_key);
        match (name, field) {
            ("id", _) => Ok(Place::Id),
            ("line", _) => Ok(Place::Line),
            ("station", _) => Ok(Place::Station),
            ("date", _) => Ok(Place::Date),
            ("year", _) => Ok(Place::Year),
            (_, Some(kind)) if kind != AttributeKind::CommonName => Ok(Place::Csr(kind)),
            _ => Err(TemplateRefusal::Unknown(
                name.chars().take(FIELD_CHARACTERS_MAX).collect(),
            )),
        }
    }

    fn append<'a>(
        self,
        filled: &mut String,
        values: &Values<'a>,
        field: &Field<'a>,
    ) -> Result<(), TemplateRefusal> {
        match self {
            Place::Id => filled.push_str(values.id),
            Place::Line => filled.push_str(values.line),
            Place::Station => filled.push_str(values.station.ok_or(TemplateRefusal::NoStation)?),
            Place::Date => filled.push_str(&day(values.now, "2026-11-30".len())),
            Place::Year => filled.push_str(&day(values.now, "2026".len())),
            Place::Csr(kind) => filled.push_str(field(kind, values)?),
        }
        Ok(())
    }
}

/// The first characters of the date as RFC 3339 writes it.
fn day(now: UnixSeconds, characters: usize) -> String {
    now.to_string().chars().take(characters).collect()
}

fn is_of(value: &str, others: &str) -> bool {
    value
        .chars()
        .all(|it| it.is_ascii_alphanumeric() || others.contains(it))
}

fn field<'a>(kind: AttributeKind, values: &Values<'a>) -> Result<&'a str, TemplateRefusal> {
    let value = values.csr.and_then(|it| it.attribute(kind));
    let value = value.ok_or(TemplateRefusal::NoField(kind.key()))?;
    if value.is_empty() || value.len() > FIELD_CHARACTERS_MAX || !is_of(value, IN_VALUES) {
        return Err(TemplateRefusal::Field(kind.key()));
    }
    Ok(value)
}

/// As it is written in the configuration.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Place(place) => place.fmt(f),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Id => f.write_str("{id}"),
            Place::Line => f.write_str("{line}"),
            Place::Station => f.write_str("{station}"),
            Place::Date => f.write_str("{date}"),
            Place::Year => f.write_str("{year}"),
            Place::Csr(kind) => write!(f, "{{csr.{}}}", kind.key()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALUES: Values<'_> = Values {
        id: "press-7",
        line: "line-1",
        station: Some("station-1"),
        now: UnixSeconds::new(1_796_040_000),
        csr: None,
    };

    fn filled(text: &str) -> Result<String, TemplateRefusal> {
        Template::parse(text)?.fill(&VALUES)
    }

    #[test]
    fn places_are_filled_and_braces_are_kept() {
        for (text, expected) in [
            ("plain", "plain"),
            ("urn:dev:{id}", "urn:dev:press-7"),
            ("{line}/{station}/{id}", "line-1/station-1/press-7"),
            ("{date} {year}", "2026-11-30 2026"),
            ("{{id}} {{{id}}}", "{id} {press-7}"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
        let values = Values {
            id: "{line}",
            ..VALUES
        };
        let template = Template::parse("{id}").expect("is a template");
        assert_eq!(template.fill(&values).as_deref(), Ok("{line}"));
    }

    #[test]
    fn a_template_that_cannot_be_meant_is_refused() {
        let long = "a".repeat(TEMPLATE_CHARACTERS_MAX + 1);
        let many = "{id}".repeat(PLACES_MAX + 1);
        for (text, reason) in [
            ("", "characters"),
            (&long, "characters"),
            (&many, "more than 8 places"),
            ("{id", "single brace"),
            ("id}", "single brace"),
            ("{}", "no place {}"),
            ("{ID}", "no place {ID}"),
            ("{csr.common_name}", "no place"),
            ("{csr.}", "no place"),
        ] {
            let refusal = Template::parse(text).expect_err(text).to_string();
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
        let lacks = |text: &str, values: &Values<'_>| {
            let template = Template::parse(text).expect("is a template");
            template.fill(values).expect_err(text)
        };
        let values = Values {
            station: None,
            ..VALUES
        };
        assert_eq!(lacks("{station}", &values), TemplateRefusal::NoStation);
        let refusal = lacks("{csr.serial_number}", &VALUES);
        assert_eq!(refusal, TemplateRefusal::NoField("serial_number"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_read_is_written(text in "[a-z.{}é]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(&template.to_string(), &text);
                let _ = template.fill(&VALUES);
            }
        }

        #[test]
        fn text_without_braces_is_itself(text in "[^{}\\pC]{1,256}") {
            let template = Template::parse(&text).expect("is a template");
            prop_assert_eq!(template.constant(), Some(text.as_str()));
        }
    }
}
