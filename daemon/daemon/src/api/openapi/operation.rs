//! One route with one method, and its place in the document.

use super::access::Access;
use super::examples::Examples;
use super::problems;
use super::schemas::Schemas;
use crate::api::approval_guard::APPROVAL;
use crate::ca::Code;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Codes that every route may answer.
const OF_ALL: &str =
    "too_many_requests_in_flight store_unavailable store_unreadable stopping internal";
/// Codes of every route that changes something.
const OF_CHANGES: &str = "cross_site_request state_conflict";
/// Codes of every route that has a body.
const OF_BODIES: &str = "body_invalid body_too_large body_too_slow content_type_unsupported";

/// Codes of every route that may need an approval.
const OF_APPROVALS: &str = "approval_required approval_invalid approval_differs approval_expired \
                            approval_rejected approval_used approval_own approval_signature \
                            approval_limit approver_refused body_invalid body_too_large \
                            body_too_slow not_found";

/// A route with a method.
pub(super) struct Operation {
    pub(super) tag: &'static str,
    /// In lower case.
    pub(super) method: &'static str,
    /// As the router has it.
    route: String,
    /// One sentence or more.
    pub(super) does: &'static str,
    pub(super) access: Access,
    /// The code of its refusal over the network, if it is for local users alone.
    pub(super) local_only: Option<Code>,
    pub(super) takes_credential: bool,
    takes_ended_leaves: bool,
    parameters: Vec<Value>,
    body: Option<Body>,
    answers: BTreeMap<u16, Success>,
    common_codes: Vec<&'static str>,
    /// Codes that no group of routes has.
    pub(super) own_codes: Vec<&'static str>,
}

/// A request body in one media type.
struct Body {
    media_type: &'static str,
    schema: Value,
    example: Option<Value>,
}

/// An answer that is no problem.
#[derive(Default)]
struct Success {
    content: Map<String, Value>,
    headers: Map<String, Value>,
}

/// An operation under construction, and the types of all operations.
pub(super) struct Described<'a> {
    operation: &'a mut Operation,
    schemas: &'a mut Schemas,
}

impl Operation {
    pub(super) fn new(tag: &'static str, method: &'static str, route: String) -> Self {
        let mut common_codes: Vec<_> = problems::names(OF_ALL).collect();
        if method != "get" {
            common_codes.extend(problems::names(OF_CHANGES));
        }
        Self {
            tag,
            method,
            route,
            does: "",
            access: Access::All,
            local_only: None,
            takes_credential: false,
            takes_ended_leaves: true,
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            common_codes,
            own_codes: Vec::new(),
        }
    }

    pub(super) fn with<'a>(&'a mut self, schemas: &'a mut Schemas) -> Described<'a> {
        Described {
            operation: self,
            schemas,
        }
    }

    /// Its path as OpenAPI writes it, which knows no place for the rest of a path.
    pub(super) fn path(&self) -> String {
        self.route.replace("{*", "{")
    }

    /// Adds what the guard of approvals takes and answers.
    pub(super) fn may_need_approval(&mut self) {
        self.common_codes.extend(problems::names(OF_APPROVALS));
        self.parameters.push(json!({
            "name": APPROVAL,
            "in": "header",
            "required": false,
            "description": "The number of the request by which another person has approved this.",
            "schema": { "type": "integer" },
            "example": 7,
        }));
    }

    /// Whether a device may use it by its leaf that has ended.
    pub(super) fn takes_late_renewals(&self) -> bool {
        self.access == Access::Callers && self.takes_ended_leaves
    }

    /// The codes of all problems that it may answer.
    pub(super) fn codes(&self) -> impl Iterator<Item = &'static str> {
        let codes = self.common_codes.iter().chain(&self.own_codes);
        let mut codes: Vec<_> = codes.copied().collect();
        codes.sort_unstable();
        codes.dedup();
        codes.into_iter()
    }

    /// The names of the places in its path, in their order.
    fn places(&self) -> Vec<String> {
        let places = self.route.split('{').skip(1);
        let places = places.filter_map(|it| Some(it.split_once('}')?.0));
        places
            .map(|it| it.trim_start_matches('*').to_owned())
            .collect()
    }

    /// The Operation Object.
    pub(super) fn document(&self, examples: &Examples) -> Value {
        let mut responses: BTreeMap<String, Value> = BTreeMap::new();
        for (status, success) in &self.answers {
            let mut answer = success.document(*status);
            examples.add_to(&mut answer, self.method, &self.route, *status);
            responses.insert(status.to_string(), answer);
        }
        for (status, problem) in problems::responses(self.codes()) {
            responses.insert(status.to_string(), problem);
        }
        let id = format!("{}{}", self.method, self.path());
        let id: String = id.chars().map(in_id).collect();
        let mut document = json!({
            "operationId": id.trim_end_matches('_'),
            "tags": [self.tag],
            "summary": self.does,
            "description": format!("For {}.", self.access.words()),
            "security": self.access.security(self.takes_credential),
            "responses": responses,
        });
        if !self.parameters.is_empty() {
            document["parameters"] = json!(self.parameters);
        }
        if let Some(body) = &self.body {
            document["requestBody"] = body.document();
        }
        document
    }
}

/// A character of an operation's identifier, which programs make the name of a function from.
fn in_id(character: char) -> char {
    match character {
        it if it.is_ascii_alphanumeric() => it,
        _ => '_',
    }
}

impl Body {
    fn document(&self) -> Value {
        let mut content = json!({ "schema": self.schema });
        if let Some(example) = &self.example {
            content["example"] = example.clone();
        }
        json!({ "required": true, "content": { self.media_type: content } })
    }
}

impl Success {
    fn document(&self, status: u16) -> Value {
        let status = StatusCode::from_u16(status).ok();
        let reason = status.and_then(|it| it.canonical_reason());
        let mut document = json!({ "description": reason.unwrap_or_default() });
        if !self.content.is_empty() {
            document["content"] = json!(self.content);
        }
        if !self.headers.is_empty() {
            document["headers"] = json!(self.headers);
        }
        document
    }
}

/// Takes what types say.
impl Described<'_> {
    pub(super) fn permit(&mut self, access: Access, local_only: Option<Code>) {
        self.operation.access = access;
        self.operation.local_only = local_only;
        self.common(access.codes());
        if access == Access::Callers {
            self.operation.takes_credential = true;
        }
    }

    /// The places of the path, whose types are `T` or the members of the tuple `T`.
    pub(super) fn places<T: JsonSchema>(&mut self) {
        let schema = self.schemas.of_request::<T>();
        let places = self.operation.places();
        let members = schema.get("prefixItems").and_then(Value::as_array).cloned();
        let members = members.unwrap_or_else(|| vec![schema]);
        for (name, mut schema) in places.into_iter().zip(members) {
            if schema["type"] == "string" && schema.get("enum").is_none() {
                schema["minLength"] = json!(1);
            }
            let example = example_of_place(&self.operation.route, &name);
            self.operation.parameters.push(json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": schema,
                "example": example,
            }));
            self.common("path_invalid");
        }
    }

    /// The members of `T`, each as a parameter.
    pub(super) fn query<T: JsonSchema>(&mut self) {
        let schema = self.schemas.of_request::<T>();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let members = schema["properties"].as_object().cloned();
        for (name, mut schema) in members.unwrap_or_default() {
            let about = without_null(&mut schema);
            let mut parameter = json!({
                "name": name,
                "in": "query",
                "required": required.contains(&json!(name)),
                "schema": schema,
            });
            if let Some(about) = about {
                parameter["description"] = about;
            }
            self.operation.parameters.push(parameter);
        }
        self.common("query_invalid");
    }

    pub(super) fn json_body<T: JsonSchema>(&mut self) {
        let schema = self.schemas.of_request::<T>();
        self.take_body("application/json", schema);
    }

    pub(super) fn text_body(&mut self, media_type: &'static str) {
        self.take_body(media_type, json!({ "type": "string" }));
    }

    fn take_body(&mut self, media_type: &'static str, schema: Value) {
        self.operation.body = Some(Body {
            media_type,
            schema,
            example: None,
        });
        self.common(OF_BODIES);
    }

    pub(super) fn json_answer<T: JsonSchema>(&mut self, status: StatusCode) {
        let schema = self.schemas.of_answer::<T>();
        self.answer(status, "application/json", schema);
    }

    pub(super) fn text_answer(&mut self) {
        let text = json!({ "type": "string" });
        self.answer(StatusCode::OK, "text/plain; charset=utf-8", text);
    }

    fn answer(&mut self, status: StatusCode, media_type: &str, schema: Value) {
        let answer = self.operation.answers.entry(status.as_u16()).or_default();
        let content = json!({ "schema": schema });
        answer.content.insert(media_type.to_owned(), content);
    }

    /// A header of the answers so far.
    pub(super) fn answer_header(&mut self, name: &str, about: &str) {
        for answer in self.operation.answers.values_mut() {
            let header = json!({ "description": about, "schema": { "type": "string" } });
            answer.headers.insert(name.to_owned(), header);
        }
    }

    fn common(&mut self, codes: &'static str) {
        self.operation.common_codes.extend(problems::names(codes));
    }
}

/// Takes what no type says.
impl Described<'_> {
    /// Says what the route does, in the words of docs/api.md.
    pub(super) fn does(self, words: &'static str) -> Self {
        self.operation.does = words;
        self
    }

    /// Codes beyond those that all routes of its kind have.
    pub(super) fn codes(self, codes: &'static str) -> Self {
        self.operation.own_codes.extend(problems::names(codes));
        self
    }

    /// Only callers with a certificate or on the admin socket.
    pub(super) fn without_credential(self) -> Self {
        self.operation.takes_credential = false;
        self
    }

    /// Only callers with a valid certificate or on the admin socket.
    pub(super) fn without_grants(self) -> Self {
        self.operation.takes_ended_leaves = false;
        self.without_credential()
    }

    /// A request header that the handler reads by itself.
    pub(super) fn header(self, name: &str, about: &str, example: &str) -> Self {
        self.operation.parameters.push(json!({
            "name": name,
            "in": "header",
            "required": false,
            "description": about,
            "schema": { "type": "string" },
            "example": example,
        }));
        self
    }

    /// A body of JSON that the handler reads by itself.
    pub(super) fn reads<T: JsonSchema>(mut self) -> Self {
        self.json_body::<T>();
        self
    }

    /// A body of another media type that the handler reads by itself.
    pub(super) fn reads_media(mut self, media_type: &'static str) -> Self {
        self.text_body(media_type);
        self
    }

    /// An example of the body.
    pub(super) fn example(self, example: Value) -> Self {
        if let Some(body) = &mut self.operation.body {
            body.example = Some(example);
        }
        self
    }

    /// An answer of JSON that is one of two types.
    pub(super) fn writes_either<A: JsonSchema, B: JsonSchema>(
        mut self,
        status: StatusCode,
    ) -> Self {
        let schemas = [self.schemas.of_answer::<A>(), self.schemas.of_answer::<B>()];
        self.answer(status, "application/json", json!({ "anyOf": schemas }));
        self
    }

    pub(super) fn writes<T: JsonSchema>(mut self) -> Self {
        self.json_answer::<T>(StatusCode::OK);
        self
    }

    /// An answer of another media type.
    pub(super) fn writes_media(mut self, media_type: &str) -> Self {
        self.answer(StatusCode::OK, media_type, json!({ "type": "string" }));
        self
    }

    /// The same as bytes.
    pub(super) fn writes_bytes(mut self, media_type: &str) -> Self {
        // OpenAPI 3.1.1, section 4.14.6.2: bytes have no type.
        self.answer(StatusCode::OK, media_type, json!({}));
        self
    }

    /// An answer without a body.
    pub(super) fn writes_nothing(self, status: StatusCode) -> Self {
        self.operation.answers.entry(status.as_u16()).or_default();
        self
    }

    /// Lines of JSON: the steps of the work, then its end.
    pub(super) fn writes_steps(self) -> Self {
        self.writes_media("application/x-ndjson")
    }
}

/// Takes `null` out of a schema of a parameter, which cannot be sent, and its description.
fn without_null(schema: &mut Value) -> Option<Value> {
    let members = schema.as_object_mut()?;
    let about = members.remove("description");
    // The default of a parameter that is left out.
    if members.get("default").is_some_and(Value::is_null) {
        members.remove("default");
    }
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|it| it != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            members.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = members.get_mut("enum") {
        values.retain(|it| !it.is_null());
    }
    if let Some(Value::Array(schemas)) = members.get_mut("anyOf") {
        schemas.retain(|it| it["type"] != "null");
    }
    about
}

/// An example of a part of a path.
fn example_of_place(route: &str, name: &str) -> Value {
    let text = match (name, route) {
        ("id", it) if it.starts_with("/v1/rolls") || it.starts_with("/v1/approvals") => {
            return json!(1);
        }
        ("id", _) => "press-7",
        ("kind", it) if it.starts_with("/v1/blocks") => "device",
        ("kind", _) => "individual",
        ("serial", _) => "4F2A9C0E5B7D81C36A0E",
        ("file", it) if it.starts_with("/crl/") => "line-1.crl",
        ("file", _) => "line-1.cer",
        ("label", _) => "device",
        ("request", _) => &STANDARD.encode(super::examples::OCSP_REQUEST),
        ("name", it) if it.starts_with("/v1/authorities") => "line-1",
        ("name", it) if it.starts_with("/v1/tokens") => "factory",
        ("name", it) if it.starts_with("/v1/profiles") => "device",
        ("authority", _) => "line-1",
        _ => "press-7",
    };
    json!(text)
}
