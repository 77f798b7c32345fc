//! Name constraints (RFC 5280 4.2.1.10): the names that certificates below an authority may have.
//!
//! They are judged as in RFC 5280 6.1.3 (b) and (c): a name has to be within a permitted subtree of
//! its form, if there is one, and in no excluded one, for each certificate above. Where the RFC
//! leaves room, the answer is that of OpenSSL: constraints count where they are not marked critical
//! and in a self-signed certificate, and the common name of a leaf without host names is one, if it
//! looks like it.

use super::ber::context;
use super::comparable_name::ComparableName;
use super::constrained_names::{ConstrainedNames, DIRECTORY, GivenName};
use super::constraint_table::ConstraintTable;
use super::name::SubjectAttributes;
use super::subtree::{Subtree, UNREADABLE};
use super::wire::elements;
use crate::der_bytes::Der;
use serde::Deserialize;
use std::fmt::Write as _;

const PERMITTED: u8 = context(0);
const EXCLUDED: u8 = context(1);

/// Most subtrees that a message lists.
const LISTED_MAX: usize = 5;

/// The constraints that one certificate sets for those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameConstraints {
    /// The subject of the certificate, as text.
    holder: String,
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

/// The extension as it is in a certificate: the next certificate of the same authority gets it
/// unchanged, so that no rollover widens what the authority may certify.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ConstraintTable")]
pub struct KeptConstraints {
    pub(super) value: Der,
    pub(super) critical: bool,
}

impl NameConstraints {
    /// Reads the value of the extension in the certificate of `holder`. Fails with the reason why
    /// verifiers, or this module, cannot judge by it.
    pub(super) fn read(der: &[u8], critical: bool, holder: &str) -> Result<Self, String> {
        let unreadable = |_| UNREADABLE.to_owned();
        let [list] = elements(der).map_err(unreadable)?[..] else {
            return Err(UNREADABLE.to_owned());
        };
        let mut read = NameConstraints {
            holder: holder.to_owned(),
            permitted: Vec::new(),
            excluded: Vec::new(),
        };
        for subtrees in elements(list.value).map_err(unreadable)? {
            let place = match subtrees.tag {
                PERMITTED => &mut read.permitted,
                EXCLUDED => &mut read.excluded,
                _ => return Err(UNREADABLE.to_owned()),
            };
            for subtree in elements(subtrees.value).map_err(unreadable)? {
                place.push(Subtree::read(subtree, critical)?);
            }
        }
        if read.subtrees().next().is_none() {
            return Err("its name constraints are empty (RFC 5280, 4.2.1.10)".to_owned());
        }
        Ok(read)
    }

    /// Returns why verifiers refuse a certificate with these names, if they do.
    pub fn objection(&self, names: &ConstrainedNames) -> Option<String> {
        names.0.iter().find_map(|name| self.judge(name))
    }

    /// Returns why verifiers refuse every leaf whose subject begins with `attributes`, whatever
    /// follows: a common name alone, or other attributes before it.
    pub fn objection_to_all(
        &self,
        attributes: &SubjectAttributes,
        only_name_follows: bool,
    ) -> Option<String> {
        let der = attributes.to_der();
        let subject = ComparableName::read(&der).ok()?;
        let bases = |subtrees: &[Subtree]| -> Vec<ComparableName> {
            let directories = subtrees.iter().filter(|it| it.tag == DIRECTORY);
            let bases = directories.map(|it| ComparableName::read(&it.base));
            bases.filter_map(Result::ok).collect()
        };
        let permitted = bases(&self.permitted);
        let excluded = bases(&self.excluded);
        let name = GivenName::new(DIRECTORY, &der);
        let can_hold = |base: &ComparableName| {
            subject.can_get_within(base) || (!only_name_follows && base.is_within(&subject))
        };
        if !permitted.is_empty() && !permitted.iter().any(can_hold) {
            Some(self.not_permitted(&name))
        } else if excluded.iter().any(|it| subject.is_within(it)) {
            Some(self.excludes(&name))
        } else {
            None
        }
    }

    fn subtrees(&self) -> impl Iterator<Item = &Subtree> {
        self.permitted.iter().chain(&self.excluded)
    }

    fn judge(&self, name: &GivenName) -> Option<String> {
        let of_its_form = |it: &&Subtree| it.tag == name.tag;
        let mut permitted = self.permitted.iter().filter(of_its_form).peekable();
        let is_limited = permitted.peek().is_some();
        let within = |it: &Subtree| it.holds(&name.octets);
        let judged = permitted.try_fold(false, |found, it| Ok(found || within(it)?));
        let excluded = self.excluded.iter().filter(of_its_form);
        let is_excluded = excluded.map(within).collect::<Result<Vec<bool>, String>>();
        match (judged, is_excluded) {
            (Err(why), _) | (_, Err(why)) => Some(format!("{}: {why}", name.shown())),
            (Ok(false), _) if is_limited => Some(self.not_permitted(name)),
            (_, Ok(excluded)) if excluded.contains(&true) => Some(self.excludes(name)),
            _ => None,
        }
    }

    fn not_permitted(&self, name: &GivenName) -> String {
        format!(
            "{} is not within the name constraints of {:?}, which permit {}",
            name.shown(),
            self.holder,
            listed(&self.permitted, name.tag)
        )
    }

    fn excludes(&self, name: &GivenName) -> String {
        format!(
            "{} is excluded by the name constraints of {:?}, which exclude {}",
            name.shown(),
            self.holder,
            listed(&self.excluded, name.tag)
        )
    }
}

fn listed(subtrees: &[Subtree], tag: u8) -> String {
    let of_its_form = subtrees.iter().filter(|it| it.tag == tag);
    let mut shown: Vec<String> = of_its_form.map(Subtree::shown).collect();
    let more = shown.len().saturating_sub(LISTED_MAX);
    shown.truncate(LISTED_MAX);
    let mut listed = shown.join(", ");
    if more > 0 {
        let _ = write!(listed, " and {more} more");
    }
    listed
}
