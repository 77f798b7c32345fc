//! `hallmark`: the operator's command, over the admin socket.

use std::process::ExitCode;

fn main() -> ExitCode {
    hallmark_cli::ctl::main()
}
