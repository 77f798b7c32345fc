//! Sends requests by the document of the API, and judges the answers by it.

use crate::openapi::port_of;
use crate::request::Holder;
use crate::schema::faults;
use crate::test_env::TestEnv;
use reqwest::blocking::Client;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// How many items of a list an example shows.
const ITEMS_MAX: usize = 2;
/// How many lines of a text it shows.
const LINES_MAX: usize = 12;

/// A way to a daemon, by a caller of its own.
pub(crate) struct Door {
    base: String,
    http: Client,
    /// The folder of the environment, which no example shows.
    folder: String,
}

impl Door {
    /// Over the admin socket.
    pub(crate) fn local(env: &TestEnv) -> Self {
        Self {
            base: format!("http://{}", port_of(env.path("state/admin.sock"))),
            http: Client::builder().no_proxy().build().unwrap(),
            folder: env.path("").display().to_string(),
        }
    }

    pub(crate) fn remote(env: &TestEnv, holder: &Holder) -> Self {
        let root = reqwest::Certificate::from_pem(env.authority("root").as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only([root]).no_proxy();
        Self {
            base: env.https(),
            http: client.identity(holder.identity()).build().unwrap(),
            folder: env.path("").display().to_string(),
        }
    }
}

/// The document, and what was asked so far.
pub(crate) struct Walk {
    document: Value,
    pub(crate) asked: BTreeSet<String>,
    pub(crate) recorded: Map<String, Value>,
}

impl Walk {
    /// Begins with the document of a daemon.
    pub(crate) fn of(env: &TestEnv) -> Self {
        Self {
            document: serde_json::from_str(&env.get("/openapi.json")).unwrap(),
            asked: BTreeSet::new(),
            recorded: Map::new(),
        }
    }

    /// The Operation Object of a method and a route.
    pub(crate) fn operation(&self, operation: &str) -> &Value {
        let (method, route) = operation.split_once(' ').unwrap();
        let found = &self.document["paths"][route][method.to_lowercase()];
        assert!(found.is_object(), "{operation}");
        found
    }

    /// Sends the example of the body, if there is a body.
    pub(crate) fn asks(&mut self, at: &Door, operation: &str, address: &str) -> Value {
        self.sends(at, operation, address, None)
    }

    /// Sends a body, or the example of it, judges the answer and records it.
    pub(crate) fn sends(
        &mut self,
        at: &Door,
        operation: &str,
        address: &str,
        body: Option<Value>,
    ) -> Value {
        let described = self.operation(operation).clone();
        let method = operation.split(' ').next().unwrap();
        let url = format!("{}{address}", at.base);
        let mut request = at.http.request(method.parse().unwrap(), url);
        if let Some((media_type, content)) = content(&described["requestBody"]).next() {
            let body = body.unwrap_or_else(|| content["example"].clone());
            request = request.header(CONTENT_TYPE, media_type);
            let is_json = media_type == "application/json";
            let text = body.as_str().filter(|_| !is_json).map(str::to_owned);
            request = request.body(text.unwrap_or_else(|| body.to_string()));
        }
        let answer = request.send().unwrap();
        let status = answer.status().as_u16();
        let media_type = answer.headers().get(CONTENT_TYPE).cloned();
        let bytes = answer.bytes().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let response = &described["responses"][status.to_string()];
        assert!(
            status < 400 && response.is_object(),
            "{operation}: {status} {text}"
        );
        self.asked.insert(operation.to_owned());
        let Some(media_type) = media_type else {
            assert!(
                bytes.is_empty() && response.get("content").is_none(),
                "{operation}"
            );
            return Value::Null;
        };
        let media_type = media_type.to_str().unwrap();
        let schema = &response["content"][media_type]["schema"];
        assert!(schema.is_object(), "{operation}: {media_type}");
        if *schema == json!({}) {
            return Value::Null;
        }
        let value = match media_type {
            "application/json" => serde_json::from_str(&text).unwrap(),
            it if it.starts_with("multipart/") => json!(without_key(&text)),
            _ => json!(text),
        };
        let found = faults(&self.document, schema, &value);
        assert!(found.is_empty(), "{operation}: {found:#?}");
        let key = operation.replace("/est/{label}/", "/est/");
        let statuses = self.recorded.entry(key).or_insert_with(|| json!({}));
        statuses[status.to_string()][media_type] = shown(&value, &at.folder);
        value
    }

    /// Judges every example in the document, and that each body and each answer has one.
    pub(crate) fn judge(&self) {
        for (route, methods) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name = format!("{} {route}", method.to_uppercase());
                assert!(self.asked.contains(&name), "no test asks {name}");
                let bodies = content(&operation["requestBody"]);
                let answers = operation["responses"].as_object().unwrap();
                let answers = answers.iter().filter(|(status, _)| status.as_str() < "400");
                for (media_type, it) in bodies.chain(answers.flat_map(|it| content(it.1))) {
                    // The whole document would be an example of itself.
                    if name == "GET /openapi.json" {
                        continue;
                    }
                    let Some(example) = it.get("example") else {
                        // Bytes have no schema, and JSON cannot show them.
                        assert_eq!(it["schema"], json!({}), "{name}: {media_type}: no example");
                        continue;
                    };
                    let found = faults(&self.document, &it["schema"], example);
                    assert!(found.is_empty(), "{name}: {media_type}: {found:#?}");
                }
                for it in operation["parameters"].as_array().into_iter().flatten() {
                    let Some(example) = it.get("example") else {
                        continue;
                    };
                    let found = faults(&self.document, &it["schema"], example);
                    assert!(found.is_empty(), "{name}: {}: {found:#?}", it["name"]);
                }
            }
        }
    }
}

/// The media types of a body or an answer.
fn content(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of["content"].as_object().into_iter().flatten()
}

/// A value as an example shows it: short, and without what belongs to this machine.
fn shown(value: &Value, folder: &str) -> Value {
    match value {
        Value::Array(items) => items
            .iter()
            .take(ITEMS_MAX)
            .map(|it| shown(it, folder))
            .collect(),
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(name, it)| (name.clone(), shown(it, folder)));
            Value::Object(members.collect())
        }
        Value::String(text) => {
            let text = text.replace(folder.trim_end_matches('/'), "/var/lib/hallmark");
            let lines = text.split_inclusive('\n').take(LINES_MAX);
            json!(lines.collect::<String>())
        }
        other => other.clone(),
    }
}

/// An answer with a key and its certificate (RFC 7030, section 4.4.2), without the key.
fn without_key(text: &str) -> String {
    let (head, parts) = text.split_once("\r\n\r\n").unwrap();
    let (_, rest) = parts.split_once("\r\n--").unwrap();
    format!("{head}\r\n\r\n(the key in base64)\r\n--{rest}")
}
