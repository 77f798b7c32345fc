//! Registering as a device does: how a canary sees that others will get in.

use crate::pki::{self, Made};
use crate::plant::{Plant, group_by_reference, individual, press};
use hallmarkd::enrollment::desired::{Desired, Status};
use hallmarkd::enrollment::history::History;
use hallmarkd::provisioning::device::{DeviceClient, Registration};
use hallmarkd::provisioning::failure::CallError;

async fn register(device: &DeviceClient) -> Result<Registration, CallError> {
    let id = press();
    let mut registration = device.register(&id).await?;
    while let Registration::Assigning { operation_id, .. } = registration {
        registration = device.poll(&id, &operation_id).await?;
    }
    Ok(registration)
}

async fn upload_verified(plant: &Plant, root: &Made) {
    let put = plant
        .arm
        .put("root", &root.certificate, None)
        .await
        .unwrap();
    let etag = put.certificate.etag;
    let asked = plant.arm.generate_verification_code("root", &etag).await;
    let (code, etag) = asked.unwrap();
    let proof = pki::leaf(code.as_str(), Some(root)).certificate;
    plant.arm.verify("root", &proof, &etag).await.unwrap();
}

async fn put(plant: &Plant, desired: &Desired, history: History) -> History {
    plant.reconcile(desired, history).await.unwrap()
}

#[tokio::test]
async fn a_device_of_a_group_gets_in_with_its_whole_chain() {
    let (plant, root) = (Plant::start(), pki::authority("Root 1"));
    upload_verified(&plant, &root).await;
    put(&plant, &group_by_reference("root"), History::default()).await;
    let leaf = pki::leaf("Press-7", Some(&root));
    let device = plant.device(&leaf, &[&root]);
    let Registration::Assigned { hub, device_id } = register(&device).await.unwrap() else {
        panic!("not assigned");
    };
    assert_eq!(hub, plant.emulator.hub_host());
    assert_eq!(device_id, "Press-7");
    let looked_up = device.lookup(&press()).await.unwrap();
    assert_eq!(looked_up, Registration::Assigned { hub, device_id });
    let identity = plant.emulator.hub_identity("Press-7").unwrap();
    let thumbprint = leaf.certificate.thumbprint().to_string();
    let shown = &identity["authentication"]["x509Thumbprint"]["primaryThumbprint"];
    assert_eq!(shown, &thumbprint);
}

/// In the middle of a roll both leaves get in; a third one does not.
#[tokio::test]
async fn both_leaves_of_a_roll_get_in() {
    let plant = Plant::start();
    let [old, new, other] = [(); 3].map(|()| pki::leaf("Press-7", None));
    let staged = individual(Some(&old.certificate), Some(&new.certificate));
    put(&plant, &staged, History::default()).await;
    for leaf in [&old, &new] {
        let registration = register(&plant.device(leaf, &[])).await.unwrap();
        assert!(
            matches!(registration, Registration::Assigned { .. }),
            "{registration:?}"
        );
    }
    let error = register(&plant.device(&other, &[])).await.unwrap_err();
    assert_eq!(error.code(), "provisioning_unauthorized");
    let state = plant.dps.registration(&press()).await.unwrap().unwrap();
    assert_eq!(state.status.as_deref(), Some("assigned"));
    let place = state.place().unwrap();
    assert_eq!(
        (&*place.hub, &*place.device_id),
        (plant.emulator.hub_host(), "Press-7")
    );
}

#[tokio::test]
async fn a_blocked_device_is_told_so_and_it_is_no_error() {
    let plant = Plant::start();
    let leaf = pki::leaf("Press-7", None);
    let mut desired = individual(Some(&leaf.certificate), None);
    let history = put(&plant, &desired, History::default()).await;
    desired.status = Status::Disabled;
    put(&plant, &desired, history).await;
    let registration = register(&plant.device(&leaf, &[])).await.unwrap();
    assert_eq!(registration, Registration::Disabled);
}
