//! CA certificates and their proof of possession (contract section 11).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::Quotas;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Plant};
use crate::pki::{self, Made};

async fn call(
    plant: &Plant,
    method: Method,
    path: &str,
    if_match: Option<&str>,
    body: Value,
) -> Answer {
    let mut request = plant.arm(method, &format!("/certificates{path}"));
    if let Some(etag) = if_match {
        request = request.header("If-Match", etag);
    }
    if !body.is_null() {
        request = request.json(&body);
    }
    Answer::read(request.send().await.unwrap()).await
}

fn upload(authority: &Made) -> Value {
    json!({ "properties": { "certificate": STANDARD.encode(&authority.der) } })
}

fn etag(answer: &Value) -> String {
    answer["etag"].as_str().unwrap().to_owned()
}

/// Upload, code, proof: each step with the ETag of the one before, each changing it. A proof by
/// another key, and a proof of another code, prove nothing.
#[tokio::test]
async fn possession_is_proven_step_by_step() {
    let plant = Plant::start();
    let root = pki::authority("Factory Root", None);
    let made = call(&plant, Method::PUT, "/root-1", None, upload(&root))
        .await
        .expect(200);
    assert_eq!(made["properties"]["isVerified"], false);
    assert_eq!(made["properties"]["subject"], "Factory Root");
    assert!(
        made["properties"]["expiry"]
            .as_str()
            .unwrap()
            .ends_with(" GMT")
    );

    let code_path = "/root-1/generateVerificationCode";
    call(&plant, Method::POST, code_path, None, Value::Null)
        .await
        .expect(412);
    let quoted = format!("\"{}\"", etag(&made));
    let coded = call(&plant, Method::POST, code_path, Some(&quoted), Value::Null)
        .await
        .expect(200);
    assert_ne!(etag(&coded), etag(&made));
    let code = coded["properties"]["verificationCode"]
        .as_str()
        .unwrap()
        .to_owned();

    let impostor = pki::authority("Factory Root", None);
    for wrong in [
        pki::leaf(&code, Some(&impostor)),
        pki::leaf("0000", Some(&root)),
    ] {
        let proof = json!({ "certificate": wrong.pem });
        let refused = call(
            &plant,
            Method::POST,
            "/root-1/verify",
            Some(&etag(&coded)),
            proof,
        )
        .await;
        assert!(
            refused.expect(400)["message"]
                .as_str()
                .unwrap()
                .starts_with("Proof-Of-Possession")
        );
    }
    let proof = json!({ "certificate": pki::leaf(&code, Some(&root)).pem });
    let stale = call(
        &plant,
        Method::POST,
        "/root-1/verify",
        Some(&etag(&made)),
        proof.clone(),
    )
    .await;
    assert_eq!(stale.status, 412);
    let verified = call(
        &plant,
        Method::POST,
        "/root-1/verify",
        Some(&etag(&coded)),
        proof,
    )
    .await;
    let verified = verified.expect(200);
    assert_eq!(verified["properties"]["isVerified"], true);
    assert_ne!(etag(&verified), etag(&coded));

    let listed = call(&plant, Method::GET, "", None, Value::Null)
        .await
        .expect(200);
    assert_eq!(listed["value"][0]["name"], "root-1");
    call(
        &plant,
        Method::DELETE,
        "/root-1",
        Some(&etag(&verified)),
        Value::Null,
    )
    .await
    .expect(200);
    call(&plant, Method::DELETE, "/root-1", Some("*"), Value::Null)
        .await
        .expect(204);
    call(&plant, Method::GET, "/root-1", None, Value::Null)
        .await
        .expect(404);
}

/// Another certificate under the same name has to be proven again, and needs If-Match.
#[tokio::test]
async fn a_replaced_certificate_is_unverified() {
    let plant = Plant::start();
    plant
        .upload_verified("root", &pki::authority("root", None))
        .await;
    let new = pki::authority("root", None);
    call(&plant, Method::PUT, "/root", None, upload(&new))
        .await
        .expect(412);
    let replaced = call(&plant, Method::PUT, "/root", Some("*"), upload(&new))
        .await
        .expect(200);
    assert_eq!(replaced["properties"]["isVerified"], false);
}

#[tokio::test]
async fn quotas_can_be_switched_on() {
    let plant = Plant::start_with(|options| {
        options.switches.quotas = Quotas {
            authorities: Some(1),
            ..Quotas::default()
        }
    });
    let (one, two) = (pki::authority("one", None), pki::authority("two", None));
    call(&plant, Method::PUT, "/one", None, upload(&one))
        .await
        .expect(200);
    call(&plant, Method::PUT, "/two", None, upload(&two))
        .await
        .expect(400);
    plant
        .emulator
        .switch(|switches| switches.quotas = Quotas::default());
    call(&plant, Method::PUT, "/two", None, upload(&two))
        .await
        .expect(200);
}

#[tokio::test]
async fn the_resource_tells_scope_and_hosts() {
    let plant = Plant::start();
    let answer = Answer::read(plant.arm(Method::GET, "").send().await.unwrap())
        .await
        .expect(200);
    assert_eq!(answer["properties"]["idScope"], plant.emulator.id_scope());
    assert_eq!(
        answer["properties"]["serviceOperationsHostName"],
        plant.emulator.service_host()
    );
    let request = plant.arm(Method::GET, "").bearer_auth("somebody");
    let url = request.build().unwrap().url().clone();
    let refused = plant
        .http()
        .get(url)
        .bearer_auth("somebody")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status().as_u16(), 401);
}
