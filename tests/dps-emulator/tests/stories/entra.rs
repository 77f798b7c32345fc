//! Bearer tokens for client assertions (contract section 8.2).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dps_emulator::EntraClient;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::client::{Answer, Plant};

const TENANT: &str = "0a0a0a0a-1111-2222-3333-444444444444";
const CLIENT: &str = "0b0b0b0b-1111-2222-3333-444444444444";

/// An application with an RSA key, as Entra wants it.
struct Application {
    key: RsaKeyPair,
    der: Vec<u8>,
    pem: String,
}

impl Application {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        Self {
            key: RsaKeyPair::from_pkcs8(&key.serialize_der()).unwrap(),
            der: certificate.der().to_vec(),
            pem: certificate.pem(),
        }
    }

    fn x5t_s256(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der);
        URL_SAFE_NO_PAD.encode(digest)
    }

    fn jwt(&self, encoding: &'static dyn RsaEncoding, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                encoding,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn claims() -> Value {
    #[expect(
        clippy::cast_precision_loss,
        reason = "msal writes floating-point dates"
    )]
    let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
    json!({
        "aud": format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token"),
        "iss": CLIENT, "sub": CLIENT, "exp": now + 600.25, "iat": now + 0.25, "jti": "1",
    })
}

async fn ask(plant: &Plant, scope: &str, assertion: &str) -> Answer {
    let url = plant.url(
        plant.emulator.entra_host(),
        &format!("/{TENANT}/oauth2/v2.0/token"),
    );
    let fields = [
        ("client_id", CLIENT),
        ("grant_type", "client_credentials"),
        ("scope", scope),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion),
        ("client_info", "1"),
    ];
    let escape =
        |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    let form: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect();
    let request = plant.http().post(url).body(form.join("&"));
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    Answer::read(request.send().await.unwrap()).await
}

const SERVICE: &str = "https://azure-devices-provisioning.net/.default";
const ARM: &str = "https://management.azure.com/.default";

async fn opens(plant: &Plant, host: &str, path: &str, token: &str) -> bool {
    let request = plant.http().get(plant.url(host, path)).bearer_auth(token);
    request.send().await.unwrap().status().as_u16() != 401
}

/// RS256 and PS256 are taken; a token opens the plane of its scope and no other.
#[tokio::test]
async fn a_token_opens_the_plane_of_its_scope() {
    let plant = Plant::start();
    let application = Application::new();
    let client = EntraClient {
        tenant: TENANT.to_owned(),
        client_id: CLIENT.to_owned(),
        certificate: application.pem.clone(),
    };
    plant.emulator.register_entra_client(client).unwrap();
    let header =
        |alg: &str| json!({ "alg": alg, "typ": "JWT", "x5t#S256": application.x5t_s256() });
    let rs256 = application.jwt(&RSA_PKCS1_SHA256, &header("RS256"), &claims());
    let ps256 = application.jwt(&RSA_PSS_SHA256, &header("PS256"), &claims());
    let service = ask(&plant, SERVICE, &rs256).await.expect(200)["access_token"].clone();
    let arm = ask(&plant, ARM, &ps256).await.expect(200)["access_token"].clone();
    let (service, arm) = (service.as_str().unwrap(), arm.as_str().unwrap());
    let enrollment = "/enrollments/a?api-version=2021-10-01";
    let host = plant.emulator.service_host();
    assert!(opens(&plant, host, enrollment, service).await);
    assert!(!opens(&plant, host, enrollment, arm).await);
    let access = plant.emulator.arm();
    let resource = format!(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Devices/\
         provisioningServices/{}?api-version=2026-11-01",
        access.subscription, access.resource_group, access.name
    );
    assert!(opens(&plant, plant.emulator.arm_host(), &resource, arm).await);
    assert!(!opens(&plant, plant.emulator.arm_host(), &resource, service).await);
}

#[tokio::test]
async fn an_assertion_that_proves_nothing_gets_nothing() {
    let plant = Plant::start();
    let (application, stranger) = (Application::new(), Application::new());
    let header = json!({ "alg": "RS256", "x5t#S256": application.x5t_s256() });
    let good = application.jwt(&RSA_PKCS1_SHA256, &header, &claims());
    assert_eq!(
        ask(&plant, SERVICE, &good).await.expect(400)["error"],
        "invalid_client"
    );
    let client = EntraClient {
        tenant: TENANT.to_owned(),
        client_id: CLIENT.to_owned(),
        certificate: application.pem.clone(),
    };
    plant.emulator.register_entra_client(client).unwrap();
    let with = |member: &str, value: Value| {
        let mut claims = claims();
        claims[member] = value;
        application.jwt(&RSA_PKCS1_SHA256, &header, &claims)
    };
    let bad = [
        stranger.jwt(&RSA_PKCS1_SHA256, &header, &claims()),
        application.jwt(&RSA_PSS_SHA256, &header, &claims()),
        application.jwt(&RSA_PKCS1_SHA256, &json!({ "alg": "none" }), &claims()),
        with("exp", json!(1000.5)),
        with("iss", json!("somebody")),
        with("aud", json!("https://elsewhere/token")),
        "not.a.jwt".to_owned(),
    ];
    for assertion in bad {
        assert_eq!(
            ask(&plant, SERVICE, &assertion).await.expect(400)["error"],
            "invalid_client"
        );
    }
    assert_eq!(
        ask(&plant, "https://graph/.default", &good)
            .await
            .expect(400)["error"],
        "invalid_scope"
    );
    ask(&plant, SERVICE, &good).await.expect(200);
}

/// The document that msal reads first leads to the token endpoint, port and all.
#[tokio::test]
async fn discovery_leads_to_the_token_endpoint() {
    let plant = Plant::start();
    let path = format!("/{TENANT}/v2.0/.well-known/openid-configuration");
    let request = plant
        .http()
        .get(plant.url(plant.emulator.entra_host(), &path));
    let found = Answer::read(request.send().await.unwrap())
        .await
        .expect(200);
    let endpoint = plant.url(
        plant.emulator.entra_host(),
        &format!("/{TENANT}/oauth2/v2.0/token"),
    );
    assert_eq!(found["token_endpoint"], endpoint);
}
