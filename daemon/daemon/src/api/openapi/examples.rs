//! Examples of bodies and answers. The answers are real: the story `openapi_examples` sends each
//! example of a body to a daemon, writes its answers here, and judges both by the schemas.

use serde_json::{Map, Value, json};

/// A CSR for the leaf of `press-7`.
pub(super) const CSR: &str = include_str!("examples/press-7.csr");
/// The same for `press-8`.
pub(super) const NEXT_CSR: &str = include_str!("examples/press-8.csr");
/// The same for `press-9`, which asks by EST.
const EST_CSR: &str = include_str!("examples/press-9.csr");
/// A CSR for an authority elsewhere.
pub(super) const AUTHORITY_CSR: &str = include_str!("examples/plant-7.csr");
/// An OCSP request in DER (RFC 6960, section 4.1.1) whose bytes are all below 0x80, because JSON
/// has text alone (OpenAPI 3.1.1, section 4.8.19).
pub(super) const OCSP_REQUEST: &str = "0B0@0>0<0:0\t\u{6}\u{5}+\u{e}\u{3}\u{2}\u{1a}\u{5}\0\
    \u{4}\u{14}hash of issuers name\u{4}\u{14}hash of issuers key.\u{2}\u{1}\u{7}";
/// By method and route, then by status, the example of each media type.
const ANSWERS: &str = include_str!("examples/answers.json");

/// The recorded answers.
pub(super) struct Examples(Map<String, Value>);

impl Examples {
    /// Reads the file, which the tests judge.
    pub(super) fn recorded() -> Self {
        Self(serde_json::from_str(ANSWERS).unwrap_or_default())
    }

    /// Adds the examples of an answer with this status to its Response Object. Routes of EST have
    /// the same answers with a label as without.
    pub(super) fn add_to(&self, answer: &mut Value, method: &str, route: &str, status: u16) {
        let route = route.replace("/est/{label}/", "/est/");
        let recorded = self.0.get(&format!("{} {route}", method.to_uppercase()));
        let recorded = recorded.and_then(|it| it.get(status.to_string()));
        let Some(contents) = answer.get_mut("content").and_then(Value::as_object_mut) else {
            return;
        };
        for (media_type, content) in contents {
            if let Some(example) = recorded.and_then(|it| it.get(media_type)) {
                content["example"] = example.clone();
            }
        }
    }
}

/// The body of a request by EST: the CSR's base64, without lines around it.
pub(super) fn est_request() -> Value {
    let lines = EST_CSR.lines().filter(|it| !it.starts_with('-'));
    json!(lines.map(|it| format!("{it}\n")).collect::<String>())
}
