//! Reaches the admin socket as operators do: with `hallmark`, and with curl.

use crate::process::CommandOutput;
use crate::test_env::{HALLMARK, TestEnv};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// Runs `hallmark` over the admin socket.
pub(crate) struct AdminClient {
    pub(crate) socket: PathBuf,
}

impl AdminClient {
    pub(crate) fn hallmark(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = Command::new(HALLMARK);
        command.env("HALLMARK_ADMIN_SOCKET", &self.socket);
        CommandOutput::of(command.args(arguments))
    }
}

impl TestEnv {
    /// The metrics, as a monitoring system reads them.
    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics")
    }

    /// The answer to a GET over the admin socket.
    pub(crate) fn get(&self, path: &str) -> String {
        self.curl(path, &[])
    }

    /// The answer to a POST over the admin socket, which must succeed.
    pub(crate) fn post(&self, path: &str, body: &Value) -> String {
        let json = "content-type: application/json";
        self.curl(path, &["--header", json, "--data", &body.to_string()])
    }

    fn curl(&self, path: &str, more: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--unix-socket"]);
        command.arg(self.path(self.admin));
        let output = CommandOutput::of(command.arg(format!("http://localhost{path}")).args(more));
        assert_eq!(output.code, Some(0), "{output:?}");
        output.out
    }
}
