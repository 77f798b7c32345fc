//! The revocation lists of issuers elsewhere, such as an offline root: an operator brings them, and
//! relying parties find them at the address that certificates name.
//!
//! A list is taken from an issuer that is above an authority here. It must be complete, newer than
//! the one before, and signed by that issuer's key. Its entries are excluded here before it is
//! published ([`super::transfer`]).

use super::alarm::{Alarm, AlarmCode};
use super::hierarchy::{ChainLink, Generation, Hierarchy};
use super::{CertificateAuthority, Code, Error, Issuer};
use crate::store::{IssuerCrlRow, Store};
use crate::token::spki_sha256;
use crate::unix_seconds::UnixSeconds;
use crate::x509::certificate::Certificate;
use crate::x509::crl::Entry;
use crate::x509::former_crl::{FormerList, FormerListRefusal};
use crate::x509::list_address::list_addresses;
use crate::x509::revocation::RevocationReason;
use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

/// How long before its end the next list should be brought, in seconds, unless a quarter of its
/// validity is shorter.
const NOTICE_SECONDS_MAX: i64 = 30 * 86_400;

/// The current lists. A reload keeps them.
#[derive(Default)]
pub(super) struct IssuerLists(ArcSwap<Vec<Arc<IssuerCrlRow>>>);

/// The list of an issuer elsewhere, for people.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct IssuerCrlStatus {
    pub issuer: String,
    /// Where this daemon serves it, below its own address.
    pub path: Option<String>,
    pub number: crate::crl_number::CrlNumber,
    pub this_update: String,
    /// RFC 3339: from then on verifiers refuse it.
    pub next_update: String,
    pub entries: i64,
}

impl IssuerLists {
    pub(super) fn load(store: &Store) -> Result<Self, Error> {
        let lists = Self::default();
        lists.read_again(store)?;
        Ok(lists)
    }

    pub(super) fn read_again(&self, store: &Store) -> Result<(), Error> {
        let rows = store.issuer_crls()?.into_iter().map(Arc::new);
        self.0.store(Arc::new(rows.collect()));
        Ok(())
    }
}

/// A list that was read, and the issuer that has signed it.
#[derive(Clone, Debug)]
pub(super) struct IssuerList {
    pub(super) list: FormerList,
    pub(super) issuer: Certificate,
    pub(super) next_update: UnixSeconds,
    pub(super) number: crate::crl_number::CrlNumber,
}

impl IssuerList {
    /// Reads the list of one of these issuers, as it is to be taken now.
    pub(super) fn read<'a>(
        bytes: &[u8],
        issuers: impl Iterator<Item = &'a Certificate>,
        now: UnixSeconds,
    ) -> Result<Self, Error> {
        let read = Self::signed_by(bytes, issuers)?;
        let this_update = read.list.this_update;
        let next_update = read.next_update;
        if next_update <= now || this_update > now {
            let why = format!("it is valid from {this_update} to {next_update}, and not now");
            return Err(unusable(&why));
        }
        Ok(read)
    }

    /// Reads the list of one of these issuers, also one that has ended.
    fn signed_by<'a>(
        bytes: &[u8],
        issuers: impl Iterator<Item = &'a Certificate>,
    ) -> Result<Self, Error> {
        let mut refusal = None;
        for issuer in issuers {
            let Ok(key) = issuer.public_key() else {
                continue;
            };
            match FormerList::read(bytes, issuer.subject_der(), &key) {
                Ok(list) => return Self::of(list, issuer),
                Err(why @ (FormerListRefusal::OtherIssuer(_) | FormerListRefusal::OtherKey)) => {
                    refusal = Some(why)
                }
                Err(why) => return Err(unusable(&why.to_string())),
            }
        }
        let why = match refusal {
            Some(FormerListRefusal::OtherIssuer(name)) => format!("it is a list of {name}"),
            Some(_) => "another key has signed it".to_owned(),
            None => "no authority here has an issuer elsewhere".to_owned(),
        };
        let message = format!(
            "the revocation list is of no issuer above an authority here: {why}; bring that of \
             the offline root"
        );
        Err(Error::invalid(Code::IssuerCrlOther, message))
    }

    fn of(list: FormerList, issuer: &Certificate) -> Result<Self, Error> {
        if let Some(remark) = list.remarks.first() {
            return Err(unusable(remark));
        }
        let Some(number) = list.number else {
            return Err(unusable("it has no number"));
        };
        let Some(next_update) = list.next_update else {
            return Err(unusable("it does not say when it ends"));
        };
        Ok(Self {
            number,
            next_update,
            issuer: issuer.clone(),
            list,
        })
    }

    pub(super) fn key(&self) -> [u8; 32] {
        spki_sha256(self.issuer.spki_der())
    }

    /// Returns the entry for a certificate by the issuer.
    pub(super) fn entry_of(&self, certificate: &Certificate) -> Option<&Entry> {
        let serial = certificate.serial();
        let entry = self.list.entries.iter().find(|it| it.serial == *serial)?;
        is_by(certificate, &self.issuer).then_some(entry)
    }

    /// Returns the entry for a certificate of a chain, if the list has one.
    pub(super) fn entry_in<'a>(
        &self,
        mut chain: impl Iterator<Item = &'a Certificate>,
    ) -> Option<&Entry> {
        chain.find_map(|it| self.entry_of(it))
    }

    /// Returns the list as it is recorded. `file` is its name below `/crl/`.
    pub(super) fn to_row(&self, file: Option<String>) -> IssuerCrlRow {
        IssuerCrlRow {
            issuer_key: self.key(),
            issuer: self.issuer.subject(),
            file,
            number: self.number,
            this_update: self.list.this_update,
            next_update: self.next_update,
            entries: i64::try_from(self.list.entries.len()).unwrap_or(i64::MAX),
            der: self.list.der.clone(),
        }
    }
}

fn unusable(why: &str) -> Error {
    let message = format!(
        "the revocation list of the issuer cannot be used: {why}; have the offline root sign a \
         complete one"
    );
    Error::invalid(Code::IssuerCrlUnusable, message)
}

/// Generations of one authority have one name, so the key decides.
fn is_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    certificate.issuer_der() == issuer.subject_der()
        && certificate
            .verify_issued_by_key_of(issuer.spki_der())
            .is_ok()
}

/// Returns the certificate of a generation and those of its issuers elsewhere.
pub(super) fn own_and_foreign(generation: &Generation) -> impl Iterator<Item = &Certificate> {
    let foreign = generation.foreign.iter().map(|it| &it.certificate);
    std::iter::once(&generation.certificate).chain(foreign)
}

/// Returns the certificates of all issuers elsewhere.
pub(super) fn foreign(hierarchy: &Hierarchy) -> impl Iterator<Item = &Arc<ChainLink>> {
    hierarchy.iter().flat_map(|it| it.foreign.iter())
}

/// Fails if a list on record revokes a certificate of this chain.
pub(super) fn refuse_revoked(
    store: &Store,
    chain: &[&Certificate],
    brought: &[IssuerList],
) -> Result<(), String> {
    let recorded = store.issuer_crls().map_err(|error| error.to_string())?;
    let recorded: Vec<IssuerList> = recorded
        .iter()
        .filter_map(|row| IssuerList::signed_by(&row.der, chain.iter().copied()).ok())
        // A newer one may have lifted a hold.
        .filter(|it| !brought.iter().any(|newer| newer.key() == it.key()))
        .collect();
    for list in recorded.iter().chain(brought) {
        if let Some(certificate) = chain.iter().find(|it| list.entry_of(it).is_some()) {
            return Err(format!(
                "the certificate of {:?} with serial {} is on revocation list {} of its issuer",
                certificate.subject(),
                certificate.serial(),
                list.number
            ));
        }
    }
    Ok(())
}

/// Returns true if a list that was brought revokes the certificate of this generation, or one above
/// it by an issuer elsewhere.
pub(super) fn is_revoked_by_its_issuer(store: &Store, generation: &Generation) -> bool {
    let rows = store.issuer_crls().unwrap_or_default();
    let mut lists = rows
        .iter()
        .filter_map(|row| IssuerList::signed_by(&row.der, own_and_foreign(generation)).ok());
    // A hold may be lifted.
    lists.any(|it| {
        let entry = it.entry_in(own_and_foreign(generation));
        entry.is_some_and(|it| it.reason != RevocationReason::CertificateHold)
    })
}

/// Returns the file below `/crl/` at this daemon's own address that a certificate names.
fn file_at(certificate: &Certificate, public_http: &str) -> Option<String> {
    let urls = list_addresses(certificate.der());
    let file = |url: &String| {
        let path = url.strip_prefix(public_http)?;
        Some(path.strip_prefix("/crl/")?.to_owned())
    };
    urls.iter().find_map(file)
}

impl Issuer {
    /// Returns the file below `/crl/` that a certificate by this issuer names here.
    pub(super) fn list_file(&self, issuer: &Certificate) -> Option<String> {
        let public_http = self.public_http()?;
        let hierarchy = self.hierarchy();
        let below = hierarchy
            .iter()
            .flat_map(|it| own_and_foreign(it))
            .filter(|it| !it.is_self_issued() && is_by(it, issuer));
        below.filter_map(|it| file_at(it, public_http)).last()
    }
}

impl CertificateAuthority {
    fn issuer_lists(&self) -> Arc<Vec<Arc<IssuerCrlRow>>> {
        self.shared.issuer_lists.0.load_full()
    }

    /// Returns the list of an issuer elsewhere that is served under this name. A later authority
    /// here may have the name, too: then its own list is.
    pub fn issuer_list(&self, file: &str) -> Option<Arc<IssuerCrlRow>> {
        let name = file.strip_suffix(".crl")?;
        if self.hierarchy().published(name).is_some() {
            return None;
        }
        let lists = self.issuer_lists();
        let found = lists.iter().find(|it| it.file.as_deref() == Some(file));
        found.cloned()
    }

    /// Returns the certificate of the issuer elsewhere whose list is served as `NAME.crl`.
    pub fn issuer_certificate(&self, name: &str) -> Option<Certificate> {
        let list = self.issuer_list(&format!("{name}.crl"))?;
        let hierarchy = self.hierarchy();
        let mut links = foreign(&hierarchy).map(|it| &it.certificate);
        let found = links.find(|it| spki_sha256(it.spki_der()) == list.issuer_key);
        found.cloned()
    }

    /// Returns the lists of issuers elsewhere.
    pub(super) fn issuer_crl_statuses(&self) -> Vec<IssuerCrlStatus> {
        let lists = self.issuer_lists();
        let status = |it: &Arc<IssuerCrlRow>| IssuerCrlStatus {
            issuer: it.issuer.clone(),
            path: it.file.as_ref().map(|file| format!("/crl/{file}")),
            number: it.number,
            this_update: it.this_update.to_string(),
            next_update: it.next_update.to_string(),
            entries: it.entries,
        };
        lists.iter().map(status).collect()
    }

    /// Returns the alarms for lists of issuers elsewhere that end soon, have ended or are missing.
    pub(super) fn issuer_list_alarms(&self) -> Vec<Alarm> {
        let now = self.now();
        let hierarchy = self.hierarchy();
        let needed = |row: &IssuerCrlRow| {
            let mut below = hierarchy.iter().filter(|it| it.is_in_force(now));
            below.any(|it| {
                let mut keys = it.foreign.iter().map(|it| it.certificate.spki_der());
                keys.any(|it| spki_sha256(it) == row.issuer_key)
            })
        };
        let lists = self.issuer_lists();
        let needed = lists.iter().filter(|it| needed(it));
        let mut alarms: Vec<Alarm> = needed.filter_map(|it| ends(it, now)).collect();
        for generation in hierarchy.iter().filter(|it| it.is_in_force(now)) {
            alarms.extend(self.absent(generation, &hierarchy));
        }
        alarms
    }

    /// Returns the alarm for a certificate that names a list here that was never brought.
    fn absent(&self, generation: &Generation, hierarchy: &Hierarchy) -> Option<Alarm> {
        let first = generation.foreign.first()?;
        let file = file_at(&generation.certificate, self.issuer.public_http()?)?;
        let name = file.strip_suffix(".crl").unwrap_or(&file);
        if self.issuer_list(&file).is_some() || hierarchy.published(name).is_some() {
            return None;
        }
        let authority = &generation.authority;
        let issuer = first.certificate.subject();
        let text = format!(
            "the revocation list {file} of {issuer}, which certified {authority}, was not \
             brought here: verifiers that read lists refuse all below"
        );
        let parameters = json!({ "authority": authority, "issuer": issuer, "file": file });
        Some(Alarm::new(AlarmCode::IssuerCrlAbsent, parameters, text))
    }
}

fn ends(list: &IssuerCrlRow, now: UnixSeconds) -> Option<Alarm> {
    let validity = list.next_update.seconds_since(list.this_update);
    let notice = (validity / 4).min(NOTICE_SECONDS_MAX);
    let issuer = &list.issuer;
    let end = list.next_update.to_string();
    let parameters = json!({ "issuer": issuer, "next_update": end });
    if list.next_update <= now {
        let text = format!(
            "the revocation list of {issuer} has ended at {end}: verifiers that read lists \
             refuse all below; bring a new one from the offline root"
        );
        return Some(Alarm::new(AlarmCode::IssuerCrlEnded, parameters, text));
    }
    let text = format!(
        "the revocation list of {issuer} ends at {end}; bring a new one from the offline root"
    );
    (list.next_update - notice <= now)
        .then(|| Alarm::new(AlarmCode::IssuerCrlEnds, parameters, text))
}
