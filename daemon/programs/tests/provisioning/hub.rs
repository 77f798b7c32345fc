//! Tests the hub in a rollover and a compromise: identities, notified devices, deleted identities.

use crate::pki;
use crate::plant::{Plant, individual, press};
use dps_emulator::{Action, Fault, MethodAnswer};
use hallmarkd::enrollment::history::History;
use hallmarkd::provisioning::device::Registration;
use hallmarkd::provisioning::failure::CallError;
use hallmarkd::provisioning::hub::{DirectMethod, Job, JobStatus, MethodJob, MethodOutcome};
use serde_json::json;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

fn reregister() -> DirectMethod {
    DirectMethod {
        name: "reregister".into(),
        payload: json!({"reason": "roll"}),
    }
}

async fn add(plant: &Plant, device_id: &str) {
    let new = json!({"deviceId": device_id, "authentication": {"type": "selfSigned"}});
    plant.hub.create(device_id, &new).await.unwrap();
}

fn online(plant: &Plant, device_id: &str) {
    let (status, payload) = (200, json!({"when": "now"}));
    let answer = MethodAnswer { status, payload };
    plant.emulator.simulate_device(device_id, answer);
}

/// The proof that a device has its new leaf: it registers, and the hub knows it by that one.
#[tokio::test]
async fn a_registration_shows_in_the_hub_by_which_leaf() {
    let plant = Plant::start();
    let (old, new) = (pki::leaf("Press-7", None), pki::leaf("Press-7", None));
    let both = individual(Some(&old.certificate), Some(&new.certificate));
    plant.reconcile(&both, History::default()).await.unwrap();
    assert_eq!(plant.hub.identity("Press-7").await.unwrap(), None);
    for (leaf, other) in [(&old, &new), (&new, &old)] {
        let device = plant.device(leaf, &[]);
        let mut state = device.register(&press()).await.unwrap();
        while let Registration::Assigning { operation_id, .. } = state {
            state = device.poll(&press(), &operation_id).await.unwrap();
        }
        let identity = plant.hub.identity("Press-7").await.unwrap().unwrap();
        assert!(identity.carries(&leaf.certificate.thumbprint()));
        assert!(!identity.carries(&other.certificate.thumbprint()));
    }
}

/// Created, not a second time, deleted, and deleted again.
#[tokio::test]
async fn an_identity_is_created_once_and_deleted_whatever_it_holds() {
    let plant = Plant::start();
    add(&plant, "press-7").await;
    let error = plant
        .hub
        .create("press-7", &json!({"deviceId": "press-7"}))
        .await;
    assert!(
        matches!(error, Err(CallError::Conflict { .. })),
        "{error:?}"
    );
    for _ in 0..2 {
        plant.hub.delete("press-7").await.unwrap();
    }
    assert_eq!(plant.hub.identity("press-7").await.unwrap(), None);
}

/// A deletion whose answer is lost is repeated without harm.
#[tokio::test]
async fn a_deletion_whose_answer_is_lost_is_done() {
    let plant = Plant::start();
    add(&plant, "press-7").await;
    let fault = Fault::on("identity.delete", Action::ResetAfter);
    plant.emulator.inject(fault).unwrap();
    let error = plant.hub.delete("press-7").await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    plant.hub.delete("press-7").await.unwrap();
}

#[tokio::test]
async fn a_device_is_told_if_it_is_there_to_hear_it() {
    let plant = Plant::start();
    let not_reached = |code: &str| MethodOutcome::NotReached {
        code: Some(code.to_owned()),
    };
    let call = async || plant.hub.invoke("press-7", &reregister()).await.unwrap();
    assert_eq!(call().await, not_reached("DeviceNotFound"));
    add(&plant, "press-7").await;
    assert_eq!(call().await, not_reached("DeviceNotOnline"));
    online(&plant, "press-7");
    let (status, payload) = (Some(200), json!({"when": "now"}));
    assert_eq!(call().await, MethodOutcome::Answered { status, payload });
}

/// Waits for a job: it lets each device that is not there 5 s to connect.
async fn at_its_end(plant: &Plant, id: &str) -> Job {
    let begun = Instant::now();
    loop {
        let job = plant.hub.job(id).await.unwrap().unwrap();
        if job.status.is_final() {
            return job;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{job:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One job calls many devices; a device that is offline is counted and named. A job that is
/// scheduled twice is found by its id.
#[tokio::test]
async fn a_job_tells_many() {
    let plant = Plant::start();
    for device_id in ["press-7", "press-8", "press-9"] {
        add(&plant, device_id).await;
    }
    online(&plant, "press-7");
    let now = OffsetDateTime::now_utc();
    let job = |id: &str, start| MethodJob {
        id: id.to_owned(),
        method: reregister(),
        device_ids: vec!["press-7".into(), "press-8".into()],
        start,
        duration_max: Duration::from_secs(60),
    };
    assert_eq!(plant.hub.job("now").await.unwrap(), None);
    plant.hub.schedule(&job("now", now)).await.unwrap();
    let again = plant.hub.schedule(&job("now", now)).await;
    assert!(
        matches!(again, Err(CallError::Conflict { .. })),
        "{again:?}"
    );
    let ended = at_its_end(&plant, "now").await;
    let counts = ended.statistics.unwrap();
    assert_eq!(ended.status, JobStatus::Completed);
    assert_eq!(
        (
            counts.device_count,
            counts.succeeded_count,
            counts.failed_count
        ),
        (2, 1, 1)
    );
    let results = plant.hub.job_results("now").await.unwrap();
    let (status, payload) = (Some(200), json!({"when": "now"}));
    let code = Some("DeviceNotOnline".to_owned());
    let expected = [
        ("press-7", MethodOutcome::Answered { status, payload }),
        ("press-8", MethodOutcome::NotReached { code }),
    ];
    assert_eq!(
        results,
        expected.map(|(id, outcome)| (id.to_owned(), outcome))
    );
}

/// The hub refuses a key that is not its own, and says nothing of it.
#[tokio::test]
async fn a_wrong_key_is_the_operator_s_business() {
    let plant = Plant::start();
    let wrong = format!(
        "HostName={};SharedAccessKeyName=iothubowner;SharedAccessKey=d3Jvbmc=",
        plant.emulator.hub_host()
    );
    std::fs::write(plant.path("hub"), wrong).unwrap();
    let error = plant.hub.identity("press-7").await.unwrap_err();
    assert_eq!(error.code(), "provisioning_unauthorized");
    assert!(!error.to_string().contains("d3Jvbmc"), "{error}");
}
