//! Registration, and every way to be refused (contract sections 9 and 10).

use reqwest::Method;
use serde_json::{Value, json};
use time::Duration;

use crate::client::{Answer, Plant};
use crate::pki::{self, Made};

async fn enroll_group(plant: &Plant, id: &str, primary: &Made) {
    let record = json!({
        "enrollmentGroupId": id,
        "attestation": { "type": "x509", "x509": { "signingCertificates": {
            "primary": { "certificate": primary.pem } } } },
    });
    plant
        .put(&format!("/enrollmentGroups/{id}"), Some("*"), &record)
        .await
        .expect(200);
}

async fn enroll(
    plant: &Plant,
    id: &str,
    primary: &Made,
    secondary: Option<&Made>,
    status: &str,
) -> Value {
    let mut slots = json!({ "primary": { "certificate": primary.pem } });
    if let Some(secondary) = secondary {
        slots["secondary"] = json!({ "certificate": secondary.pem });
    }
    let record = json!({
        "registrationId": id, "provisioningStatus": status,
        "attestation": { "type": "x509", "x509": { "clientCertificates": slots } },
    });
    plant
        .put(&format!("/enrollments/{id}"), Some("*"), &record)
        .await
        .expect(200)
}

fn thumbprint(plant: &Plant, id: &str) -> Value {
    let identity = plant.emulator.hub_identity(id).unwrap();
    identity["authentication"]["x509Thumbprint"]["primaryThumbprint"].clone()
}

/// A group device comes in below root and intermediate, and the hub knows its leaf; its next leaf
/// replaces the first one there.
#[tokio::test]
async fn a_group_device_is_assigned_and_the_hub_knows_its_leaf() {
    let plant = Plant::start();
    let root = pki::authority("root", None);
    let sub = pki::authority("line 4", Some(&root));
    plant.upload_verified("root", &root).await;
    enroll_group(&plant, "Line-4", &sub).await;

    let (old, new) = (
        pki::leaf("press-7", Some(&sub)),
        pki::leaf("press-7", Some(&sub)),
    );
    let first = plant.device("press-7", &[&old, &sub, &root]);
    let body = first.register().await.unwrap();
    let state = &body["registrationState"];
    assert_eq!(body["status"], "assigned");
    assert_eq!(state["assignedHub"], plant.emulator.hub_host());
    assert_eq!(state["deviceId"], "press-7");
    assert_eq!(state["substatus"], "initialAssignment");
    assert_eq!(state["x509"]["enrollmentGroupId"], "Line-4");
    assert_eq!(thumbprint(&plant, "press-7"), old.sha256());
    assert_eq!(first.message().await, 204);

    let second = plant.device("press-7", &[&new, &sub, &root]);
    assert_eq!(second.message().await, 401);
    second.register().await.unwrap();
    assert_eq!(thumbprint(&plant, "press-7"), new.sha256());
    assert_eq!((second.message().await, first.message().await), (204, 401));

    let of_group = plant
        .post("/registrations/line-4/query", &Value::Null)
        .await
        .expect(200);
    assert_eq!(of_group[0]["registrationId"], "press-7");
    let request = second
        .request(Method::POST, "")
        .json(&json!({ "registrationId": "press-7" }));
    let looked_up = Answer::read(request.send().await.unwrap())
        .await
        .expect(200);
    assert_eq!(looked_up["status"], "assigned");

    let path = "/registrations/press-7";
    let etag = plant.get(path).await.expect(200)["etag"].clone();
    let etag = etag.as_str().unwrap();
    assert_eq!(plant.delete(path, Some("AAAA")).await.status, 412);
    plant.delete(path, Some(etag)).await.expect(204);
}

/// DPS accepts both slots of an individual enrollment; it refuses a certificate in neither.
#[tokio::test]
async fn both_slots_open_the_door() {
    let plant = Plant::start();
    let leaves = [0, 1, 2].map(|_| pki::leaf("press-7", None));
    enroll(&plant, "press-7", &leaves[0], Some(&leaves[1]), "enabled").await;
    for leaf in &leaves[..2] {
        plant.device("press-7", &[leaf]).register().await.unwrap();
        assert_eq!(thumbprint(&plant, "press-7"), leaf.sha256());
    }
    plant
        .device("press-7", &[&leaves[2]])
        .is_refused("Invalid certificate.")
        .await;
}

/// A chain must hold link by link and reach a verified authority that is presented.
#[tokio::test]
async fn a_chain_that_does_not_reach_a_verified_authority_is_refused() {
    let plant = Plant::start();
    let root = pki::authority("root", None);
    let sub = pki::authority("line 4", Some(&root));
    let leaf = pki::leaf("press-7", Some(&sub));
    enroll_group(&plant, "line-4", &sub).await;
    let whole = plant.device("press-7", &[&leaf, &sub, &root]);
    whole.is_refused("CA certificate not found.").await;
    plant.upload_verified("root", &root).await;
    plant
        .device("press-7", &[&leaf, &sub])
        .is_refused("CA certificate not found.")
        .await;
    plant
        .device("press-7", &[&leaf, &root])
        .is_refused("CA certificate not found.")
        .await;
    let impostor = pki::authority("line 4", None);
    let forged = pki::leaf("press-7", Some(&impostor));
    plant
        .device("press-7", &[&forged, &sub, &root])
        .is_refused("CA certificate not found.")
        .await;
    whole.register().await.unwrap();
    plant
        .emulator
        .switch(|switches| switches.verified_authority_presented = false);
    plant
        .device("press-7", &[&leaf, &sub])
        .register()
        .await
        .unwrap();
}

/// The individual enrollment decides alone: disabled it blocks a group device, with a new leaf it
/// excludes the old one, deleted it admits the device again.
#[tokio::test]
async fn an_individual_enrollment_takes_precedence() {
    let plant = Plant::start();
    let root = pki::authority("root", None);
    plant.upload_verified("root", &root).await;
    enroll_group(&plant, "line-4", &root).await;
    let (compromised, fresh) = (
        pki::leaf("press-7", Some(&root)),
        pki::leaf("press-7", Some(&root)),
    );
    let old = plant.device("press-7", &[&compromised, &root]);
    old.register().await.unwrap();

    enroll(&plant, "press-7", &fresh, None, "disabled").await;
    let refused = old.register().await.unwrap();
    assert_eq!(refused["status"], "disabled");
    assert_eq!(
        plant.get("/registrations/press-7").await.expect(200)["status"],
        "disabled"
    );

    enroll(&plant, "press-7", &fresh, None, "enabled").await;
    old.is_refused("Invalid certificate.").await;
    plant
        .device("press-7", &[&fresh])
        .is_refused("CA certificate not found.")
        .await;
    plant
        .device("press-7", &[&fresh, &root])
        .register()
        .await
        .unwrap();

    plant.delete("/enrollments/press-7", None).await.expect(204);
    old.register().await.unwrap();
}

/// The first authority from the leaf up that has a group decides, though one further up has one
/// too.
#[tokio::test]
async fn the_nearest_group_decides() {
    let plant = Plant::start();
    let root = pki::authority("root", None);
    let sub = pki::authority("line 4", Some(&root));
    plant.upload_verified("root", &root).await;
    let by_reference = json!({ "enrollmentGroupId": "all",
        "attestation": { "type": "x509", "x509": { "caReferences": { "primary": "root" } } } });
    plant
        .put("/enrollmentGroups/all", None, &by_reference)
        .await
        .expect(200);
    let leaf = pki::leaf("press-7", Some(&sub));
    let device = plant.device("press-7", &[&leaf, &sub, &root]);
    let group = |body: &Value| body["registrationState"]["x509"]["enrollmentGroupId"].clone();
    assert_eq!(group(&device.register().await.unwrap()), "all");
    enroll_group(&plant, "line-4", &sub).await;
    assert_eq!(group(&device.register().await.unwrap()), "line-4");
    let etag = plant.get("/enrollmentGroups/line-4").await.expect(200);
    let mut disabled = etag.clone();
    disabled["provisioningStatus"] = json!("disabled");
    plant
        .put("/enrollmentGroups/line-4", etag["etag"].as_str(), &disabled)
        .await
        .expect(200);
    assert_eq!(device.register().await.unwrap()["status"], "disabled");
}

#[tokio::test]
async fn a_device_without_an_entry_is_not_authorized() {
    let plant = Plant::start();
    let root = pki::authority("root", None);
    plant.upload_verified("root", &root).await;
    let leaf = pki::leaf("press-7", Some(&root));
    let device = plant.device("press-7", &[&leaf, &root]);
    device.is_refused("Unauthorized").await;
    enroll_group(&plant, "line-4", &root).await;
    device.register().await.unwrap();
    enroll_group(&plant, "line-4", &pki::authority("another", None)).await;
    device
        .is_refused("Signing certificate info did not match chain elements")
        .await;
    plant
        .delete("/enrollmentGroups/line-4", None)
        .await
        .expect(204);
    device.is_refused("Unauthorized").await;
    assert!(plant.emulator.hub_identity("press-7").is_some());
}

/// The name in the leaf is the device, and its validity goes by the emulator's clock.
#[tokio::test]
async fn another_name_and_an_expired_leaf_are_refused() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    enroll(&plant, "press-7", &leaf, None, "enabled").await;
    let other = pki::leaf("press-8", None);
    enroll(&plant, "press-9", &other, None, "enabled").await;
    plant
        .device("press-9", &[&other])
        .is_refused("Invalid certificate.")
        .await;
    let device = plant.device("press-7", &[&leaf]);
    device.register().await.unwrap();
    plant.emulator.clock().advance(Duration::days(31));
    device.is_refused("Invalid certificate.").await;
    plant.get("/enrollments/press-7").await.expect(200);
    plant.emulator.clock().reset();
    device.register().await.unwrap();
}

/// Only who began an operation may ask for it; scope, id and body are checked.
#[tokio::test]
async fn operations_belong_to_their_device() {
    let plant = Plant::start();
    let (mine, theirs) = (pki::leaf("press-7", None), pki::leaf("press-8", None));
    enroll(&plant, "press-7", &mine, None, "enabled").await;
    enroll(&plant, "press-8", &theirs, None, "enabled").await;
    plant
        .emulator
        .switch(|switches| switches.assigning_polls = 1);
    let device = plant.device("press-7", &[&mine]);
    let begun = device.begin().await.expect(202);
    let operation = begun["operationId"].as_str().unwrap();
    assert_eq!(
        plant
            .device("press-8", &[&theirs])
            .poll(operation)
            .await
            .status,
        404
    );
    assert_eq!(
        plant
            .device("press-7", &[&theirs])
            .poll(operation)
            .await
            .status,
        404
    );
    assert_eq!(
        device.poll(operation).await.expect(202)["status"],
        "assigning"
    );
    assert_eq!(
        device.poll(operation).await.expect(200)["status"],
        "assigned"
    );
    assert_eq!(device.poll("5.0000000000000000.none").await.status, 404);
    let wrong = device
        .request(Method::PUT, "/register")
        .json(&json!({ "registrationId": "press-8" }));
    assert_eq!(Answer::read(wrong.send().await.unwrap()).await.status, 400);
    let bad = plant.device("press%207", &[&mine]).begin().await;
    assert_eq!(bad.status, 400);
}

/// A repeat on the same hub: which substatus depends on the API version. A hub that is no longer in
/// the record is left, unless the policy forbids it.
#[tokio::test]
async fn reprovisioning_follows_the_policy() {
    let plant = Plant::start_with(|options| {
        options.linked_hubs = ["one", "two"]
            .map(|hub| format!("{hub}.azure-devices.net"))
            .to_vec();
    });
    let leaf = pki::leaf("press-7", None);
    let mut record = enroll(&plant, "press-7", &leaf, None, "enabled").await;
    let device = plant.device("press-7", &[&leaf]);
    let mut assign = async |hubs: Value, policy: Value| {
        record["iotHubs"] = hubs;
        record["reprovisionPolicy"] = policy;
        plant
            .put("/enrollments/press-7", Some("*"), &record)
            .await
            .expect(200);
        let state = device.register().await.unwrap()["registrationState"].clone();
        let text = |member: &str| state[member].as_str().unwrap().to_owned();
        (text("assignedHub"), text("substatus"))
    };
    let (one, two) = (
        json!(["one.azure-devices.net"]),
        json!(["two.azure-devices.net"]),
    );
    let sticky = json!({ "updateHubAssignment": false, "migrateDeviceData": false });
    let migrate = json!({ "updateHubAssignment": true, "migrateDeviceData": true });
    let reset = json!({ "updateHubAssignment": true, "migrateDeviceData": false });
    let pair =
        |hub: &str, substatus: &str| (format!("{hub}.azure-devices.net"), substatus.to_owned());
    assert_eq!(
        assign(one.clone(), migrate.clone()).await,
        pair("one", "initialAssignment")
    );
    assert_eq!(
        assign(two.clone(), sticky).await,
        pair("one", "initialAssignment")
    );
    assert_eq!(
        assign(two, migrate).await,
        pair("two", "deviceDataMigrated")
    );
    assert!(plant.emulator.hub_identity("press-7").is_none());
    assert_eq!(assign(one, reset).await, pair("one", "deviceDataReset"));
}

/// The initial twin is given at the first provisioning and goes with the device to another hub,
/// unless the policy resets it.
#[tokio::test]
async fn the_twin_moves_with_the_device() {
    let hubs = ["one", "two"].map(|hub| format!("{hub}.azure-devices.net"));
    let plant = Plant::start_with(|options| options.linked_hubs = hubs.to_vec());
    let leaf = pki::leaf("press-7", None);
    let mut record = enroll(&plant, "press-7", &leaf, None, "enabled").await;
    let device = plant.device("press-7", &[&leaf]);
    let mut line_at = async |hub: &str, line: u64, migrate: bool| {
        record["iotHubs"] = json!([hub]);
        record["initialTwin"] = json!({ "tags": { "line": line } });
        record["reprovisionPolicy"]["migrateDeviceData"] = json!(migrate);
        plant
            .put("/enrollments/press-7", Some("*"), &record)
            .await
            .expect(200);
        device.register().await.unwrap();
        let request = plant.hub_named(hub, Method::GET, "/twins/press-7");
        let twin = Answer::read(request.send().await.unwrap())
            .await
            .expect(200);
        twin["tags"]["line"].as_u64().unwrap()
    };
    assert_eq!(line_at(&hubs[0], 4, true).await, 4);
    assert_eq!(line_at(&hubs[0], 5, true).await, 4);
    assert_eq!(line_at(&hubs[1], 5, true).await, 4);
    assert_eq!(line_at(&hubs[0], 6, false).await, 6);
}

#[tokio::test]
async fn without_a_hub_a_registration_fails() {
    let plant = Plant::start_with(|options| options.linked_hubs.clear());
    let leaf = pki::leaf("press-7", None);
    enroll(&plant, "press-7", &leaf, None, "enabled").await;
    let body = plant.device("press-7", &[&leaf]).register().await.unwrap();
    assert_eq!(body["status"], "failed");
    assert_eq!(body["registrationState"]["errorCode"], 400_209);
}

/// The hub's own rules for identities: a device deleted there stays out until it registers again.
#[tokio::test]
async fn a_deleted_identity_shuts_the_hub_until_the_next_registration() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    enroll(&plant, "press-7", &leaf, None, "enabled").await;
    let device = plant.device("press-7", &[&leaf]);
    device.register().await.unwrap();
    assert_eq!(device.message().await, 204);
    let get = async || {
        Answer::read(
            plant
                .hub(Method::GET, "/devices/press-7")
                .send()
                .await
                .unwrap(),
        )
        .await
    };
    let identity = get().await.expect(200);
    assert_eq!(identity["authentication"]["type"], "selfSigned");
    let delete = |etag: &str| {
        plant
            .hub(Method::DELETE, "/devices/press-7")
            .header("If-Match", etag)
    };
    assert_eq!(
        delete("\"stale\"").send().await.unwrap().status().as_u16(),
        412
    );
    let without = plant.hub(Method::DELETE, "/devices/press-7");
    assert_eq!(without.send().await.unwrap().status().as_u16(), 412);
    assert_eq!(delete("\"*\"").send().await.unwrap().status().as_u16(), 204);
    let missing = get().await;
    assert_eq!(missing.header("iothub-errorcode"), Some("DeviceNotFound"));
    assert_eq!(missing.status, 404);
    assert_eq!(device.message().await, 401);
    device.register().await.unwrap();
    assert_eq!(device.message().await, 204);
}

/// Devices of one group are spread over the linked hubs. The record of each registration names its
/// hub, and no other hub has the device.
#[tokio::test]
async fn the_devices_of_a_group_are_spread_over_the_linked_hubs() {
    let plant = Plant::start_with(|options| {
        options.linked_hubs = ["one", "two"]
            .map(|hub| format!("{hub}.azure-devices.net"))
            .to_vec();
    });
    let root = pki::authority("root", None);
    plant.upload_verified("root", &root).await;
    enroll_group(&plant, "line-4", &root).await;
    let mut hubs = std::collections::BTreeSet::new();
    for number in 1..=8 {
        let id = format!("press-{number}");
        let leaf = pki::leaf(&id, Some(&root));
        let device = plant.device(&id, &[&leaf, &root]);
        device.register().await.unwrap();
        let record = plant.get(&format!("/registrations/{id}")).await.expect(200);
        assert_eq!(record["deviceId"], id.as_str());
        let hub = record["assignedHub"].as_str().unwrap();
        assert_eq!(plant.emulator.hubs_with(&id), [hub]);
        hubs.insert(hub.to_owned());
    }
    assert_eq!(hubs.len(), 2, "{hubs:?}");
}

/// The hub knows a device by the `deviceId` of its enrollment, and the record names it.
#[tokio::test]
async fn the_record_names_another_device_id() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    let mut record = enroll(&plant, "press-7", &leaf, None, "enabled").await;
    record["deviceId"] = json!("asset-0815");
    plant
        .put("/enrollments/press-7", Some("*"), &record)
        .await
        .expect(200);
    plant.device("press-7", &[&leaf]).register().await.unwrap();
    let record = plant.get("/registrations/press-7").await.expect(200);
    assert_eq!(record["deviceId"], "asset-0815");
    assert!(plant.emulator.hub_identity("asset-0815").is_some());
    assert!(plant.emulator.hub_identity("press-7").is_none());
}
