//! Devices over MQTT, with a client library that is not ours (contract sections 9 and 12).

use std::sync::Arc;
use std::time::Duration;

use dps_emulator::{Action, Fault, MethodAnswer};
use reqwest::Method;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Packet,
    PublishOptions, QoS, TlsConfiguration, Transport,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::{Answer, Plant};
use crate::pki::{self, Made};

const PATIENCE: Duration = Duration::from_secs(5);

/// An MQTT client with a client certificate.
struct Wire {
    client: AsyncClient,
    events: EventLoop,
}

impl Wire {
    fn new(plant: &Plant, id: &str, user: &str, chain: &[&Made]) -> Self {
        let mut options = MqttOptions::new(id, ("localhost", plant.emulator.mqtt_addr().port()));
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls(
            plant, chain,
        )))));
        options.set_credentials(user, "");
        let (client, events) = AsyncClient::builder(options).capacity(10).build();
        Self { client, events }
    }

    fn registering(plant: &Plant, id: &str, chain: &[&Made]) -> Self {
        let scope = plant.emulator.id_scope();
        let user =
            format!("{scope}/registrations/{id}/api-version=2019-03-31&ClientVersion=stories%2F1");
        Self::new(plant, id, &user, chain)
    }

    fn at_the_hub(plant: &Plant, id: &str, chain: &[&Made]) -> Self {
        let user = format!("{}/{id}/?api-version=2020-09-30", plant.emulator.hub_host());
        Self::new(plant, id, &user, chain)
    }

    async fn subscribe(&mut self, topic: &str) {
        self.client
            .subscribe(topic, QoS::AtLeastOnce)
            .await
            .unwrap();
        while !matches!(self.next().await.unwrap(), Packet::SubAck(_)) {}
    }

    async fn say(&self, topic: &str, body: &str) {
        self.client
            .publish(topic, body.to_owned(), PublishOptions::at_least_once())
            .await
            .unwrap();
    }

    /// The next packet that comes in.
    async fn next(&mut self) -> Result<Packet, ConnectionError> {
        loop {
            let event = timeout(PATIENCE, self.events.poll())
                .await
                .expect("nothing came");
            if let Event::Incoming(packet) = event? {
                return Ok(packet);
            }
        }
    }

    /// The next message: its topic and its body.
    async fn hear(&mut self) -> (String, Value) {
        loop {
            if let Packet::Publish(publish) = self.next().await.unwrap() {
                let body = serde_json::from_slice(&publish.payload).unwrap();
                let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                return (topic, body);
            }
        }
    }

    async fn register(&mut self, id: &str) -> (String, Value) {
        let body = json!({ "registrationId": id, "payload": null }).to_string();
        self.say("$dps/registrations/PUT/iotdps-register/?$rid=1", &body)
            .await;
        self.hear().await
    }

    async fn poll(&mut self, operation: &str) -> (String, Value) {
        let topic = format!(
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId={operation}"
        );
        self.say(&topic, " ").await;
        self.hear().await
    }
}

fn tls(plant: &Plant, chain: &[&Made]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(plant.emulator.ca_file()).unwrap())
        .unwrap();
    let certificates = chain
        .iter()
        .map(|made| CertificateDer::from(made.der.clone()))
        .collect();
    let key = PrivateKeyDer::from_pem_slice(chain[0].key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, key)
        .unwrap()
}

async fn enroll(plant: &Plant, id: &str, leaf: &Made) {
    let record = json!({ "registrationId": id, "attestation": { "type": "x509", "x509": {
        "clientCertificates": { "primary": { "certificate": leaf.pem } } } } });
    plant
        .put(&format!("/enrollments/{id}"), Some("*"), &record)
        .await
        .expect(200);
}

const ANSWERS: &str = "$dps/registrations/res/#";

/// Register, wait, poll, be assigned; then connect to the hub with the same certificate.
#[tokio::test]
async fn a_device_registers_and_connects() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    enroll(&plant, "press-7", &leaf).await;
    plant
        .emulator
        .switch(|switches| switches.retry_after_seconds = 3);
    let mut device = Wire::registering(&plant, "press-7", &[&leaf]);
    device.subscribe(ANSWERS).await;
    let (topic, body) = device.register("press-7").await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=1&retry-after=3");
    assert_eq!(body["status"], "assigning");
    let (topic, body) = device.poll(body["operationId"].as_str().unwrap()).await;
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=2");
    assert_eq!(body["status"], "assigned");
    assert_eq!(
        body["registrationState"]["assignedHub"],
        plant.emulator.hub_host()
    );
    let logged = plant.emulator.requests_of("device.register");
    assert_eq!((logged[0].transport, logged[0].status), ("MQTT", Some(202)));

    let mut at_hub = Wire::at_the_hub(&plant, "press-7", &[&leaf]);
    assert!(matches!(at_hub.next().await.unwrap(), Packet::ConnAck(_)));
}

/// The refusal is an answer with its JSON, not a refused connection.
#[tokio::test]
async fn a_refusal_comes_as_an_answer() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    enroll(&plant, "press-7", &pki::leaf("press-7", None)).await;
    let mut device = Wire::registering(&plant, "press-7", &[&leaf]);
    device.subscribe(ANSWERS).await;
    let (topic, body) = device.register("press-7").await;
    assert_eq!(topic, "$dps/registrations/res/401/?$rid=1");
    assert_eq!(body["errorCode"], 401_002);
    assert_eq!(body["message"], "Invalid certificate.");
}

#[tokio::test]
async fn faults_reach_mqtt_too() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    enroll(&plant, "press-7", &leaf).await;
    plant
        .emulator
        .inject(Fault::on("device.register", Action::throttle(9)))
        .unwrap();
    plant
        .emulator
        .inject(Fault::on("device.register", Action::ResetAfter))
        .unwrap();
    let mut device = Wire::registering(&plant, "press-7", &[&leaf]);
    device.subscribe(ANSWERS).await;
    let (topic, _) = device.register("press-7").await;
    assert_eq!(topic, "$dps/registrations/res/429/?$rid=1&retry-after=9");
    assert!(plant.emulator.hub_identity("press-7").is_none());
    device
        .say(
            "$dps/registrations/PUT/iotdps-register/?$rid=2",
            r#"{"registrationId":"press-7"}"#,
        )
        .await;
    while device.next().await.is_ok() {}
    assert!(plant.emulator.hub_identity("press-7").is_some());
}

/// The hub accepts the leaf on record and no other, and disconnects a device when its identity is
/// gone.
#[tokio::test]
async fn the_hub_goes_by_the_thumbprint_on_record() {
    let plant = Plant::start();
    let (known, other) = (pki::leaf("press-7", None), pki::leaf("press-7", None));
    enroll(&plant, "press-7", &known).await;
    let refused = Wire::at_the_hub(&plant, "press-7", &[&known])
        .next()
        .await
        .unwrap_err();
    let is_refusal = |error: &ConnectionError| {
        matches!(
            error,
            ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)
        )
    };
    assert!(is_refusal(&refused), "{refused}");
    plant.device("press-7", &[&known]).register().await.unwrap();
    let refused = Wire::at_the_hub(&plant, "press-7", &[&other])
        .next()
        .await
        .unwrap_err();
    assert!(is_refusal(&refused), "{refused}");

    let mut device = Wire::at_the_hub(&plant, "press-7", &[&known]);
    assert!(matches!(device.next().await.unwrap(), Packet::ConnAck(_)));
    let delete = plant
        .hub(Method::DELETE, "/devices/press-7")
        .header("If-Match", "\"*\"");
    assert_eq!(delete.send().await.unwrap().status().as_u16(), 204);
    assert!(device.next().await.is_err());
}

/// A back end calls a connected device and gets the device's own answer.
#[tokio::test]
async fn a_method_goes_to_the_device_and_back() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    enroll(&plant, "press-7", &leaf).await;
    plant.device("press-7", &[&leaf]).register().await.unwrap();
    let mut device = Wire::at_the_hub(&plant, "press-7", &[&leaf]);
    device.subscribe("$iothub/methods/POST/#").await;
    let identity = Answer::read(
        plant
            .hub(Method::GET, "/devices/press-7")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(identity.body["connectionState"], "Connected");

    let call = json!({ "methodName": "reregister", "payload": { "reason": "roll" } });
    let request = plant
        .hub(Method::POST, "/twins/press-7/methods")
        .json(&call);
    let back_end = async {
        Answer::read(request.send().await.unwrap())
            .await
            .expect(200)
    };
    let on_device = async {
        let (topic, body) = device.hear().await;
        assert_eq!(topic, "$iothub/methods/POST/reregister/?$rid=1");
        assert_eq!(body, json!({ "reason": "roll" }));
        device
            .say("$iothub/methods/res/202/?$rid=1", r#"{"will":"do"}"#)
            .await;
        // The message leaves while the event loop runs.
        while !matches!(device.next().await.unwrap(), Packet::PubAck(_)) {}
    };
    let (answer, ()) = tokio::join!(back_end, on_device);
    assert_eq!(
        answer,
        json!({ "status": 202, "payload": { "will": "do" } })
    );

    drop(device);
    let request = plant
        .hub(Method::POST, "/twins/press-7/methods")
        .json(&call);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        Answer::read(request.send().await.unwrap()).await.status,
        404
    );
    plant.emulator.simulate_device(
        "press-7",
        MethodAnswer {
            status: 200,
            payload: Value::Null,
        },
    );
    let request = plant
        .hub(Method::POST, "/twins/press-7/methods")
        .json(&call);
    assert_eq!(
        Answer::read(request.send().await.unwrap()).await.status,
        200
    );
}

#[tokio::test]
async fn a_login_that_is_neither_is_refused() {
    let plant = Plant::start();
    let leaf = pki::leaf("press-7", None);
    let refused = Wire::new(&plant, "press-7", "somebody", &[&leaf])
        .next()
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword)
    ));
}
