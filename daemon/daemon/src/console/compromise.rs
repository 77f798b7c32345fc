//! Reports a device or a generation of an authority as compromised: a page says what that would
//! change, and a form on it starts it. The answer has the receipt.
//!
//! The form has the certificate that its page has shown, and the name of the subject as the
//! operator has typed it. So a form that is sent again later does not exclude the next certificate
//! of a device.

use super::actions::Sent;
use super::components::{Part, Sentence, segment};
use super::refused::Refused;
use super::rolls::{Receipt, Roll};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// Generations that a page names.
const GENERATIONS_SHOWN: usize = 50;

/// The changes that a compromise would make.
#[derive(Deserialize)]
struct Plan {
    name: String,
    generation: Option<i64>,
    certificate: Option<String>,
    is_revoked: bool,
    generations: Vec<Generation>,
    certificates: u64,
    devices: u64,
    identities: u64,
    hubs: Vec<String>,
    enrollments: Vec<Change>,
}

#[derive(Deserialize)]
struct Generation {
    authority: String,
    generation: i64,
    is_replaced: bool,
}

#[derive(Deserialize)]
struct Change {
    provisioning: String,
    kind: String,
    name: String,
    change: String,
}

impl Change {
    fn text(&self) -> &'static str {
        match self.change.as_str() {
            "added_disabled" => "is added, disabled: the service finds it first, and refuses",
            "emptied" => "loses the excluded certificates, and admits by its others",
            _ => "is disabled: it admits no device",
        }
    }
}

/// The answer to a report.
#[derive(Deserialize)]
struct Answer {
    rolls: Vec<Roll>,
    receipt: Option<Receipt>,
    #[serde(default)]
    problems: Vec<NotDone>,
    #[serde(default)]
    obstacles: Vec<String>,
}

#[derive(Deserialize)]
struct NotDone {
    detail: String,
}

/// The object of a report.
enum Subject {
    Device(String),
    Generation(String, i64),
}

impl Subject {
    /// The address of the plan in the API.
    fn plan(&self) -> String {
        match self {
            Self::Device(id) => format!("/v1/devices/{}/compromise", segment(id)),
            Self::Generation(name, number) => {
                let name = segment(name);
                format!("/v1/authorities/{name}/compromise?generation={number}")
            }
        }
    }

    /// The address and body of the report in the API.
    fn report(&self) -> (String, Value) {
        match self {
            Self::Device(id) => {
                let body = json!({ "registration_id": id, "reason": "compromise" });
                ("/v1/rolls".to_owned(), body)
            }
            Self::Generation(name, number) => {
                let path = format!("/v1/authorities/{}/rolls", segment(name));
                (
                    path,
                    json!({ "reason": "compromise", "generation": number }),
                )
            }
        }
    }
}

impl Plan {
    fn is_device(&self) -> bool {
        self.generation.is_none()
    }

    /// The device, or the authority and which generation of it.
    fn subject(&self) -> String {
        match self.generation {
            Some(number) => format!("{} generation {number}", self.name),
            None => self.name.clone(),
        }
    }

    /// The page of the navigation that leads here.
    fn section(&self) -> &'static str {
        if self.is_device() {
            "Devices"
        } else {
            "Hierarchy"
        }
    }

    /// The page that leads here.
    fn above(&self) -> String {
        if self.is_device() {
            format!("/console/devices/{}", segment(&self.name))
        } else {
            "/console/hierarchy".to_owned()
        }
    }

    /// The address of the form.
    fn address(&self) -> String {
        let name = segment(&self.name);
        match self.generation {
            Some(number) => format!("/console/compromise/generation/{name}/{number}"),
            None => format!("/console/compromise/device/{name}"),
        }
    }
}

#[derive(Template)]
#[template(path = "compromise.html")]
struct Ask {
    frame: Frame,
    plan: Plan,
    /// Why the form was not accepted.
    complaint: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "compromised.html")]
struct Reported {
    frame: Frame,
    plan: Plan,
    answer: Answer,
}

/// Says what the compromise of a device would change.
pub(super) async fn ask_device(visit: Visit, Path(id): Path<String>) -> Result<Response, Refused> {
    ask(&visit, &Subject::Device(id)).await
}

/// Says what the compromise of a generation would change.
pub(super) async fn ask_generation(
    visit: Visit,
    Path((name, number)): Path<(String, i64)>,
) -> Result<Response, Refused> {
    ask(&visit, &Subject::Generation(name, number)).await
}

async fn ask(visit: &Visit, subject: &Subject) -> Result<Response, Refused> {
    let plan: Plan = visit.get(&subject.plan()).await?;
    page(&Ask {
        frame: visit.frame(plan.section()),
        plan,
        complaint: None,
    })
}

#[derive(Deserialize)]
pub(super) struct Confirmed {
    /// The name of the subject, typed.
    #[serde(default)]
    name: String,
    /// The certificate that the page has shown.
    #[serde(default)]
    certificate: String,
}

impl Confirmed {
    /// Says why this form does not confirm the plan.
    fn complaint(&self, plan: &Plan) -> Option<(StatusCode, &'static str)> {
        if plan.certificate.as_deref().unwrap_or_default() != self.certificate {
            let text = "Nothing was excluded: it has another certificate than this form was made \
                        for. Read again what will happen, and confirm it if it still applies.";
            return Some((StatusCode::CONFLICT, text));
        }
        if plan.name != self.name.trim() {
            let text = "Nothing was excluded: the name that was typed is another one.";
            return Some((StatusCode::BAD_REQUEST, text));
        }
        None
    }
}

/// Reports a device as compromised.
pub(super) async fn report_device(
    Path(id): Path<String>,
    sent: Sent<Confirmed>,
) -> Result<Response, Refused> {
    report(sent, &Subject::Device(id)).await
}

/// Reports a generation as compromised.
pub(super) async fn report_generation(
    Path((name, number)): Path<(String, i64)>,
    sent: Sent<Confirmed>,
) -> Result<Response, Refused> {
    report(sent, &Subject::Generation(name, number)).await
}

async fn report(
    Sent { visit, form }: Sent<Confirmed>,
    subject: &Subject,
) -> Result<Response, Refused> {
    let plan: Plan = visit.get(&subject.plan()).await?;
    let frame = visit.frame(plan.section());
    if let Some((status, text)) = form.complaint(&plan) {
        let complaint = Some(text);
        let shown = page(&Ask {
            frame,
            plan,
            complaint,
        })?;
        return Ok((status, shown).into_response());
    }
    let (path, body) = subject.report();
    let answer = visit.post(&path, &body).await?;
    page(&Reported {
        frame,
        plan,
        answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, certificate: &str) -> Plan {
        let json = json!({
            "name": name, "certificate": certificate, "is_revoked": false, "generations": [],
            "certificates": 1, "devices": 1, "identities": 1, "hubs": [], "enrollments": [],
        });
        serde_json::from_value(json).expect("a plan")
    }

    #[test]
    fn a_form_confirms_the_name_and_the_certificate_of_its_page() {
        let plan = plan("press-1", "AB");
        for (name, certificate, status) in [
            (" press-1 ", "AB", None),
            ("press-2", "AB", Some(StatusCode::BAD_REQUEST)),
            ("", "AB", Some(StatusCode::BAD_REQUEST)),
            ("press-1", "CD", Some(StatusCode::CONFLICT)),
            ("press-1", "", Some(StatusCode::CONFLICT)),
        ] {
            let form = Confirmed {
                name: name.into(),
                certificate: certificate.into(),
            };
            let complaint = form.complaint(&plan).map(|(status, _)| status);
            assert_eq!(complaint, status, "{name} {certificate}");
        }
    }
}
