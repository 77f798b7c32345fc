//! Runs `hallmark push`: shows and retries the changes that provisioning services do not have yet.

use super::client::ApiClient;
use super::command::PushCommand;
use super::failure::Failure;
use super::progress::Progress;
use super::show::Show;
use serde_json::json;
use std::thread;

const COLUMNS: [&str; 7] = [
    "provisioning",
    "name",
    "since",
    "attempts",
    "parked",
    "last_error",
    "cause",
];

pub(super) fn run(client: &ApiClient, show: &Show, command: &PushCommand) -> Result<(), Failure> {
    match command {
        PushCommand::List { follow } => {
            let parked = if *follow { self::follow(client)? } else { 0 };
            show.list(&client.get("/v1/push")?, &COLUMNS, &["due_at"])?;
            if parked == 0 {
                return Ok(());
            }
            Err(Failure::Failed(format!(
                "{parked} changes are parked; correct what LAST ERROR names, then run `hallmark \
                 push retry`"
            )))
        }
        PushCommand::Retry { name } => {
            show.record(&client.post("/v1/push/retry", &json!({ "name": name }))?)
        }
    }
}

/// Waits until no change waits. Returns how many are parked.
fn follow(client: &ApiClient) -> Result<u64, Failure> {
    let progress = Progress::new("push");
    let mut most = 0;
    loop {
        let push = &client.get("/v1/status")?["push"];
        let count = |member: &str| push[member].as_u64().unwrap_or(0);
        let waiting = count("waiting");
        if waiting == 0 {
            return Ok(count("parked"));
        }
        most = most.max(waiting);
        progress.at(most - waiting, most);
        thread::sleep(super::FOLLOW_EVERY);
    }
}
