//! `hallmark`: the operator's command, over the admin socket.

fn main() {}
