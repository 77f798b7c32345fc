//! Tests the expiry rollover of a leaf in an individual enrollment, with changes of other clients
//! in between.

use crate::pki;
use crate::plant::{Plant, individual, press};
use dps_emulator::Kind;
use hallmarkd::enrollment::desired::{EnrollmentName, Status};
use hallmarkd::enrollment::history::History;
use hallmarkd::enrollment::plan::{DriftPolicy, Plan, plan};
use hallmarkd::enrollment::slots::{CanaryVerdict, CutOverEvidence, RetireEvidence, Slots};
use hallmarkd::provisioning::dps::{BulkMode, ScanKind};
use hallmarkd::provisioning::failure::CallError;
use hallmarkd::unix_seconds::UnixSeconds;
use serde_json::{Value, json};

fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Serving, staged, cut over on evidence, retired; fields that others set stay what they are, and
/// the slot that does not change goes back as `info` only.
#[tokio::test]
async fn a_leaf_rolls_from_primary_to_secondary() {
    let plant = Plant::start();
    let (old, new) = (pki::leaf("Press-7", None), pki::leaf("Press-7", None));
    let (old, new) = (old.certificate, new.certificate);
    let slots = Slots::Empty.serve(old.thumbprint()).unwrap();
    let serving = individual(Some(&old), None);
    let history = plant.reconcile(&serving, History::default()).await.unwrap();
    let twin =
        object(json!({"initialTwin": {"tags": {"floor": 3}, "properties": {"desired": {}}}}));
    plant
        .emulator
        .edit_record(Kind::Individual, "press-7", twin)
        .unwrap();

    let slots = slots.stage(new.thumbprint()).unwrap();
    let staged = individual(Some(&old), Some(&new));
    let history = plant.reconcile(&staged, history).await.unwrap();
    let id = press();
    let id = EnrollmentName::Individual(&id);
    let record = plant.dps.enrollment(id).await.unwrap().unwrap();
    let (observed_primary, observed_secondary) = record.thumbprints();
    let canary = CanaryVerdict::NotNeeded;
    let slots = slots
        .cut_over(&CutOverEvidence {
            observed_primary,
            observed_secondary,
            canary,
        })
        .unwrap();

    let not_after = UnixSeconds::default();
    let expired = RetireEvidence::Expired {
        now: not_after + 1,
        retiring_not_after: not_after,
    };
    let slots = slots.retire(&expired).unwrap();
    let retired = individual(None, Some(&new));
    plant.reconcile(&retired, history).await.unwrap();
    let record = plant.dps.enrollment(id).await.unwrap().unwrap();
    assert_eq!(record.thumbprints(), slots.wanted());
    assert_eq!(record.fields()["initialTwin"]["tags"]["floor"], 3);
}

/// Another client writes between our read and our write: a conflict, and the second run sees
/// the other client's change.
#[tokio::test]
async fn a_conflict_means_to_observe_again() {
    let plant = Plant::start();
    let leaf = pki::leaf("Press-7", None).certificate;
    let enabled = individual(Some(&leaf), None);
    let history = plant.reconcile(&enabled, History::default()).await.unwrap();
    let mut blocked = enabled.clone();
    blocked.status = Status::Disabled;
    let id = blocked.kind.id();
    let observed = plant.dps.enrollment(id).await.unwrap();
    let decided = plan(
        Some(&blocked),
        observed.as_ref(),
        &history,
        DriftPolicy::Report,
    );
    let Plan::Replace { record, etag, .. } = decided else {
        panic!("{decided:?}");
    };
    let theirs = object(json!({"capabilities": {"iotEdge": true}}));
    plant
        .emulator
        .edit_record(Kind::Individual, "Press-7", theirs)
        .unwrap();
    let error = plant.dps.replace(id, &record, &etag).await.unwrap_err();
    assert!(matches!(error, CallError::Conflict { .. }), "{error:?}");
    let error = plant.dps.delete(id, &etag).await.unwrap_err();
    assert!(matches!(error, CallError::Conflict { .. }), "{error:?}");
    let error = plant.dps.create(id, &record).await.unwrap_err();
    assert!(matches!(error, CallError::Conflict { .. }), "{error:?}");

    plant.reconcile(&blocked, history).await.unwrap();
    let record = plant.emulator.individual("Press-7").unwrap();
    assert_eq!(record["provisioningStatus"], "disabled");
    assert_eq!(record["capabilities"]["iotEdge"], true);
}

#[tokio::test]
async fn a_deletion_is_done_when_it_is_gone() {
    let plant = Plant::start();
    let leaf = pki::leaf("Press-7", None).certificate;
    let desired = individual(Some(&leaf), None);
    plant.reconcile(&desired, History::default()).await.unwrap();
    let id = desired.kind.id();
    let record = plant.dps.enrollment(id).await.unwrap().unwrap();
    for _ in 0..2 {
        plant.dps.delete(id, record.etag()).await.unwrap();
    }
    assert_eq!(plant.dps.enrollment(id).await.unwrap(), None);
    plant.dps.delete_registration(&press()).await.unwrap();
    assert_eq!(plant.dps.registration(&press()).await.unwrap(), None);
}

#[tokio::test]
async fn many_are_created_at_once_and_scanned_page_by_page() {
    let plant = Plant::start();
    for batch in 0..11 {
        let records: Vec<Value> = (0..10).map(|item| enrollment(batch * 10 + item)).collect();
        let outcome = plant.dps.bulk(BulkMode::Create, &records).await.unwrap();
        assert!(outcome.is_successful, "{outcome:?}");
    }
    let outcome = plant
        .dps
        .bulk(BulkMode::Create, &[enrollment(5)])
        .await
        .unwrap();
    assert!(!outcome.is_successful);
    assert_eq!(outcome.errors[0].registration_id, "press-5");
    let (mut next, mut found) = (None, 0);
    loop {
        let page = plant
            .dps
            .scan(ScanKind::Individuals, next.as_ref())
            .await
            .unwrap();
        found += page.records.len();
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(found, 110);
}

fn enrollment(number: u32) -> Value {
    let id = format!("press-{number}");
    let pem = pki::leaf(&id, None).certificate.pem().unwrap();
    json!({
        "registrationId": id,
        "attestation": {
            "type": "x509",
            "x509": {"clientCertificates": {"primary": {"certificate": pem}}},
        },
    })
}
