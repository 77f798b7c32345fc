//! Answers that get lost, and services that are busy.

use crate::pki;
use crate::plant::{Plant, individual};
use dps_emulator::{Action, Fault};
use hallmarkd::enrollment::desired::Desired;
use hallmarkd::enrollment::history::History;
use hallmarkd::provisioning::failure::CallError;
use std::time::Duration;

fn first_leaf() -> Desired {
    individual(Some(&pki::leaf("Press-7", None).certificate), None)
}

/// The creation was done, the answer never came: the next run finds it in place, and writes
/// nothing.
#[tokio::test]
async fn a_creation_whose_answer_is_lost_is_found_in_place() {
    for action in [Action::ResetAfter, Action::Truncate] {
        let plant = Plant::start();
        plant
            .emulator
            .inject(Fault::on("individual.put", action))
            .unwrap();
        let desired = first_leaf();
        let (history, error) = plant
            .reconcile(&desired, History::default())
            .await
            .unwrap_err();
        assert!(error.may_have_happened(), "{error:?}");
        let history = plant.reconcile(&desired, history).await.unwrap();
        assert_eq!(history.confirmed(), Some(&desired));
        assert_eq!(plant.emulator.requests_of("individual.put").len(), 1);
    }
}

/// A replacement was done, its answer lost, and the desire moved on: no drift is seen in it.
#[tokio::test]
async fn a_replacement_whose_answer_is_lost_is_no_drift() {
    let plant = Plant::start();
    let (old, new) = (pki::leaf("Press-7", None), pki::leaf("Press-7", None));
    let (old, new) = (old.certificate, new.certificate);
    let serving = individual(Some(&old), None);
    let history = plant.reconcile(&serving, History::default()).await.unwrap();
    let fault = Fault::on("individual.put", Action::ResetAfter);
    plant.emulator.inject(fault).unwrap();
    let staged = individual(Some(&old), Some(&new));
    let (history, error) = plant.reconcile(&staged, history).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    plant.reconcile(&serving, history).await.unwrap();
    let record = plant.emulator.individual("Press-7").unwrap();
    let slots = &record["attestation"]["x509"]["clientCertificates"];
    assert!(slots["secondary"].is_null(), "{slots}");
}

#[tokio::test]
async fn a_busy_service_is_heard() {
    let plant = Plant::start();
    let fault = Fault::on("individual.put", Action::throttle(1));
    plant.emulator.inject(fault).unwrap();
    let desired = first_leaf();
    let (history, error) = plant
        .reconcile(&desired, History::default())
        .await
        .unwrap_err();
    let CallError::Transient {
        retry_after,
        lost_answer,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(
        (retry_after, lost_answer),
        (Some(Duration::from_secs(1)), false)
    );
    plant.reconcile(&desired, history).await.unwrap();
}
