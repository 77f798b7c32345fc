//! Lists issued certificates for callers that may fetch them.

use super::Issuer;
use super::former::FormerRow;
use crate::ca::authorize::{Authorized, Fetch};
use crate::ca::{Code, Error};
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, GenerationNumber, IntentId};
use crate::moment::{Moment, Span};
use crate::store::{CertificateFilter, CertificateState, ListedCertificate};
use crate::unix_seconds::UnixSeconds;
use crate::x509::serial::SerialNumber;

/// The criteria of a list; everything that is named must fit.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The common name.
    pub subject: Option<String>,
    /// A registration id: a station may have the same name.
    pub device: Option<String>,
    pub serial: Option<SerialNumber>,
    pub sha256: Option<[u8; 32]>,
    pub profile: Option<String>,
    pub authority: Option<String>,
    pub state: Option<CertificateState>,
    /// Valid ones that end within this time.
    pub expiring: Option<Span>,
    pub issued_since: Option<Moment>,
    /// Only older ones than this.
    pub before: Option<IntentId>,
    pub limit: u32,
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct Listed {
    pub rows: Vec<ListedRow>,
    /// On the last page: those that are known by their serial number alone.
    pub former: Vec<FormerRow>,
    /// The next page has what is older than this; `None` if there is no more.
    pub next: Option<IntentId>,
}

/// A certificate with the names of its issuer.
#[derive(Debug)]
pub struct ListedRow {
    pub certificate: ListedCertificate,
    /// The authority and the generation that issued it; `None` if another organisation did.
    pub issuer: Option<(String, GenerationNumber)>,
    /// The caller who asked for it, for callers that may fetch all certificates.
    pub asked_by: Option<String>,
}

impl Issuer {
    /// Summarises what was issued since the last time, so that lists find it without reading all.
    pub fn summarise_certificates(&self) -> Result<(), Error> {
        self.store.summarise_certificates()?;
        Ok(())
    }

    /// Returns the next certificates that fit, newest first.
    pub fn list(&self, permission: &Authorized<Fetch>, wanted: &Wanted) -> Result<Listed, Error> {
        refuse_contradiction(wanted)?;
        let filter = self.filter(permission, wanted)?;
        let mut page = self.store.search_certificates(&filter)?;
        // The store finds names in any spelling; a caller owns what has its own.
        page.rows
            .retain(|it| permission.covers(&it.subject, it.role));
        let former = match (&page.next, permission.own()) {
            (None, None) => self.former_that_fit(wanted)?,
            _ => Vec::new(),
        };
        if page.rows.is_empty() && former.is_empty() && page.next.is_none() {
            self.refuse_unknown_name(permission, wanted)?;
        }
        let hierarchy = self.hierarchy();
        let shows_caller = permission.own().is_none();
        let named = |certificate: ListedCertificate| {
            let issuer = hierarchy.generation(certificate.issuer);
            let issuer = issuer.filter(|it| !certificate.issued_elsewhere || it.is_root());
            ListedRow {
                issuer: issuer.map(|it| (it.authority.clone(), it.number)),
                asked_by: shows_caller.then(|| certificate.caller.clone()),
                certificate,
            }
        };
        Ok(Listed {
            rows: page.rows.into_iter().map(named).collect(),
            former,
            next: page.next,
        })
    }

    /// Refuses the first page of a list that a wrong name or number has left empty. A name that has
    /// certificates is not refused, although none fits the other criteria.
    fn refuse_unknown_name(
        &self,
        permission: &Authorized<Fetch>,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        if wanted.before.is_some() {
            return Ok(());
        }
        for (name, what) in names(wanted) {
            if !self.exists(permission, &name)? {
                let message = format!(
                    "this daemon has issued no certificate {what}; `hallmark certificate list` \
                     has all, and `hallmark device list` the devices"
                );
                return Err(Error::missing(Code::CertificateUnknown, message));
            }
        }
        Ok(())
    }

    fn exists(&self, permission: &Authorized<Fetch>, wanted: &Wanted) -> Result<bool, Error> {
        let filter = self.filter(permission, wanted)?;
        let page = self.store.search_certificates(&filter)?;
        let mut rows = page.rows.iter();
        if page.next.is_some() || rows.any(|it| permission.covers(&it.subject, it.role)) {
            return Ok(true);
        }
        Ok(permission.own().is_none() && !self.former_that_fit(wanted)?.is_empty())
    }

    fn filter(
        &self,
        permission: &Authorized<Fetch>,
        wanted: &Wanted,
    ) -> Result<CertificateFilter, Error> {
        let now = self.now();
        let named = wanted.device.as_ref().or(wanted.subject.as_ref());
        let is_device = wanted.device.is_some();
        let (subject, role) = match permission.own() {
            Some((own, role)) => {
                let asks_for_another = named.is_some_and(|it| it != own)
                    || is_device && role != Role::Device
                    || wanted.subject.as_ref().is_some_and(|it| it != own);
                if asks_for_another {
                    return Err(permission.refusal());
                }
                (Some(own.to_owned()), Some(role))
            }
            None => (named.cloned(), is_device.then_some(Role::Device)),
        };
        let until = wanted
            .expiring
            .map(|it| now.saturating_add_unsigned(it.seconds()));
        let expiring = wanted.expiring.map(|_| CertificateState::Valid);
        Ok(CertificateFilter {
            subject,
            role,
            serial: wanted.serial.as_ref().map(|it| it.as_bytes().to_vec()),
            sha256: wanted.sha256,
            profile: wanted.profile.clone(),
            issuers: self.issuers_of(wanted.authority.as_deref())?,
            state: wanted.state.or(expiring),
            not_after: match until {
                Some(until) => (now, until),
                None => (UnixSeconds::MIN, UnixSeconds::MAX),
            },
            issued_since: wanted.issued_since.map(|it| it.before(now)),
            self_signed: self.self_signed(),
            revoked_issuers: self.revoked_issuers(),
            now,
            before: wanted.before.unwrap_or(IntentId::new(i64::MAX)),
            limit: wanted.limit,
        })
    }

    fn issuers_of(&self, authority: Option<&str>) -> Result<Option<Vec<GenerationId>>, Error> {
        let Some(name) = authority else {
            return Ok(None);
        };
        let hierarchy = self.hierarchy();
        let its = hierarchy.iter().filter(|it| it.authority == name);
        let issuers: Vec<GenerationId> = its.map(|it| it.id).collect();
        if issuers.is_empty() {
            let message = format!(
                "there is no authority {name:?} with a certificate; `hallmark authority list` has \
                 all"
            );
            return Err(Error::missing(Code::AuthorityUnknown, message));
        }
        Ok(Some(issuers))
    }

    fn self_signed(&self) -> Vec<GenerationId> {
        let hierarchy = self.hierarchy();
        let roots = hierarchy.iter().filter(|it| it.is_root());
        roots.map(|it| it.id).collect()
    }

    fn revoked_issuers(&self) -> Vec<GenerationId> {
        let hierarchy = self.hierarchy();
        let revoked = hierarchy.iter().map(|it| it.id);
        let is_below = |id: &GenerationId| hierarchy.revoked_above(*id).is_some();
        revoked.filter(is_below).collect()
    }
}

/// Refuses two criteria that nothing can fit together, or of which one would have no effect.
fn refuse_contradiction(wanted: &Wanted) -> Result<(), Error> {
    let message = match (&wanted.device, &wanted.subject) {
        (Some(device), Some(subject)) if device != subject => {
            format!("`device` names {device:?} and `subject` {subject:?}: leave one of them out")
        }
        _ if wanted.expiring.is_some()
            && wanted.state.is_some_and(|it| it != CertificateState::Valid) =>
        {
            "`expiring` finds valid certificates alone: leave `state` out, or `expiring`".to_owned()
        }
        _ => return Ok(()),
    };
    Err(Error::invalid(Code::QueryInvalid, message))
}

/// Returns the name and each number of a list as criteria of their own, and in words.
fn names(wanted: &Wanted) -> Vec<(Wanted, String)> {
    let alone = || Wanted {
        limit: wanted.limit,
        ..Wanted::default()
    };
    let mut names = Vec::new();
    match (wanted.device.clone(), wanted.subject.clone()) {
        (Some(id), _) => {
            let what = format!("for a device {id:?}");
            let device = Some(id);
            names.push((Wanted { device, ..alone() }, what));
        }
        (None, Some(name)) => {
            let what = format!("with the common name {name:?}");
            let subject = Some(name);
            names.push((Wanted { subject, ..alone() }, what));
        }
        (None, None) => {}
    }
    if let Some(serial) = wanted.serial.clone() {
        let what = format!("with serial number {serial}");
        let serial = Some(serial);
        names.push((Wanted { serial, ..alone() }, what));
    }
    if let Some(sha256) = wanted.sha256 {
        let what = format!("with SHA-256 {}", hex::encode_upper(sha256));
        let sha256 = Some(sha256);
        names.push((Wanted { sha256, ..alone() }, what));
    }
    names
}
