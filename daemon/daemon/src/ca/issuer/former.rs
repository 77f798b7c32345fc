//! Finds certificates of adopted authorities that are known by their serial number alone, from the
//! import of an index or a list.

use super::Issuer;
use super::search::Wanted;
use crate::ca::Error;
use crate::ids::GenerationNumber;
use crate::store::{CertificateState, FormerSerial};

/// A certificate without its file: neither its key nor its holder is known.
#[derive(Debug)]
pub struct FormerRow {
    pub certificate: FormerSerial,
    /// The authority and the generation that issued it.
    pub issuer: (String, GenerationNumber),
    pub state: CertificateState,
}

impl Issuer {
    /// Returns those that fit a list by serial number or common name. A criterion of which nothing
    /// is known finds none.
    pub(super) fn former_that_fit(&self, wanted: &Wanted) -> Result<Vec<FormerRow>, Error> {
        let Wanted {
            device: None,
            sha256: None,
            profile: None,
            issued_since: None,
            ..
        } = wanted
        else {
            return Ok(Vec::new());
        };
        let authority = wanted.authority.as_deref();
        let mut found = match (&wanted.serial, &wanted.subject) {
            (Some(serial), _) => self.store.former_serials(serial.as_bytes(), authority)?,
            (None, Some(subject)) => self.store.former_subjects(subject, authority)?,
            (None, None) => return Ok(Vec::new()),
        };
        let now = self.now();
        let until = wanted
            .expiring
            .map(|it| now.saturating_add_unsigned(it.seconds()));
        let state = wanted
            .state
            .or(wanted.expiring.map(|_| CertificateState::Valid));
        found.retain(|it| {
            let named = wanted.subject.as_deref().is_none_or(|subject| {
                let own = it.subject.as_deref();
                own.is_some_and(|own| own.eq_ignore_ascii_case(subject))
            });
            named && until.is_none_or(|until| it.not_after.is_some_and(|end| end <= until))
        });
        let mut rows: Vec<_> = found.into_iter().map(|it| self.former_row(it)).collect();
        rows.retain(|it| state.is_none_or(|state| it.state == state));
        Ok(rows)
    }

    /// Returns one with its issuer and its present state.
    pub(in crate::ca) fn former_row(&self, certificate: FormerSerial) -> FormerRow {
        let hierarchy = self.hierarchy();
        let generation = hierarchy.generation(certificate.generation);
        let has_ended = certificate.not_after.is_some_and(|end| end < self.now());
        let state = match certificate.revoked {
            Some((_, reason)) if reason.is_final() => CertificateState::Revoked,
            Some(_) => CertificateState::OnHold,
            None if has_ended => CertificateState::Expired,
            None if hierarchy.revoked_above(certificate.generation).is_some() => {
                CertificateState::IssuerRevoked
            }
            None => CertificateState::Valid,
        };
        let issuer = generation.map(|it| (it.authority.clone(), it.number));
        FormerRow {
            issuer: issuer.unwrap_or((String::new(), GenerationNumber::START)),
            certificate,
            state,
        }
    }
}
