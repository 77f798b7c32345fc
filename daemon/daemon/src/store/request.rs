//! Records requests to issuers elsewhere, and the certificates that they return.
//!
//! A request is recorded before it is signed, like a certificate, and signed once. The certificate
//! that is installed gets an intent of the purpose `adopted`, because no worker was asked to sign
//! it. Installing it is one transaction: a crash leaves all of it or nothing.

use super::adoption::{CertificateIssuer, MadeElsewhere, record_certificate};
use super::audit::{self, AuditEntry};
use super::engine::{Tx, params};
use super::generation::{certify, record_chain};
use super::json::from_json;
use super::{Recorded, Store, StoreError};
use crate::der_bytes::Der;
use crate::enrollment::slots::Slots;
use crate::enrollment::thumbprint::Thumbprint;
use crate::error_code::Code;
use crate::ids::{GenerationId, IntentId};

/// A request to record before it is signed.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The generation; its key is on record.
    pub generation: GenerationId,
    /// The path length that the issuer must allow.
    pub path_length: Option<u8>,
    /// The bytes to be signed, complete.
    pub tbs: Der,
}

/// A certificate that the issuer has returned.
#[derive(Clone, Debug)]
pub struct InstalledCertificate {
    /// The generation that asked for it.
    pub generation: GenerationId,
    pub certificate: MadeElsewhere,
    /// The chain above it: PEM, from the issuer's to the self-signed one.
    pub above: String,
    /// SHA-256 of the certificate of the serving generation that it renews, for the same key.
    pub renews: Option<[u8; 32]>,
}

impl Store {
    /// Records a request durably, or returns the one on record. A token signs nothing but the
    /// returned value.
    pub fn request_certificate(
        &self,
        request: NewRequest,
        entry: AuditEntry,
    ) -> Result<Recorded<GenerationId>, StoreError> {
        self.write(move |tx| {
            let id = request.generation;
            let known: Option<Der> = tx.query_optional(
                "SELECT tbs FROM request WHERE generation = ?1",
                params![id],
                |row| row.get(0),
            )?;
            if let Some(tbs) = known {
                return Ok(Recorded::new(id, tbs));
            }
            tx.execute(
                "INSERT INTO request (generation, path_length, tbs, recorded_at)
                 VALUES (?1, ?2, ?3, ?4)",
                params![id, request.path_length, request.tbs, entry.at],
            )?;
            audit::append(tx, &entry)?;
            Ok(Recorded::new(id, request.tbs.clone()))
        })
    }

    /// Returns true if this generation was asked to sign a certificate, its own included.
    pub fn has_signed(&self, generation: GenerationId) -> Result<bool, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT EXISTS (SELECT 1 FROM intent WHERE issuer = ?1)",
                params![generation],
                |row| row.get(0),
            )
        })
    }

    /// Records the signed request. Changes nothing if a signed one is on record.
    pub fn record_signed_request(
        &self,
        recorded: &Recorded<GenerationId>,
        der: Der,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        let id = recorded.id();
        self.write(move |tx| {
            let signed = tx.execute(
                "UPDATE request SET der = ?2 WHERE generation = ?1 AND der IS NULL",
                params![id, der],
            )?;
            match signed {
                0 => Ok(()),
                _ => audit::append(tx, &entry),
            }
        })
    }

    /// Records the certificate. The first generation of an authority serves at once, a later one is
    /// staged. A renewed certificate takes the place of the present one.
    pub fn install_certificate(
        &self,
        installed: InstalledCertificate,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let id = installed.generation;
            let certificate = &installed.certificate;
            let issuer = CertificateIssuer::Elsewhere { certified: id };
            if let Some(present) = installed.renews {
                check_renewal(tx, id, present)?;
            }
            let intent = record_certificate(tx, certificate, issuer, &entry)?;
            match installed.renews {
                Some(_) => renew_certificate(tx, id, intent, &installed.above)?,
                None => {
                    record_chain(tx, id, &installed.above)?;
                    certify(tx, id, intent)?;
                }
            }
            audit::append(tx, &entry)
        })
    }
}

/// Refuses a renewal of another certificate than the present one, of one that is revoked or on
/// hold, and of one that a provisioning service holds.
fn check_renewal(tx: &Tx<'_>, id: GenerationId, present: [u8; 32]) -> Result<(), StoreError> {
    let is_revoked: Option<bool> = tx.query_optional(
        "SELECT c.revoked_at IS NOT NULL FROM generation g
         JOIN certificate c ON c.intent = g.certificate
         WHERE g.id = ?1 AND g.state = 'serving' AND c.sha256 = ?2",
        params![id, present],
        |row| row.get(0),
    )?;
    let is_revoked = is_revoked.ok_or_else(|| {
        StoreError::Conflict("the authority has another certificate since a moment ago".into())
    })?;
    let blocking = |code, message| Err(StoreError::Blocking { code, message });
    if is_revoked {
        let message = "nothing is installed: the present certificate is revoked or on hold; lift \
                       the block first, or roll the authority with the reason compromise";
        return blocking(Code::IssuerRevoked, message.to_owned());
    }
    if let Some(place) = place_of(tx, id, present)? {
        let message = format!(
            "nothing is installed: {place} holds the present certificate, and devices present it \
             until they are renewed; `hallmark roll start --authority` makes the next generation, \
             and the service gets both"
        );
        return blocking(Code::InstallEnrolled, message);
    }
    Ok(())
}

/// Returns a place at a provisioning service that holds the certificate of a generation.
fn place_of(tx: &Tx<'_>, id: GenerationId, sha256: [u8; 32]) -> Result<Option<String>, StoreError> {
    let groups: Vec<(String, String, Slots)> = tx.query_all(
        "SELECT provisioning, name, slots FROM enrollment WHERE kind = 'group'",
        params![],
        |row| Ok((row.get(0)?, row.get(1)?, from_json(&row.get::<String>(2)?)?)),
    )?;
    let thumbprint = Thumbprint::from_bytes(sha256);
    let mut holding = groups
        .iter()
        .filter(|(_, _, slots)| slots.held().contains(&thumbprint));
    if let Some((provisioning, name, _)) = holding.next() {
        return Ok(Some(format!("group {name} at {provisioning}")));
    }
    let provisioning: Option<String> = tx.query_optional(
        "SELECT provisioning FROM ca_certificate WHERE generation = ?1 AND gone = 0",
        params![id],
        |row| row.get(0),
    )?;
    Ok(provisioning.map(|it| format!("the list of CA certificates of {it}")))
}

fn renew_certificate(
    tx: &Tx<'_>,
    id: GenerationId,
    certificate: IntentId,
    above: &str,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE generation SET certificate = ?2, above = ?3 WHERE id = ?1",
        params![id, certificate, above],
    )?;
    Ok(())
}
