//! Tests the credentials of the planes: keys in a real SoftHSM token, access tokens of Entra ID,
//! files.

use crate::factory::Factory;
use crate::metadata::Metadata;
use crate::pki;
use crate::plant::{Plant, individual, press, write_secret};
use dps_emulator::{Action, EntraClient, Fault};
use hallmarkd::enrollment::desired::EnrollmentName;
use hallmarkd::enrollment::history::History;
use hallmarkd::provisioning::credential::keys::TokenKeys;
use hallmarkd::provisioning::failure::CallError;
use hallmarkd::token::client::LOOKUP_DEADLINE;
use hallmarkd::token::{KeyReference, KeySpecification, TokenError, credential};
use hallmarkd::x509::key::KeyType;

const TOKEN_HMAC: &str = r#"{ kind = "token-hmac", token = "factory", key = "dps-sas",
    policy = "provisioningserviceowner" }"#;

const TENANT: &str = "0a0a0a0a-1111-2222-3333-444444444444";
const CLIENT: &str = "0b0b0b0b-1111-2222-3333-444444444444";

/// The factory's token with the emulator's key in it, and the file gone.
fn plant_with_imported_key(factory: &Factory) -> Plant {
    Plant::start_with(factory.keys(), |emulator, said| {
        let file = factory.path("dps");
        write_secret(&file, &emulator.service_connection_string());
        let arguments = ["--label", "dps-sas", "--file", file.to_str().unwrap()];
        let imported = factory.run("import-secret", &arguments);
        assert!(imported.status.success(), "{imported:?}");
        let key = emulator.service_connection_string();
        let (_, key) = key.split_once("SharedAccessKey=").unwrap();
        for shown in [&imported.stdout, &imported.stderr] {
            assert!(!String::from_utf8_lossy(shown).contains(key));
        }
        let again = factory.run("import-secret", &arguments);
        assert!(!again.status.success(), "a label is taken once");
        std::fs::remove_file(&file).unwrap();
        said.replace("\"dps\"", &one_line(TOKEN_HMAC))
    })
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// The key was imported, its file destroyed, and an enrollment is made, read and deleted with it.
#[tokio::test]
async fn the_token_signs_every_attempt_and_the_file_is_gone() {
    let factory = Factory::start();
    let plant = plant_with_imported_key(&factory);
    let leaf = pki::leaf("Press-7", None).certificate;
    let desired = individual(Some(&leaf), None);
    plant.reconcile(&desired, History::default()).await.unwrap();
    let id = press();
    let id = EnrollmentName::Individual(&id);
    let record = plant.dps.enrollment(id).await.unwrap().unwrap();
    plant.dps.delete(id, record.etag()).await.unwrap();
    assert_eq!(plant.dps.enrollment(id).await.unwrap(), None);
}

/// The token is unavailable: no call is sent, the error is transient, and calls work again
/// afterwards.
#[tokio::test]
async fn a_token_that_is_away_is_waited_for() {
    let factory = Factory::start();
    let plant = plant_with_imported_key(&factory);
    let (here, away) = (factory.path("tokens"), factory.path("unplugged"));
    plant.dps.registration(&press()).await.unwrap();
    std::fs::rename(&here, &away).unwrap();
    let before = plant.emulator.requests().len();
    let error = plant.dps.registration(&press()).await.unwrap_err();
    assert_eq!(error.code(), "provisioning_unavailable", "{error}");
    assert!(!error.may_have_happened(), "{error:?}");
    assert_eq!(plant.emulator.requests().len(), before);
    std::fs::rename(&away, &here).unwrap();
    for _ in 0..200 {
        if plant.dps.registration(&press()).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it does not heal");
}

/// A key that was never imported is the operator's business.
#[tokio::test]
async fn a_key_that_is_not_in_the_token_is_told() {
    let factory = Factory::start();
    let plant = Plant::start_with(factory.keys(), |_, said| {
        said.replace("\"dps\"", &one_line(TOKEN_HMAC))
    });
    let error = plant.dps.registration(&press()).await.unwrap_err();
    assert_eq!(error.code(), "provisioning_unauthorized", "{error}");
    assert!(error.to_string().contains("dps-sas"), "{error}");
}

/// An application whose key `make-credential-key` has made, and whose certificate Entra has.
fn plant_with_application(factory: &Factory) -> Plant {
    Plant::start_with(factory.keys(), |emulator, said| {
        let certificate = factory.path("entra.pem");
        let arguments = ["--label", "entra", "--out", certificate.to_str().unwrap()];
        let made = factory.run("make-credential-key", &arguments);
        assert!(made.status.success(), "{made:?}");
        let client = EntraClient {
            tenant: TENANT.to_owned(),
            client_id: CLIENT.to_owned(),
            certificate: std::fs::read_to_string(&certificate).unwrap(),
        };
        emulator.register_entra_client(client).unwrap();
        let entra = format!(
            "{{ kind = \"entra-client-assertion\", authority = \"https://{}\", address = \"{}\", \
             tenant = \"{TENANT}\", client_id = \"{CLIENT}\", token = \"factory\", \
             key = \"entra\", certificate = {certificate:?} }}",
            emulator.entra_host(),
            emulator.addr(),
        );
        ["dps", "arm", "hub"].iter().fold(said, |said, file| {
            let file = format!("credential = \"{file}\"");
            said.replace(&file, &format!("credential = {entra}"))
        })
    })
}

/// One key in the token opens service plane, CA plane and hub; many callers at once cost each plane
/// one access token, and no file holds a secret.
#[tokio::test]
async fn an_assertion_opens_every_plane_once_for_all() {
    let factory = Factory::start();
    let plant = plant_with_application(&factory);
    let id = press();
    let reads = (0..8).map(|_| plant.dps.registration(&id));
    for read in futures_util::future::join_all(reads).await {
        read.unwrap();
    }
    assert_eq!(plant.emulator.requests_of("entra.token").len(), 1);
    let description = plant.arm.describe().await.unwrap();
    assert_eq!(description.id_scope, plant.emulator.id_scope());
    assert_eq!(plant.hub.identity("Press-7").await.unwrap(), None);
    assert_eq!(plant.emulator.requests_of("entra.token").len(), 3);
}

/// The token endpoint is busy: the error is transient; the daemon pauses, and asks again.
#[tokio::test]
async fn a_busy_token_endpoint_is_left_alone_for_a_while() {
    let factory = Factory::start();
    let plant = plant_with_application(&factory);
    let fault = Fault::on("entra.token", Action::throttle(1));
    plant.emulator.inject(fault).unwrap();
    for _ in 0..3 {
        let error = plant.dps.registration(&press()).await.unwrap_err();
        assert_eq!(error.code(), "provisioning_unavailable", "{error}");
    }
    assert_eq!(plant.emulator.requests_of("entra.token").len(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    plant.dps.registration(&press()).await.unwrap();
}

/// Entra does not know the certificate: refused, with Entra's own words and without the assertion.
#[tokio::test]
async fn an_application_that_entra_does_not_know_is_told() {
    let factory = Factory::start();
    let plant = plant_with_application(&factory);
    let stranger = EntraClient {
        tenant: TENANT.to_owned(),
        client_id: CLIENT.to_owned(),
        certificate: pki::leaf("stranger", None).certificate.pem().unwrap(),
    };
    plant.emulator.register_entra_client(stranger).unwrap();
    let error = plant.dps.registration(&press()).await.unwrap_err();
    assert_eq!(error.code(), "provisioning_unauthorized", "{error}");
    let shown = error.to_string();
    assert!(
        shown.contains("registered certificate") && !shown.contains("eyJ"),
        "{shown}"
    );
}

/// A key for certificates signs no assertion and no credential key signs a certificate, whatever
/// the worker's client says.
#[test]
fn the_worker_keeps_keys_for_certificates_and_for_credentials_apart() {
    let factory = Factory::start();
    let key = |label: String| {
        let specification = KeySpecification {
            key_type: KeyType::Rsa2048,
            id: label.clone().into_bytes(),
            label,
        };
        factory
            .client
            .generate(&specification, LOOKUP_DEADLINE)
            .unwrap()
    };
    let (authority, entra) = (
        key("line-1".into()),
        key(credential::label("entra").unwrap()),
    );
    let is_key_error =
        |error: TokenError| assert!(matches!(error, TokenError::Key { .. }), "{error}");
    is_key_error(factory.client.prove(&entra, LOOKUP_DEADLINE).unwrap_err());
    let jwt = b"e30.eyJleHAiOjF9"; // {} and {"exp":1}
    let sign = |key: &KeyReference, input: &[u8]| {
        factory.client.sign_assertion(key, input, LOOKUP_DEADLINE)
    };
    is_key_error(sign(&authority.reference(), jwt).unwrap_err());
    sign(&entra.reference(), jwt).unwrap();
    let certificate = pki::leaf("Press-7", None).certificate;
    let error = sign(&entra.reference(), certificate.der()).unwrap_err();
    assert!(matches!(error, TokenError::Refused { .. }), "{error}");
}

async fn plant_with_metadata() -> (Plant, Metadata) {
    let metadata = Metadata::start("").await;
    let plant = Plant::start_with(TokenKeys::new(), |emulator, said| {
        metadata.answer(200, &emulator.arm().token, "3599");
        let identity = format!(
            "credential = {{ kind = \"managed-identity\", client_id = \"{CLIENT}\", \
             endpoint = \"http://{}\" }}",
            metadata.address
        );
        said.replace("credential = \"arm\"", &identity)
    });
    (plant, metadata)
}

/// The machine's metadata service gives the token, once for many calls.
#[tokio::test]
async fn a_managed_identity_opens_the_resource_manager() {
    let (plant, metadata) = plant_with_metadata().await;
    for _ in 0..3 {
        plant.arm.describe().await.unwrap();
    }
    let asked = metadata.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["resource"], "https://management.azure.com");
    assert_eq!(asked[0]["api-version"], "2018-02-01");
    assert_eq!(asked[0]["client_id"], CLIENT);
}

/// A token that the plane refuses is not used again; one that is still valid survives an outage of
/// the metadata service.
#[tokio::test]
async fn a_refused_token_is_asked_for_anew_and_a_valid_one_survives_an_outage() {
    let (plant, metadata) = plant_with_metadata().await;
    let good = plant.emulator.arm().token;
    metadata.answer(200, "revoked", "3599");
    let error = plant.arm.describe().await.unwrap_err();
    assert_eq!(error.code(), "provisioning_unauthorized", "{error}");
    // It is to be renewed at once, and is good for half a minute.
    metadata.answer(200, &good, "30");
    plant.arm.describe().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(16)).await;
    metadata.answer(500, "", "0");
    for _ in 0..3 {
        plant.arm.describe().await.unwrap();
    }
    assert_eq!(metadata.asked().len(), 3, "one failure, and then a pause");
}

/// A machine without the identity is the operator's business; one that starts is not.
#[tokio::test]
async fn a_machine_without_an_identity_is_told() {
    for (status, code) in [
        (400, "provisioning_unauthorized"),
        (404, "provisioning_unavailable"),
        (410, "provisioning_unavailable"),
    ] {
        let (plant, metadata) = plant_with_metadata().await;
        metadata.answer(status, "", "0");
        let error = plant.arm.describe().await.unwrap_err();
        assert_eq!(error.code(), code, "{status}: {error}");
    }
}

/// A connection string whose key is wrong is refused by the service, and said so without the key.
#[tokio::test]
async fn a_wrong_key_is_refused() {
    let plant = Plant::start();
    let right = plant.emulator.service_connection_string();
    let (before, _) = right.split_once("SharedAccessKey=").unwrap();
    std::fs::write(
        plant.path("dps"),
        format!("{before}SharedAccessKey=d3Jvbmc="),
    )
    .unwrap();
    let error = plant.dps.registration(&press()).await.unwrap_err();
    assert!(matches!(error, CallError::Unauthorized { .. }), "{error:?}");
    assert!(!error.to_string().contains("d3Jvbmc"), "{error}");
}
