//! Faults, the request log, the control address, and state over a restart.

use dps_emulator::{Action, Emulator, Fault, Kind, Options, Quotas};
use serde_json::{Map, Value, json};

use crate::client::Plant;
use crate::pki;

fn record(id: &str) -> Value {
    json!({ "registrationId": id, "attestation": { "type": "x509", "x509": {
        "clientCertificates": { "primary": { "certificate": pki::leaf(id, None).pem } } } } })
}

async fn is_cut(plant: &Plant, path: &str, record: &Value) -> bool {
    plant
        .service(reqwest::Method::PUT, path)
        .json(record)
        .send()
        .await
        .is_err()
}

/// Cut before: nothing happened. Cut after: it happened, and only reading back shows that.
#[tokio::test]
async fn a_lost_answer_may_have_committed() {
    let plant = Plant::start();
    plant
        .emulator
        .inject(Fault::on("individual.put", Action::ResetBefore))
        .unwrap();
    plant
        .emulator
        .inject(Fault::on("individual.put", Action::ResetAfter))
        .unwrap();
    let press = record("press-7");
    assert!(is_cut(&plant, "/enrollments/press-7", &press).await);
    assert!(plant.emulator.individual("press-7").is_none());
    assert!(is_cut(&plant, "/enrollments/press-7", &press).await);
    assert!(plant.emulator.individual("press-7").is_some());
    let puts = plant.emulator.requests_of("individual.put");
    let faults: Vec<_> = puts.iter().map(|put| (put.fault, put.status)).collect();
    assert_eq!(
        faults,
        [(Some("reset_before"), None), (Some("reset_after"), None)]
    );
}

/// A 404 of a proxy at one of two hubs: its page as it is, an empty body, or another code.
#[tokio::test]
async fn a_404_may_be_a_strangers() {
    let hubs = ["one", "two"].map(|hub| format!("{hub}.azure-devices.net"));
    let plant = Plant::start_with(|options| options.linked_hubs = hubs.to_vec());
    let delete = async |hub: &str| {
        let request = plant.hub_named(hub, reqwest::Method::DELETE, "/devices/press-7");
        let answer = request.header("If-Match", "\"*\"").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 404);
        let header = |name| {
            answer
                .headers()
                .get(name)
                .map(|it| it.to_str().unwrap().to_owned())
        };
        let shown = (header("iothub-errorcode"), header("content-type"));
        (shown, answer.text().await.unwrap())
    };
    for action in [
        Action::foreign(404, "<html>404</html>"),
        Action::foreign(404, ""),
        Action::of_hub(404, "IotHubNotFound", "IoTHub one not found"),
    ] {
        let fault = Fault::on("identity.delete", action).at_host(&hubs[0]);
        plant.emulator.inject(fault).unwrap();
    }
    let html = Some("text/html".to_owned());
    assert_eq!(
        delete(&hubs[0]).await,
        ((None, html.clone()), "<html>404</html>".to_owned())
    );
    let ((code, _), _) = delete(&hubs[1]).await;
    assert_eq!(code.as_deref(), Some("DeviceNotFound"));
    assert_eq!(delete(&hubs[0]).await, ((None, html), String::new()));
    let ((code, _), body) = delete(&hubs[0]).await;
    assert_eq!(code.as_deref(), Some("IotHubNotFound"));
    assert!(body.contains("ErrorCode:IotHubNotFound;IoTHub one not found"));
}

/// Throttled twice, after one request that passes; the plane's own body, and the header.
#[tokio::test]
async fn a_status_can_be_asked_for() {
    let plant = Plant::start();
    let fault = Fault::on("individual.get", Action::throttle(7))
        .after(1)
        .times(2);
    plant.emulator.inject(fault).unwrap();
    plant.get("/enrollments/a").await.expect(404);
    for _ in 0..2 {
        let answer = plant.get("/enrollments/a").await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (429, Some("7"))
        );
    }
    plant.get("/enrollments/a").await.expect(404);
    let counts = plant.emulator.counters()["individual.get"];
    assert_eq!((counts.total, counts.refused), (4, 4));
    assert!(plant.emulator.faults().is_empty());
}

#[tokio::test]
async fn a_body_can_end_too_soon() {
    let plant = Plant::start();
    plant
        .emulator
        .inject(Fault::on("individual.put", Action::Truncate))
        .unwrap();
    let request = plant
        .service(reqwest::Method::PUT, "/enrollments/press-7")
        .json(&record("press-7"));
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert!(response.text().await.is_err());
    assert!(plant.emulator.individual("press-7").is_some());
}

#[tokio::test]
async fn a_request_can_hang() {
    let plant = Plant::start();
    plant
        .emulator
        .inject(Fault::on("individual.get", Action::Hang))
        .unwrap();
    let request = plant.service(reqwest::Method::GET, "/enrollments/a");
    let request = request.timeout(std::time::Duration::from_millis(200));
    assert!(request.send().await.unwrap_err().is_timeout());
    assert_eq!(plant.emulator.requests()[0].status, None);
}

/// Another client edits the record in the moment of a PUT: the ETag that was read is stale.
#[tokio::test]
async fn a_record_can_change_behind_the_clients_back() {
    let plant = Plant::start();
    let read = plant
        .put("/enrollments/press-7", None, &record("press-7"))
        .await
        .expect(200);
    let merge = Map::from_iter([("provisioningStatus".to_owned(), json!("disabled"))]);
    let edit = Action::Edit {
        record: Kind::Individual,
        id: "press-7".to_owned(),
        merge,
    };
    plant
        .emulator
        .inject(Fault::on("individual.put", edit))
        .unwrap();
    let stale = plant
        .put("/enrollments/press-7", read["etag"].as_str(), &read)
        .await;
    assert_eq!(stale.error_code(), 412_001);
    let now = plant.emulator.individual("press-7").unwrap();
    assert_eq!(now["provisioningStatus"], "disabled");
    let slot = "/attestation/x509/clientCertificates/primary/info/sha256Thumbprint";
    assert_eq!(now.pointer(slot), read.pointer(slot));
}

#[tokio::test]
async fn the_rate_limit_can_be_switched_on() {
    let quotas = Quotas {
        service_operations_a_minute: Some(2),
        ..Quotas::default()
    };
    let plant = Plant::start_with(|options| options.switches.quotas = quotas);
    plant.get("/enrollments/a").await.expect(404);
    plant.get("/enrollments/a").await.expect(404);
    let throttled = plant.get("/enrollments/a").await;
    assert_eq!(throttled.error_code(), 429_001);
    assert!(
        throttled
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 50
    );
}

/// A start that fails half-way, inside a runtime that forbids blocking, is an error and no panic.
#[tokio::test]
async fn a_taken_port_is_an_error() {
    let plant = Plant::start();
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path());
    options.control_listen = plant.emulator.addr();
    let error = Emulator::start(options).unwrap_err();
    assert!(
        error.to_string().starts_with("listen for control"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_can_be_late() {
    let plant = Plant::start();
    let late = Action::Latency { milliseconds: 150 };
    plant
        .emulator
        .inject(Fault::on("individual.get", late))
        .unwrap();
    let start = std::time::Instant::now();
    plant.get("/enrollments/a").await.expect(404);
    assert!(start.elapsed().as_millis() >= 150);
}

/// The control address does what the library does.
#[tokio::test]
async fn the_control_address_interferes_too() {
    let plant = Plant::start();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("{}{path}", plant.emulator.control_url());
    let fault =
        json!({ "aim": { "plane": "service" }, "action": { "kind": "status", "status": 500 } });
    let added = http.post(url("/faults")).json(&fault).send().await.unwrap();
    assert_eq!(added.status().as_u16(), 204);
    assert_eq!(plant.get("/enrollments/a").await.error_code(), 500_000);

    let clock = json!({ "at": "2030-01-01T00:00:00Z", "stopped": true });
    let set: Value = http
        .put(url("/clock"))
        .json(&clock)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(set["now"], "2030-01-01T00:00:00Z");
    let nonsense = http
        .put(url("/clock"))
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(nonsense.status().as_u16(), 400);
    let created = plant
        .put("/enrollments/press-7", None, &record("press-7"))
        .await
        .expect(200);
    assert_eq!(
        created["createdDateTimeUtc"],
        "2030-01-01T00:00:00.0000000Z"
    );

    let edit = http
        .post(url("/records/individual/press-7"))
        .json(&json!({ "deviceId": "x" }));
    let edited: Value = edit.send().await.unwrap().json().await.unwrap();
    assert_ne!(edited["etag"], created["etag"]);
    let log: Value = http
        .get(url("/requests?since=1"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(log[0]["operation"], "individual.put");
    assert_eq!(log[0]["body"]["registrationId"], "press-7");
    let switched = http
        .put(url("/switches"))
        .json(&json!({ "assigning_polls": 4 }));
    let switched: Value = switched.send().await.unwrap().json().await.unwrap();
    assert_eq!(switched["assigning_polls"], 4);
    let answer = json!({ "status": 200 });
    for (device, status) in [("press-7", 204), ("press%207", 400)] {
        let simulate = http.put(url(&format!("/devices/{device}"))).json(&answer);
        assert_eq!(simulate.send().await.unwrap().status().as_u16(), status);
    }
    let world: Value = http
        .get(url("/world"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(world["enrollments"][0]["deviceId"], "x");
}

/// With a state file records, registrations, hub, keys and operations are the same after a restart.
#[tokio::test]
async fn the_state_survives_a_restart() {
    let kept = tempfile::tempdir().unwrap();
    let state = kept.path().join("state.json");
    let start = || Plant::start_with(|options| options.state = Some(state.clone()));
    let leaf = pki::leaf("press-7", None);
    let body = json!({ "registrationId": "press-7", "attestation": { "type": "x509", "x509": {
        "clientCertificates": { "primary": { "certificate": leaf.pem } } } } });
    let before = start();
    before
        .put("/enrollments/press-7", None, &body)
        .await
        .expect(200);
    before.device("press-7", &[&leaf]).register().await.unwrap();
    let (world, connection) = (
        before.emulator.world(),
        before.emulator.service_connection_string(),
    );
    drop(before);

    let after = start();
    assert_eq!(after.emulator.world(), world);
    assert_eq!(after.emulator.service_connection_string(), connection);
    after.device("press-7", &[&leaf]).register().await.unwrap();
}
