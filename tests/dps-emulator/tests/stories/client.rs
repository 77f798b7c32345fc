//! Clients of every plane, over real TLS and with the real host names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::{Emulator, Options};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Client, Identity, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::pki::Made;

/// An emulator and a client without a certificate.
pub(crate) struct Plant {
    pub(crate) emulator: Emulator,
    /// Holds the TLS identity until the end of the test.
    _dir: TempDir,
    http: Client,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn read(response: Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The status must be this; the body comes back.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The six digits of a refusal, in body and header alike.
    pub(crate) fn error_code(&self) -> u64 {
        let code = self.body["errorCode"].as_u64().unwrap();
        assert_eq!(
            self.header("x-ms-error-code"),
            Some(code.to_string().as_str())
        );
        assert_eq!(u64::from(self.status), code / 1000);
        code
    }
}

impl Plant {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(crate) fn start_with(adjust: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path());
        options.switches.retry_after_seconds = 0;
        adjust(&mut options);
        let emulator = Emulator::start(options).unwrap();
        let http = client(&emulator, None);
        Self {
            emulator,
            _dir: dir,
            http,
        }
    }

    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.emulator.addr().port())
    }

    /// The client without a certificate.
    pub(crate) fn http(&self) -> &Client {
        &self.http
    }

    /// A request to the service plane, with a fresh token.
    pub(crate) fn service(&self, method: Method, path: &str) -> RequestBuilder {
        let host = self.emulator.service_host();
        let url = self.url(host, &versioned(path, "2021-10-01"));
        let token = token(&self.emulator.service_connection_string());
        self.http
            .request(method, url)
            .header("Authorization", token)
    }

    /// A request to the first hub.
    pub(crate) fn hub(&self, method: Method, path: &str) -> RequestBuilder {
        self.hub_named(self.emulator.hub_host(), method, path)
    }

    /// A request to a hub. All hubs share one policy.
    pub(crate) fn hub_named(&self, host: &str, method: Method, path: &str) -> RequestBuilder {
        let url = self.url(host, &versioned(path, "2021-04-12"));
        let first = self.emulator.hub_connection_string();
        let own = first.replace(self.emulator.hub_host(), host);
        self.http
            .request(method, url)
            .header("Authorization", token(&own))
    }

    /// A request to the resource manager, below the DPS.
    pub(crate) fn arm(&self, method: Method, path: &str) -> RequestBuilder {
        let arm = self.emulator.arm();
        let path = format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Devices/\
             provisioningServices/{}{path}",
            arm.subscription, arm.resource_group, arm.name
        );
        let url = self.url(self.emulator.arm_host(), &versioned(&path, "2026-11-01"));
        self.http.request(method, url).bearer_auth(arm.token)
    }

    /// Create or replace a record.
    pub(crate) async fn put(&self, path: &str, if_match: Option<&str>, record: &Value) -> Answer {
        let mut request = self.service(Method::PUT, path).json(record);
        if let Some(etag) = if_match {
            request = request.header("If-Match", etag);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::read(self.service(Method::GET, path).send().await.unwrap()).await
    }

    /// POST; null sends no body at all.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let mut request = self.service(Method::POST, path);
        if !body.is_null() {
            request = request.json(body);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str, if_match: Option<&str>) -> Answer {
        let mut request = self.service(Method::DELETE, path);
        if let Some(etag) = if_match {
            request = request.header("If-Match", etag);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    /// Upload a CA certificate and take it as verified.
    pub(crate) async fn upload_verified(&self, name: &str, authority: &Made) {
        let body = json!({ "properties": {
            "certificate": STANDARD.encode(&authority.pem), "isVerified": true } });
        let request = self
            .arm(Method::PUT, &format!("/certificates/{name}"))
            .json(&body);
        Answer::read(request.send().await.unwrap())
            .await
            .expect(200);
    }

    /// A device that presents `chain`, whose first certificate is its own.
    pub(crate) fn device<'a>(&'a self, id: &'a str, chain: &[&Made]) -> Device<'a> {
        Device {
            plant: self,
            id,
            http: client(&self.emulator, Some(chain)),
        }
    }
}

/// A device with its client certificate.
pub(crate) struct Device<'a> {
    plant: &'a Plant,
    id: &'a str,
    http: Client,
}

impl Device<'_> {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let scope = self.plant.emulator.id_scope();
        let path = format!("/{scope}/registrations/{}{path}", self.id);
        let url = self.plant.url(
            self.plant.emulator.device_host(),
            &versioned(&path, "2019-03-31"),
        );
        self.http.request(method, url)
    }

    /// The first step only.
    pub(crate) async fn begin(&self) -> Answer {
        let request = self
            .request(Method::PUT, "/register")
            .json(&json!({ "registrationId": self.id }));
        Answer::read(request.send().await.unwrap()).await
    }

    pub(crate) async fn poll(&self, operation: &str) -> Answer {
        let request = self.request(Method::GET, &format!("/operations/{operation}"));
        Answer::read(request.send().await.unwrap()).await
    }

    /// Register and poll to the end; the final body, or the refusal.
    pub(crate) async fn register(&self) -> Result<Value, Answer> {
        let begun = self.begin().await;
        if begun.status != 202 {
            return Err(begun);
        }
        assert!(begun.header("retry-after").is_some());
        let operation = begun.body["operationId"].as_str().unwrap().to_owned();
        loop {
            let answer = self.poll(&operation).await;
            match answer.status {
                200 => return Ok(answer.body),
                202 => continue,
                _ => return Err(answer),
            }
        }
    }

    /// Register and be refused with 401002 and this sentence.
    pub(crate) async fn is_refused(&self, message: &str) {
        let answer = self.register().await.unwrap_err();
        assert_eq!(answer.error_code(), 401_002);
        assert_eq!(answer.body["message"], message);
    }

    /// Send a message to the hub; the status of the answer.
    pub(crate) async fn message(&self) -> u16 {
        let path = versioned(
            &format!("/devices/{}/messages/events", self.id),
            "2021-04-12",
        );
        let url = self.plant.url(self.plant.emulator.hub_host(), &path);
        self.http
            .post(url)
            .body("hello")
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }
}

fn versioned(path: &str, version: &str) -> String {
    format!("{path}?api-version={version}")
}

/// A client that knows the emulator's names and authority, with a certificate or without.
fn client(emulator: &Emulator, chain: Option<&[&Made]>) -> Client {
    let ca = std::fs::read(emulator.ca_file()).unwrap();
    let mut builder = Client::builder()
        .tls_certs_only([Certificate::from_pem(&ca).unwrap()])
        .no_proxy();
    let hosts = [
        emulator.service_host(),
        emulator.device_host(),
        emulator.hub_host(),
        emulator.arm_host(),
        emulator.entra_host(),
        "one.azure-devices.net",
        "two.azure-devices.net",
    ];
    for host in hosts {
        builder = builder.resolve(host, emulator.addr());
    }
    if let Some(chain) = chain {
        let certificates: String = chain.iter().map(|made| made.pem.as_str()).collect();
        let pem = format!("{}{certificates}", chain[0].key_pem);
        builder = builder.identity(Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

/// A shared access signature for everything, for an hour.
pub(crate) fn token(connection_string: &str) -> String {
    token_until(
        connection_string,
        OffsetDateTime::now_utc().unix_timestamp() + 3600,
    )
}

/// A shared access signature that ends at `expiry`.
pub(crate) fn token_until(connection_string: &str, expiry: i64) -> String {
    let field = |name: &str| {
        let mut fields = connection_string.split(';');
        fields.find_map(|field| field.strip_prefix(name)).unwrap()
    };
    let (host, policy) = (field("HostName="), field("SharedAccessKeyName="));
    let key = STANDARD.decode(field("SharedAccessKey=")).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let tag = aws_lc_rs::hmac::sign(&key, format!("{host}\n{expiry}").as_bytes());
    let signature = STANDARD.encode(tag.as_ref());
    let signature = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
    format!("SharedAccessSignature sr={host}&sig={signature}&skn={policy}&se={expiry}")
}
