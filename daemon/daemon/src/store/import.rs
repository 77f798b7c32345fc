//! Records certificates that an authority issued before it was adopted, and their revocations.
//!
//! A certificate gets an intent that is issued from the beginning, because no worker was asked to
//! sign it. A serial number without a certificate is a row of `former_certificate`. Each call is
//! one transaction, and recording the same again changes nothing.

use super::adoption::MadeElsewhere;
use super::audit::{self, AuditEntry};
use super::certificate::Signature;
use super::digest::sha256;
use super::engine::{Tx, params};
use super::revocation::{Revocation, RevocationTarget};
use super::{Store, StoreError, UnixSeconds, certified_key, crl, revocation_event};
use crate::crl_number::CrlNumber;
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, GenerationNumber, IntentId};
use crate::x509::revocation::RevocationReason;
use serde::Serialize;
use serde_json::json;

/// A certificate that an authority issued before it was adopted.
#[derive(Clone, Debug)]
pub struct FormerCertificate {
    pub serial: Vec<u8>,
    pub subject: Option<String>,
    pub not_after: Option<UnixSeconds>,
    pub revoked: Option<(UnixSeconds, RevocationReason)>,
    /// The certificate, if it is at hand.
    pub leaf: Option<ImportedLeaf>,
}

/// A certificate, and whose it is.
#[derive(Clone, Debug)]
pub struct ImportedLeaf {
    pub certificate: MadeElsewhere,
    /// False for the certificate of an authority.
    pub is_leaf: bool,
    /// The registration id of its device, and the profile that the device gets.
    pub device: Option<(String, String)>,
}

/// A generation whose certificate the old place had revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAuthority {
    pub authority: String,
    pub number: GenerationNumber,
    pub reason: RevocationReason,
}

/// The changes that an import has made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Certificates that were recorded.
    pub certificates: u64,
    /// Serial numbers that were recorded without a certificate.
    pub serials: u64,
    /// Devices that were recorded, or have a newer leaf now.
    pub devices: u64,
    /// Revocations that were recorded.
    pub revocations: u64,
    /// Certificates and serial numbers that were on record.
    pub known: u64,
    /// Certificates whose serial number is that of another one on record: they are left out.
    pub conflicts: u64,
    /// Authorities here that stay as they are: what excludes one is more than its revocation.
    #[serde(skip)]
    pub kept: Vec<KeptAuthority>,
}

impl Imported {
    /// Adds what another call has changed.
    pub fn add(&mut self, other: Imported) {
        self.certificates += other.certificates;
        self.serials += other.serials;
        self.devices += other.devices;
        self.revocations += other.revocations;
        self.known += other.known;
        self.conflicts += other.conflicts;
        self.kept.extend(other.kept);
    }
}

/// The cause of a revocation that was imported.
const IMPORT: &str = "import";

impl Store {
    /// Returns true if the authority of this generation existed, with its key, before it came here.
    pub fn is_adopted(&self, generation: GenerationId) -> Result<bool, StoreError> {
        self.read(|tx| {
            tx.query_one(
                "SELECT EXISTS (SELECT 1 FROM generation g JOIN intent i ON i.id = g.certificate
                     WHERE g.id = ?1 AND i.purpose = 'adopted'
                       AND NOT EXISTS (SELECT 1 FROM request WHERE generation = g.id))",
                params![generation],
                |row| row.get(0),
            )
        })
    }

    /// Records former certificates of a generation. A revocation on record keeps its date.
    pub fn import_certificates(
        &self,
        generation: GenerationId,
        former: Vec<FormerCertificate>,
        actor: String,
        at: UnixSeconds,
    ) -> Result<Imported, StoreError> {
        self.write(move |tx| {
            let mut done = Imported::default();
            for it in &former {
                import(tx, generation, it, (&actor, at), &mut done)?;
            }
            if done.revocations > 0 {
                // Serial numbers have no trigger that counts them.
                crl::count_change(tx, generation)?;
            }
            Ok(done)
        })
    }

    /// Records the end of an import, and the number of the last list that was published elsewhere.
    pub fn end_import(
        &self,
        generation: GenerationId,
        crl_number: Option<CrlNumber>,
        entry: AuditEntry,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            if let Some(number) = crl_number {
                tx.execute(
                    "UPDATE generation SET crl_number = max(crl_number, ?2) WHERE id = ?1",
                    params![generation, number],
                )?;
            }
            audit::append(tx, &entry)
        })
    }
}

fn import(
    tx: &Tx<'_>,
    generation: GenerationId,
    it: &FormerCertificate,
    (actor, at): (&str, UnixSeconds),
    done: &mut Imported,
) -> Result<(), StoreError> {
    let known: Option<(IntentId, Vec<u8>)> = tx.query_optional(
        "SELECT i.id, c.sha256 FROM intent i JOIN certificate c ON c.intent = i.id
         WHERE i.serial = ?1 AND i.issuer = ?2 AND i.issued_elsewhere = 0",
        params![it.serial, generation],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if let Some((intent, digest)) = known {
        let is_another = it
            .leaf
            .as_ref()
            .is_some_and(|leaf| sha256(&leaf.certificate.der).as_slice() != digest);
        done.conflicts += u64::from(is_another);
        done.known += u64::from(!is_another);
        if let Some(kept) = authority(tx, intent, it)? {
            done.kept.extend(kept);
            return Ok(());
        }
        let before = done.revocations;
        let is_key_reported = revoke(tx, intent, it.revoked, at, done)?;
        if done.revocations > before {
            record_event(tx, intent, it, (actor, at))?;
        } else if is_key_reported {
            let subject = "SELECT subject FROM intent WHERE id = ?1";
            let subject = tx.query_one(subject, params![intent], |row| row.get(0))?;
            append_revoked(tx, subject, it, (actor, at))?;
        }
        return Ok(());
    }
    match &it.leaf {
        Some(leaf) => insert_certificate(tx, generation, it, leaf, (actor, at), done),
        None => insert_serial(tx, generation, it, (actor, at), done),
    }
}

/// Returns `Some` for the certificate of a generation, with the generation if its revocation is
/// imported and it is not revoked for good.
fn authority(
    tx: &Tx<'_>,
    certificate: IntentId,
    it: &FormerCertificate,
) -> Result<Option<Option<KeptAuthority>>, StoreError> {
    let found: Option<(String, GenerationNumber, Option<RevocationReason>)> = tx.query_optional(
        "SELECT g.authority, g.number, c.revocation_reason
         FROM generation g JOIN certificate c ON c.intent = g.certificate
         WHERE g.certificate = ?1",
        params![certificate],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    Ok(found.map(|(authority, number, present)| {
        let (_, reason) = it.revoked?;
        let is_final = present.is_some_and(RevocationReason::is_final);
        (!is_final).then_some(KeptAuthority {
            authority,
            number,
            reason,
        })
    }))
}

/// Records who imported the revocation of a certificate that is on record.
fn record_event(
    tx: &Tx<'_>,
    intent: IntentId,
    it: &FormerCertificate,
    (actor, at): (&str, UnixSeconds),
) -> Result<(), StoreError> {
    let subject = "SELECT subject FROM intent WHERE id = ?1";
    let subject = tx.query_one(subject, params![intent], |row| row.get(0))?;
    let revocation = Revocation {
        target: RevocationTarget::Certificate { intent },
        at,
        actor: actor.to_owned(),
        cause: IMPORT.to_owned(),
    };
    let reason = it.revoked.map(|(_, reason)| reason);
    revocation_event::record(tx, intent, &revocation, reason)?;
    append_revoked(tx, subject, it, (actor, at))
}

/// Appends the entry of a revocation that an import has brought to what was on record.
fn append_revoked(
    tx: &Tx<'_>,
    subject: String,
    it: &FormerCertificate,
    (actor, at): (&str, UnixSeconds),
) -> Result<(), StoreError> {
    let (since, reason) = it.revoked.unzip();
    audit::append(
        tx,
        &AuditEntry {
            at,
            actor: actor.to_owned(),
            action: "certificate.revoked",
            subject,
            detail: json!({
                "serial": hex::encode_upper(&it.serial),
                "reason": reason.map(RevocationReason::name),
                "revoked_at": since,
                "cause": IMPORT,
            }),
        },
    )
}

/// A final reason also makes a hold final, from the date of the hold. A hold that was lifted here
/// since stays lifted. A revocation of the key also excludes the key.
fn revoke(
    tx: &Tx<'_>,
    intent: IntentId,
    revoked: Option<(UnixSeconds, RevocationReason)>,
    at: UnixSeconds,
    done: &mut Imported,
) -> Result<bool, StoreError> {
    let Some((since, reason)) = revoked else {
        return Ok(false);
    };
    let changed = tx.execute(
        "UPDATE certificate SET revoked_at = coalesce(revoked_at, ?2), revocation_reason = ?3
         WHERE intent = ?1 AND iif(?4, revoked_at IS NULL OR revocation_reason = ?5,
             revoked_at IS NULL AND NOT EXISTS (
                 SELECT 1 FROM revocation_event
                 WHERE certificate = ?1 AND reason IS NULL AND at >= ?2))",
        params![
            intent,
            since,
            reason.code(),
            reason.is_final(),
            RevocationReason::CertificateHold.code(),
        ],
    )?;
    done.revocations += changed as u64;
    if reason.is_of_the_key() {
        return certified_key::record_compromised(tx, intent, at);
    }
    Ok(false)
}

fn insert_certificate(
    tx: &Tx<'_>,
    generation: GenerationId,
    it: &FormerCertificate,
    leaf: &ImportedLeaf,
    (actor, at): (&str, UnixSeconds),
    done: &mut Imported,
) -> Result<(), StoreError> {
    let certificate = &leaf.certificate;
    let device = leaf.device.as_ref();
    let (purpose, profile) = match (device, leaf.is_leaf) {
        (Some((_, profile)), _) => ("leaf", profile.as_str()),
        (None, true) => ("leaf", "imported"),
        (None, false) => ("adopted", "authority"),
    };
    let subject = device.map_or(certificate.subject.as_str(), |(id, _)| id);
    let intent: IntentId = tx.insert(
        "INSERT INTO intent (serial, issuer, purpose, profile, subject, key_sha256, tbs,
             not_before, not_after, caller, signed_elsewhere, recorded_at, role)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?12)
         RETURNING id",
        params![
            it.serial,
            generation,
            purpose,
            profile,
            subject,
            sha256(&certificate.public_key),
            certificate.tbs,
            certificate.not_before,
            certificate.not_after,
            actor,
            at,
            device.map(|_| Role::Device.name()),
        ],
    )?;
    // A serial number that was known alone may have been revoked.
    let before = former_state(tx, generation, &it.serial)?.unwrap_or_default();
    tx.execute(
        "DELETE FROM former_certificate WHERE generation = ?1 AND serial = ?2",
        params![generation, it.serial],
    )?;
    let signature = Signature::of(&certificate.der, &certificate.tbs)?;
    signature.record(tx, intent, certificate.not_before)?;
    done.certificates += 1;
    if before.released_at.is_some() {
        // The row that says so is gone; the next import asks for the event.
        let lifted = Revocation {
            target: RevocationTarget::Certificate { intent },
            at,
            actor: actor.to_owned(),
            cause: IMPORT.to_owned(),
        };
        revocation_event::record(tx, intent, &lifted, None)?;
    }
    let revoked = before.after(it.revoked);
    audit::append(
        tx,
        &AuditEntry {
            at,
            actor: actor.to_owned(),
            action: "certificate.imported",
            subject: subject.to_owned(),
            detail: json!({
                "serial": hex::encode_upper(&it.serial),
                "sha256": hex::encode(signature.sha256),
                "profile": profile,
                "role": device.map(|_| Role::Device),
                "revoked_at": revoked.map(|it| it.0),
                "reason": revoked.map(|it| it.1.name()),
            }),
        },
    )?;
    revoke(tx, intent, revoked, at, done)?;
    match device {
        Some((id, profile)) => record_device(tx, id, profile, intent, at, done),
        None => Ok(()),
    }
}

/// The newest of a device's former leaves is its current one, unless it has one that was issued
/// here.
fn record_device(
    tx: &Tx<'_>,
    id: &str,
    profile: &str,
    intent: IntentId,
    at: UnixSeconds,
    done: &mut Imported,
) -> Result<(), StoreError> {
    let changed = tx.execute(
        "INSERT INTO device (registration_id, profile, certificate, created_at, not_after)
         VALUES (?1, ?2, ?3, ?4, (SELECT not_after FROM intent WHERE id = ?3))
         ON CONFLICT (registration_id) DO UPDATE
         SET certificate = excluded.certificate, not_after = excluded.not_after
         WHERE excluded.not_after > device.not_after AND EXISTS (
             SELECT 1 FROM intent i JOIN certificate c ON c.intent = i.id
             WHERE i.id = device.certificate AND c.issued_at < i.recorded_at)",
        params![id, profile, intent, at],
    )?;
    done.devices += changed as u64;
    Ok(())
}

/// The record of a serial number alone.
#[derive(Default)]
struct FormerState {
    revoked: Option<(UnixSeconds, RevocationReason)>,
    /// When its last hold was lifted.
    released_at: Option<UnixSeconds>,
    subject: Option<String>,
}

impl FormerState {
    /// Returns its revocation after an import, by the rules of [`revoke`].
    fn after(
        &self,
        imported: Option<(UnixSeconds, RevocationReason)>,
    ) -> Option<(UnixSeconds, RevocationReason)> {
        match (self.revoked, imported) {
            (Some((since, hold)), Some((_, reason))) if !hold.is_final() && reason.is_final() => {
                Some((since, reason))
            }
            (Some(before), _) => Some(before),
            (None, Some((since, reason)))
                if !reason.is_final() && self.released_at.is_some_and(|it| it >= since) =>
            {
                None
            }
            (None, imported) => imported,
        }
    }
}

fn former_state(
    tx: &Tx<'_>,
    generation: GenerationId,
    serial: &[u8],
) -> Result<Option<FormerState>, StoreError> {
    tx.query_optional(
        "SELECT revoked_at, revocation_reason, released_at, subject FROM former_certificate
         WHERE generation = ?1 AND serial = ?2",
        params![generation, serial],
        |row| {
            let since: Option<UnixSeconds> = row.get(0)?;
            Ok(FormerState {
                revoked: since.zip(row.get(1)?),
                released_at: row.get(2)?,
                subject: row.get(3)?,
            })
        },
    )
}

fn insert_serial(
    tx: &Tx<'_>,
    generation: GenerationId,
    it: &FormerCertificate,
    by: (&str, UnixSeconds),
    done: &mut Imported,
) -> Result<(), StoreError> {
    let before = former_state(tx, generation, &it.serial)?;
    let is_known = before.is_some();
    let before = before.unwrap_or_default();
    let revoked = before.after(it.revoked);
    let (since, reason) = revoked.unzip();
    tx.execute(
        "INSERT INTO former_certificate
             (generation, serial, subject, not_after, revoked_at, revocation_reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (generation, serial) DO UPDATE
         SET subject = coalesce(subject, excluded.subject),
             not_after = coalesce(not_after, excluded.not_after),
             revocation_reason = excluded.revocation_reason,
             revoked_at = excluded.revoked_at",
        params![
            generation,
            it.serial,
            it.subject,
            it.not_after,
            since,
            reason.map(RevocationReason::code),
        ],
    )?;
    let has_changed = revoked != before.revoked;
    done.revocations += u64::from(has_changed);
    done.known += u64::from(is_known);
    done.serials += u64::from(!is_known);
    if !is_known || !has_changed {
        return Ok(());
    }
    let digits = hex::encode_upper(&it.serial);
    let subject = before.subject.or(it.subject.clone()).unwrap_or(digits);
    append_revoked(tx, subject, it, by)
}
