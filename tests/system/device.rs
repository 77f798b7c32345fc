//! A device at the provisioning service: registers over HTTPS with its certificate and chain, as
//! its firmware would, and polls for the result.

use crate::process::{SOON, until};
use crate::request::Holder;
use dps_emulator::Emulator;
use reqwest::blocking::Client;
use serde_json::{Value, json};

const API_VERSION: &str = "api-version=2019-03-31";

/// Registers; the final status, or the refusal's message.
pub(crate) fn register(emulator: &Emulator, device: &Holder) -> Result<String, String> {
    let ca = std::fs::read(emulator.ca_file()).unwrap();
    let http = Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .resolve(emulator.device_host(), emulator.addr())
        .identity(device.identity())
        .no_proxy()
        .timeout(SOON)
        .build()
        .unwrap();
    let id = &device.id;
    let registration = format!(
        "https://{}:{}/{}/registrations/{id}",
        emulator.device_host(),
        emulator.addr().port(),
        emulator.id_scope(),
    );
    let body = json!({ "registrationId": id });
    let register = http.put(format!("{registration}/register?{API_VERSION}"));
    let begun = outcome(register.json(&body))?;
    let operation = begun["operationId"].as_str().unwrap();
    let poll = format!("{registration}/operations/{operation}?{API_VERSION}");
    until("the registration ends", || {
        let polled = outcome(http.get(&poll));
        match polled.map(|body| body["status"].as_str().unwrap().to_owned()) {
            Ok(status) if status == "assigning" => None,
            end => Some(end),
        }
    })
}

fn outcome(request: reqwest::blocking::RequestBuilder) -> Result<Value, String> {
    let response = request.send().unwrap();
    let accepted = response.status().is_success();
    let body: Value = response.json().unwrap();
    if accepted {
        return Ok(body);
    }
    Err(body["message"].as_str().unwrap_or_default().to_owned())
}

/// Registers and is assigned.
pub(crate) fn is_assigned(emulator: &Emulator, device: &Holder) {
    let end = register(emulator, device);
    assert_eq!(end.as_deref(), Ok("assigned"), "{}", device.id);
}
