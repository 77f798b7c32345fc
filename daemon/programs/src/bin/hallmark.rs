//! Starts `hallmark`, the operator's command.

use std::process::ExitCode;

fn main() -> ExitCode {
    hallmark_cli::ctl::main()
}
