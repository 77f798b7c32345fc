//! The service plane: versions, slots, queries, bulk (contract sections 2 to 8).

use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::client::{Answer, Plant, token, token_until};
use crate::pki::{self, Made};

fn individual(id: &str, primary: &Made) -> Value {
    json!({
        "registrationId": id,
        "attestation": { "type": "x509", "x509": { "clientCertificates": {
            "primary": { "certificate": primary.pem } } } },
    })
}

fn group(id: &str, primary: &Made) -> Value {
    json!({
        "enrollmentGroupId": id,
        "attestation": { "type": "x509", "x509": { "signingCertificates": {
            "primary": { "certificate": primary.pem } } } },
    })
}

/// Created; read back with `info` in place of the certificate; not created twice; changed with the
/// right ETag, with `*`, not with a stale one; deleted; gone.
#[tokio::test]
async fn a_record_lives_by_its_etag() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    let path = "/enrollments/press-7";

    let created = plant
        .put(path, None, &individual("press-7", &leaf))
        .await
        .expect(200);
    let etag = created["etag"].as_str().unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    assert_eq!(created["provisioningStatus"], "enabled");
    assert_eq!(created["reprovisionPolicy"]["migrateDeviceData"], true);
    assert_eq!(created["registrationState"]["status"], "unassigned");
    let slot = &created["attestation"]["x509"]["clientCertificates"]["primary"];
    assert_eq!(slot["certificate"], Value::Null);
    assert_eq!(slot["info"]["sha256Thumbprint"], leaf.sha256());
    assert_eq!(slot["info"]["subjectName"], "CN=press-7, O=Factory");
    assert_eq!(slot["info"]["version"], 3);

    let again = plant.put(path, None, &individual("press-7", &leaf)).await;
    assert_eq!(again.error_code(), 409_201);

    let changed = plant
        .put(path, Some(&etag), &individual("press-7", &leaf))
        .await
        .expect(200);
    assert_ne!(changed["etag"], created["etag"]);
    assert_eq!(changed["createdDateTimeUtc"], created["createdDateTimeUtc"]);
    let stale = plant
        .put(path, Some(&etag), &individual("press-7", &leaf))
        .await;
    assert_eq!(stale.error_code(), 412_001);
    plant
        .put(path, Some("*"), &individual("press-7", &leaf))
        .await
        .expect(200);
    plant
        .put(path, Some("unquoted"), &individual("press-7", &leaf))
        .await
        .expect(400);

    assert_eq!(plant.delete(path, Some(&etag)).await.error_code(), 412_001);
    plant.delete(path, None).await.expect(204);
    assert_eq!(plant.get(path).await.error_code(), 404_201);
    assert_eq!(
        plant.get("/enrollmentGroups/none").await.error_code(),
        404_204
    );
    assert_eq!(
        plant.get("/registrations/press-7").await.error_code(),
        404_202
    );
}

/// A slot that comes back with its info only keeps its certificate, also in the other slot; a slot
/// that is left out is emptied; what is left out of the record is reset; unknown members stay.
#[tokio::test]
async fn slots_are_rolled_by_what_was_read() {
    let plant = Plant::start();
    let (old, new) = (pki::leaf("press-7", None), pki::leaf("press-7", None));
    let path = "/enrollments/press-7";
    let mut record = individual("press-7", &old);
    record["deviceId"] = json!("line-4");
    record["somethingNew"] = json!({ "a": [1] });
    let mut read = plant.put(path, None, &record).await.expect(200);
    assert_eq!(read["somethingNew"], json!({ "a": [1] }));

    let slots = "/attestation/x509/clientCertificates";
    read.pointer_mut(slots).unwrap()["secondary"] = json!({ "certificate": new.pem });
    let etag = read["etag"].as_str().unwrap().to_owned();
    let mut both = plant.put(path, Some(&etag), &read).await.expect(200);
    let thumbprint = |record: &Value, slot: &str| {
        record
            .pointer(&format!("{slots}/{slot}/info/sha256Thumbprint"))
            .cloned()
    };
    assert_eq!(thumbprint(&both, "primary"), Some(json!(old.sha256())));
    assert_eq!(thumbprint(&both, "secondary"), Some(json!(new.sha256())));

    let held = both.pointer_mut(slots).unwrap();
    *held = json!({ "primary": held["secondary"] });
    both.as_object_mut().unwrap().remove("deviceId");
    let moved = plant.put(path, Some("*"), &both).await.expect(200);
    assert_eq!(thumbprint(&moved, "primary"), Some(json!(new.sha256())));
    assert_eq!(thumbprint(&moved, "secondary"), None);
    assert_eq!(moved["deviceId"], Value::Null);

    let mut forged = moved.clone();
    forged.pointer_mut(slots).unwrap()["primary"]["info"]["sha256Thumbprint"] = json!("AB");
    plant.put(path, Some("*"), &forged).await.expect(400);
}

#[tokio::test]
async fn one_certificate_is_in_one_entry() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    let mut twice = individual("press-7", &leaf);
    let slots = &mut twice["attestation"]["x509"]["clientCertificates"];
    slots["secondary"] = slots["primary"].clone();
    plant
        .put("/enrollments/press-7", None, &twice)
        .await
        .expect(200);
    let other = plant
        .put("/enrollments/press-8", None, &individual("press-8", &leaf))
        .await;
    assert_eq!(other.status, 409);
    plant
        .emulator
        .switch(|switches| switches.certificate_in_one_entry = false);
    plant
        .put("/enrollments/press-8", None, &individual("press-8", &leaf))
        .await
        .expect(200);
}

/// The quota counts groups that exist, not writes to them.
#[tokio::test]
async fn groups_have_a_quota() {
    let plant = Plant::start_with(|options| {
        let quotas = &mut options.switches.quotas;
        quotas.groups = Some(1);
    });
    let roots = [0, 1].map(|_| pki::authority("root", None));
    for _ in 0..2 {
        let record = group("one", &roots[0]);
        plant
            .put("/enrollmentGroups/one", Some("*"), &record)
            .await
            .expect(200);
    }
    plant
        .put("/enrollmentGroups/two", None, &group("two", &roots[1]))
        .await
        .expect(400);
    plant
        .delete("/enrollmentGroups/one", None)
        .await
        .expect(204);
    plant
        .put("/enrollmentGroups/two", None, &group("two", &roots[1]))
        .await
        .expect(200);
}

/// SDKs write paths and ids in their own ways.
#[tokio::test]
async fn the_routing_quirks_of_the_sdks_are_tolerated() {
    let plant = Plant::start();
    let root = pki::authority("root", None);
    plant
        .put("/enrollmentGroups/Line-4", None, &group("Line-4", &root))
        .await
        .expect(200);
    plant.get("/enrollmentgroups/line-4").await.expect(200);
    let shown = plant
        .post(
            "/enrollmentgroups/line-4/attestationmechanism",
            &Value::Null,
        )
        .await;
    let slot = shown.expect(200)["x509"]["signingCertificates"]["primary"].clone();
    assert_eq!(slot["info"]["sha1Thumbprint"].as_str().unwrap().len(), 40);
    let leaf = pki::leaf("a:b", None);
    plant
        .put("/enrollments/a%3Ab", None, &individual("a:b", &leaf))
        .await
        .expect(200);
    let bulk = json!({ "mode": "delete", "enrollments": [{ "registrationId": "a:b" }] });
    assert_eq!(
        plant.post("/enrollments/", &bulk).await.expect(200)["isSuccessful"],
        true
    );
}

#[tokio::test]
async fn records_that_make_no_sense_are_refused() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    let good = individual("press-7", &leaf);
    let with = |pointer: &str, value: Value| {
        let mut record = good.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        record.pointer_mut(parent).unwrap()[member] = value;
        record
    };
    let bad = [
        with("/registrationId", json!("other")),
        with("/attestation", Value::Null),
        with("/attestation/type", json!("smartcard")),
        with("/attestation/x509/clientCertificates", json!({})),
        with(
            "/attestation/x509/signingCertificates",
            json!({ "primary": { "certificate": leaf.pem } }),
        ),
        with(
            "/attestation/x509/clientCertificates/primary/certificate",
            json!("no certificate"),
        ),
        with("/iotHubs", json!(["elsewhere.azure-devices.net"])),
        with("/provisioningStatus", json!("perhaps")),
        with("/allocationPolicy", json!("custom")),
        with(
            "/reprovisionPolicy",
            json!({ "updateHubAssignment": "yes" }),
        ),
        with("/deviceId", json!("no spaces")),
        json!([]),
    ];
    for record in bad {
        let answer = plant.put("/enrollments/press-7", None, &record).await;
        assert_eq!(answer.status, 400, "{record}");
    }
    let named = individual("press 7", &leaf);
    assert_eq!(
        plant
            .put("/enrollments/press%207", None, &named)
            .await
            .error_code(),
        400_004
    );
    let absent = json!({ "enrollmentGroupId": "g", "attestation": { "type": "x509",
        "x509": { "caReferences": { "primary": "nowhere" } } } });
    plant
        .put("/enrollmentGroups/g", None, &absent)
        .await
        .expect(400);
}

#[tokio::test]
async fn queries_go_page_by_page() {
    let plant = Plant::start();
    for n in 0..5 {
        let id = format!("press-{n}");
        let record = individual(&id, &pki::leaf(&id, None));
        plant
            .put(&format!("/enrollments/{id}"), None, &record)
            .await
            .expect(200);
    }
    let query = json!({ "query": "SELECT * FROM enrollments" });
    let mut seen = Vec::new();
    let mut continuation: Option<String> = None;
    loop {
        let mut request = plant
            .service(Method::POST, "/enrollments/query")
            .header("x-ms-max-item-count", "2")
            .json(&query);
        if let Some(token) = &continuation {
            request = request.header("x-ms-continuation", token);
        }
        let page = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(page.header("x-ms-item-type"), Some("enrollment"));
        let items = page.body.as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(
            items
                .iter()
                .map(|item| item["registrationId"].as_str().unwrap().to_owned()),
        );
        continuation = page.header("x-ms-continuation").map(str::to_owned);
        if continuation.is_none() {
            break;
        }
    }
    assert_eq!(
        seen,
        ["press-0", "press-1", "press-2", "press-3", "press-4"]
    );
    let filtered = json!({ "query": "SELECT * FROM enrollments WHERE deviceId='a'" });
    plant
        .post("/enrollments/query", &filtered)
        .await
        .expect(400);
    plant
        .post("/enrollmentGroups/query", &query)
        .await
        .expect(200);
}

/// Bulk items fail one by one, in all four modes; an eleventh item fails them all.
#[tokio::test]
async fn bulk_items_fail_one_by_one() {
    let plant = Plant::start();
    let leaves: Vec<Made> = (0..11)
        .map(|n| pki::leaf(&format!("press-{n}"), None))
        .collect();
    let record = |n: usize| individual(&format!("press-{n}"), &leaves[n]);
    plant
        .put("/enrollments/press-0", None, &record(0))
        .await
        .expect(200);
    let bulk = |mode: &str, records: Vec<Value>| json!({ "mode": mode, "enrollments": records });

    let two = plant
        .post("/enrollments", &bulk("create", vec![record(0), record(1)]))
        .await;
    let result = two.expect(200);
    assert_eq!(result["isSuccessful"], false);
    assert_eq!(result["errors"].as_array().unwrap().len(), 1);
    assert_eq!(result["errors"][0]["registrationId"], "press-0");
    assert_eq!(result["errors"][0]["errorCode"], 409_201);

    let missing = plant
        .post("/enrollments", &bulk("update", vec![record(0), record(2)]))
        .await;
    assert_eq!(missing.expect(200)["errors"][0]["errorCode"], 404_201);

    let mut read = plant.get("/enrollments/press-0").await.expect(200);
    let fresh = bulk("updateIfMatchEtag", vec![read.clone()]);
    assert_eq!(
        plant.post("/enrollments", &fresh).await.expect(200)["isSuccessful"],
        true
    );
    read["etag"] = json!("\"stale\"");
    let stale = plant
        .post("/enrollments", &bulk("updateIfMatchETag", vec![read]))
        .await;
    assert_eq!(stale.expect(200)["errors"][0]["errorCode"], 412_001);

    let eleven: Vec<Value> = (0..11).map(record).collect();
    plant
        .post("/enrollments", &bulk("create", eleven))
        .await
        .expect(400);
    plant
        .emulator
        .switch(|switches| switches.bulk_lists_successes = true);
    let last = plant
        .post("/enrollments", &bulk("delete", vec![record(0), record(1)]))
        .await;
    assert_eq!(last.expect(200)["errors"][1]["errorCode"], 200);
    assert!(
        plant
            .emulator
            .records(dps_emulator::Kind::Individual)
            .is_empty()
    );
}

#[tokio::test]
async fn without_a_good_token_there_is_no_answer() {
    let plant = Plant::start();
    let url = plant.url(
        plant.emulator.service_host(),
        "/enrollments/a?api-version=2021-10-01",
    );
    let own = plant.emulator.service_connection_string();
    let hubs = plant.emulator.hub_connection_string();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for token in [
        token_until(&own, now - 1),
        token_until(&hubs, now + 3600),
        String::new(),
    ] {
        let request = plant.http().get(&url).header("Authorization", token);
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.error_code(), 401_000);
    }
}

#[tokio::test]
async fn an_unknown_api_version_is_refused() {
    let plant = Plant::start();
    for query in ["", "?api-version=1999-01-01"] {
        let url = plant.url(
            plant.emulator.service_host(),
            &format!("/enrollments/a{query}"),
        );
        let token = token(&plant.emulator.service_connection_string());
        let request = plant.http().get(url).header("Authorization", token);
        assert_eq!(
            Answer::read(request.send().await.unwrap()).await.status,
            400
        );
    }
}
