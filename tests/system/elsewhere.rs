//! Another organisation's CA: OpenSSL, with its keys in the environment's folder.

use crate::old_authority::{make_key, openssl};
use crate::process::SOON;
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::blocking::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, IF_MATCH};
use serde_json::{Value, json};
use std::fs;

const EXTENSIONS: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = none
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[short-root]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[limited-root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;dirName:elsewhere
[elsewhere]
O = Elsewhere
[below]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[other-identifier]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = 0102030405060708090a0b0c0d0e0f1011121314
authorityKeyIdentifier = keyid
[short]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[no-lists]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[names]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;dirName:elsewhere
[names-unmarked]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = permitted;dirName:elsewhere
[names-unknown]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;RID:1.2.3
[policies]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
policyConstraints = critical, requireExplicitPolicy:0
[any-purpose]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
extendedKeyUsage = anyExtendedKeyUsage
[servers]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
extendedKeyUsage = serverAuth
[clients]
basicConstraints = critical, CA:TRUE, pathlen:1
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
extendedKeyUsage = clientAuth
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
[code]
basicConstraints = CA:FALSE
";

/// Another organisation's CA, in the environment's folder.
pub(crate) struct Elsewhere<'a> {
    env: &'a TestEnv,
}

impl<'a> Elsewhere<'a> {
    pub(crate) fn on(env: &'a TestEnv) -> Self {
        let it = Self { env };
        env.write("openssl.cnf", EXTENSIONS);
        for name in ["root", "other"] {
            make_key(env, "EC -pkeyopt ec_paramgen_curve:P-384", name);
            it.make_root(name, name, "root");
        }
        it
    }

    pub(crate) fn make_root(&self, key: &str, name: &str, extensions: &str) {
        self.openssl(&format!(
            "req -x509 -config openssl.cnf -new -key {key}.key -days 3650 -subj \
             /O=Works/CN=Elsewhere -extensions {extensions} -out {name}.pem"
        ));
    }

    pub(crate) fn openssl(&self, arguments: &str) {
        openssl(self.env, arguments);
    }

    /// Signs the request, and returns the file to install.
    pub(crate) fn signs(&self, csr: &str, extensions: &str, days: i32, above: &str) -> String {
        self.openssl(&format!(
            "x509 -req -in {csr} -CA {above}.pem -CAkey {above}.key -CAcreateserial -days {days} \
             -extfile openssl.cnf -extensions {extensions} -out answer.pem"
        ));
        self.read("answer.pem") + &self.read(&format!("{above}.pem"))
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.env.path(name)).unwrap()
    }

    /// Uploads the root to the provisioning service, and verifies it with its key.
    pub(crate) fn is_verified(&self) {
        let (emulator, arm) = (&self.env.emulator, self.env.emulator.arm());
        let ca = fs::read(emulator.ca_file()).unwrap();
        let bearer = format!("Bearer {}", arm.token);
        let http = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .resolve(emulator.arm_host(), emulator.addr())
            .default_headers(HeaderMap::from_iter([(
                AUTHORIZATION,
                bearer.parse().unwrap(),
            )]))
            .no_proxy()
            .timeout(SOON)
            .build()
            .unwrap();
        let call = |method, path: &str, etag: &Value, body: Value| -> Value {
            let url = format!(
                "https://{}:{}/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Devices/\
                 provisioningServices/{}/certificates/elsewhere{path}?api-version=2022-02-05",
                emulator.arm_host(),
                emulator.addr().port(),
                arm.subscription,
                arm.resource_group,
                arm.name
            );
            let mut request = http.request(method, url).json(&body);
            if let Some(etag) = etag.as_str() {
                request = request.header(IF_MATCH, etag);
            }
            let response = request.send().unwrap();
            assert!(response.status().is_success(), "{path}: {response:?}");
            response.json().unwrap()
        };
        let root = STANDARD.encode(self.read("root.pem"));
        let put = json!({ "properties": { "certificate": root } });
        let held = call(reqwest::Method::PUT, "", &Value::Null, put);
        let post = reqwest::Method::POST;
        let held = call(
            post.clone(),
            "/generateVerificationCode",
            &held["etag"],
            json!({}),
        );
        let code = held["properties"]["verificationCode"].as_str().unwrap();
        self.openssl(&format!(
            "req -config openssl.cnf -new -key other.key -subj /CN={code} -out code.csr"
        ));
        self.signs("code.csr", "code", 3, "root");
        let proof = json!({ "certificate": self.read("answer.pem") });
        let held = call(post, "/verify", &held["etag"], proof);
        assert_eq!(held["properties"]["isVerified"], true);
    }
}
