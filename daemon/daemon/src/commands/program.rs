//! Starts `hallmarkd`, and names the errors that a restart cannot correct.

use crate::config::ConfigurationError;
use crate::provisioning::http::PlaneError;
use crate::token::configuration::TokenConfigurationError;
use std::process::ExitCode;

/// Runs `body` as a whole program.
pub fn main(body: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    hallmark_base::program::main(body, is_configuration_error)
}

fn is_configuration_error(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigurationError>()
            || cause.is::<TokenConfigurationError>()
            || cause.is::<PlaneError>()
    })
}
