//! Starts `hallmark-token`, the worker of one token.

use std::process::ExitCode;

fn main() -> ExitCode {
    hallmark_worker::main()
}
