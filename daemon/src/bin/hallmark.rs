//! `hallmark`: the operator's command, over the admin socket.

use std::process::ExitCode;

fn main() -> ExitCode {
    hallmarkd::ctl::main()
}
