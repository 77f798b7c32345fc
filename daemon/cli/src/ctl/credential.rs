//! Runs `hallmark device credential`.

use super::client::{ApiClient, segment};
use super::command::CredentialCommand;
use super::failure::Failure;
use super::show::Show;
use serde_json::json;

const COLUMNS: [&str; 8] = [
    "id",
    "registration_id",
    "profile",
    "state",
    "made_by",
    "expires_at",
    "used_at",
    "failures",
];

pub(super) fn run(
    client: &ApiClient,
    show: &Show,
    command: &CredentialCommand,
) -> Result<(), Failure> {
    match command {
        CredentialCommand::Make {
            id,
            profile,
            expires,
        } => {
            let body = json!({ "registration_id": id, "profile": profile, "expires": expires });
            show.record(&client.post("/v1/device-credentials", &body)?)
        }
        CredentialCommand::List => {
            let all = client.pages("/v1/device-credentials", "id")?;
            show.table(&all, &COLUMNS)
        }
        CredentialCommand::Revoke { id } => {
            client.delete(&format!("/v1/device-credentials/{}", segment(id)))?;
            show.record(&json!({ "registration_id": id, "state": "revoked" }))
        }
    }
}
