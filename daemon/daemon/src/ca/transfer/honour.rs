//! Honours the revocation lists of an offline root: excludes or blocks the generations that they
//! revoke, and says what is left to the operator.

use crate::ca::authorize::{Authorized, Operate};
use crate::ca::hierarchy::Generation;
use crate::ca::issuer_list::{IssuerList, own_and_foreign};
use crate::ca::roll::AuthorityDetail;
use crate::ca::{CertificateAuthority, Code, Error};
use crate::ids::{GenerationNumber, RollId};
use crate::store::{Excluded, RollRow, RollSubject};
use crate::token::spki_sha256;
use crate::x509::certificate::Certificate;
use crate::x509::revocation::RevocationReason;
use serde::Serialize;

/// A generation that a list revokes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ExcludedEntry {
    authority: String,
    generation: GenerationNumber,
    reason: &'static str,
    /// `excluded` for good, `blocked` until an operator lifts it, or `existed`.
    outcome: &'static str,
}

/// The effect of lists.
#[derive(Default)]
pub(super) struct Honoured {
    pub(super) excluded: Vec<ExcludedEntry>,
    /// The rollovers of what is excluded, also of an earlier installation.
    pub(super) rolls: Vec<RollId>,
    /// Each thing that was not possible, or is left to the operator.
    pub(super) problems: Vec<Error>,
}

impl CertificateAuthority {
    /// Excludes the generations whose chain has a certificate on the list.
    pub(super) fn honour(
        &self,
        permission: &Authorized<Operate>,
        list: &IssuerList,
        honoured: &mut Honoured,
    ) -> Result<(), Error> {
        let Honoured {
            excluded,
            rolls,
            problems,
        } = honoured;
        let hierarchy = self.hierarchy().clone();
        let now = self.now();
        for generation in hierarchy
            .iter()
            .filter(|it| it.certificate.not_after() >= now)
        {
            let Some((serial, reason)) = self.revoked_by(list, generation)? else {
                continue;
            };
            let authority = &generation.authority;
            let number = generation.number;
            let is_hold = reason == RevocationReason::CertificateHold;
            let sha256 = generation.certificate.sha256();
            let own = self.store.certificate_by_sha256(&sha256)?;
            let own = own.and_then(|it| it.revocation_reason);
            let outcome = match own {
                // A hold here does not answer a revocation for good there.
                Some(own) if is_hold || own != RevocationReason::CertificateHold => {
                    rolls.extend(self.compromise_of(generation)?);
                    "existed"
                }
                _ if is_hold => {
                    let subject = Excluded::Generation(authority.clone(), number);
                    let cause = format!("on hold by revocation list {} of its issuer", list.number);
                    match self.exclusions.block(permission, &subject, &cause) {
                        Ok(_) => "blocked",
                        Err(error) => {
                            problems.push(error);
                            "not blocked"
                        }
                    }
                }
                _ if is_of_the_certificate(reason) => {
                    problems.extend(self.advice(generation, &serial, reason)?);
                    "left"
                }
                _ => {
                    let detail = AuthorityDetail::default();
                    let started = self.rollovers.start_authority_compromise(
                        permission,
                        authority,
                        Some(number),
                        &detail,
                    )?;
                    rolls.extend(started.rolls.iter().map(|it| it.id));
                    problems.extend(started.problems);
                    "excluded"
                }
            };
            excluded.push(ExcludedEntry {
                authority: authority.clone(),
                generation: number,
                reason: reason.name(),
                outcome,
            });
        }
        Ok(())
    }

    /// Returns serial number and reason of the entry by which a list concerns a generation: for its
    /// certificate or one above it, or for a former one of its key if the key is compromised.
    fn revoked_by(
        &self,
        list: &IssuerList,
        generation: &Generation,
    ) -> Result<Option<(String, RevocationReason)>, Error> {
        if let Some(entry) = list.entry_in(own_and_foreign(generation)) {
            return Ok(Some((entry.serial.to_string(), entry.reason)));
        }
        let key = spki_sha256(generation.certificate.spki_der());
        for sha256 in self.store.certificates_of_key(key)? {
            let Some(row) = self.store.certificate_by_sha256(&sha256)? else {
                continue;
            };
            let former = Certificate::parse(&row.der).map_err(|error| {
                let message = format!("a former certificate is unreadable: {error}");
                Error::stop(Code::HierarchyUnreadable, message)
            })?;
            let entry = list.entry_of(&former);
            if let Some(entry) = entry.filter(|it| is_of_the_key(it.reason)) {
                return Ok(Some((entry.serial.to_string(), entry.reason)));
            }
        }
        Ok(None)
    }

    /// Returns the rollover by which this generation was excluded.
    fn compromise_of(&self, generation: &Generation) -> Result<Option<RollId>, Error> {
        let last = self.store.last_compromise(&generation.authority)?;
        let is_its = |it: &RollRow| {
            matches!(it.subject, RollSubject::Authority { old_generation, .. }
                if old_generation == generation.id)
        };
        Ok(last.filter(is_its).map(|it| it.id))
    }

    /// Says what to do about a certificate that was replaced or ends, and whose key is good, unless
    /// its replacement is under way or done.
    fn advice(
        &self,
        generation: &Generation,
        serial: &str,
        reason: RevocationReason,
    ) -> Result<Option<Error>, Error> {
        let authority = &generation.authority;
        if !generation.serving || self.store.open_authority_roll(authority)?.is_some() {
            return Ok(None);
        }
        let name = generation.name();
        let reason = reason.name();
        let message = format!(
            "the list revokes the certificate {serial} of {name} or above it ({reason}), and \
             nothing is excluded here: replace it by `hallmark roll start --authority {authority} \
             --reason expiry`, or, if its key is compromised, by `hallmark roll start --authority \
             {authority} --reason compromise`"
        );
        Ok(Some(Error::conflict(Code::InstallRevoked, message)))
    }
}

/// Whether the key itself is compromised, so that no certificate of it is good.
fn is_of_the_key(reason: RevocationReason) -> bool {
    matches!(
        reason,
        RevocationReason::KeyCompromise | RevocationReason::CaCompromise
    )
}

/// Whether the certificate has been replaced, or is not needed, and its key is good.
fn is_of_the_certificate(reason: RevocationReason) -> bool {
    matches!(
        reason,
        RevocationReason::Superseded
            | RevocationReason::CessationOfOperation
            | RevocationReason::AffiliationChanged
    )
}
