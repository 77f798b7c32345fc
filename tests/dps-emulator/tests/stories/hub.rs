//! Direct methods and jobs, by which devices are called to register again (contract section 12).

use std::time::Duration;

use dps_emulator::MethodAnswer;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Plant};

async fn send(plant: &Plant, method: Method, path: &str, body: Value) -> Answer {
    let mut request = plant.hub(method, path);
    if !body.is_null() {
        request = request.json(&body);
    }
    Answer::read(request.send().await.unwrap()).await
}

async fn add_identity(plant: &Plant, id: &str) {
    let body = json!({ "deviceId": id, "authentication": { "type": "selfSigned" } });
    send(plant, Method::PUT, &format!("/devices/{id}"), body)
        .await
        .expect(200);
}

fn reregister() -> Value {
    json!({
        "methodName": "reregister",
        "payload": { "reason": "roll" },
        "responseTimeoutInSeconds": 5,
    })
}

#[tokio::test]
async fn an_identity_is_created_changed_and_not_twice() {
    let plant = Plant::start();
    add_identity(&plant, "press-7").await;
    let body = json!({ "deviceId": "press-7", "status": "disabled" });
    let again = send(&plant, Method::PUT, "/devices/press-7", body.clone()).await;
    assert_eq!(
        (again.status, again.header("iothub-errorcode")),
        (409, Some("DeviceAlreadyExists"))
    );
    let request = plant
        .hub(Method::PUT, "/devices/press-7")
        .header("If-Match", "\"*\"")
        .json(&body);
    let changed = Answer::read(request.send().await.unwrap())
        .await
        .expect(200);
    assert_eq!(changed["status"], "disabled");
    assert_eq!(changed["authentication"]["type"], "selfSigned");
}

/// A method reaches a device that is online; else the answer has the reason.
#[tokio::test]
async fn a_method_reaches_a_device_that_is_online() {
    let plant = Plant::start();
    let call = async || send(&plant, Method::POST, "/twins/press-7/methods", reregister()).await;
    let unknown = call().await;
    assert_eq!(
        (unknown.status, unknown.header("iothub-errorcode")),
        (404, Some("DeviceNotFound"))
    );
    add_identity(&plant, "press-7").await;
    let offline = call().await;
    assert_eq!(
        (offline.status, offline.header("iothub-errorcode")),
        (404, Some("DeviceNotOnline"))
    );
    let answer = MethodAnswer {
        status: 202,
        payload: json!({ "ok": true }),
    };
    plant.emulator.simulate_device("press-7", answer);
    assert_eq!(
        call().await.expect(200),
        json!({ "status": 202, "payload": { "ok": true } })
    );
    plant.emulator.forget_device("press-7");
    assert_eq!(call().await.status, 404);
    let wild = json!({ "methodName": "a/#" });
    assert_eq!(
        send(&plant, Method::POST, "/twins/press-7/methods", wild)
            .await
            .status,
        400
    );
}

async fn job_at_its_end(plant: &Plant, id: &str) -> Value {
    for _ in 0..100 {
        let job = send(plant, Method::GET, &format!("/jobs/v2/{id}"), Value::Null)
            .await
            .expect(200);
        if job["status"] != "queued" && job["status"] != "running" {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the job did not end");
}

async fn devices_of_job(plant: &Plant, id: &str) -> Value {
    let text = format!("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{id}'");
    send(
        plant,
        Method::POST,
        "/devices/query",
        json!({ "query": text }),
    )
    .await
    .expect(200)
}

/// A job calls the devices that its condition names, online or not, at its time, which the clock
/// makes come; it can be cancelled before.
#[tokio::test]
async fn a_job_calls_its_devices_in_time() {
    let plant = Plant::start();
    for id in ["press-7", "press-8", "press-9"] {
        add_identity(&plant, id).await;
    }
    plant.emulator.simulate_device(
        "press-7",
        MethodAnswer {
            status: 200,
            payload: Value::Null,
        },
    );
    let job = |id: &str, start: &str| {
        json!({ "jobId": id, "type": "scheduleDeviceMethod", "startTime": start,
            "cloudToDeviceMethod": reregister(), "maxExecutionTimeInSeconds": 60,
            "queryCondition": "deviceId IN ['press-7', 'press-8']" })
    };
    let now = send(
        &plant,
        Method::PUT,
        "/jobs/v2/now",
        job("now", "2020-01-01T00:00:00Z"),
    )
    .await;
    assert_eq!(now.expect(200)["jobId"], "now");
    let done = job_at_its_end(&plant, "now").await;
    assert_eq!(done["status"], "completed");
    let counts = &done["deviceJobStatistics"];
    assert_eq!(
        (
            &counts["deviceCount"],
            &counts["succeededCount"],
            &counts["failedCount"]
        ),
        (&json!(2), &json!(1), &json!(1))
    );
    let results = devices_of_job(&plant, "now").await;
    assert_eq!(results[0]["deviceId"], "press-7");
    assert_eq!(results[0]["status"], "completed");
    let answer = &results[0]["outcome"]["deviceMethodResponse"];
    assert_eq!(answer["status"], 200);
    assert_eq!(results[1]["status"], "failed");
    assert_eq!(results[1]["error"]["code"], "DeviceNotOnline");
    assert_eq!(results.as_array().unwrap().len(), 2);
    plant.emulator.switch(|it| it.job_results_late = true);
    assert_eq!(devices_of_job(&plant, "now").await, json!([]));
    plant.emulator.switch(|it| it.job_results_late = false);

    for id in ["later", "never"] {
        let path = format!("/jobs/v2/{id}");
        send(&plant, Method::PUT, &path, job(id, "2100-01-01T00:00:00Z"))
            .await
            .expect(200);
    }
    send(&plant, Method::POST, "/jobs/v2/never/cancel", Value::Null)
        .await
        .expect(200);
    let waiting = send(&plant, Method::GET, "/jobs/v2/later", Value::Null)
        .await
        .expect(200);
    assert_eq!(waiting["status"], "queued");
    plant.emulator.clock().advance(time::Duration::days(36_500));
    assert_eq!(job_at_its_end(&plant, "later").await["status"], "completed");
    assert_eq!(job_at_its_end(&plant, "never").await["status"], "cancelled");
    assert_eq!(
        devices_of_job(&plant, "never").await[0]["status"],
        "canceled"
    );
    let all = send(&plant, Method::GET, "/jobs/v2/query", Value::Null)
        .await
        .expect(200);
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!(
        send(&plant, Method::PUT, "/jobs/v2/now", job("now", ""))
            .await
            .status,
        409
    );
}
