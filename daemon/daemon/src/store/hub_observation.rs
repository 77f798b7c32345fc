//! Records hub observations: by which leaf each hub knows a device, and since when.
//!
//! This is observed, never concluded: a device uses its new leaf when its hub identity carries that
//! leaf's thumbprint. One row per service and device holds the last observation.

use super::engine::{Row, Tx, params};
use super::{Store, StoreError, UnixSeconds};
use crate::enrollment::hub_identity::HubPlace;
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::EnrollmentId;

/// The state of a device in its hub, as observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubObservation {
    pub provisioning: String,
    pub device: String,
    /// The leaf by which the hub knows it; `None` if the hub has no such identity.
    pub certificate: Option<Thumbprint>,
    /// The status of its registration record, as `assigned`.
    pub registration: Option<String>,
    /// The hub that its registration record names, if that is not configured: nothing was observed
    /// there.
    pub elsewhere: Option<String>,
    /// Since when the hub shows this leaf.
    pub since: UnixSeconds,
    /// When the hub was last observed.
    pub seen_at: UnixSeconds,
}

impl Store {
    /// Records what was observed.
    pub fn record_hub_observation(&self, observed: HubObservation) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO hub_observation
                     (provisioning, device, certificate, registration, since, seen_at, elsewhere)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (provisioning, device) DO UPDATE SET
                     since = CASE WHEN certificate IS NOT DISTINCT FROM excluded.certificate
                                       THEN since
                                  ELSE excluded.since END,
                     certificate = excluded.certificate,
                     registration = excluded.registration, seen_at = excluded.seen_at,
                     elsewhere = excluded.elsewhere",
                params![
                    observed.provisioning,
                    observed.device,
                    observed.certificate.as_ref().map(Thumbprint::as_bytes),
                    observed.registration,
                    observed.since,
                    observed.seen_at,
                    observed.elsewhere
                ],
            )?;
            Ok(())
        })
    }

    /// Records the identity that the registration record of a device names.
    pub fn record_hub_place(
        &self,
        provisioning: &str,
        device: &str,
        place: HubPlace,
    ) -> Result<(), StoreError> {
        if self.hub_place(provisioning, device)?.as_ref() == Some(&place) {
            return Ok(());
        }
        let provisioning = provisioning.to_owned();
        let device = device.to_owned();
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO hub_place (provisioning, device, hub, hub_device)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (provisioning, device) DO UPDATE SET
                     hub = excluded.hub, hub_device = excluded.hub_device",
                params![provisioning, device, place.hub, place.device_id],
            )?;
            Ok(())
        })
    }

    /// Returns the identity that the registration record of a device last named.
    pub fn hub_place(
        &self,
        provisioning: &str,
        device: &str,
    ) -> Result<Option<HubPlace>, StoreError> {
        self.read(|tx| {
            tx.query_optional(
                "SELECT hub, hub_device FROM hub_place
                 WHERE provisioning = ?1 AND device = ?2 AND hub IS NOT NULL",
                params![provisioning, device],
                |row| {
                    Ok(HubPlace {
                        hub: row.get(0)?,
                        device_id: row.get(1)?,
                    })
                },
            )
        })
    }

    /// Records that the device may have an identity that nothing at the service names, unless its
    /// place is on record.
    pub fn record_lost_place(&self, provisioning: &str, device: &str) -> Result<(), StoreError> {
        let provisioning = provisioning.to_owned();
        let device = device.to_owned();
        self.write(move |tx| {
            let sql = "INSERT INTO hub_place (provisioning, device) VALUES (?1, ?2)
                 ON CONFLICT (provisioning, device) DO NOTHING";
            tx.execute(sql, params![provisioning, device]).map(drop)
        })
    }

    /// Returns whether the device may have an identity that nothing names.
    pub fn is_place_lost(&self, provisioning: &str, device: &str) -> Result<bool, StoreError> {
        self.read(|tx| {
            let sql = "SELECT EXISTS (SELECT 1 FROM hub_place
                 WHERE provisioning = ?1 AND device = ?2 AND hub IS NULL)";
            tx.query_one(sql, params![provisioning, device], |row| row.get(0))
        })
    }

    /// Returns the last observation of a device.
    pub fn hub_observation(
        &self,
        provisioning: &str,
        device: &str,
    ) -> Result<Option<HubObservation>, StoreError> {
        self.read(|tx| find(tx, provisioning, device))
    }

    /// Returns the last observation of a device at each service.
    pub fn hub_observations(&self, device: &str) -> Result<Vec<HubObservation>, StoreError> {
        self.read(|tx| {
            let select = format!("{SELECT} WHERE device = ?1 ORDER BY provisioning");
            tx.query_all(&select, params![device], from_row)
        })
    }

    /// Returns devices whose leaf is being rolled at this service, and devices reissued under a
    /// rolled authority, not observed since `before`; at most `limit`.
    pub fn devices_to_observe(
        &self,
        provisioning: &str,
        before: UnixSeconds,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            tx.query_all(
                "WITH RECURSIVE below (id) AS (
                     SELECT old_generation FROM roll
                     WHERE authority IS NOT NULL AND state IN ('draining', 'reissuing')
                     UNION SELECT g.id FROM generation g JOIN below b ON g.parent = b.id)
                 SELECT e.name FROM roll r JOIN enrollment e ON e.id = r.enrollment
                 LEFT JOIN hub_observation p
                     ON p.provisioning = e.provisioning AND p.device = e.name
                 WHERE r.state NOT IN ('done', 'aborted') AND e.provisioning = ?1
                   AND coalesce(p.seen_at, 0) <= ?2
                 UNION
                 SELECT d.registration_id FROM intent o
                 JOIN certificate oc ON oc.intent = o.id
                 JOIN device d ON d.registration_id = o.subject
                 JOIN intent i ON i.id = d.certificate
                 JOIN certificate c ON c.intent = i.id
                 LEFT JOIN hub_observation p
                     ON p.provisioning = ?1 AND p.device = d.registration_id
                 WHERE o.purpose = 'leaf' AND o.not_after >= ?2
                   AND o.issuer IN (SELECT id FROM below)
                   AND i.issuer NOT IN (SELECT id FROM below)
                   AND coalesce(p.seen_at, 0) <= ?2 AND p.certificate IS DISTINCT FROM c.sha256
                 LIMIT ?3",
                params![provisioning, before, limit],
                |row| row.get(0),
            )
        })
    }
}

pub(super) fn find(
    tx: &Tx<'_>,
    provisioning: &str,
    device: &str,
) -> Result<Option<HubObservation>, StoreError> {
    let select = format!("{SELECT} WHERE provisioning = ?1 AND device = ?2");
    tx.query_optional(&select, params![provisioning, device], from_row)
}

const SELECT: &str = "SELECT provisioning, device, certificate, registration, since, seen_at, \
     elsewhere FROM hub_observation";

/// Keeps the place that an individual enrollment was last observed to name, before an observation
/// without a place replaces that: another program has deleted the enrollment or its registration
/// record. A place on record stays. Without a place, an enrollment that another program has deleted
/// since, or replaced by one that the service made at another time (`created`), may have named one:
/// that is on record from then on. An exclusion's own enrollment names none while it is disabled.
pub(super) fn keep_place(
    tx: &Tx<'_>,
    enrollment: EnrollmentId,
    created: Option<&str>,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO hub_place (provisioning, device)
         SELECT provisioning, name FROM enrollment WHERE id = ?1 AND kind = 'individual'
           AND observed IS NOT NULL
           AND coalesce(observed ->> '$.registrationState.assignedHub', '') = ''
           AND observed ->> '$.createdDateTimeUtc' IS DISTINCT FROM ?2
           AND history ->> '$.attempt' IS DISTINCT FROM 'delete'
           AND NOT (overlay_of IS NOT NULL AND status = 'disabled')
         ON CONFLICT (provisioning, device) DO NOTHING",
        params![enrollment, created],
    )?;
    tx.execute(
        "INSERT INTO hub_place (provisioning, device, hub, hub_device)
         SELECT provisioning, name, lower(observed ->> '$.registrationState.assignedHub'),
                observed ->> '$.registrationState.deviceId'
         FROM enrollment WHERE id = ?1 AND kind = 'individual'
           AND observed ->> '$.registrationState.assignedHub' <> ''
           AND observed ->> '$.registrationState.deviceId' <> ''
         ON CONFLICT (provisioning, device) DO UPDATE SET
             hub = excluded.hub, hub_device = excluded.hub_device WHERE hub_place.hub IS NULL",
        params![enrollment],
    )?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> Result<HubObservation, StoreError> {
    Ok(HubObservation {
        provisioning: row.get(0)?,
        device: row.get(1)?,
        certificate: row.get::<Option<[u8; 32]>>(2)?.map(Thumbprint::from_bytes),
        registration: row.get(3)?,
        since: row.get(4)?,
        seen_at: row.get(5)?,
        elsewhere: row.get(6)?,
    })
}
