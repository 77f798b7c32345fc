//! Shows the reference of the API: the parts of `/openapi.json`, which is made from the handlers.

use super::refused::Refused;
use super::schema_shown::{Member, TypeShown, kind, members, referenced, types};
use super::visit::{Frame, Visit, get, page};
use askama::Template;
use axum::extract::Path;
use axum::http::header::CONTENT_DISPOSITION;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The parts of an OpenAPI document that pages show.
#[derive(Deserialize)]
struct Document {
    paths: Map<String, Value>,
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: Map<String, Value>,
    examples: Map<String, Value>,
}

/// The routes of one subject.
struct Group {
    tag: String,
    routes: Vec<Route>,
}

/// A route with a method, in a list.
struct Route {
    id: String,
    method: String,
    path: String,
    does: String,
    who: String,
}

/// A body in one media type.
struct Content {
    media_type: String,
    kind: String,
    members: Vec<Member>,
    /// Pretty JSON, or the text.
    example: Option<String>,
}

/// An answer with its status.
struct Answer {
    status: String,
    reason: String,
    contents: Vec<Content>,
    headers: Vec<Member>,
    codes: Vec<String>,
}

#[derive(Template)]
#[template(path = "api.html")]
struct List {
    frame: Frame,
    groups: Vec<Group>,
}

#[derive(Template)]
#[template(path = "api_route.html")]
struct One {
    frame: Frame,
    route: Route,
    /// The ways to say who asks.
    schemes: Vec<String>,
    parameters: Vec<Member>,
    body: Option<Content>,
    answers: Vec<Answer>,
    problems: Vec<Answer>,
    /// A problem document of this route.
    problem: Option<String>,
    types: Vec<TypeShown>,
}

/// Shows every route by subject.
pub(super) async fn list(visit: Visit) -> Result<Response, Refused> {
    let document: Document = visit.get("/openapi.json").await?;
    let mut groups: Vec<Group> = Vec::new();
    for (tag, route, _) in document.routes() {
        match groups.last_mut() {
            Some(group) if group.tag == tag => group.routes.push(route),
            _ => groups.push(Group {
                tag,
                routes: vec![route],
            }),
        }
    }
    page(&List {
        frame: visit.frame("API"),
        groups,
    })
}

/// Shows one route: parameters, body, answers, codes, and the types in them.
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Refused> {
    let document: Document = visit.get("/openapi.json").await?;
    let found = document.routes().find(|(_, route, _)| route.id == id);
    let (_, route, operation) = found.ok_or_else(Refused::no_such_page)?;
    let responses = operation["responses"].as_object();
    let answers = responses.into_iter().flatten();
    let (answers, problems): (Vec<_>, Vec<_>) =
        answers.partition(|(status, _)| status.as_str() < "400");
    let problem = document.problem(operation);
    page(&One {
        frame: visit.frame("API"),
        schemes: schemes(operation),
        parameters: parameters(operation),
        body: contents(&operation["requestBody"]).into_iter().next(),
        types: types(&document.components.schemas, referenced(operation)),
        answers: answers.into_iter().map(Answer::new).collect(),
        problems: problems.into_iter().map(Answer::new).collect(),
        problem,
        route,
    })
}

/// Returns the document itself, for other programs.
pub(super) async fn file(visit: Visit) -> Response {
    let mut document = visit.ask(get("/openapi.json")).await;
    if document.status().is_success() {
        let name = "attachment; filename=\"hallmark-openapi.json\"";
        let name = axum::http::HeaderValue::from_static(name);
        document.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    document.into_response()
}

impl Document {
    /// Each route with its tag and its Operation Object.
    fn routes(&self) -> impl Iterator<Item = (String, Route, &Value)> {
        self.paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(move |(method, operation)| {
                let route = Route {
                    id: text(&operation["operationId"]),
                    method: method.to_uppercase(),
                    path: path.clone(),
                    does: text(&operation["summary"]),
                    who: text(&operation["description"]),
                };
                (text(&operation["tags"][0]), route, operation)
            })
        })
    }

    /// The first example of a problem of this operation that is its own.
    fn problem(&self, operation: &Value) -> Option<String> {
        let responses = operation["responses"].as_object()?;
        let preferred = ["404", "409", "400", "403", "503"];
        let response = preferred.iter().find_map(|status| responses.get(*status))?;
        let content = response["content"].as_object()?.values().next()?;
        let reference = content["examples"].as_object()?.values().next()?;
        let name = reference["$ref"].as_str()?.rsplit('/').next()?;
        Some(pretty(&self.components.examples.get(name)?["value"]))
    }
}

impl Answer {
    fn new((status, response): (&String, &Value)) -> Self {
        let content = response["content"].as_object();
        let content = content.and_then(|it| it.values().next());
        let codes = content.and_then(|it| it["schema"]["properties"]["code"]["enum"].as_array());
        let headers = response["headers"].as_object().into_iter().flatten();
        Self {
            status: status.clone(),
            reason: text(&response["description"]),
            contents: contents(response),
            headers: headers
                .map(|(name, header)| Member::new(name, header, true))
                .collect(),
            codes: codes.into_iter().flatten().map(text).collect(),
        }
    }
}

/// The media types of a body or of an answer.
fn contents(of: &Value) -> Vec<Content> {
    let contents = of["content"].as_object().into_iter().flatten();
    let contents = contents.map(|(media_type, content)| {
        let schema = &content["schema"];
        Content {
            media_type: media_type.clone(),
            kind: kind(schema),
            members: members(schema),
            example: content.get("example").map(pretty),
        }
    });
    contents.collect()
}

fn parameters(operation: &Value) -> Vec<Member> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters = parameters.map(|it| {
        let is_required = it["required"] == true;
        let member = Member::new(&text(&it["name"]), &it["schema"], is_required);
        Member {
            place: text(&it["in"]),
            about: text(&it["description"]),
            example: it.get("example").map(pretty).unwrap_or_default(),
            ..member
        }
    });
    parameters.collect()
}

fn schemes(operation: &Value) -> Vec<String> {
    let schemes = operation["security"].as_array().into_iter().flatten();
    let names = schemes.filter_map(|it| it.as_object()?.keys().next());
    names.map(|name| words(name)).collect()
}

/// `clientCertificate` becomes `client certificate`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Text as it is, and all else as JSON for people.
fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}
