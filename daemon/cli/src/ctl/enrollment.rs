//! Runs `hallmark enrollment`: decides which enrollments provisioning services have.

use super::block;
use super::client::{ApiClient, segment};
use super::command::EnrollmentCommand;
use super::failure::Failure;
use super::show::Show;
use serde_json::{Value, json};

pub(super) fn run(
    client: &ApiClient,
    show: &Show,
    command: &EnrollmentCommand,
) -> Result<(), Failure> {
    match command {
        EnrollmentCommand::List { unknown: true } => show.table(
            &client.pages("/v1/enrollments?unknown=true", "id")?,
            &[
                "provisioning",
                "kind",
                "name",
                "status",
                "primary",
                "secondary",
                "observed_at",
            ],
        ),
        EnrollmentCommand::List { unknown: false } => show.table(
            &client.pages("/v1/enrollments", "id")?,
            &[
                "provisioning",
                "kind",
                "name",
                "authority",
                "status",
                "state",
                "primary",
                "secondary",
            ],
        ),
        EnrollmentCommand::Show { name } => {
            show.record(&client.get(&format!("/v1/enrollments/{}", segment(name)))?)
        }
        EnrollmentCommand::Add(new) => {
            let (kind, name) = new.which.kind_and_name();
            let body = json!({
                "kind": kind, "name": name, "authority": new.authority,
                "provisioning": new.service.provisioning,
            });
            show.record(&client.post("/v1/enrollments", &body)?)
        }
        EnrollmentCommand::Adopt {
            which,
            provisioning,
        } => {
            let (kind, name) = which.kind_and_name();
            let path = format!("/v1/enrollments/{kind}/{}/adoption", segment(name));
            show.record(&client.post(&path, &json!({ "provisioning": provisioning }))?)
        }
        EnrollmentCommand::Block(of) => {
            block::start(client, show, "group", &of.group, None, &of.cause.reason)
        }
        EnrollmentCommand::Unblock(of) => {
            block::lift(client, show, "group", &of.group, None, &of.cause.reason)
        }
        EnrollmentCommand::Remove {
            which,
            service,
            r#override,
        } => {
            let (kind, name) = which.kind_and_name();
            let given = [
                ("provisioning", &service.provisioning),
                ("override", r#override),
            ];
            let query: Vec<String> = given
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_ref()?))))
                .collect();
            client.delete(&format!(
                "/v1/enrollments/{kind}/{}?{}",
                segment(name),
                query.join("&")
            ))?;
            let mut answer = json!({ "removing": name });
            if kind == "group" {
                answer["stay"] =
                    json!(beside_group(client, name, service.provisioning.as_deref())?);
            }
            show.record(&answer)
        }
    }
}

/// Returns the registration ids of the individual enrollments that excluded a device from a group.
/// They stay when the group is removed, and admit their devices by new leaves.
fn beside_group(
    client: &ApiClient,
    group: &str,
    provisioning: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let all = client.pages("/v1/enrollments", "id")?;
    let is_beside = |it: &&Value| {
        let of = it["overlay_of"].as_str();
        it["kind"] == "individual"
            && it["state"] != "being removed"
            && of.is_some_and(|of| of.eq_ignore_ascii_case(group))
            && provisioning.is_none_or(|service| it["provisioning"] == service)
    };
    let beside = all.as_array().into_iter().flatten().filter(is_beside);
    let names = beside.filter_map(|it| it["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
